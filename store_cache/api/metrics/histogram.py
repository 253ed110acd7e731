"""Durations, counted in buckets: bounded memory, and a few dozen nanoseconds for each one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf


class Histogram:
    """`bounds` are the upper ends of the buckets, in seconds, ascending; one more has no end."""

    __slots__ = ("bounds", "counts", "total_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bucket's upper end, as Prometheus writes it, and how many are at most it."""
        ends = [*(format(bound, "g") for bound in self.bounds), "+Inf"]
        return list(zip(ends, accumulate(self.counts), strict=True))


class Histograms:
    """Histograms with the same bounds, one for each combination of labels that occurred.

    The caller sees to it that there are few combinations.
    """

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self._by_labels: dict[tuple[str, ...], Histogram] = {}

    def of(self, *labels: str) -> Histogram:
        found = self._by_labels.get(labels)
        if found is None:
            found = self._by_labels[labels] = Histogram(self.bounds)
        return found

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Histogram]]:
        return iter(self._by_labels.items())

    def summed_by(self, index: int) -> Histograms:
        """Return the histograms by one of their labels alone."""
        result = Histograms(*self.bounds)
        for labels, histogram in self:
            _merge(result.of(labels[index]), histogram)
        return result

    def total(self) -> Histogram:
        """Return all of them in one."""
        result = Histogram(self.bounds)
        for _, histogram in self:
            _merge(result, histogram)
        return result


def _merge(into: Histogram, other: Histogram) -> None:
    into.counts = [a + b for a, b in zip(into.counts, other.counts, strict=True)]
    into.total_seconds += other.total_seconds


def quantile(bounds: Sequence[float], counts: Iterable[int], share: float) -> float | None:
    """Estimate below which duration `share` of the counts are; None if there are none.

    As Prometheus does: evenly within a bucket, and at most the highest bound.
    """
    counts = list(counts)
    wanted = share * sum(counts)
    if not wanted:
        return None
    below, lower = 0, 0.0
    for bound, count in zip((*bounds, inf), counts, strict=True):
        if count and below + count >= wanted:
            if bound == inf:
                return bounds[-1]
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return bounds[-1]
