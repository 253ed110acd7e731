"""The one writer: durable before visible, answers, copies, folding, and a disk that fails."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import orjson
import pytest

from store_cache.catalogue.apply import OVERRIDE_SECONDS, TOMBSTONE_SECONDS
from store_cache.catalogue.catalogue import PART_ROWS
from store_cache.catalogue.replica import Installation
from store_cache.central.failures import ExchangeBroken
from store_cache.model.change import PendingRefetch, RefetchReason
from store_cache.model.position import Position
from store_cache.storage import files as archive
from store_cache.storage.framing import frame
from store_cache.writer import HEAL_SECONDS, IN_STEP_NOTE_SECONDS
from tests.harness.faulty_directory import Crashed, FaultyFolder
from tests.harness.shelf import NOON, Shelf, applied, note_of, row
from tests.harness.virtual_time import run

AWAY = ExchangeBroken("nobody answers")


async def a_moment() -> None:
    """Everybody else runs as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def keys_of(shelf: Shelf) -> list[str]:
    return [orjson.loads(record)["key"] for record in shelf.keys.encoded()]


# -- durable before visible --------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way to change a product that is held with a stock of 10 at version 1."""

    name: str
    go: Callable[[Shelf], Awaitable[object]]


async def _answered(shelf: Shelf) -> None:
    stock = applied("P-1", sent=1, left=9)
    await shelf.writer.settle_write(shelf.finish("sale", stock), stock)


async def _read(shelf: Shelf) -> None:
    known = shelf.writer.known_state("P-1")
    sold = row("P-1", 9, 2)
    await shelf.writer.apply_refetch("P-1", sold, known=known, reason=RefetchReason.REFRESH)


WAYS = [
    Way("events", lambda shelf: shelf.sold("P-1")),
    Way("answer", _answered),
    Way("reading", _read),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("operation", ["append", "sync"])
def test_nothing_is_visible_before_it_is_on_disk(way: Way, operation: str) -> None:
    """[D2] While the record is being written or synced, readers see the state before; then the
    state after, which the next process finds, too."""

    async def story() -> None:
        shelf = await Shelf().filled()
        held = shelf.disk.hold(f"{operation} journal-2.jsonl")
        change = asyncio.ensure_future(way.go(shelf))
        await held.reached.wait()
        await a_moment()

        assert (10, 1) == shelf.row("P-1")
        held.release.set()
        await change
        assert (9, 2) == shelf.row("P-1")
        assert (9, 2) == (await shelf.restarted()).row("P-1")

    run(story())


class Watched(FaultyFolder):
    """Notes what a reader sees before each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf: Shelf | None = None
        self.seen: list[tuple[str, object]] = []

    async def operate(self, what: str) -> None:
        await super().operate(what)
        if self.shelf is not None:
            self.seen.append((what, seen_by_readers(self.shelf)))


def seen_by_readers(shelf: Shelf) -> object:
    return shelf.catalogue.page(0, 9), shelf.writer.position


def test_a_copy_is_on_disk_before_it_is_seen() -> None:
    """[D2] [F2] Through every operation that puts the new snapshot on disk readers see the old
    catalogue, whole; then the new one, whole, at its own position."""

    async def story() -> None:
        folder = Watched()
        shelf = await Shelf(folder).filled()
        before = seen_by_readers(shelf)
        shelf.central.create("P-4")
        shelf.central.sell("P-1")
        folder.shelf = shelf
        await shelf.place()
        names = [what for what, _ in folder.seen]

        assert {"sync snapshot-3.jsonl.new", "sync journal-3.jsonl"} <= set(names)
        assert (
            "sync folder" == names[names.index("rename snapshot-3.jsonl.new snapshot-3.jsonl") + 1]
        )
        assert [before] * len(names) == [seen for _, seen in folder.seen]
        assert ["P-1", "P-2", "P-3", "P-4"] == list(shelf.catalogue.ids())
        assert (9, 2) == shelf.row("P-1")
        assert Position("g-1", 6, "f") == shelf.writer.position

    run(story())


async def _day(shelf: Shelf) -> None:
    """A day with everything that changes files."""
    await shelf.filled()
    await shelf.sold("P-1")
    await _answered_at(shelf, "P-2", sent=1, left=7)
    await shelf.writer.request_refetch("P-3", RefetchReason.ORDER)
    for _ in range(6):
        await shelf.sold("P-1")
    await shelf.place()
    await shelf.sold("P-3")


async def _answered_at(shelf: Shelf, product_id: str, *, sent: int, left: int) -> None:
    stock = applied(product_id, sent=sent, left=left)
    key = f"{product_id}-{sent}"
    shelf.central.sell(product_id, left - 10)
    await shelf.writer.settle_write(shelf.finish(key, stock), stock)


def _shown(shelf: Shelf) -> dict[str, tuple[int, int]]:
    """Version and stock of everything that a reader was shown."""
    held = shelf.writer.catalogue
    if held is None:
        return {}
    return {i: (version, stock) for i in held.ids() for stock, version in [shelf.row(i) or (0, 0)]}


class Dying(FaultyFolder):
    """The process that uses it dies before an operation; `shown` is what it had shown by then."""

    def __init__(self, crash_before: int) -> None:
        super().__init__()
        self.crash_before = crash_before
        self.shelf: Shelf | None = None
        self.shown: dict[str, tuple[int, int]] = {}

    async def operate(self, what: str) -> None:
        if len(self.trace) + 1 == self.crash_before and self.shelf is not None:
            self.shown = _shown(self.shelf)
        await super().operate(what)


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_operation_shows_no_older_world(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[D2] [D3] Before each single disk operation of a day the power goes: whatever had been shown
    by then is there after the start, as it was or newer."""
    monkeypatch.setattr(archive, "COMPACTION_BYTES", 700)

    async def operations() -> int:
        shelf = Shelf()
        await _day(shelf)
        await shelf.writer.close()
        return len(shelf.disk.trace)

    async def cut_before(operation: int) -> bool:
        folder = Dying(operation)
        shelf = folder.shelf = Shelf(folder)
        with suppress(Crashed):  # where it struck a fold, the rest of the day is a ghost's
            await _day(shelf)
        await shelf.writer.close()
        left = folder.after_power_cut(random.Random(seed * 1000 + operation))
        after = Shelf(left, clock=shelf.clock, central=shelf.central)
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


def test_an_answer_and_its_key_are_one_record() -> None:
    """[W6] [W1] The stock and the key's final answer reach the disk together, so that neither is
    ever there without the other."""

    async def story() -> None:
        shelf = await Shelf().filled()
        appends = shelf.disk.trace.count("append journal-2.jsonl")
        await _answered(shelf)
        line = shelf.disk.contents()["journal-2.jsonl"].splitlines()[-1]
        record = orjson.loads(line)["record"]

        assert {"change", "write"} <= set(record)
        assert "sale" == record["write"]["key"]
        assert appends + 1 == shelf.disk.trace.count("append journal-2.jsonl")
        assert ["page 0"] == shelf.central.asked

    run(story())


def test_an_answer_older_than_what_is_held_changes_nothing_but_the_key() -> None:
    """[W6] The event of a later write was faster: the answer's figures are old news."""

    async def story() -> None:
        shelf = await Shelf().filled()
        await shelf.sold("P-1")
        await shelf.sold("P-1")
        await _answered(shelf)

        assert (8, 3) == shelf.row("P-1")
        assert {} == shelf.catalogue.overrides
        assert ["sale"] == keys_of(await shelf.restarted())

    run(story())


def test_an_answer_beyond_a_jump_has_the_product_read_whole() -> None:
    """[W6] The store holds version 1, Central applied to version 2: what lies between is read,
    with every attribute, and the till's next read shows it."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.central.ledger.set({"productId": "P-1", "name": "Lamp"}, NOON)
        shelf.central.sell("P-1", -2)
        stock = applied("P-1", sent=2, left=8)
        await shelf.writer.settle_write(note_of("sale"), stock)
        body = shelf.catalogue.get("P-1")

        assert "product P-1" == shelf.central.asked[-1]
        assert body is not None
        assert "Lamp" == orjson.loads(body)["name"]
        assert (8, 3) == shelf.row("P-1")

    run(story())


def test_where_the_whole_cannot_be_read_the_answers_figures_do() -> None:
    """[W6] Central applied the write and cannot be asked any more: stock and version are set, and
    the product is owed a reading."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.central.away = AWAY
        await shelf.writer.settle_write(note_of("sale"), applied("P-1", sent=4, left=3))

        assert (3, 5) == shelf.row("P-1")
        assert RefetchReason.CROSSED == shelf.catalogue.pending_refetches["P-1"].reason
        assert 5 == shelf.catalogue.overrides["P-1"].version

    run(story())


@pytest.mark.parametrize("central_is_there", [True, False])
def test_an_answer_never_creates_a_product_by_itself(central_is_there: bool) -> None:
    """[W6] A product that is not held comes from Central whole, or not at all."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.central.create("P-9")
        shelf.central.away = None if central_is_there else AWAY
        await shelf.writer.settle_write(note_of("sale"), applied("P-9", sent=1, left=9))

        if central_is_there:
            assert (10, 1) == shelf.row("P-9")
        else:
            assert shelf.row("P-9") is None
            assert RefetchReason.CROSSED == shelf.catalogue.pending_refetches["P-9"].reason

    run(story())


def test_others_go_on_while_a_product_is_read_whole() -> None:
    """[W6] The reading after an answer takes as long as Central likes; events are applied
    meanwhile, and a reading that one of them overtook does not undo it."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.central.sell("P-1")
        held = shelf.central.hold("product P-1")
        stock = applied("P-1", sent=2, left=8)
        settling = asyncio.ensure_future(shelf.writer.settle_write(note_of("sale"), stock))
        await held.reached.wait()
        await shelf.sold("P-2")
        await shelf.sold("P-1")

        assert (9, 2) == shelf.row("P-2")
        assert (8, 3) == shelf.row("P-1")
        held.release.set()
        await settling
        assert (8, 3) == shelf.row("P-1")

    run(story())


def test_an_answer_before_the_first_catalogue_is_remembered() -> None:
    """[W1] Without a catalogue there is nothing to lay an answer over; its key is kept."""

    async def story() -> None:
        shelf = Shelf()
        await shelf.writer.open()
        await _answered(shelf)
        again = await shelf.restarted()

        assert again.writer.catalogue is None
        assert ["sale"] == keys_of(again)

    run(story())


# -- copies (F2, F4) ---------------------------------------------------------------------------


def test_answers_during_a_copy_are_laid_over_it() -> None:
    """[F4] The pages were read before the sale: the new catalogue shows it all the same, and the
    answer of an earlier run is not laid over again."""

    async def story() -> None:
        shelf = await Shelf().filled()
        replica = shelf.writer.begin_replica(same_generation=True)
        request = replica.first_request()
        replica.take_page(request, await shelf.central.page(request))
        await _answered(shelf)
        await shelf.writer.settle_write(note_of("read"), None)
        installation = Installation(Position("g-1", 4, "f"))
        verdict = await shelf.writer.install(replica, installation, least_percent=50)

        assert verdict.accepted
        assert (9, 2) == shelf.row("P-1")
        assert {"P-1"} == set(shelf.catalogue.overrides)

    run(story())


def test_a_catalogue_that_was_replaced_goes_in_parts() -> None:
    """[F2] Readers have the new one at once, and whoever waits for that is told; the old one is
    given up part by part while others have their turns."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.catalogue.fill((f"X-{number}", b"{}") for number in range(2 * PART_ROWS))
        shelf.catalogue.index()
        shelf.writer.replaced.clear()
        old, rows = weakref.ref(shelf.catalogue), shelf.catalogue.rows
        await shelf.place(accept=True)
        lengths = []
        while old() is not None:
            lengths.append(len(rows))
            await asyncio.sleep(0)

        assert shelf.writer.replaced.is_set()
        assert 3 == len(shelf.catalogue)
        assert [2 * PART_ROWS + 3, PART_ROWS + 3, 3] == sorted(set(lengths), reverse=True)[:3]

    run(story())


def test_a_dropped_copy_leaves_everything_as_it_was() -> None:
    """[F5] A refused catalogue is not placed, and what is held goes on changing."""

    async def story() -> None:
        shelf = await Shelf().filled()
        held = shelf.writer.catalogue
        replica = shelf.writer.begin_replica(same_generation=True)
        installation = Installation(Position("g-1", 9))
        verdict = await shelf.writer.install(replica, installation, least_percent=50)
        shelf.writer.drop_replica()
        await shelf.sold("P-1")

        assert "0 products where 3 are held" in verdict.problem
        assert held is shelf.writer.catalogue
        assert (9, 2) == shelf.row("P-1")

    run(story())


def test_doubts_that_arose_during_a_copy_outlive_it() -> None:
    """[P3] [E5] A reading owed before the run is done by it; one owed since is still owed, also
    after a restart."""

    async def story() -> None:
        shelf = await Shelf().filled()
        await shelf.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(1.0)
        replica = shelf.writer.begin_replica(same_generation=True)
        request = replica.first_request()
        replica.take_page(request, await shelf.central.page(request))
        await shelf.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
        installation = Installation(Position("g-1", 4))
        await shelf.writer.install(replica, installation, least_percent=50)

        assert {"P-2"} == set(shelf.catalogue.pending_refetches)
        assert {"P-2"} == set((await shelf.restarted()).catalogue.pending_refetches)

    run(story())


# -- single readings ---------------------------------------------------------------------------


def test_a_reading_that_was_overtaken_is_owed_again() -> None:
    """[V2] What Central said counts only if nothing about the product changed meanwhile."""

    async def story() -> None:
        shelf = await Shelf().filled()
        known = shelf.writer.known_state("P-1")
        await shelf.sold("P-1")
        taken = await shelf.writer.apply_refetch(
            "P-1", None, known=known, reason=RefetchReason.ORDER
        )

        assert not taken
        assert (9, 2) == shelf.row("P-1")
        assert RefetchReason.ORDER == shelf.catalogue.pending_refetches["P-1"].reason

    run(story())


def test_without_a_catalogue_nothing_is_read_or_owed() -> None:
    """[F1] Before the first full sync there is nothing that a reading could repair."""

    async def story() -> None:
        writer = Shelf().writer
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

    run(story())


def test_what_stays_ahead_of_the_feed_for_a_minute_is_named() -> None:
    """[W7] Only those whose own events have not come for 60 s though the feed was followed, and
    that are not owed a reading already."""

    async def story() -> None:
        shelf = await Shelf().filled()
        await _answered(shelf)
        await _answered_at(shelf, "P-2", sent=1, left=5)
        await asyncio.sleep(OVERRIDE_SECONDS / 2)
        await _answered_at(shelf, "P-3", sent=1, left=5)
        await shelf.writer.request_refetch("P-2", RefetchReason.AHEAD)
        before = shelf.writer.stale_overrides()
        await asyncio.sleep(OVERRIDE_SECONDS / 2)
        behind = shelf.writer.stale_overrides()
        await shelf.writer.note_in_sync()

        assert [] == before
        assert [] == behind
        assert ["P-1"] == shelf.writer.stale_overrides()

    run(story())


# -- being in step (B5) ------------------------------------------------------------------------


def test_being_in_step_is_noted_once_a_minute() -> None:
    """[B5] A quiet feed writes one record a minute, also where the clock was set back, so that a
    start from disk knows how old its catalogue is."""

    async def story() -> None:
        shelf = await Shelf().filled()
        records = len(shelf.disk.contents()["journal-2.jsonl"].splitlines())
        for _ in range(3 * int(IN_STEP_NOTE_SECONDS)):
            await asyncio.sleep(1.0)
            await shelf.writer.note_in_sync()
        noted = len(shelf.disk.contents()["journal-2.jsonl"].splitlines()) - records
        shelf.clock.set_by_seconds = -7200.0
        await shelf.writer.note_in_sync()

        assert 3 == noted
        assert shelf.clock.now() == (await shelf.restarted()).catalogue.in_sync_at

    run(story())


def test_unfollowed_rows_are_known_as_such_until_the_store_is_in_step() -> None:
    """[F2] Across a restart too; the next events then count as they come."""

    async def story() -> None:
        shelf = await Shelf().filled()
        await shelf.place(unfollowed_until=100)
        again = await shelf.restarted()
        until = again.catalogue.unfollowed_until
        await again.sold("P-1")
        await again.writer.note_in_sync()
        await again.sold("P-2")
        later = await again.restarted()

        assert 100 == until
        assert (10, 1) == later.row("P-1")
        assert (9, 2) == later.row("P-2")
        assert 0 == later.catalogue.unfollowed_until

    run(story())


def test_a_mark_is_kept_until_the_feed_was_followed_past_it() -> None:
    """[V2] The store stood still for hours, or was switched off, and is still behind: what it has
    read to be gone does not come back by events from before."""

    async def story() -> None:
        shelf = await Shelf().filled()
        known = shelf.writer.known_state("P-1")
        await shelf.writer.apply_refetch("P-1", None, known=known, reason=RefetchReason.ORDER)
        await asyncio.sleep(7200.0)
        again = await shelf.restarted()
        await again.sold("P-1")
        assert None is again.row("P-1")
        for _ in range(2):
            await again.writer.note_in_sync()
            await again.writer.request_refetch("P-2", RefetchReason.REFRESH)
            await asyncio.sleep(TOMBSTONE_SECONDS + 1)

        assert "P-1" not in again.catalogue.tombstones

    run(story())


# -- folding (D3) ------------------------------------------------------------------------------


def test_changes_go_on_while_the_journal_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """[D3] [D1] The snapshot is held up half-way; sales are shown and durable meanwhile, and after
    a kill at its end everything is there, from the new files."""
    monkeypatch.setattr(archive, "COMPACTION_BYTES", 1500)

    async def story() -> None:
        shelf = await Shelf().filled()
        held = shelf.disk.hold("append snapshot-3.jsonl.new")
        selling = asyncio.ensure_future(_sell(shelf, "P-1", 8))
        await held.reached.wait()
        await selling
        killed_meanwhile = await shelf.restarted()
        held.release.set()
        while "snapshot-2.jsonl" in shelf.disk.entries:
            await a_moment()
        await _sell(shelf, "P-2", 1)

        assert (2, 9) == shelf.row("P-1") == killed_meanwhile.row("P-1")
        after = await shelf.restarted()
        assert ((2, 9), (9, 2)) == (after.row("P-1"), after.row("P-2"))

    run(story())


async def _sell(shelf: Shelf, product_id: str, times: int) -> None:
    for _ in range(times):
        await shelf.sold(product_id)


def test_a_fold_that_fails_leaves_the_journal_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[D3] [D5] No room for a second snapshot: the log says so, the store stays durable, and a
    later fold succeeds."""
    monkeypatch.setattr(archive, "COMPACTION_BYTES", 1500)

    async def story() -> None:
        shelf = await Shelf().filled()
        held = shelf.disk.hold("create snapshot-3.jsonl.new")
        selling = asyncio.ensure_future(_sell(shelf, "P-1", 8))
        await held.reached.wait()
        await selling
        shelf.disk.failures = {len(shelf.disk.trace) + 1: errno.ENOSPC}
        held.release.set()
        await a_moment()
        is_durable = shelf.writer.disk.is_durable
        await _sell(shelf, "P-2", 9)
        while "snapshot-2.jsonl" in shelf.disk.entries:
            await a_moment()

        assert is_durable
        assert (1, 10) == (await shelf.restarted()).row("P-2")

    run(story())
    assert "files: folding the journal failed, it is tried again" in caplog.text


# -- a disk that fails (D5) --------------------------------------------------------------------


def test_a_full_disk_stops_no_shop(caplog: pytest.LogCaptureFixture) -> None:
    """[D5] Nothing more fits: what follows is shown from memory, the disk's problem is named once,
    and new files are tried every half minute until a whole snapshot ends it."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.disk.room = 0
        await shelf.sold("P-1")
        await _answered_at(shelf, "P-2", sent=1, left=7)
        degraded = shelf.writer.disk
        await asyncio.sleep(3 * HEAL_SECONDS)
        still = shelf.writer.disk
        shelf.disk.room = 10_000
        await asyncio.sleep(HEAL_SECONDS)

        assert (9, 2) == shelf.row("P-1")
        assert "No space left on device" in degraded.problem
        assert NOON == degraded.since
        assert degraded == still
        assert shelf.writer.disk.is_durable
        after = await shelf.restarted()
        assert ((9, 2), (7, 2)) == (after.row("P-1"), after.row("P-2"))
        assert ["P-2-1"] == keys_of(after)

    run(story())
    errors = [each.message for each in caplog.records if each.levelno == logging.ERROR]
    assert 1 == len(errors)
    assert "files: the disk fails (" in errors[0]
    assert "Check DATA_DIR: space, permissions, device" in errors[0]
    assert "files: the disk works again" in caplog.text


def test_notes_made_while_the_disk_heals_are_not_lost() -> None:
    """[D5] [W1] An attempt that is noted while the new snapshot is being written is in the new
    files when the state ends."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.disk.failures = {len(shelf.disk.trace) + 1: errno.EIO}
        await shelf.writer.record_write(shelf.enter("before"))
        held = shelf.disk.hold("rename snapshot-3.jsonl.new snapshot-3.jsonl")
        await held.reached.wait()
        noting = asyncio.ensure_future(shelf.writer.record_write(shelf.enter("meanwhile")))
        await a_moment()
        was_noted = noting.done()
        held.release.set()
        await noting
        await a_moment()

        assert not was_noted
        assert shelf.writer.disk.is_durable
        assert {"before", "meanwhile"} == set(keys_of(await shelf.restarted()))

    run(story())


def test_a_copy_placed_while_the_disk_fails_is_seen_and_one_that_is_kept_heals() -> None:
    """[D5] [F2] A full sync is no less needed without a disk; where it can be written, the state
    ends with it."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.disk.room = 0
        shelf.central.sell("P-1")
        await shelf.place()
        shown, was_durable = shelf.row("P-1"), shelf.writer.disk.is_durable
        shelf.disk.room = 10_000
        await shelf.place()

        assert (9, 2) == shown
        assert not was_durable
        assert shelf.writer.disk.is_durable
        assert (9, 2) == (await shelf.restarted()).row("P-1")

    run(story())


async def _left_behind() -> FaultyFolder:
    """The files of a store that sold one P-1 and had an answer."""
    shelf = await Shelf().filled()
    await shelf.sold("P-1")
    await shelf.writer.record_write(note_of("old"))
    await shelf.writer.close()
    return shelf.disk.after_kill()


def test_a_flaw_outlives_the_process() -> None:
    """[F2] [D2] The copy went in place over a hole in the feed, and the store died before the full
    sync that has to follow: the next process knows of it, until a copy without a flaw is placed."""

    async def story() -> None:
        shelf = await Shelf().filled()
        await shelf.place(follow_up_reason="events were missing")
        again = await shelf.restarted()
        follow_up_reason = again.catalogue.follow_up_reason
        await again.place()

        assert "events were missing" == follow_up_reason
        assert "" == (await again.restarted()).catalogue.follow_up_reason

    run(story())


def test_what_damage_took_is_seen_in_the_generation() -> None:
    """[D4] A record in the middle of the journal was hit: the state before it is served until the
    full sync is done, and says by another generation that what was shown before counts no more."""

    async def story() -> None:
        shelf = await Shelf().filled()
        await shelf.sold("P-1")
        await shelf.sold("P-1")
        files = shelf.disk.contents()
        journal = files["journal-2.jsonl"].replace(b'"version":2', b'"version":7')
        left = Shelf(FaultyFolder(files | {"journal-2.jsonl": journal}), central=shelf.central)
        is_damaged = await left.writer.open()

        assert is_damaged
        assert (10, 1) == left.row("P-1")
        assert left.writer.position is not None
        assert ("g-1", "g-1~2") == (left.writer.position.named, left.writer.position.label)
        assert left.writer.position == (await left.restarted()).writer.position

    run(story())


def test_a_folder_that_appears_later_gives_its_catalogue() -> None:
    """[D5] [D7] The disk was not mounted at the start: the store begins without a catalogue, and
    shows what the folder holds as soon as it can be read; nothing there is overwritten unread."""

    async def story() -> None:
        shelf = Shelf(await _left_behind())
        shelf.disk.failures = {1: errno.ENOENT}
        await shelf.writer.open()
        at_start = (shelf.writer.catalogue, shelf.writer.disk.is_durable)
        written = [each for each in shelf.disk.trace if each != "names"]
        await asyncio.sleep(HEAL_SECONDS + 1)

        assert (None, False) == at_start
        assert [] == written
        assert (9, 2) == shelf.row("P-1")
        assert shelf.writer.disk.is_durable
        assert ["old"] == keys_of(shelf)

    run(story())


def test_what_was_placed_meanwhile_wins_over_a_folder_that_appears_later() -> None:
    """[D5] A full sync was faster than the disk: it is newer than what lies there, whose keys count
    all the same."""

    async def story() -> None:
        shelf = Shelf(await _left_behind())
        shelf.disk.failures = {1: errno.ENOENT}
        await shelf.writer.open()
        shelf.central.sell("P-2", -4)
        await shelf.place()
        await shelf.writer.record_write(shelf.enter("new"))
        await asyncio.sleep(HEAL_SECONDS + 1)
        after = await shelf.restarted()

        assert ((10, 1), (6, 2)) == (shelf.row("P-1"), shelf.row("P-2"))
        assert (6, 2) == after.row("P-2")
        assert {"old", "new"} == set(keys_of(after))

    run(story())


def test_a_newer_format_that_appears_later_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[D6] [D5] The folder that appears belongs to a newer store: it is not touched, the log says
    why, and the store goes on in memory, trying again."""

    async def story() -> None:
        folder = await _left_behind()
        name, format_99 = "snapshot-2.jsonl", {"file": "snapshot", "format": 99, "number": 2}
        foreign = frame("header", orjson.dumps(format_99))
        shelf = Shelf(FaultyFolder(folder.contents() | {name: foreign}))
        shelf.disk.failures = {1: errno.ENOENT}
        await shelf.writer.open()
        await asyncio.sleep(3 * HEAL_SECONDS + 1)
        disk, files = shelf.writer.disk, shelf.disk.contents()
        await shelf.disk.remove(name)
        await asyncio.sleep(HEAL_SECONDS)

        assert "snapshot-2.jsonl has format 99" in disk.problem
        assert foreign == files[name]
        assert shelf.writer.disk.is_durable

    run(story())
    assert 1 == caplog.text.count("snapshot-2.jsonl has format 99")


def test_closing_ends_what_goes_on_in_the_background() -> None:
    """[D5] A stop does not wait for a disk to heal."""

    async def story() -> None:
        shelf = await Shelf().filled()
        shelf.disk.room = 0
        await shelf.sold("P-1")
        await shelf.writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}

        assert set() == others

    run(story())
