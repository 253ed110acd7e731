"""The route table: method, path, handler and scope, one line for each route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.abc import AbstractMatchInfo
from aiohttp.typedefs import Handler

from store_cache.api.auth import Scope
from store_cache.api.handlers.admin import Admin
from store_cache.api.handlers.health import Health
from store_cache.api.handlers.reads import Reads
from store_cache.api.handlers.writes import Writes
from store_cache.api.problems import MethodNotAllowed, NotFound

_INVENTORY = "/v1/store/inventory"

# aiohttp's plain `{productId}` would not match ids with braces.
_ID = "{productId:[^/]+}"

_REST = "{rest:(?s:.*)}"
_ANY_METHOD = "*"


@dataclass(frozen=True, slots=True)
class Route:
    """GET serves HEAD too."""

    method: str
    path: str
    handler: Handler
    scope: Scope


def route_table(
    reads: Reads, writes: Writes, admin: Admin, health: Health, features: Sequence[Route] = ()
) -> tuple[Route, ...]:
    """Return every route; `features` are those of the parts that can be switched off."""
    return (
        Route("GET", "/health", health.health, Scope.OPEN),
        Route("GET", "/ready", health.ready, Scope.OPEN),
        Route("GET", _INVENTORY, reads.page, Scope.READ),
        Route("POST", f"{_INVENTORY}/lookup", reads.lookup, Scope.READ),
        Route("POST", f"{_INVENTORY}/updates", writes.update, Scope.WRITE),
        Route("POST", f"{_INVENTORY}/batch-updates", writes.update_batch, Scope.WRITE),
        Route("GET", f"{_INVENTORY}/{_ID}", reads.product, Scope.READ),
        Route("PATCH", f"{_INVENTORY}/{_ID}/inventory", writes.adjust, Scope.WRITE),
        Route("GET", "/v1/store/sync/status", admin.sync_status, Scope.READ),
        Route("GET", "/v1/store/cache/stats", admin.cache_stats, Scope.READ),
        Route("POST", "/v1/store/sync/force", admin.force_sync, Scope.ADMIN),
        *features,
        # Matches what nothing else does. Below /v1 it needs a key, so that no one else learns which
        # routes there are.
        Route(_ANY_METHOD, "/v1{rest:(?s:(/.*)?)}", _unrouted, Scope.READ),
        Route(_ANY_METHOD, f"/{_REST}", _unrouted, Scope.OPEN),
    )


class Scopes:
    """The scope that each registered route requires."""

    def __init__(self) -> None:
        self._scopes: dict[web.AbstractRoute, Scope] = {}

    def add(self, app: web.Application, table: Sequence[Route]) -> None:
        for route in table:
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                registered = app.router.add_route(
                    method, route.path, route.handler, expect_handler=_expect_nothing
                )
                self._scopes[registered] = route.scope

    def needed(self, match: AbstractMatchInfo) -> Scope:
        """Return the scope of the matched route; admin if it has none, so that this is noticed."""
        assert isinstance(match, web.UrlMappingMatchInfo)
        return self._scopes.get(match.route, Scope.ADMIN)

    def registered(self) -> Mapping[web.AbstractRoute, Scope]:
        return dict(self._scopes)


async def _expect_nothing(_request: web.Request) -> None:
    """Do not answer `Expect: 100-continue` here: `content.requests` does so once the key has been
    checked."""


async def _unrouted(request: web.Request) -> web.StreamResponse:
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        allowed |= methods
    if allowed := allowed - {_ANY_METHOD}:
        raise MethodNotAllowed.instead_of(request.method, allowed)
    raise NotFound(
        f"There is no route {request.method} {request.path}; "
        "a slash within a product id must be sent as %2F"
    )
