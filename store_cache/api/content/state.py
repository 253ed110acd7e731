"""The state of the store by its name (B4), and a log line for each change of it (B6)."""

from __future__ import annotations

import logging
from enum import StrEnum

from store_cache.api.content.clock import Clock
from store_cache.api.content.freshness import FreshnessGauge
from store_cache.central.client import CentralClient
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import FullSyncing
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)


class StateName(StrEnum):
    """The first that applies, in the order of `StateTracker.update`."""

    DEGRADED = "degraded"
    FALLBACK = "fallback"
    SYNCING = "syncing"
    EMPTY = "empty"
    CACHED = "cached"
    STALE = "stale"
    LIVE = "live"


class StateTracker:
    """The name of the current state, and since when it applies (by the uptime)."""

    def __init__(
        self,
        runner: SyncRunner,
        writer: CacheWriter,
        freshness: FreshnessGauge,
        clock: Clock,
        central: CentralClient,
    ) -> None:
        self._runner = runner
        self._writer = writer
        self._freshness = freshness
        self._clock = clock
        self._central = central
        self.name = StateName.EMPTY
        self.since = clock.uptime()

    def update(self) -> None:
        """Find the name anew. Call it after every step of the sync, so that `since` is right."""
        name = self.find()
        if name != self.name:
            log.info("sync status: %s, was %s", name, self.name)
            self.name, self.since = name, self._clock.uptime()

    def find(self) -> StateName:
        """Return the name of the state, noting nothing."""
        state = self._runner.state
        if not self._writer.disk.is_durable:
            return StateName.DEGRADED
        if state.health.fell_back:
            return StateName.FALLBACK
        if isinstance(state.phase, FullSyncing):
            return StateName.SYNCING
        if self._writer.catalogue is None:
            return StateName.EMPTY
        if state.in_sync_at is None:
            return StateName.CACHED
        failed = state.health.problem or self._central.problem
        if state.lost or failed or self._freshness.measure().is_stale:
            return StateName.STALE
        return StateName.LIVE
