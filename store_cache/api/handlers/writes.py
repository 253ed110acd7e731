"""Writes: checked here, forwarded by the service, answered as it says.

Knows: the contract's bodies. Refuses to know: Central, keys under way, what is on disk.
"""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.content.models import (
    IDEMPOTENCY_HEADER,
    read_adjustment,
    read_batch,
    read_update,
)
from store_cache.api.content.paths import product_id_of, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.problems import CacheNotReady
from store_cache.api.service import Service
from store_cache.writes.write import Answer


class Writes:
    """Handlers; `body_seconds` is how long a body may take to arrive."""

    def __init__(self, service: Service, *, store_id: str, body_seconds: float) -> None:
        self._service = service
        self._store_id = store_id
        self._body_seconds = body_seconds

    async def update(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/updates"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        write = read_update(value, store_id=self._store_id)
        return _told(await self._service.update(write))

    async def update_batch(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/batch-updates"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        writes = read_batch(value, store_id=self._store_id)
        answer = await self._service.update_batch(writes)
        applied = sum(result.get("applied") is True for result in answer.results)
        return json_answer(
            {
                "storeId": self._store_id,
                "totalCount": len(answer.results),
                "successCount": applied,
                "failureCount": len(answer.results) - applied,
                "results": answer.results,
            }
        )

    async def adjust(self, request: web.Request) -> web.Response:
        """PATCH /v1/store/inventory/{productId}/inventory"""
        query_of(request)
        product_id = product_id_of(request)
        keys = request.headers.getall(IDEMPOTENCY_HEADER, [])
        value = await read_json(request, deadline_seconds=self._body_seconds)
        adjustment = read_adjustment(value, product_id=product_id, keys=keys)
        if not self._service.is_ready:
            raise CacheNotReady.yet()  # there is no version to fill in, of any product
        return _told(await self._service.adjust(adjustment))


def _told(answer: Answer) -> web.Response:
    return json_answer(answer.body, status=answer.status)
