"""Every operation on the disk fails in turn, under the whole writer (D5, promises 2 and 7)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from store_cache.catalogue.replica import Installation
from store_cache.model.change import RefetchReason
from store_cache.model.event import AnyEvent, read_event
from store_cache.model.pages import CataloguePage
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_product
from store_cache.model.stock import StockAnswer
from store_cache.storage import files
from store_cache.storage.files import CacheFiles
from store_cache.writer import HEAL_SECONDS, CacheWriter, Disk
from store_cache.writes.idempotency import Attempt, Final, KeyTable, encode_attempt, encode_final
from store_cache.writes.write import Applied
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.virtual_time import in_virtual_time, run
from tests.unit.storage.small_store import state

NOW = 1_700_000_000.0
IDS = ("A", "B", "Ü/1", "N")
FAULTS = (errno.EIO, errno.ENOSPC)
Step = Callable[["Shop"], Awaitable[None]]


@pytest.fixture(autouse=True)
def _early_compactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "COMPACTION_BYTES", 1)


def product(product_id: str, version: int, available: int = 5) -> dict[str, Any]:
    name = f"Cup {product_id}"
    return {"productId": product_id, "name": name, "available": available, "version": version}


@dataclass
class Shop:
    """A writer on a disk that fails, and what it has acknowledged."""

    folder: FaultyDirectory
    offset: int = 1
    damaged: bool = False
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = KeyTable(retention_seconds=86_400.0)
        self.writer = CacheWriter(
            CacheFiles(self.folder, now=self.now),
            self.keys,
            now=self.now,
            steady=self.now,
            grace_seconds=2.0,
            fetch_product=self.fetch_product,
        )

    @staticmethod
    def now() -> float:
        return NOW + asyncio.get_running_loop().time()

    async def fetch_product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        return read_product(product(product_id, self.versions[product_id]))

    async def open(self) -> None:
        self.damaged = await self.writer.open()

    async def install(self, version: int) -> None:
        """Install the replica of a full sync."""
        replica = self.writer.begin_replica(same_generation=True)
        self.versions = dict.fromkeys(IDS, version)
        rows = Rows.of(read_product(product(i, version)) for i in IDS)
        replica.take_page(replica.first_request(), CataloguePage(rows, is_whole=True))
        self.offset += 10
        installation = Installation(Position("g", self.offset))
        verdict = await self.writer.install(installation, least_percent=50)

        assert verdict.accepted

    async def follow(self, count: int = 1) -> None:
        """Apply a batch of events."""
        events = [self._event(IDS[(self.offset + number) % len(IDS)]) for number in range(count)]
        await self.writer.apply_events(events, Position("g", self.offset, events[-1].fingerprint))

    def _event(self, product_id: str) -> AnyEvent:
        self.versions[product_id] += 1
        self.offset += 1
        return read_event(
            {
                "offset": self.offset - 1,
                "eventType": "product_modified",
                "productId": product_id,
                "version": self.versions[product_id],
                "data": product(product_id, self.versions[product_id], self.offset),
            }
        )

    async def sell(self, product_id: str, key: str) -> None:
        """Record a write as the forwarder does: first its attempt, then its final answer."""
        version = self.versions[product_id]
        attempt = Attempt(key, bytes(12), product_id, version, self.now())
        self.keys.put(attempt)
        await self.writer.record_write(encode_attempt(attempt))
        answer = StockAnswer(product_id, version, version + 1, 3)
        final = Final(bytes(12), 1, version, self.now(), Applied(answer))
        self.keys.finish(key, final)
        await self.writer.settle_write(encode_final(key, final), answer)
        self.versions[product_id] += 1

    async def refetch(self, product_id: str) -> None:
        """Fetch a product, as the refetcher does."""
        self.versions[product_id] += 1
        row = await self.fetch_product(product_id)
        known = self.writer.known_state(product_id)

        assert await self.writer.apply_refetch(
            product_id, row, known=known, reason=RefetchReason.REFRESH
        )

    async def rest(self) -> None:
        """Let a compaction end: virtual time passes only when nothing else can run."""
        await asyncio.sleep(1.0)

    def holds(self) -> tuple[Any, ...]:
        return state(self.writer.catalogue), sorted(self.keys.encoded())


SCRIPT: tuple[Step, ...] = (
    lambda shop: shop.open(),
    lambda shop: shop.install(1),
    lambda shop: shop.follow(),
    lambda shop: shop.sell("A", "k1"),
    lambda shop: shop.follow(3),
    lambda shop: shop.rest(),
    lambda shop: shop.sell("Ü/1", "k2"),
    lambda shop: shop.refetch("B"),
    lambda shop: shop.follow(2),
    lambda shop: shop.install(20),
    lambda shop: shop.follow(6),
    lambda shop: shop.sell("N", "k3"),
    lambda shop: shop.follow(9),
    lambda shop: shop.rest(),
)


async def play(shop: Shop, *, after_each: Callable[[Shop], Awaitable[None]]) -> None:
    for step in SCRIPT:
        await step(shop)
        await after_each(shop)


async def nothing(_: Shop) -> None:
    """A step needs no check."""


async def left(folder: FaultyDirectory) -> tuple[Any, ...]:
    """What the next process finds."""
    shop = Shop(folder)
    await shop.open()
    held = shop.holds()
    await shop.writer.close()

    assert not shop.damaged, shop.writer.findings
    return held


async def promises_what_is_there(shop: Shop) -> None:
    """Unless the store says that it is not durable, a power cut takes nothing."""
    if shop.writer.disk.is_durable:
        held = shop.holds()

        assert held == await left(shop.folder.after_power_cut(Random(len(shop.folder.trace))))


async def heal(shop: Shop) -> None:
    shop.folder.failures.clear()
    shop.folder.room = None
    await asyncio.sleep(2 * HEAL_SECONDS)

    assert Disk() == shop.writer.disk


async def goes_on_durably(shop: Shop) -> None:
    """What is acknowledged from now on is there after a power cut, and all from before."""
    await shop.follow(2)
    await shop.sell("B", "k9")
    await shop.rest()
    for seed in range(2):
        assert shop.holds() == await left(shop.folder.after_power_cut(Random(seed)))
    assert shop.holds() == await left(shop.folder.after_kill())


async def undisturbed() -> tuple[int, tuple[Any, ...]]:
    """How many operations the script takes, and what is held then."""
    shop = Shop(FaultyDirectory())
    await play(shop, after_each=promises_what_is_there)
    return len(shop.folder.trace), shop.holds()


async def fails_once(operation: int, fault: int, expected: tuple[Any, ...]) -> bool:
    shop = Shop(FaultyDirectory())
    shop.folder.failures = {operation: fault}
    await play(shop, after_each=promises_what_is_there)

    assert expected == shop.holds()
    said = not shop.writer.disk.is_durable
    await heal(shop)
    await goes_on_durably(shop)
    await shop.writer.close()
    return said


@pytest.mark.parametrize("fault", FAULTS)
def test_each_operation_fails_once(fault: int) -> None:
    """[D5] Whichever it is, the store goes on in memory. If it does not say that the disk fails, a
    power cut after any step loses nothing; if it says so, a whole snapshot ends the failure, and
    nothing acknowledged since is lost."""
    total, expected = run(undisturbed())
    said = [run(fails_once(number, fault, expected)) for number in range(1, total + 1)]

    assert total > 80
    assert 3 < sum(said) < total


async def fails_until_mended(operation: int, fault: int, expected: tuple[Any, ...]) -> None:
    shop = Shop(FaultyDirectory())
    shop.folder.failures = dict.fromkeys(range(operation, operation + 1000), fault)
    await play(shop, after_each=promises_what_is_there)

    assert expected == shop.holds()
    await shop.follow()

    assert not shop.writer.disk.is_durable
    await asyncio.sleep(2 * HEAL_SECONDS)

    assert not shop.writer.disk.is_durable
    await heal(shop)
    await goes_on_durably(shop)
    await shop.writer.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_disk_fails_from_some_operation_on(fault: int) -> None:
    """[D5] The store says so as long as the disk fails. When it works again, everything from memory
    is in a new snapshot."""
    total, expected = run(undisturbed())
    for operation in range(1, total, 2):
        run(fails_until_mended(operation, fault, expected))


@in_virtual_time
async def test_a_compaction_that_breaks_the_journal_is_said_at_once() -> None:
    """[D5] Not only when the next append fails: by then the failure may have ended."""
    shop = Shop(FaultyDirectory())
    await shop.open()
    await shop.install(1)
    compaction = shop.folder.hold("sync journal-3.jsonl")  # of the new journal's header
    for _ in range(20):
        await shop.follow()
    await compaction.reached.wait()
    compaction.release.set()
    shop.folder.failures = {len(shop.folder.trace) + 4: errno.EIO}
    await shop.rest()

    assert "sync journal-3.jsonl" == shop.folder.trace[-1]
    assert not shop.writer.disk.is_durable
    await heal(shop)
    await goes_on_durably(shop)
    await shop.writer.close()


async def fills_up(room: int, expected: tuple[Any, ...]) -> None:
    shop = Shop(FaultyDirectory())
    shop.folder.room = room
    await play(shop, after_each=promises_what_is_there)

    assert expected == shop.holds()
    await heal(shop)
    await goes_on_durably(shop)
    await shop.writer.close()


def test_the_disk_fills_up_at_any_byte() -> None:
    """[D5] In the middle of a record or a chunk: the same holds."""
    _, expected = run(undisturbed())
    for room in range(0, 8000, 163):
        run(fills_up(room, expected))


async def starts_on_a_failing_disk(operation: int, fault: int, until: int) -> bool:
    """Return False if the start ended before that operation."""
    shop = Shop(FaultyDirectory())
    await play(shop, after_each=nothing)
    expected = shop.holds()
    second = Shop(shop.folder.after_kill(), offset=shop.offset, versions=dict(shop.versions))
    second.folder.failures = dict.fromkeys(range(operation, until + 1), fault)
    await second.open()
    if len(second.folder.trace) < operation:
        return False
    known = second.damaged or not second.writer.disk.is_durable

    assert known or expected == second.holds()
    await promises_what_is_there(second)
    await heal(second)
    if second.damaged:
        await second.install(90)
    else:
        assert expected == second.holds()
    await goes_on_durably(second)
    await second.writer.close()
    return True


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("lasts", [1, 1000])
def test_a_start_on_a_failing_disk(fault: int, lasts: int) -> None:
    """[D4] [D5] Each operation of a start fails, once or until it is repaired: the start does not.
    What could not be read is damage, which a full sync repairs; if something could not be written,
    the store says so until a new snapshot holds it."""
    operation = 1
    while run(starts_on_a_failing_disk(operation, fault, operation + lasts - 1)):
        operation += 1

    assert operation > 10
