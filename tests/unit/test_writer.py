"""The one writer: durable before visible, writes, full syncs, compaction, a failing disk."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

import orjson
import pytest

from store_cache.catalogue.apply import OVERRIDE_SECONDS, TOMBSTONE_SECONDS
from store_cache.catalogue.catalogue import PART_ROWS
from store_cache.catalogue.replica import Installation
from store_cache.central.failures import ExchangeBroken
from store_cache.model.change import PendingRefetch, RefetchReason
from store_cache.model.position import Position
from store_cache.storage import files
from store_cache.storage.framing import frame
from store_cache.writer import HEAL_SECONDS, IN_SYNC_RECORD_SECONDS
from tests.harness.faulty_directory import Crashed, FaultyFolder
from tests.harness.shelf import NOON, Shelf, applied, note_of, row
from tests.harness.virtual_time import in_virtual_time, run

AWAY = ExchangeBroken("no answer")


async def a_moment() -> None:
    """Let others run as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def keys_of(shelf: Shelf) -> list[str]:
    return [orjson.loads(record)["key"] for record in shelf.keys.encoded()]


# -- durable before visible --------------------------------------------------------------------


async def settle_sale(shelf: Shelf) -> None:
    """A till sold one of P-1, and Central's answer arrives before the event."""
    stock = applied("P-1", sent=1, left=9)
    await shelf.writer.settle_write(shelf.finish("sale", stock), stock)


async def settle_at(shelf: Shelf, product_id: str, *, left: int) -> None:
    """The same, with the sale in Central's ledger."""
    stock = applied(product_id, sent=1, left=left)
    shelf.central.sell(product_id, left - 10)
    await shelf.writer.settle_write(shelf.finish(f"sale of {product_id}", stock), stock)


async def refetch(shelf: Shelf) -> None:
    known = shelf.writer.known_state("P-1")
    sold = row("P-1", 9, 2)
    await shelf.writer.apply_refetch("P-1", sold, known=known, reason=RefetchReason.REFRESH)


WAYS: dict[str, Callable[[Shelf], Awaitable[object]]] = {
    "events": lambda shelf: shelf.sold("P-1"),
    "answer": settle_sale,
    "refetch": refetch,
}
"""Ways to change P-1, which is held with a stock of 10 at version 1."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", ["append", "sync"])
@in_virtual_time
async def test_nothing_is_visible_before_it_is_on_disk(way: str, operation: str) -> None:
    """[D2] While the record is being written or synced, readers see the state before; then the
    state after, which the next process finds, too."""
    shelf = await Shelf().filled()
    held = shelf.disk.hold(f"{operation} journal-2.jsonl")
    change = asyncio.ensure_future(WAYS[way](shelf))
    await held.reached.wait()
    await a_moment()

    assert (10, 1) == shelf.row("P-1")
    held.release.set()
    await change
    assert (9, 2) == shelf.row("P-1")
    assert (9, 2) == (await shelf.restarted()).row("P-1")


class Watched(FaultyFolder):
    """Records what readers see at each operation."""

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


@in_virtual_time
async def test_a_replica_is_on_disk_before_it_is_seen() -> None:
    """[D2] [F2] During every operation that writes the new snapshot, readers see the old catalogue,
    whole; after them the new one, whole, at its own position."""
    folder = Watched()
    shelf = await Shelf(folder).filled()
    before = seen_by_readers(shelf)
    shelf.central.create("P-4")
    shelf.central.sell("P-1")
    folder.shelf = shelf
    await shelf.place()
    names = [what for what, _ in folder.seen]

    assert {"sync snapshot-3.jsonl.new", "sync journal-3.jsonl"} <= set(names)
    assert "sync folder" == names[names.index("rename snapshot-3.jsonl.new snapshot-3.jsonl") + 1]
    assert [before] * len(names) == [seen for _, seen in folder.seen]
    assert ["P-1", "P-2", "P-3", "P-4"] == list(shelf.catalogue.ids())
    assert (9, 2) == shelf.row("P-1")
    assert Position("g-1", 6, "f") == shelf.writer.position


async def _day(shelf: Shelf) -> None:
    """Everything that changes files."""
    await shelf.filled()
    await shelf.sold("P-1")
    await settle_at(shelf, "P-2", left=7)
    await shelf.writer.request_refetch("P-3", RefetchReason.ORDER)
    for _ in range(6):
        await shelf.sold("P-1")
    await shelf.place()
    await shelf.sold("P-3")


def _shown(shelf: Shelf) -> dict[str, tuple[int, int]]:
    """Version and stock of every product, as readers see them."""
    held = shelf.writer.catalogue
    if held is None:
        return {}
    return {i: (version, stock) for i in held.ids() for stock, version in [shelf.row(i) or (0, 0)]}


class Dying(FaultyFolder):
    """Its process dies before an operation. `shown` is what readers had seen by then."""

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
    """[D2] [D3] The power goes before each single operation on the disk. Whatever readers had seen
    by then is there after the start, as it was or newer."""
    monkeypatch.setattr(files, "COMPACTION_BYTES", 700)

    async def operations() -> int:
        shelf = Shelf()
        await _day(shelf)
        await shelf.writer.close()
        return len(shelf.disk.trace)

    async def cut_before(operation: int) -> bool:
        folder = Dying(operation)
        shelf = folder.shelf = Shelf(folder)
        with suppress(Crashed):  # if it struck a compaction, the rest of the day went on
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


@in_virtual_time
async def test_an_answer_and_its_key_are_one_record() -> None:
    """[W6] [W1] The stock and the key's final answer reach the disk together, so that neither is
    there without the other."""
    shelf = await Shelf().filled()
    appends = shelf.disk.trace.count("append journal-2.jsonl")
    await settle_sale(shelf)
    line = shelf.disk.contents()["journal-2.jsonl"].splitlines()[-1]
    record = orjson.loads(line)["record"]

    assert {"change", "write"} <= set(record)
    assert "sale" == record["write"]["key"]
    assert appends + 1 == shelf.disk.trace.count("append journal-2.jsonl")
    assert ["page 0"] == shelf.central.asked


@in_virtual_time
async def test_an_answer_older_than_what_is_held_changes_nothing_but_the_key() -> None:
    """[W6] The event of a later write came first, so the answer's figures are out of date."""
    shelf = await Shelf().filled()
    await shelf.sold("P-1")
    await shelf.sold("P-1")
    await settle_sale(shelf)

    assert (8, 3) == shelf.row("P-1")
    assert {} == shelf.catalogue.overrides
    assert ["sale"] == keys_of(await shelf.restarted())


@in_virtual_time
async def test_an_answer_beyond_a_jump_has_the_product_fetched_whole() -> None:
    """[W6] The store holds version 1, Central applied the write to version 2. The product is
    fetched with every attribute, and the till's next read shows it."""
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


@in_virtual_time
async def test_the_answers_figures_are_used_if_the_product_cannot_be_fetched() -> None:
    """[W6] Central applied the write and cannot be reached any more: stock and version are set, and
    a refetch is pending."""
    shelf = await Shelf().filled()
    shelf.central.away = AWAY
    await shelf.writer.settle_write(note_of("sale"), applied("P-1", sent=4, left=3))

    assert (3, 5) == shelf.row("P-1")
    assert RefetchReason.CROSSED == shelf.catalogue.pending_refetches["P-1"].reason
    assert 5 == shelf.catalogue.overrides["P-1"].version


@pytest.mark.parametrize("central_is_there", [True, False])
@in_virtual_time
async def test_an_answer_never_creates_a_product_by_itself(central_is_there: bool) -> None:
    """[W6] A product that is not held is fetched whole, or stays absent."""
    shelf = await Shelf().filled()
    shelf.central.create("P-9")
    shelf.central.away = None if central_is_there else AWAY
    await shelf.writer.settle_write(note_of("sale"), applied("P-9", sent=1, left=9))

    if central_is_there:
        assert (10, 1) == shelf.row("P-9")
    else:
        assert shelf.row("P-9") is None
        assert RefetchReason.CROSSED == shelf.catalogue.pending_refetches["P-9"].reason


@in_virtual_time
async def test_other_changes_go_on_while_a_product_is_fetched() -> None:
    """[W6] However long Central takes, events are applied meanwhile, and a refetch that one of them
    overtook does not undo it."""
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


@in_virtual_time
async def test_the_key_of_an_answer_before_the_first_catalogue_is_kept() -> None:
    """[W1] There is no catalogue to apply the answer to, but a repeat of the write must find it."""
    shelf = Shelf()
    await shelf.writer.open()
    await settle_sale(shelf)
    again = await shelf.restarted()

    assert again.writer.catalogue is None
    assert ["sale"] == keys_of(again)


# -- full syncs (F2, F4, F5) -------------------------------------------------------------------


@in_virtual_time
async def test_answers_during_a_full_sync_are_applied_to_its_replica() -> None:
    """[F4] The pages were fetched before the sale; the new catalogue shows it all the same."""
    shelf = await Shelf().filled()
    await shelf.fetch_pages()
    await settle_sale(shelf)
    await shelf.writer.settle_write(note_of("read"), None)
    installation = Installation(Position("g-1", 4, "f"))
    verdict = await shelf.writer.install(installation, least_percent=50)

    assert verdict.accepted
    assert (9, 2) == shelf.row("P-1")
    assert {"P-1"} == set(shelf.catalogue.overrides)


@in_virtual_time
async def test_a_replaced_catalogue_is_freed_in_parts() -> None:
    """[F2] Readers have the new one at once, and `replaced` is set; the old one is freed part by
    part, with pauses for others."""
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


@in_virtual_time
async def test_a_refused_replica_leaves_everything_as_it_was() -> None:
    """[F5] It is dropped, and the catalogue that readers see goes on changing."""
    shelf = await Shelf().filled()
    held = shelf.writer.catalogue
    shelf.writer.begin_replica(same_generation=True)
    installation = Installation(Position("g-1", 9))
    verdict = await shelf.writer.install(installation, least_percent=50)
    await shelf.sold("P-1")

    assert "0 products where 3 are held" in verdict.problem
    assert held is shelf.writer.catalogue
    assert shelf.writer.replica is None
    assert (9, 2) == shelf.row("P-1")


@in_virtual_time
async def test_refetches_requested_during_a_full_sync_outlive_it() -> None:
    """[P3] [E5] A refetch requested before the full sync is done by it; one requested since is
    still pending, also after a restart."""
    shelf = await Shelf().filled()
    await shelf.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
    await asyncio.sleep(1.0)
    await shelf.fetch_pages()
    await shelf.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
    installation = Installation(Position("g-1", 4))
    await shelf.writer.install(installation, least_percent=50)

    assert {"P-2"} == set(shelf.catalogue.pending_refetches)
    assert {"P-2"} == set((await shelf.restarted()).catalogue.pending_refetches)


# -- refetches ---------------------------------------------------------------------------------


@in_virtual_time
async def test_a_refetch_that_was_overtaken_is_pending_again() -> None:
    """[V2] What Central said counts only if nothing about the product changed meanwhile."""
    shelf = await Shelf().filled()
    known = shelf.writer.known_state("P-1")
    await shelf.sold("P-1")
    applied = await shelf.writer.apply_refetch("P-1", None, known=known, reason=RefetchReason.ORDER)

    assert not applied
    assert (9, 2) == shelf.row("P-1")
    assert RefetchReason.ORDER == shelf.catalogue.pending_refetches["P-1"].reason


@in_virtual_time
async def test_without_a_catalogue_nothing_is_applied_or_requested() -> None:
    """[F1] Before the first full sync there is nothing that a refetch could repair."""
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


@in_virtual_time
async def test_overrides_that_the_feed_does_not_confirm_within_a_minute_are_stale() -> None:
    """[W7] Only those whose own events have not come although the feed was followed for 60 s, and
    that have no pending refetch."""
    shelf = await Shelf().filled()
    await settle_sale(shelf)
    await settle_at(shelf, "P-2", left=5)
    await asyncio.sleep(OVERRIDE_SECONDS / 2)
    await settle_at(shelf, "P-3", left=5)
    await shelf.writer.request_refetch("P-2", RefetchReason.AHEAD)
    before = shelf.writer.stale_overrides()
    await asyncio.sleep(OVERRIDE_SECONDS / 2)
    behind = shelf.writer.stale_overrides()
    await shelf.writer.note_in_sync()

    assert [] == before
    assert [] == behind
    assert ["P-1"] == shelf.writer.stale_overrides()


# -- being in sync (B5) ------------------------------------------------------------------------


@in_virtual_time
async def test_the_time_in_sync_is_written_once_a_minute() -> None:
    """[B5] A quiet feed writes one record a minute, also if the clock was set back, so that a start
    knows how old its catalogue is."""
    shelf = await Shelf().filled()
    records = len(shelf.disk.contents()["journal-2.jsonl"].splitlines())
    for _ in range(3 * int(IN_SYNC_RECORD_SECONDS)):
        await asyncio.sleep(1.0)
        await shelf.writer.note_in_sync()
    noted = len(shelf.disk.contents()["journal-2.jsonl"].splitlines()) - records
    shelf.clock.set_by_seconds = -7200.0
    await shelf.writer.note_in_sync()

    assert 3 == noted
    assert shelf.clock.now() == (await shelf.restarted()).catalogue.in_sync_at


@in_virtual_time
async def test_unfollowed_rows_are_known_as_such_until_the_store_is_in_sync() -> None:
    """[F2] Across a restart, too; after that, events are applied as they come."""
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


@in_virtual_time
async def test_a_tombstone_is_kept_until_the_feed_was_followed_past_it() -> None:
    """[V2] The store was switched off for hours and is still behind: a product that a refetch found
    absent does not come back by older events."""
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


# -- compaction (D3) ---------------------------------------------------------------------------


@in_virtual_time
async def test_changes_go_on_while_the_journal_is_compacted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[D3] [D1] The snapshot is held up half-way; meanwhile, sales are visible and durable. After a
    kill at its end everything is there, from the new files."""
    monkeypatch.setattr(files, "COMPACTION_BYTES", 1500)
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


async def _sell(shelf: Shelf, product_id: str, times: int) -> None:
    for _ in range(times):
        await shelf.sold(product_id)


@in_virtual_time
async def test_a_compaction_that_fails_leaves_the_journal_in_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[D3] [D5] No room for a second snapshot: the log says so, the store stays durable, and a
    later compaction succeeds."""
    monkeypatch.setattr(files, "COMPACTION_BYTES", 1500)
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
    assert "files: compacting the journal failed, it is tried again" in caplog.text


# -- a disk that fails (D5) --------------------------------------------------------------------


@in_virtual_time
async def test_a_full_disk_stops_no_shop(caplog: pytest.LogCaptureFixture) -> None:
    """[D5] Changes go on in memory, the log names the problem once, and new files are tried every
    half minute until a whole snapshot ends it."""
    shelf = await Shelf().filled()
    shelf.disk.room = 0
    await shelf.sold("P-1")
    await settle_at(shelf, "P-2", left=7)
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
    assert ["sale of P-2"] == keys_of(after)
    errors = [each.message for each in caplog.records if each.levelno == logging.ERROR]
    assert 1 == len(errors)
    assert "files: the disk fails (" in errors[0]
    assert "Check DATA_DIR: space, permissions, device" in errors[0]
    assert "files: the disk works again" in caplog.text


@in_virtual_time
async def test_writes_recorded_while_the_disk_heals_are_not_lost() -> None:
    """[D5] [W1] An attempt that is recorded while the new snapshot is written is in the new files
    when the failure ends."""
    shelf = await Shelf().filled()
    shelf.disk.failures = {len(shelf.disk.trace) + 1: errno.EIO}
    await shelf.writer.record_write(shelf.enter("before"))
    held = shelf.disk.hold("rename snapshot-3.jsonl.new snapshot-3.jsonl")
    await held.reached.wait()
    recording = asyncio.ensure_future(shelf.writer.record_write(shelf.enter("meanwhile")))
    await a_moment()
    was_recorded = recording.done()
    held.release.set()
    await recording
    await a_moment()

    assert not was_recorded
    assert shelf.writer.disk.is_durable
    assert {"before", "meanwhile"} == set(keys_of(await shelf.restarted()))


@in_virtual_time
async def test_a_full_sync_is_visible_while_the_disk_fails_and_ends_the_failure_once_it_fits() -> (
    None
):
    """[D5] [F2] It is no less needed without a disk."""
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


async def _left_behind() -> FaultyFolder:
    """The files of a store that saw one sale of P-1 and recorded a write."""
    shelf = await Shelf().filled()
    await shelf.sold("P-1")
    await shelf.writer.record_write(note_of("old"))
    await shelf.writer.close()
    return shelf.disk.after_kill()


@in_virtual_time
async def test_a_follow_up_reason_outlives_the_process() -> None:
    """[F2] [D2] A replica was installed over a gap in the feed, and the store died before the full
    sync that has to follow. The next process knows of it, until one without a gap is installed."""
    shelf = await Shelf().filled()
    await shelf.place(follow_up_reason="events were missing")
    again = await shelf.restarted()
    follow_up_reason = again.catalogue.follow_up_reason
    await again.place()

    assert "events were missing" == follow_up_reason
    assert "" == (await again.restarted()).catalogue.follow_up_reason


@in_virtual_time
async def test_what_damage_took_is_seen_in_the_generation() -> None:
    """[D4] A record in the middle of the journal is damaged. The state before it is served until
    the full sync is done, under another generation, because readers have seen a newer state."""
    shelf = await Shelf().filled()
    await shelf.sold("P-1")
    await shelf.sold("P-1")
    contents = shelf.disk.contents()
    journal = contents["journal-2.jsonl"].replace(b'"version":2', b'"version":7')
    left = Shelf(FaultyFolder(contents | {"journal-2.jsonl": journal}), central=shelf.central)
    is_damaged = await left.writer.open()

    assert is_damaged
    assert (10, 1) == left.row("P-1")
    assert left.writer.position is not None
    assert ("g-1", "g-1~2") == (left.writer.position.named, left.writer.position.label)
    assert left.writer.position == (await left.restarted()).writer.position


@in_virtual_time
async def test_a_directory_that_appears_later_is_loaded() -> None:
    """[D5] [D7] The disk was not mounted at the start: the store begins without a catalogue, and
    shows what is on disk as soon as it can be read. Nothing there is overwritten unread."""
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


@in_virtual_time
async def test_a_full_sync_wins_over_a_directory_that_appears_later() -> None:
    """[D5] It is newer than what is on disk; the keys there count all the same."""
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


@in_virtual_time
async def test_a_newer_format_that_appears_later_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[D6] [D5] A newer version wrote the directory: it is not touched, the log says why, and the
    store goes on in memory and tries again."""
    folder = await _left_behind()
    name, format_99 = "snapshot-2.jsonl", {"file": "snapshot", "format": 99, "number": 2}
    foreign = frame("header", orjson.dumps(format_99))
    shelf = Shelf(FaultyFolder(folder.contents() | {name: foreign}))
    shelf.disk.failures = {1: errno.ENOENT}
    await shelf.writer.open()
    await asyncio.sleep(3 * HEAL_SECONDS + 1)
    disk, contents = shelf.writer.disk, shelf.disk.contents()
    await shelf.disk.remove(name)
    await asyncio.sleep(HEAL_SECONDS)

    assert "snapshot-2.jsonl has format 99" in disk.problem
    assert foreign == contents[name]
    assert shelf.writer.disk.is_durable
    assert 1 == caplog.text.count("snapshot-2.jsonl has format 99")


@in_virtual_time
async def test_closing_ends_background_tasks() -> None:
    """[D5] A stop does not wait for a disk to heal."""
    shelf = await Shelf().filled()
    shelf.disk.room = 0
    await shelf.sold("P-1")
    await shelf.writer.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}

    assert set() == others
