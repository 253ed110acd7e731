"""Waits until the feed was followed so far that a comparison can be judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.position import Position
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import FullSyncing, Sleeping
from store_cache.writer import CacheWriter

REACH_SECONDS = 30.0
"""How long to wait until the feed is followed to an offset, or to its end. Waits for a limit of
Central's do not count."""

ASK_SECONDS = 1.0
"""After this the feed is asked without being held, if an offset was not reached by itself."""


class Raced(Exception):
    """The comparison cannot be judged: the feed, the catalogue or Central moved on. Try again."""


class Following:
    """`grace_seconds`: how late an event may appear on the feed (HOLE_GRACE_SECONDS)."""

    def __init__(self, writer: CacheWriter, runner: SyncRunner, *, grace_seconds: float) -> None:
        self._writer = writer
        self._runner = runner
        self._grace_seconds = grace_seconds

    def catalogue(self) -> tuple[Catalogue, Position]:
        """Return what is to be compared. Raises Raced while a full sync builds something else."""
        catalogue, position = self._writer.catalogue, self._writer.position
        state = self._runner.state
        is_busy = isinstance(state.phase, FullSyncing) or state.lost is not None
        if catalogue is None or position is None or is_busy:
            raise Raced("a full sync is due or under way")
        return catalogue, position

    async def to_offset(self, offset: int) -> None:
        """Wait until every event below `offset` is applied. Raises Raced."""

        def has_reached() -> bool:
            position = self._writer.position
            return position is not None and position.offset >= offset

        await self._until(has_reached, ask_after_seconds=ASK_SECONDS)

    async def to_its_end(self) -> None:
        """Wait for the grace, and until the feed was followed to its end as it is after that. An
        event of what Central held before was then seen. Raises Raced."""
        await asyncio.sleep(self._grace_seconds)
        asked_at = self._runner.uptime()

        def is_followed() -> bool:
            in_sync_at = self._runner.state.in_sync_at
            return in_sync_at is not None and in_sync_at >= asked_at

        await self._until(is_followed, ask_after_seconds=0.0)

    async def _until(self, is_so: Callable[[], bool], *, ask_after_seconds: float) -> None:
        time = asyncio.get_running_loop().time
        began_at = waits_since = time()
        is_asked = False
        while not is_so():
            if self._is_held_back():
                waits_since = time()
            left = waits_since + REACH_SECONDS - time()
            if left <= 0.0:
                raise Raced("the feed was not followed so far in time")
            unasked_for = began_at + ask_after_seconds - time()
            if not is_asked and unasked_for <= 0.0:
                is_asked = self._runner.ask_anew()
            if not is_asked and unasked_for > 0.0:
                left = min(left, unasked_for)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._runner.changed.wait()

    def _is_held_back(self) -> bool:
        """Whether the sync waits although nothing has failed: for Central's limit."""
        sleeps_until, state = self._runner.sleeps_until, self._runner.state
        if not isinstance(state.phase, Sleeping) or state.health.failures or sleeps_until is None:
            return False
        return sleeps_until > self._runner.uptime()
