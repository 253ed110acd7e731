"""The cache's writer over a catalogue of a given size, in the benchmark's own process."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from benchmarks.harness.machine import SERVER_CORE, pin_to
from benchmarks.harness.rows import product_id, row
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent, read_event
from store_cache.model.pages import CataloguePage
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_product
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.files import CacheFiles
from store_cache.writer import CacheWriter
from store_cache.writes.idempotency import KeyTable

GENERATION = "g-bench"
PAGE_ROWS = 1_000

T = TypeVar("T")


async def as_served(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do the work as a store does it: on uvloop, on one core with the threads that it starts."""
    done: Future[T] = Future()

    def run() -> None:
        pin_to(SERVER_CORE)  # this thread, and those that it starts
        try:
            done.set_result(uvloop.run(work()))
        except BaseException as problem:  # noqa: BLE001 - it is the caller's
            done.set_exception(problem)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)


@dataclass
class Cache:
    """A writer, its files, and how far its feed has come."""

    writer: CacheWriter
    files: CacheFiles
    keys: KeyTable
    products: int
    _offset: int = 1
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    @property
    def catalogue(self) -> Catalogue:
        assert self.writer.catalogue is not None
        return self.writer.catalogue

    def batch(self, count: int) -> tuple[list[AnyEvent], Position]:
        """Events for that many products all over the catalogue, and the position after them."""
        version, step, first = next(self._versions), self.products // count, self._offset // count
        numbers = [(first + index * step) % self.products for index in range(count)]
        events = [read_event(self._event(number, version)) for number in numbers]
        fingerprint = events[-1].fingerprint
        return events, Position(GENERATION, self._offset, fingerprint)

    def _event(self, number: int, version: int) -> dict[str, object]:
        offset, self._offset = self._offset, self._offset + 1
        return {
            "offset": offset,
            "timestamp": "2026-01-15T10:30:00.000Z",
            "eventType": "inventory_updated",
            "productId": product_id(number),
            "version": version,
            "data": row(number, available=offset % 1000, version=version),
        }

    async def sync(self) -> None:
        """Do a full sync of what is held, from pages that were read already."""
        replica = self.writer.begin_replica(same_generation=True)
        request = replica.first_request()
        for page in pages(self.catalogue):
            replica.take_page(request, page)
        installation = Installation(Position(GENERATION, self._offset))
        verdict = await self.writer.install(installation, least_percent=50)
        assert verdict.accepted, verdict.problem


def pages(catalogue: Catalogue) -> Iterator[CataloguePage]:
    """The catalogue as Central would page it, by cursor."""
    total = len(catalogue)
    for first in range(0, total, PAGE_ROWS):
        rows = Rows.of(_row(body) for body in catalogue.page(first, PAGE_ROWS))
        cursor = str(first) if first + PAGE_ROWS < total else None
        yield CataloguePage(rows, total=total, next_cursor=cursor)


def _row(body: bytes) -> Row:
    """Parse nothing but the id: parsing would be most of what is measured."""
    start = len(b'{"productId":"')
    return Row(body[start : body.index(b'"', start)].decode(), 1, 1, bytes(bytearray(body)))


def snapshot_in(data: Path) -> Path:
    """The snapshot of a store that has stopped."""
    return next(data.glob("snapshot-*.jsonl"))


def catalogue_of(products: int) -> Catalogue:
    catalogue = Catalogue()
    rows = (read_product(row(number)) for number in range(products))
    catalogue.fill((each.product_id, each.body) for each in rows)
    catalogue.index()
    catalogue.position = Position(GENERATION, 1)
    return catalogue


@asynccontextmanager
async def a_cache(path: Path, products: int) -> AsyncIterator[Cache]:
    """A cache of that many products, at the beginning of a feed, with its files in the folder."""
    directory = LocalDirectory(path)
    files = CacheFiles(directory, store_id="store-s1", now=time.time)
    await files.load()
    catalogue = catalogue_of(products)
    await files.begin(catalogue, ())
    keys = KeyTable(retention_seconds=86_400.0)
    writer = CacheWriter(
        files,
        keys,
        now=time.time,
        steady=time.time,
        grace_seconds=2.0,
        fetch_product=_fetch_product,
    )
    writer.catalogue = catalogue
    try:
        yield Cache(writer, files, keys, products)
    finally:
        await writer.close()
        await directory.close()


async def _fetch_product(product_id: str, *, generation: str | None) -> Row | None:
    raise AssertionError(f"nothing here fetches {product_id} of {generation}")
