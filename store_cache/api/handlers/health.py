"""Health and readiness, for probes; no key is needed, and Central is never asked.

Knows: the statuses. Refuses to know: what is healthy.
"""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.problems import CacheNotReady
from store_cache.api.service import Service


class Health:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _request: web.Request) -> web.Response:
        """GET /health: 200 while the process can serve, also when degraded."""
        return json_answer(self._service.health())

    async def ready(self, _request: web.Request) -> web.Response:
        """GET /ready: 200 once there is a catalogue to serve."""
        if not self._service.is_ready:
            raise CacheNotReady.yet()
        return json_answer({"status": "ready"})
