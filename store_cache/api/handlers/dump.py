"""GET /v1/store/inventory/dump: the whole catalogue at one position, as JSON lines.

It is read from a point-in-time view while changes go on, some rows at a time, and no faster than
the client takes them. A view keeps one old row of each product that changes before it was sent.
"""

from __future__ import annotations

import asyncio
import logging

import orjson
from aiohttp import web

from store_cache.api.answers import LongAnswer
from store_cache.api.auth import Scope
from store_cache.api.content.documents import DumpHead
from store_cache.api.content.paths import query_of
from store_cache.api.openapi import operations as op
from store_cache.api.parts import StoreParts
from store_cache.api.problems import CacheNotReady
from store_cache.api.routing import Route
from store_cache.catalogue.catalogue import PointInTimeView

log = logging.getLogger(__name__)

DUMPS_AT_ONCE = 2
"""More wait for their turn: a slow client keeps old rows in memory."""

ROWS_AT_ONCE = 500
"""Rows joined before other requests are answered: a fraction of a millisecond."""


def dump_routes(store: StoreParts) -> tuple[Route, ...]:
    return (Route("GET", "/v1/store/inventory/dump", _Dumps(store).dump, Scope.ADMIN, op.DUMP),)


class _Dumps:
    def __init__(self, store: StoreParts) -> None:
        self._store = store
        self._turns = asyncio.Semaphore(DUMPS_AT_ONCE)

    async def dump(self, request: web.Request) -> LongAnswer:
        """Answer with a head line and a line for each product, in the order of their ids."""
        query_of(request)
        if self._store.writer.catalogue is None:
            raise CacheNotReady(self._store.status.why_no_catalogue())
        return _DumpAnswer(self)

    async def send(self, request: web.Request, answer: web.StreamResponse) -> None:
        async with self._turns:
            await answer.prepare(request)
            if request.method == "HEAD":
                return
            try:
                with self._store.writer.view() as view:
                    await _write(view, answer)
            except ConnectionError:
                log.debug("the client of a dump is gone")


class _DumpAnswer(LongAnswer):
    def __init__(self, dumps: _Dumps) -> None:
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        super().__init__(headers=headers)
        self._dumps = dumps

    async def send(self, request: web.Request) -> None:
        await self._dumps.send(request, self)


async def _write(view: PointInTimeView, answer: web.StreamResponse) -> None:
    """Write the lines; the connection makes it wait for a client that reads slowly."""
    await answer.write(_head(view))
    while rows := view.next_rows(ROWS_AT_ONCE):
        await answer.write(b"\n".join(rows) + b"\n")
        await asyncio.sleep(0)


def _head(view: PointInTimeView) -> bytes:
    position = view.position
    head: DumpHead = {
        "generation": None if position is None else position.label,
        "offset": 0 if position is None else position.last_offset,
        "products": view.count,
    }
    return orjson.dumps(head) + b"\n"
