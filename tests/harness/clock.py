"""The wall clock of a test: it goes on with the loop's clock, and a test may set it."""

from __future__ import annotations

import asyncio
import time

NOON = 1_700_000_000.0
"""Unix seconds at the loop's time 0."""


class Clock:
    """`began`: unix seconds at the loop's time 0. `suspended_seconds`: how long the machine was
    suspended so far; the loop's clock stood still then."""

    def __init__(self, began: float = NOON) -> None:
        self.set_by_seconds = 0.0
        self.suspended_seconds = 0.0
        self._began = began

    @classmethod
    def of_the_machine(cls) -> Clock:
        """Return one that begins with the time that other programs have, too."""
        return cls(time.time() - asyncio.get_running_loop().time())

    def now(self) -> float:
        """Unix seconds, as the wall clock shows them."""
        return self.steady() + self.set_by_seconds + self.suspended_seconds

    def steady(self) -> float:
        """Unix seconds that go on whatever the wall clock is set to."""
        return self._began + asyncio.get_running_loop().time()

    def uptime(self) -> float:
        """Seconds that go on while the machine is suspended, too."""
        return asyncio.get_running_loop().time() + self.suspended_seconds
