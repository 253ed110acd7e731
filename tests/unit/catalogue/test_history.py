"""The history of products: what was seen, in order, within bounds."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from store_cache.catalogue.history.entries import Entries, Entry
from store_cache.catalogue.history.history import ChangeHistory
from store_cache.catalogue.observer import ChangeSource
from store_cache.model.change import RefetchReason
from store_cache.model.position import Position
from tests.harness.cache import Cache, applied_answer, event, row
from tests.harness.central import LedgerClient
from tests.harness.clock import Clock
from tests.harness.virtual_time import in_virtual_time

STORE = "store-s1"


async def a_history(limit: int = 100) -> tuple[Cache, ChangeHistory]:
    clock = Clock()
    cache = Cache(clock=clock, central=LedgerClient(clock, "P-1", "P-2", "P-3"))
    history = ChangeHistory(limit, store_id=STORE, now=clock.now)
    cache.writer.announcer.observers = (history,)
    await cache.filled()
    return cache, history


async def follow(cache: Cache, *events: Any) -> None:
    after = Position("g-1", events[-1].offset + 1, "f")
    await cache.writer.apply_events(events, after)


def shown(history: ChangeHistory, product_id: str, limit: int = 20) -> list[tuple[Any, ...]]:
    return [
        (entry.version, entry.available, entry.delta, entry.source.value, entry.offset)
        for entry in history.of(product_id, limit).changes
    ]


@in_virtual_time
async def test_the_first_catalogue_is_no_change() -> None:
    """The history begins empty, and is complete."""
    _, history = await a_history()
    found = history.of("P-1", 20)
    assert (list(found.changes), found.is_complete) == ([], True)


@in_virtual_time
async def test_changes_come_newest_first() -> None:
    """Each with its step, its source and the offset of its event."""
    cache, history = await a_history()
    await cache.follow_sale("P-1", -1)
    await cache.follow_sale("P-1", -3)
    assert shown(history, "P-1") == [(3, 6, -3, "event", 5), (2, 9, -1, "event", 4)]
    assert history.of("P-1", 20).is_complete
    assert not history.of("P-1", 1).is_complete
    assert shown(history, "P-2") == []


@in_virtual_time
async def test_a_batch_tells_each_of_its_events() -> None:
    """Readers saw two sales as one change; the history has both."""
    cache, history = await a_history()
    await follow(
        cache,
        event(4, row("P-1", 9, 2)),
        event(5, row("P-2", 5, 2)),
        event(6, row("P-1", 7, 3)),
    )
    assert shown(history, "P-1") == [(3, 7, -2, "event", 6), (2, 9, -1, "event", 4)]
    assert history.of("P-1", 20).is_complete


@in_virtual_time
async def test_a_batch_that_shows_another_state_of_the_same_version_is_told() -> None:
    """A late event of the next incarnation, at the version that is held: readers see it."""
    cache, history = await a_history()
    await follow(cache, event(4, row("P-1", 5, 1)), event(5, row("P-1", 4, 1)))
    [entry] = history.of("P-1", 20).changes
    assert (entry.version, entry.available, entry.offset) == (1, 4, 5)


@in_virtual_time
async def test_an_own_write_is_told_once() -> None:
    """The answer shows it, and the event that follows adds its offset."""
    cache, history = await a_history()
    answer = applied_answer("P-1", sent=1, left=8)
    await cache.writer.settle_write(cache.add_final("order-1", answer), answer)
    assert shown(history, "P-1") == [(2, 8, -2, "write", None)]
    await follow(
        cache,
        event(
            4,
            row("P-1", 8, 2, lastUpdated="2024-01-15T10:30:00Z"),
            storeId=STORE,
            idempotencyKey=f"{STORE}-order-1",
        ),
    )
    [entry] = history.of("P-1", 20).changes
    assert (entry.offset, entry.key, entry.delta) == (4, "order-1", -2)


@in_virtual_time
async def test_an_own_write_whose_event_comes_first_is_a_write_too() -> None:
    """Which of both is faster changes nothing; a further attempt has the till's key."""
    cache, history = await a_history()
    sold = event(4, row("P-1", 8, 2), storeId=STORE, idempotencyKey=f"{STORE}-order-1~2")
    await follow(cache, sold)
    [entry] = history.of("P-1", 20).changes
    assert (entry.source, entry.offset, entry.key) == (ChangeSource.WRITE, 4, "order-1")


@in_virtual_time
async def test_a_write_of_another_store_has_no_key() -> None:
    """Its key is nobody's business here."""
    cache, history = await a_history()
    await follow(cache, event(4, row("P-1", 8, 2), storeId="store-s2", idempotencyKey="secret"))
    [entry] = history.of("P-1", 20).changes
    assert (entry.source, entry.key) == (ChangeSource.EVENT, None)


@in_virtual_time
async def test_a_full_sync_tells_what_differs() -> None:
    """Several changes lie between, so the step is not known and the history not complete."""
    cache, history = await a_history()
    cache.central.sell("P-1", -1)
    cache.central.sell("P-1", -1)
    await cache.install()
    await cache.writer.announcer.tell_differences()
    assert shown(history, "P-1") == [(3, 8, None, "full sync", None)]
    assert not history.of("P-1", 20).is_complete
    assert history.of("P-2", 20).is_complete


@in_virtual_time
async def test_a_refetch_is_told() -> None:
    """A product that was read by itself."""
    cache, history = await a_history()
    known = cache.writer.known_state("P-1")
    await cache.writer.apply_refetch(
        "P-1", row("P-1", 4, 2), known=known, reason=RefetchReason.REFRESH
    )
    assert shown(history, "P-1") == [(2, 4, -6, "refetch", None)]


@in_virtual_time
async def test_creation_and_deletion_are_told() -> None:
    """A deletion has no stock; what follows a creation is complete."""
    cache, history = await a_history()
    await follow(cache, event(4, row("N-1", 5, 1), eventType="product_created"))
    assert shown(history, "N-1") == [(1, 5, None, "event", 4)]
    assert history.of("N-1", 20).is_complete
    gone = event(5, eventType="product_deleted", productId="P-1", version=2)
    await follow(cache, gone)
    assert shown(history, "P-1") == [(2, None, None, "event", 5)]


@in_virtual_time
async def test_a_gap_is_never_complete() -> None:
    """An event that leaps over versions shows that changes were not seen."""
    cache, history = await a_history()
    await follow(cache, event(4, row("P-1", 3, 5)))
    assert shown(history, "P-1") == [(5, 3, None, "event", 4)]
    assert not history.of("P-1", 20).is_complete


@in_virtual_time
async def test_a_defect_begins_it_anew() -> None:
    """Rather no history than one with a hole that nobody sees."""
    cache, history = await a_history()
    await cache.follow_sale("P-1", -1)
    await asyncio.sleep(10.0)
    history.reset()
    assert shown(history, "P-1") == []
    assert history.since == cache.clock.now()


@pytest.mark.parametrize("seed", range(10))
def test_entries_are_the_last_ones_of_all(seed: int) -> None:
    """Like a list of all entries, of which the last ones are looked through."""
    rng = random.Random(seed)
    limit = rng.randint(1, 20)
    entries, told = Entries(limit), []
    for number in range(1, 200):
        product_id = rng.choice("ABCDE")
        entry = Entry(
            rng.choice((None, number)),
            rng.choice((None, 0, 2**53 - 1)),
            rng.choice((None, 0, -7, 2**53 - 1)),
            float(number),
            rng.choice([*ChangeSource]),
            rng.choice((None, 0, 2**53 - 1)),
            rng.choice((False, True)),
            rng.choice((None, "ä-key")),
        )
        entries.add(product_id, entry)
        told.append((product_id, entry))
        assert len(entries) == min(len(told), limit)
        kept = told[-limit:]
        for name in "ABCDE":
            expected = [entry for product, entry in reversed(kept) if product == name]
            assert [entry for _, entry in entries.newest_first(name)] == expected
            lost = any(product == name for product, _ in told[:-limit])
            numbers = [number for number, (one, _) in enumerate(told, 1) if one == name]
            is_kept = not lost and numbers != [] and numbers[0] <= limit
            assert entries.is_whole(name) == (len(told) <= limit or is_kept)
