"""The archive's promises one by one: groups, order, failures, folds, formats, what is kept."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator

import orjson
import pytest

from store_cache.model.change import Change
from store_cache.storage import retention
from store_cache.storage.files import COMPACTION_BYTES, CacheFiles, JournalBroken, NewerFormat
from store_cache.storage.framing import frame
from store_cache.storage.snapshot import CHUNK_LINES
from tests.harness.faulty_directory import FaultyFolder, Inode, Page
from tests.unit.storage.small_store import NOW, SmallStore, State, all_of, installed, row, state

ROWS = {"A": 10, "a": 20, "B/1": 30, "Ü": 40, 'q"\\': 50}


async def started(rows: dict[str, int] | None = None) -> tuple[SmallStore, FaultyFolder]:
    folder = FaultyFolder()
    store = SmallStore(folder)
    await store.start()
    await store.install(ROWS if rows is None else rows, offset=7)
    folder.trace.clear()
    return store, folder


async def restarted(folder: FaultyFolder) -> tuple[SmallStore, FaultyFolder]:
    left = folder.after_kill()
    store = SmallStore(left)
    loaded = await store.start()
    assert loaded.findings == ()
    return store, left


async def on_disk(folder: FaultyFolder) -> State | None:
    """What a start after a kill would show."""
    return state((await SmallStore(folder.after_kill()).files.load()).catalogue)


# -- loading -------------------------------------------------------------------------------


async def test_an_empty_folder_holds_no_catalogue_and_nothing_to_report() -> None:
    """The first start: no catalogue, no findings, no full sync asked for because of damage."""
    loaded = await CacheFiles(FaultyFolder(), now=lambda: NOW).load()

    assert (loaded.catalogue, loaded.writes, loaded.findings) == (None, [], ())
    assert not loaded.damaged


async def test_a_load_changes_nothing_in_the_folder() -> None:
    """Loading only lists and reads, so it works on a read-only disk and may be killed."""
    store, folder = await started()
    await store.sell("A", 9)
    left = folder.after_kill()
    await SmallStore(left).files.load()

    assert {what.split()[0] for what in left.trace} == {"names", "read"}


async def test_everything_that_the_catalogue_holds_comes_back() -> None:
    """Rows, order, position, marks, ahead, owed, lives, the time in step: from the journal, and
    from the snapshot that the next start makes of it."""
    store, folder = await started()
    await store.sell("A", 9)
    await store.sell("B/1", None)
    await store.sell("new\n\u2028", 1)
    first, left = await restarted(folder)

    assert state(store.catalogue) == state(first.catalogue) == await on_disk(left)


async def test_key_records_come_back_in_the_order_in_which_they_were_kept() -> None:
    """The later record of a key counts, so their order is kept across snapshot and journal."""
    store, folder = await started()
    for number in range(3):
        await store.files.append(write=orjson.dumps({"key": "k", "number": number}))
    store.keys = {"k": b'{"key":"k","number":2}'}
    await store.compact()
    await store.files.append(write=b'{"key":"k","number":3}')
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert [record["number"] for record in loaded.writes] == [2, 3]


async def test_an_archive_without_a_catalogue_keeps_key_records() -> None:
    """Writes are forwarded before the first full sync too."""
    folder = FaultyFolder()
    store = SmallStore(folder)
    await store.start()
    await store.note("k1")
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert loaded.catalogue is None
    assert loaded.writes == [{"key": "k1", "of": "note"}]


async def test_more_rows_than_one_chunk_come_back() -> None:
    """A snapshot of several chunks, some of their ids escaped in JSON."""
    rows = {f"P-{n:05d}": n for n in range(2 * CHUNK_LINES + 1)} | {'"': 1, "\\": 2, "\t": 3}
    store, folder = await started(rows)

    assert await on_disk(folder) == state(store.catalogue)


# -- appending -----------------------------------------------------------------------------


async def test_appends_made_at_once_share_one_write_and_one_sync_in_their_order() -> None:
    """While one group is being written the next one gathers."""
    store, folder = await started()
    keys = [f"k{number}" for number in range(50)]
    await all_of(*(store.note(key) for key in keys))
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert folder.trace == ["append journal-2.jsonl", "sync journal-2.jsonl"]
    assert [record["key"] for record in loaded.writes] == keys


async def test_an_append_has_been_synced_when_it_returns() -> None:
    """Durable before visible (D2)."""
    store, folder = await started()
    held = folder.hold("sync journal-2.jsonl")
    call = asyncio.create_task(store.note("k1"))
    await held.reached.wait()

    assert not call.done()
    held.release.set()
    await call
    assert folder.trace == ["append journal-2.jsonl", "sync journal-2.jsonl"]


async def test_a_caller_that_is_cancelled_leaves_its_record_on_its_way() -> None:
    """A till that hangs up takes nothing back, neither its own record nor another's."""
    store, folder = await started()
    given_up = asyncio.create_task(store.note("k1"))
    other = asyncio.create_task(store.note("k2"))
    await asyncio.sleep(0)
    given_up.cancel()
    await other
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert [record["key"] for record in loaded.writes] == ["k1", "k2"]


@pytest.mark.parametrize("failing", [1, 2])
async def test_after_a_failure_nothing_goes_to_that_file_until_new_ones_begin(failing: int) -> None:
    """A failed append or sync: the caller and all after it are told, the file is left alone, and
    `begin` heals. What is begun then holds everything."""
    store, folder = await started()
    folder.failures = {failing: errno.EIO}
    with pytest.raises(OSError, match="Input/output error"):
        await store.sell("A", 9)
    folder.trace.clear()
    with pytest.raises(JournalBroken, match="Input/output error"):
        await store.note("k1")
    assert folder.trace == []
    await store.begin(store.catalogue)
    await store.sell("A", 8)

    touched = {what for what in folder.trace if what.split()[0] in {"append", "sync"}}
    assert not touched & {"append journal-2.jsonl", "sync journal-2.jsonl"}
    assert await on_disk(folder) == state(store.catalogue)


async def test_a_failure_reaches_every_caller_of_the_group() -> None:
    """No record of a failed group counts as kept."""
    store, folder = await started()
    folder.failures = {2: errno.ENOSPC}
    results = await asyncio.gather(
        *(store.note(f"k{number}") for number in range(3)), return_exceptions=True
    )

    assert [type(result) for result in results] == [OSError] * 3


async def test_a_change_numbered_twice_breaks_the_journal_instead_of_hiding_one() -> None:
    """Its first caller was cancelled before making it: read back, the second one would be taken
    for it. New files from memory heal that."""
    store, folder = await started()
    assert store.catalogue is not None
    number = store.catalogue.sequence + 1
    await store.files.append(change=Change("lost", number, rows={"A": row("A", 1)}))
    with pytest.raises(JournalBroken, match=f"change {number} was kept before"):
        await store.sell("A", 9)
    await store.begin(store.catalogue)
    await store.sell("A", 9)

    assert await on_disk(folder) == state(store.catalogue)


async def test_nothing_is_appended_before_begin_or_after_close() -> None:
    """Both say what to do."""
    store = SmallStore(FaultyFolder())
    with pytest.raises(JournalBroken, match="come first"):
        await store.note("k1")
    await store.start()
    await store.files.close()
    with pytest.raises(JournalBroken, match="closed"):
        await store.note("k1")


async def test_close_keeps_what_was_given_before() -> None:
    """A clean stop loses no record that is on its way."""
    store, folder = await started()
    call = asyncio.create_task(store.note("k1"))
    await asyncio.sleep(0)
    await store.files.close()
    await call
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert [record["key"] for record in loaded.writes] == ["k1"]


# -- beginning -----------------------------------------------------------------------------


async def test_every_start_appends_to_files_of_its_own() -> None:
    """Nothing is ever appended to a file of another process (D3)."""
    store, folder = await started()
    await store.note("k1")
    old = set(folder.entries)
    again, left = await restarted(folder)
    await again.note("k2")

    assert not old & set(left.entries)
    assert not [what for what in left.trace if what.startswith("append") and what.split()[1] in old]


async def test_appends_made_while_new_files_begin_go_to_the_new_journal() -> None:
    """They wait, in order, and none falls between the old files and the new."""
    store, folder = await started()
    records = [b'{"key":"k1"}', b'{"key":"k2"}']
    appends = [store.files.append(write=record) for record in records]
    await all_of(store.begin(store.catalogue), *appends)
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert [record["key"] for record in loaded.writes] == ["k1", "k2"]


async def test_a_catalogue_that_changes_unseen_while_it_is_begun_is_an_error() -> None:
    """What is neither in the snapshot nor in the journal must not count as durable."""
    store, folder = await started()
    assert store.catalogue is not None
    held = folder.hold("append snapshot-3.jsonl.new")
    begun = asyncio.create_task(store.files.begin(store.catalogue, []))
    await held.reached.wait()
    held.release.set()
    store.catalogue.apply(Change("unseen", store.catalogue.sequence + 1))
    with pytest.raises(JournalBroken, match="changed while it was written"):
        await begun
    with pytest.raises(JournalBroken):
        await store.note("k1")


async def test_begin_refuses_to_replace_what_was_never_read() -> None:
    """Where the load failed, what lies on disk may hold what was acknowledged."""
    store, folder = await started()
    left = folder.after_kill()
    left.failures = {1: errno.EIO}
    second = SmallStore(left)
    with pytest.raises(OSError, match="Input/output error"):
        await second.start()
    with pytest.raises(JournalBroken, match="could not be read at the start"):
        await second.begin(None)

    assert left.contents() == folder.contents()
    assert store.catalogue is not None


async def test_leftovers_of_a_start_that_was_killed_are_removed() -> None:
    """`.new` files are no use to anybody; files of other names are not ours."""
    store, folder = await started()
    folder.entries["snapshot-9.jsonl.new"] = folder.entries["snapshot-2.jsonl"]
    again, left = await restarted(folder)

    assert sorted(left.entries) == ["journal-10.jsonl", "snapshot-10.jsonl"]
    assert state(again.catalogue) == state(store.catalogue)


async def test_a_leftover_makes_room_before_new_files_are_written() -> None:
    """The disk is full of what a killed start has left: that goes first."""
    store, folder = await started()
    folder.entries["snapshot-9.jsonl.new"] = folder.entries["snapshot-2.jsonl"]
    left = folder.after_kill()
    left.entries["snapshot-9.jsonl.new"] = Inode([(b"x" * 9000, Page.DURABLE)])
    left.room = 0
    again = SmallStore(left)
    await again.start()

    assert await on_disk(left) == state(store.catalogue)


async def test_old_files_that_cannot_be_removed_are_reported_and_swept_later() -> None:
    """They do no harm: the new files count, and the next sweep tries again."""
    store, folder = await started()
    folder.failures = {15: errno.EPERM}
    await store.begin(store.catalogue)

    assert "Operation not permitted" in store.files.sweep_problem
    await store.note("k1")
    await store.begin(store.catalogue)
    assert store.files.sweep_problem == ""
    assert sorted(folder.entries) == ["journal-4.jsonl", "snapshot-4.jsonl"]


async def test_one_file_that_cannot_be_removed_keeps_no_other_from_going(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is first in line at every sweep: with all behind it the disk would fill up in time."""
    store, folder = await started()
    remove = folder.remove

    async def remove_others(name: str) -> None:
        if name == "journal-2.jsonl":
            raise OSError(errno.EPERM, "Operation not permitted", name)
        await remove(name)

    monkeypatch.setattr(folder, "remove", remove_others)
    await store.begin(store.catalogue)
    await store.begin(store.catalogue)

    assert "Operation not permitted" in store.files.sweep_problem
    assert sorted(folder.entries) == ["journal-2.jsonl", "journal-4.jsonl", "snapshot-4.jsonl"]


# -- folding -------------------------------------------------------------------------------


async def test_a_fold_while_changes_go_on_keeps_exactly_the_cut() -> None:
    """The snapshot is the catalogue of one moment; what came after is in the new journal."""
    rows = {f"P-{n:05d}": n for n in range(3 * CHUNK_LINES)}
    store, folder = await started(rows)
    held = folder.hold("append snapshot-3.jsonl.new")
    compaction = asyncio.create_task(store.compact())
    await held.reached.wait()
    cut = state(store.catalogue)
    await store.sell("P-00000", 99)
    await store.sell("P-05999", None)
    await store.sell("P-05998x", 7)
    held.release.set()
    await compaction
    whole = await on_disk(folder)
    folder.entries["journal-3.jsonl"].pieces = folder.entries["journal-3.jsonl"].pieces[:1]
    alone = await SmallStore(folder.after_kill()).files.load()

    assert state(alone.catalogue) == cut
    assert whole == state(store.catalogue)
    assert sorted(folder.entries) == ["journal-3.jsonl", "snapshot-3.jsonl"]


async def test_a_fold_waits_for_a_change_that_is_durable_but_not_made_yet() -> None:
    """Its record is in the old journal: a cut without it would lose it."""
    store, folder = await started()
    assert store.catalogue is not None
    change = Change("slow", store.catalogue.sequence + 1, rows={"A": row("A", 1)})
    await store.files.append(change=change)
    compaction = asyncio.create_task(store.compact())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not compaction.done()
    store.catalogue.apply(change)
    await store.note("k1")
    await compaction

    assert await on_disk(folder) == state(store.catalogue)


async def test_changes_that_the_cut_holds_already_are_not_made_again() -> None:
    """The new journal begins before the cut. If it is damaged later, its first records must not
    be laid over a snapshot that is ahead of them."""
    store, folder = await started()
    assert store.catalogue is not None
    base = store.catalogue.sequence
    steps = [Change("step", base + n, rows={"A": row("A", n)}) for n in (1, 2, 3)]
    await store.files.append(change=steps[0])
    compaction = asyncio.create_task(store.compact())
    while "append journal-3.jsonl" not in folder.trace[:-3]:
        await store.files.append(write=b'{"key":"k"}')
    await store.files.append(change=steps[1])
    await store.files.append(change=steps[2])
    for step in steps:
        store.catalogue.apply(step)
    await store.files.append(write=b'{"key":"k"}')
    await compaction
    left = folder.after_kill()
    whole = left.contents()["journal-3.jsonl"]
    left.entries["journal-3.jsonl"].pieces = [
        (whole[: whole.index(b'"sequence":%d' % (base + 3))], Page.DURABLE)
    ]
    loaded = await SmallStore(left).files.load()

    assert b'"sequence":%d' % (base + 2) in whole
    assert loaded.catalogue is not None
    assert loaded.catalogue.get("A") == row("A", 3)


async def test_a_fold_that_is_stopped_before_its_rename_leaves_nothing_behind() -> None:
    """The store stops just then: what it holds is in the journals, and nobody would finish the
    snapshot."""
    store, folder = await started()
    held = folder.hold("rename snapshot-3.jsonl.new snapshot-3.jsonl")
    compaction = asyncio.create_task(store.compact())
    await held.reached.wait()
    compaction.cancel()
    await asyncio.gather(compaction, return_exceptions=True)

    assert sorted(folder.entries) == ["journal-2.jsonl", "journal-3.jsonl", "snapshot-2.jsonl"]
    assert await on_disk(folder) == state(store.catalogue)


async def test_a_beginning_that_is_stopped_before_its_rename_leaves_nothing_unfinished() -> None:
    """The store stops while it puts a full sync's catalogue in place."""
    store, folder = await started()
    held = folder.hold("sync folder")
    beginning = asyncio.create_task(store.begin(installed({"A": 1}, sequence=2)))
    await held.reached.wait()
    beginning.cancel()
    await asyncio.gather(beginning, return_exceptions=True)

    assert "snapshot-3.jsonl.new" not in folder.entries
    assert await on_disk(folder) == state(store.catalogue)


async def test_begin_ends_a_fold_that_waits() -> None:
    """A change that is kept and never made would hold the fold, and the fold `begin`."""
    store, folder = await started()
    assert store.catalogue is not None
    await store.files.append(change=Change("never made", store.catalogue.sequence + 1))
    compaction = asyncio.create_task(store.compact())
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.wait_for(store.begin(store.catalogue), 5)
    await compaction

    assert await on_disk(folder) == state(store.catalogue)


async def test_begin_overtakes_a_fold() -> None:
    """A full sync that is placed ends the fold of the catalogue that it replaces."""
    store, folder = await started()
    held = folder.hold("append snapshot-3.jsonl.new")
    compaction = asyncio.create_task(store.compact())
    await held.reached.wait()
    placing = asyncio.create_task(store.install({"N": 1}, offset=90))
    for _ in range(5):
        await asyncio.sleep(0)
    held.release.set()
    await asyncio.wait_for(asyncio.gather(compaction, placing), 5)

    assert sorted(folder.entries) == ["journal-4.jsonl", "snapshot-4.jsonl"]
    assert await on_disk(folder) == state(store.catalogue)


async def test_a_fold_that_fails_leaves_the_journal_at_work() -> None:
    """A full disk while the snapshot is written: appends go on, the next load reads the journals
    in a row, and a later fold gets through."""
    store, folder = await started()
    await store.sell("A", 9)
    folder.trace.clear()
    folder.failures = {9: errno.ENOSPC}
    with pytest.raises(OSError, match="No space left"):
        await store.compact()
    await store.sell("A", 8)

    assert sorted(folder.entries) == ["journal-2.jsonl", "journal-3.jsonl", "snapshot-2.jsonl"]
    assert await on_disk(folder) == state(store.catalogue)
    await store.compact()
    assert sorted(folder.entries) == ["journal-4.jsonl", "snapshot-4.jsonl"]


async def test_a_fold_is_due_when_the_journal_has_outgrown_the_snapshot() -> None:
    """Not below 4 MiB; after a failed fold not before as much again has come."""
    store, folder = await started()
    big = b'{"key":"k","text":"' + b"x" * (COMPACTION_BYTES // 4) + b'"}'
    for _ in range(3):
        await store.files.append(write=big)
    due = [store.files.compaction_due]
    await store.files.append(write=big)
    due.append(store.files.compaction_due)
    folder.trace.clear()
    folder.failures = {2: errno.ENOSPC}
    with pytest.raises(OSError, match="No space left"):
        await store.compact()
    due.append(store.files.compaction_due)
    await store.compact()

    assert [*due, store.files.compaction_due] == [False, True, False, False]
    assert store.files.journal_bytes < 1000


async def test_the_key_table_may_change_while_it_is_written() -> None:
    """It is iterated over in slices; an entry that comes meanwhile is in the new journal."""
    store, folder = await started()
    store.keys = {f"k{n}": orjson.dumps({"key": f"k{n}"}) for n in range(2 * CHUNK_LINES)}

    def encoded() -> Iterator[bytes]:
        for key in list(store.keys):
            yield store.keys[key]

    assert store.catalogue is not None
    await all_of(store.files.compact(store.catalogue, encoded), store.note("late"))
    loaded = await SmallStore(folder.after_kill()).files.load()

    assert {record["key"] for record in loaded.writes} == set(store.keys)


# -- formats -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["snapshot-2.jsonl", "journal-2.jsonl"])
async def test_a_newer_format_is_refused_and_nothing_is_touched(name: str) -> None:
    """A start of an older version after an upgrade must not destroy what it cannot read (D6)."""
    _, folder = await started()
    kind = name.partition("-")[0]
    header = frame("header", orjson.dumps({"file": kind, "format": 2, "number": 2}))
    files = folder.contents() | {name: header + b"\x00 something new"}
    files["snapshot-9.jsonl.new"] = b"leftover"
    left = FaultyFolder(files)
    store = SmallStore(left)
    with pytest.raises(NewerFormat, match=f"{name} has format 2"):
        await store.start()
    with pytest.raises(JournalBroken):
        await store.begin(None)

    assert left.contents() == files


async def test_the_files_are_json_that_a_person_can_read() -> None:
    """Every line is JSON, and says what it is (D1)."""
    store, folder = await started()
    await store.sell("A", 9, key="k1")
    lines = [
        orjson.loads(line) for data in folder.contents().values() for line in data.splitlines()
    ]
    header, record = lines[0], lines[1]

    assert header["header"]["file"] == "journal"
    assert record["record"]["change"]["rows"]["A"]["available"] == 9
    assert record["record"]["change"]["position"]["offset"] == 8
    assert record["record"]["write"] == {"key": "k1", "of": "A"}


# -- what is kept --------------------------------------------------------------------------


async def damaged_start(folder: FaultyFolder) -> tuple[SmallStore, FaultyFolder]:
    """Garble the snapshot, start, and place a new catalogue."""
    files = folder.contents()
    name = next(name for name in files if name.startswith("snapshot") and name.endswith(".jsonl"))
    files[name] = b"garbage" + files[name]
    left = FaultyFolder(files)
    store = SmallStore(left)
    assert (await store.start()).damaged
    await store.install(ROWS, offset=7)
    return store, left


async def test_damaged_files_are_kept_and_the_oldest_of_them_go() -> None:
    """At most five, so that a disk that damages files again and again does not fill up."""
    _, folder = await started()
    for _ in range(7):
        _, folder = await damaged_start(folder)
    names = [name for name in folder.entries if ".damaged-" in name]

    assert len(names) == retention.QUARANTINED_FILES
    assert sorted(int(name.rpartition("-")[2]) for name in names) == [3, 4, 5, 6, 7]


async def test_damaged_files_take_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single one larger than the room for all of them is not kept at all."""
    monkeypatch.setattr(retention, "QUARANTINED_BYTES", 100)
    _, folder = await started()
    _, folder = await damaged_start(folder)

    assert not [name for name in folder.entries if name.startswith("snapshot-2.jsonl.damaged")]


async def test_a_placed_catalogue_survives_alone() -> None:
    """After `begin` the new pair is all there is, and a power cut changes nothing in it."""
    store, folder = await started()
    await store.begin(installed({"N": 1}, sequence=9))

    assert sorted(folder.entries) == ["journal-3.jsonl", "snapshot-3.jsonl"]
    assert await on_disk(folder) == state(store.catalogue)
