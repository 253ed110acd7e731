"""Handlers of the sync and the cache: their status (a till's key), and a full sync on demand (an
admin's)."""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.content.documents import ForcedSync
from store_cache.api.content.paths import query_of
from store_cache.api.parts import StoreParts
from store_cache.api.problems import InvalidRequest, SyncFailed
from store_cache.sync.states import COUNTED, Failure


class Admin:
    def __init__(self, store: StoreParts) -> None:
        self._store = store

    async def sync_status(self, request: web.Request) -> web.Response:
        """GET /v1/store/sync/status"""
        query_of(request)
        return json_answer(self._store.status.sync_status())

    async def cache_stats(self, request: web.Request) -> web.Response:
        """GET /v1/store/cache/stats"""
        query_of(request)
        return json_answer(self._store.status.cache_stats())

    async def force_sync(self, request: web.Request) -> web.Response:
        """POST /v1/store/sync/force; `?accept=true` accepts a catalogue that lost most products.

        A client that disconnects does not stop it: the server runs handlers to their end.
        """
        accept = query_of(request, ("accept",)).get("accept", "false")
        if accept not in ("true", "false"):
            raise InvalidRequest.of_fields({"accept": "must be true or false"})
        record = await self._store.runner.force_full_sync(accept=accept == "true")
        status = self._store.status.sync_status()
        if record.problem:
            is_central_away = record.failure in (*COUNTED, Failure.LIMITED)
            raise SyncFailed(
                f"Force sync failed: {record.problem}",
                status=503 if is_central_away else 502,
                details={"status": status},
            )
        done: ForcedSync = {"message": "Force sync completed successfully", "status": status}
        return json_answer(done)
