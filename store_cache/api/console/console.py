"""The console's routes: `/` is its page, `/console/…` what the page loads."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from store_cache.api.auth import Scope
from store_cache.api.openapi import operations as op
from store_cache.api.routing import Route
from store_cache.api.static_files import StaticFiles

_FOLDER = Path(__file__).with_name("files")


_DOCS_LINK = b'<a href="/docs">API documentation</a>'


def console_routes(*, api_docs: bool) -> tuple[Route, ...]:
    """Return the routes; no file needs a key, since none holds data. Without `api_docs` the page
    has no link to them."""
    files = StaticFiles(_FOLDER)
    if not api_docs:
        files.replace("index.html", _DOCS_LINK, b"")

    async def page(request: web.Request) -> web.StreamResponse:
        return files.answer(request, "index.html")

    async def file(request: web.Request) -> web.StreamResponse:
        return files.answer(request, request.match_info["name"])

    return (
        Route("GET", "/", page, Scope.OPEN, op.READ_CONSOLE),
        Route("GET", "/console/{name:.+}", file, Scope.OPEN, op.READ_CONSOLE_FILE),
    )
