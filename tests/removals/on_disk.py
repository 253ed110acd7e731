"""Safeguards of the disk, taken out one at a time (rules D)."""

from __future__ import annotations

import fcntl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from store_cache.catalogue.catalogue import Catalogue
from store_cache.storage import deadlines, directory, files, framing, recovery
from store_cache.storage.directory import Directory, File
from store_cache.storage.files import CacheFiles
from store_cache.storage.framing import OtherStore, Owner
from store_cache.storage.journal import Journal, JournalReader, JournalRecord
from store_cache.storage.names import journal_name, snapshot_name, unfinished_name
from store_cache.storage.recovery import Loaded
from store_cache.writer import CacheWriter, Disk, PlannedChange
from tests.harness.faulty_directory import FaultyFile
from tests.removals.removal import Patch, Removals

on_disk = Removals()


class Unsynced(File):
    """A file whose bytes stay where a power cut takes them."""

    def __init__(self, file: File, patch: Patch) -> None:
        self._file = file
        self._patch = patch

    async def append(self, data: bytes) -> None:
        await self._file.append(data)

    async def sync(self) -> None:
        self._patch.act()

    async def write_durably(self, data: bytes) -> None:
        await self.append(data)
        await self.sync()

    async def close(self) -> None:
        await self._file.close()


# -- syncs -------------------------------------------------------------------------------------


@on_disk("D2", "what is acknowledged has been synced")
def sync_of_the_journal(patch: Patch) -> None:
    """A record is acknowledged once it is written; nothing syncs the journal."""
    write = Journal.write

    async def unsynced(self: Journal, payloads: Sequence[bytes]) -> None:
        file = self._file
        self._file = Unsynced(file, patch)
        try:
            await write(self, payloads)
        finally:
            self._file = file

    patch.replace(Journal, "write", unsynced)


@on_disk("D3", "a snapshot is synced before its rename")
def sync_of_a_snapshot(patch: Patch) -> None:
    """A snapshot gets its name while its bytes may be only in memory."""
    write = files._write_file

    async def unsynced(file: File, chunks: Iterable[bytes], check: Callable[[], None]) -> int:
        return await write(Unsynced(file, patch), chunks, check)

    patch.replace(files, "_write_file", unsynced)


@on_disk("D3", "the directory is synced after a snapshot's rename")
def sync_after_a_rename(patch: Patch) -> None:
    """Older files are removed while the name of the new one may be only in memory."""

    async def publish(self: CacheFiles, number: int) -> None:
        patch.act()
        await self._directory.rename(unfinished_name(number), snapshot_name(number))

    patch.replace(CacheFiles, "_publish", publish)


@on_disk(
    "D3",
    "the directory is synced before anything relies on a new journal",
    needs="disk_slow fold power",
    test=(
        "tests/unit/storage/test_crashes.py::"
        "test_nothing_acknowledged_is_lost_by_a_crash_before_any_operation"
    ),
)
def sync_after_a_creation(patch: Patch) -> None:
    """Records are acknowledged in a journal whose name may be only in memory."""

    async def create(self: CacheFiles, number: int) -> Journal:
        patch.act()
        return await Journal.create(self._directory, number, about=self._about())

    patch.replace(CacheFiles, "_create_journal", create)


# -- durable before visible --------------------------------------------------------------------


def _show_first(patch: Patch, cause: str) -> None:
    commit = CacheWriter._commit

    async def show_first(self: CacheWriter, *planned: PlannedChange) -> None:
        catalogue = self.catalogue
        if catalogue is None or not any(each.change.cause == cause for each in planned):
            await commit(self, *planned)
            return
        records: list[JournalRecord] = []
        for each in planned:
            if each.change.is_empty:
                records.append(JournalRecord(key_entry=each.key_entry))
                continue
            patch.act()
            change = each.change.numbered(catalogue.sequence + 1)
            each.shown()
            self.announcer.apply(catalogue, change, each.origin)
            records.append(JournalRecord(change, each.key_entry))
        await self._append(records)
        self.refetches_changed.set()

    patch.replace(CacheWriter, "_commit", show_first)


@on_disk(
    "D2",
    "a batch of the feed is on disk before it is visible",
    needs="disk_slow power",
    test=("tests/unit/test_writer.py::test_nothing_is_visible_before_it_is_on_disk"),
)
def events_shown_first(patch: Patch) -> None:
    """A reader sees events while their record is on its way to the disk."""
    _show_first(patch, "events")


@on_disk(
    "D2 W6",
    "a write's answer is on disk before it is visible",
    needs="disk_slow power",
    test="tests/unit/test_writer.py::test_nothing_is_visible_before_it_is_on_disk",
)
def answers_shown_first(patch: Patch) -> None:
    """A reader sees a write's effect while its record is on its way to the disk."""
    _show_first(patch, "answer")


@on_disk(
    "D2 V2",
    "a refetched product is on disk before it is visible",
    needs="disk_slow power",
    test="tests/unit/test_writer.py::test_nothing_is_visible_before_it_is_on_disk",
)
def refetches_shown_first(patch: Patch) -> None:
    """A reader sees a refetched product while its record is on its way to the disk."""
    _show_first(patch, "reading")


@on_disk(
    "D2 F2",
    "a full sync is on disk before it is visible",
    needs="disk_slow power",
    test="tests/unit/test_writer.py::test_a_replica_is_on_disk_before_it_is_seen",
)
def replicas_shown_first(patch: Patch) -> None:
    """A reader sees the new catalogue while its snapshot is being written."""
    begin_files = CacheWriter._begin_files

    async def shown_first(self: CacheWriter, catalogue: Catalogue | None) -> None:
        if catalogue is not None and catalogue is not self.catalogue:
            patch.act()
            self.catalogue = catalogue
        await begin_files(self, catalogue)

    patch.replace(CacheWriter, "_begin_files", shown_first)


# -- files -------------------------------------------------------------------------------------


@on_disk(
    "D3",
    "every start begins new files",
    needs="sync_fails kill power",
    test="tests/unit/storage/test_crashes.py::test_what_a_start_has_shown_survives_the_next_power_cut",
)
def new_files_at_each_start(patch: Patch) -> None:
    """A start that finds its files intact continues the journal of the process before."""
    load, begin = CacheFiles.load, CacheFiles.begin

    async def loaded(self: CacheFiles) -> Loaded:
        found = await load(self)
        self._is_whole = not found.findings and found.catalogue is not None  # type: ignore[attr-defined]
        return found

    async def begun(self: CacheFiles, catalogue: Catalogue | None, writes: Iterable[bytes]) -> None:
        journal = await _inherited(self) if getattr(self, "_is_whole", False) else None
        if journal is None or catalogue is None:
            await begin(self, catalogue, writes)
            return
        patch.act()
        self._is_whole = False  # type: ignore[attr-defined]
        self._journal, self._catalogue = journal, catalogue
        self._sequence = catalogue.sequence

    patch.replace(CacheFiles, "load", loaded)
    patch.replace(CacheFiles, "begin", begun)


async def _inherited(self: CacheFiles) -> Journal | None:
    """The journal that the process before wrote to, if it has the highest number in use."""
    disk: Any = self._directory._directory
    number = self._number or 0
    if (inode := disk.entries.get(journal_name(number))) is None:
        return None
    reader = JournalReader(disk, number)
    async for _ in reader.batches():
        pass
    journal = Journal(FaultyFile(disk, reader.name, inode), number, len(inode.cached))
    journal.records = reader.records
    return journal


@on_disk("D3", "older files are removed only when the new ones are durable")
def older_files_kept(patch: Patch) -> None:
    """Older files are removed before the new ones are there."""
    write_pair = CacheFiles._write_pair

    async def sweep_and_write(
        self: CacheFiles, number: int, catalogue: Catalogue | None, writes: Iterable[bytes]
    ) -> tuple[Journal, int]:
        patch.act()
        await self._retention.sweep(number)
        return await write_pair(self, number, catalogue, writes)

    patch.replace(CacheFiles, "_write_pair", sweep_and_write)


@on_disk(
    "D3",
    "a compaction waits until the callers of confirmed appends have applied their changes",
    test="tests/unit/storage/test_crashes.py::test_a_confirmed_caller_that_has_not_resumed_is_waited_for",
    why="the two would have to meet within one step of the loop",
)
def views_wait(patch: Patch) -> None:
    """The view is taken at once, also between a confirmation and the change in memory."""

    async def at_once(_: CacheFiles, condition: Callable[[], bool]) -> None:
        if not condition():
            patch.act()

    patch.replace(CacheFiles, "_wait_until", at_once)


@on_disk("D5", "a disk failure is shown, and new files are tried")
def disk_trouble_told(patch: Patch) -> None:
    """A failing disk is not shown: the store goes on as if all were on disk."""

    def degrade(self: CacheWriter, _: OSError) -> None:
        patch.act()
        self.disk = Disk()

    patch.replace(CacheWriter, "_degrade", degrade)


@on_disk(
    "D5",
    "a stop counts what is not on disk",
    test=("tests/unit/app/test_serve.py::test_a_stop_while_the_disk_fails_says_what_is_lost"),
    why="the simulation reads no exit status and no log",
)
def losses_counted(patch: Patch) -> None:
    """A change that could not be appended is not counted."""
    append = CacheWriter._append

    async def uncounted(self: CacheWriter, records: Sequence[JournalRecord]) -> None:
        await append(self, records)
        if self.unsaved_changes or self.unsaved_writes:
            patch.act()
            self.unsaved_changes = self.unsaved_writes = 0

    patch.replace(CacheWriter, "_append", uncounted)


@on_disk(
    "D5",
    "a directory that is deleted under the store is noticed",
    needs="disk_gone",
    test=(
        "tests/unit/storage/test_files.py::"
        "test_nothing_is_appended_to_deleted_files_once_that_was_noticed"
    ),
)
def directory_checked(patch: Patch) -> None:
    """Nobody looks whether the files are still in the directory."""

    async def unchecked(_: CacheFiles) -> None:
        patch.act()

    patch.replace(CacheFiles, "_check_files", unchecked)


@on_disk(
    "D5",
    "file operations have a deadline",
    needs="disk_hangs",
    test=("tests/unit/storage/test_files.py::test_an_append_to_a_disk_that_hangs_ends_in_time"),
)
def deadlines_of_files(patch: Patch) -> None:
    """An operation on a disk that hangs is waited for."""

    async def in_time(operation: Awaitable[Any], *_: float) -> Any:
        patch.act()
        return await operation

    patch.replace(deadlines, "_in_time", in_time)


@on_disk("D4", "a torn end is cut off at the last good record", needs="power")
def torn_ends_cut(patch: Patch) -> None:
    """A record with a wrong checksum ends the start."""

    def add_problem(self: JournalReader, problem: str) -> None:
        patch.act()
        raise ValueError(f"{self.name}: {problem}")

    patch.replace(JournalReader, "_add_problem", add_problem)


@on_disk(
    "D4",
    "a journal is applied only if the one before it is complete",
    test=(
        "tests/unit/storage/test_damage.py::"
        "test_a_journal_of_another_catalogue_is_not_applied_to_an_older_snapshot"
    ),
    why="a sync that fails ends the journal, so none continues a torn one",
)
def chain_of_journals(patch: Patch) -> None:
    """Journals are applied in order, whatever is missing between them."""
    start = recovery._Recovery._start_journal

    def start_any(self: recovery._Recovery, number: int, first: dict[str, Any]) -> bool:
        if not start(self, number, first):
            patch.act()
        return True

    patch.replace(recovery._Recovery, "_start_journal", start_any)


@on_disk(
    "D4",
    "each line carries a checksum",
    test="tests/unit/storage/test_damage.py::test_any_byte_with_a_flipped_bit_is_noticed",
    why="a power cut tears lines, which are no JSON then; no disk of the simulation flips bits",
)
def checksums(patch: Patch) -> None:
    """A line is used if it is JSON."""

    def any_sum(*_: object) -> int:
        patch.act()
        return 0

    patch.replace(framing, "crc32", any_sum)


@on_disk(
    "D6",
    "one process has the directory",
    test="tests/unit/storage/test_directory.py::test_a_second_directory_object_is_refused_until_the_first_is_closed",
    why="the simulation runs one process at a time on a disk in memory",
)
def lock_of_the_folder(patch: Patch) -> None:
    """Any number of processes open the directory."""

    class Lockless:
        def __getattr__(self, name: str) -> Any:
            return getattr(fcntl, name)

        def flock(self, *_: object) -> None:
            patch.act()

    patch.replace(directory, "fcntl", Lockless())


@on_disk(
    "D6",
    "a newer format is refused, not destroyed",
    test="tests/unit/storage/test_files.py::test_a_newer_format_is_refused_and_nothing_is_touched",
    why="the simulation has one version of the program",
)
def newer_formats_refused(patch: Patch) -> None:
    """Files of a newer version are treated as damaged."""

    async def check(*_: object, **__: object) -> None:
        patch.act()

    patch.replace(recovery, "check_header", check)


@on_disk(
    "D6",
    "the files of another store are refused",
    test="tests/unit/storage/test_files.py::test_the_files_of_another_store_are_refused",
    why="the simulation never changes STORE_ID",
)
def other_stores_refused(patch: Patch) -> None:
    """Files of a store with another STORE_ID are read as this store's own."""
    check_header = framing.check_header

    async def check(directory: Directory, name: str, owner: Owner) -> None:
        try:
            await check_header(directory, name, owner)
        except OtherStore:
            patch.act()

    patch.replace(recovery, "check_header", check)


@on_disk(
    "D1, T21",
    "a folder that everybody may write to is closed or refused",
    test="tests/unit/storage/test_directory.py"
    "::test_a_directory_that_stays_open_to_everybody_is_refused",
    why="the simulated disk has no modes",
)
def folders_of_everybody(patch: Patch) -> None:
    """The store takes any folder."""

    def keep_others_out(_path: Path, _directory: int) -> None:
        patch.act()

    patch.replace(directory, "_keep_others_out", keep_others_out)


@on_disk(
    "P3",
    "two changes never have the same number",
    test=(
        "tests/unit/storage/test_files.py::"
        "test_a_change_numbered_twice_breaks_the_journal_instead_of_hiding_one"
    ),
    why="nothing in the program cancels a change on its way to the disk",
)
def numbers_used_once(patch: Patch) -> None:
    """A change with the number of an earlier one is written all the same."""

    def repeated(*_: object) -> None:
        patch.act()

    patch.replace(CacheFiles, "_repeated", repeated)
