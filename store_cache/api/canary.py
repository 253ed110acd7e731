"""Canaries: a version that is tried beside the others serves the requests that name it.

A proxy chooses the store by the header `X-Canary`. The store passes it on to Central, says in its
answer which one it took, and notes in the log who calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from store_cache.api.metrics.counts import Counts
from store_cache.central import carried

HEADER = carried.CANARY
ECHO_HEADER = "X-Canary-Echo"

MOST_LOGGED = 100
"""So many different canaries are logged in a minute: clients choose their names."""

_SECONDS_BETWEEN_LINES = 60.0

log = logging.getLogger(__name__)


class Canaries:
    """Notes the canary of each request; `counts` is None where metrics are off."""

    def __init__(self, counts: Counts | None) -> None:
        self._counts = counts
        self._logged_at: dict[str, float] = {}

    def note(self, values: Sequence[str]) -> str | None:
        """Have the request of this context carry on the canary that these values of the header
        name, and return it; None if they name none."""
        canary = carried.read_canary(values)
        carried.canary.set(canary)
        if canary is not None:
            if self._counts is not None:
                self._counts.canary_requests += 1
            self._log(canary)
        return canary

    def _log(self, canary: str) -> None:
        """Log the first call of each canary in a minute."""
        now = asyncio.get_running_loop().time()
        logged_at = self._logged_at
        if canary not in logged_at and len(logged_at) >= MOST_LOGGED:
            oldest = next(iter(logged_at))
            if now < logged_at[oldest] + _SECONDS_BETWEEN_LINES:
                return
            del logged_at[oldest]
        if now >= logged_at.get(canary, -_SECONDS_BETWEEN_LINES) + _SECONDS_BETWEEN_LINES:
            logged_at.pop(canary, None)
            logged_at[canary] = now
            log.info("called with canary PR: %s", canary)
