"""A directory in memory: what is on it lives as long as the object.

For tests of software that talks to a store (`store_cache.testing`), which shall leave no files.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator

from store_cache.storage.directory import READ_BYTES, Directory, File


class MemoryFile(File):
    def __init__(self, content: bytearray) -> None:
        self._content = content

    async def append(self, data: bytes) -> None:
        self._content += data

    async def sync(self) -> None:
        """Nothing is more durable than it was."""

    async def write_durably(self, data: bytes) -> None:
        self._content += data

    async def close(self) -> None:
        """Nothing is held open."""


class MemoryDirectory(Directory):
    """Every operation succeeds, unless a name is missing or taken."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}

    async def names(self) -> list[str]:
        return sorted(self._files)

    async def create(self, name: str) -> File:
        if name in self._files:
            raise FileExistsError(errno.EEXIST, "there is a file of that name", name)
        self._files[name] = bytearray()
        return MemoryFile(self._files[name])

    async def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]:
        content = bytes(self._named(name))
        for start in range(0, len(content), chunk_bytes):
            yield content[start : start + chunk_bytes]

    async def rename(self, old: str, new: str) -> None:
        self._files[new] = self._named(old)
        del self._files[old]

    async def remove(self, name: str) -> None:
        self._named(name)
        del self._files[name]

    async def sync(self) -> None:
        """Nothing is more durable than it was."""

    async def size(self, name: str) -> int:
        return len(self._named(name))

    async def check(self) -> None:
        """It cannot be deleted."""

    async def reopen(self) -> None:
        """It is never closed."""

    def _named(self, name: str) -> bytearray:
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", name)
        return self._files[name]
