"""The directory that holds the store's files, and the file operations that durability needs.

- A file is created, appended to, synced and closed. It is never opened for writing again (D3).
- A new, renamed or removed file survives a power cut only after a sync of the directory itself.
- One process at a time uses the directory: it holds a lock (D6).
- File operations run in threads, so that a disk that hangs never blocks the event loop. If a caller
  gives up, its thread ends once the disk answers. The number of threads is bounded.
- Only the names in `names` are used, and links are not followed: whoever may write into the
  directory cannot make the store read, overwrite or remove a file elsewhere.
- The directory has mode 0700, its files 0600 (D1). One that others may write to is closed to them,
  or refused if it is not ours.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from store_cache.storage.names import parse_names

log = logging.getLogger(__name__)

LOCK_NAME = "lock"

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

READ_BYTES = 512 * 1024
"""How much one thread call reads: about 3,500 rows, a few milliseconds of the loop's time."""

MOST_THREADS = 16
"""At most six are in use, unless the disk hangs."""

T = TypeVar("T")
_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class DiskHangs(TimeoutError):
    """An operation did not end in time. It may still take effect later."""


class DirectoryRefused(Exception):
    """The store must not use this directory. Nothing in it has been changed."""


class DirectoryInUse(DirectoryRefused):
    """Another process holds the directory's lock (D6). The message names that process."""


class DirectoryExposed(DirectoryRefused):
    """Every user of the machine may write to the directory. The message says what to change."""


class File(Protocol):
    """A new file that is being written. Every operation raises OSError."""

    async def append(self, data: bytes) -> None: ...

    async def sync(self) -> None:
        """Make all appended data durable (fdatasync)."""

    async def write_durably(self, data: bytes) -> None:
        """Append and sync in one call."""

    async def close(self) -> None:
        """Close the file, synced or not. Closing twice is allowed."""


class Directory(Protocol):
    """A flat directory. Every operation raises OSError, and may raise DirectoryInUse."""

    async def names(self) -> list[str]: ...

    async def create(self, name: str) -> File:
        """Create an empty file. Raises FileExistsError if there is one of that name."""

    def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]: ...

    async def rename(self, old: str, new: str) -> None: ...

    async def remove(self, name: str) -> None: ...

    async def sync(self) -> None:
        """Make creations, renames and removals durable."""

    async def size(self, name: str) -> int: ...

    async def check(self) -> None:
        """Raise OSError if the directory or its lock was deleted, moved or replaced (D5)."""

    async def reopen(self) -> None:
        """Open and lock what is at the path now, creating what is missing of it."""


class LocalFile(File):
    """A file on a local disk, with a thread of its own that performs all calls in order.

    `open_file` opens it and returns the descriptor.

    A write goes on in the thread if its caller is cancelled, so it ends before a later close.
    Otherwise it could reach another file that has been given the same descriptor.
    """

    def __init__(self, thread: FileThread) -> None:
        self._descriptor = -1
        self._thread = thread

    async def open(self, open_file: Callable[[], int]) -> None:
        def open_now() -> None:
            self._descriptor = open_file()

        try:
            await self._thread.call(open_now)
        except BaseException:
            self._thread.end(self._close)
            raise

    async def read(self, size: int) -> bytes:
        return await self._thread.call(lambda: os.read(self._descriptor, size))

    async def append(self, data: bytes) -> None:
        await self._thread.call(lambda: self._write(data))

    async def sync(self) -> None:
        await self._thread.call(lambda: os.fdatasync(self._descriptor))

    async def write_durably(self, data: bytes) -> None:
        def write_and_sync() -> None:
            self._write(data)
            os.fdatasync(self._descriptor)

        await self._thread.call(write_and_sync)

    async def close(self) -> None:
        if not self._thread.is_ended:
            await self._thread.end(self._close)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class FileThread:
    """Performs calls one after the other.

    A call costs half of one to the loop's thread pool and does not queue behind other work there.
    That matters because each sale waits for one write and sync of the journal.
    """

    def __init__(self) -> None:
        self.is_ended = False
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # A daemon thread: a file that was never closed must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="file", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether a call is under way or may follow."""
        return self._thread.is_alive()

    def call(self, perform: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a call, and return its result. It is performed even if the future is cancelled."""
        if self.is_ended:
            raise OSError(errno.EBADF, "the file is closed already")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, done, perform))
        return done

    def end(self, perform: Callable[[], T]) -> asyncio.Future[T]:
        """Queue the last call; the thread ends after it."""
        done = self.call(perform)
        self.is_ended = True
        self._calls.put(None)
        return done

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, done, perform = call
            result, problem = None, None
            try:
                result = perform()
            except BaseException as caught:  # noqa: BLE001 - raised again in the caller
                problem = caught
            with suppress(RuntimeError):  # the loop is closed, so there is no caller any more
                loop.call_soon_threadsafe(_resolve, done, result, problem)
            del call, done, perform, result, problem  # free the data before the next call comes


def _resolve(done: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if done.cancelled():
        return
    if problem is None:
        done.set_result(result)
    else:
        done.set_exception(problem)


class LocalDirectory(Directory):
    """A directory on a local disk, locked for this process.

    The first operation creates what is missing of `path` and takes the lock. If that fails, the
    next operation tries again: a disk may be mounted while the store runs (D5).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptors: tuple[int, int] | None = None  # of the directory and of its lock
        self._opening = threading.Lock()
        self._threads: list[FileThread] = []

    async def close(self) -> None:
        """Release the lock."""
        descriptors, self._descriptors = self._descriptors, None
        for descriptor in descriptors or ():
            os.close(descriptor)

    async def names(self) -> list[str]:
        directory = await self._open()
        found = await self._perform(lambda: os.listdir(directory))  # noqa: PTH208
        return sorted(parse_names(found))

    async def create(self, name: str) -> File:
        await self._open()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        file = LocalFile(self._new_thread())
        await file.open(lambda: self._open_file(name, flags))
        return file

    async def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]:
        await self._open()
        file = LocalFile(self._new_thread())
        await file.open(lambda: self._open_file(name, os.O_RDONLY))
        try:
            while chunk := await file.read(chunk_bytes):
                yield chunk
        finally:
            await file.close()

    async def rename(self, old: str, new: str) -> None:
        directory = await self._open()
        names = _checked(old), _checked(new)
        await self._perform(lambda: os.rename(*names, src_dir_fd=directory, dst_dir_fd=directory))

    async def remove(self, name: str) -> None:
        directory = await self._open()
        await self._perform(lambda: os.unlink(_checked(name), dir_fd=directory))

    async def sync(self) -> None:
        directory = await self._open()
        await self._perform(lambda: os.fsync(directory))

    async def size(self, name: str) -> int:
        directory = await self._open()
        status = await self._perform(
            lambda: os.stat(_checked(name), dir_fd=directory, follow_symlinks=False)
        )
        return status.st_size

    async def check(self) -> None:
        await self._open()
        await self._perform(self._check_identity)

    async def reopen(self) -> None:
        await self.close()
        await self._open()

    def _check_identity(self) -> None:
        assert self._descriptors is not None
        directory, lock = map(os.fstat, self._descriptors)
        with suppress(FileNotFoundError):
            there = os.stat(LOCK_NAME, dir_fd=self._descriptors[0], follow_symlinks=False)
            if os.path.samestat(directory, self.path.stat()) and os.path.samestat(lock, there):
                return
        message = "DATA_DIR was deleted, moved or replaced while the store uses it"
        raise OSError(errno.ESTALE, message, str(self.path))

    async def _open(self) -> int:
        """Open the directory unless it is open, and return its descriptor."""
        if self._descriptors is None:
            await self._perform(self._open_now)
        assert self._descriptors is not None
        return self._descriptors[0]

    def _open_now(self) -> None:
        # A thread that was given up may still be about it. It must not hold another lock file.
        with self._opening:
            if self._descriptors is None:
                self._descriptors = _open_and_lock(self.path)

    async def _perform(self, call: Callable[[], T]) -> T:
        """Perform a call in a thread of its own."""
        return await self._new_thread().end(call)

    def _new_thread(self) -> FileThread:
        self._threads = [thread for thread in self._threads if thread.is_alive]
        if len(self._threads) >= MOST_THREADS:
            raise DiskHangs(errno.ETIMEDOUT, f"{MOST_THREADS} file operations have not ended")
        self._threads.append(thread := FileThread())
        return thread

    def _open_file(self, name: str, flags: int) -> int:
        assert self._descriptors is not None
        return _open_without_links(self.path, self._descriptors[0], _checked(name), flags)


def _checked(name: str) -> str:
    if not parse_names([name]):
        raise ValueError(f"{name!r} is not a name that the store gives its files")
    return name


def _open_without_links(path: Path, directory: int, name: str, flags: int) -> int:
    """Open a file of the directory. O_NONBLOCK: a pipe of that name must not block the store."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=directory)
    except OSError as problem:
        if problem.errno != errno.ELOOP:
            raise
        message = "is a symbolic link, and links are not followed: remove it"
        raise OSError(errno.ELOOP, message, str(path / name)) from problem


def _open_and_lock(path: Path) -> tuple[int, int]:
    """Create what is missing of the path, and return descriptors of the directory and its lock."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        # Without a sync of its parent, a power cut could take the new directory.
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _keep_others_out(path, descriptor)
        return descriptor, _lock(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _keep_others_out(path: Path, directory: int) -> None:
    """Take the right to write from other users, who could replace files and the lock.

    A group may have it if somebody else owns the directory: Kubernetes gives a volume to a pod so.
    A directory that is made to be shared (sticky, as /tmp is) is left as it is, and refused.
    Raises DirectoryExposed.
    """
    status = os.fstat(directory)
    mode = stat.S_IMODE(status.st_mode)
    is_ours = status.st_uid == os.geteuid() and not mode & stat.S_ISVTX
    if is_ours and mode & _OTHERS_WRITE:
        with suppress(OSError):  # a disk without modes, or a read-only one
            os.fchmod(directory, mode & ~_OTHERS_WRITE)
            log.warning("DATA_DIR %s was writable by others (mode %04o): no longer", path, mode)
        mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & stat.S_IWOTH and not os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        raise DirectoryExposed(
            f"DATA_DIR {path} can be written by every user of this machine (mode {mode:04o}): set "
            "it to a folder below, which the store creates for itself alone, or have the owner "
            "of this one take the right away (chmod o-w)"
        )


def _lock(path: Path, directory: int) -> int:
    """Lock the directory until the process ends or closes the descriptor that this returns.

    Raises DirectoryInUse.
    """
    descriptor = _open_lock(path, directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_owner(descriptor)
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


def _open_lock(path: Path, directory: int) -> int:
    try:
        return _open_without_links(path, directory, LOCK_NAME, os.O_RDWR | os.O_CREAT)
    except OSError as problem:
        if problem.errno != errno.EROFS:
            raise
    # A disk that became read-only can still be read, and what is on it served (D5).
    return _open_without_links(path, directory, LOCK_NAME, os.O_RDONLY)


def _write_owner(descriptor: int) -> None:
    """Write this process's id into the lock file, for the message that a second process gives.

    A full or read-only disk does not weaken the lock; then only the message says less.
    """
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return
    os.ftruncate(descriptor, 0)
    try:
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as problem:
        if problem.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
