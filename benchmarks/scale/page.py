"""The tables of docs/scale.md, each between two markers of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import log
from pathlib import Path

from benchmarks.harness.tables import figure, table
from benchmarks.scale.outage import Return
from benchmarks.scale.sizes import EMPTY, EVENTS_500, FULL_SYNC, WRITE, Size
from benchmarks.scale.steady import Habit

Habits = Mapping[float, Habit]
"""What one store does, by the events a second of the whole chain, from none on."""

USABLE = 0.5
"""The share of Central's capacity that steady load may take: the rest is for returns."""


def replaced(text: str, name: str, body: str) -> str:
    """Return the page with `body` between the markers of `name`. Raises ValueError without them."""
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the page has no lines {begin.strip()!r} and {end!r}: add them")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}{body.strip()}\n{end}{rest.partition(end)[2]}"


def write(page: Path, tables: Mapping[str, str]) -> None:
    text = page.read_text(encoding="utf-8")
    for name, body in tables.items():
        text = replaced(text, name, body)
    page.write_text(text, encoding="utf-8")


# -- sizes and steady load ---------------------------------------------------------------------


def sizes_table(sizes: Mapping[str, Size]) -> str:
    head = ("exchange", "requests", "bytes up", "bytes down")
    rows = [(w, f"{s.requests:,}", f"{s.up:,}", f"{s.down:,}") for w, s in sizes.items()]
    return table(head, rows)


def bytes_per_second(sizes: Mapping[str, Size], habit: Habit) -> float:
    """Return what one store sends and receives by following the feed, heads included."""
    empty = sizes[EMPTY]
    per_event = (sizes[EVENTS_500].down - empty.down) / 500
    return habit.requests * (empty.up + empty.down) + habit.events * per_event


def steady_table(sizes: Mapping[str, Size], modes: Mapping[str, Habits]) -> str:
    """Return the requests and bits of one, a hundred and ten thousand stores."""
    head = ("chain's events/s", "mode", "1 store", "100 stores", "10,000 stores")
    rows = [
        (f"{events:g}", mode, *(_load(sizes, habit, stores) for stores in (1, 100, 10_000)))
        for events in next(iter(modes.values()))
        for mode, habit in ((mode, habits[events]) for mode, habits in modes.items())
    ]
    return table(head, rows)


def _load(sizes: Mapping[str, Size], habit: Habit, stores: int) -> str:
    bits = 8 * bytes_per_second(sizes, habit) * stores
    return f"{figure(habit.requests * stores)}/s, {bit_rate(bits)}"


def bit_rate(bits: float) -> str:
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:
            return f"{figure(bits)} {unit}"
        bits /= 1000
    return f"{figure(bits)} Gbit/s"


def full_sync_table(sizes: Mapping[str, Size]) -> str:
    head = ("stores that need a full sync", "pages", "bytes", "at 1 Gbit/s", "at 10 pages/s")
    sync = sizes[FULL_SYNC]
    return table(head, [_full_syncs(sync, stores) for stores in (1, 100, 10_000)])


def _full_syncs(sync: Size, stores: int) -> tuple[str, ...]:
    total = (sync.up + sync.down) * stores
    pages = sync.requests * stores
    return (f"{stores:,}", f"{pages:,}", size(total), time(total * 8 / 1e9), time(pages / 10))


def size(total: float) -> str:
    return f"{figure(total / 1e6)} MB" if total < 1e9 else f"{figure(total / 1e9)} GB"


def time(seconds: float) -> str:
    if seconds < 120:
        return f"{figure(seconds)} s"
    return f"{figure(seconds / 60)} min" if seconds < 7200 else f"{figure(seconds / 3600)} h"


# -- how many stores ---------------------------------------------------------------------------


def requests_at(habits: Habits, events_per_second: float) -> float:
    """Return one store's requests per second, interpolated in logarithms."""
    known = sorted(habits)
    if events_per_second <= known[1]:
        share = events_per_second / known[1]
        return _between(habits[known[0]].requests, habits[known[1]].requests, share)
    for low, high in pairwise(known[1:]):
        if events_per_second <= high:
            share = log(events_per_second / low) / log(high / low)
            return _between(habits[low].requests, habits[high].requests, share)
    return habits[known[-1]].requests


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def most_stores(load: Callable[[int], float], usable: float) -> int:
    """Return the most stores whose load, which grows with their number, is at most `usable`."""
    high = 1
    while load(high) <= usable and high < 10_000_000:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if load(middle) <= usable else (low, middle)
    return low


def carried_table(modes: Mapping[str, Habits], capacities: Sequence[float]) -> str:
    """Return how many stores a Central carries, by what each of them sells."""
    head = ("sales of each store", "mode", *(f"{c:,.0f} requests/s" for c in capacities))
    rows = [
        (f"{hourly} an hour", mode, *(_carried(habits, hourly / 3600, c) for c in capacities))
        for hourly in (0, 6, 60, 360)
        for mode, habits in modes.items()
    ]
    proxied = [
        (f"{hourly} an hour", "continuous, proxy", *(_behind(hourly / 3600, c) for c in capacities))
        for hourly in (6, 60, 360)
    ]
    return table(head, [*rows, *proxied])


def _carried(habits: Habits, sales: float, capacity: float) -> str:
    def load(stores: int) -> float:
        return stores * (requests_at(habits, stores * sales) + sales)

    return f"{most_stores(load, capacity * USABLE):,}"


def _behind(sales: float, capacity: float) -> str:
    """Return Central's load behind a proxy that sends identical polls once: the writes, and one
    poll per event."""
    return f"{most_stores(lambda stores: 2 * stores * sales, capacity * USABLE):,}"


# -- returns -----------------------------------------------------------------------------------


def return_table(returns: Mapping[str, Return], *, of: int) -> str:
    """Return the table for `of` stores: figures of fewer stores, played with their part of the
    capacity, are multiplied."""
    head = (
        "",
        "busiest 0.1 s",
        "busiest second",
        "refused",
        "half in sync",
        "99 % in sync",
        "all in sync",
        "full syncs begun",
    )
    return table(head, [(name, *_return_cells(found, of)) for name, found in returns.items()])


def _return_cells(found: Return, of: int) -> tuple[str, ...]:
    times = of / found.outage.stores
    counts = (found.busiest_tenth, found.busiest_second, sum(found.refused))
    return (
        *(f"{count * times:,.0f}" for count in counts),
        *(_step_cell(found, share) for share in (0.5, 0.99, 1.0)),
        f"{found.full_syncs * times:,.0f}",
    )


def _step_cell(found: Return, share: float) -> str:
    seconds = found.in_sync_after(share)
    if seconds is None:
        return f"not in {time(found.outage.watched_seconds)}"
    return time(seconds)


def writes_line(sizes: Mapping[str, Size]) -> str:
    write = sizes[WRITE]
    return f"A write is {write.up + write.down:,} bytes both ways, and puts one event on the feed."
