"""Repairs by verification: one record each, and a new label where a version goes back."""

from __future__ import annotations

import orjson
import pytest

from store_cache.model.position import Position
from tests.harness.cache import Cache, applied_answer, event, row
from tests.harness.virtual_time import in_virtual_time


async def repair(cache: Cache, available: int | None, version: int = 2) -> bool:
    product = None if available is None else row("P-1", available, version)
    known = cache.writer.known_state("P-1")
    return await cache.writer.apply_repair("P-1", product, known=known)


def label(cache: Cache) -> str:
    assert cache.writer.position is not None
    return cache.writer.position.label


@in_virtual_time
async def test_a_lower_version_and_the_new_label_are_one_record() -> None:
    """[P1] [D2] A version goes back in a generation of another name only, also after a crash."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    told: list[str] = []
    cache.writer.on_renamed = told.append
    appends = cache.disk.trace.count("append journal-2.jsonl")
    assert await repair(cache, 44, version=1)

    assert appends + 1 == cache.disk.trace.count("append journal-2.jsonl")
    change = orjson.loads(cache.disk.contents()["journal-2.jsonl"].splitlines()[-1])["record"]
    assert change["change"]["position"]["generation"] == "g-1 2"
    assert change["change"]["rows"]["P-1"]["version"] == 1
    assert (told, label(cache), cache.row("P-1")) == (["g-1 2"], "g-1~2", (44, 1))
    again = await cache.restarted()
    assert (label(again), again.row("P-1")) == ("g-1~2", (44, 1))


@in_virtual_time
async def test_the_label_stays_when_events_follow_that_were_asked_for_before() -> None:
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    assert await repair(cache, 44, version=1)
    cache.central.sell("P-2")
    page = await cache.central.events(offset=5, limit=10, wait_seconds=0)
    await cache.writer.apply_events(page.events, Position("g-1", 6, "f"))
    assert (label(cache), cache.row("P-2")) == ("g-1~2", (9, 2))


@pytest.mark.parametrize(("available", "version"), [(44, 2), (44, 7), (None, 0)])
@in_virtual_time
async def test_the_label_stays_if_no_version_goes_back(available: int | None, version: int) -> None:
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    assert await repair(cache, available, version)
    assert "g-1" == label(cache)
    assert cache.row("P-1") == (None if available is None else (available, version))
    assert ({}, {}) == (cache.catalogue.overrides, cache.catalogue.pending_refetches)


@in_virtual_time
async def test_what_changed_since_it_was_asked_for_is_not_repaired() -> None:
    cache = await Cache().filled()
    known = cache.writer.known_state("P-1")
    await cache.follow_sale("P-1")
    assert not await cache.writer.apply_repair("P-1", row("P-1", 44, 1), known=known)
    assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_what_is_ahead_of_the_feed_is_not_repaired() -> None:
    """[W7] The answer to a till may be newer than what Central said."""
    cache = await Cache().filled()
    stock = applied_answer("P-1", sent=1, left=9)
    await cache.writer.settle_write(cache.add_final("sale", stock), stock)
    assert not await repair(cache, 44)
    assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_nothing_is_repaired_while_a_full_sync_is_under_way() -> None:
    """[P1] It would be installed under the label from before the repair."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    await cache.fetch_pages()
    assert not await repair(cache, 44, version=1)
    assert ("g-1", (9, 2)) == (label(cache), cache.row("P-1"))


@in_virtual_time
async def test_a_repaired_product_follows_the_feed_at_once() -> None:
    """A repair is no override: the next event is applied."""
    cache = await Cache().filled()
    assert await repair(cache, 44)
    await cache.writer.apply_events([event(4, row("P-1", 43, 3))], Position("g-1", 5, "f"))
    assert (43, 3) == cache.row("P-1")
