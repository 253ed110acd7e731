"""Handlers of the metrics: for Prometheus, and the last hour for charts."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.auth import Scope
from store_cache.api.content.paths import query_of
from store_cache.api.metrics.history import MOST_MINUTES, POINT_SECONDS
from store_cache.api.openapi import operations as op
from store_cache.api.problems import InvalidRequest
from store_cache.api.routing import Route

if TYPE_CHECKING:
    from store_cache.api.metrics.metrics import Metrics

KEPT_SECONDS = 1.0

_HISTORY = "/v1/store/metrics/history"
_MINUTES = frozenset(map(str, range(1, MOST_MINUTES + 1)))


class MetricsRoutes:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._made: dict[str, tuple[float, bytes]] = {}  # by content type, and when

    def routes(self) -> tuple[Route, ...]:
        scope = Scope.READ if self._metrics.key_required else Scope.OPEN
        return (
            Route("GET", "/metrics", self.exposition, scope, op.READ_METRICS),
            Route("GET", _HISTORY, self.history, Scope.READ, op.READ_METRICS_HISTORY),
        )

    async def exposition(self, request: web.Request) -> web.Response:
        """GET /metrics, as text or OpenMetrics; parameters are ignored, since scrapers add some.

        It is made at most once a second: nobody can keep the store busy with it.
        """
        accept = ",".join(request.headers.getall("Accept", ()))
        content_type = self._metrics.content_type(accept)
        now = asyncio.get_running_loop().time()
        made_at, body = self._made.get(content_type, (-inf, b""))
        if now >= made_at + KEPT_SECONDS:
            body = self._metrics.exposition(content_type)
            self._made[content_type] = (now, body)
        headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
        return web.Response(body=body, headers=headers)

    async def history(self, request: web.Request) -> web.Response:
        """GET /v1/store/metrics/history; `?minutes=` is 1 to 60, by default 60."""
        minutes = query_of(request, ("minutes",)).get("minutes", str(MOST_MINUTES))
        if minutes not in _MINUTES:
            problem = f"must be a whole number from 1 to {MOST_MINUTES}"
            raise InvalidRequest.of_fields({"minutes": problem})
        points = self._metrics.history.points(int(minutes))
        return json_answer({"intervalSeconds": POINT_SECONDS, "points": points})
