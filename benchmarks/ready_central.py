"""A Central whose answers are made before they are asked for, so that a client's time is its own.

    python -m benchmarks.ready_central PORT PRODUCTS EVENTS

Pages of the catalogue of `rows`, and of a feed of updates spread over it, for the limits that are
asked here; then `ready`.

Knows: the wire of Central's two lists. Refuses to know: all else; nothing ever happens here.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast
from urllib.parse import parse_qsl

import orjson
import uvloop

from benchmarks.rows import product_id, row

GENERATION = "g-bench"
EVENT_LIMIT = 500
PAGE_LIMIT = 1_000
STRIDE = 7_919
"""Prime: events that follow each other are of products that lie apart."""


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
    """The answers, whole, by what is asked."""

    def __init__(self, products: int, events: int) -> None:
        self._products, self._events = products, events
        self._made: dict[tuple[str, int, int], bytes] = {}
        for offset in range(1, events + 1, EVENT_LIMIT):
            self.answer("/v1/inventory/events", offset, EVENT_LIMIT)
        for offset in range(0, products, PAGE_LIMIT):
            self.answer("/v1/inventory", offset, PAGE_LIMIT)

    def answer(self, path: str, offset: int, limit: int) -> bytes:
        asked = (path, offset, limit)
        if asked not in self._made:
            body = self._feed(offset, limit) if path.endswith("/events") else self._page(*asked[1:])
            self._made[asked] = _whole(orjson.dumps(body | {"generation": GENERATION}))
        return self._made[asked]

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


class Connection(asyncio.Protocol):
    """Answers at once; a poll that may be held, and has nothing to tell, is never answered."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            path, _, query = head.split(b" ", 2)[1].decode().partition("?")
            asked = {name: int(value) for name, value in parse_qsl(query)}
            answer = self._lists.answer(path, asked.get("offset", 0), asked.get("limit", 100))
            if not asked.get("wait") or b'"count":0' not in answer:
                self._transport.write(answer)


async def serve(port: int, products: int, events: int) -> None:
    lists = Lists(products, events)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(lists), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:4])))
