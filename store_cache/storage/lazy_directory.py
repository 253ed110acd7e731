"""A folder that may not be there yet: opened when first needed, and again until it works (D5).

Knows: when to try. Refuses to know: what lies in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from store_cache.storage.directory import READ_BYTES, Directory, File, LocalDirectory


class LazyDirectory(Directory):
    """`LocalDirectory` at `path`; every call opens it first where that has not succeeded yet.

    Any call may raise OSError, or DirectoryInUse where another process holds the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: LocalDirectory | None = None

    async def _folder(self) -> LocalDirectory:
        if self._opened is None:
            self._opened = await LocalDirectory.open(self._path)
        return self._opened

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def names(self) -> list[str]:
        return await (await self._folder()).names()

    async def create(self, name: str) -> File:
        return await (await self._folder()).create(name)

    async def read(self, name: str, chunk_bytes: int = READ_BYTES) -> AsyncGenerator[bytes, None]:
        async with aclosing((await self._folder()).read(name, chunk_bytes)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def rename(self, old: str, new: str) -> None:
        await (await self._folder()).rename(old, new)

    async def remove(self, name: str) -> None:
        await (await self._folder()).remove(name)

    async def sync(self) -> None:
        await (await self._folder()).sync()

    async def size(self, name: str) -> int:
        return await (await self._folder()).size(name)
