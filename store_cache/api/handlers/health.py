"""Handlers for probes. They need no key, and ask nothing of Central."""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.content.documents import Ready
from store_cache.api.parts import StoreParts
from store_cache.api.problems import CacheNotReady


class Health:
    def __init__(self, store: StoreParts) -> None:
        self._store = store

    async def health(self, _request: web.Request) -> web.Response:
        """GET /health: 200 while the process can serve, also when degraded."""
        return json_answer(self._store.status.health())

    async def ready(self, _request: web.Request) -> web.Response:
        """GET /ready: 200 once there is a catalogue to serve."""
        if self._store.writer.catalogue is None:
            raise CacheNotReady(self._store.status.why_no_catalogue())
        ready: Ready = {"status": "ready"}
        if self._store.outbox is not None:
            ready["outboxEmpty"] = not len(self._store.outbox)
        return json_answer(ready)
