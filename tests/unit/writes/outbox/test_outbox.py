"""The entries of the outbox while their records are being written, with a log that a test holds
up or has fail."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import orjson
import pytest

from store_cache.model.event import Digest, Event, Kind, WriteName
from store_cache.model.position import Position
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.outbox.entry import Entry, Result, State, decode_entry
from store_cache.writes.outbox.outbox import EntryLog, Outbox, OutboxSettings
from store_cache.writes.write import Adjustment, Answer, WriteError
from tests.harness.cache import Cache, applied_answer
from tests.harness.clock import NOON
from tests.harness.virtual_time import in_virtual_time

SETTINGS = OutboxSettings("store-s1", 100, is_accepting=True, retention_seconds=86_400.0)


class Log:
    """The writer's log: `fails` appends, and `may_write` holds them up while it is not set; those
    that settle an entry are held up by `may_settle`."""

    def __init__(self) -> None:
        self.fails = False
        self.may_write, self.may_settle = asyncio.Event(), asyncio.Event()
        self.may_write.set()
        self.may_settle.set()
        self.is_durable = True
        self.records: list[bytes] = []

    def held_row(self, product_id: str) -> Row | None:
        return None

    async def keep_write(self, key_entry: bytes) -> None:
        await self.record_write(key_entry)
        if self.fails:
            raise OSError(errno.ENOSPC, "no space left")

    async def record_write(self, *key_entries: bytes) -> None:
        await self.may_write.wait()
        self.records += key_entries

    async def settle_write(
        self, key_entry: bytes, answer: StockAnswer | None, *, shown: Callable[[], None]
    ) -> None:
        await self.may_settle.wait()
        self.records.append(key_entry)
        shown()


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def keys() -> KeyTable:
    return KeyTable(retention_seconds=86_400.0, capacity=100)


def outbox_of(keys: KeyTable, store: EntryLog) -> Outbox:
    numbers = count(1)
    return Outbox(
        SETTINGS, keys=keys, store=store, now=lambda: NOON, random=lambda: next(numbers) / 1000
    )


@pytest.fixture
async def outbox(log: Log, keys: KeyTable) -> Outbox:
    return outbox_of(keys, log)


async def queue(outbox: Outbox, *keys: str) -> None:
    await outbox.queue([(Adjustment("P-1", -1, key), 1) for key in keys], "Central is away")


def entry_of(outbox: Outbox, key: str) -> Entry:
    entry = outbox.get(key)
    assert entry is not None
    return entry


async def test_an_entry_discarded_while_it_is_being_written_does_not_come_back(
    outbox: Outbox, log: Log
) -> None:
    """[O10] Nothing of it is scheduled, pending, or told as queued after it was discarded."""
    told: list[State] = []
    outbox.on_changed = lambda entry: told.append(entry.state)
    log.may_write.clear()
    writing = asyncio.create_task(queue(outbox, "sale"))
    await asyncio.sleep(0)
    await outbox.discard(entry_of(outbox, "sale").id, by="office", reason="entered twice")
    log.may_write.set()
    await writing

    assert State.DISCARDED is entry_of(outbox, "sale").state
    assert [State.DISCARDED] == told
    assert (0, 0, 0) == (len(outbox), len(outbox.order), outbox.pending.of("P-1"))


async def test_a_discard_lasts_though_the_entry_could_not_be_kept(outbox: Outbox, log: Log) -> None:
    """[O10] A person was told that it is discarded; a repeat of the till is told so, too."""
    log.fails = True
    log.may_write.clear()
    writing = asyncio.create_task(queue(outbox, "sale", "other"))
    await asyncio.sleep(0)
    await outbox.discard(entry_of(outbox, "sale").id, by="office", reason="entered twice")
    log.may_write.set()
    with pytest.raises(WriteError):
        await writing

    assert State.DISCARDED is entry_of(outbox, "sale").state
    assert outbox.get("other") is None


async def test_a_state_that_is_superseded_while_it_is_written_is_not_told(
    outbox: Outbox, log: Log
) -> None:
    """[O10] The feed has settled it meanwhile: readers are told that once, and nothing after it."""
    await queue(outbox, "sale")
    sending = replace(entry_of(outbox, "sale"), state=State.SENDING)
    log.may_write.clear()
    recording = asyncio.create_task(outbox.record(sending))
    await asyncio.sleep(0)
    told: list[State] = []
    outbox.on_changed = lambda entry: told.append(entry.state)
    await outbox.settle(replace(sending, state=State.APPLIED), None)
    log.may_write.set()
    await recording

    assert [State.APPLIED] == told


def named_event(*, version: int, available: int) -> Event:
    """Return the event of the sale, which names it."""
    body = b'{"productId":"P-1","available":%d,"version":%d}' % (available, version)
    cause = Digest("f3", WriteName("store-s1", "store-s1-sale"))
    return Event(3, Kind.UPDATED, "P-1", version, body, cause)


def states_on_disk(keys: KeyTable) -> list[State]:
    """Return the states that entries have in a snapshot."""
    return [decode_entry(orjson.loads(record)).state for record in keys.encoded()]


@pytest.mark.parametrize("way", ["an answer", "an event"])
async def test_a_snapshot_has_a_settled_entry_only_once_its_record_is_durable(
    way: str, outbox: Outbox, log: Log, keys: KeyTable
) -> None:
    """[O10] [D2] The record is also that of the row that it changed, which the snapshot would not
    have. Whoever asks for the entry meanwhile waits for it."""
    await queue(outbox, "sale")
    sending = replace(entry_of(outbox, "sale"), state=State.SENDING)
    await outbox.record(sending)
    log.may_settle.clear()
    if way == "an answer":
        applied = replace(sending, state=State.APPLIED)
        settling = asyncio.create_task(outbox.settle(applied, None))
        await asyncio.sleep(0)
        asking = asyncio.create_task(outbox.answer("sale"))
        await asyncio.sleep(0)
        assert not asking.done()
        before = states_on_disk(keys)
        log.may_settle.set()
        await settling
        assert isinstance(await asking, Answer)
    else:
        with outbox.settled_by([named_event(version=2, available=9)]) as settled:
            assert settled is not None
            asking = asyncio.create_task(outbox.answer("sale"))
            await asyncio.sleep(0)
            assert not asking.done()
            before = states_on_disk(keys)
            settled.shown()
        assert isinstance(await asking, Answer)

    assert [State.SENDING] == before
    assert [State.APPLIED] == states_on_disk(keys)
    assert State.APPLIED is entry_of(outbox, "sale").state


@in_virtual_time
async def test_an_entry_that_a_compaction_meets_while_it_is_settled_is_in_doubt_after_a_crash() -> (
    None
):
    """[O10] [W6] Seed 99000725: Central had applied it, and its product had to be fetched for that.
    A new snapshot was written meanwhile. The next process said that the entry was applied, with the
    version that it had made, while reads showed the one before."""
    cache = await Cache().filled()
    outbox = outbox_of(cache.keys, cache.writer)
    await queue(outbox, "sale")
    sending = replace(entry_of(outbox, "sale"), state=State.SENDING)
    await outbox.record(sending)
    held = cache.central.hold("product P-1")
    cache.central.sell("P-1")
    cache.central.sell("P-1")  # the first one in another shop
    applied = replace(sending, state=State.APPLIED, result=Result(8, 3))
    stock = applied_answer("P-1", sent=2, left=8)
    settling = asyncio.create_task(outbox.settle(applied, stock))
    await held.reached.wait()
    await cache.writer.files.compact(cache.keys.encoded)
    killed = await cache.restarted()
    held.release.set()
    await settling
    after = await cache.restarted()

    assert ([State.SENDING], (10, 1)) == (states_on_disk(killed.keys), killed.row("P-1"))
    assert ([State.APPLIED], (8, 3)) == (states_on_disk(after.keys), after.row("P-1"))


@in_virtual_time
async def test_the_delta_goes_with_an_event_that_comes_while_the_product_is_fetched() -> None:
    """[O10] Central's answer has come, and the product is being fetched. The event shows the sale
    first: its delta is not shown beside it, and readers are told once."""
    cache = await Cache().filled()
    outbox = outbox_of(cache.keys, cache.writer)
    cache.writer.settles = outbox.settled_by
    await queue(outbox, "sale")
    sending = replace(entry_of(outbox, "sale"), state=State.SENDING)
    await outbox.record(sending)
    told: list[State] = []
    outbox.on_changed = lambda entry: told.append(entry.state)
    held = cache.central.hold("product P-1")
    applied = replace(sending, state=State.APPLIED, result=Result(8, 3))
    stock = applied_answer("P-1", sent=2, left=8)
    settling = asyncio.create_task(outbox.settle(applied, stock))
    await held.reached.wait()
    event = named_event(version=3, available=8)
    await cache.writer.apply_events([event], Position("g-1", 4, "f3"))
    by_event = cache.row("P-1"), outbox.pending.of("P-1"), states_on_disk(cache.keys)
    held.release.set()
    await settling

    assert ((8, 3), 0, [State.APPLIED]) == by_event
    assert [State.APPLIED] == told
    assert [State.APPLIED] == states_on_disk((await cache.restarted()).keys)


async def test_a_record_that_is_not_kept_is_a_failing_disk_and_queues_nothing(
    outbox: Outbox, log: Log
) -> None:
    """[O7] Also if the disk works again by the time the error is looked at; then the next write is
    queued at once."""
    log.fails = True
    with pytest.raises(WriteError) as caught:
        await queue(outbox, "first", "second")
    assert "storage_unavailable" == caught.value.code
    assert (0, 0, 0) == (len(outbox), len(outbox.order), outbox.pending.of("P-1"))
    log.fails = False
    await queue(outbox, "first")

    assert (1, 1, -1) == (len(outbox), len(outbox.order), outbox.pending.of("P-1"))
