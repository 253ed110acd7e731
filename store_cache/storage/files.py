"""The store's files as one unit: what it confirms is durable, all else is an error (D1-D5).

`snapshot-n` and `journal-n` belong together: the journal holds what followed the snapshot. A number
is used once. New files are begun at every start, for every catalogue that a full sync installs, and
when a disk works again after a failure. A journal that grew large is compacted in the background:
a new snapshot replaces it. Older files are removed only when the new ones are durable.

Nothing more is written to a file after one of its writes or syncs failed: its pages may be missing
on the disk although reads from memory still show them.

JournalBroken(OSError)    nothing can be appended until `begin` succeeds
NewerFormat, OtherStore   see `framing`
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from time import perf_counter
from typing import Any

from store_cache.catalogue.catalogue import Catalogue
from store_cache.storage.deadlines import TimedDirectory
from store_cache.storage.directory import Directory, DiskHangs, File
from store_cache.storage.framing import NewerFormat, Owner
from store_cache.storage.journal import Journal, JournalRecord, encode_payload
from store_cache.storage.names import journal_name, snapshot_name, unfinished_name
from store_cache.storage.recovery import Loaded, highest_number, list_files, recover
from store_cache.storage.retention import Retention
from store_cache.storage.snapshot import encode_snapshot

__all__ = ["CacheFiles", "JournalBroken", "Loaded", "NewerFormat"]

CHECK_SECONDS = 5.0
"""How often `check` is to be called. An append is acknowledged only if the last check is not much
older, so that a directory which was deleted is noticed also by a store that was held up."""

COMPACTION_BYTES = 4 * 1024 * 1024
"""A smaller journal is not compacted, however small the snapshot is."""


class JournalBroken(OSError):
    """The journal cannot be written to until `begin` succeeds."""


@dataclass(eq=False, slots=True)
class _PendingAppend:
    """Records that wait for their write. `sequences`: of their changes."""

    payloads: list[bytes]
    sequences: list[int]
    durable: asyncio.Future[None]


class _Superseded(Exception):
    """`begin` or `close` ended a compaction."""


class CacheFiles:
    """Snapshot and journal in one directory. Call `load` first, then `begin`, then the others.

    Await `append` directly, and apply the changes when it returns, before any other await. A
    compaction takes its view of the catalogue only when all callers of `append` have done so.

    `snapshot_bytes`: length of the current snapshot. `keys_since`: when the key table in the files
    began, in unix seconds; None if files of an earlier version do not say. `compactions` counts
    those that ended since the start. `on_sync` is called with how many seconds it took to write a
    group of records and sync it.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        store_id: str,
        now: Callable[[], float],
        tenant_id: str = "",
    ) -> None:
        """`now` returns unix seconds, for the times that the files show to people."""
        self.snapshot_bytes = 0
        self.compactions = 0
        self.on_sync: Callable[[float], None] = _ignore
        self.keys_since: float | None = None
        self._directory = TimedDirectory(directory)
        self._owner = Owner(store_id, tenant_id)
        self._now = now
        self._retention = Retention(self._directory)
        self._number: int | None = None  # the highest in use; None before `load`
        self._journal: Journal | None = None
        self._snapshot_number = 0  # of the snapshot that the journal follows
        self._checked_at = 0.0  # when `check` last succeeded, loop time
        self._is_misplaced = False  # `check` failed, and `begin` has to open the directory anew
        self._no_journal_because = "load() and begin() come first"
        self._catalogue: Catalogue | None = None  # whose changes are in the journal
        self._sequence = 0  # of the last change in the journal
        self._pending: list[_PendingAppend] = []
        self._resuming: set[_PendingAppend] = set()  # durable, but the caller does not run yet
        self._progress = asyncio.Event()  # of what `_wait_until` waits for
        self._flusher: asyncio.Task[None] | None = None
        self._journal_lock = asyncio.Lock()  # while the journal is written to or replaced
        self._snapshot_lock = asyncio.Lock()  # while a snapshot is written
        self._epoch = 0  # changes when a compaction that began before is superseded
        self._older_bytes = 0  # of journals since the snapshot, without the current one
        self._retry_bytes = 0  # `journal_bytes` when a compaction failed

    @property
    def journal_bytes(self) -> int:
        """Length of all journals since the snapshot."""
        return self._older_bytes + (0 if self._journal is None else self._journal.size)

    @property
    def compaction_due(self) -> bool:
        """Whether the journal outgrew the snapshot; after a failure, whether it did so again."""
        if self._journal is None or self._snapshot_lock.locked():
            return False
        return self.journal_bytes - self._retry_bytes > max(COMPACTION_BYTES, self.snapshot_bytes)

    @property
    def sweep_problem(self) -> str:
        """Why old files could not be removed, which only costs space; empty if they were."""
        return self._retention.problem

    async def load(self) -> Loaded:
        """Read what is on disk, without changing it. Damage is in the result, no error.

        Raises NewerFormat, OtherStore, and OSError if the directory cannot be listed.
        """
        loaded = await recover(self._directory, self._owner)
        self._number = loaded.highest
        self.keys_since = self._now() if loaded.is_new else loaded.keys_since
        self._retention.quarantine = dict(loaded.quarantine)
        return loaded

    # -- appending (D2) --------------------------------------------------------------------

    async def append(self, *records: JournalRecord) -> None:
        """Append records to the journal; they are durable when this returns.

        Records that come while a write is under way share the next write and sync, in the order of
        the calls. While `begin` runs they wait for its journal. Records whose caller is cancelled
        are written all the same. Each change is numbered higher than the one before.

        Raises OSError; after that, JournalBroken until `begin` succeeds.
        """
        pending = _PendingAppend(
            [*map(encode_payload, records)],
            [record.change.sequence for record in records if record.change is not None],
            asyncio.get_running_loop().create_future(),
        )
        self._pending.append(pending)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="journal")
        try:
            await pending.durable
        finally:
            self._resuming.discard(pending)
            self._progress.set()

    async def _flush(self) -> None:
        """Write groups of pending records until there is none, and wake their callers."""
        try:
            while self._pending:
                async with self._journal_lock:
                    group, self._pending = self._pending, []
                    problem: BaseException | None = None
                    try:
                        await self._write(group)
                    except BaseException as caught:  # noqa: BLE001 - raised below
                        problem = caught
                    for pending in group:
                        if pending.durable.done():  # cancelled
                            continue
                        if problem is None:
                            self._resuming.add(pending)
                            pending.durable.set_result(None)
                        else:
                            pending.durable.set_exception(problem)
                    if problem is not None and not isinstance(problem, OSError):
                        raise problem
        finally:
            self._flusher = None

    async def _write(self, group: list[_PendingAppend]) -> None:
        if self._journal is not None and (repeated := self._repeated(group)) is not None:
            await self._end_journal(f"change {repeated} is in it already, and was never applied")
        if self._journal is None:
            raise self._broken()
        try:
            began_at = perf_counter()
            await self._journal.write([*chain.from_iterable(each.payloads for each in group)])
            self.on_sync(perf_counter() - began_at)
            if asyncio.get_running_loop().time() - self._checked_at > 2 * CHECK_SECONDS:
                await self._check_files()
        except BaseException as problem:
            await self._end_journal(_describe(problem))
            raise

    def _repeated(self, group: list[_PendingAppend]) -> int | None:
        """Return the number of a change that is in the journal already.

        The caller of the first one was cancelled before it applied it. A start would take the
        second one for the first and skip it.
        """
        for sequence in chain.from_iterable(pending.sequences for pending in group):
            if sequence <= self._sequence:
                return sequence
            self._sequence = sequence
        return None

    async def _end_journal(self, reason: str) -> None:
        """Write no more to the journal."""
        self._no_journal_because = reason
        self._older_bytes = self.journal_bytes
        journal, self._journal, self._catalogue = self._journal, None, None
        if journal is not None:
            with suppress(OSError):  # nothing that was acknowledged depends on it
                await journal.close()

    def _broken(self) -> JournalBroken:
        reason = self._no_journal_because
        message = f"the journal cannot be written to ({reason}) until a new one has begun"
        return JournalBroken(errno.EIO, message)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._progress.clear()
            await self._progress.wait()

    # -- a directory that is deleted under the store (D5) ----------------------------------

    async def check(self) -> None:
        """Raise OSError if the files are not in the directory any more, or it is another one.

        What is written to a deleted file is lost when the process ends, without any error. So
        nothing is appended after a failed check until `begin` succeeds, which opens the directory
        anew.
        """
        journal = self._journal
        try:
            await self._check_files()
        except OSError as problem:
            async with self._journal_lock:
                if self._journal is not journal:
                    return  # it was replaced or has failed meanwhile
                await self._end_journal(_describe(problem))
            raise

    async def _check_files(self) -> None:
        journal, number = self._journal, self._snapshot_number
        if journal is None:
            return
        try:
            await self._directory.check()
            await self._directory.size(snapshot_name(number))
            await self._directory.size(journal_name(journal.number))
        except OSError as problem:
            if (journal, number) == (self._journal, self._snapshot_number):
                self._is_misplaced = not isinstance(problem, DiskHangs)
                raise  # otherwise they were replaced meanwhile, and the old ones removed
        else:
            self._checked_at = asyncio.get_running_loop().time()

    async def probe(self) -> None:
        """Raise OSError if the disk does not work. Unlike `begin`, this keeps nobody waiting."""
        if self._number is not None and not self._is_misplaced:
            await self._notice_another_directory()
        if self._number is None or self._is_misplaced:
            await self._directory.names()
            return
        name = unfinished_name(self._next_number())
        file = await self._directory.create(name)
        try:
            await file.write_durably(b"\n")
        finally:
            await file.close()
        await self._directory.remove(name)

    async def _notice_another_directory(self) -> None:
        """Note that the directory was deleted or replaced while nothing was appended to it."""
        try:
            await self._directory.check()
        except DiskHangs:
            raise
        except OSError:
            self._is_misplaced = True

    async def _open_anew(self) -> None:
        """Use what is at the path now. Memory holds a newer state than any files found there.

        Raises DirectoryRefused if another process, another store or a newer version has it.
        """
        await self._directory.reopen()
        found = highest_number(await list_files(self._directory, self._owner))
        self._number = max(self._number or 0, found)
        self._is_misplaced = False

    # -- beginning new files (D3) ----------------------------------------------------------

    async def begin(self, catalogue: Catalogue | None, writes: Iterable[bytes]) -> None:
        """Write a snapshot, and begin an empty journal after it; older files are removed.

        For a start, an installed catalogue and a disk that works again. All is durable on return. A
        compaction that is under way ends without effect. Appends wait, and their records go to the
        new journal. It is an error if `catalogue` changes meanwhile in any other way.

        `writes` are the key table's entries, each one JSON object on one line. They are iterated
        over in parts while the loop runs: pass a generator that may run while the table changes. It
        must yield all that callers of `append` have entered by the time it is first asked.

        Raises OSError, and DirectoryRefused if the directory was replaced by one that this store
        must not use; after that, nothing can be appended until `begin` succeeds.
        """
        self._supersede_compaction()
        async with self._snapshot_lock, self._journal_lock:
            if self._is_misplaced:
                await self._open_anew()
            number = self._next_number()
            await self._end_journal("a new one is being begun")
            resuming = set(self._resuming)
            await self._wait_until(lambda: not resuming & self._resuming)
            try:
                journal, size = await self._write_pair(number, catalogue, writes)
            except BaseException as problem:
                self._no_journal_because = _describe(problem)
                raise
            self._sequence = 0 if catalogue is None else catalogue.sequence
            self._journal, self._catalogue = journal, catalogue
            self._reset(number, size)
            await self._retention.sweep(number)

    async def _write_pair(
        self, number: int, catalogue: Catalogue | None, writes: Iterable[bytes]
    ) -> tuple[Journal, int]:
        """Write the files of `number`. Return the journal and the length of the snapshot."""
        await self._retention.sweep_unfinished()
        sequence = 0 if catalogue is None else catalogue.sequence
        async with self._removed_unless_finished(number):
            size = await self._write_snapshot(number, catalogue, writes, lambda: None)
            journal = await self._create_journal(number)
            try:
                await self._publish(number)
                if catalogue is not None and catalogue.sequence != sequence:
                    raise JournalBroken(errno.EAGAIN, "the catalogue changed while it was written")
            except BaseException:
                await journal.close()
                raise
        return journal, size

    # -- compaction (D3) -------------------------------------------------------------------

    async def compact(self, writes: Callable[[], Iterable[bytes]]) -> None:
        """Replace the journal by a new snapshot of the catalogue that `begin` was given.

        Changes go on meanwhile. `writes` is called when the view is taken; its result is iterated
        over as in `begin`.

        Ends without effect if `begin` or `close` is called. Raises JournalBroken, or another
        OSError if the journal is still in use.
        """
        epoch = self._epoch

        def check() -> None:
            if self._epoch != epoch:
                raise _Superseded

        async with self._snapshot_lock:
            try:
                check()
                await self._retention.sweep_unfinished()
                number = self._next_number()
                await self._switch_to(await self._create_journal(number), check)
                catalogue = self._catalogue
                resuming, sequence = set(self._resuming), self._sequence

                def has_older_records() -> bool:
                    check()
                    is_applied = catalogue is None or catalogue.sequence >= sequence
                    return is_applied and not resuming & self._resuming

                await self._wait_until(has_older_records)
                async with self._removed_unless_finished(number):
                    size = await self._write_snapshot(number, catalogue, writes(), check)
                    await self._publish(number)
                check()
                self._reset(number, size)
                self.compactions += 1
                await self._retention.sweep(number)
            except _Superseded:
                return
            except BaseException:
                self._retry_bytes = self.journal_bytes
                raise

    async def _switch_to(self, journal: Journal, check: Callable[[], None]) -> None:
        """Go on in a new journal, between two groups of records."""
        async with self._journal_lock:
            old = self._journal
            try:
                check()
                if old is None:
                    raise self._broken()
                await self._link(journal, old)
            except BaseException:
                await journal.close()
                raise
            self._older_bytes += old.size
            self._journal = journal
        await old.close()

    async def _link(self, journal: Journal, old: Journal) -> None:
        """Write in `journal` where `old` ended.

        If that fails, it may be on the disk all the same, so nothing may follow in `old`.
        """
        try:
            await journal.continue_from(old)
        except BaseException as problem:
            await self._end_journal(_describe(problem))
            if isinstance(problem, OSError):
                raise self._broken() from problem
            raise

    def _supersede_compaction(self) -> None:
        self._epoch += 1
        self._progress.set()

    # -- parts of both ---------------------------------------------------------------------

    def _next_number(self) -> int:
        if self._number is None:
            what = "what lies in DATA_DIR could not be read at the start, so it is not replaced: "
            raise JournalBroken(errno.EIO, f"{what}restart the store once it can be read")
        self._number += 1
        return self._number

    async def _create_journal(self, number: int) -> Journal:
        """Create a journal whose name is durable, too, before anything relies on it."""
        journal = await Journal.create(self._directory, number, about=self._about())
        try:
            await self._directory.sync()
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _write_snapshot(
        self,
        number: int,
        catalogue: Catalogue | None,
        writes: Iterable[bytes],
        check: Callable[[], None],
    ) -> int:
        """Write a snapshot under its unfinished name, synced. Return its length in bytes.

        `check` is called after each chunk and may raise.
        """
        view = None if catalogue is None else catalogue.begin_view()
        try:
            about: dict[str, Any] = {**self._about(), "keysSince": self.keys_since}
            chunks = encode_snapshot(number, about=about, view=view, writes=writes)
            file = await self._directory.create(unfinished_name(number))
            return await _write_file(file, chunks, check)
        finally:
            if catalogue is not None and view is not None:
                catalogue.end_view(view)

    async def _publish(self, number: int) -> None:
        """Give a snapshot its final name, durably."""
        await self._directory.rename(unfinished_name(number), snapshot_name(number))
        await self._directory.sync()

    @asynccontextmanager
    async def _removed_unless_finished(self, number: int) -> AsyncGenerator[None, None]:
        """Remove the unfinished snapshot if the block raises."""
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the next snapshot sweeps again
                await self._directory.remove(unfinished_name(number))
            raise

    def _reset(self, number: int, snapshot_bytes: int) -> None:
        """Note that snapshot `number` is the current one."""
        self._snapshot_number = number
        self._checked_at = asyncio.get_running_loop().time()
        self.snapshot_bytes = snapshot_bytes
        self._older_bytes = 0
        self._retry_bytes = 0

    def _about(self) -> dict[str, str]:
        """Return what the header of a new file says of its origin."""
        written = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        return {**self._owner.header(), "written": written}

    async def close(self) -> None:
        """Write what has been given to `append` so far, then close the journal."""
        if self._flusher is not None:
            await asyncio.wait([self._flusher])
        self._supersede_compaction()
        async with self._snapshot_lock, self._journal_lock:
            await self._end_journal("it has been closed")


def _ignore(*_: object) -> None:
    """The callback if none is set."""


def _describe(problem: BaseException) -> str:
    return str(problem) or repr(problem)


async def _write_file(file: File, chunks: Iterable[bytes], check: Callable[[], None]) -> int:
    size = 0
    try:
        for chunk in chunks:
            await file.append(chunk)
            size += len(chunk)
            check()
        await file.sync()
    finally:
        await file.close()
    return size
