"""Handlers of the description of the API. It says nothing about the shop, so it needs no key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from importlib.metadata import version

import orjson
from aiohttp import web

from store_cache.api.auth import Scope
from store_cache.api.content.cache_headers import matches
from store_cache.api.content.paths import query_of
from store_cache.api.openapi import operations as op
from store_cache.api.openapi.document import openapi_document
from store_cache.api.openapi.examples import Examples
from store_cache.api.routing import Route


class ApiDocs:
    """Describes the routes of the API, its own among them."""

    def __init__(self) -> None:
        self._described: Sequence[Route] = ()
        self._document: asyncio.Task[tuple[bytes, str]] | None = None

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", "/openapi.json", self.document, Scope.OPEN, op.READ_API_DESCRIPTION),)

    def describe(self, routes: Sequence[Route]) -> None:
        """Set what the document is made of. Call it before the first request."""
        self._described = routes

    async def document(self, request: web.Request) -> web.Response:
        """GET /openapi.json"""
        query_of(request)
        if self._document is None:
            # It takes too long for the event loop.
            made = asyncio.to_thread(_encoded, self._described)
            self._document = asyncio.create_task(made)
        body, tag = await asyncio.shield(self._document)
        headers = {"Cache-Control": "no-cache", "ETag": tag}
        if matches(request.headers.getall("If-None-Match", ()), tag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers | {"Content-Type": "application/json"})


def _encoded(routes: Sequence[Route]) -> tuple[bytes, str]:
    document = openapi_document(routes, version=version("store-cache"), examples=Examples.load())
    body = orjson.dumps(document)
    return body, f'"{hashlib.sha256(body).hexdigest()[:24]}"'
