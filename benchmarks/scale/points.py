"""What was measured of real Centrals with real stores, what follows from it, and how it is shown.

A point is one way to spread the feed with so many stores. From the points of a way follow its
costs: with one store nearly all is the write, and what three hundred take more is for them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness.tables import figure, table
from benchmarks.scale.page import USABLE, Habits, bit_rate, most_stores
from benchmarks.scale.steady import Habit

FOLDER = "one Central, a folder"
POSTGRES = "two Centrals, PostgreSQL"
NATS = "two Centrals, PostgreSQL, NATS"
WAYS = (FOLDER, POSTGRES, NATS)

PAGE = 100
"""Events: as many as a store asks for at most, unless it is set otherwise."""

SALES = (6, 60)
"""Of each store in an hour."""

REPORT_SECONDS = 60.0
"""How often a store tells Central how it is."""


@dataclass(frozen=True)
class Watched:
    """What happened in some seconds. `requests`: at Central, of stores and publisher, without the
    sales. `cpu`: processor seconds by program."""

    seconds: float
    events: int
    requests: int
    cpu: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """One way with so many stores, once: while nothing is sold and while there are sales.
    `visible_seconds`: of each sale, from sending it to Central until a store shows it. `alone`:
    processor seconds by program, while nobody follows, for one `report` of a store, one `write`
    and one `page` of events, where they were measured. `load`: of the machine."""

    way: str
    stores: int
    quiet: Watched
    busy: Watched
    visible_seconds: Sequence[float]
    alone: Mapping[str, Mapping[str, float]]
    load: float

    @property
    def answers(self) -> int:
        """How often somebody was given an event: over NATS each store each event, else polls."""
        return self.stores * self.busy.events if self.way == NATS else self.busy.requests


@dataclass(frozen=True)
class Costs:
    """Processor seconds by program. `background`: of a second in which nobody asks. `held`: of each
    store and second in which nothing is sold. `answer`: for giving one event to one store, alone;
    `more`: for each other event of the same answer."""

    background: Mapping[str, float]
    held: Mapping[str, float]
    answer: Mapping[str, float]
    more: Mapping[str, float]
    write: Mapping[str, float]
    report: Mapping[str, float]

    @property
    def programs(self) -> Sequence[str]:
        return tuple(self.answer)

    def cores(
        self, program: str, *, stores: float, events: float, answers: float, more: float = 0.0
    ) -> float:
        """Return the cores that a program keeps busy, by what happens in a second."""
        return (
            self.background[program]
            + self.held[program] * stores
            + self.answer[program] * answers
            + self.more[program] * more
            + self.write[program] * events
            + self.report[program] * stores / REPORT_SECONDS
        )


# -- what follows ------------------------------------------------------------------------------


def of(points: Iterable[Point], way: str) -> dict[int, list[Point]]:
    """Return the rounds of a way by the number of stores."""
    found: dict[int, list[Point]] = {}
    for point in points:
        if point.way == way:
            found.setdefault(point.stores, []).append(point)
    return dict(sorted(found.items()))


def costs_of(points: Sequence[Point], way: str) -> Costs:
    """Return the median of the rounds' costs, from the fewest and the most stores."""
    rounds = of(points, way)
    pairs = list(zip(rounds[min(rounds)], rounds[max(rounds)], strict=True))
    costs: dict[str, dict[str, float]] = {each.name: {} for each in fields(Costs)}
    for program in pairs[0][0].busy.cpu:
        held, background, answer = map(
            statistics.median, zip(*(_following(*pair, program) for pair in pairs), strict=True)
        )
        found = {"held": held, "background": background, "answer": answer}
        for name in ("report", "write", "page"):
            found[name] = statistics.median(
                each.alone[name][program]
                for each in points
                if each.way == way and name in each.alone
            )
        found["more"] = max(0.0, (found.pop("page") - answer) / (PAGE - 1))
        if program == "NATS":  # each event is a message of its own
            found["more"] = answer
        elif way == NATS:  # which stores do not ask: what is left is noise
            found |= {"held": 0.0, "answer": 0.0, "more": 0.0}
        for name, cost in found.items():
            costs[name][program] = cost
    return Costs(**costs)


def _following(few: Point, many: Point, program: str) -> tuple[float, float, float]:
    """Return what a program needs to hold the poll of one store for a second, for a second
    whatever happens, and to give one event to one store."""
    low, high = _rate(few.quiet, program), _rate(many.quiet, program)
    held = max(0.0, (high - low) / (many.stores - few.stores))
    background = max(0.0, low - held * few.stores)
    low, high = (
        point.busy.cpu[program] - _rate(point.quiet, program) * point.busy.seconds
        for point in (few, many)
    )
    return held, background, max(0.0, (high - low) / (many.answers - few.answers))


def _rate(watched: Watched, program: str) -> float:
    return watched.cpu[program] / watched.seconds


# -- tables ------------------------------------------------------------------------------------


def measured_table(points: Sequence[Point], habit: Habit) -> str:
    """Return what was measured, beside what the simulation says of the requests."""
    head = (
        "",
        "stores",
        "requests/s at Central",
        "simulated",
        "Central",
        "PostgreSQL",
        "NATS, publisher",
        "visible: p50",
        "longest",
    )
    rows = [
        _measured_row(way, stores, rounds, habit)
        for way in WAYS
        for stores, rounds in of(points, way).items()
    ]
    return table(head, rows)


def _measured_row(way: str, stores: int, rounds: Sequence[Point], habit: Habit) -> tuple[str, ...]:
    requests = statistics.median(each.busy.requests / each.busy.seconds for each in rounds)
    visible = [seconds for each in rounds for seconds in each.visible_seconds]
    return (
        way,
        f"{stores:,}",
        figure(requests),
        "" if way == NATS else figure(stores * habit.requests),
        *(_busy_cell(rounds, programs) for programs in (("Central",), ("PostgreSQL",))),
        _busy_cell(rounds, ("NATS", "publisher")),
        f"{statistics.median(visible) * 1e3:,.0f} ms",
        f"{max(visible) * 1e3:,.0f} ms",
    )


def _busy_cell(rounds: Sequence[Point], programs: Sequence[str]) -> str:
    """Return the share of one core that these programs kept busy."""
    shares = [
        sum(each.busy.cpu.get(program, 0.0) for program in programs) / each.busy.seconds
        for each in rounds
    ]
    return f"{statistics.median(shares):.1%}" if any(shares) else ""


def costs_table(points: Sequence[Point]) -> str:
    head = (
        "",
        "program",
        "one event to one store",
        "each more in one answer",
        "a quiet store, a minute",
        "one write",
        "one report",
    )
    rows = []
    for way in WAYS:
        costs = costs_of(points, way)
        rows += [
            (
                way,
                program,
                _time(costs.answer[program]),
                _time(costs.more[program]),
                _time(60 * costs.held[program]),
                _time(costs.write[program]),
                _time(costs.report[program]),
            )
            for program in costs.programs
        ]
    return table(head, rows)


def _time(seconds: float) -> str:
    if not seconds:
        return ""
    return f"{figure(seconds * 1e6)} µs" if seconds < 1e-3 else f"{figure(seconds * 1e3)} ms"


# -- how many stores ---------------------------------------------------------------------------

HAVE = {FOLDER: {"Central": 1}, POSTGRES: {"Central": 2}, NATS: {"Central": 2, "NATS": 2}}
"""Cores that limit a way: a process of Central uses one, a NATS server as many as it gets."""


def carried_table(points: Sequence[Point], habits: Habits) -> str:
    """Return how many stores each way carries, with `USABLE` of the cores that it has."""
    head = ("", "cores", *(f"{hourly} sales an hour in each" for hourly in SALES))
    rows = []
    for way in WAYS:
        have = ", ".join(f"{cores} for {program}" for program, cores in HAVE[way].items())
        costs = costs_of(points, way)
        rows.append((way, have, *(f"{_carried(costs, way, habits, h):,}" for h in SALES)))
    return table(head, rows)


def _carried(costs: Costs, way: str, habits: Habits, hourly: int) -> int:
    def share(stores: int) -> float:
        """Return the largest share of its cores that a program keeps busy."""
        events = stores * hourly / 3600
        polls = stores * (events if way == NATS else polls_at(habits, events))
        answers = min(polls, stores * events)
        about = {"stores": stores, "events": events, "answers": answers}
        more = stores * events - answers
        return max(
            costs.cores(program, more=more, **about) / cores for program, cores in HAVE[way].items()
        )

    return most_stores(share, USABLE)


def polls_at(habits: Habits, events: float) -> float:
    """Return one store's polls a second, interpolated in the logarithms of both: over most of the
    range a poll brings one event."""
    known = sorted(habits)
    if events <= known[1]:
        low, high = habits[known[0]].requests, habits[known[1]].requests
        return low + (high - low) * events / known[1]
    for low, high in pairwise(known[1:]):
        if events <= high:
            share = log(events / low) / log(high / low)
            return float(
                habits[low].requests * (habits[high].requests / habits[low].requests) ** share
            )
    return habits[known[-1]].requests


# -- what to buy -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """`sales`: of each store in an hour."""

    stores: int
    sales: int

    @property
    def events(self) -> float:
        """Events a second of the whole chain: each sale is one."""
        return self.stores * self.sales / 3600


CHAINS = tuple(Chain(stores, sales) for stores in (100, 1_000, 10_000) for sales in SALES)


def buy_table(
    points: Sequence[Point], habits: Mapping[str, Mapping[Chain, Habit]], event_bytes: float
) -> str:
    """Return the cores of each chain, by how its feed is spread."""
    head = (
        "stores",
        "sales of each",
        "the feed by",
        "requests/s at Central",
        "cores: Central",
        "PostgreSQL",
        "NATS, publisher",
        "events go out at",
    )
    rows = []
    for chain in CHAINS:
        polls = {f"polls, {mode}": each[chain].requests for mode, each in habits.items()}
        rows += [
            _buy_row(chain, name, costs_of(points, POSTGRES), chain.stores * each, event_bytes)
            for name, each in polls.items()
        ]
        rows.append(_buy_row(chain, "NATS", costs_of(points, NATS), None, event_bytes))
    return table(head, rows)


def _buy_row(
    chain: Chain, name: str, costs: Costs, polls: float | None, event_bytes: float
) -> tuple[str, ...]:
    """Return the needs of a chain; `polls`: a second at Central, None if its feed is on NATS."""
    deliveries = chain.stores * chain.events
    answers = deliveries if polls is None else min(polls, deliveries)
    cores = {
        program: costs.cores(
            program,
            stores=chain.stores,
            events=chain.events,
            answers=answers,
            more=deliveries - answers,
        )
        / USABLE
        for program in costs.programs
    }
    asked = chain.events if polls is None else polls
    return (
        f"{chain.stores:,}",
        f"{chain.sales} an hour",
        name,
        figure(asked + chain.events + chain.stores / REPORT_SECONDS),
        figure(cores["Central"]),
        figure(cores["PostgreSQL"]),
        figure(cores["NATS"] + cores["publisher"]) if polls is None else "",
        bit_rate(8 * event_bytes * deliveries),
    )


# -- kept figures ------------------------------------------------------------------------------


def save(points: Sequence[Point], path: Path) -> None:
    lines = b",\n".join(orjson.dumps(point) for point in points)
    path.write_bytes(b"[\n" + lines + b"\n]\n")


def load(path: Path) -> list[Point]:
    return [_point(each) for each in orjson.loads(path.read_bytes())]


def _point(found: Mapping[str, Any]) -> Point:
    quiet, busy = Watched(**found["quiet"]), Watched(**found["busy"])
    return Point(**{**found, "quiet": quiet, "busy": busy})
