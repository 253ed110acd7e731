"""The store's disk: slow, hanging, failing, full, deleted, and gone with the process at any
operation.

What a crash leaves of files is decided by `tests.harness.faulty_directory`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable

from tests.harness.faulty_directory import FaultyDirectory
from tests.simulation.loop import pause
from tests.simulation.plan import Plan

SLOWEST_SECONDS = 1.5
LOOK_SECONDS = 0.25
"""How often an operation that hangs looks whether the disk works again."""


class SimulatedDirectory(FaultyDirectory):
    """One process's view of the disk. `die` ends the process; it is called in the middle of an
    operation, which then never returns. `hangs_until`: loop seconds."""

    def __init__(
        self,
        plan: Plan,
        chance: random.Random,
        die: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.dies_before: int | None = None
        self.operations = 0
        self.hangs_until = 0.0
        self._plan = plan
        self._chance = chance
        self._die = die
        self._note = note

    def take_over(self, left: FaultyDirectory) -> None:
        """Go on with what another process or a power cut left."""
        self.entries = left.entries
        self._durable_entries = left._durable_entries
        self._changes = left._changes
        self.room = left.room

    async def operate(self, what: str) -> None:
        self.operations += 1
        seconds = self._seconds()
        await (pause(seconds) if seconds else asyncio.sleep(0))
        while asyncio.get_running_loop().time() < self.hangs_until:
            await pause(LOOK_SECONDS)
        if self.dies_before is not None and self.operations >= self.dies_before:
            self.dies_before = None
            self._die()
            await asyncio.Event().wait()
        if name := self._failure(what):
            self._note(name)
            raise OSError(errno.EIO, os.strerror(errno.EIO), what)

    def _seconds(self) -> float:
        if self._plan.strikes("disk_slow", self._chance):
            self._note("disk_slow")
            return self._chance.random() * SLOWEST_SECONDS
        return self._chance.choice((0.0, 0.0, 0.0, 0.002))

    def _failure(self, what: str) -> str:
        if what.startswith("sync") and self._plan.strikes("sync_fails", self._chance):
            return "sync_fails"
        return "disk_error" if self._plan.strikes("disk_error", self._chance) else ""
