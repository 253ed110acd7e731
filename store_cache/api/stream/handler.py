"""GET /v1/store/inventory/stream"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import cast

from aiohttp import web
from aiohttp.http import HttpVersion11

from store_cache.api.answers import LongAnswer
from store_cache.api.auth import ANONYMOUS, CALLER, Authenticator, Scope
from store_cache.api.content.models import MOST_STREAMED
from store_cache.api.content.paths import list_of, parse_query
from store_cache.api.openapi import operations as op
from store_cache.api.parts import StoreParts
from store_cache.api.problems import (
    CacheNotReady,
    InvalidRequest,
    TooManyStreams,
    retry_after,
)
from store_cache.api.proxies import ADDRESS
from store_cache.api.routing import Route
from store_cache.api.stream.reader import Reader
from store_cache.api.stream.streams import Connection, Streams

LAST_EVENT_ID = "Last-Event-ID"

FULL_RETRY_SECONDS = 5.0, 15.0
"""How long a client beyond the limit is asked to wait, at random between the two."""

_START = "start"

log = logging.getLogger(__name__)


def stream_routes(
    store: StoreParts, streams: Streams, authenticator: Authenticator
) -> tuple[Route, ...]:
    handler = StreamHandler(store, streams, authenticator)
    path = "/v1/store/inventory/stream"
    return (Route("GET", path, handler.stream, Scope.READ, op.STREAM_CHANGES),)


class StreamHandler:
    def __init__(self, store: StoreParts, streams: Streams, authenticator: Authenticator) -> None:
        self._store = store
        self._streams = streams
        self._authenticator = authenticator

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/store/inventory/stream"""
        raw = request.rel_url.raw_query_string
        parameters, problems = parse_query(raw, ("productIds", "from"))
        wanted = None
        if "productIds" in parameters:
            wanted = list_of(raw, "productIds")
            if not 1 <= len(wanted) <= MOST_STREAMED:
                problems["productIds"] = f"must be 1 to {MOST_STREAMED} ids, separated by commas"
        if parameters.get("from", _START) != _START:
            problems["from"] = f"must be {_START}, or left out"
        last_event_ids = request.headers.getall(LAST_EVENT_ID, ())
        if len(last_event_ids) > 1:
            problems[LAST_EVENT_ID] = "is given more than once; give it once"
        if problems:
            raise InvalidRequest.of_fields(problems)
        if self._store.writer.catalogue is None:
            raise CacheNotReady(self._store.status.why_no_catalogue())
        if self._streams.is_stopping:
            raise self._none_now("The store is stopping, and opens no more streams")
        if self._streams.is_full:
            raise self._none_now(
                f"{len(self._streams)} of {self._streams.most} streams are open; read with "
                "If-None-Match meanwhile, or raise STREAM_READERS"
            )
        reader = Reader(self._streams.feed, self._streams.state, wanted)
        last_event_id = last_event_ids[0] if last_event_ids else None
        return _EventStream(
            self._streams,
            reader,
            last_event_id=last_event_id,
            from_start="from" in parameters,
            is_allowed=partial(self._authenticator.is_valid, request[CALLER]),
        )

    def _none_now(self, reason: str) -> TooManyStreams:
        seconds = self._streams.random_seconds(FULL_RETRY_SECONDS)
        return TooManyStreams(reason, headers=retry_after(seconds))


class _EventStream(LongAnswer):
    def __init__(
        self,
        streams: Streams,
        reader: Reader,
        *,
        last_event_id: str | None,
        from_start: bool,
        is_allowed: Callable[[], bool],
    ) -> None:
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # proxies would hold events back
        }
        super().__init__(headers=headers)
        self.force_close()  # the connection's buffers are set for a stream
        self._streams = streams
        self._reader = reader
        self._last_event_id = last_event_id
        self._from_start = from_start
        self._is_allowed = is_allowed

    async def send(self, request: web.Request) -> None:
        is_chunked = request.version >= HttpVersion11
        await self.prepare(request)
        transport = request.transport
        if request.method == "HEAD" or transport is None:
            return
        self._streams.state.update()
        begins = self._reader.begin(last_event_id=self._last_event_id, from_start=self._from_start)
        stream = self._streams.open(
            self._reader,
            cast("Connection", request.protocol),
            transport,
            is_allowed=self._is_allowed,
            is_chunked=is_chunked,
            begins=begins,
        )
        try:
            reason = await stream.ended
        finally:
            self._streams.forget(stream)
        log.debug(
            "stream ended: %s",
            reason,
            extra={
                "caller": request.get(CALLER, ANONYMOUS).name,
                "address": request[ADDRESS],
                "seconds": round(asyncio.get_running_loop().time() - stream.since, 1),
            },
        )
