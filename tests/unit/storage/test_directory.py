"""The local folder: modes, names, links, the lock, and the archive on a real disk."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import time
from pathlib import Path

import pytest

from store_cache.storage.directory import DirectoryInUse, LocalDirectory
from store_cache.storage.files import CacheFiles
from tests.unit.storage.small_store import NOW, SmallStore, run_script, state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_missing_folder_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    """Folder 0700, files 0600, whatever the umask allows (D1)."""
    path = tmp_path / "deep" / "data"
    before = os.umask(0)
    try:
        folder = await LocalDirectory.open(path)
        file = await folder.create("journal-1.jsonl")
    finally:
        os.umask(before)
    await file.close()
    await folder.close()

    assert mode(path) == mode(path.parent) == 0o700
    assert mode(path / "journal-1.jsonl") == mode(path / "lock") == 0o600


async def test_bytes_come_back_in_chunks(tmp_path: Path) -> None:
    """Appended, synced, read, renamed, measured, removed."""
    folder = await LocalDirectory.open(tmp_path)
    file = await folder.create("journal-1.jsonl")
    await file.append(b"one,")
    await file.sync()
    await file.write_durably(b"two")
    await file.close()
    await folder.rename("journal-1.jsonl", "journal-1.jsonl.damaged-1")
    await folder.sync()
    name = "journal-1.jsonl.damaged-1"
    chunks = [chunk async for chunk in folder.read(name, 4)]
    names, size = await folder.names(), await folder.size(name)
    await folder.remove(name)

    assert (chunks, names, size) == ([b"one,", b"two"], [name], 7)
    assert await folder.names() == []
    await folder.close()


async def test_a_closed_file_takes_no_more_and_may_be_closed_again(tmp_path: Path) -> None:
    """Its number may belong to another file by now."""
    folder = await LocalDirectory.open(tmp_path)
    file = await folder.create("journal-1.jsonl")
    await file.close()
    await file.close()
    with pytest.raises(OSError, match="closed already"):
        await file.append(b"x")
    await folder.close()


async def test_a_write_whose_caller_was_cancelled_is_over_before_the_file_is_closed(
    tmp_path: Path,
) -> None:
    """Its thread goes on: what was given to it comes into this file, whole, or into none (D2)."""
    folder = await LocalDirectory.open(tmp_path)
    file = await folder.create("journal-1.jsonl")
    writes = [asyncio.ensure_future(file.write_durably(b"%d\n" % number)) for number in range(9)]
    await asyncio.sleep(0)
    for write in writes:
        write.cancel()
    await file.close()
    await folder.close()

    assert b"".join(b"%d\n" % n for n in range(9)) == (tmp_path / "journal-1.jsonl").read_bytes()


def test_a_loop_may_end_before_its_last_write(tmp_path: Path) -> None:
    """Nobody waits for that one any more; its thread ends without a word, and the process, too."""

    async def begin() -> None:
        folder = await LocalDirectory.open(tmp_path)
        file = await folder.create("journal-1.jsonl")
        appending = asyncio.ensure_future(file.append(b"x" * 1_000_000))
        await asyncio.sleep(0)
        assert not appending.cancelled()

    asyncio.run(begin())
    deadline = time.monotonic() + 5.0
    while (tmp_path / "journal-1.jsonl").stat().st_size < 1_000_000:
        assert time.monotonic() < deadline


async def test_an_existing_file_is_never_written_to(tmp_path: Path) -> None:
    """Files are created, not opened for appending (D3)."""
    folder = await LocalDirectory.open(tmp_path)
    (tmp_path / "journal-1.jsonl").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        await folder.create("journal-1.jsonl")
    await folder.close()

    assert (tmp_path / "journal-1.jsonl").read_bytes() == b"old"


@pytest.mark.parametrize(
    "name", ["../x", "lock", "notes.txt", "journal-1.jsonl/..", "journal-.jsonl"]
)
async def test_only_the_stores_own_names_are_used(tmp_path: Path, name: str) -> None:
    """Anything else in the folder is invisible and untouched (T21)."""
    folder = await LocalDirectory.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="none of the names"):
        await folder.create(name)
    with pytest.raises(ValueError, match="none of the names"):
        await folder.remove(name)

    assert await folder.names() == []
    await folder.close()


async def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link under a file's name is neither read nor written through (T21)."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    path = tmp_path / "data"
    folder = await LocalDirectory.open(path)
    (path / "snapshot-1.jsonl").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link") as refused:
        [chunk async for chunk in folder.read("snapshot-1.jsonl")]
    with pytest.raises(FileExistsError):
        await folder.create("snapshot-1.jsonl")
    loaded = await CacheFiles(folder, now=lambda: NOW).load()
    await folder.close()

    assert refused.value.errno == errno.ELOOP
    assert loaded.damaged
    assert "symbolic link" in loaded.findings[0]
    assert outside.read_bytes() == b"secret"


async def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Else locking would truncate a file elsewhere."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        await LocalDirectory.open(tmp_path / "data")

    assert outside.read_bytes() == b"precious"


async def test_a_second_opening_is_refused_and_says_who_has_the_folder(tmp_path: Path) -> None:
    """Two processes never share a folder (D6); once the first lets go, the next may have it."""
    first = await LocalDirectory.open(tmp_path)
    with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}: stop that one"):
        await LocalDirectory.open(tmp_path)
    await first.close()

    await (await LocalDirectory.open(tmp_path)).close()


HOLD = """
import asyncio, pathlib, sys
from store_cache.storage.directory import LocalDirectory
asyncio.run(LocalDirectory.open(pathlib.Path(sys.argv[1])))
print("open", flush=True)
sys.stdin.read()
"""


async def test_the_lock_ends_with_its_process(tmp_path: Path, project_root: Path) -> None:
    """Another process has the folder until it is killed; no stale lock is left."""
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(tmp_path), cwd=project_root, stdin=pipe, stdout=pipe
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"open\n"
    with pytest.raises(DirectoryInUse, match=f"process {holder.pid}"):
        await LocalDirectory.open(tmp_path)
    holder.kill()
    await holder.communicate()

    await (await LocalDirectory.open(tmp_path)).close()


async def test_a_path_that_is_no_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The start says so, and does not replace it."""
    (tmp_path / "data").write_bytes(b"x")
    with pytest.raises(NotADirectoryError, match="data"):
        await LocalDirectory.open(tmp_path / "data")


async def test_the_archive_works_on_a_real_disk(tmp_path: Path) -> None:
    """The script of the crash tests, then a start from what it left."""
    folder = await LocalDirectory.open(tmp_path)
    store = SmallStore(folder)
    await run_script(store)
    await store.archive.close()
    second = SmallStore(folder)
    loaded = await second.start()
    await second.archive.close()
    names = await folder.names()
    await folder.close()

    assert state(second.catalogue) == state(store.catalogue)
    assert loaded.findings == ()
    assert names == ["journal-6.jsonl", "snapshot-6.jsonl"]
