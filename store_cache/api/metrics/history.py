"""The last hour of the store, a point for every ten seconds, for charts.

Points are kept in memory and begin anew with each start of the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import sub
from typing import Any

from store_cache.api.content.clock import Clock, rfc3339
from store_cache.api.metrics.counts import LOOKUP, PAGE, PRODUCT, Counts
from store_cache.api.metrics.histogram import Histograms, quantile
from store_cache.api.metrics.watched import Watched

POINT_SECONDS = 10
MOST_MINUTES = 60
_POINTS = MOST_MINUTES * 60 // POINT_SECONDS

_READS = {(PRODUCT, "GET"), (PRODUCT, "HEAD"), (PAGE, "GET"), (PAGE, "HEAD"), (LOOKUP, "POST")}

Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Totals:
    """What was counted from the start until `at`, on the loop's clock. `visible`: by bucket."""

    at: float
    reads: int
    writes: int
    errors: int
    central_errors: int
    visible: tuple[int, ...]


class History:
    """Run it to collect points."""

    def __init__(self, counts: Counts, watched: Watched, clock: Clock) -> None:
        self._counts = counts
        self._watched = watched
        self._clock = clock
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._before = self._totals()

    async def run(self) -> None:
        """Add a point every `POINT_SECONDS`, for ever."""
        while True:
            await asyncio.sleep(self._before.at + POINT_SECONDS - self._clock.uptime())
            self.add_point()

    def points(self, minutes: int) -> list[Point]:
        """Return the points of the last `minutes`, oldest first."""
        wanted = minutes * 60 // POINT_SECONDS
        return list(islice(self._points, max(0, len(self._points) - wanted), None))

    def add_point(self) -> None:
        """Add a point about the time since the one before."""
        before, now = self._before, self._totals()
        self._before = now
        # Longer than POINT_SECONDS if the machine was asleep.
        seconds = max(now.at - before.at, 0.001)
        visible = list(map(sub, now.visible, before.visible))
        watched = self._watched
        freshness = watched.freshness.measure()
        self._points.append(
            {
                "at": rfc3339(self._clock.now()),
                "state": watched.state.find().value,
                "ageSeconds": _rounded(freshness.age_seconds),
                "lag": watched.lag,
                "visibleSeconds": {
                    "p50": _rounded(quantile(self._counts.visible.bounds, visible, 0.5)),
                    "p99": _rounded(quantile(self._counts.visible.bounds, visible, 0.99)),
                },
                "readsPerSecond": _rounded((now.reads - before.reads) / seconds),
                "writesPerSecond": _rounded((now.writes - before.writes) / seconds),
                "errorsPerSecond": _rounded((now.errors - before.errors) / seconds),
                "centralErrorsPerSecond": _rounded(
                    (now.central_errors - before.central_errors) / seconds
                ),
            }
        )

    def _totals(self) -> _Totals:
        counts = self._counts
        return _Totals(
            at=self._clock.uptime(),
            reads=_sum(counts.requests, lambda labels: labels[:2] in _READS),
            writes=_sum(counts.writes, lambda _: True),
            errors=_sum(counts.requests, lambda labels: labels[2] >= "500"),
            central_errors=_sum(counts.exchanges, lambda labels: not labels[1].startswith("2")),
            visible=tuple(counts.visible.total().counts),
        )


def _sum(counted: Histograms, is_wanted: Callable[[tuple[str, ...]], bool]) -> int:
    return sum(histogram.count for labels, histogram in counted if is_wanted(labels))


def _rounded(value: float | None) -> float | None:
    """Return the value for JSON, which has no infinity."""
    if value is None or value == float("inf"):
        return None
    return round(value, 4)
