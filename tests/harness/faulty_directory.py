"""A disk in memory that fails as real ones do: cached and durable bytes are kept apart, for every
file and for the folder's entries.

Knows: what a kill keeps (everything cached), what a power cut may take (whatever was not synced,
whole, in part, as zeros or as garbage), and that after a failed sync the pages count as clean:
the next sync "succeeds" and the data is gone all the same.
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


class Crashed(Exception):
    """The process died before this operation; nothing of it happens, nor of any later one."""


class Page(StrEnum):
    DIRTY = "dirty"  # cached alone
    DURABLE = "durable"
    LOST = "lost"  # cached, believed durable after a failed sync, not on the disk


@dataclass
class Inode:
    """A file's content as it was appended, with what each piece has reached."""

    pieces: list[tuple[bytes, Page]] = field(default_factory=list)

    @property
    def cached(self) -> bytes:
        return b"".join(data for data, _ in self.pieces)

    def mark(self, page: Page) -> None:
        self.pieces = [(d, page if p is Page.DIRTY else p) for d, p in self.pieces]

    def after_power_cut(self, chance: random.Random) -> bytes:
        kept = b""
        for number, (data, page) in enumerate(self.pieces):
            if page is Page.DURABLE:
                kept += data
                continue
            later = any(p is Page.DURABLE for _, p in self.pieces[number:])
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
    """A change of the folder's entries that was not synced yet: `name` is now `inode` (None:
    gone), and `old`, its name before, is gone."""

    name: str
    inode: Inode | None
    old: str | None = None

    def make(self, entries: dict[str, Inode]) -> None:
        entries.pop(self.old or self.name, None)
        if self.inode is not None:
            entries[self.name] = self.inode


@dataclass
class Held:
    """An operation that is held up: `reached` once somebody waits in it, until `release`."""

    what: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


class FaultyFolder(Directory):
    """Operations are counted from 1 and named in `trace`. `crash_before`: the operation at which
    the process dies. `failures`: errors by operation, each happens once. `room`: bytes that still
    fit, or None for any number. `idle_syncs`: syncs whose names begin so only say that they were
    done, as after somebody removed them from the program."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        durable = {n: Inode([(data, Page.DURABLE)]) for n, data in (files or {}).items()}
        self.entries: dict[str, Inode] = durable
        self.trace: list[str] = []
        self.crash_before: int | None = None
        self.failures: dict[int, int] = {}
        self.room: int | None = None
        self.idle_syncs: tuple[str, ...] = ()
        self._durable_entries = dict(durable)
        self._changes: list[EntryChange] = []
        self._crashed = False
        self._held: list[Held] = []

    # -- what is left ----------------------------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        """Every file as a process sees it."""
        return {name: inode.cached for name, inode in self.entries.items()}

    def after_kill(self) -> FaultyFolder:
        """The process is gone, the machine runs on: the same caches, nothing made durable."""
        left = FaultyFolder()
        left.entries = dict(self.entries)
        left._durable_entries = dict(self._durable_entries)
        left._changes = list(self._changes)
        return left

    def after_power_cut(self, chance: random.Random) -> FaultyFolder:
        """Of the changes of entries that were not synced, any may have reached the disk."""
        entries = dict(self._durable_entries)
        for change in self._changes:
            if chance.random() < 0.5:
                change.make(entries)
        return FaultyFolder({n: i.after_power_cut(chance) for n, i in entries.items()})

    # -- faults ----------------------------------------------------------------------------

    def hold(self, what: str) -> Held:
        """Hold operations of this name up."""
        self._held.append(Held(what))
        return self._held[-1]

    async def operate(self, what: str) -> None:
        """Count an operation, let others run, and crash or fail if it is this one's turn."""
        await asyncio.sleep(0)
        for held in self._held:
            if held.what == what:
                held.reached.set()
                await held.release.wait()
        self.trace.append(what)
        if self._crashed or len(self.trace) == self.crash_before:
            self._crashed = True
            raise Crashed(what)
        if (fault := self.failures.pop(len(self.trace), None)) is not None:
            raise OSError(fault, os.strerror(fault), what)

    def is_idle(self, name: str) -> bool:
        return name.startswith(self.idle_syncs)

    def fit(self, data: bytes) -> bytes:
        """As much of the data as there is room for."""
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
            change.make(self._durable_entries)
        self._changes = []

    async def close(self) -> None:
        """Nothing becomes durable by it."""

    async def size(self, name: str) -> int:
        await self.operate(f"size {name}")
        return len(self.entries[name].cached)

    def _change(self, change: EntryChange) -> None:
        change.make(self.entries)
        self._changes.append(change)


class FaultyFile(File):
    def __init__(self, folder: FaultyFolder, name: str, inode: Inode) -> None:
        self._folder = folder
        self._name = name
        self._inode = inode

    async def append(self, data: bytes) -> None:
        await self._folder.operate(f"append {self._name}")
        part = self._folder.fit(data)
        self._inode.pieces.append((part, Page.DIRTY))
        if len(part) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device", self._name)

    async def sync(self) -> None:
        try:
            await self._folder.operate(f"sync {self._name}")
        except OSError:
            self._inode.mark(Page.LOST)
            raise
        if not self._folder.is_idle(self._name):
            self._inode.mark(Page.DURABLE)

    async def write_durably(self, data: bytes) -> None:
        await self.append(data)
        await self.sync()

    async def close(self) -> None:
        """Nothing becomes durable by it, and it is no point to crash at."""
