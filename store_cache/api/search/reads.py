"""The reads of a store that can search. What searches nothing is answered as without that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from store_cache.api.content import bodies
from store_cache.api.content.models import read_barcode_lookup, read_page_query
from store_cache.api.content.paths import parse_query, query_of
from store_cache.api.content.requests import read_json
from store_cache.api.handlers.reads import Reads, answer
from store_cache.api.search.operations import LIST_PRODUCTS, LOOK_UP_PRODUCTS
from store_cache.api.search.parameters import (
    LIST_PARAMETERS,
    SEARCH_PARAMETERS,
    read_barcodes,
    read_search_query,
)
from store_cache.catalogue.search.index import SearchIndex

_BARCODES_AT_ONCE = 20


class SearchingReads(Reads):
    LIST = LIST_PRODUCTS
    LOOKUP = LOOK_UP_PRODUCTS

    async def page(self, request: web.Request) -> web.Response:
        """GET /v1/store/inventory"""
        parameters, problems = parse_query(request.rel_url.raw_query_string, LIST_PARAMETERS)
        if parameters.keys().isdisjoint(SEARCH_PARAMETERS):
            query = read_page_query(parameters, problems)
            catalogue, freshness = self._catalogue(), self._store.freshness.measure()
            content = bodies.page(catalogue, query, freshness, self._store.pending)
            return answer(request, content, freshness)
        asked = read_search_query(parameters, problems)
        index, page = await self._index(), asked.page
        found = index.find(asked.query, by_relevance=asked.by_relevance)
        if page.after is None:
            start, rows = page.offset, found.page(page.offset, page.limit)
        else:
            start, rows = found.page_after(page.after, page.limit)
        freshness, held = self._store.freshness.measure(), len(self._catalogue())
        content = bodies.page_of(
            rows, start, page.limit, found.total, held, freshness, pending=self._store.pending
        )
        return answer(request, content, freshness)

    async def lookup(self, request: web.Request) -> web.Response:
        """POST /v1/store/inventory/lookup"""
        query_of(request)
        value = await read_json(request, deadline_seconds=self._body_seconds)
        ids, given = read_barcode_lookup(value, note_unknown=self._note_unknown)
        if given is None:
            catalogue, freshness = self._catalogue(), self._store.freshness.measure()
            content = bodies.basket(catalogue, ids, self._store.pending)
            return answer(request, content, freshness)
        by_barcode = await self._with_barcodes(read_barcodes(given))
        catalogue, freshness = self._catalogue(), self._store.freshness.measure()
        content = bodies.basket_with_barcodes(catalogue, ids, by_barcode, self._store.pending)
        return answer(request, content, freshness)

    async def _with_barcodes(self, barcodes: Sequence[str]) -> dict[str, list[str]]:
        """Return the ids of the products with each barcode, as they are until the caller awaits.

        Many barcodes are found in parts, and found again at once if texts change in between.
        """
        index = await self._index()
        texts, found = index.text_changes, dict[str, list[str]]()
        for number, barcode in enumerate(barcodes, 1):
            found[barcode] = index.with_barcode(barcode)
            if number % _BARCODES_AT_ONCE == 0:
                await asyncio.sleep(0.0)
        latest = await self._index()
        if latest is index and index.text_changes == texts:
            return found
        return {barcode: latest.with_barcode(barcode) for barcode in barcodes}

    async def _index(self) -> SearchIndex:
        self._catalogue()  # raises if there is none
        assert self._store.search is not None
        return await self._store.search.current()
