"""Log lines about what clients do over and over: a few a minute, and the number of the others."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Mapping

_SECONDS_BETWEEN_LINES = 60.0

MOST_LINES = 20
"""So many lines of each kind show what happens; more would only fill the disk."""


class ThrottledWarning:
    """Logs `message` with the number of times that it happened since the line before."""

    def __init__(self, log: logging.Logger, message: str, *, counted_as: str) -> None:
        self._log = log
        self._message = message
        self._counted_as = counted_as
        self._count = 0
        self._logged_at = -math.inf

    def note(self, **example: object) -> None:
        """Count it; log it, with this example, unless the last line is less than a minute old."""
        self._count += 1
        now = asyncio.get_running_loop().time()
        if now < self._logged_at + _SECONDS_BETWEEN_LINES:
            return
        self._log.warning(self._message, extra={**example, self._counted_as: self._count})
        self._logged_at, self._count = now, 0


class SampledLog:
    """Logs the first lines of each kind in a minute, and at its end how many were left out.

    `kind`: what is counted together, as facts of that last line. There must be few kinds.
    """

    def __init__(self, log: logging.Logger, message: str) -> None:
        self._log = log
        self._message = message
        self._counts: Counter[tuple[tuple[str, object], ...]] = Counter()

    def note(self, level: int, facts: Mapping[str, object], **kind: object) -> None:
        """Log a line with these facts, or count it."""
        if not self._counts:
            asyncio.get_running_loop().call_later(_SECONDS_BETWEEN_LINES, self._end_minute)
        self._counts[key := tuple(kind.items())] += 1
        if self._counts[key] <= MOST_LINES:
            self._log.log(level, self._message, extra={**facts, **kind})

    def _end_minute(self) -> None:
        counts, self._counts = self._counts, Counter()
        for kind, count in counts.items():
            if count > MOST_LINES:
                left_out = {**dict(kind), "leftOut": count - MOST_LINES}
                message = f"{self._message}: more such lines of the last minute were left out"
                self._log.warning(message, extra=left_out)
