"""The store, as its HTTP API sees it: each call goes to the part that answers it.

Knows: which part that is. Refuses to know: everything else.
"""

from __future__ import annotations

from typing import Any

from store_cache.api.service import Freshness
from store_cache.app.status import Status
from store_cache.catalogue.catalogue import Catalogue
from store_cache.sync.refetch import Refetcher
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import COUNTED, Failure
from store_cache.writer import CacheWriter
from store_cache.writes.forwarder import Forwarder
from store_cache.writes.write import Adjustment, Answer, BatchAnswer, Write


class StoreService:
    """Implements `edges.http.service.Service`."""

    def __init__(
        self,
        *,
        writer: CacheWriter,
        runner: SyncRunner,
        refetcher: Refetcher,
        forwarder: Forwarder,
        status: Status,
    ) -> None:
        self._writer = writer
        self._runner = runner
        self._refetcher = refetcher
        self._forwarder = forwarder
        self._status = status

    @property
    def catalogue(self) -> Catalogue | None:
        return self._writer.catalogue

    @property
    def is_ready(self) -> bool:
        return self._writer.catalogue is not None

    def freshness(self) -> Freshness:
        return self._status.freshness()

    async def refresh(self, product_id: str) -> None:
        await self._refetcher.refresh(product_id)

    async def update(self, write: Write) -> Answer:
        return await self._forwarder.update(write)

    async def update_batch(self, writes: tuple[Write, ...]) -> BatchAnswer:
        return await self._forwarder.update_batch(writes)

    async def adjust(self, adjustment: Adjustment) -> Answer:
        return await self._forwarder.adjust(adjustment)

    async def force_sync(self, *, accept: bool) -> tuple[bool, str, int]:
        record = await self._runner.force(accept=accept)
        if not record.problem:
            return True, "Force sync completed successfully", 200
        away = record.failure in (*COUNTED, Failure.LIMITED)
        return False, f"Force sync failed: {record.problem}", 503 if away else 502

    def sync_status(self) -> dict[str, Any]:
        return self._status.sync_status()

    def cache_stats(self) -> dict[str, Any]:
        return self._status.cache_stats()

    def health(self) -> dict[str, Any]:
        return self._status.health()
