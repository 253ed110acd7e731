"""The entries of the outbox while their records are being written, with a log that a test holds
up or has fail."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.outbox.entry import Entry, State
from store_cache.writes.outbox.outbox import Outbox, OutboxSettings
from store_cache.writes.write import Adjustment, WriteError
from tests.harness.clock import NOON

SETTINGS = OutboxSettings("store-s1", 100, is_accepting=True, retention_seconds=86_400.0)


class Log:
    """The writer's log: `fails` appends, and `may_write` holds them up while it is not set."""

    def __init__(self) -> None:
        self.fails = False
        self.may_write = asyncio.Event()
        self.may_write.set()
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
        self.records.append(key_entry)
        shown()


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def outbox(log: Log) -> Outbox:
    numbers = count(1)
    return Outbox(
        SETTINGS,
        keys=KeyTable(retention_seconds=86_400.0, capacity=100),
        store=log,
        now=lambda: NOON,
        random=lambda: next(numbers) / 1000,
    )


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
