"""Returns of Central, rates of polls, and what was measured of Centrals, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.plots import OWN, PEER, frame, new_figure
from benchmarks.scale.outage import Return
from benchmarks.scale.page import Habits
from benchmarks.scale.points import NATS, WAYS, Point, costs_of, of
from benchmarks.scale.steady import Habit

SHOWN_SECONDS = 60.0
COLOURS = (OWN, "#d97706", PEER)


def draw_return(returns: Mapping[str, Return], path: Path, *, title: str, of: int) -> None:
    """Draw requests by tenths of a second above, and the share of stores in sync below."""
    drawn = new_figure(8, 6)
    above, below = drawn.subplots(2, 1, sharex=True)
    for (name, found), colour in zip(returns.items(), COLOURS, strict=False):
        times = of / found.outage.stores
        tenths = [number / 10 for number in range(len(found.arrived))]
        above.step(tenths, [a * times for a in found.arrived], label=name, color=colour, lw=1)
        shares = [100 * (n + 1) / found.outage.stores for n in range(len(found.in_sync))]
        below.plot(found.in_sync, shares, label=name, color=colour)
    above.set_yscale("symlog", linthresh=100)
    above.set_ylabel("requests in 0.1 s")
    below.set_ylabel("% of the stores in sync")
    below.set_xlabel("seconds since Central's return")
    below.set_xlim(0, SHOWN_SECONDS)
    above.legend(frameon=False)
    frame(above, title)
    frame(below, "")
    drawn.savefig(path, dpi=110, bbox_inches="tight")


def draw_polls(modes: Mapping[str, Habits], path: Path, *, stores: int) -> None:
    """Draw the polls at Central by the events of the chain."""
    drawn = new_figure(8, 4.5)
    axes = drawn.subplots()
    for (mode, habits), colour in zip(modes.items(), COLOURS, strict=False):
        events = [each for each in habits if each]
        axes.plot(
            events, [habits[e].requests * stores for e in events], "o-", label=mode, color=colour
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("events a second in the whole chain")
    axes.set_ylabel("polls a second at Central")
    axes.legend(frameon=False)
    frame(axes, f"{stores:,} stores")
    drawn.savefig(path, dpi=110, bbox_inches="tight")


SIZES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)


def draw_measured(points: Sequence[Point], habit: Habit, path: Path, *, events: float) -> None:
    """Draw requests at Central above, simulated and measured; and below the cores that all programs
    beside the stores keep busy, by the costs that follow from what was measured."""
    drawn = new_figure(8, 7)
    above, below = drawn.subplots(2, 1, sharex=True)
    polls = [stores * habit.requests for stores in SIZES]
    above.plot(SIZES, polls, "-", color=PEER, label="polls, simulated")
    above.plot(SIZES, [events] * len(SIZES), ":", color=PEER, label="one request for each event")
    for way, colour in zip(WAYS, (OWN, "#d97706", "#15803d"), strict=True):
        rounds, costs = of(points, way), costs_of(points, way)
        stores = [number for number, each in rounds.items() for _ in each]
        seen = [each.busy for number in rounds for each in rounds[number]]
        above.plot(stores, [s.requests / s.seconds for s in seen], "o", color=colour, label=way)
        busy = [sum(s.cpu.values()) / s.seconds for s in seen]
        below.plot(stores, busy, "o", color=colour, label=way)
        follow = [
            sum(
                costs.cores(
                    name,
                    stores=n,
                    events=events,
                    answers=n * (events if way == NATS else habit.requests),
                )
                for name in costs.programs
            )
            for n in SIZES
        ]
        below.plot(SIZES, follow, "-" if way == NATS else "--", color=colour, lw=1)
    below.axhline(1.0, color=PEER, lw=1)
    for axes in (above, below):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend(frameon=False)
    above.set_ylabel("requests a second at Central")
    below.set_ylabel("cores, without those of the stores")
    below.set_xlabel("stores")
    frame(above, f"{events:g} events a second in the chain: points measured, lines continued")
    frame(below, "")
    drawn.savefig(path, dpi=110, bbox_inches="tight")
