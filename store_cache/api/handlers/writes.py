"""Handlers of writes: each checks the request and forwards it to Central."""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.content.models import (
    IDEMPOTENCY_HEADER,
    NoteUnknown,
    read_adjustment,
    read_batch,
    read_update,
)
from store_cache.api.content.paths import product_id_of, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.parts import StoreParts


class Writes:
    """`body_seconds` is how long a body may take to arrive."""

    def __init__(
        self,
        store: StoreParts,
        *,
        store_id: str,
        body_seconds: float,
        note_unknown: NoteUnknown,
    ) -> None:
        self._store = store
        self._store_id = store_id
        self._body_seconds = body_seconds
        self._note_unknown = note_unknown

    async def update(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/updates"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        write = read_update(value, store_id=self._store_id, note_unknown=self._note_unknown)
        answer = await self._store.forwarder.update(write)
        return json_answer(answer.body, status=answer.status)

    async def update_batch(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/batch-updates"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        writes = read_batch(value, store_id=self._store_id, note_unknown=self._note_unknown)
        results = (await self._store.forwarder.update_batch(writes)).results
        applied = sum(result.get("applied") is True for result in results)
        return json_answer(
            {
                "storeId": self._store_id,
                "totalCount": len(results),
                "successCount": applied,
                "failureCount": len(results) - applied,
                "results": results,
            }
        )

    async def adjust(self, request: web.Request) -> web.Response:
        """PATCH /v1/store/inventory/{productId}/inventory"""
        query_of(request)
        product_id = product_id_of(request)
        keys = request.headers.getall(IDEMPOTENCY_HEADER, [])
        value = await read_json(request, deadline_seconds=self._body_seconds)
        adjustment = read_adjustment(
            value, product_id=product_id, keys=keys, note_unknown=self._note_unknown
        )
        answer = await self._store.forwarder.adjust(adjustment)
        return json_answer(answer.body, status=answer.status)
