"""A Central whose answers are made beforehand, so that only the client's own time is measured.

    python -m benchmarks.harness.prepared_central PORT PRODUCTS EVENTS

Serves pages of the catalogue of `rows`, and of a feed of updates spread over it, for the limits
that benchmarks use; prints `ready` once all answers are made. After `GET /pace?events=1000` so many
events arrive per second, in even steps, until another pace is set. It serves nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any, cast
from urllib.parse import parse_qsl

import orjson
import uvloop

from benchmarks.harness.rows import product_id, row

EVENTS = "/v1/inventory/events"
GENERATION = "g-bench"
EVENT_LIMIT = 500
PAGE_LIMIT = 1_000
STRIDE = 7_919
"""Prime, so that consecutive events belong to products that lie apart."""

STEPS_A_SECOND = 50
"""Several events arrive at once, as many shops sell between two of Central's answers."""


def event(offset: int, products: int) -> dict[str, Any]:
    number = offset * STRIDE % products
    version = 2 + (offset - 1) // products
    return {
        "offset": offset,
        "timestamp": "2026-01-15T10:30:00.000Z",
        "eventType": "inventory_updated",
        "productId": product_id(number),
        "version": version,
        "data": row(number, available=offset % 1000, version=version),
        "storeId": "store-s2",
        "idempotencyKey": f"store-s2-order-{offset}",
    }


class Lists:
    """The complete answers, by request."""

    def __init__(self, products: int, events: int) -> None:
        self._products, self._events = products, events
        self._made: dict[tuple[str, int, int], bytes] = {}
        for offset in range(1, events + 1, EVENT_LIMIT):
            self.answer(EVENTS, offset, EVENT_LIMIT)
        for offset in range(0, products, PAGE_LIMIT):
            self.answer("/v1/inventory", offset, PAGE_LIMIT)

    def answer(self, path: str, offset: int, limit: int) -> bytes:
        asked = (path, offset, limit)
        if asked not in self._made:
            body = self._feed(offset, limit) if path == EVENTS else self._page(offset, limit)
            answer = _whole(orjson.dumps(body | {"generation": GENERATION}))
            if body.get("hasMore") is False:
                return answer  # more may have arrived when it is asked for again
            self._made[asked] = answer
        return self._made[asked]

    def publish(self, count: int) -> None:
        self._events += count

    def _feed(self, offset: int, limit: int) -> dict[str, Any]:
        numbers = range(max(offset, 1), min(offset + limit, self._events + 1))
        following = numbers[-1] + 1 if numbers else self._events + 1
        return {
            "events": [event(number, self._products) for number in numbers],
            "nextOffset": following,
            "hasMore": following <= self._events,
            "count": len(numbers),
        }

    def _page(self, offset: int, limit: int) -> dict[str, Any]:
        end = min(offset + min(limit, PAGE_LIMIT), self._products)
        return {
            "products": [row(number) for number in range(offset, end)],
            "pagination": {
                "offset": offset,
                "limit": limit,
                "total_count": self._products,
                "has_more": end < self._products,
            },
            "eventOffset": self._events,
        }


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


class Arrivals:
    """Publishes events at a pace, and answers held polls."""

    def __init__(self, lists: Lists) -> None:
        self.held: dict[Connection, Query] = {}
        self._lists = lists
        self._arriving: asyncio.Task[None] | None = None

    def begin(self, events_a_second: int) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
        self._arriving = asyncio.create_task(self._arrive(events_a_second))

    async def _arrive(self, events_a_second: int) -> None:
        began, published = time.monotonic(), 0
        for step in itertools.count(1):
            await asyncio.sleep(began + step / STEPS_A_SECOND - time.monotonic())
            due = events_a_second * step // STEPS_A_SECOND
            self._lists.publish(due - published)
            published = due
            held, self.held = self.held, {}
            for connection, query in held.items():
                connection.answer_poll(query)


Query = dict[str, int]


class Connection(asyncio.Protocol):
    """Answers at once, except a poll that may be held while there are no events."""

    def __init__(self, lists: Lists, arrivals: Arrivals) -> None:
        self._lists = lists
        self._arrivals = arrivals
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrivals.held.pop(self, None)

    def data_received(self, data: bytes) -> None:
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            path, _, query = head.split(b" ", 2)[1].decode().partition("?")
            self._answer(path, {name: int(value) for name, value in parse_qsl(query)})

    def _answer(self, path: str, query: Query) -> None:
        if path == "/pace":
            self._arrivals.begin(query["events"])
            self._write(_whole(b"{}"))
        elif path == EVENTS:
            self.answer_poll(query)
            if self in self._arrivals.held:
                asyncio.get_running_loop().call_later(query["wait"], self._end_poll, query)
        else:
            self._write(self._lists.answer(path, query.get("offset", 0), query.get("limit", 100)))

    def answer_poll(self, query: Query) -> None:
        answer = self._lists.answer(EVENTS, query.get("offset", 0), query.get("limit", 100))
        if query.get("wait") and b'"count":0' in answer:
            self._arrivals.held[self] = query
        else:
            self._write(answer)

    def _end_poll(self, query: Query) -> None:
        """Answer a poll that was held for as long as it may be."""
        if self._arrivals.held.get(self) is query:
            self.answer_poll(self._arrivals.held.pop(self) | {"wait": 0})

    def _write(self, answer: bytes) -> None:
        assert self._transport is not None
        self._transport.write(answer)


async def serve(port: int, products: int, events: int) -> None:
    lists = Lists(products, events)
    arrivals = Arrivals(lists)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(lists, arrivals), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:4])))
