"""Handlers of writes: each checks the request and forwards it to Central."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from store_cache.api.answers import json_answer, outbox_path
from store_cache.api.auth import CALLER, Caller
from store_cache.api.content.models import (
    IDEMPOTENCY_HEADER,
    USER_HEADER,
    NoteUnknown,
    read_adjustment,
    read_batch,
    read_update,
    read_user,
)
from store_cache.api.content.paths import product_id_of, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.parts import StoreParts
from store_cache.api.throttled_log import ThrottledWarning
from store_cache.writes.write import Answer, WriteError

log = logging.getLogger(__name__)

QUEUED = 202
"""The status of a write that is in the outbox."""


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
        self._reused_keys = ThrottledWarning(
            log, "an idempotency key was used for another write before", counted_as="refused"
        )

    async def update(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/updates"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        caller = request[CALLER]
        write = read_update(
            value,
            store_id=self._store_id,
            client=caller.name,
            user_id=_user_of(request),
            note_unknown=self._note_unknown,
        )
        with self._reused_keys_logged(caller):
            answer = await self._store.forwarder.update(write)
        return _answer(answer)

    async def update_batch(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/batch-updates"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        caller = request[CALLER]
        writes = read_batch(
            value,
            store_id=self._store_id,
            client=caller.name,
            user_id=_user_of(request),
            note_unknown=self._note_unknown,
        )
        with self._reused_keys_logged(caller):
            results = (await self._store.forwarder.update_batch(writes)).results
        applied = sum(result.get("applied") is True for result in results)
        queued = sum(result.get("queued") is True for result in results)
        counts = {
            "totalCount": len(results),
            "successCount": applied,
            "failureCount": len(results) - applied - queued,
        } | ({"queuedCount": queued} if queued else {})
        return json_answer({"storeId": self._store_id} | counts | {"results": results})

    async def adjust(self, request: web.Request) -> web.Response:
        """PATCH /v1/store/inventory/{productId}/inventory"""
        query_of(request)
        product_id = product_id_of(request)
        keys = request.headers.getall(IDEMPOTENCY_HEADER, [])
        value = await read_json(request, deadline_seconds=self._body_seconds)
        caller = request[CALLER]
        adjustment = read_adjustment(
            value,
            product_id=product_id,
            keys=keys,
            client=caller.name,
            user_id=_user_of(request),
            note_unknown=self._note_unknown,
        )
        with self._reused_keys_logged(caller):
            answer = await self._store.forwarder.adjust(adjustment)
        return _answer(answer)

    @contextmanager
    def _reused_keys_logged(self, caller: Caller) -> Iterator[None]:
        """Two tills that form the same keys lose sales: the log names both."""
        try:
            yield
        except WriteError as error:
            if error.code == "idempotency_key_reused":
                self._reused_keys.note(caller=caller.name, **error.details)
            raise


def _answer(answer: Answer) -> web.Response:
    location = outbox_path(answer.body["outboxId"]) if answer.status == QUEUED else None
    return json_answer(answer.body, status=answer.status, location=location)


def _user_of(request: web.Request) -> str | None:
    return read_user(request.headers.getall(USER_HEADER, ()))
