"""Sync and cache: their status, and a full sync on demand.

Knows: the contract's shapes. Refuses to know: how a sync runs.
"""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.content.paths import query_of
from store_cache.api.problems import InvalidRequest, SyncFailed
from store_cache.api.service import Service


class Admin:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def sync_status(self, request: web.Request) -> web.Response:
        """GET /v1/store/sync/status"""
        query_of(request)
        return json_answer(self._service.sync_status())

    async def cache_stats(self, request: web.Request) -> web.Response:
        """GET /v1/store/cache/stats"""
        query_of(request)
        return json_answer(self._service.cache_stats())

    async def force_sync(self, request: web.Request) -> web.Response:
        """POST /v1/store/sync/force; `?accept=true` takes a catalogue that lost most products.

        A caller that hangs up does not stop it: the server runs handlers to their end.
        """
        accept = _read_accept(query_of(request, ("accept",)))
        succeeded, message, status = await self._service.force_sync(accept=accept)
        if not succeeded:
            details = {"status": self._service.sync_status()}
            raise SyncFailed(message, status=status, details=details)
        return json_answer({"message": message, "status": self._service.sync_status()})


def _read_accept(parameters: dict[str, str]) -> bool:
    text = parameters.get("accept", "false")
    if text not in ("true", "false"):
        raise InvalidRequest.of_fields({"accept": "must be true or false"})
    return text == "true"
