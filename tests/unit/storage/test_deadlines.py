"""Deadlines for a disk that hangs (D5)."""

from __future__ import annotations

import asyncio

import pytest

from store_cache.storage.deadlines import OPERATION_SECONDS, SYNC_BYTES_PER_SECOND, TimedFile
from store_cache.storage.directory import DiskHangs, File
from tests.harness.virtual_time import in_virtual_time


class HangingFile(File):
    """No operation of it ends while it `hangs`."""

    def __init__(self) -> None:
        self.hangs = True

    async def append(self, data: bytes) -> None:
        await self._operate()

    async def sync(self) -> None:
        await self._operate()

    async def write_durably(self, data: bytes) -> None:
        await self._operate()

    async def close(self) -> None:
        await self._operate()

    async def _operate(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()


async def seconds_to_fail(operation: asyncio.Future[None]) -> float:
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    with pytest.raises(DiskHangs):
        await operation
    return loop.time() - began_at


@in_virtual_time
async def test_a_file_that_hangs_is_closed_without_another_wait() -> None:
    """Who closes it waited for it before."""
    file = TimedFile(HangingFile())
    first = await seconds_to_fail(asyncio.ensure_future(file.append(b"x")))
    began_at = asyncio.get_running_loop().time()
    await file.close()

    assert OPERATION_SECONDS == pytest.approx(first, abs=0.01)
    assert began_at == asyncio.get_running_loop().time()


@in_virtual_time
async def test_only_what_is_not_synced_gives_a_sync_more_time() -> None:
    disk = HangingFile()
    disk.hangs = False
    file = TimedFile(disk)
    await file.append(b"x" * 3 * SYNC_BYTES_PER_SECOND)
    await file.sync()
    await file.write_durably(b"x" * 3 * SYNC_BYTES_PER_SECOND)
    await file.append(b"x" * 2 * SYNC_BYTES_PER_SECOND)
    disk.hangs = True
    seconds = await seconds_to_fail(asyncio.ensure_future(file.sync()))

    assert OPERATION_SECONDS + 2.0 == pytest.approx(seconds, abs=0.01)
