"""Time that a scenario can let pass: the loop's own clock, and the wall clock beside it.

Everything of a scenario runs in one loop, the sockets are real, so nobody notices but those who
wait. Knows: how far the clocks are ahead. Refuses to know: who waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

STEP_SECONDS = 0.5
"""Shorter than any deadline, so that nothing that is on its way is given up by a jump."""


class Clock:
    """The running loop's clock from now on; `now` is the wall clock (unix seconds)."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._real_time = loop.time
        self._ahead_seconds = 0.0
        setattr(loop, "time", self._time)  # noqa: B010 - a method, as mypy rightly says

    def now(self) -> float:
        return time.time() + self._ahead_seconds

    async def passes(self, seconds: float, settle: Callable[[], Awaitable[object]]) -> None:
        """Let time pass in steps; `settle` gives the others their turn after each."""
        while seconds > 0:
            step = min(seconds, STEP_SECONDS)
            self._ahead_seconds += step
            seconds -= step
            await settle()

    def _time(self) -> float:
        return self._real_time() + self._ahead_seconds
