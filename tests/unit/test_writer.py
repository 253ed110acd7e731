"""The one writer: durable before visible, writes, full syncs, compaction, a failing disk."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest

from store_cache import writer
from store_cache.catalogue.apply import OVERRIDE_SECONDS, TOMBSTONE_SECONDS
from store_cache.catalogue.catalogue import PART_ROWS, UNFOLLOWED
from store_cache.catalogue.replica import Installation
from store_cache.central.failures import ExchangeBroken
from store_cache.model.change import PendingRefetch, RefetchReason
from store_cache.model.position import Position
from store_cache.storage import files
from store_cache.storage.deadlines import OPERATION_SECONDS
from store_cache.storage.files import CHECK_SECONDS
from store_cache.storage.framing import frame
from store_cache.writer import HEAL_SECONDS, IN_SYNC_RECORD_SECONDS
from tests.harness.cache import Cache, applied_answer, attempt_record, event, row
from tests.harness.clock import NOON
from tests.harness.faulty_directory import Crashed, FaultyDirectory
from tests.harness.virtual_time import in_virtual_time, run
from tests.unit.storage.small_store import state

AWAY = ExchangeBroken("no answer")


async def a_moment() -> None:
    """Let others run as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def keys_of(cache: Cache) -> list[str]:
    return [orjson.loads(record)["key"] for record in cache.keys.encoded()]


# -- durable before visible --------------------------------------------------------------------


async def settle_sale(cache: Cache) -> None:
    """A till sold one of P-1, and Central's answer arrives before the event."""
    stock = applied_answer("P-1", sent=1, left=9)
    await cache.writer.settle_write(cache.add_final("sale", stock), stock)


async def settle_at(cache: Cache, product_id: str, *, left: int) -> None:
    """The same, with the sale in Central's ledger."""
    stock = applied_answer(product_id, sent=1, left=left)
    cache.central.sell(product_id, left - 10)
    await cache.writer.settle_write(cache.add_final(f"sale of {product_id}", stock), stock)


async def refetch(cache: Cache) -> None:
    known = cache.writer.known_state("P-1")
    sold = row("P-1", 9, 2)
    await cache.writer.apply_refetch("P-1", sold, known=known, reason=RefetchReason.REFRESH)


async def repair(cache: Cache) -> None:
    known = cache.writer.known_state("P-1")
    await cache.writer.apply_repair("P-1", row("P-1", 9, 2), known=known)


WAYS: dict[str, Callable[[Cache], Awaitable[object]]] = {
    "events": lambda cache: cache.follow_sale("P-1"),
    "answer": settle_sale,
    "refetch": refetch,
    "repair": repair,
}
"""Ways to change P-1, which is held with a stock of 10 at version 1."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", ["append", "sync"])
@in_virtual_time
async def test_nothing_is_visible_before_it_is_on_disk(way: str, operation: str) -> None:
    """[D2] While the record is being written or synced, readers see the state before; then the
    state after, which the next process finds, too."""
    cache = await Cache().filled()
    held = cache.disk.hold(f"{operation} journal-2.jsonl")
    change = asyncio.ensure_future(WAYS[way](cache))
    await held.reached.wait()
    await a_moment()

    assert (10, 1) == cache.row("P-1")
    held.release.set()
    await change
    assert (9, 2) == cache.row("P-1")
    assert (9, 2) == (await cache.restarted()).row("P-1")


@pytest.mark.parametrize("way", WAYS)
@in_virtual_time
async def test_what_a_stop_comes_between_is_on_disk_and_not_yet_shown(way: str) -> None:
    """[D2] A stop cancels whoever waits for the journal. The record is written all the same: the
    next process shows it, though this one never did."""
    cache = await Cache().filled()
    held = cache.disk.hold("append journal-2.jsonl")
    change = asyncio.ensure_future(WAYS[way](cache))
    await held.reached.wait()
    change.cancel()
    held.release.set()
    await asyncio.wait([change])
    await cache.writer.close()

    assert change.cancelled()
    assert (10, 1) == cache.row("P-1")
    assert (9, 2) == (await cache.restarted()).row("P-1")


class Watched(FaultyDirectory):
    """Records what readers see at each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Cache | None = None
        self.seen: list[tuple[str, object]] = []

    async def operate(self, what: str) -> None:
        await super().operate(what)
        if self.cache is not None:
            self.seen.append((what, seen_by_readers(self.cache)))


def seen_by_readers(cache: Cache) -> object:
    return cache.catalogue.page(0, 9), cache.writer.position


@in_virtual_time
async def test_a_replica_is_on_disk_before_it_is_seen() -> None:
    """[D2] [F2] During every operation that writes the new snapshot, readers see the old catalogue,
    whole; after them the new one, whole, at its own position."""
    folder = Watched()
    cache = await Cache(folder).filled()
    before = seen_by_readers(cache)
    cache.central.create("P-4")
    cache.central.sell("P-1")
    folder.cache = cache
    await cache.install()
    names = [what for what, _ in folder.seen]

    assert {"sync snapshot-3.jsonl.new", "sync journal-3.jsonl"} <= set(names)
    assert "sync folder" == names[names.index("rename snapshot-3.jsonl.new snapshot-3.jsonl") + 1]
    assert [before] * len(names) == [seen for _, seen in folder.seen]
    assert ["P-1", "P-2", "P-3", "P-4"] == list(cache.catalogue.ids())
    assert (9, 2) == cache.row("P-1")
    assert Position("g-1", 6, "f") == cache.writer.position


async def _day(cache: Cache) -> None:
    """Everything that changes files."""
    await cache.filled()
    await cache.follow_sale("P-1")
    await settle_at(cache, "P-2", left=7)
    await cache.writer.request_refetch("P-3", RefetchReason.ORDER)
    for _ in range(6):
        await cache.follow_sale("P-1")
    await cache.install()
    await cache.follow_sale("P-3")


def _shown(cache: Cache) -> dict[str, tuple[int, int]]:
    """Version and stock of every product, as readers see them."""
    held = cache.writer.catalogue
    if held is None:
        return {}
    return {i: (version, stock) for i in held.ids() for stock, version in [cache.row(i) or (0, 0)]}


class Dying(FaultyDirectory):
    """Its process dies before an operation. `shown` is what readers had seen by then."""

    def __init__(self, crash_before: int) -> None:
        super().__init__()
        self.crash_before = crash_before
        self.cache: Cache | None = None
        self.shown: dict[str, tuple[int, int]] = {}

    async def operate(self, what: str) -> None:
        if len(self.trace) + 1 == self.crash_before and self.cache is not None:
            self.shown = _shown(self.cache)
        await super().operate(what)


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_operation_shows_no_older_world(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[D2] [D3] The power goes before each single operation on the disk. Whatever readers had seen
    by then is there after the start, as it was or newer."""
    monkeypatch.setattr(files, "COMPACTION_BYTES", 700)

    async def operations() -> int:
        cache = Cache()
        await _day(cache)
        await cache.writer.close()
        return len(cache.disk.trace)

    async def cut_before(operation: int) -> bool:
        folder = Dying(operation)
        cache = folder.cache = Cache(folder)
        with suppress(Crashed):  # if it struck a compaction, the rest of the day went on
            await _day(cache)
        await cache.writer.close()
        left = folder.after_power_cut(random.Random(seed * 1000 + operation))
        after = Cache(left, clock=cache.clock, central=cache.central)
        await after.writer.open()
        found = _shown(after)
        await after.writer.close()

        older = {i for i, state in folder.shown.items() if found.get(i, (0, 0)) < state}
        assert set() == older, operation
        return bool(folder.shown)

    count = run(operations())
    shown = [run(cut_before(operation)) for operation in range(1, count + 1)]
    assert count > 50
    assert sum(shown) > 30


# -- answers of writes (W6) --------------------------------------------------------------------


@in_virtual_time
async def test_an_answer_and_its_key_are_one_record() -> None:
    """[W6] [W1] The stock and the key's final answer reach the disk together, so that neither is
    there without the other."""
    cache = await Cache().filled()
    appends = cache.disk.trace.count("append journal-2.jsonl")
    await settle_sale(cache)
    line = cache.disk.contents()["journal-2.jsonl"].splitlines()[-1]
    record = orjson.loads(line)["record"]

    assert {"change", "write"} <= set(record)
    assert "sale" == record["write"]["key"]
    assert appends + 1 == cache.disk.trace.count("append journal-2.jsonl")
    assert ["page 0"] == cache.central.asked


@pytest.mark.parametrize(("most", "syncs"), [(100, 2), (1, 3)])
def test_answers_that_wait_for_the_disk_share_one_sync(
    most: int, syncs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[W6] [D2] While one answer is written, those of other products come. They are written
    together, each with its key in a record of its own, and shown once that is on disk. More than
    the event loop has time for take another sync."""
    monkeypatch.setattr(writer, "SETTLED_TOGETHER", most)
    run(_settle_three(syncs))


async def _settle_three(expected_syncs: int) -> None:
    cache = await Cache().filled()
    syncs = cache.disk.trace.count("sync journal-2.jsonl")
    held = cache.disk.hold("sync journal-2.jsonl")
    first = asyncio.ensure_future(settle_at(cache, "P-1", left=9))
    await held.reached.wait()
    others = [asyncio.ensure_future(settle_at(cache, i, left=9)) for i in ("P-2", "P-3")]
    await a_moment()
    held.release.set()
    await first
    assert [(10, 1), (10, 1)] == [cache.row(product_id) for product_id in ("P-2", "P-3")]
    await asyncio.gather(*others)

    assert syncs + expected_syncs == cache.disk.trace.count("sync journal-2.jsonl")
    lines = cache.disk.contents()["journal-2.jsonl"].splitlines()[-3:]
    records = [orjson.loads(line)["record"] for line in lines]
    assert [["P-1"], ["P-2"], ["P-3"]] == [[*each["change"]["rows"]] for each in records]
    assert ["sale of P-1", "sale of P-2", "sale of P-3"] == [r["write"]["key"] for r in records]
    restarted = await cache.restarted()
    assert [(9, 2)] * 3 == [restarted.row(product_id) for product_id in ("P-1", "P-2", "P-3")]


@in_virtual_time
async def test_two_answers_of_one_product_that_wait_are_shown_one_after_the_other() -> None:
    """[W6] The second one stands on the version that the first one makes."""
    cache = await Cache().filled()
    held = cache.disk.hold("sync journal-2.jsonl")
    other = asyncio.ensure_future(settle_at(cache, "P-2", left=9))
    await held.reached.wait()
    answers = [applied_answer("P-1", sent=1, left=9), applied_answer("P-1", sent=2, left=8)]
    settling = [
        asyncio.ensure_future(cache.writer.settle_write(cache.add_final(f"sale {n}", each), each))
        for n, each in enumerate(answers)
    ]
    await a_moment()
    held.release.set()
    await asyncio.gather(other, *settling)

    assert (8, 3) == cache.row("P-1")
    assert (8, 3) == (await cache.restarted()).row("P-1")
    assert ["page 0"] == cache.central.asked


@in_virtual_time
async def test_an_answer_older_than_what_is_held_changes_nothing_but_the_key() -> None:
    """[W6] The event of a later write came first, so the answer's figures are out of date."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    await cache.follow_sale("P-1")
    await settle_sale(cache)

    assert (8, 3) == cache.row("P-1")
    assert {} == cache.catalogue.overrides
    assert ["sale"] == keys_of(await cache.restarted())


@in_virtual_time
async def test_an_answer_older_than_what_is_held_hides_no_other_that_waits_with_it() -> None:
    """[W6] They share a sync, and the second one changes its product."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    held = cache.disk.hold("sync journal-2.jsonl")
    first = asyncio.ensure_future(settle_at(cache, "P-2", left=9))
    await held.reached.wait()
    older = asyncio.ensure_future(settle_sale(cache))
    other = asyncio.ensure_future(settle_at(cache, "P-3", left=9))
    await a_moment()
    held.release.set()
    await asyncio.gather(first, older, other)

    assert [(9, 2)] * 3 == [cache.row(product_id) for product_id in ("P-1", "P-2", "P-3")]


@in_virtual_time
async def test_an_answer_beyond_a_jump_has_the_product_fetched_whole() -> None:
    """[W6] The store holds version 1, Central applied the write to version 2. The product is
    fetched with every attribute, and the till's next read shows it."""
    cache = await Cache().filled()
    cache.central.ledger.set({"productId": "P-1", "name": "Lamp"}, NOON)
    cache.central.sell("P-1", -2)
    stock = applied_answer("P-1", sent=2, left=8)
    await cache.writer.settle_write(attempt_record("sale"), stock)
    body = cache.catalogue.get("P-1")

    assert "product P-1" == cache.central.asked[-1]
    assert body is not None
    assert "Lamp" == orjson.loads(body)["name"]
    assert (8, 3) == cache.row("P-1")


@in_virtual_time
async def test_the_answers_figures_are_used_if_the_product_cannot_be_fetched() -> None:
    """[W6] Central applied the write and cannot be reached any more: stock and version are set, and
    a refetch is pending."""
    cache = await Cache().filled()
    cache.central.failure = AWAY
    await cache.writer.settle_write(attempt_record("sale"), applied_answer("P-1", sent=4, left=3))

    assert (3, 5) == cache.row("P-1")
    assert RefetchReason.CROSSED == cache.catalogue.pending_refetches["P-1"].reason
    assert 5 == cache.catalogue.overrides["P-1"].version


@pytest.mark.parametrize("central_is_there", [True, False])
@in_virtual_time
async def test_an_answer_never_creates_a_product_by_itself(central_is_there: bool) -> None:
    """[W6] A product that is not held is fetched whole, or stays absent."""
    cache = await Cache().filled()
    cache.central.create("P-9")
    cache.central.failure = None if central_is_there else AWAY
    await cache.writer.settle_write(attempt_record("sale"), applied_answer("P-9", sent=1, left=9))

    if central_is_there:
        assert (10, 1) == cache.row("P-9")
    else:
        assert cache.row("P-9") is None
        assert RefetchReason.CROSSED == cache.catalogue.pending_refetches["P-9"].reason


@pytest.mark.parametrize("central_is_there", [True, False])
@in_virtual_time
async def test_an_answer_from_before_a_new_generation_has_the_product_fetched(
    central_is_there: bool,
) -> None:
    """[W6] [P1] Central applied the sale, and was restored from a backup before its answer arrived.
    The store follows the new feed, whose product is at the version that was sent. If it cannot be
    fetched now, the answer is shown until it is."""
    cache = await Cache().filled()
    answer = replace(applied_answer("P-1", sent=1, left=9), generation="g-0")
    cache.central.failure = None if central_is_there else AWAY
    await cache.writer.settle_write(attempt_record("sale"), answer)

    assert ((10, 1) if central_is_there else (9, 2)) == cache.row("P-1")
    assert central_is_there is not ("P-1" in cache.catalogue.pending_refetches)


@in_virtual_time
async def test_other_changes_go_on_while_a_product_is_fetched() -> None:
    """[W6] However long Central takes, events are applied meanwhile, and a refetch that one of them
    overtook does not undo it."""
    cache = await Cache().filled()
    cache.central.sell("P-1")
    held = cache.central.hold("product P-1")
    stock = applied_answer("P-1", sent=2, left=8)
    settling = asyncio.ensure_future(cache.writer.settle_write(attempt_record("sale"), stock))
    await held.reached.wait()
    await cache.follow_sale("P-2")
    await cache.follow_sale("P-1")

    assert (9, 2) == cache.row("P-2")
    assert (8, 3) == cache.row("P-1")
    held.release.set()
    await settling
    assert (8, 3) == cache.row("P-1")


@in_virtual_time
async def test_an_answer_that_waited_is_not_laid_over_a_new_incarnation() -> None:
    """[W6] While its product was fetched, the product was deleted and created again: the figures
    are those of a product that is gone."""
    cache = await Cache().filled()
    cache.central.sell("P-1")
    held = cache.central.hold("product P-1")
    stock = applied_answer("P-1", sent=2, left=8)
    settling = asyncio.ensure_future(cache.writer.settle_write(attempt_record("sale"), stock))
    await held.reached.wait()
    await asyncio.sleep(1.0)
    cache.central.ledger.delete("P-1", cache.clock.now())
    cache.central.create("P-1")
    await cache.follow()
    await asyncio.sleep(1.0)
    held.release.set()
    await settling

    assert (10, 1) == cache.row("P-1")
    assert RefetchReason.CROSSED == cache.catalogue.pending_refetches["P-1"].reason


@in_virtual_time
async def test_the_key_of_an_answer_before_the_first_catalogue_is_kept() -> None:
    """[W1] There is no catalogue to apply the answer to, but a repeat of the write must find it."""
    cache = Cache()
    await cache.writer.open()
    await settle_sale(cache)
    again = await cache.restarted()

    assert again.writer.catalogue is None
    assert ["sale"] == keys_of(again)


@in_virtual_time
async def test_an_answer_before_the_first_catalogue_is_applied_when_it_is_installed() -> None:
    """[F4] [W6] The pages were fetched before the sale, and there was no catalogue to show it in.
    Readers see it from the first moment on, also after a restart."""
    cache = Cache()
    await cache.writer.open()
    await cache.fetch_pages()
    await settle_sale(cache)
    await cache.writer.install(Installation(Position("g-1", 4, "f")), least_percent=50)

    assert (9, 2) == cache.row("P-1")
    assert (9, 2) == (await cache.restarted()).row("P-1")


# -- full syncs (F2, F4, F5) -------------------------------------------------------------------


@in_virtual_time
async def test_answers_during_a_full_sync_are_applied_to_its_replica() -> None:
    """[F4] The pages were fetched before the sale; the new catalogue shows it all the same."""
    cache = await Cache().filled()
    await cache.fetch_pages()
    await settle_sale(cache)
    await cache.writer.settle_write(attempt_record("read"), None)
    installation = Installation(Position("g-1", 4, "f"))
    verdict = await cache.writer.install(installation, least_percent=50)

    assert verdict.accepted
    assert (9, 2) == cache.row("P-1")
    assert {"P-1"} == set(cache.catalogue.overrides)


@in_virtual_time
async def test_an_answer_during_the_full_sync_of_a_new_generation_is_refetched() -> None:
    """[F4] [W6] Central applied the sale before it was restored, or else after its page: it is
    shown, and the product refetched at once."""
    cache = await Cache().filled()
    replica = cache.writer.begin_replica(same_generation=False)
    request = replica.first_request()
    replica.take_page(request, await cache.central.page(request))
    answer = replace(applied_answer("P-1", sent=1, left=9), generation="g-1")
    await cache.writer.settle_write(attempt_record("sale"), answer)
    await cache.writer.install(Installation(Position("g-2", 4, "f")), least_percent=50)

    assert (9, 2) == cache.row("P-1")
    assert RefetchReason.CROSSED == cache.catalogue.pending_refetches["P-1"].reason


@in_virtual_time
async def test_a_replaced_catalogue_is_freed_in_parts() -> None:
    """[F2] Readers have the new one at once, and `replaced` is set; the old one is freed part by
    part, with pauses for others."""
    cache = await Cache().filled()
    cache.catalogue.fill((f"X-{number}", b"{}") for number in range(2 * PART_ROWS))
    cache.catalogue.index()
    cache.writer.replaced.clear()
    old, rows = weakref.ref(cache.catalogue), cache.catalogue.rows
    await cache.install(accept=True)
    lengths = []
    while old() is not None:
        lengths.append(len(rows))
        await asyncio.sleep(0)

    assert cache.writer.replaced.is_set()
    assert 3 == len(cache.catalogue)
    assert [2 * PART_ROWS + 3, PART_ROWS + 3, 3] == sorted(set(lengths), reverse=True)[:3]


@in_virtual_time
async def test_a_replaced_catalogue_that_is_viewed_is_freed_when_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[F2] A dump shows the catalogue of its moment, although a full sync has replaced it."""
    monkeypatch.setattr("store_cache.writer.PART_ROWS", 1)
    cache = await Cache().filled()
    old, rows = cache.catalogue, list(cache.catalogue.rows.values())
    with cache.writer.view() as view:
        await cache.follow_sale("P-1")
        await cache.install()
        await asyncio.sleep(1.0)
        assert [*view.next_rows(2), *view.next_rows(2)] == rows
    await asyncio.sleep(1.0)
    assert old is not cache.catalogue
    assert not hasattr(old, "rows")  # freed in parts


@in_virtual_time
async def test_a_refused_replica_leaves_everything_as_it_was() -> None:
    """[F5] It is dropped, and the catalogue that readers see goes on changing."""
    cache = await Cache().filled()
    held = cache.writer.catalogue
    cache.writer.begin_replica(same_generation=True)
    installation = Installation(Position("g-1", 9))
    verdict = await cache.writer.install(installation, least_percent=50)
    await cache.follow_sale("P-1")

    assert "0 products where 3 are held" in verdict.problem
    assert held is cache.writer.catalogue
    assert cache.writer.replica is None
    assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_a_dropped_replica_collects_no_answers() -> None:
    """[F4] The full sync failed. Writes go on, and nothing is remembered of them for it; its rows
    are freed in parts."""
    cache = await Cache().filled()
    await cache.fetch_pages()
    replica = cache.writer.replica
    assert replica is not None
    replica.catalogue.fill((f"X-{number}", b"{}") for number in range(2 * PART_ROWS))
    replica.catalogue.index()
    rows = replica.catalogue.rows
    cache.writer.drop_replica()
    await settle_sale(cache)

    assert [] == replica.answers
    assert cache.writer.replica is None
    del replica
    await a_moment()
    assert {} == rows
    assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_refetches_requested_during_a_full_sync_outlive_it() -> None:
    """[P3] [E5] A refetch requested before the full sync is done by it; one requested since is
    still pending, also after a restart."""
    cache = await Cache().filled()
    await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
    await asyncio.sleep(1.0)
    await cache.fetch_pages()
    await cache.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
    installation = Installation(Position("g-1", 4))
    await cache.writer.install(installation, least_percent=50)

    assert {"P-2"} == set(cache.catalogue.pending_refetches)
    assert {"P-2"} == set((await cache.restarted()).catalogue.pending_refetches)


@in_virtual_time
async def test_a_full_sync_over_an_empty_catalogue_keeps_what_is_known() -> None:
    """[V2] [P3] Tombstones still identify late events, and the sequence goes on, although no
    product was held."""
    cache = await Cache().filled()
    deletions = [
        event(3 + n, eventType="product_deleted", productId=f"P-{n}", version=2) for n in (1, 2, 3)
    ]
    await cache.writer.apply_events(deletions, Position("g-1", 7, "f"))
    sequence, tombstones = cache.catalogue.sequence, dict(cache.catalogue.tombstones)
    cache.writer.begin_replica(same_generation=True)
    await cache.writer.install(Installation(Position("g-1", 7)), least_percent=50)

    assert {"P-1", "P-2", "P-3"} == set(tombstones)
    assert (sequence + 1, tombstones) == (cache.catalogue.sequence, cache.catalogue.tombstones)


# -- refetches ---------------------------------------------------------------------------------


@in_virtual_time
async def test_a_refetch_that_was_overtaken_is_pending_again() -> None:
    """[V2] What Central said counts only if nothing about the product changed meanwhile."""
    cache = await Cache().filled()
    known = cache.writer.known_state("P-1")
    await cache.follow_sale("P-1")
    applied = await cache.writer.apply_refetch("P-1", None, known=known, reason=RefetchReason.ORDER)

    assert not applied
    assert (9, 2) == cache.row("P-1")
    assert RefetchReason.ORDER == cache.catalogue.pending_refetches["P-1"].reason


@in_virtual_time
async def test_without_a_catalogue_nothing_is_applied_or_requested() -> None:
    """[F1] Before the first full sync there is nothing that a refetch could repair."""
    writer = Cache().writer
    await writer.open()
    await writer.request_refetch("P-1", RefetchReason.ORDER)
    await writer.postpone("P-1", PendingRefetch(RefetchReason.ORDER, NOON, NOON))
    await writer.note_in_sync()
    known = writer.known_state("P-1")

    assert not await writer.apply_refetch(
        "P-1", row("P-1"), known=known, reason=RefetchReason.ORDER
    )
    assert (writer.held_version("P-1"), writer.position) == (None, None)
    assert [] == writer.stale_overrides()
    assert writer.catalogue is None
    with pytest.raises(RuntimeError, match="no catalogue to change"):
        await writer.apply_events((), Position("g-1", 1))


@in_virtual_time
async def test_overrides_that_the_feed_does_not_confirm_within_a_minute_are_stale() -> None:
    """[W7] Only those whose own events have not come although the feed was followed for 60 s, and
    that have no pending refetch."""
    cache = await Cache().filled()
    await settle_sale(cache)
    await settle_at(cache, "P-2", left=5)
    await asyncio.sleep(OVERRIDE_SECONDS / 2)
    await settle_at(cache, "P-3", left=5)
    await cache.writer.request_refetch("P-2", RefetchReason.AHEAD)
    before = cache.writer.stale_overrides()
    await asyncio.sleep(OVERRIDE_SECONDS / 2)
    behind = cache.writer.stale_overrides()
    await cache.writer.note_in_sync()

    assert [] == before
    assert [] == behind
    assert ["P-1"] == cache.writer.stale_overrides()


# -- being in sync (B5) ------------------------------------------------------------------------


@in_virtual_time
async def test_the_time_in_sync_is_written_once_a_minute() -> None:
    """[B5] A quiet feed writes one record a minute, and one if the clock was set back, however
    little, so that a start knows how old its catalogue is."""
    cache = await Cache().filled()
    records = len(cache.disk.contents()["journal-2.jsonl"].splitlines())
    for _ in range(3 * int(IN_SYNC_RECORD_SECONDS)):
        await asyncio.sleep(1.0)
        await cache.writer.note_in_sync()
    noted = len(cache.disk.contents()["journal-2.jsonl"].splitlines()) - records
    cache.clock.set_by_seconds = -0.5
    await cache.writer.note_in_sync()

    assert 3 == noted
    assert cache.clock.now() == (await cache.restarted()).catalogue.in_sync_at


@in_virtual_time
async def test_the_time_in_sync_does_not_wait_for_the_disk() -> None:
    """[B5] What is written is when Central showed its state, however long the lock and the disk
    take."""
    cache = await Cache().filled()
    noted = await _written_late(cache, cache.writer.note_in_sync(3.0))
    installed = await _written_late(cache, cache.install(age_seconds=7.0))

    assert 100.0 - 3.0 == noted
    assert 100.0 + 4.0 + 100.0 - 7.0 == installed


async def _written_late(cache: Cache, work: Coroutine[Any, Any, None]) -> float:
    """Do the work 100 s later, on a disk that then takes 4 s; return the time in sync, in seconds
    after NOON."""
    await asyncio.sleep(100.0)
    held = cache.disk.hold()
    task = asyncio.create_task(work)
    await held.reached.wait()
    await asyncio.sleep(4.0)
    held.release.set()
    await task
    in_sync_at = (await cache.restarted()).catalogue.in_sync_at
    assert cache.catalogue.in_sync_at == in_sync_at
    assert in_sync_at is not None
    return in_sync_at - NOON


@in_virtual_time
async def test_pages_without_the_feed_are_known_as_such_until_the_next_full_sync() -> None:
    """[F2] Across a restart, too, and though the feed was read to its end meanwhile."""
    cache = await Cache().filled()
    was_unfollowed = cache.writer.is_unfollowed
    await cache.install(follow_up_reason=UNFOLLOWED)
    await cache.writer.note_in_sync()
    again = await cache.restarted()
    still = again.writer.is_unfollowed
    await again.install()
    later = await again.restarted()

    assert [False, True, False] == [was_unfollowed, still, later.writer.is_unfollowed]


@in_virtual_time
async def test_a_tombstone_is_kept_until_the_feed_was_followed_past_it() -> None:
    """[V2] The store was switched off for hours and is still behind: a product that a refetch found
    absent does not come back by older events."""
    cache = await Cache().filled()
    known = cache.writer.known_state("P-1")
    await cache.writer.apply_refetch("P-1", None, known=known, reason=RefetchReason.ORDER)
    await asyncio.sleep(7200.0)
    again = await cache.restarted()
    await again.follow_sale("P-1")
    assert None is again.row("P-1")
    for _ in range(2):
        await again.writer.note_in_sync()
        await again.writer.request_refetch("P-2", RefetchReason.REFRESH)
        await asyncio.sleep(TOMBSTONE_SECONDS + 1)

    assert "P-1" not in again.catalogue.tombstones


# -- compaction (D3) ---------------------------------------------------------------------------


@in_virtual_time
async def test_changes_go_on_while_the_journal_is_compacted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[D3] [D1] The snapshot is held up half-way; meanwhile, sales are visible and durable. After a
    kill at its end everything is there, from the new files."""
    monkeypatch.setattr(files, "COMPACTION_BYTES", 1500)
    cache = await Cache().filled()
    held = cache.disk.hold("append snapshot-3.jsonl.new")
    selling = asyncio.ensure_future(_sell(cache, "P-1", 8))
    await held.reached.wait()
    await selling
    killed_meanwhile = await cache.restarted()
    held.release.set()
    while "snapshot-2.jsonl" in cache.disk.entries:
        await a_moment()
    await _sell(cache, "P-2", 1)

    assert 1 == cache.writer.files.compactions
    assert (2, 9) == cache.row("P-1") == killed_meanwhile.row("P-1")
    after = await cache.restarted()
    assert ((2, 9), (9, 2)) == (after.row("P-1"), after.row("P-2"))


async def _sell(cache: Cache, product_id: str, times: int) -> None:
    for _ in range(times):
        await cache.follow_sale(product_id)


@in_virtual_time
async def test_a_compaction_that_fails_leaves_the_journal_in_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[D3] [D5] No room for a second snapshot: the log says so, the store stays durable, and a
    later compaction succeeds."""
    monkeypatch.setattr(files, "COMPACTION_BYTES", 1500)
    cache = await Cache().filled()
    held = cache.disk.hold("create snapshot-3.jsonl.new")
    selling = asyncio.ensure_future(_sell(cache, "P-1", 8))
    await held.reached.wait()
    await selling
    cache.disk.failures = {len(cache.disk.trace) + 1: errno.ENOSPC}
    held.release.set()
    await a_moment()
    is_durable = cache.writer.disk.is_durable
    await _sell(cache, "P-2", 9)
    while "snapshot-2.jsonl" in cache.disk.entries:
        await a_moment()

    assert is_durable
    assert (1, 10) == (await cache.restarted()).row("P-2")
    assert "files: compacting the journal failed, it is tried again" in caplog.text


@in_virtual_time
async def test_the_files_say_when_the_key_table_began() -> None:
    """[W1] It began when they were first written, and later starts know it. While they cannot be
    read, the table has begun with the process."""
    cache = await Cache().filled()
    began = cache.keys.since
    await asyncio.sleep(3600.0)
    left = Cache(cache.disk.after_kill(), clock=cache.clock, central=cache.central)
    left.disk.failures = {1: errno.ENOENT}
    await left.writer.open()
    without_files = left.keys.since
    await asyncio.sleep(HEAL_SECONDS + 1)

    assert NOON == began
    assert NOON + 3600.0 == without_files
    assert began == left.keys.since == (await left.restarted()).keys.since


@in_virtual_time
async def test_files_of_an_earlier_version_do_not_say_when_the_key_table_began() -> None:
    """[D6] [W1] Then nothing is said about it."""
    cache = await Cache().filled()
    lines = cache.disk.contents()["snapshot-2.jsonl"].split(b"\n")
    header = orjson.loads(lines[0])["header"]
    del header["keysSince"]
    lines[0] = frame("header", orjson.dumps(header)).rstrip()
    contents = cache.disk.contents() | {"snapshot-2.jsonl": b"\n".join(lines)}
    left = Cache(FaultyDirectory(contents), central=cache.central)
    await left.writer.open()

    assert (10, 1) == left.row("P-1")
    assert left.keys.since is None


# -- a disk that fails (D5) --------------------------------------------------------------------


def unsaved_of(cache: Cache) -> tuple[int, int]:
    """Return how many changes and writes are in memory only."""
    return cache.writer.unsaved_changes, cache.writer.unsaved_writes


@in_virtual_time
async def test_a_full_disk_stops_no_shop(caplog: pytest.LogCaptureFixture) -> None:
    """[D5] Changes go on in memory, the log names the problem once, and new files are tried every
    half minute until a whole snapshot ends it."""
    cache = await Cache().filled()
    cache.disk.room = 0
    await cache.follow_sale("P-1")
    await settle_at(cache, "P-2", left=7)
    degraded, unsaved = cache.writer.disk, unsaved_of(cache)
    await asyncio.sleep(3 * HEAL_SECONDS)
    still = cache.writer.disk
    cache.disk.room = 10_000
    await asyncio.sleep(HEAL_SECONDS)

    assert ((2, 1), (0, 0)) == (unsaved, unsaved_of(cache))
    assert (9, 2) == cache.row("P-1")
    assert "No space left on device" in degraded.problem
    assert NOON == degraded.since
    assert degraded == still
    assert cache.writer.disk.is_durable
    after = await cache.restarted()
    assert ((9, 2), (7, 2)) == (after.row("P-1"), after.row("P-2"))
    assert ["sale of P-2"] == keys_of(after)
    errors = [each.message for each in caplog.records if each.levelno == logging.ERROR]
    assert 1 == len(errors)
    assert "files: the disk fails (" in errors[0]
    assert "Check DATA_DIR: space, permissions, device" in errors[0]
    assert "files: the disk works again" in caplog.text


@in_virtual_time
async def test_a_disk_that_hangs_stops_no_shop() -> None:
    """[D5] The write that meets it waits for a few seconds, others do not, also while the store
    looks whether the disk works again. Then a new snapshot holds everything."""
    cache = await Cache().filled()
    loop = asyncio.get_running_loop()
    held = cache.disk.hold()
    await cache.writer.record_write(cache.add_attempt("first"))

    assert loop.time() == pytest.approx(OPERATION_SECONDS, abs=0.01)
    assert "the disk hangs" in cache.writer.disk.problem
    for second in range(3 * int(HEAL_SECONDS)):
        began_at = loop.time()
        await cache.writer.record_write(cache.add_attempt(f"k{second}"))
        await cache.follow_sale("P-1", 1)

        assert loop.time() == began_at
        await asyncio.sleep(1.0)
    held.release.set()
    await asyncio.sleep(HEAL_SECONDS + OPERATION_SECONDS)

    assert cache.writer.disk.is_durable
    expected = state(cache.catalogue), keys_of(cache)
    again = await cache.restarted()
    assert expected == (state(again.catalogue), keys_of(again))


@in_virtual_time
async def test_writes_recorded_while_the_disk_heals_are_not_lost() -> None:
    """[D5] [W1] An attempt that is recorded while the new snapshot is written is in the new files
    when the failure ends."""
    cache = await Cache().filled()
    cache.disk.failures = {len(cache.disk.trace) + 1: errno.EIO}
    await cache.writer.record_write(cache.add_attempt("before"))
    held = cache.disk.hold("rename snapshot-4.jsonl.new snapshot-4.jsonl")
    await held.reached.wait()
    recording = asyncio.ensure_future(cache.writer.record_write(cache.add_attempt("meanwhile")))
    await a_moment()
    was_recorded = recording.done()
    held.release.set()
    await recording
    await a_moment()

    assert not was_recorded
    assert cache.writer.disk.is_durable
    assert {"before", "meanwhile"} == set(keys_of(await cache.restarted()))


@in_virtual_time
async def test_a_disk_that_heals_during_a_full_sync_gets_the_new_catalogue() -> None:
    """[D5] [P3] The replica is being written when the store tries new files again: what it writes
    after that is the catalogue that readers see by then."""
    cache = await Cache().filled()
    cache.disk.failures = {len(cache.disk.trace) + 1: errno.EIO}
    await cache.writer.record_write(cache.add_attempt("before"))
    await asyncio.sleep(HEAL_SECONDS - 2.0)
    cache.central.sell("P-1")
    held = cache.disk.hold("rename snapshot-3.jsonl.new snapshot-3.jsonl")
    installing = asyncio.ensure_future(cache.install())
    await held.reached.wait()
    await asyncio.sleep(3.0)
    held.release.set()
    await installing
    await a_moment()

    assert cache.writer.disk.is_durable
    assert (9, 2) == (await cache.restarted()).row("P-1")


@in_virtual_time
async def test_a_full_sync_is_visible_while_the_disk_fails_and_ends_the_failure_once_it_fits() -> (
    None
):
    """[D5] [F2] It is no less needed without a disk."""
    cache = await Cache().filled()
    cache.disk.room = 0
    cache.central.sell("P-1")
    await cache.install()
    shown, was_durable = cache.row("P-1"), cache.writer.disk.is_durable
    cache.disk.room = 10_000
    await cache.install()

    assert (9, 2) == shown
    assert not was_durable
    assert cache.writer.disk.is_durable
    assert (9, 2) == (await cache.restarted()).row("P-1")


async def _left_behind() -> FaultyDirectory:
    """The files of a store that saw one sale of P-1 and recorded a write."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    await cache.writer.record_write(attempt_record("old"))
    await cache.writer.close()
    return cache.disk.after_kill()


@in_virtual_time
async def test_a_follow_up_reason_outlives_the_process() -> None:
    """[F2] [D2] A replica was installed over a gap in the feed, and the store died before the full
    sync that has to follow. The next process knows of it, until one without a gap is installed."""
    cache = await Cache().filled()
    await cache.install(follow_up_reason="events were missing")
    again = await cache.restarted()
    follow_up_reason = again.catalogue.follow_up_reason
    await again.install()

    assert "events were missing" == follow_up_reason
    assert "" == (await again.restarted()).catalogue.follow_up_reason


@in_virtual_time
async def test_what_damage_took_is_seen_in_the_generation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[D4] A record in the middle of the journal is damaged. The state before it is served until
    the full sync is done, under another generation, because readers have seen a newer state."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    await cache.follow_sale("P-1")
    contents = cache.disk.contents()
    journal = contents["journal-2.jsonl"].replace(b'"version":2', b'"version":7')
    left = Cache(FaultyDirectory(contents | {"journal-2.jsonl": journal}), central=cache.central)
    is_damaged = await left.writer.open()

    assert is_damaged
    assert "files: journal-2.jsonl: line" in caplog.text
    assert (10, 1) == left.row("P-1")
    assert left.writer.position is not None
    assert ("g-1", "g-1~2") == (left.writer.position.named, left.writer.position.label)
    assert left.writer.position == (await left.restarted()).writer.position


@in_virtual_time
async def test_a_directory_that_appears_later_is_loaded() -> None:
    """[D5] [D7] The disk was not mounted at the start: the store begins without a catalogue, and
    shows what is on disk as soon as it can be read. Nothing there is overwritten unread."""
    cache = Cache(await _left_behind())
    cache.disk.failures = {1: errno.ENOENT}
    await cache.writer.open()
    at_start = (cache.writer.catalogue, cache.writer.disk.is_durable)
    written = [each for each in cache.disk.trace if each != "names"]
    await asyncio.sleep(HEAL_SECONDS + 1)

    assert (None, False) == at_start
    assert [] == written
    assert (9, 2) == cache.row("P-1")
    assert cache.writer.disk.is_durable
    assert ["old"] == keys_of(cache)


@in_virtual_time
async def test_a_directory_that_appears_later_hides_no_answer() -> None:
    """[W6] [D5] The catalogue in it is older than a write that was answered since the start."""
    cache = Cache(await _left_behind())
    cache.disk.failures = {1: errno.ENOENT}
    await cache.writer.open()
    stock = applied_answer("P-1", sent=2, left=8)
    await cache.writer.settle_write(cache.add_final("sale", stock), stock)
    await asyncio.sleep(HEAL_SECONDS + 1)

    assert (8, 3) == cache.row("P-1")
    assert (8, 3) == (await cache.restarted()).row("P-1")


@in_virtual_time
async def test_a_directory_that_appears_later_changes_no_answer() -> None:
    """[W1] [D5] A write was unknown when the process before ended. It was repeated before the
    directory could be read, and its answer stays, also after a restart."""
    cache = Cache(await _left_behind())
    cache.disk.failures = {1: errno.ENOENT}
    await cache.writer.open()
    await cache.writer.settle_write(
        cache.add_final("old", applied_answer("P-1", sent=2, left=8)), None
    )
    await asyncio.sleep(HEAL_SECONDS + 1)

    assert [] == cache.keys.open_attempts()
    assert [] == (await cache.restarted()).keys.open_attempts()
    assert ["old"] == keys_of(await cache.restarted())


@in_virtual_time
async def test_a_full_sync_wins_over_a_directory_that_appears_later() -> None:
    """[D5] It is newer than what is on disk; the keys there count all the same."""
    cache = Cache(await _left_behind())
    cache.disk.failures = {1: errno.ENOENT}
    await cache.writer.open()
    cache.central.sell("P-2", -4)
    await cache.install()
    await cache.writer.record_write(cache.add_attempt("new"))
    await asyncio.sleep(HEAL_SECONDS + 1)
    after = await cache.restarted()

    assert ((10, 1), (6, 2)) == (cache.row("P-1"), cache.row("P-2"))
    assert (6, 2) == after.row("P-2")
    assert {"old", "new"} == set(keys_of(after))


@in_virtual_time
async def test_a_newer_format_that_appears_later_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[D6] [D5] A newer version wrote the directory: it is not touched, the log says why, and the
    store goes on in memory and tries again."""
    folder = await _left_behind()
    name, format_99 = "snapshot-2.jsonl", {"file": "snapshot", "format": 99, "number": 2}
    foreign = frame("header", orjson.dumps(format_99))
    cache = Cache(FaultyDirectory(folder.contents() | {name: foreign}))
    cache.disk.failures = {1: errno.ENOENT}
    await cache.writer.open()
    await asyncio.sleep(3 * HEAL_SECONDS + 1)
    disk, contents = cache.writer.disk, cache.disk.contents()
    await cache.disk.remove(name)
    await asyncio.sleep(HEAL_SECONDS)

    assert "snapshot-2.jsonl has format 99" in disk.problem
    assert foreign == contents[name]
    assert cache.writer.disk.is_durable
    assert 1 == caplog.text.count("snapshot-2.jsonl has format 99")


@in_virtual_time
async def test_a_directory_that_is_deleted_under_a_quiet_store_is_filled_again() -> None:
    """[D5] Nothing is appended meanwhile that could show it."""
    cache = await Cache().filled()
    cache.disk.delete()
    await asyncio.sleep(2 * CHECK_SECONDS)

    assert cache.writer.disk.is_durable
    assert (10, 1) == (await cache.restarted()).row("P-1")


@in_virtual_time
async def test_closing_ends_background_tasks() -> None:
    """[D5] A stop does not wait for a disk to heal."""
    cache = await Cache().filled()
    cache.disk.room = 0
    await cache.follow_sale("P-1")
    await cache.writer.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}

    assert set() == others
