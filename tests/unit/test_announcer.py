"""What observers are told of the visible catalogue: every change, in order, as a chain."""

from __future__ import annotations

import logging
import random

import pytest

from store_cache.announcer import Announcer
from store_cache.catalogue import differences
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, Origin, VisibleChange
from store_cache.model.change import Change, RefetchReason
from tests.harness.cache import Cache, applied_answer, row
from tests.harness.central import LedgerClient
from tests.harness.clock import Clock
from tests.harness.virtual_time import in_virtual_time

EVENT = Origin(ChangeSource.EVENT)


class Mirror:
    """Keeps the rows that it was told of, and checks that the changes of a product form a chain."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes | None] = {}
        self.sources: list[str] = []
        self.told: list[VisibleChange] = []
        self.resets = 0
        self.raises: Exception | None = None

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        if self.raises is not None:
            raise self.raises
        assert change.rows.keys() == change.old_rows.keys()
        for product_id, new in change.rows.items():
            assert self.rows.get(product_id) == change.old_rows[product_id] != new
            assert catalogue.rows.get(product_id) == new
            self.rows[product_id] = new
        self.told.append(change)
        self.sources.append(change.origin.source.value)

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None:
        if old is None:
            self.rows = dict(new.rows)
        self.sources.append("replaced")

    def reset(self) -> None:
        self.resets += 1
        if self.raises is not None:
            raise self.raises

    @property
    def seen(self) -> dict[str, bytes]:
        return {i: body for i, body in self.rows.items() if body is not None}


async def watched_cache() -> tuple[Cache, Mirror]:
    clock, mirror = Clock(), Mirror()
    cache = Cache(clock=clock, central=LedgerClient(clock, "P-1", "P-2", "P-3"))
    cache.writer.announcer.observers = (mirror,)
    await cache.filled()
    return cache, mirror


async def settle_telling(cache: Cache) -> None:
    await cache.writer.announcer.tell_differences()


@in_virtual_time
async def test_each_visible_change_names_its_source() -> None:
    """The first catalogue is no change; events, answers, refetches and full syncs are told."""
    cache, mirror = await watched_cache()
    assert mirror.sources == ["replaced"]
    await cache.follow_sale("P-1")
    answer = applied_answer("P-2", sent=1, left=7)
    await cache.writer.settle_write(cache.add_final("sale", answer), answer)
    known = cache.writer.known_state("P-3")
    await cache.writer.apply_refetch(
        "P-3", row("P-3", 4, 2), known=known, reason=RefetchReason.REFRESH
    )
    assert mirror.sources == ["replaced", "event", "write", "refetch"]
    assert mirror.seen == cache.catalogue.rows


@in_virtual_time
async def test_a_full_sync_is_told_as_the_products_that_differ() -> None:
    """[L2] One product of three was changed at Central without an event that the store has read."""
    cache, mirror = await watched_cache()
    cache.central.sell("P-2", -1)
    await cache.install()
    await settle_telling(cache)
    assert mirror.sources == ["replaced", "replaced", "full sync"]
    assert mirror.seen == cache.catalogue.rows


@in_virtual_time
async def test_what_changes_no_row_is_told_only_for_events() -> None:
    """An event that repeats what a till has seen moves the position, and readers see no change."""
    cache, mirror = await watched_cache()
    cache.central.sell("P-1", -1)
    answer = applied_answer("P-1", sent=1, left=9)
    await cache.writer.settle_write(cache.add_final("sale", answer), answer)
    mirror.told.clear()
    await cache.writer.request_refetch("P-3", RefetchReason.REFRESH)
    await cache.writer.note_in_sync()
    assert mirror.told == []
    await cache.follow()
    [change] = mirror.told
    assert len(change.origin.events) == 1


@in_virtual_time
async def test_a_defect_of_an_observer_does_not_harm_the_writer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[L5] The observer is told to begin again; the others and the writer go on."""
    cache, mirror = await watched_cache()
    broken = Mirror()
    broken.rows = {"P-1": b"something else"}
    cache.writer.announcer.observers = (broken, mirror)
    with caplog.at_level(logging.ERROR):
        await cache.follow_sale("P-1")
    assert cache.row("P-1") == (9, 2)
    assert broken.resets == 1
    assert "begins again" in caplog.text
    assert mirror.seen == cache.catalogue.rows


@in_virtual_time
async def test_an_observer_that_cannot_begin_again_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody is told of a change by an observer that is broken for good."""
    cache, mirror = await watched_cache()
    broken = Mirror()
    broken.raises = ValueError("broken")
    cache.writer.announcer.observers = (broken, mirror)
    with caplog.at_level(logging.ERROR):
        await cache.follow_sale("P-1")
        await cache.follow_sale("P-2")
    assert broken.resets == 1
    assert list(cache.writer.announcer.observers) == [mirror]
    assert mirror.seen == cache.catalogue.rows


@in_virtual_time
async def test_the_next_full_sync_waits_until_the_one_before_was_told() -> None:
    """Two full syncs in a row are told one after the other."""
    cache, mirror = await watched_cache()
    cache.central.sell("P-1", -1)
    await cache.install()
    cache.central.sell("P-2", -1)
    await cache.install()
    await settle_telling(cache)
    assert mirror.sources == ["replaced", *["replaced", "full sync"] * 2]
    assert mirror.seen == cache.catalogue.rows


@pytest.mark.parametrize("seed", range(20))
def test_changes_during_a_walk_keep_the_chain(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """[L2] While the differences of a full sync are told in parts, products change, come and go:
    each product's changes still form a chain that ends with what readers see."""
    monkeypatch.setattr(differences, "PART_PRODUCTS", 3)
    rng = random.Random(seed)
    names = [f"P-{n:02}" for n in range(30)]
    old, new = Catalogue(), Catalogue()
    old.fill((name, row(name, rng.randrange(3)).body) for name in rng.sample(names, 20))
    new.fill((name, row(name, rng.randrange(3)).body) for name in rng.sample(names, 20))
    announcer, mirror = Announcer(), Mirror()
    announcer.observers = (mirror,)
    announcer.announce_first(old)
    announcer.announce_replaced(old, new)
    for _ in range(200):
        name = rng.choice(names)
        changed = row(name, rng.randrange(3)).body if rng.random() < 0.7 else None
        announcer.apply(new, Change("test", rows={name: changed}), EVENT)
        if rng.random() < 0.2:
            announcer.tell_part()
    for _ in range(40):
        announcer.tell_part()
    assert mirror.seen == new.rows


def test_without_observers_a_change_is_only_applied() -> None:
    """Nothing is compared, and nothing is kept."""
    catalogue = Catalogue()
    announcer = Announcer()
    body = row("P-1").body
    announcer.apply(catalogue, Change("test", rows={"P-1": body}), EVENT)
    announcer.announce_replaced(catalogue, Catalogue())
    assert catalogue.rows == {"P-1": body}
