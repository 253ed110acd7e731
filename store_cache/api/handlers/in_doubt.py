"""Handlers of writes whose outcome is unknown: their list, and what a person says of one."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.auth import CALLER
from store_cache.api.content.documents import (
    AppliedWrite,
    RefusedWrite,
    SettledWrite,
    WritesInDoubt,
)
from store_cache.api.content.doubts import doubt_document
from store_cache.api.content.models import NoteUnknown, read_settlement
from store_cache.api.content.paths import idempotency_key_of, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.parts import StoreParts
from store_cache.api.problems import InvalidRequest

MOST_LISTED = 200


class InDoubt:
    """`body_seconds` is how long a body may take to arrive."""

    def __init__(
        self, store: StoreParts, *, body_seconds: float, note_unknown: NoteUnknown
    ) -> None:
        self._store = store
        self._body_seconds = body_seconds
        self._note_unknown = note_unknown

    async def listed(self, request: web.Request) -> web.Response:
        """GET /v1/store/writes; the only `?state=` that is listed is `in_doubt`."""
        if query_of(request, ("state",)).get("state", "in_doubt") != "in_doubt":
            raise InvalidRequest.of_fields({"state": "must be in_doubt: no others are listed"})
        doubts = self._store.forwarder.in_doubt()
        document: WritesInDoubt = {
            "writes": [doubt_document(doubt) for doubt in doubts[:MOST_LISTED]],
            "count": len(doubts),
        }
        return json_answer(document)

    async def settle(self, request: web.Request) -> web.Response:
        """POST /v1/store/writes/{idempotencyKey}/settle"""
        query_of(request)
        key = idempotency_key_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        body = read_settlement(value, note_unknown=self._note_unknown)
        answer = await self._store.forwarder.settle(
            key,
            is_applied=body.outcome == "applied",
            by=request[CALLER].name,
            reason=body.reason,
        )
        document: SettledWrite = {
            "idempotencyKey": key,
            "outcome": body.outcome,
            "answer": cast("AppliedWrite | RefusedWrite", answer.body),
        }
        return json_answer(document)
