"""The store's files as one thing: durable on return, or an error (D1-D5).

Knows: the order of operations that durability needs. Every start, every placing of a catalogue and
every end of trouble begins a new snapshot with a new journal; a journal that grew is folded into a
new snapshot in the background; older files go only once the new ones cannot be lost.
Refuses to know: what the catalogue means, when to begin or fold, and what `degraded` does to tills.

The files of number n belong together: `snapshot-n` and what came after it, `journal-n`. A number is
used once. A file that a write or sync failed on is never written to again: its pages may be gone
from the disk while reads from memory still show them.

JournalBroken(OSError)    nothing can be kept until `begin` has succeeded
NewerFormat               see `framing`
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import Change
from store_cache.storage.directory import Directory, File
from store_cache.storage.framing import NewerFormat
from store_cache.storage.journal import Journal, encode_entry, encode_link
from store_cache.storage.recovery import Loaded, recover
from store_cache.storage.retention import Retention
from store_cache.storage.snapshot import encode_snapshot, snapshot_name

__all__ = ["CacheFiles", "JournalBroken", "Loaded", "NewerFormat"]

COMPACTION_BYTES = 4 * 1024 * 1024
"""A journal is not folded below this, however small the snapshot is."""


class JournalBroken(OSError):
    """The journal cannot be written to; `begin` heals that."""


@dataclass(eq=False, slots=True)
class _Entry:
    """A record on its way to the disk. `sequence` is 0 where it holds no change."""

    payload: bytes
    sequence: int
    done: asyncio.Future[None]


class _Superseded(Exception):
    """A fold has been overtaken by `begin` or `close`."""


class CacheFiles:
    """Snapshot and journal in one folder. First `load`, then `begin`; then the others.

    Await `append` directly and make the change at once when it returns, without another await
    between: a fold cuts the catalogue only after those that were told have done so.
    """

    def __init__(self, folder: Directory, *, now: Callable[[], float]) -> None:
        """`now`: unix seconds, for the times that people find in the files."""
        self._folder = folder
        self._now = now
        self._number: int | None = None  # the highest in use; None before `load`
        self._retention = Retention(folder)
        self._journal: Journal | None = None
        self._trouble = "load() and begin() come first"
        self._sequence = 0  # of the last change in the journal
        self._pending: list[_Entry] = []
        self._told: set[_Entry] = set()  # durable, but the caller has not run on yet
        self._progress = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # held by whoever may touch the journal
        self._folding = asyncio.Lock()  # held by whoever may write a snapshot
        self._begins = 0
        self._older_bytes = 0
        self._retry_bytes = 0
        self._snapshot_bytes = 0

    # -- what status shows -----------------------------------------------------------------

    @property
    def snapshot_bytes(self) -> int:
        return self._snapshot_bytes

    @property
    def journal_bytes(self) -> int:
        """Length of all journals since the snapshot."""
        return self._older_bytes + (0 if self._journal is None else self._journal.size)

    @property
    def compaction_due(self) -> bool:
        """Whether the journal outgrew the snapshot; after a failed fold, once more by as much."""
        if self._journal is None or self._folding.locked():
            return False
        return self.journal_bytes - self._retry_bytes > max(COMPACTION_BYTES, self._snapshot_bytes)

    @property
    def sweep_problem(self) -> str | None:
        """Why old files could not be removed; they do no harm but take room. None: all is well."""
        return self._retention.problem

    # -- reading ---------------------------------------------------------------------------

    async def load(self) -> Loaded:
        """What is on disk; nothing is changed there. However damaged, that is no error.

        Raises NewerFormat, and OSError where the folder cannot even be listed.
        """
        recovered = await recover(self._folder)
        self._number = recovered.highest
        self._retention.aside = recovered.aside
        return recovered.loaded

    # -- appending -------------------------------------------------------------------------

    async def append(self, *, change: Change | None = None, write: bytes | None = None) -> None:
        """Keep one record: durable when this returns. Calls made meanwhile share one write and
        sync, in the order of the calls; while `begin` runs they wait for its new journal. A
        caller that is cancelled leaves its record on its way.

        `change` is numbered above the one before. `write` is one JSON object on one line.
        Raises OSError; every later call raises JournalBroken until `begin` has succeeded.
        """
        sequence = 0 if change is None else change.sequence
        done = asyncio.get_running_loop().create_future()
        entry = _Entry(encode_entry(change, write), sequence, done)
        self._pending.append(entry)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="journal")
        try:
            await done
        finally:
            self._told.discard(entry)
            self._progress.set()

    async def _flush(self) -> None:
        try:
            while self._pending:
                async with self._turn:
                    group, self._pending = self._pending, []
                    await self._keep(group)
        finally:
            self._flusher = None

    async def _keep(self, group: list[_Entry]) -> None:
        journal = self._journal
        if journal is not None and (repeated := self._repeated(group)) is not None:
            await self._give_up(f"change {repeated} was kept before, and then never made")
            journal = None
        if journal is None:
            self._refuse(group, JournalBroken(errno.EIO, self._broken()))
            return
        try:
            await journal.write([entry.payload for entry in group])
        except BaseException as problem:
            await self._give_up(_say(problem))
            self._refuse(group, problem)
            if not isinstance(problem, OSError):
                raise
        else:
            self._tell(group)

    def _repeated(self, group: list[_Entry]) -> int | None:
        """A change numbered like one that is in the journal: its caller was cancelled before
        making that one. Read back, either would be taken for the other."""
        for entry in group:
            if 0 < entry.sequence <= self._sequence:
                return entry.sequence
            self._sequence = max(self._sequence, entry.sequence)
        return None

    def _tell(self, group: list[_Entry]) -> None:
        for entry in group:
            if not entry.done.done():
                self._told.add(entry)
                entry.done.set_result(None)

    def _refuse(self, group: list[_Entry], problem: BaseException) -> None:
        for entry in group:
            if not entry.done.done():
                entry.done.set_exception(problem)

    def _broken(self) -> str:
        return f"the journal cannot be written to ({self._trouble}) until a new one has begun"

    async def _give_up(self, trouble: str) -> None:
        """Leave the journal as it is, for good."""
        self._trouble = trouble
        self._older_bytes = self.journal_bytes
        journal, self._journal = self._journal, None
        if journal is not None:
            with suppress(OSError):  # nothing that was acknowledged depends on it
                await journal.close()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._progress.clear()
            await self._progress.wait()

    # -- beginning -------------------------------------------------------------------------

    async def begin(self, catalogue: Catalogue | None, writes: Iterable[bytes]) -> None:
        """Write a whole new snapshot and begin an empty journal after it; all of it is durable on
        return, and older files are gone. For every start, for placing a catalogue, and to end
        `degraded`. A fold under way ends without effect; appends wait, and what they hold goes to
        the new journal. A `catalogue` that changes without them meanwhile is an error.

        `writes`, the key table's entries, each one JSON object on one line, is best a generator:
        what `append` told its callers by now must be in it when the first entry is taken, and it
        is iterated over in slices while the loop runs, so it must not mind that the table changes.
        Raises OSError; then nothing can be appended until another `begin` succeeds.
        """
        self._overtake()
        async with self._folding, self._turn:
            number = self._next_number()
            await self._give_up("a new one is being begun")
            told = set(self._told)
            await self._until(lambda: not told & self._told)
            try:
                journal, size = await self._write_pair(number, catalogue, writes)
            except BaseException as problem:
                self._trouble = _say(problem)
                raise
            self._sequence = 0 if catalogue is None else catalogue.sequence
            self._journal = journal
            self._folded(size)
            await self._retention.sweep(number)

    async def _write_pair(
        self, number: int, catalogue: Catalogue | None, writes: Iterable[bytes]
    ) -> tuple[Journal, int]:
        await self._retention.sweep_unfinished()
        sequence = 0 if catalogue is None else catalogue.sequence
        async with self._finishing(number):
            size = await self._write_snapshot(number, catalogue, writes, _go_on)
            journal = await self._create_journal(number)
            try:
                await self._publish(number)
                if catalogue is not None and catalogue.sequence != sequence:
                    raise JournalBroken(errno.EAGAIN, "the catalogue changed while it was written")
            except BaseException:
                await journal.close()
                raise
        return journal, size

    @asynccontextmanager
    async def _finishing(self, number: int) -> AsyncGenerator[None, None]:
        """Whatever ends the work on a snapshot before it has its name: nobody will finish it."""
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the next snapshot sweeps again
                await self._folder.remove(f"{snapshot_name(number)}.new")
            raise

    def _overtake(self) -> None:
        self._begins += 1
        self._progress.set()

    def _next_number(self) -> int:
        if self._number is None:
            what = "what lies in DATA_DIR could not be read at the start, so it is not replaced: "
            raise JournalBroken(errno.EIO, f"{what}restart the store once it can be read")
        self._number += 1
        return self._number

    async def _create_journal(self, number: int) -> Journal:
        """A journal that is in the folder for good before anything relies on it."""
        journal = await Journal.create(self._folder, number, written=self._time())
        try:
            await self._folder.sync()
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _publish(self, number: int) -> None:
        name = snapshot_name(number)
        await self._folder.rename(f"{name}.new", name)
        await self._folder.sync()

    def _folded(self, snapshot_bytes: int) -> None:
        self._snapshot_bytes = snapshot_bytes
        self._older_bytes = 0
        self._retry_bytes = 0

    def _time(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")

    # -- writing a snapshot ----------------------------------------------------------------

    async def _write_snapshot(
        self,
        number: int,
        catalogue: Catalogue | None,
        writes: Iterable[bytes],
        check: Callable[[], None],
    ) -> int:
        """Write it beside, under `.new`, synced. `check` is called after each chunk and may raise.
        Returns the length in bytes."""
        name = f"{snapshot_name(number)}.new"
        placed = None if catalogue is None or catalogue.position is None else catalogue
        cut = None if placed is None else placed.begin_view()
        try:
            pieces = encode_snapshot(number, written=self._time(), cut=cut, writes=writes)
            return await _write_file(await self._folder.create(name), pieces, check)
        finally:
            if placed is not None:
                placed.end_view()

    def _check_current(self, begins: int) -> None:
        if self._begins != begins:
            raise _Superseded

    # -- folding ---------------------------------------------------------------------------

    async def fold(self, catalogue: Catalogue, writes: Callable[[], Iterable[bytes]]) -> None:
        """Write a new snapshot of `catalogue`, the one that the journal goes with, while changes
        go on, and let go of the journal up to it. `writes` is called at the moment of the cut;
        what it gives is iterated over as in `begin`.

        Ends without effect where `begin` or `close` comes in. Raises JournalBroken, or another
        OSError: then the journal goes on all the same.
        """
        begins = self._begins
        async with self._folding:
            with suppress(_Superseded):
                self._check_current(begins)
                try:
                    await self._fold(begins, catalogue, writes)
                except BaseException:
                    self._retry_bytes = self.journal_bytes
                    raise

    async def _fold(
        self, begins: int, catalogue: Catalogue, writes: Callable[[], Iterable[bytes]]
    ) -> None:
        await self._retention.sweep_unfinished()
        number = self._next_number()
        await self._switch(begins, await self._create_journal(number))
        told, sequence = set(self._told), self._sequence
        await self._until(
            lambda: (
                self._begins != begins or (not told & self._told and catalogue.sequence >= sequence)
            )
        )
        self._check_current(begins)
        async with self._finishing(number):
            size = await self._write_snapshot(
                number, catalogue, writes(), lambda: self._check_current(begins)
            )
            await self._publish(number)
        self._check_current(begins)
        self._folded(size)
        await self._retention.sweep(number)

    async def _switch(self, begins: int, journal: Journal) -> None:
        """Go on in a new journal, between two groups of records."""
        async with self._turn:
            old = self._journal
            if old is None or self._begins != begins:
                await journal.close()
                self._check_current(begins)
                raise JournalBroken(errno.EIO, self._broken())
            await self._link(journal, old)
            self._older_bytes += old.size
            self._journal = journal
        await old.close()

    async def _link(self, journal: Journal, old: Journal) -> None:
        """Say in the new journal where the old one ended. Where that fails it may be on the disk
        all the same, so nothing may follow in the old one."""
        try:
            await journal.write([encode_link(old)])
        except BaseException as problem:
            await self._give_up(_say(problem))
            await journal.close()
            if isinstance(problem, OSError):
                raise JournalBroken(errno.EIO, self._broken()) from problem
            raise

    # -- ending ----------------------------------------------------------------------------

    async def close(self) -> None:
        """Keep what has been given to `append` so far, then let go of the journal."""
        if self._flusher is not None:
            await asyncio.wait([self._flusher])
        self._overtake()
        async with self._folding, self._turn:
            await self._give_up("it has been closed")


def _say(problem: BaseException) -> str:
    return str(problem) or repr(problem)


async def _write_file(file: File, pieces: Iterable[bytes], check: Callable[[], None]) -> int:
    size = 0
    try:
        for piece in pieces:
            await file.append(piece)
            size += len(piece)
            check()
        await file.sync()
    finally:
        await file.close()
    return size


def _go_on() -> None:
    """`begin` writes to the end, whatever comes in."""
