"""A journal that cannot be begun leaves no file open."""

from __future__ import annotations

import errno

import pytest

from store_cache.storage.directory import File
from store_cache.storage.journal import Journal
from store_cache.storage.memory_directory import MemoryDirectory


class FullFile(File):
    def __init__(self) -> None:
        self.is_closed = False

    async def append(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no room")

    async def sync(self) -> None: ...

    async def write_durably(self, data: bytes) -> None:
        await self.append(data)

    async def close(self) -> None:
        self.is_closed = True


class FullDirectory(MemoryDirectory):
    def __init__(self) -> None:
        super().__init__()
        self.file = FullFile()

    async def create(self, name: str) -> File:
        return self.file


async def test_a_journal_without_room_for_its_header_is_closed() -> None:
    """[D5] The store tries again every half minute: descriptors would run out."""
    directory = FullDirectory()
    with pytest.raises(OSError, match="no room"):
        await Journal.create(directory, 1, about={})

    assert directory.file.is_closed
