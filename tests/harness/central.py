"""Central in this process: the stub's ledger, and the faults that a test sets.

There are two ways to use it. `LedgerTransport` takes the place of the network: the store's own
client sends it requests. `LedgerClient` takes the place of that client
(`store_cache.central.client.CentralClient`) in tests of single parts; a fault is then the error
that the client would raise.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import suppress
from typing import Any

import httpx
import orjson

from central_stub import ledger
from central_stub.central import Central, Held
from central_stub.faults import Faults
from central_stub.ledger import Ledger
from central_stub.rules import Update
from central_stub.switches import Feature
from central_stub.tenants import AccessKeys
from central_stub.wire import Reply, Request, events_body
from store_cache.central.failures import OtherFeed, PositionGone
from store_cache.central.parsing import PageEvents
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.product import Row, Rows, read_product
from tests.harness.clients import CENTRAL_KEY
from tests.harness.clock import NOON, Clock
from tests.harness.hold import Hold

PRODUCTS = ("P-1", "P-2", "P-3")


def tea(product_id: str) -> dict[str, Any]:
    return {"productId": product_id, "name": "Tea", "available": 10}


class LedgerCentral:
    """A ledger with some products, ten pieces of each. `asked` has every request, `times` when each
    came, by the loop's clock."""

    def __init__(self, clock: Clock, *product_ids: str) -> None:
        self.ledger = Ledger(generation="g-1")
        self.clock = clock
        self.asked: list[str] = []
        self.times: list[float] = []
        self._news = asyncio.Event()
        for product_id in product_ids or PRODUCTS:
            self.ledger.create(tea(product_id), NOON)

    def sell(self, product_id: str = "P-1", delta: int = -1) -> None:
        """Write as another shop does."""
        _, version = self.stock(product_id)
        key = f"elsewhere-{self.ledger.head}"
        update = Update(product_id, delta, version, key, "elsewhere")
        assert self.ledger.update(update, self.clock.now())["applied"]
        self.wake()

    def create(self, product_id: str) -> None:
        self.ledger.create(tea(product_id), self.clock.now())
        self.wake()

    def stock(self, product_id: str) -> tuple[int, int]:
        """Quantity and version."""
        row = self.ledger.read(product_id)
        assert row is not None
        return row["available"], row["version"]

    def wake(self) -> None:
        """Have held polls look for events."""
        self._news.set()
        self._news = asyncio.Event()

    def _note(self, request: str) -> None:
        self.asked.append(request)
        self.times.append(asyncio.get_running_loop().time())

    async def _until_news(self, wait_seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                await self._news.wait()


class LedgerTransport(LedgerCentral, httpx.AsyncBaseTransport):
    """`is_cut`: it cannot be reached. `may_answer`: no request is answered before it is set.
    `failing`: a request whose address contains it gets a 503. `nameless`: offsets of events that it
    sends with an unknown type and nothing else."""

    def __init__(self, clock: Clock, *product_ids: str) -> None:
        super().__init__(clock, *product_ids)
        self.is_cut = False
        self.failing: str | None = None
        self.nameless: set[int] = set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._central = Central(
            self.ledger,
            keys=AccessKeys([CENTRAL_KEY], []),
            faults=Faults(lambda: 0.0),
            new_name=lambda: "g-2",
        )

    def cut(self) -> None:
        """Break every connection."""
        self.is_cut = True
        self.wake()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        self._note(target)
        self._check_connection()
        key = request.headers["X-API-Key"]
        asked = Request(request.method, target, key, await request.aread(), "a store")
        await self.may_answer.wait()
        if self.failing is not None and self.failing in target:
            return httpx.Response(503)
        reply = self._central.answer(asked, self.clock.now())
        if isinstance(reply, Held):
            await self._until_news(reply.wait_seconds)
            reply = self._released(reply)
        self._check_connection()
        body = self._garbled(reply.body) if self.nameless else reply.body
        return httpx.Response(reply.status, content=body, headers=dict(reply.headers))

    def _garbled(self, body: bytes) -> bytes:
        value = orjson.loads(body)
        for event in value.get("events", ()):
            if (offset := event["offset"]) in self.nameless:
                event.clear()
                event.update({"offset": offset, "eventType": "audited"})
        return orjson.dumps(value)

    def _released(self, held: Held) -> Reply:
        now = self.clock.now()
        return self._central.poll(held, now) or self._central.release(held, now)

    def _check_connection(self) -> None:
        if self.is_cut:
            raise httpx.ConnectError("nobody listens there")


class LedgerClient(LedgerCentral):
    """`faults`: what the next requests fail with, one by one, by the first word of the request.
    `failure`: what every request fails with. `says`: pages of events that it answers with before it
    tells the truth again."""

    def __init__(self, clock: Clock, *product_ids: str) -> None:
        super().__init__(clock, *product_ids)
        self.faults: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self.failure: Exception | None = None
        self.says: list[EventPage] = []
        self._held: list[Hold] = []

    def hold(self, what: str) -> Hold:
        """Hold up requests that begin so."""
        self._held.append(Hold(what))
        return self._held[-1]

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        await self._admit(f"events {offset} {wait_seconds}")
        page = self._events(offset, limit)
        if wait_seconds and not page.events:
            await self._until_news(wait_seconds)
            page = self._events(offset, limit)
        return page

    async def page(self, request: PageRequest) -> CataloguePage:
        await self._admit(f"page {request.offset}")
        rows = self.ledger.page(request.offset, request.limit)
        return CataloguePage(
            Rows.of(read_product(each) for each in rows),
            total=len(self.ledger),
            has_more=request.offset + len(rows) < len(self.ledger),
            event_offset=self.ledger.head,
            generation=self.ledger.generation,
        )

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        await self._admit(f"product {product_id}")
        named = self.ledger.generation
        if None not in (named, generation) and named != generation:
            raise OtherFeed(f"a new generation {named}", generation=str(named))
        row = self.ledger.read(product_id)
        return None if row is None else read_product(row)

    async def _admit(self, request: str) -> None:
        self._note(request)
        for held in self._held:
            if request.startswith(held.what):
                await held.wait()
        if self.failure is not None:
            raise self.failure
        if faults := self.faults[request.split(maxsplit=1)[0]]:
            raise faults.popleft()

    def _events(self, offset: int, limit: int) -> EventPage:
        if self.says:
            return self.says.pop(0)
        try:
            page = self.ledger.events(offset, limit, self.clock.now())
        except ledger.PositionGone as problem:
            raise PositionGone(str(problem)) from problem
        switches = self.ledger.switches
        named = self.ledger.generation if switches.has(Feature.GENERATION) else None
        value = as_json(events_body(page, switches))
        return PageEvents(asked_offset=offset).page(value, named)


def as_json(value: Any) -> Any:
    """The value as the other side of a connection reads it."""
    return orjson.loads(orjson.dumps(value))
