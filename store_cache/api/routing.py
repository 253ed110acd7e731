"""What a route is, and how the routes of a table get into the aiohttp application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from store_cache.api.auth import Scope
from store_cache.api.metrics.counts import OTHER
from store_cache.api.openapi.operation import Operation


@dataclass(frozen=True, slots=True)
class Route:
    """GET serves HEAD too. `operation` is what `/openapi.json` says of the route; None: nothing."""

    method: str
    path: str
    handler: Handler
    scope: Scope
    operation: Operation | None


def add_routes(
    app: web.Application,
    table: Sequence[Route],
    around: Callable[[Handler, str, Scope], Handler],
) -> None:
    """Add the routes of a table. `around` returns what answers a route instead of its handler,
    given also its name and its scope. The name is its path, with parameters by their names."""
    for route in table:
        resource = app.router.add_resource(route.path)
        name = OTHER if "{rest}" in resource.canonical else resource.canonical
        handler = around(route.handler, name, route.scope)
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            resource.add_route(method, handler, expect_handler=_expect_nothing)


async def _expect_nothing(_request: web.Request) -> None:
    """Do not answer `Expect: 100-continue` here: `content.requests` does so once the key has been
    checked."""
