"""GET /v1/store/inventory/{productId}/history"""

from __future__ import annotations

from aiohttp import web

from store_cache.api.answers import json_answer
from store_cache.api.auth import CALLER, Scope
from store_cache.api.content.clock import rfc3339
from store_cache.api.content.documents import ProductChange, ProductHistory
from store_cache.api.content.models import read_history_limit
from store_cache.api.content.paths import parse_query, product_id_of
from store_cache.api.openapi import operations as op
from store_cache.api.parts import StoreParts
from store_cache.api.problems import CacheNotReady, ProductNotFound
from store_cache.api.routing import Route
from store_cache.catalogue.history.entries import Entry
from store_cache.catalogue.history.history import ChangeHistory

_PATH = "/v1/store/inventory/{productId:[^/]+}/history"


def history_routes(store: StoreParts, history: ChangeHistory) -> tuple[Route, ...]:
    async def product_history(request: web.Request) -> web.Response:
        parameters, problems = parse_query(request.rel_url.raw_query_string, ("limit",))
        limit = read_history_limit(parameters, problems)
        product_id = product_id_of(request)
        catalogue = store.writer.catalogue
        if catalogue is None:
            raise CacheNotReady(store.status.why_no_catalogue())
        found = history.of(product_id, limit)
        if not found.changes and product_id not in catalogue.rows:
            raise ProductNotFound(
                "The store holds no such product, and saw none since its start",
                details={"productId": product_id},
            )
        with_keys = request[CALLER].scope >= Scope.ADMIN
        answer: ProductHistory = {
            "productId": product_id,
            "since": rfc3339(history.since),
            "complete": found.is_complete,
            "changes": [_shown(entry, with_keys=with_keys) for entry in found.changes],
        }
        return json_answer(answer)

    return (Route("GET", _PATH, product_history, Scope.READ, op.READ_HISTORY),)


def _shown(entry: Entry, *, with_keys: bool) -> ProductChange:
    shown: ProductChange = {
        "version": entry.version,
        "available": entry.available,
        "delta": entry.delta,
        "at": rfc3339(entry.at),
        "source": entry.source.value,
    }
    if entry.offset is not None:
        shown["offset"] = entry.offset
    if with_keys and entry.key is not None:
        shown["idempotencyKey"] = entry.key
    return shown
