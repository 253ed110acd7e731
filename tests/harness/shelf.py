"""A keeper on a disk that can fail, and a Central in process: a ledger behind a line with troubles.

Knows: how a shelf is filled, what was asked of Central and in which order, and what a restart
finds. Refuses to know: HTTP, and what any test proves. All of it runs in virtual time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import suppress
from typing import Any

import orjson

from central_stub import ledger
from central_stub.ledger import Ledger, Update
from central_stub.wire import events_body
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Installation
from store_cache.central.failures import CentralError, OtherFeed, PositionGone
from store_cache.central.parsing import read_event_page
from store_cache.model.event import AnyEvent, read_event
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_product
from store_cache.model.stock import StockAnswer
from store_cache.storage.directory import Directory
from store_cache.storage.files import CacheFiles
from store_cache.writer import CacheWriter
from store_cache.writes.idempotency import Attempt, Final, KeyTable, encode_attempt, encode_final
from store_cache.writes.write import Applied
from tests.harness.faulty_directory import FaultyFolder, Held

NOON = 1_700_000_000.0
GRACE_SECONDS = 2.0
RETENTION_SECONDS = 86_400.0


class Clock:
    """The wall clock: it goes with the loop's, and somebody may set it."""

    def __init__(self) -> None:
        self.set_by_seconds = 0.0

    def now(self) -> float:
        return self.steady() + self.set_by_seconds

    def steady(self) -> float:
        return NOON + asyncio.get_running_loop().time()


def row(product_id: str, available: int = 10, version: int = 1, **attributes: Any) -> Row:
    six = {"productId": product_id, "name": product_id, "available": available}
    return read_product(six | {"version": version} | attributes)


def event(offset: int, changed: Row | None = None, **fields: Any) -> AnyEvent:
    """An event as it comes: an update to `changed` unless `fields` say otherwise."""
    whole: dict[str, Any] = {"offset": offset, "eventType": "inventory_updated"}
    if changed is not None:
        whole |= {"productId": changed.product_id, "version": changed.version}
        whole["data"] = orjson.loads(changed.body)
    return read_event(whole | fields)


def note_of(key: str) -> bytes:
    """The record of an attempt that is about to be sent."""
    return encode_attempt(Attempt(key, b"0" * 12, "P-1", 1, NOON))


def applied(product_id: str, *, sent: int, left: int) -> StockAnswer:
    return StockAnswer(product_id, sent, sent + 1, left, "2024-01-15T10:30:00Z")


class Central:
    """A ledger, asked as the sync asks Central. `troubles` are met one by one, by the first word
    of what is asked; `away` by everything."""

    def __init__(self, clock: Clock, *product_ids: str) -> None:
        self.ledger = Ledger(generation="g-1")
        self.asked: list[str] = []
        self.times: list[float] = []
        self.troubles: defaultdict[str, deque[CentralError]] = defaultdict(deque)
        self.away: CentralError | None = None
        self.says: list[EventPage] = []
        """Pages of events that it answers with, before it tells the truth again."""
        self._clock = clock
        self._held: list[Held] = []
        self._news = asyncio.Event()
        for product_id in product_ids:
            self.ledger.create({"productId": product_id, "available": 10}, NOON)

    # -- what happens to it ----------------------------------------------------------------

    def sell(self, product_id: str, delta: int = -1) -> None:
        """Another shop sells."""
        held = self.ledger.read(product_id)
        assert held is not None
        key = f"elsewhere-{self.ledger.head}"
        update = Update(product_id, delta, held["version"], key, "elsewhere")
        assert self.ledger.update(update, self._clock.now())["applied"]
        self.tell()

    def create(self, product_id: str) -> None:
        self.ledger.create({"productId": product_id, "available": 10}, self._clock.now())
        self.tell()

    def tell(self) -> None:
        """Let held polls have what there is."""
        self._news.set()
        self._news = asyncio.Event()

    def hold(self, what: str) -> Held:
        """Hold answers up to what begins so."""
        self._held.append(Held(what))
        return self._held[-1]

    # -- what is asked of it ---------------------------------------------------------------

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        await self._admit(f"events {offset} {wait_seconds}")
        page = self._events(offset, limit)
        if wait_seconds and not page.events:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._news.wait()
            page = self._events(offset, limit)
        return page

    async def page(self, request: PageRequest) -> CataloguePage:
        await self._admit(f"page {request.offset}")
        rows = self.ledger.page(request.offset, request.limit)
        more = request.offset + len(rows) < len(self.ledger)
        return CataloguePage(
            Rows.of(read_product(each) for each in rows),
            total=len(self.ledger),
            has_more=more,
            event_offset=self.ledger.head,
            generation=self.ledger.generation,
        )

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        await self._admit(f"product {product_id}")
        named = self.ledger.generation
        if None not in (named, generation) and named != generation:
            raise OtherFeed(f"a new generation {named}", generation=str(named))
        held = self.ledger.read(product_id)
        return None if held is None else read_product(held)

    async def _admit(self, what: str) -> None:
        self.asked.append(what)
        self.times.append(asyncio.get_running_loop().time())
        for held in self._held:
            if what.startswith(held.what):
                held.reached.set()
                await held.release.wait()
        if self.away is not None:
            raise self.away
        if troubles := self.troubles[what.split(maxsplit=1)[0]]:
            raise troubles.popleft()

    def _events(self, offset: int, limit: int) -> EventPage:
        if self.says:
            return self.says.pop(0)
        try:
            page = self.ledger.events(offset, limit, self._clock.now())
        except ledger.PositionGone as problem:
            raise PositionGone(str(problem)) from problem
        body = orjson.loads(orjson.dumps(events_body(page, self.ledger.switches)))
        return read_event_page(body, self.ledger.generation)


class Shelf:
    """One process's keeper and its folder."""

    def __init__(
        self, folder: Directory | None = None, *, clock: Clock | None = None, central: Any = None
    ) -> None:
        self.clock = clock or Clock()
        self.central: Central = central or Central(self.clock, "P-1", "P-2", "P-3")
        self.folder = folder or FaultyFolder()
        self.keys = KeyTable(retention_seconds=RETENTION_SECONDS)
        self.writer = CacheWriter(
            CacheFiles(self.folder, now=self.clock.now),
            self.keys,
            now=self.clock.now,
            steady=self.clock.steady,
            grace_seconds=GRACE_SECONDS,
            fetch_product=self.central.product,
        )

    @property
    def disk(self) -> FaultyFolder:
        assert isinstance(self.folder, FaultyFolder)
        return self.folder

    @property
    def catalogue(self) -> Catalogue:
        assert self.writer.catalogue is not None
        return self.writer.catalogue

    async def filled(self) -> Shelf:
        """Started, with what Central holds in place, at its head."""
        await self.writer.open()
        await self.place()
        return self

    async def fetch_pages(self) -> None:
        """Begin a full sync, which fetches all products in one page."""
        replica = self.writer.begin_replica(same_generation=True)
        request = replica.first_request()
        replica.take_page(request, await self.central.page(request))

    async def place(self, **installing: Any) -> None:
        """Do a full sync. `installing`: fields of its `Installation`."""
        await self.fetch_pages()
        head = Position("g-1", self.central.ledger.head + 1, "f")
        installation = Installation(head, **installing)
        verdict = await self.writer.install(installation, least_percent=50)
        assert verdict.accepted, verdict.problem

    async def sold(self, product_id: str, delta: int = -1) -> None:
        """Somebody sells at Central, and the event arrives."""
        position = self.writer.position
        assert position is not None
        self.central.sell(product_id, delta)
        page = await self.central.events(offset=position.offset, limit=100, wait_seconds=0)
        last = page.events[-1]
        after = Position(position.generation, last.offset + 1, last.fingerprint)
        await self.writer.apply_events(page.events, after)

    def enter(self, key: str) -> bytes:
        """An attempt in the key table; its record."""
        self.keys.put(Attempt(key, b"0" * 12, "P-1", 1, self.clock.now()))
        return note_of(key)

    def finish(self, key: str, stock: StockAnswer) -> bytes:
        """A final answer in the key table; its record."""
        final = Final(b"0" * 12, 1, stock.sent_version, self.clock.now(), Applied(stock))
        self.keys.finish(key, final)
        return encode_final(key, final)

    def row(self, product_id: str) -> tuple[int, int] | None:
        """Stock and version, as a reader sees them."""
        body = self.catalogue.get(product_id)
        return None if body is None else stock_of(body)

    async def restarted(self) -> Shelf:
        """The next process, after this one was killed with `kill -9`."""
        left = Shelf(self.disk.after_kill(), clock=self.clock, central=self.central)
        await left.writer.open()
        return left


def stock_of(body: bytes) -> tuple[int, int]:
    value = orjson.loads(body)
    return value["available"], value["version"]
