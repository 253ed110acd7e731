"""Handlers of reads, all answered from memory: a page, one product, a basket.

A handler does not await between taking the catalogue and joining the bytes of the answer, so that
an answer shows one state of the catalogue (promise 1).
"""

from __future__ import annotations

import re
from typing import ClassVar

from aiohttp import web
from aiohttp.hdrs import CACHE_CONTROL

from store_cache.api.answers import tagged_answer
from store_cache.api.content import bodies
from store_cache.api.content.freshness import Freshness
from store_cache.api.content.models import (
    PAGE_PARAMETERS,
    NoteUnknown,
    read_lookup,
    read_page_query,
)
from store_cache.api.content.paths import is_sendable, parse_query, product_id_of, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.openapi import operations as op
from store_cache.api.openapi.operation import Operation
from store_cache.api.parts import StoreParts
from store_cache.api.problems import CacheNotReady, ProductNotFound
from store_cache.catalogue.catalogue import Catalogue

# A directive of its own in the list that `Cache-Control` is.
_NO_CACHE = re.compile(r"no-cache(?<![^, \t]no-cache)[ \t]*(?:,|$)")


class Reads:
    """`body_seconds` is how long the body of a lookup may take to arrive.

    `LIST` and `LOOKUP` describe the list and the lookup.
    """

    LIST: ClassVar[Operation] = op.LIST_PRODUCTS
    LOOKUP: ClassVar[Operation] = op.LOOK_UP_PRODUCTS

    def __init__(
        self, store: StoreParts, *, body_seconds: float, note_unknown: NoteUnknown
    ) -> None:
        self._store = store
        self._body_seconds = body_seconds
        self._note_unknown = note_unknown

    async def page(self, request: web.Request) -> web.Response:
        """GET /v1/store/inventory"""
        raw = request.rel_url.raw_query_string
        query = read_page_query(*parse_query(raw, PAGE_PARAMETERS))
        catalogue, freshness = self._catalogue(), self._store.freshness.measure()
        content = bodies.page(catalogue, query, freshness, self._store.pending)
        return answer(request, content, freshness)

    async def product(self, request: web.Request) -> web.Response:
        """GET /v1/store/inventory/{productId}; `Cache-Control: no-cache` asks Central first."""
        query_of(request)
        product_id = product_id_of(request)
        self._catalogue()
        directives = ",".join(request.headers.getall(CACHE_CONTROL, ())).lower()
        if _NO_CACHE.search(directives) and is_sendable(product_id):
            await self._store.refetcher.refresh(product_id)
        freshness = self._store.freshness.measure()
        content = bodies.product(self._catalogue(), product_id, self._store.pending)
        if content is None:
            raise ProductNotFound(
                "Product not found in local cache",
                details={
                    "productId": product_id,
                    "suggestion": "Product may not exist or cache may be out of sync",
                },
                headers=freshness.headers,
            )
        return answer(request, content, freshness)

    async def lookup(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/lookup

        This is a read, though its list comes in a body: a matching `If-None-Match` is answered
        with 304 as for a GET, not with 412.
        """
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        asked = read_lookup(value, note_unknown=self._note_unknown)
        catalogue, freshness = self._catalogue(), self._store.freshness.measure()
        content = bodies.basket(catalogue, asked, self._store.pending)
        return answer(request, content, freshness)

    def _catalogue(self) -> Catalogue:
        catalogue = self._store.writer.catalogue
        if catalogue is None:
            raise CacheNotReady(self._store.status.why_no_catalogue())
        return catalogue


def answer(request: web.Request, content: bodies.Content, freshness: Freshness) -> web.Response:
    """Return 200 with the content, or 304 if the caller has it."""
    body, tag = content
    return tagged_answer(request, body, tag, "application/json", freshness.headers)
