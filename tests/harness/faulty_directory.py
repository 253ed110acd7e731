"""A disk in memory that fails as real ones do.

Cached and durable bytes are kept apart, for every file and for the entries of the directory. A kill
keeps everything that is cached. A power cut may take whatever was not synced: all of it, a part, or
leave zeros or garbage. After a failed sync the pages count as clean: the next sync succeeds, and
the data is lost all the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum

from store_cache.storage.directory import READ_BYTES, Directory, File
from tests.harness.hold import Hold


class Crashed(Exception):
    """The process died before this operation; neither it nor any later one happens."""


class PageState(StrEnum):
    DIRTY = "dirty"  # cached alone
    DURABLE = "durable"
    LOST = "lost"  # cached, believed durable after a failed sync, not on the disk


@dataclass
class Inode:
    """A file's content in the pieces that were appended, each with its state."""

    pieces: list[tuple[bytes, PageState]] = field(default_factory=list)

    @property
    def cached(self) -> bytes:
        return b"".join(data for data, _ in self.pieces)

    def mark(self, state: PageState) -> None:
        self.pieces = [(d, state if p is PageState.DIRTY else p) for d, p in self.pieces]

    def after_power_cut(self, chance: random.Random) -> bytes:
        kept = b""
        for number, (data, page) in enumerate(self.pieces):
            if page is PageState.DURABLE:
                kept += data
                continue
            later = any(p is PageState.DURABLE for _, p in self.pieces[number:])
            kept += b"\0" * len(data) if later else _torn(data, chance)
            if not later:
                break
        return kept


def _torn(data: bytes, chance: random.Random) -> bytes:
    part = data[: chance.randint(0, len(data))]
    match chance.choice(["none", "part", "zeros", "garbage", "all"]):
        case "none":
            return b""
        case "part":
            return part
        case "zeros":
            return part + b"\0" * (len(data) - len(part))
        case "garbage":
            return part + chance.randbytes(len(data) - len(part))
        case _:
            return data


@dataclass(frozen=True)
class EntryChange:
    """A change of the directory's entries that is not synced yet: `name` is now `inode` (None:
    removed), and its name before, `old`, is removed."""

    name: str
    inode: Inode | None
    old: str | None = None

    def apply(self, entries: dict[str, Inode]) -> None:
        entries.pop(self.old or self.name, None)
        if self.inode is not None:
            entries[self.name] = self.inode


class FaultyDirectory(Directory):
    """Operations are counted from 1 and named in `trace`. `crash_before`: the operation at which
    the process dies. `failures`: error numbers by operation, each for once. `room`: bytes that
    still fit, or None for any number. `is_gone`: the folder was deleted under the process, which
    has files of it open, and has not made it anew. `idle_syncs`: syncs whose names begin so do
    nothing, as if the program did not call them."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        durable = {n: Inode([(data, PageState.DURABLE)]) for n, data in (files or {}).items()}
        self.entries: dict[str, Inode] = durable
        self.trace: list[str] = []
        self.crash_before: int | None = None
        self.failures: dict[int, int] = {}
        self.room: int | None = None
        self.is_gone = False
        self.idle_syncs: tuple[str, ...] = ()
        self._durable_entries = dict(durable)
        self._changes: list[EntryChange] = []
        self._crashed = False
        self._held: list[Hold] = []

    # -- what is left ----------------------------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        """Return every file as a process sees it."""
        return {name: inode.cached for name, inode in self.entries.items()}

    def after_kill(self) -> FaultyDirectory:
        """Return the directory after a kill: nothing is lost, nothing made durable."""
        left = FaultyDirectory()
        left.entries = dict(self.entries)
        left._durable_entries = dict(self._durable_entries)
        left._changes = list(self._changes)
        return left

    def after_power_cut(self, chance: random.Random) -> FaultyDirectory:
        """Return the directory after a power cut: of what was not synced, anything may be left."""
        entries = dict(self._durable_entries)
        for change in self._changes:
            if chance.random() < 0.5:
                change.apply(entries)
        return FaultyDirectory({n: i.after_power_cut(chance) for n, i in entries.items()})

    # -- faults ----------------------------------------------------------------------------

    def hold(self, what: str = "") -> Hold:
        """Hold up operations of this name, or all of them: a disk that hangs."""
        self._held.append(Hold(what))
        return self._held[-1]

    def delete(self) -> None:
        """Delete the folder with its files under the process."""
        self.entries, self._durable_entries, self._changes = {}, {}, []
        self.is_gone = True

    def _check_that_it_is_there(self) -> None:
        if self.is_gone:
            raise FileNotFoundError(errno.ENOENT, "the folder was deleted")

    async def operate(self, what: str) -> None:
        """Count an operation, let others run, and crash or fail if that is due."""
        await asyncio.sleep(0)
        for held in self._held:
            if held.what in ("", what):
                await held.wait()
        self.trace.append(what)
        if self._crashed or len(self.trace) == self.crash_before:
            self._crashed = True
            raise Crashed(what)
        if (fault := self.failures.pop(len(self.trace), None)) is not None:
            raise OSError(fault, os.strerror(fault), what)

    def is_idle(self, name: str) -> bool:
        return name.startswith(self.idle_syncs)

    def fit(self, data: bytes) -> bytes:
        """Return as much of the data as there is room for."""
        if self.room is None:
            return data
        part = data[: self.room]
        self.room -= len(part)
        return part

    # -- the folder ------------------------------------------------------------------------

    async def names(self) -> list[str]:
        await self.operate("names")
        return sorted(self.entries)

    async def create(self, name: str) -> File:
        await self.operate(f"create {name}")
        self._check_that_it_is_there()
        if name in self.entries:
            raise FileExistsError(errno.EEXIST, "exists", name)
        inode = Inode()
        self._change(EntryChange(name, inode))
        return FaultyFile(self, name, inode)

    async def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]:
        await self.operate(f"read {name}")
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "missing", name)
        data = self.entries[name].cached
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

    async def rename(self, old: str, new: str) -> None:
        await self.operate(f"rename {old} {new}")
        self._check_that_it_is_there()
        self._change(EntryChange(new, self.entries[old], old))

    async def remove(self, name: str) -> None:
        await self.operate(f"remove {name}")
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "missing", name)
        if self.room is not None:
            self.room += len(self.entries[name].cached)
        self._change(EntryChange(name, None))

    async def sync(self) -> None:
        try:
            await self.operate("sync folder")
        except OSError:
            self._changes = []  # counted as clean, and not on the disk
            raise
        if self.is_idle("folder"):
            return
        for change in self._changes:
            change.apply(self._durable_entries)
        self._changes = []

    async def close(self) -> None:
        """Do nothing: nothing becomes durable."""

    async def check(self) -> None:
        await self.operate("check")
        self._check_that_it_is_there()

    async def reopen(self) -> None:
        await self.operate("reopen")
        self.is_gone = False

    async def size(self, name: str) -> int:
        await self.operate(f"size {name}")
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "missing", name)
        return len(self.entries[name].cached)

    def _change(self, change: EntryChange) -> None:
        change.apply(self.entries)
        self._changes.append(change)


class FaultyFile(File):
    def __init__(self, directory: FaultyDirectory, name: str, inode: Inode) -> None:
        self._directory = directory
        self._name = name
        self._inode = inode

    async def append(self, data: bytes) -> None:
        await self._directory.operate(f"append {self._name}")
        part = self._directory.fit(data)
        self._inode.pieces.append((part, PageState.DIRTY))
        if len(part) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device", self._name)

    async def sync(self) -> None:
        try:
            await self._directory.operate(f"sync {self._name}")
        except OSError:
            self._inode.mark(PageState.LOST)
            raise
        if not self._directory.is_idle(self._name):
            self._inode.mark(PageState.DURABLE)

    async def write_durably(self, data: bytes) -> None:
        await self.append(data)
        await self.sync()

    async def close(self) -> None:
        """Do nothing: nothing becomes durable, and it is not an operation."""
