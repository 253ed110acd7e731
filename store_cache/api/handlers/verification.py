"""The route that compares the store with Central at once; absent while verification is off."""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.auth import Scope
from store_cache.api.content.models import NoteUnknown, read_verify
from store_cache.api.content.paths import query_of
from store_cache.api.content.requests import read_json
from store_cache.api.content.verification import verification_document
from store_cache.api.openapi import operations as op
from store_cache.api.routing import Route
from store_cache.sync.verification.verifier import Verifier


def verification_routes(
    verifier: Verifier, *, body_seconds: float, note_unknown: NoteUnknown
) -> tuple[Route, ...]:
    async def verify(request: web.Request) -> web.Response:
        """POST /v1/store/sync/verify; a run under way is joined, as it was asked for."""
        query_of(request)
        repair = True
        if request.can_read_body:
            value = await read_json(request, deadline_seconds=body_seconds)
            repair = read_verify(value, note_unknown=note_unknown)
        await verifier.verify(repair=repair)
        return json_answer(verification_document(verifier.findings))

    return (Route("POST", "/v1/store/sync/verify", verify, Scope.ADMIN, op.VERIFY),)
