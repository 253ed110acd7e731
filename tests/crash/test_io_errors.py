"""Every operation on the disk fails in turn, under the whole writer (D5, promises 2 and 7)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from store_cache.model.change import RefetchReason
from store_cache.storage import files
from store_cache.writer import HEAL_SECONDS, Disk
from tests.harness.cache import Cache, applied_answer
from tests.harness.central import LedgerClient
from tests.harness.clock import NOON, Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.virtual_time import in_virtual_time, run
from tests.unit.storage.small_store import state

IDS = ("A", "B", "Ü/1", "N")
FAULTS = (errno.EIO, errno.ENOSPC)
Step = Callable[["BusyCache"], Awaitable[None]]


@pytest.fixture(autouse=True)
def _early_compactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "COMPACTION_BYTES", 1)


class BusyCache(Cache):
    """A cache on a disk that fails, and its steps."""

    def __init__(
        self, directory: FaultyDirectory | None = None, *, central: LedgerClient | None = None
    ) -> None:
        central = central or LedgerClient(Clock(), *IDS)
        super().__init__(directory, clock=central.clock, central=central)
        self.damaged = False

    async def open(self) -> None:
        self.damaged = await self.writer.open()

    async def full_sync(self) -> None:
        for product_id in IDS:
            self.central.ledger.set({"productId": product_id, "available": 50}, NOON)
        await self.install()

    async def follow_sales(self, count: int = 1) -> None:
        """Follow a batch of the feed."""
        for number in range(count):
            self.central.sell(IDS[(self.central.ledger.head + number) % len(IDS)])
        await self.follow()

    async def sell(self, product_id: str, key: str) -> None:
        """Write as the forwarder does: the attempt on disk first, then the final answer."""
        _, version = self.central.stock(product_id)
        await self.writer.record_write(self.add_attempt(key))
        self.central.sell(product_id)
        available, _ = self.central.stock(product_id)
        answer = applied_answer(product_id, sent=version, left=available)
        await self.writer.settle_write(self.add_final(key, answer), answer)

    async def refetch(self, product_id: str) -> None:
        """Read the product by itself, as the refetcher does."""
        self.central.ledger.set({"productId": product_id, "name": "Refetched"}, NOON)
        row = await self.central.product(product_id)
        known = self.writer.known_state(product_id)

        assert await self.writer.apply_refetch(
            product_id, row, known=known, reason=RefetchReason.REFRESH
        )

    async def rest(self) -> None:
        """Let a compaction end: virtual time passes when nothing else can run."""
        await asyncio.sleep(1.0)

    def holds(self) -> tuple[Any, ...]:
        return state(self.writer.catalogue), sorted(self.keys.encoded())


SCRIPT: tuple[Step, ...] = (
    lambda cache: cache.open(),
    lambda cache: cache.full_sync(),
    lambda cache: cache.follow_sales(),
    lambda cache: cache.sell("A", "k1"),
    lambda cache: cache.follow_sales(3),
    lambda cache: cache.rest(),
    lambda cache: cache.sell("Ü/1", "k2"),
    lambda cache: cache.refetch("B"),
    lambda cache: cache.follow_sales(2),
    lambda cache: cache.full_sync(),
    lambda cache: cache.follow_sales(6),
    lambda cache: cache.sell("N", "k3"),
    lambda cache: cache.follow_sales(9),
    lambda cache: cache.rest(),
)


async def play(cache: BusyCache, *, after_each: Callable[[BusyCache], Awaitable[None]]) -> None:
    for step in SCRIPT:
        await step(cache)
        await after_each(cache)


async def nothing(_: BusyCache) -> None:
    """A step needs no check."""


async def left(folder: FaultyDirectory) -> tuple[Any, ...]:
    """What the next process finds."""
    cache = BusyCache(folder)
    await cache.open()
    held = cache.holds()
    await cache.writer.close()

    assert not cache.damaged, cache.writer.findings
    return held


async def promises_what_is_there(cache: BusyCache) -> None:
    """Unless the store says that it is not durable, a power cut takes nothing."""
    if cache.writer.disk.is_durable:
        held = cache.holds()

        assert held == await left(cache.disk.after_power_cut(Random(len(cache.disk.trace))))


async def heal(cache: BusyCache) -> None:
    cache.disk.failures.clear()
    cache.disk.room = None
    await asyncio.sleep(2 * HEAL_SECONDS)

    assert Disk() == cache.writer.disk


async def goes_on_durably(cache: BusyCache) -> None:
    """What is acknowledged from now on is there after a power cut, and all from before."""
    await cache.follow_sales(2)
    await cache.sell("B", "k9")
    await cache.rest()
    for seed in range(2):
        assert cache.holds() == await left(cache.disk.after_power_cut(Random(seed)))
    assert cache.holds() == await left(cache.disk.after_kill())


async def undisturbed() -> tuple[int, tuple[Any, ...]]:
    """How many operations the script takes, and what is held then."""
    cache = BusyCache()
    await play(cache, after_each=promises_what_is_there)
    return len(cache.disk.trace), cache.holds()


async def fails_once(operation: int, fault: int, expected: tuple[Any, ...]) -> bool:
    cache = BusyCache()
    cache.disk.failures = {operation: fault}
    await play(cache, after_each=promises_what_is_there)

    assert expected == cache.holds()
    said = not cache.writer.disk.is_durable
    await heal(cache)
    await goes_on_durably(cache)
    await cache.writer.close()
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
    cache = BusyCache()
    cache.disk.failures = dict.fromkeys(range(operation, operation + 1000), fault)
    await play(cache, after_each=promises_what_is_there)

    assert expected == cache.holds()
    await cache.follow_sales()

    assert not cache.writer.disk.is_durable
    await asyncio.sleep(2 * HEAL_SECONDS)

    assert not cache.writer.disk.is_durable
    await heal(cache)
    await goes_on_durably(cache)
    await cache.writer.close()


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
    cache = BusyCache()
    await cache.open()
    await cache.full_sync()
    compaction = cache.disk.hold("sync journal-3.jsonl")  # of the new journal's header
    for _ in range(20):
        await cache.follow_sales()
    await compaction.reached.wait()
    compaction.release.set()
    cache.disk.failures = {len(cache.disk.trace) + 4: errno.EIO}
    await cache.rest()

    assert "sync journal-3.jsonl" == cache.disk.trace[-1]
    assert not cache.writer.disk.is_durable
    await heal(cache)
    await goes_on_durably(cache)
    await cache.writer.close()


async def fills_up(room: int, expected: tuple[Any, ...]) -> None:
    cache = BusyCache()
    cache.disk.room = room
    await play(cache, after_each=promises_what_is_there)

    assert expected == cache.holds()
    await heal(cache)
    await goes_on_durably(cache)
    await cache.writer.close()


def test_the_disk_fills_up_at_any_byte() -> None:
    """[D5] In the middle of a record or a chunk: the same holds."""
    _, expected = run(undisturbed())
    for room in range(0, 8000, 163):
        run(fills_up(room, expected))


async def starts_on_a_failing_disk(operation: int, fault: int, until: int) -> bool:
    """Return False if the start ended before that operation."""
    cache = BusyCache()
    await play(cache, after_each=nothing)
    expected = cache.holds()
    second = BusyCache(cache.disk.after_kill(), central=cache.central)
    second.disk.failures = dict.fromkeys(range(operation, until + 1), fault)
    await second.open()
    if len(second.disk.trace) < operation:
        return False
    known = second.damaged or not second.writer.disk.is_durable

    assert known or expected == second.holds()
    await promises_what_is_there(second)
    await heal(second)
    if second.damaged:
        await second.full_sync()
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
