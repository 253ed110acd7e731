"""The routes of the outbox: tills see what became of their writes, people decide (O10)."""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.auth import CALLER, Scope
from store_cache.api.content.models import (
    OUTBOX_PARAMETERS,
    NoteUnknown,
    read_discard,
    read_outbox_query,
    read_retry,
    read_settlement,
)
from store_cache.api.content.paths import outbox_id_of, parse_query, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.outbox import operations as op
from store_cache.api.outbox.documents import OutboxList, counts_document, entry_document
from store_cache.api.parts import StoreParts
from store_cache.api.routing import Route
from store_cache.writes.outbox.outbox import Outbox

_OUTBOX = "/v1/store/outbox"
_ENTRY = f"{_OUTBOX}/{{outboxId:[^/]+}}"


class OutboxRoutes:
    """`body_seconds` is how long a body may take to arrive."""

    def __init__(
        self,
        store: StoreParts,
        outbox: Outbox,
        *,
        body_seconds: float,
        note_unknown: NoteUnknown,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._body_seconds = body_seconds
        self._note_unknown = note_unknown

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", _OUTBOX, self.listed, Scope.WRITE, op.LIST_ENTRIES),
            Route("GET", _ENTRY, self.entry, Scope.WRITE, op.READ_ENTRY),
            Route("DELETE", _ENTRY, self.discard, Scope.ADMIN, op.DISCARD_ENTRY),
            Route("POST", f"{_ENTRY}/retry", self.retry, Scope.ADMIN, op.RETRY_ENTRY),
            Route("POST", f"{_ENTRY}/settle", self.settle, Scope.ADMIN, op.SETTLE_ENTRY),
        )

    async def listed(self, request: web.Request) -> web.Response:
        """GET /v1/store/outbox"""
        raw = request.rel_url.raw_query_string
        asked = read_outbox_query(*parse_query(raw, OUTBOX_PARAMETERS))
        if asked.key is not None:
            await self._outbox.until_durable(asked.key)
            found = self._outbox.get(asked.key)
            is_wanted = found is not None and asked.state in (None, found.state)
            entries = [found] if found is not None and is_wanted else []
        else:
            entries = self._outbox.listed(asked.state, limit=asked.limit, after=asked.after)
        document: OutboxList = {
            "entries": [entry_document(entry) for entry in entries],
            "counts": counts_document(self._outbox),
        }
        return json_answer(document)

    async def entry(self, request: web.Request) -> web.Response:
        """GET /v1/store/outbox/{outboxId}"""
        query_of(request)
        outbox_id = outbox_id_of(request)
        await self._outbox.until_durable(self._outbox.existing(outbox_id).key)
        return json_answer(entry_document(self._outbox.existing(outbox_id)))

    async def retry(self, request: web.Request) -> web.Response:
        """POST /v1/store/outbox/{outboxId}/retry"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        body = read_retry(value, note_unknown=self._note_unknown)
        entry = await self._outbox.retry(
            outbox_id_of(request),
            by=request[CALLER].name,
            reason=body.reason,
            outcome=body.outcome or "",
        )
        return json_answer(entry_document(entry))

    async def settle(self, request: web.Request) -> web.Response:
        """POST /v1/store/outbox/{outboxId}/settle"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        body = read_settlement(value, note_unknown=self._note_unknown)
        entry = self._outbox.existing(outbox_id_of(request))
        await self._store.forwarder.settle_entry(
            entry,
            is_applied=body.outcome == "applied",
            by=request[CALLER].name,
            reason=body.reason,
        )
        return json_answer(entry_document(self._outbox.existing(entry.id)))

    async def discard(self, request: web.Request) -> web.Response:
        """DELETE /v1/store/outbox/{outboxId}"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        body = read_discard(value, note_unknown=self._note_unknown)
        entry = await self._outbox.discard(
            outbox_id_of(request), by=request[CALLER].name, reason=body.reason
        )
        return json_answer(entry_document(entry))
