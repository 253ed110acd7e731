"""The folder that the store keeps its files in.

Knows: the few operations on files that durability is made of, and how Linux performs them: a file
appended to and synced, a folder's entries synced apart from its files (D2, D3), the lock (D6),
no link ever followed, modes 0700 and 0600, a fixed set of names.
Refuses to know: what is in a file, and what follows when an operation fails.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, Self

import aiofiles

LOCK_NAME = "lock"
NAMES = re.compile(r"(snapshot|journal)-[0-9]{1,18}\.jsonl(\.new|\.damaged-[0-9]{1,18})?")
"""Every name that this package writes, `lock` aside. Nothing else in the folder is touched."""

_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]", Callable[[], None]]

READ_BYTES = 512 * 1024
"""One thread hop reads this much: some 3,500 rows, a few milliseconds of the loop's time."""


class DirectoryInUse(Exception):
    """Another process holds the folder's lock (D6); the message says which."""


class File(Protocol):
    """A file that is being written, once, from its beginning. Every operation raises OSError."""

    async def append(self, data: bytes) -> None: ...

    async def sync(self) -> None:
        """Return once everything appended survives a power cut (fdatasync)."""

    async def write_durably(self, data: bytes) -> None:
        """`append` and `sync` in one."""

    async def close(self) -> None:
        """Let go of the file, synced or not. Closing twice is allowed."""


class Directory(Protocol):
    """A flat folder. Changes of its entries (created, renamed, removed) survive a power cut only
    after `sync`. Every operation raises OSError."""

    async def names(self) -> list[str]: ...

    async def create(self, name: str) -> File:
        """A new empty file; FileExistsError where the name is taken."""

    def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]: ...

    async def rename(self, old: str, new: str) -> None: ...

    async def remove(self, name: str) -> None: ...

    async def sync(self) -> None: ...

    async def size(self, name: str) -> int: ...


class LocalFile(File):
    """A file on a local disk, worked on by one thread of its own, in the order of the calls. So a
    cancelled caller's write, which goes on in the thread, is over before a later close: a file
    number may be given out again at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._thread = FileThread()

    async def append(self, data: bytes) -> None:
        await self._thread.call(lambda: self._perform(data, sync=False))

    async def sync(self) -> None:
        await self._thread.call(lambda: self._perform(b"", sync=True))

    async def write_durably(self, data: bytes) -> None:
        await self._thread.call(lambda: self._perform(data, sync=True))

    async def close(self) -> None:
        if not self._thread.is_ended:
            await self._thread.end(self._close)

    def _perform(self, data: bytes, *, sync: bool) -> None:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the file is closed already")
        _write_all(self._descriptor, data)
        if sync:
            os.fdatasync(self._descriptor)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class FileThread:
    """Performs calls one after the other. A hop to it and back costs half of one to the loop's
    pool of threads, and nothing that other parts have in that pool comes before it: what a till
    waits for is one write and sync of the journal."""

    def __init__(self) -> None:
        self.is_ended = False
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # A daemon: a file that was never closed must not keep the process from ending.
        threading.Thread(target=self._run, name="file", daemon=True).start()

    def call(self, perform: Callable[[], None]) -> asyncio.Future[None]:
        """Performed whether or not the future is awaited to its end."""
        if self.is_ended:
            raise OSError(errno.EBADF, "the file is closed already")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._calls.put((loop, done, perform))
        return done

    def end(self, perform: Callable[[], None]) -> asyncio.Future[None]:
        """The last call."""
        done = self.call(perform)
        self.is_ended = True
        self._calls.put(None)
        return done

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, done, perform = call
            problem: BaseException | None = None
            try:
                perform()
            except BaseException as caught:  # noqa: BLE001 - it is the caller's
                problem = caught
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_tell, done, problem)
            del call, done, perform, problem  # not held until the next call


def _tell(done: asyncio.Future[None], problem: BaseException | None) -> None:
    if done.done():  # cancelled
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(problem)


class LocalDirectory(Directory):
    """A folder on a local disk, locked for this process. Made by `open`."""

    def __init__(self, path: Path, descriptor: int, lock: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._lock = lock

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the folder, create it (0700) where it is missing, and lock it.

        Raises DirectoryInUse where another process has it, and OSError.
        """
        return await asyncio.to_thread(cls._open, path)

    @classmethod
    def _open(cls, path: Path) -> Self:
        _create_folder(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return cls(path, descriptor, _lock(path, descriptor))
        except BaseException:
            os.close(descriptor)
            raise

    async def close(self) -> None:
        """Release the lock. The folder is not used afterwards."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        os.close(self._lock)
        os.close(self._descriptor)

    async def names(self) -> list[str]:
        found = await asyncio.to_thread(os.listdir, self._descriptor)
        return sorted(name for name in found if NAMES.fullmatch(name))

    async def create(self, name: str) -> File:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        return LocalFile(await asyncio.to_thread(self._open_file, name, flags))

    async def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]:
        async with aiofiles.open(name, "rb", buffering=0, opener=self._open_file) as file:
            while chunk := await file.read(chunk_bytes):
                yield chunk

    async def rename(self, old: str, new: str) -> None:
        folder = self._descriptor
        await asyncio.to_thread(
            os.rename, _checked(old), _checked(new), src_dir_fd=folder, dst_dir_fd=folder
        )

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(os.unlink, _checked(name), dir_fd=self._descriptor)

    async def sync(self) -> None:
        await asyncio.to_thread(os.fsync, self._descriptor)

    async def size(self, name: str) -> int:
        status = await asyncio.to_thread(
            os.stat, _checked(name), dir_fd=self._descriptor, follow_symlinks=False
        )
        return status.st_size

    def _open_file(self, name: str, flags: int) -> int:
        return _open_plain(self.path, self._descriptor, _checked(name), flags)


def _checked(name: str) -> str:
    if not NAMES.fullmatch(name):
        raise ValueError(f"{name!r} is none of the names that the store gives its files")
    return name


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _open_plain(path: Path, folder: int, name: str, flags: int) -> int:
    """Open a file of the folder, never through a link; O_NONBLOCK so that a pipe put there under
    a file's name cannot hold the store up."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    except OSError as problem:
        if problem.errno != errno.ELOOP:
            raise
        message = "is a symbolic link, and links are not followed: remove it"
        raise OSError(errno.ELOOP, message, str(path / name)) from problem


def _create_folder(path: Path) -> None:
    """Create what is missing of the path; each new entry is synced, else a power cut could take
    the whole folder."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(path: Path, folder: int) -> int:
    """Take the folder's lock; it ends with the process, however that ends."""
    descriptor = _open_lock(path, folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _note_owner(descriptor)
    except BlockingIOError as problem:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise DirectoryInUse(
            f"DATA_DIR {path} is in use by another store-cache, process {owner or 'unknown'}: "
            "stop that one, or give this one a DATA_DIR of its own"
        ) from problem
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_lock(path: Path, folder: int) -> int:
    try:
        return _open_plain(path, folder, LOCK_NAME, os.O_RDWR | os.O_CREAT)
    except OSError as problem:
        if problem.errno != errno.EROFS:
            raise
    # What lies on a disk that became read-only can still be served (D5).
    return _open_plain(path, folder, LOCK_NAME, os.O_RDONLY)


def _note_owner(descriptor: int) -> None:
    """Write down who holds the lock, for the message that the second process gives. On a full or
    read-only disk the lock holds all the same, only the message says less."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return
    os.ftruncate(descriptor, 0)
    try:
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as problem:
        if problem.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
