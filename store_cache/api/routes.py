"""The route table: method, path, handler, scope and description, one line for each route."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from store_cache.api.auth import Scope
from store_cache.api.handlers.admin import Admin
from store_cache.api.handlers.health import Health
from store_cache.api.handlers.in_doubt import InDoubt
from store_cache.api.handlers.reads import Reads
from store_cache.api.handlers.writes import Writes
from store_cache.api.openapi import operations as op
from store_cache.api.problems import MethodNotAllowed, NotFound
from store_cache.api.routing import Route

_INVENTORY = "/v1/store/inventory"
_WRITES = "/v1/store/writes"

# aiohttp's plain `{productId}` would not match ids with braces.
_ID = "{productId:[^/]+}"
_KEY = "{idempotencyKey:[^/]+}"

_SHOWN_CHARACTERS = 200  # of the path, in the error that names it

_REST = "{rest:(?s:.*)}"
_ANY_METHOD = "*"


def route_table(
    reads: Reads,
    writes: Writes,
    in_doubt: InDoubt,
    admin: Admin,
    health: Health,
    features: Sequence[Route] = (),
) -> tuple[Route, ...]:
    """Return every route; `features` are those of the parts that can be switched off."""
    return (
        Route("GET", "/health", health.health, Scope.OPEN, op.READ_HEALTH),
        Route("GET", "/ready", health.ready, Scope.OPEN, op.READ_READINESS),
        *features,  # before the routes that match every id
        # aiohttp tries the routes below a path in this order: the commonest come first.
        Route("GET", f"{_INVENTORY}/{_ID}", reads.product, Scope.READ, op.READ_PRODUCT),
        Route("GET", _INVENTORY, reads.page, Scope.READ, reads.LIST),
        Route("POST", f"{_INVENTORY}/lookup", reads.lookup, Scope.READ, reads.LOOKUP),
        Route("POST", f"{_INVENTORY}/updates", writes.update, Scope.WRITE, op.UPDATE),
        Route("POST", f"{_INVENTORY}/batch-updates", writes.update_batch, Scope.WRITE, op.BATCH),
        Route("PATCH", f"{_INVENTORY}/{_ID}/inventory", writes.adjust, Scope.WRITE, op.ADJUST),
        Route("GET", _WRITES, in_doubt.listed, Scope.WRITE, op.LIST_IN_DOUBT),
        Route("POST", f"{_WRITES}/{_KEY}/settle", in_doubt.settle, Scope.ADMIN, op.SETTLE),
        Route("GET", "/v1/store/sync/status", admin.sync_status, Scope.READ, op.READ_SYNC_STATUS),
        Route("GET", "/v1/store/cache/stats", admin.cache_stats, Scope.READ, op.READ_CACHE_STATS),
        Route("POST", "/v1/store/sync/force", admin.force_sync, Scope.ADMIN, op.FORCE_SYNC),
        # Matches what nothing else does. Below /v1 it needs a key, so that no one else learns which
        # routes there are.
        Route(_ANY_METHOD, "/v1{rest:(?s:(/.*)?)}", _unrouted, Scope.READ, None),
        Route(_ANY_METHOD, f"/{_REST}", _unrouted, Scope.OPEN, None),
    )


async def refuse_no_path(request: web.Request) -> web.StreamResponse:
    """Answer a request whose target is no path, such as that of `CONNECT`."""
    raise MethodNotAllowed.instead_of(request.method, ())


async def _unrouted(request: web.Request) -> web.StreamResponse:
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        allowed |= methods
    if allowed := allowed - {_ANY_METHOD}:
        raise MethodNotAllowed.instead_of(request.method, allowed)
    raise NotFound(
        f"There is no route {request.method} {request.path[:_SHOWN_CHARACTERS]}; "
        "a slash within a product id must be sent as %2F"
    )
