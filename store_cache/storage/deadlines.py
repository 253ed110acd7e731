"""A directory whose operations end in time, also on a disk that hangs (D5).

A disk can hang without an error: a controller that stalls, a network share whose server is away.
An operation that takes too long raises DiskHangs, an OSError like that of a disk that fails.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from typing import TypeVar

from store_cache.storage.directory import READ_BYTES, Directory, DiskHangs, File

T = TypeVar("T")

OPERATION_SECONDS = 5.0
"""How long one operation may take. A write that waits for it is still answered within the default
of WRITE_TIMEOUT_SECONDS."""

SYNC_BYTES_PER_SECOND = 1_000_000
"""How fast a disk is at least. A sync of much data may take longer than other operations."""


class TimedDirectory(Directory):
    """A directory in which each operation has a deadline."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def names(self) -> list[str]:
        return await _in_time(self._directory.names())

    async def create(self, name: str) -> File:
        return TimedFile(await _in_time(self._directory.create(name)))

    async def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._directory.read(name, chunk_bytes)) as chunks:
            while chunk := await _in_time(anext(chunks, b"")):
                yield chunk

    async def rename(self, old: str, new: str) -> None:
        await _in_time(self._directory.rename(old, new))

    async def remove(self, name: str) -> None:
        await _in_time(self._directory.remove(name))

    async def sync(self) -> None:
        await _in_time(self._directory.sync())

    async def size(self, name: str) -> int:
        return await _in_time(self._directory.size(name))

    async def check(self) -> None:
        await _in_time(self._directory.check())

    async def reopen(self) -> None:
        await _in_time(self._directory.reopen())


class TimedFile(File):
    """A file in which each operation has a deadline."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._unsynced = 0  # bytes
        self._hangs = False

    async def append(self, data: bytes) -> None:
        self._unsynced += len(data)
        await self._in_time(self._file.append(data))

    async def sync(self) -> None:
        await self._in_time(self._file.sync())
        self._unsynced = 0

    async def write_durably(self, data: bytes) -> None:
        self._unsynced += len(data)
        await self._in_time(self._file.write_durably(data))
        self._unsynced = 0

    async def close(self) -> None:
        """Close the file. If it hangs, it is closed once it does not any more."""
        if not self._hangs:
            await self._in_time(self._file.close())
            return
        with suppress(DiskHangs):
            await _in_time(self._file.close(), 0.0)

    async def _in_time(self, operation: Awaitable[T]) -> T:
        try:
            return await _in_time(
                operation, OPERATION_SECONDS + self._unsynced / SYNC_BYTES_PER_SECOND
            )
        except DiskHangs:
            self._hangs = True
            raise


async def _in_time(operation: Awaitable[T], seconds: float = OPERATION_SECONDS) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await operation
    except TimeoutError as late:
        message = f"the disk hangs: an operation has not ended within {seconds:.0f} s"
        raise DiskHangs(errno.ETIMEDOUT, message) from late
