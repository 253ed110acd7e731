"""Whether a process keeps to what it has: its memory, descriptors, threads and tasks over time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MOST_MEMORY_BYTES = 8_000_000
"""How much the median may rise. The allocator keeps parts of what a full sync built and freed, more
or less of them each time. A hundred bytes that are lost with each read, at the campaign's 90 reads
a second, are 8 MB within the 15 minutes between the middles of two quarters that are compared."""

SALE_BYTES = 1_000
"""What may be kept of a sale for a day (W5). Its key takes 190 bytes (docs/benchmarks/keys.md), but
tables grow in steps. Two soaks of half an hour rose by 600 and 1,000 bytes for each sale, whatever
else there was to it."""

MOST_OPEN_FILES = 4
"""Connections open and close all the time, so medians differ by a few. What one fault leaves open
adds up to fifty in a run of 30 minutes."""

MOST_THREADS = 2
"""The pool of threads starts its last ones late; it has six at most on two cores."""

MOST_TASKS = 6
"""Each connection has one, as have requests under way."""


@dataclass(frozen=True)
class Sample:
    """What the process has at one moment. `sales`: made so far, under keys of their own."""

    memory_bytes: int
    open_files: int
    threads: int
    tasks: int
    sales: int


@dataclass(frozen=True)
class Rise:
    """By how much a median of the last quarter is above that of the second."""

    what: str
    before: float
    after: float
    most: float

    @property
    def is_flat(self) -> bool:
        return self.after - self.before <= self.most

    def __str__(self) -> str:
        change = f"{self.what:16} {self.before:8.1f} -> {self.after:8.1f}"
        return f"{change}, at most +{self.most:.1f}{'' if self.is_flat else '  NOT FLAT'}"


def rises(samples: Sequence[Sample]) -> list[Rise]:
    """Compare the second quarter of the samples with the last; the first one is the warm-up.

    Raises ValueError if there are fewer than four.
    """
    if len(samples) < 4:
        raise ValueError("there are too few samples to compare quarters")
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    sales = _median(after, lambda one: one.sales) - _median(before, lambda one: one.sales)
    most_memory = MOST_MEMORY_BYTES + sales * SALE_BYTES
    compared: Iterable[tuple[str, Callable[[Sample], float], float]] = (
        ("memory, MB", lambda one: one.memory_bytes / 1e6, most_memory / 1e6),
        ("descriptors", lambda one: one.open_files, MOST_OPEN_FILES),
        ("threads", lambda one: one.threads, MOST_THREADS),
        ("tasks", lambda one: one.tasks, MOST_TASKS),
    )
    return [
        Rise(what, _median(before, of), _median(after, of), most) for what, of, most in compared
    ]


def _median(samples: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    return statistics.median(map(of, samples))
