"""A folder that may not be there yet: tried again at every call until it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from store_cache.storage.directory import DirectoryInUse, LocalDirectory
from store_cache.storage.lazy_directory import LazyDirectory


async def test_it_is_opened_when_it_is_first_needed(tmp_path: Path) -> None:
    """[D5] Making it touches nothing; the first call creates the folder."""
    path = tmp_path / "data"
    folder = LazyDirectory(path)
    before = path.exists()
    names = await folder.names()
    await folder.close()

    assert (False, [], True) == (before, names, path.is_dir())


async def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    """[D5] A disk that is mounted later is found by the next call."""
    path = tmp_path / "data"
    path.write_text("no folder")
    folder = LazyDirectory(path)
    with pytest.raises(OSError, match="data"):
        await folder.names()
    path.unlink()
    file = await folder.create("journal-1.jsonl")
    await file.write_durably(b"{}\n")
    await file.close()
    await folder.sync()
    await folder.rename("journal-1.jsonl", "journal-2.jsonl")
    read = [chunk async for chunk in folder.read("journal-2.jsonl")]
    size = await folder.size("journal-2.jsonl")
    await folder.remove("journal-2.jsonl")
    names = await folder.names()
    await folder.close()

    assert ([b"{}\n"], 3, []) == (read, size, names)


async def test_another_process_keeps_it_out_until_it_ends(tmp_path: Path) -> None:
    """[D6] The lock of another holder is an error of its own kind; once let go, the folder opens.
    Closing lets others in, twice as well as once."""
    other = await LocalDirectory.open(tmp_path)
    folder = LazyDirectory(tmp_path)
    with pytest.raises(DirectoryInUse, match="in use by another store-cache"):
        await folder.names()
    await other.close()
    await folder.names()
    await folder.close()
    await folder.close()
    again = await LocalDirectory.open(tmp_path)
    await again.close()
