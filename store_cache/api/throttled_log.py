"""Warnings about what clients do over and over: at most one line a minute each."""

from __future__ import annotations

import asyncio
import logging
import math

_SECONDS_BETWEEN_LINES = 60.0


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
