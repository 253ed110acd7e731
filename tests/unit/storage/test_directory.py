"""The local directory: opening, modes, names, links, the lock, and all files on a real disk."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from store_cache.storage.directory import (
    MOST_THREADS,
    DirectoryExposed,
    DirectoryInUse,
    DiskHangs,
    LocalDirectory,
)
from store_cache.storage.files import CacheFiles
from tests.unit.storage.small_store import NOW, SmallStore, run_script, state

JOURNAL = "journal-1.jsonl"


@asynccontextmanager
async def local(path: Path) -> AsyncIterator[LocalDirectory]:
    directory = LocalDirectory(path)
    try:
        yield directory
    finally:
        await directory.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- opening -------------------------------------------------------------------------------


async def test_the_first_operation_creates_the_directory_for_its_owner_alone(
    tmp_path: Path,
) -> None:
    """[D1] [D5] Nothing is touched before. Directories get 0700, files 0600, whatever the umask."""
    path = tmp_path / "deep" / "data"
    umask = os.umask(0)
    try:
        async with local(path) as directory:
            assert not path.exists()
            await (await directory.create(JOURNAL)).close()
    finally:
        os.umask(umask)

    assert mode(path) == mode(path.parent) == 0o700
    assert mode(path / JOURNAL) == mode(path / "lock") == 0o600


async def test_a_directory_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    """[D5] The error names the path; the next operation finds a disk that is mounted later."""
    path = tmp_path / "data"
    path.write_bytes(b"x")
    async with local(path) as directory:
        with pytest.raises(NotADirectoryError, match="data"):
            await directory.names()
        path.unlink()

        assert await directory.names() == []


async def test_what_is_on_a_read_only_disk_is_locked_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[D5] Only the lock file does not name its owner."""
    async with local(tmp_path) as directory:
        await (await directory.create(JOURNAL)).close()
    open_ = os.open

    def open_for_reading(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open_(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", open_for_reading)
    async with local(tmp_path) as directory, local(tmp_path) as second:
        names = await directory.names()
        with pytest.raises(DirectoryInUse):
            await second.names()

    assert [JOURNAL] == names


async def test_a_second_directory_object_is_refused_until_the_first_is_closed(
    tmp_path: Path,
) -> None:
    """[D6] Two stores never share a directory; the message names the process that has it."""
    async with local(tmp_path) as first, local(tmp_path) as second:
        await first.names()
        with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}: stop that one"):
            await second.names()
        await first.close()

        assert await second.names() == []


HOLD = """
import asyncio, pathlib, sys
from store_cache.storage.directory import LocalDirectory
asyncio.run(LocalDirectory(pathlib.Path(sys.argv[1])).names())
print("open", flush=True)
sys.stdin.read()
"""


async def test_the_lock_ends_with_its_process(tmp_path: Path, project_root: Path) -> None:
    """[D6] Another process has the directory until it is killed; no stale lock is left."""
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(tmp_path), cwd=project_root, stdin=pipe, stdout=pipe
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"open\n"
    async with local(tmp_path) as directory:
        with pytest.raises(DirectoryInUse, match=f"process {holder.pid}"):
            await directory.names()
        holder.kill()
        await holder.communicate()

        assert await directory.names() == []


async def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Writing the process id through it would truncate a file elsewhere (T21)."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        await LocalDirectory(tmp_path / "data").names()

    assert outside.read_bytes() == b"precious"


@pytest.mark.parametrize(("before", "after"), [(0o777, 0o755), (0o770, 0o750), (0o755, 0o755)])
async def test_others_lose_the_right_to_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: int, after: int
) -> None:
    """[D1] T21: a directory of our own is closed to them, with a line that says so."""
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(before)
    async with local(path) as directory:
        await directory.names()

    assert after == mode(path)
    assert (before != after) == ("was writable by others" in caplog.text)


@pytest.mark.parametrize(
    ("given", "is_ours", "is_refused"),
    [(0o1777, True, True), (0o777, False, True), (0o775, False, False), (0o755, False, False)],
)
async def test_a_directory_that_stays_open_to_everybody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int, is_ours: bool, is_refused: bool
) -> None:
    """[D1] T21: one like /tmp, or of another owner. A group of the owner's choice may write. The
    mode stays, nothing is created, and a folder below is taken."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(given)
    if not is_ours:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    async with local(path) as directory:
        if is_refused:
            with pytest.raises(DirectoryExposed, match=f"mode {given:04o}"):
                await directory.names()
        else:
            await directory.names()

    assert given == mode(path)
    assert is_refused == (not (path / "lock").exists())
    monkeypatch.undo()
    async with local(path / "store") as below:
        await below.names()
    assert 0o700 == mode(path / "store")


# -- files ---------------------------------------------------------------------------------


async def test_bytes_come_back_in_chunks(tmp_path: Path) -> None:
    """Appended, synced, read, renamed, measured, removed."""
    name = f"{JOURNAL}.damaged-1"
    async with local(tmp_path) as directory:
        file = await directory.create(JOURNAL)
        await file.append(b"one,")
        await file.sync()
        await file.write_durably(b"two")
        await file.close()
        await directory.rename(JOURNAL, name)
        await directory.sync()
        chunks = [chunk async for chunk in directory.read(name, 4)]
        names, size = await directory.names(), await directory.size(name)
        await directory.remove(name)

        assert (chunks, names, size) == ([b"one,", b"two"], [name], 7)
        assert await directory.names() == []


async def test_a_closed_file_takes_no_more_and_may_be_closed_again(tmp_path: Path) -> None:
    """Its descriptor may belong to another file by now."""
    async with local(tmp_path) as directory:
        file = await directory.create(JOURNAL)
        await file.close()
        await file.close()
        with pytest.raises(OSError, match="closed already"):
            await file.append(b"x")


async def test_a_write_whose_caller_was_cancelled_ends_before_the_file_is_closed(
    tmp_path: Path,
) -> None:
    """[D2] Its thread goes on, so the data reaches this file, whole, and no other."""
    async with local(tmp_path) as directory:
        file = await directory.create(JOURNAL)
        writes = [asyncio.ensure_future(file.write_durably(b"%d\n" % n)) for n in range(9)]
        await asyncio.sleep(0)
        for write in writes:
            write.cancel()
        await file.close()

    assert b"".join(b"%d\n" % n for n in range(9)) == (tmp_path / JOURNAL).read_bytes()


def test_a_loop_may_end_before_its_last_write(tmp_path: Path) -> None:
    """The thread finishes the write and ends without an error."""

    async def begin() -> None:
        file = await LocalDirectory(tmp_path).create(JOURNAL)
        appending = asyncio.ensure_future(file.append(b"x" * 1_000_000))
        await asyncio.sleep(0)
        assert not appending.cancelled()

    asyncio.run(begin())
    deadline = time.monotonic() + 5.0
    while (tmp_path / JOURNAL).stat().st_size < 1_000_000:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("lost", ["directory", "lock"])
async def test_a_directory_that_was_deleted_is_noticed_and_opened_anew(
    tmp_path: Path, lost: str
) -> None:
    """[D5] [D6] The new one is locked, too."""
    path = tmp_path / "data"
    async with local(path) as directory:
        await directory.names()
        await directory.check()
        (path / "lock").unlink()
        if lost == "directory":
            path.rmdir()
        with pytest.raises(OSError, match="deleted, moved or replaced"):
            await directory.check()
        await directory.reopen()
        await directory.check()
        async with local(path) as second:
            with pytest.raises(DirectoryInUse):
                await second.names()


async def test_a_thread_that_hangs_holds_up_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[D5] Other operations go on in other threads, up to a bound. When the disk answers, the
    threads that were given up end."""
    release = threading.Event()
    sync = os.fdatasync
    async with local(tmp_path) as directory:
        monkeypatch.setattr(os, "fdatasync", lambda _: release.wait())
        for number in range(MOST_THREADS):
            file = await directory.create(f"journal-{number}.jsonl")
            syncing = asyncio.ensure_future(file.sync())
            await asyncio.sleep(0)
            syncing.cancel()
            closing = asyncio.ensure_future(file.close())
            await asyncio.sleep(0)
            closing.cancel()
        with pytest.raises(DiskHangs, match="have not ended"):
            await directory.names()
        release.set()
        monkeypatch.setattr(os, "fdatasync", sync)
        async with asyncio.timeout(5.0):
            while True:
                with suppress(DiskHangs):
                    await directory.names()
                    break
                await asyncio.sleep(0)


async def test_an_existing_file_is_never_written_to(tmp_path: Path) -> None:
    """[D3] Files are created, not opened for appending."""
    (tmp_path / JOURNAL).write_bytes(b"old")
    async with local(tmp_path) as directory:
        with pytest.raises(FileExistsError):
            await directory.create(JOURNAL)

    assert (tmp_path / JOURNAL).read_bytes() == b"old"


@pytest.mark.parametrize(
    "name", ["../x", "lock", "notes.txt", "journal-1.jsonl/..", "journal-.jsonl"]
)
async def test_only_the_stores_own_names_are_used(tmp_path: Path, name: str) -> None:
    """Anything else in the directory is invisible and untouched (T21)."""
    (tmp_path / "notes.txt").write_text("mine")
    async with local(tmp_path) as directory:
        with pytest.raises(ValueError, match="not a name that the store gives"):
            await directory.create(name)
        with pytest.raises(ValueError, match="not a name that the store gives"):
            await directory.remove(name)

        assert await directory.names() == []


async def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link under a file's name is neither read nor written through (T21)."""
    outside, path = tmp_path / "outside", tmp_path / "data"
    outside.write_bytes(b"secret")
    path.mkdir()
    (path / "snapshot-1.jsonl").symlink_to(outside)
    async with local(path) as directory:
        with pytest.raises(OSError, match="symbolic link") as refused:
            [chunk async for chunk in directory.read("snapshot-1.jsonl")]
        with pytest.raises(FileExistsError):
            await directory.create("snapshot-1.jsonl")
        loaded = await CacheFiles(directory, store_id="s1", now=lambda: NOW).load()

    assert refused.value.errno == errno.ELOOP
    assert loaded.damaged
    assert "symbolic link" in loaded.findings[0]
    assert outside.read_bytes() == b"secret"


async def test_the_files_work_on_a_real_disk(tmp_path: Path) -> None:
    """The script of the crash tests, then a start from what it left."""
    async with local(tmp_path) as directory:
        store = SmallStore(directory)
        await run_script(store)
        await store.files.close()
        second = SmallStore(directory)
        loaded = await second.start()
        await second.files.close()
        names = await directory.names()

    assert state(second.catalogue) == state(store.catalogue)
    assert loaded.findings == ()
    assert names == ["journal-6.jsonl", "snapshot-6.jsonl"]
