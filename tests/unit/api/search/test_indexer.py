"""The search index beside the running store: at each search it is what readers see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from store_cache import announcer
from store_cache.api.problems import IndexNotReady
from store_cache.api.search import indexer as indexer_module
from store_cache.api.search.indexer import BACKLOG_SECONDS, WAIT_SECONDS, Indexer
from store_cache.catalogue import differences
from store_cache.catalogue.search import index as index_module
from store_cache.catalogue.search.index import Query, SearchIndex
from tests.harness.background import in_background
from tests.harness.cache import Cache
from tests.harness.central import LedgerClient, LedgerTransport
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import a_store
from tests.harness.virtual_time import in_virtual_time

ALL = 10**6
NAMES = ["Green tea", "Black tea", "Coffee", "Tea pot", "Grüner Tee"]


async def at_once() -> None:
    """Nothing is to be caught up with."""


@asynccontextmanager
async def indexed(*product_ids: str) -> AsyncIterator[tuple[Cache, Indexer]]:
    """A cache that holds these products, and follows; and the indexer that watches it."""
    clock = Clock()
    cache = Cache(clock=clock, central=LedgerClient(clock, *product_ids))
    indexer = Indexer(cache.writer, caught_up=at_once, on_growth=lambda: None)
    cache.writer.announcer.observers = (indexer,)
    await cache.filled()
    async with in_background(indexer.run()):
        yield cache, indexer
    await cache.writer.close()


async def ids_found(indexer: Indexer, text: str) -> list[str]:
    found = (await indexer.current()).find(Query(text), by_relevance=False)
    return [orjson.loads(row)["productId"] for row in found.page(0, ALL)]


def check(index: SearchIndex, cache: Cache) -> None:
    """The index has the rows that readers see, and finds what a fresh one finds."""
    rows = dict(sorted(cache.catalogue.rows.items()))
    fresh = SearchIndex()
    for _ in fresh.load(list(rows), list(rows.values())):
        pass
    queries = [Query(), Query(in_stock=True), *map(Query, ["tea", "te b", "p", "1", "grun"])]
    for query in queries:
        for by_relevance in (False, True):
            expected = fresh.find(query, by_relevance=by_relevance).page(0, ALL)
            found = index.find(query, by_relevance=by_relevance)
            assert expected == found.page(0, ALL)
    assert list(rows.values()) == index.find(Query(), by_relevance=False).page(0, ALL)


def change(cache: Cache, chance: random.Random) -> None:
    """Change Central's catalogue in one way."""
    ledger, now = cache.central.ledger, cache.clock.now()
    product_id = f"P-{chance.randrange(40)}"
    row: dict[str, Any] = {"productId": product_id, "name": chance.choice(NAMES)}
    if ledger.read(product_id) is None:
        ledger.create(row | {"available": chance.randrange(2)}, now)
    elif chance.random() < 0.2:
        ledger.delete(product_id, now)
    elif chance.random() < 0.5:
        ledger.set(row, now)
    else:
        ledger.set({"productId": product_id, "available": chance.randrange(2)}, now)


@pytest.mark.parametrize("seed", range(6))
@in_virtual_time
async def test_each_search_shows_what_readers_see(seed: int) -> None:
    """Whatever changes, and whether it is followed or found by a full sync, also while the index is
    built and while the differences of a full sync are told."""
    chance = random.Random(seed)
    with (
        patch.object(index_module, "SHARD_PRODUCTS", 5),
        patch.object(indexer_module, "SHARD_PRODUCTS", 5),
        patch.object(indexer_module, "AT_ONCE", 3),
        patch.object(differences, "PART_PRODUCTS", 4),
    ):
        async with indexed(*(f"P-{number}" for number in range(20))) as (cache, indexer):
            for _ in range(120):
                for _ in range(chance.choice([1, 1, 5])):
                    change(cache, chance)
                kind = chance.random()
                if kind < 0.5:
                    await cache.follow()
                elif kind < 0.6:
                    await cache.install()
                elif kind < 0.65:
                    indexer.reset()
                await asyncio.sleep(chance.choice([0.0, 0.001, 0.05]))
                if chance.random() < 0.5:
                    check(await indexer.current(), cache)
            check(await indexer.current(), cache)


@in_virtual_time
async def test_a_search_waits_for_the_index_for_a_second() -> None:
    """Then it is told to come again; `current` raises no earlier and no later."""
    async with indexed("P-1") as (_, indexer):
        loop = asyncio.get_running_loop()
        with patch.object(announcer.Announcer, "is_telling", True):
            began = loop.time()
            with pytest.raises(IndexNotReady) as refused:
                await indexer.current()
            assert WAIT_SECONDS == pytest.approx(loop.time() - began, abs=0.01)
            assert {"Retry-After": "1"} == refused.value.headers
        assert ["P-1"] == await ids_found(indexer, "p")


@in_virtual_time
async def test_an_index_that_is_not_built_is_not_ready() -> None:
    """Before the first catalogue, and before `run`."""
    clock = Clock()
    cache = Cache(clock=clock, central=LedgerClient(clock, "P-1"))
    indexer = Indexer(cache.writer, caught_up=at_once, on_growth=lambda: None)
    cache.writer.announcer.observers = (indexer,)
    await cache.writer.open()
    async with in_background(indexer.run()):
        with pytest.raises(IndexNotReady):
            await indexer.current()
        await cache.install()
        assert ["P-1"] == await ids_found(indexer, "p")
    await cache.writer.close()


@pytest.mark.parametrize("caught_up_after", [3.0, 100.0])
@in_virtual_time
async def test_an_index_is_built_once_the_store_has_caught_up(caught_up_after: float) -> None:
    """It would take half of the time from the events. It does not wait for a long backlog."""
    clock = Clock()
    cache = await Cache(clock=clock, central=LedgerClient(clock, "P-1")).filled()
    loop, built = asyncio.get_running_loop(), asyncio.Event()
    began = loop.time()
    indexer = Indexer(
        cache.writer, caught_up=lambda: asyncio.sleep(caught_up_after), on_growth=built.set
    )
    async with in_background(indexer.run()):
        await built.wait()

        expected = min(caught_up_after, BACKLOG_SECONDS)
        assert expected == pytest.approx(loop.time() - began, abs=0.001)
        assert ["P-1"] == await ids_found(indexer, "p")
    await cache.writer.close()


@in_virtual_time
async def test_a_backlog_of_events_comes_before_the_index() -> None:
    """A store that starts with one builds the index when it is in sync."""
    central, directory = LedgerTransport(Clock(), "P-1"), FaultyDirectory()
    async with a_store(directory, central=central) as before:
        await before.until("live")
    for _ in range(500):
        central.sell("P-1", +1)
    async with a_store(directory, central=central, event_batch_limit=10) as store:
        assert "cached" == store.state
        grown = store.parts.writer.replaced
        grown.clear()
        await grown.wait()

        assert ("live", 0) == (store.state, store.status["lag"])


@in_virtual_time
async def test_a_new_index_is_left_out_of_garbage_collection_part_by_part() -> None:
    """The collector would traverse more and more of it while it is built."""
    clock = Clock()
    ids = [f"P-{number:03}" for number in range(200)]
    cache = await Cache(clock=clock, central=LedgerClient(clock, *ids)).filled()
    parts: list[str] = []
    indexer = Indexer(cache.writer, caught_up=at_once, on_growth=lambda: parts.append("part"))
    with (
        patch.object(indexer_module, "SHARD_PRODUCTS", 10),
        patch.object(indexer_module, "FROZEN_SHARDS", 4),
    ):
        async with in_background(indexer.run()):
            await indexer.current()
    await cache.writer.close()

    assert 200 // (4 * 10) + 1 == len(parts)


@in_virtual_time
async def test_a_search_right_after_a_change_finds_it() -> None:
    """A till that has just seen a change need not wait for the index."""
    async with indexed("P-1", "P-2") as (cache, indexer):
        await indexer.current()
        cache.central.ledger.set({"productId": "P-2", "name": "Coffee"}, cache.clock.now())
        await cache.follow()
        before = asyncio.get_running_loop().time()

        assert ["P-2"] == await ids_found(indexer, "coffee")
        assert before == asyncio.get_running_loop().time()


@in_virtual_time
async def test_a_sale_touches_no_text() -> None:
    """Events that change quantity, version and time alone leave the terms as they are."""
    async with indexed("P-1", "P-2") as (cache, indexer):
        index = await indexer.current()
        await cache.follow_sale("P-1", -10)
        index = await indexer.current()

        assert 0 == index.text_changes
        in_stock = index.find(Query(in_stock=True), by_relevance=False)
        assert 1 == in_stock.total


@in_virtual_time
async def test_a_full_sync_that_changes_nothing_touches_nothing() -> None:
    """The index stays, and is ready again as soon as the catalogues were compared."""
    async with indexed("P-1", "P-2") as (cache, indexer):
        index = await indexer.current()
        await cache.install()

        assert index is await indexer.current()
        assert 0 == index.text_changes


@in_virtual_time
async def test_a_defect_begins_the_index_again() -> None:
    """A product that was indexed in half may not stay so."""
    async with indexed("P-1", "P-2") as (cache, indexer):
        index = await indexer.current()
        await cache.follow_sale("P-1")
        defect = patch.object(SearchIndex, "put", side_effect=RuntimeError("a defect"))
        with defect, pytest.raises(RuntimeError):
            await indexer.current()
        rebuilt = await indexer.current()

        assert rebuilt is not index
        check(rebuilt, cache)


@in_virtual_time
async def test_a_large_catalogue_is_indexed_beside_everything_else() -> None:
    """Others take turns with every part of some hundred products."""
    clock = Clock()
    ids = [f"P-{number:04}" for number in range(1_000)]
    cache = await Cache(clock=clock, central=LedgerClient(clock, *ids)).filled()
    built = asyncio.Event()
    indexer = Indexer(cache.writer, caught_up=at_once, on_growth=built.set)
    async with in_background(indexer.run()):
        turns = 0
        while not built.is_set():
            turns += 1
            await asyncio.sleep(0)

        assert turns > 5
        assert 1_000 == len(await indexer.current())
    await cache.writer.close()
