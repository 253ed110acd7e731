"""Handlers of the description of the API, and of the page that shows it.

Both say nothing about the shop, so they need no key. The page is swagger-ui, vendored unchanged in
`swagger_ui/vendor`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import orjson
from aiohttp import web

from store_cache.api.answers import tagged_answer
from store_cache.api.auth import Scope
from store_cache.api.content.paths import query_of
from store_cache.api.openapi import operations as op
from store_cache.api.openapi.document import openapi_document
from store_cache.api.openapi.examples import Examples
from store_cache.api.routing import Route
from store_cache.api.static_files import STRICT_POLICY, StaticFiles

_FOLDER = Path(__file__).with_name("swagger_ui")

# Swagger-ui's style sheet holds its icons as `data:` images. Scripts and styles need no more than
# the strict policy: swagger-ui sets styles by script, which no policy forbids.
_POLICY = STRICT_POLICY.replace("img-src 'self'", "img-src 'self' data:")

_Made = TypeVar("_Made")


class ApiDocs:
    """Describes the routes of the API, its own among them.

    Document and files are made when they are first asked for, in a thread: few stores need them,
    and both take too long for the event loop.
    """

    def __init__(self) -> None:
        self._described: Sequence[Route] = ()
        self._document = _Once(lambda: _encoded(self._described))
        self._files = _Once(lambda: StaticFiles(_FOLDER, policy=_POLICY))

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/openapi.json", self.document, Scope.OPEN, op.READ_API_DESCRIPTION),
            Route("GET", "/docs", self.page, Scope.OPEN, op.READ_DOCS),
            Route("GET", "/docs/{name:.+}", self.file, Scope.OPEN, op.READ_DOCS_FILE),
        )

    def describe(self, routes: Sequence[Route]) -> None:
        """Set what the document is made of. Call it before the first request."""
        self._described = routes

    async def document(self, request: web.Request) -> web.Response:
        """GET /openapi.json"""
        query_of(request)
        body, tag = await self._document.get()
        headers = {"Cache-Control": "no-cache"}
        return tagged_answer(request, body, tag, "application/json", headers)

    async def page(self, request: web.Request) -> web.Response:
        """GET /docs"""
        return (await self._files.get()).answer(request, "index.html")

    async def file(self, request: web.Request) -> web.Response:
        """GET /docs/{name}"""
        return (await self._files.get()).answer(request, request.match_info["name"])


class _Once(Generic[_Made]):
    """What `make` returns, made in a thread by the first call that needs it."""

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._task: asyncio.Task[_Made] | None = None

    async def get(self) -> _Made:
        if self._task is None:
            self._task = asyncio.create_task(asyncio.to_thread(self._make))
        return await asyncio.shield(self._task)  # others may wait for it


def _encoded(routes: Sequence[Route]) -> tuple[bytes, str]:
    document = openapi_document(routes, version=version("store-cache"), examples=Examples.load())
    body = orjson.dumps(document)
    return body, f'"{hashlib.sha256(body).hexdigest()[:24]}"'
