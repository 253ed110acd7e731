"""The ledger on disk: a snapshot, and a journal of the changes after it.

Rules
- `synced` returns when everything recorded so far is on disk (fdatasync); one disk operation
  serves all callers. No answer is sent before, so no client has seen what a crash can lose.
- Every start begins a new snapshot and a new journal before anything is acknowledged; nothing is
  appended to a file of another process.
- A torn end of the last journal is ignored: it was never acknowledged. Damage elsewhere stops the
  start.
- After a failed write or fsync nothing is acknowledged until a restart.

Files: `lock`; `snapshot-<n>.jsonl`, `journal-<n>.jsonl`, each line a CRC-32 in hex, a blank, JSON.
Errors:
    StorageError        the folder cannot be used: locked, damaged, not writable, failed
"""

import asyncio
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import orjson

from central_stub.ledger import Change

COMPACT_BYTES = 64 << 20
"""A journal of this size, about 200,000 writes, is compacted into a new snapshot."""
CHUNK = 1000

logger = logging.getLogger("central_stub.storage")


class StorageError(Exception):
    """The folder, or the database, cannot hold the ledger; the message says why and what to do."""


class Storage(Protocol):
    """Where changes go before they are acknowledged."""

    def record(self, change: Change) -> None: ...
    async def synced(self) -> None: ...
    async def close(self) -> None: ...
    def abandon(self) -> None: ...


class MemoryStorage:
    """No storage: a restart begins without products."""

    def record(self, change: Change) -> None:
        """Nothing to do."""

    async def synced(self) -> None:
        """Nothing to wait for."""

    async def close(self) -> None:
        """Nothing to close."""

    def abandon(self) -> None:
        """Nothing to leave behind."""


class FolderStorage:
    """One locked folder. Call `load` first, then `begin` with the loaded state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = _locked(folder)
        self._number = max([*self._numbers("snapshot"), *self._numbers("journal")], default=0)
        self._journal = -1
        self._size = 0
        self._backup: Callable[[], Change] | None = None
        self._lines: list[bytes] = []
        self._recorded = self._durable = 0
        self._failure: StorageError | None = None
        self._commit_task: asyncio.Task[None] | None = None
        self._compaction: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, "journal")
        self._folder_writer = ThreadPoolExecutor(1, "snapshot")

    # Start

    def load(self) -> Iterator[Change]:
        """Yield the changes that lead to the state on disk; none in a new folder."""
        newest = max(self._numbers("snapshot"), default=0)
        if newest:
            lines, _ = _read(self._path("snapshot", newest), may_be_torn=False)
            yield {"op": "restore", "state": _assembled(lines)}
        journals = [number for number in sorted(self._numbers("journal")) if number >= newest]
        for number in journals:
            path, last = self._path("journal", number), number == journals[-1]
            changes, torn_bytes = _read(path, may_be_torn=last)
            if torn_bytes:
                logger.warning("%s: %d torn bytes at the end were ignored", path, torn_bytes)
            yield from changes

    def begin(self, backup: Callable[[], Change]) -> None:
        """Write the state that `backup` returns as a new snapshot, and open a new journal."""
        self._backup = backup
        self._number += 1
        try:
            self._write_snapshot(self._number, backup())
            self._open_journal(self._number)
        except OSError as error:
            raise StorageError(f"{self._folder} cannot be written: {error.strerror}") from error
        self._remove_below(self._number)

    # Recording

    def record(self, change: Change) -> None:
        self._lines.append(_line(change))
        self._recorded += 1

    async def synced(self) -> None:
        """Wait until all changes recorded so far are on disk. StorageError after a failed write."""
        target = self._recorded
        while self._durable < target:
            if self._failure is not None:
                raise self._failure
            if self._commit_task is None or self._commit_task.done():
                self._commit_task = asyncio.create_task(self._commit())
            await asyncio.wait((self._commit_task,))

    async def _commit(self) -> None:
        if self._failure is not None:
            return
        lines, recorded = b"".join(self._lines), self._recorded
        self._lines.clear()
        is_due = self._size > COMPACT_BYTES and (
            self._compaction is None or self._compaction.done()
        )
        state = self._backup() if is_due and self._backup is not None else None
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._append, lines)
            if state is not None and self._failure is None:
                await loop.run_in_executor(self._writer, self._open_journal, self._number + 1)
        except OSError as error:
            logger.exception("the ledger cannot be written any more")
            self._failure = StorageError(f"{self._folder} cannot be written: {error.strerror}")
            return
        self._durable = recorded
        if state is not None and self._failure is None:
            self._number += 1
            self._compaction = asyncio.create_task(self._compact(self._number, state))

    async def _compact(self, number: int, state: Change) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._folder_writer, self._write_snapshot, number, state)
            await loop.run_in_executor(self._folder_writer, self._remove_below, number)
        except OSError as error:
            # Nothing is lost: the older snapshot and all later journals are still there.
            logger.warning("the journal could not be compacted and keeps growing: %s", error)

    # End

    async def close(self) -> None:
        """Wait until all is on disk, close the files, unlock the folder."""
        try:
            await self.synced()
        finally:
            if self._compaction is not None:
                await self._compaction
            self.abandon()

    def abandon(self) -> None:
        """Close at once, as `kill -9` does: what is not on disk yet is lost."""
        self._lines.clear()
        self._failure = StorageError("the storage is closed")
        self._writer.shutdown(wait=True)
        self._folder_writer.shutdown(wait=True)
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # Files

    def _path(self, kind: str, number: int) -> Path:
        return self._folder / f"{kind}-{number}.jsonl"

    def _numbers(self, kind: str) -> list[int]:
        names = (
            path.stem.removeprefix(f"{kind}-") for path in self._folder.glob(f"{kind}-*.jsonl")
        )
        return [int(name) for name in names if name.isdigit()]

    def _append(self, lines: bytes) -> None:
        _write_all(self._journal, lines)
        os.fdatasync(self._journal)
        self._size += len(lines)

    def _open_journal(self, number: int) -> None:
        opened = os.open(self._path("journal", number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        _sync_folder(self._folder)
        if self._journal >= 0:
            os.close(self._journal)
        self._journal, self._size = opened, 0

    def _write_snapshot(self, number: int, state: Change) -> None:
        new = self._folder / "snapshot.new"
        with open(new, "wb", opener=_private) as file:
            file.writelines(_line(part) for part in _parts(state))
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._path("snapshot", number))
        _sync_folder(self._folder)

    def _remove_below(self, number: int) -> None:
        for kind in ("journal", "snapshot"):
            for each in self._numbers(kind):
                if each < number:
                    self._path(kind, each).unlink()


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"{folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        message = f"{folder} is in use by another central-stub: stop it or name another folder"
        raise StorageError(message) from error
    return lock


def _line(value: Any) -> bytes:
    text = orjson.dumps(value)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> Any:
    """Return the value of a line, or raise ValueError if it is damaged."""
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text[:-1]):
        raise ValueError("checksum")
    return orjson.loads(text)


def _read(path: Path, *, may_be_torn: bool) -> tuple[list[Any], int]:
    """Return the values of a file, and how many torn bytes at its end were ignored."""
    lines = path.read_bytes().splitlines(keepends=True)
    values: list[Any] = []
    for line in lines:
        try:
            values.append(_value(line))
        except ValueError:
            break
    rest = lines[len(values) :]
    if rest and (not may_be_torn or any(map(_is_whole, rest))):
        message = (
            f"{path} is damaged at line {len(values) + 1}: restore the folder or start a new one"
        )
        raise StorageError(message)
    return values, sum(map(len, rest))


def _is_whole(line: bytes) -> bool:
    try:
        _value(line)
    except ValueError:
        return False
    return True


def _parts(state: Change) -> Iterator[Change]:
    """Yield a state in parts, so that encoding one does not block the interpreter for long."""
    yield {name: value for name, value in state.items() if not isinstance(value, list)}
    for name, value in state.items():
        if isinstance(value, list):
            for start in range(0, max(len(value), 1), CHUNK):
                yield {name: value[start : start + CHUNK]}


def _assembled(parts: Iterable[Change]) -> Change:
    state: Change = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, list):
                state.setdefault(name, []).extend(value)
            else:
                state[name] = value
    return state


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
