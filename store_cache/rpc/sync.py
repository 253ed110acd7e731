"""The service `Sync`: the state of the store, and a full sync on demand."""

from __future__ import annotations

from store_cache.api.parts import StoreParts
from store_cache.api.problems import SyncFailed
from store_cache.rpc import messages
from store_cache.rpc.calls import Context
from store_cache.rpc.generated import inventory_pb2 as pb
from store_cache.rpc.generated.inventory_pb2_grpc import SyncServicer


class Sync(SyncServicer):
    def __init__(self, store: StoreParts) -> None:
        self._store = store

    async def GetStatus(  # noqa: N802 - the names of methods are those of the protocol
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        status = self._store.status.sync_status()
        return pb.GetStatusResponse(
            state=status["state"]["name"],
            status=messages.document(status),
            freshness=self._freshness(),
        )

    async def ForceSync(  # noqa: N802
        self, request: pb.ForceSyncRequest, context: Context
    ) -> pb.ForceSyncResponse:
        record = await self._store.runner.force_full_sync(accept=request.accept)
        if record.problem:
            raise SyncFailed(f"Force sync failed: {record.problem}", status=502, details={})
        status = self._store.status.sync_status()
        return pb.ForceSyncResponse(status=messages.document(status), freshness=self._freshness())

    async def GetCacheStats(  # noqa: N802
        self, request: pb.GetCacheStatsRequest, context: Context
    ) -> pb.GetCacheStatsResponse:
        stats = self._store.status.cache_stats()
        return pb.GetCacheStatsResponse(stats=messages.document(stats), freshness=self._freshness())

    def _freshness(self) -> pb.Freshness:
        return messages.freshness(self._store.freshness.measure())
