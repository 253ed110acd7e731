"""The parts of a running store that its HTTP API uses."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store_cache.api.content.freshness import FreshnessGauge
from store_cache.api.content.status import StatusDocuments
from store_cache.api.middleware import Traced
from store_cache.api.search.indexer import Indexer
from store_cache.api.stream.streams import Streams
from store_cache.catalogue.history.history import ChangeHistory
from store_cache.sync.refetch import Refetcher
from store_cache.sync.runner import SyncRunner
from store_cache.sync.verification.verifier import Verifier
from store_cache.writer import CacheWriter
from store_cache.writes.forwarder import Forwarder
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.outbox.pending import PendingStock
from store_cache.writes.outbox.sender import OutboxSender

if TYPE_CHECKING:
    from store_cache.api.metrics.metrics import Metrics
    from store_cache.nats.source import NatsSource


@dataclass(frozen=True, slots=True)
class StoreParts:
    """`writer` holds the catalogue, `runner` syncs it, `refetcher` reads single products again,
    `forwarder` sends writes to Central. `streams` are the open streams of changes, `history` is
    that of the products, `verifier` compares the catalogue with Central's, `search` keeps the
    index, `outbox` queued writes, which `sender` sends; `traced` makes spans; `report` tells
    Central how the store is, for ever; `feed` brings events from NATS. What is switched off is
    None."""

    writer: CacheWriter
    runner: SyncRunner
    refetcher: Refetcher
    forwarder: Forwarder
    freshness: FreshnessGauge
    status: StatusDocuments
    metrics: Metrics | None = None
    streams: Streams | None = None
    verifier: Verifier | None = None
    search: Indexer | None = None
    history: ChangeHistory | None = None
    traced: Traced | None = None
    outbox: Outbox | None = None
    sender: OutboxSender | None = None
    report: Callable[[], Coroutine[Any, Any, None]] | None = None
    feed: NatsSource | None = None

    @property
    def pending(self) -> PendingStock | None:
        """What reads show beside the stock of products with queued writes."""
        return None if self.outbox is None else self.outbox.pending
