"""The directory in memory behaves as one on disk, but for failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from store_cache.storage.directory import Directory, LocalDirectory
from store_cache.storage.memory_directory import MemoryDirectory

ONE, OTHER = "journal-1.jsonl", "journal-2.jsonl"


@pytest.fixture(params=["memory", "disk"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    return MemoryDirectory() if request.param == "memory" else LocalDirectory(tmp_path)


async def test_what_is_written_is_read_in_chunks(directory: Directory) -> None:
    file = await directory.create(ONE)
    await file.append(b"abc")
    await file.sync()
    await file.write_durably(b"de")
    await file.close()

    assert [b"ab", b"cd", b"e"] == [chunk async for chunk in directory.read(ONE, 2)]
    assert 5 == await directory.size(ONE)


async def test_files_are_created_renamed_and_removed(directory: Directory) -> None:
    for name in (OTHER, ONE):
        await (await directory.create(name)).close()
    created = await directory.names()
    await directory.remove(ONE)
    await directory.rename(OTHER, ONE)
    await directory.sync()

    assert [ONE, OTHER] == sorted(created)
    assert [ONE] == await directory.names()


async def test_a_name_that_is_taken_or_missing_is_an_error(directory: Directory) -> None:
    await (await directory.create(ONE)).close()
    with pytest.raises(FileExistsError):
        await directory.create(ONE)
    with pytest.raises(FileNotFoundError):
        await directory.remove(OTHER)
    with pytest.raises(FileNotFoundError):
        await directory.rename(OTHER, ONE)
    with pytest.raises(FileNotFoundError):
        await directory.size(OTHER)
    with pytest.raises(FileNotFoundError):
        [chunk async for chunk in directory.read(OTHER)]

    assert [ONE] == await directory.names()
