"""The parts of a store whose state is shown in its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from store_cache.api.content.freshness import FreshnessGauge
from store_cache.api.content.state import StateTracker
from store_cache.api.content.status import FeedSource
from store_cache.api.stream.streams import Streams
from store_cache.sync.runner import SyncRunner
from store_cache.sync.verification.verifier import Verifier
from store_cache.writer import CacheWriter
from store_cache.writes.forwarder import Forwarder
from store_cache.writes.outbox.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Watched:
    """The parts of a store whose state is looked at. What is switched off is None."""

    writer: CacheWriter
    runner: SyncRunner
    forwarder: Forwarder
    freshness: FreshnessGauge
    state: StateTracker
    version: str
    streams: Streams | None = None
    verifier: Verifier | None = None
    outbox: Outbox | None = None
    feed: FeedSource | None = None

    @property
    def lag(self) -> int | None:
        """By how many events the catalogue is behind; None if Central's head is not known."""
        head = self.runner.head_offset
        return None if head is None else max(0, head - self.freshness.measure().last_offset)
