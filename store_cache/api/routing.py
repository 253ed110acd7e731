"""What a route is, and how the routes of a table get into the aiohttp application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.abc import AbstractMatchInfo
from aiohttp.typedefs import Handler

from store_cache.api.auth import Scope
from store_cache.api.openapi.operation import Operation


@dataclass(frozen=True, slots=True)
class Route:
    """GET serves HEAD too. `operation` is what `/openapi.json` says of the route; None: nothing."""

    method: str
    path: str
    handler: Handler
    scope: Scope
    operation: Operation | None


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


def route_name(request: web.Request) -> str | None:
    """Return the path of the route that answers, with its parameter by name; None if the request
    has no route of its own."""
    resource = request.match_info.route.resource
    return None if resource is None or "{rest}" in resource.canonical else resource.canonical


async def _expect_nothing(_request: web.Request) -> None:
    """Do not answer `Expect: 100-continue` here: `content.requests` does so once the key has been
    checked."""
