"""The promises of `CacheFiles`: groups, order, failures, compaction, formats, quarantine."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator

import orjson
import pytest

from store_cache.model.change import Change
from store_cache.storage import retention
from store_cache.storage.deadlines import OPERATION_SECONDS
from store_cache.storage.directory import READ_BYTES, DiskHangs
from store_cache.storage.files import (
    CHECK_SECONDS,
    COMPACTION_BYTES,
    CacheFiles,
    JournalBroken,
    NewerFormat,
)
from store_cache.storage.framing import OtherStore, Owner, frame, unframe
from store_cache.storage.journal import Journal, JournalRecord
from store_cache.storage.snapshot import CHUNK_LINES
from tests.harness.faulty_directory import FaultyDirectory, Inode, PageState
from tests.harness.virtual_time import in_virtual_time
from tests.unit.storage.small_store import (
    NOW,
    SmallStore,
    State,
    all_of,
    installed,
    keys_of,
    load,
    records_of,
    row,
    state,
)

ROWS = {"A": 10, "a": 20, "B/1": 30, "Ü": 40, 'q"\\': 50}


async def started(rows: dict[str, int] | None = None) -> tuple[SmallStore, FaultyDirectory]:
    folder = FaultyDirectory()
    store = SmallStore(folder)
    await store.start()
    await store.install(ROWS if rows is None else rows, offset=7)
    folder.trace.clear()
    return store, folder


async def restarted(folder: FaultyDirectory) -> tuple[SmallStore, FaultyDirectory]:
    left = folder.after_kill()
    store = SmallStore(left)
    loaded = await store.start()
    assert loaded.findings == ()
    return store, left


async def on_disk(folder: FaultyDirectory) -> State | None:
    """What a start after a kill would show."""
    return state((await load(folder.after_kill())).catalogue)


async def keys_on_disk(folder: FaultyDirectory) -> list[str]:
    return keys_of(await load(folder.after_kill()))


async def many_steps() -> None:
    """Let others run as far as they can."""
    for _ in range(50):
        await asyncio.sleep(0)


# -- loading -------------------------------------------------------------------------------


async def test_an_empty_directory_holds_no_catalogue_and_nothing_to_report() -> None:
    """The first start: no catalogue, no findings, no full sync because of damage."""
    loaded = await load(FaultyDirectory())

    assert (loaded.catalogue, loaded.writes, loaded.findings) == (None, [], ())
    assert not loaded.damaged


async def test_a_load_changes_nothing_in_the_directory() -> None:
    """It only lists and reads, so it works on a read-only disk and may be killed."""
    store, folder = await started()
    await store.sell("A", 9)
    left = folder.after_kill()
    await load(left)

    assert {what.split()[0] for what in left.trace} == {"names", "read"}


async def test_everything_that_the_catalogue_holds_comes_back() -> None:
    """Rows, order, position, tombstones, overrides, pending refetches, incarnations, the time in
    sync: from the journal, and from the snapshot that the next start makes of it."""
    store, folder = await started()
    await store.sell("A", 9)
    await store.sell("B/1", None)
    await store.sell("new\n\u2028", 1)
    first, left = await restarted(folder)

    assert state(store.catalogue) == state(first.catalogue) == await on_disk(left)


async def test_key_records_come_back_in_the_order_in_which_they_were_appended() -> None:
    """The later record of a key counts, so their order holds across snapshot and journal."""
    store, folder = await started()
    for number in range(3):
        await store.files.append(
            JournalRecord(key_entry=orjson.dumps({"key": "k", "number": number}))
        )
    store.keys = {"k": b'{"key":"k","number":2}'}
    await store.compact()
    await store.files.append(JournalRecord(key_entry=b'{"key":"k","number":3}'))
    loaded = await load(folder.after_kill())

    assert [record["number"] for record in records_of(loaded)] == [2, 3]


async def test_files_without_a_catalogue_hold_key_records() -> None:
    """Writes are forwarded before the first full sync, too."""
    folder = FaultyDirectory()
    store = SmallStore(folder)
    await store.start()
    await store.record("k1")
    loaded = await load(folder.after_kill())

    assert loaded.catalogue is None
    assert records_of(loaded) == [{"key": "k1", "of": "record"}]


async def test_more_rows_than_one_chunk_come_back() -> None:
    """A snapshot of several chunks, some of their ids escaped in JSON."""
    rows = {f"P-{n:05d}": n for n in range(2 * CHUNK_LINES + 1)} | {'"': 1, "\\": 2, "\t": 3}
    store, folder = await started(rows)

    assert await on_disk(folder) == state(store.catalogue)


# -- appending -----------------------------------------------------------------------------


async def test_concurrent_appends_share_one_write_and_one_sync_in_their_order() -> None:
    """While one group is being written, the next one gathers."""
    store, folder = await started()
    keys = [f"k{number}" for number in range(50)]
    await all_of(*(store.record(key) for key in keys))

    assert folder.trace == ["append journal-2.jsonl", "sync journal-2.jsonl"]
    assert await keys_on_disk(folder) == keys


async def test_an_append_has_been_synced_when_it_returns() -> None:
    """Durable before visible (D2)."""
    store, folder = await started()
    held = folder.hold("sync journal-2.jsonl")
    call = asyncio.create_task(store.record("k1"))
    await held.reached.wait()

    assert not call.done()
    held.release.set()
    await call
    assert folder.trace == ["append journal-2.jsonl", "sync journal-2.jsonl"]


async def test_the_record_of_a_cancelled_caller_is_written() -> None:
    """A till that disconnects takes nothing back, neither its own record nor that of another."""
    store, folder = await started()
    given_up = asyncio.create_task(store.record("k1"))
    other = asyncio.create_task(store.record("k2"))
    await asyncio.sleep(0)
    given_up.cancel()
    await other

    assert await keys_on_disk(folder) == ["k1", "k2"]


@pytest.mark.parametrize("failing", [1, 2])
async def test_after_a_failure_nothing_goes_to_that_file_until_new_ones_begin(failing: int) -> None:
    """A failed append or sync: this caller and all later ones get an error, the file is left
    alone, and `begin` heals. The new files hold everything."""
    store, folder = await started()
    folder.failures = {failing: errno.EIO}
    with pytest.raises(OSError, match="Input/output error"):
        await store.sell("A", 9)
    folder.trace.clear()
    with pytest.raises(JournalBroken, match="Input/output error"):
        await store.record("k1")
    assert folder.trace == []
    await store.begin(store.catalogue)
    await store.sell("A", 8)

    assert not {"append journal-2.jsonl", "sync journal-2.jsonl"} & set(folder.trace)
    assert await on_disk(folder) == state(store.catalogue)


async def test_a_failure_reaches_every_caller_of_the_group() -> None:
    """No record of a failed group counts as durable."""
    store, folder = await started()
    folder.failures = {2: errno.ENOSPC}
    results = await asyncio.gather(
        *(store.record(f"k{number}") for number in range(3)), return_exceptions=True
    )

    assert [type(result) for result in results] == [OSError] * 3


async def test_a_change_numbered_twice_breaks_the_journal_instead_of_hiding_one() -> None:
    """The caller of the first one was cancelled before it applied it. A start would take the second
    one for the first. New files from memory heal that."""
    store, folder = await started()
    number = store.catalogue.sequence + 1
    await store.files.append(JournalRecord(change=Change("lost", number, rows={"A": row("A", 1)})))
    with pytest.raises(JournalBroken, match=f"change {number} is in it already"):
        await store.sell("A", 9)
    await store.begin(store.catalogue)
    await store.sell("A", 9)

    assert await on_disk(folder) == state(store.catalogue)


async def test_nothing_is_appended_before_begin_or_after_close() -> None:
    """Both errors name the reason."""
    store = SmallStore(FaultyDirectory())
    with pytest.raises(JournalBroken, match="come first"):
        await store.record("k1")
    await store.start()
    await store.files.close()
    with pytest.raises(JournalBroken, match="closed"):
        await store.record("k1")


async def test_close_writes_what_was_appended_before() -> None:
    """A clean stop loses no record that is on its way."""
    store, folder = await started()
    call = asyncio.create_task(store.record("k1"))
    await asyncio.sleep(0)
    await store.files.close()
    await call

    assert await keys_on_disk(folder) == ["k1"]


@in_virtual_time
async def test_a_compaction_and_an_installation_in_the_same_turn_both_end() -> None:
    """[D3] [F2] The compaction was meant for the catalogue before. It compacts the new one, so that
    the journal does not grow for ever."""
    store, folder = await started()
    installing = asyncio.create_task(store.install({"A": 1}, offset=90))
    compacting = asyncio.create_task(store.compact())
    await installing
    await store.sell("A", 0)
    async with asyncio.timeout(1.0):
        await compacting
    await store.compact()

    assert await on_disk(folder) == state(store.catalogue)


# -- snapshots -------------------------------------------------------------------------------


async def test_a_snapshot_that_takes_several_reads_is_loaded_whole() -> None:
    store, folder = await started({f"P-{n:05d}": n for n in range(2 * CHUNK_LINES + 5_000)})

    assert len(folder.contents()["snapshot-2.jsonl"]) > READ_BYTES
    assert state(store.catalogue) == await on_disk(folder)


@pytest.mark.parametrize("odd_id", ["A", "B"])
async def test_a_row_may_begin_with_another_field_than_its_id(odd_id: str) -> None:
    """The first row and others are told apart where ids are read quickly."""
    odd = b'{"name":"Cup","productId":"%b","available":1,"version":1}' % odd_id.encode()
    rows = {"A": row("A", 1), "B": row("B", 2)} | {odd_id: odd}
    catalogue = installed({})
    catalogue.fill(rows.items())
    store, folder = await started({})
    await store.begin(catalogue)
    loaded = (await load(folder.after_kill())).catalogue

    assert loaded is not None
    assert rows == dict(loaded.rows)


# -- a disk that hangs -----------------------------------------------------------------------


@in_virtual_time
async def test_an_append_to_a_disk_that_hangs_ends_in_time() -> None:
    """[D5] With an error, and later ones at once. When the disk works again, `begin` heals, and
    what the hanging call does then harms nothing."""
    store, folder = await started()
    loop = asyncio.get_running_loop()
    held = folder.hold()
    results = await asyncio.gather(
        *(store.record(f"k{number}") for number in range(3)), return_exceptions=True
    )

    assert [type(result) for result in results] == [DiskHangs] * 3
    assert loop.time() == pytest.approx(OPERATION_SECONDS, abs=0.01)
    with pytest.raises(JournalBroken, match="hangs"):
        await store.record("k3")
    assert loop.time() == pytest.approx(OPERATION_SECONDS, abs=0.01)
    held.release.set()
    await many_steps()
    await store.begin(store.catalogue)

    assert await keys_on_disk(folder) == ["k0", "k1", "k2", "k3"]


@in_virtual_time
async def test_a_large_sync_may_take_longer() -> None:
    """[D5] A slow disk is not a hanging one: a large snapshot takes it longer than a record."""
    rows = {f"P-{n:06d}": n for n in range(70_000)}  # 5 MB
    store, folder = await started()
    held = folder.hold("sync snapshot-3.jsonl.new")
    installing = asyncio.create_task(store.install(rows, offset=9))
    await held.reached.wait()
    await asyncio.sleep(OPERATION_SECONDS + 3.0)
    held.release.set()
    await installing


@in_virtual_time
async def test_a_file_that_cannot_be_read_in_time_is_not_damaged() -> None:
    """[D4] [D5] The load fails as a whole, and can be tried again."""
    _, folder = await started()
    left = folder.after_kill()
    store = SmallStore(left)
    for name in ("snapshot-2.jsonl", "journal-2.jsonl"):
        held = left.hold(f"read {name}")
        with pytest.raises(DiskHangs):
            await store.files.load()
        held.release.set()
    loaded = await store.start()

    assert loaded.findings == ()
    assert state(store.catalogue) == await on_disk(folder)


# -- a directory that is deleted -----------------------------------------------------------


@pytest.mark.parametrize("lost", ["journal-2.jsonl", "snapshot-2.jsonl"])
async def test_nothing_is_appended_to_deleted_files_once_that_was_noticed(lost: str) -> None:
    """[D5] The next `begin` opens the directory anew, and the new files hold everything."""
    store, folder = await started()
    await store.files.check()
    await folder.remove(lost)
    with pytest.raises(FileNotFoundError):
        await store.files.check()
    with pytest.raises(JournalBroken, match="missing"):
        await store.record("k1")
    await store.begin(store.catalogue)

    assert "reopen" in folder.trace
    assert await on_disk(folder) == state(store.catalogue)
    assert await keys_on_disk(folder) == ["k1"]


async def test_a_directory_that_is_deleted_while_the_disk_fails_is_opened_anew() -> None:
    """[D5] No file can be created in a deleted directory, however much room there is again."""
    store, folder = await started()
    folder.room = 0
    with pytest.raises(OSError, match="No space"):
        await store.record("k1")
    folder.room = None
    folder.delete()
    await store.files.probe()
    await store.begin(store.catalogue)

    assert await on_disk(folder) == state(store.catalogue)


@in_virtual_time
async def test_an_append_after_a_long_wait_checks_the_files_first() -> None:
    """[D5] A store that was held up may not have noticed that its directory was deleted."""
    store, folder = await started()
    await folder.remove("journal-2.jsonl")
    await store.record("k1")
    await asyncio.sleep(2 * CHECK_SECONDS + 0.1)
    with pytest.raises(FileNotFoundError):
        await store.record("k2")


async def test_files_that_a_compaction_replaces_are_not_missed() -> None:
    """[D5] They are removed while a check looks for them."""
    store, folder = await started()
    held = folder.hold("size snapshot-2.jsonl")
    checking = asyncio.create_task(store.files.check())
    await held.reached.wait()
    await store.compact()
    held.release.set()
    await checking
    await store.record("k1")


async def test_newer_files_at_the_path_are_replaced_by_what_memory_holds() -> None:
    """[D5] [D3] Somebody put an older copy there whose numbers are higher: numbers go on from
    those, so that the next start does not take the copy for the newest state."""
    store, folder = await started()
    for _ in range(5):
        await store.begin(store.catalogue)
    copy = folder.after_kill()
    again = SmallStore(left := FaultyDirectory())
    await again.start()
    await again.install({"A": 1}, offset=99)
    left.entries = copy.entries
    with pytest.raises(FileNotFoundError):
        await again.files.check()
    await again.begin(again.catalogue)

    assert await on_disk(left) == state(again.catalogue)
    assert ["journal-8.jsonl", "snapshot-8.jsonl"] == sorted(left.entries)


# -- beginning -----------------------------------------------------------------------------


async def test_every_start_appends_to_files_of_its_own() -> None:
    """[D3] Nothing is ever appended to a file of another process."""
    store, folder = await started()
    await store.record("k1")
    old = set(folder.entries)
    again, left = await restarted(folder)
    await again.record("k2")

    assert not old & set(left.entries)
    assert not [what for what in left.trace if what.startswith("append") and what.split()[1] in old]


async def test_appends_during_begin_go_to_the_new_journal() -> None:
    """They wait, in order, and none falls between the old files and the new."""
    store, folder = await started()
    appends = [
        store.files.append(JournalRecord(key_entry=b'{"key":"k%d"}' % number)) for number in (1, 2)
    ]
    await all_of(store.begin(store.catalogue), *appends)

    assert await keys_on_disk(folder) == ["k1", "k2"]


async def test_a_catalogue_that_changes_unseen_during_begin_is_an_error() -> None:
    """What is neither in the snapshot nor in the journal must not count as durable."""
    store, folder = await started()
    held = folder.hold("append snapshot-3.jsonl.new")
    begun = asyncio.create_task(store.files.begin(store.catalogue, []))
    await held.reached.wait()
    held.release.set()
    store.catalogue.apply(Change("unseen", store.catalogue.sequence + 1))
    with pytest.raises(JournalBroken, match="changed while it was written"):
        await begun
    with pytest.raises(JournalBroken):
        await store.record("k1")


async def test_begin_refuses_to_replace_what_was_never_read() -> None:
    """If the load failed, what is on disk may hold acknowledged data."""
    _, folder = await started()
    left = folder.after_kill()
    left.failures = {1: errno.EIO}
    second = SmallStore(left)
    with pytest.raises(OSError, match="Input/output error"):
        await second.start()
    with pytest.raises(JournalBroken, match="could not be read at the start"):
        await second.begin(None)

    assert left.contents() == folder.contents()


async def test_an_unfinished_snapshot_makes_room_before_new_files_are_written() -> None:
    """The disk is full of what a killed start has left: that is removed first."""
    store, folder = await started()
    left = folder.after_kill()
    left.entries["snapshot-9.jsonl.new"] = Inode([(b"x" * 9000, PageState.DURABLE)])
    left.room = 0
    await SmallStore(left).start()

    assert sorted(left.entries) == ["journal-10.jsonl", "snapshot-10.jsonl"]
    assert await on_disk(left) == state(store.catalogue)


async def test_old_files_that_cannot_be_removed_are_reported_and_swept_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They do no harm: the new files count. One of them keeps no other from being removed, or the
    disk would fill up in time."""
    store, folder = await started()
    remove = folder.remove

    async def remove_others(name: str) -> None:
        if name == "journal-2.jsonl":
            raise OSError(errno.EPERM, "Operation not permitted", name)
        await remove(name)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "remove", remove_others)
        await store.begin(store.catalogue)
        await store.begin(store.catalogue)

    assert "Operation not permitted" in store.files.sweep_problem
    assert sorted(folder.entries) == ["journal-2.jsonl", "journal-4.jsonl", "snapshot-4.jsonl"]
    await store.record("k1")
    await store.begin(store.catalogue)
    assert store.files.sweep_problem == ""
    assert sorted(folder.entries) == ["journal-5.jsonl", "snapshot-5.jsonl"]


async def test_a_begin_that_is_stopped_before_its_rename_leaves_nothing_unfinished() -> None:
    """The store stops while it installs the catalogue of a full sync."""
    store, folder = await started()
    held = folder.hold("sync folder")
    beginning = asyncio.create_task(store.begin(installed({"A": 1}, sequence=2)))
    await held.reached.wait()
    beginning.cancel()
    await asyncio.gather(beginning, return_exceptions=True)

    assert "snapshot-3.jsonl.new" not in folder.entries
    assert await on_disk(folder) == state(store.catalogue)


# -- compaction ----------------------------------------------------------------------------


async def test_a_compaction_writes_exactly_the_view_while_changes_go_on() -> None:
    """The snapshot is the catalogue of one moment; what came after is in the new journal."""
    rows = {f"P-{n:05d}": n for n in range(3 * CHUNK_LINES)}
    store, folder = await started(rows)
    held = folder.hold("append snapshot-3.jsonl.new")
    compaction = asyncio.create_task(store.compact())
    await held.reached.wait()
    view = state(store.catalogue)
    await store.sell("P-00000", 99)
    await store.sell("P-05999", None)
    await store.sell("P-05998x", 7)
    held.release.set()
    await compaction
    whole = await on_disk(folder)
    folder.entries["journal-3.jsonl"].pieces = folder.entries["journal-3.jsonl"].pieces[:1]

    assert await on_disk(folder) == view
    assert whole == state(store.catalogue)
    assert sorted(folder.entries) == ["journal-3.jsonl", "snapshot-3.jsonl"]


async def test_a_compaction_waits_for_a_change_that_is_durable_but_not_applied_yet() -> None:
    """Its record is in the old journal: a view without it would lose it."""
    store, folder = await started()
    change = Change("slow", store.catalogue.sequence + 1, rows={"A": row("A", 1)})
    await store.files.append(JournalRecord(change=change))
    compaction = asyncio.create_task(store.compact())
    await many_steps()
    assert not compaction.done()
    store.catalogue.apply(change)
    await store.record("k1")
    await compaction

    assert await on_disk(folder) == state(store.catalogue)


async def test_changes_that_the_view_holds_already_are_not_applied_again() -> None:
    """The new journal begins before the view is taken. If it is damaged later, its first records
    must not be applied to a snapshot that is ahead of them."""
    store, folder = await started()
    base = store.catalogue.sequence
    steps = [Change("step", base + n, rows={"A": row("A", n)}) for n in (1, 2, 3)]
    await store.files.append(JournalRecord(change=steps[0]))
    compaction = asyncio.create_task(store.compact())
    while "append journal-3.jsonl" not in folder.trace[:-3]:
        await store.files.append(JournalRecord(key_entry=b'{"key":"k"}'))
    await store.files.append(JournalRecord(change=steps[1]))
    await store.files.append(JournalRecord(change=steps[2]))
    for step in steps:
        store.catalogue.apply(step)
    await store.files.append(JournalRecord(key_entry=b'{"key":"k"}'))
    await compaction
    left = folder.after_kill()
    whole = left.contents()["journal-3.jsonl"]
    left.entries["journal-3.jsonl"].pieces = [
        (whole[: whole.index(b'"sequence":%d' % (base + 3))], PageState.DURABLE)
    ]
    loaded = await load(left)

    assert b'"sequence":%d' % (base + 2) in whole
    assert loaded.catalogue is not None
    assert loaded.catalogue.get("A") == row("A", 3)


async def test_a_compaction_that_is_stopped_before_its_rename_leaves_nothing_unfinished() -> None:
    """The store stops just then: what it holds is in the journals."""
    store, folder = await started()
    held = folder.hold("rename snapshot-3.jsonl.new snapshot-3.jsonl")
    compaction = asyncio.create_task(store.compact())
    await held.reached.wait()
    compaction.cancel()
    await asyncio.gather(compaction, return_exceptions=True)

    assert sorted(folder.entries) == ["journal-2.jsonl", "journal-3.jsonl", "snapshot-2.jsonl"]
    assert await on_disk(folder) == state(store.catalogue)


async def test_begin_ends_a_compaction_that_waits() -> None:
    """A change that is durable and never applied would block the compaction, and that `begin`."""
    store, folder = await started()
    await store.files.append(
        JournalRecord(change=Change("never applied", store.catalogue.sequence + 1))
    )
    compaction = asyncio.create_task(store.compact())
    await many_steps()
    await asyncio.wait_for(store.begin(store.catalogue), 5)
    await compaction

    assert await on_disk(folder) == state(store.catalogue)


async def test_begin_supersedes_a_compaction() -> None:
    """A full sync that is installed ends the compaction of the catalogue that it replaces."""
    store, folder = await started()
    held = folder.hold("append snapshot-3.jsonl.new")
    compaction = asyncio.create_task(store.compact())
    await held.reached.wait()
    installing = asyncio.create_task(store.install({"N": 1}, offset=90))
    await asyncio.sleep(0)
    held.release.set()
    await asyncio.wait_for(asyncio.gather(compaction, installing), 5)

    assert sorted(folder.entries) == ["journal-4.jsonl", "snapshot-4.jsonl"]
    assert await on_disk(folder) == state(store.catalogue)


async def test_a_compaction_that_fails_leaves_the_journal_in_use() -> None:
    """A full disk while the snapshot is written: appends go on, the next load reads the journals
    in a row, and a later compaction succeeds."""
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


async def test_a_compaction_is_due_when_the_journal_has_outgrown_the_snapshot() -> None:
    """Not below 4 MiB; after a failure not before the journal has grown as much again."""
    store, folder = await started()
    big = b'{"key":"k","text":"' + b"x" * (COMPACTION_BYTES // 4) + b'"}'
    for _ in range(3):
        await store.files.append(JournalRecord(key_entry=big))
    due = [store.files.compaction_due]
    await store.files.append(JournalRecord(key_entry=big))
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
    """It is iterated over in parts; an entry that comes meanwhile is in the new journal."""
    store, folder = await started()
    store.keys = {f"k{n}": orjson.dumps({"key": f"k{n}"}) for n in range(2 * CHUNK_LINES)}

    def encoded() -> Iterator[bytes]:
        for key in list(store.keys):
            yield store.keys[key]

    await all_of(store.files.compact(encoded), store.record("late"))

    assert set(await keys_on_disk(folder)) == set(store.keys)


# -- formats -------------------------------------------------------------------------------


async def test_the_files_of_another_store_are_refused() -> None:
    """[D6] Its keys are not this store's, and nothing is touched."""
    _, folder = await started()
    left = folder.after_kill()
    with pytest.raises(OtherStore, match="set STORE_ID=s1 again"):
        await CacheFiles(left, store_id="s2", now=lambda: NOW).load()

    assert left.contents() == folder.contents()


@pytest.mark.parametrize(("wrote", "reads"), [("acme", "globex"), ("acme", ""), ("", "acme")])
async def test_the_files_of_another_tenant_are_refused(wrote: str, reads: str) -> None:
    """[D6] Another chain's products must not be served, nor its answers given."""
    folder = FaultyDirectory()

    def files_of(tenant_id: str) -> CacheFiles:
        return CacheFiles(folder, store_id="s1", tenant_id=tenant_id, now=lambda: NOW)

    await Journal.create(folder, 1, about=Owner("s1", wrote).header())
    left = folder.contents()

    with pytest.raises(OtherStore, match=f"set TENANT_ID={wrote} again"):
        await files_of(reads).load()
    await files_of(wrote).load()
    assert left == folder.contents()


async def test_files_that_name_no_store_are_taken_over() -> None:
    """[D6] Older versions did not write the name. The new files have it."""
    folder = FaultyDirectory()
    await (await Journal.create(folder, 1, about={})).write([b'"write":{"key":"k1"}'])
    await SmallStore(folder).start()
    with pytest.raises(OtherStore):
        await CacheFiles(folder, store_id="s2", now=lambda: NOW).load()

    assert await keys_on_disk(folder) == ["k1"]


@pytest.mark.parametrize("name", ["snapshot-2.jsonl", "journal-2.jsonl"])
async def test_a_newer_format_is_refused_and_nothing_is_touched(name: str) -> None:
    """[D6] An older version that is started after an upgrade must not destroy what it cannot
    read."""
    _, folder = await started()
    kind = name.partition("-")[0]
    header = frame("header", orjson.dumps({"file": kind, "format": 2, "number": 2}))
    files = folder.contents() | {name: header + b"\x00 something new"}
    files["snapshot-9.jsonl.new"] = b"leftover"
    left = FaultyDirectory(files)
    store = SmallStore(left)
    with pytest.raises(NewerFormat, match=f"{name} has format 2"):
        await store.start()
    with pytest.raises(JournalBroken):
        await store.begin(None)

    assert left.contents() == files


async def test_pages_that_an_earlier_version_installed_alone_are_read_anew() -> None:
    """[D6] [F2] Its snapshots say up to which event the feed was not followed."""
    _, folder = await started()
    files = folder.contents()
    header, rest = files["snapshot-2.jsonl"].split(b"\n", 1)
    framed = unframe(header)
    assert framed is not None
    value = framed[1] | {"catalogue": framed[1]["catalogue"] | {"unfollowedUntil": 9}}
    files["snapshot-2.jsonl"] = frame("header", orjson.dumps(value)) + rest

    loaded = await load(FaultyDirectory(files))

    assert loaded.catalogue is not None
    assert loaded.catalogue.is_unfollowed


async def test_the_files_are_json_that_a_person_can_read() -> None:
    """[D1] Every line is JSON and says what it is."""
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


# -- quarantine ----------------------------------------------------------------------------


async def damaged_start(folder: FaultyDirectory) -> FaultyDirectory:
    """Garble the snapshot, start, and install a new catalogue."""
    files = folder.contents()
    name = next(name for name in files if name.startswith("snapshot") and name.endswith(".jsonl"))
    files[name] = b"garbage" + files[name]
    left = FaultyDirectory(files)
    store = SmallStore(left)
    assert (await store.start()).damaged
    await store.install(ROWS, offset=7)
    return left


async def test_the_oldest_quarantined_files_are_removed() -> None:
    """At most five stay, so that a disk that damages files again and again does not fill up."""
    _, folder = await started()
    for _ in range(7):
        folder = await damaged_start(folder)
    names = [name for name in folder.entries if ".damaged-" in name]

    assert sorted(int(name.rpartition("-")[2]) for name in names) == [3, 4, 5, 6, 7]


async def test_quarantined_files_take_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single file that is larger than the room for all of them is removed."""
    monkeypatch.setattr(retention, "QUARANTINED_BYTES", 100)
    _, folder = await started()
    folder = await damaged_start(folder)

    assert not [name for name in folder.entries if ".damaged-" in name]
