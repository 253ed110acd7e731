"""How many bytes each exchange takes, both ways: the store's own client against `central_stub`.

Counts the heads and bodies of HTTP. For TCP and TLS add a tenth on full pages, and a few hundred
bytes on a small exchange.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import httpx

from central_stub.central import Central as Stub
from central_stub.central import Held
from central_stub.faults import Faults
from central_stub.ledger import Ledger
from central_stub.tenants import AccessKeys
from central_stub.wire import Request
from store_cache.catalogue.replica import Replica
from store_cache.central.client import CentralClient
from store_cache.central.rate_limit import RateLimit
from store_cache.model.pages import PageRequest

NOON = 1_700_000_000.0
KEY = "key-of-shop-0001"
URL = "http://central.chain.example"
GENERATION = "g-0123456789ab"
DATE = "Thu, 20 Nov 2025 12:00:00 GMT"


@dataclass(frozen=True)
class Size:
    """Bytes that the store sends and receives, heads included, and in how many requests."""

    up: int
    down: int
    requests: int = 1


class CountingTransport(httpx.AsyncBaseTransport):
    """A transport to a stub in this process, which adds up the bytes."""

    def __init__(self, stub: Stub) -> None:
        self.up = self.down = self.requests = 0
        self._stub = stub

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target, body = request.url.raw_path.decode(), await request.aread()
        asked = Request(request.method, target, request.headers["X-API-Key"], body, "a shop")
        answer = self._stub.answer(asked, NOON)
        if isinstance(answer, Held):
            answer = self._stub.release(answer, NOON)
        headers = {
            "Date": DATE,
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            **answer.headers,
        }
        self.up += _head(f"{request.method} {target} HTTP/1.1", dict(request.headers)) + len(body)
        self.down += _head(f"HTTP/1.1 {answer.status} OK", headers) + len(answer.body)
        self.requests += 1
        return httpx.Response(answer.status, content=answer.body, headers=headers)


def _head(first_line: str, headers: dict[str, str]) -> int:
    return len(first_line) + 4 + sum(len(name) + len(value) + 4 for name, value in headers.items())


class Chain:
    """A stub with so many products, and a client of it."""

    def __init__(self, products: int) -> None:
        self.ledger = Ledger(generation=GENERATION)
        for number in range(products):
            self.ledger.create(_product(number), NOON)
        keys = AccessKeys([KEY], [])
        stub = Stub(self.ledger, keys=keys, faults=Faults(lambda: 0.0), new_name=lambda: "g-2")
        self.transport = CountingTransport(stub)
        self.client = CentralClient(
            base_url=URL,
            api_key=KEY,
            rate_limit=RateLimit(),
            random=random.Random(1).random,
            now=lambda: NOON,
            transport=self.transport,
        )

    async def cost_of(self, work: Awaitable[Any]) -> Size:
        self.transport.up = self.transport.down = self.transport.requests = 0
        await work
        return Size(self.transport.up, self.transport.down, self.transport.requests)

    async def sell(self, number: int, version: int) -> None:
        payload = {
            "storeId": "shop-0001",
            "productId": _product(number)["productId"],
            "delta": -1,
            "version": version,
            "idempotencyKey": f"shop-0001-till-3-sale-{number:06}",
        }
        await self.client.write(payload, deadline_seconds=8.0)

    async def poll(self, events: int) -> None:
        """Send a poll that is answered with so many events."""
        first = self.ledger.head - events + 1
        await self.client.events(offset=first, limit=max(events, 10), wait_seconds=20)

    async def read_everything(self) -> None:
        """Fetch all pages, as a full sync does."""
        replica = Replica(held=None, same_generation=True, now=NOON, grace_seconds=2.0)
        request: PageRequest | None = replica.first_request()
        while request is not None:
            request = replica.take_page(request, await self.client.page(request))


def _product(number: int) -> dict[str, Any]:
    return {
        "productId": f"PROD-{number:06}",
        "name": f"Product number {number}",
        "available": 25,
        "price": 99.99,
        "category": f"category-{number % 40:02}",
    }


EMPTY, ONE_EVENT, EVENTS_100, EVENTS_500 = (
    "a poll without an event",
    "a poll with one event",
    "a poll with 100 events",
    "a poll with 500 events",
)
WRITE, PRODUCT, PAGE = "a write and its answer", "one product", "a page of 1,000 products"
FULL_SYNC = "a full sync's pages"


def measure(products: int = 100_000) -> dict[str, Size]:
    """Return the size of each exchange, with so many products (at least 1,000)."""
    return asyncio.run(_measured(products))


async def _measured(products: int) -> dict[str, Size]:
    chain = Chain(products)
    found = {WRITE: await chain.cost_of(chain.sell(0, 1))}
    for number in range(1, 501):
        await chain.sell(number, 1)
    for what, events in ((EMPTY, 0), (ONE_EVENT, 1), (EVENTS_100, 100), (EVENTS_500, 500)):
        found[what] = await chain.cost_of(chain.poll(events))
    found[PRODUCT] = await chain.cost_of(chain.client.product("PROD-000001"))
    found[PAGE] = await chain.cost_of(chain.client.page(PageRequest(0, 1000)))
    found[FULL_SYNC] = await chain.cost_of(chain.read_everything())
    await chain.client.close()
    return found
