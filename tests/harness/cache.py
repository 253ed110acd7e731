"""One process's cache: its writer on a disk that can fail, with a Central in this process."""

from __future__ import annotations

from typing import Any

import orjson

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent, read_event
from store_cache.model.position import Position
from store_cache.model.product import Row, read_product
from store_cache.model.stock import StockAnswer
from store_cache.storage.directory import Directory
from store_cache.storage.files import CacheFiles
from store_cache.writer import CacheWriter
from store_cache.writes.idempotency import Attempt, Final, KeyTable, encode_attempt, encode_final
from store_cache.writes.write import Applied
from tests.harness.central import LedgerClient
from tests.harness.clock import NOON, Clock
from tests.harness.faulty_directory import FaultyDirectory

GRACE_SECONDS = 2.0
RETENTION_SECONDS = 86_400.0


def row(product_id: str, available: int = 10, version: int = 1, **attributes: Any) -> Row:
    six = {"productId": product_id, "name": product_id, "available": available}
    return read_product(six | {"version": version} | attributes)


def event(offset: int, changed: Row | None = None, **fields: Any) -> AnyEvent:
    """Return an event: an update to `changed`, unless `fields` say otherwise."""
    whole: dict[str, Any] = {"offset": offset, "eventType": "inventory_updated"}
    if changed is not None:
        whole |= {"productId": changed.product_id, "version": changed.version}
        whole["data"] = orjson.loads(changed.body)
    return read_event(whole | fields)


def attempt_record(key: str) -> bytes:
    """Return the record of an attempt that is about to be sent."""
    return encode_attempt(Attempt(key, b"0" * 12, "P-1", 1, NOON))


def applied_answer(product_id: str, *, sent: int, left: int) -> StockAnswer:
    return StockAnswer(product_id, sent, sent + 1, left, "2024-01-15T10:30:00Z")


class Cache:
    """A restart is another one, on what this one leaves."""

    def __init__(
        self,
        directory: Directory | None = None,
        *,
        clock: Clock | None = None,
        central: LedgerClient | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.central = central or LedgerClient(self.clock)
        self.directory = directory or FaultyDirectory()
        self.keys = KeyTable(retention_seconds=RETENTION_SECONDS)
        self.writer = CacheWriter(
            CacheFiles(self.directory, store_id="store-s1", now=self.clock.now),
            self.keys,
            now=self.clock.now,
            steady=self.clock.steady,
            grace_seconds=GRACE_SECONDS,
            fetch_product=self.central.product,
        )

    @property
    def disk(self) -> FaultyDirectory:
        assert isinstance(self.directory, FaultyDirectory)
        return self.directory

    @property
    def catalogue(self) -> Catalogue:
        assert self.writer.catalogue is not None
        return self.writer.catalogue

    async def filled(self) -> Cache:
        """Start, and install what Central holds."""
        await self.writer.open()
        await self.install()
        return self

    async def fetch_pages(self) -> None:
        """Begin a full sync, which fetches all products in one page."""
        replica = self.writer.begin_replica(same_generation=True)
        request = replica.first_request()
        replica.take_page(request, await self.central.page(request))

    async def install(self, **installing: Any) -> None:
        """Do a full sync. `installing`: fields of its `Installation`."""
        await self.fetch_pages()
        head = Position("g-1", self.central.ledger.head + 1, "f")
        installation = Installation(head, **installing)
        verdict = await self.writer.install(installation, least_percent=50)
        assert verdict.accepted, verdict.problem

    async def follow_sale(self, product_id: str, delta: int = -1) -> None:
        """Have another shop sell, and follow the event."""
        self.central.sell(product_id, delta)
        await self.follow()

    async def follow(self) -> None:
        """Apply the events from the position on."""
        position = self.writer.position
        assert position is not None
        page = await self.central.events(offset=position.offset, limit=100, wait_seconds=0)
        last = page.events[-1]
        after = Position(position.generation, last.offset + 1, last.fingerprint)
        await self.writer.apply_events(page.events, after)

    def add_attempt(self, key: str) -> bytes:
        """Put an attempt into the key table; return its record."""
        self.keys.put(Attempt(key, b"0" * 12, "P-1", 1, self.clock.now()))
        return attempt_record(key)

    def add_final(self, key: str, stock: StockAnswer) -> bytes:
        """Put a final answer into the key table; return its record."""
        final = Final(b"0" * 12, 1, stock.sent_version, self.clock.now(), Applied(stock))
        self.keys.finish(key, final)
        return encode_final(key, final)

    def row(self, product_id: str) -> tuple[int, int] | None:
        """Return stock and version, as a reader sees them."""
        body = self.catalogue.get(product_id)
        return None if body is None else stock_of(body)

    async def restarted(self) -> Cache:
        """Return the next process, after this one was killed."""
        left = Cache(self.disk.after_kill(), clock=self.clock, central=self.central)
        await left.writer.open()
        return left


def stock_of(body: bytes) -> tuple[int, int]:
    value = orjson.loads(body)
    return value["available"], value["version"]
