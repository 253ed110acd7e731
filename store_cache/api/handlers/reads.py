"""Reads, all from memory: the list, one product, a basket.

Knows: how requests become contents, and contents answers. Refuses to know: where the catalogue
is from. Between the moment a handler takes the catalogue and the moment its bytes are joined
nothing awaits: an answer is of one whole state (promise 1).
"""

from __future__ import annotations

from aiohttp import web

from store_cache.api.content import bodies as contents
from store_cache.api.content.bodies import Content
from store_cache.api.content.freshness import freshness_headers, matches
from store_cache.api.content.models import PAGE_PARAMETERS, read_lookup, read_page_query
from store_cache.api.content.paths import is_sendable, parse_query, product_id_of, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.problems import CacheNotReady, ProductNotFound
from store_cache.api.service import Freshness, Service
from store_cache.catalogue.catalogue import Catalogue


class Reads:
    """Handlers; `body_seconds` is how long a lookup's body may take to arrive."""

    def __init__(self, service: Service, *, body_seconds: float) -> None:
        self._service = service
        self._body_seconds = body_seconds

    async def page(self, request: web.Request) -> web.Response:
        """GET /v1/store/inventory"""
        raw = request.rel_url.raw_query_string
        query = read_page_query(*parse_query(raw, PAGE_PARAMETERS))
        catalogue, freshness = self._catalogue(), self._service.freshness()
        return _answer(request, contents.page(catalogue, query, freshness), freshness)

    async def product(self, request: web.Request) -> web.Response:
        """GET /v1/store/inventory/{productId}"""
        query_of(request)
        product_id = product_id_of(request)
        self._catalogue()
        if _asks_anew(request) and is_sendable(product_id):
            await self._service.refresh(product_id)
        freshness = self._service.freshness()
        content = contents.product(self._catalogue(), product_id)
        if content is None:
            raise _product_not_found(product_id, freshness)
        return _answer(request, content, freshness)

    async def lookup(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/lookup

        A read that takes its list in the body. So `If-None-Match` is answered as for a read, with
        304, not as for a change, with 412.
        """
        query_of(request)
        asked = read_lookup(await read_json(request, deadline_seconds=self._body_seconds))
        catalogue, freshness = self._catalogue(), self._service.freshness()
        return _answer(request, contents.basket(catalogue, asked), freshness)

    def _catalogue(self) -> Catalogue:
        catalogue = self._service.catalogue
        if catalogue is None:
            raise CacheNotReady.yet()
        return catalogue


def _asks_anew(request: web.Request) -> bool:
    directives = ",".join(request.headers.getall("Cache-Control", ())).lower().split(",")
    return any(directive.strip() == "no-cache" for directive in directives)


def _answer(request: web.Request, content: Content, freshness: Freshness) -> web.Response:
    headers = freshness_headers(freshness)
    body, tag = content
    headers["ETag"] = tag
    if_none_match = request.headers.getall("If-None-Match", ())
    if if_none_match and matches(if_none_match, tag):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = "application/json"
    return web.Response(body=body, headers=headers)


def _product_not_found(product_id: str, freshness: Freshness) -> ProductNotFound:
    return ProductNotFound(
        "Product not found in local cache",
        details={
            "productId": product_id,
            "suggestion": "Product may not exist or cache may be out of sync",
        },
        headers=freshness_headers(freshness),
    )
