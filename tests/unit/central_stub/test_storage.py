"""The folder: everything acknowledged is there after any restart."""

import asyncio
import os
from pathlib import Path

import pytest

from central_stub import storage as storage_module
from central_stub.ledger import Ledger
from central_stub.rules import Update
from central_stub.storage import FolderStorage, StorageError

NOON = 1_750_000_000.0


def opened(folder: Path) -> tuple[Ledger, FolderStorage]:
    """Load the ledger of a folder."""
    ledger, storage = Ledger(generation="new"), FolderStorage(folder)
    try:
        ledger.replay(storage.load())
    except StorageError:
        storage.abandon()
        raise
    storage.begin(ledger.backup)
    ledger.record = storage.record
    return ledger, storage


def fill(ledger: Ledger, first: int, last: int) -> None:
    for number in range(first, last):
        ledger.create({"productId": f"P{number:04}", "available": 5}, NOON)
        ledger.update(Update(f"P{number:04}", -1, 1, f"k{number}"), NOON)


def newest(folder: Path, kind: str) -> Path:
    return max(folder.glob(f"{kind}-*.jsonl"), key=lambda path: int(path.stem.split("-")[1]))


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def count(folder: Path, kind: str) -> int:
    return len(list(folder.glob(f"{kind}-*")))


async def written(folder: Path, products: int) -> Ledger:
    """Make a ledger of that many products, with its storage as `kill -9` leaves it."""
    ledger, storage = opened(folder)
    fill(ledger, 0, products)
    await storage.synced()
    storage.abandon()
    return ledger


async def test_a_killed_ledger_comes_back_whole(tmp_path: Path) -> None:
    """Same generation, products, log and remembered keys."""
    before = await written(tmp_path, 20)

    after, storage = opened(tmp_path)
    storage.abandon()

    assert before.backup() == after.backup()
    assert 40 == after.head
    assert {0o600} == modes(tmp_path)


async def test_change_that_was_not_synced_can_be_lost(tmp_path: Path) -> None:
    """A kill before the fsync loses it, and nothing else."""
    ledger, storage = opened(tmp_path)
    fill(ledger, 0, 3)
    await storage.synced()
    fill(ledger, 3, 5)
    storage.abandon()

    after, again = opened(tmp_path)
    again.abandon()

    assert 3 == len(after)


async def test_one_disk_operation_serves_all_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred concurrent writers, a few fsyncs."""
    ledger, storage = opened(tmp_path)
    synced: list[int] = []

    def counted(file: int) -> None:
        synced.append(file)
        os.fsync(file)

    monkeypatch.setattr("os.fdatasync", counted)

    async def write(number: int) -> None:
        fill(ledger, number, number + 1)
        await storage.synced()

    await asyncio.gather(*(write(number) for number in range(100)))
    await storage.close()

    assert 1 <= len(synced) <= 3


@pytest.mark.parametrize("torn", [1, 5, 40])
async def test_torn_end_is_ignored(tmp_path: Path, torn: int) -> None:
    """The last record is lost, all others are there, and writing continues."""
    await written(tmp_path, 10)
    journal = newest(tmp_path, "journal")
    journal.write_bytes(journal.read_bytes()[:-torn])

    after, storage = opened(tmp_path)
    fill(after, 100, 101)
    await storage.synced()
    storage.abandon()

    assert 19 + 2 == opened_and_left(tmp_path).head


def opened_and_left(folder: Path) -> Ledger:
    ledger, storage = opened(folder)
    storage.abandon()
    return ledger


async def test_every_prefix_of_a_journal_is_an_earlier_state(tmp_path: Path) -> None:
    """The head is the number of complete lines."""
    await written(tmp_path / "whole", 3)
    journal = newest(tmp_path / "whole", "journal").read_bytes()

    for length in range(0, len(journal), 37):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "journal-1.jsonl").write_bytes(journal[:length])
        assert journal[:length].count(b"\n") == opened_and_left(folder).head


@pytest.mark.parametrize("kind", ["journal", "snapshot"])
async def test_damage_elsewhere_stops_the_start(tmp_path: Path, kind: str) -> None:
    """The error names file and line, and no file is changed."""
    await written(tmp_path, 10)
    opened_and_left(tmp_path)
    await written_again(tmp_path)
    path = newest(tmp_path, kind)
    damaged = bytearray(path.read_bytes())
    damaged[20] ^= 1
    path.write_bytes(damaged)

    with pytest.raises(StorageError, match=f"{path.name} is damaged at line 1: "):
        opened(tmp_path)

    assert bytes(damaged) == path.read_bytes()


async def written_again(folder: Path) -> None:
    ledger, storage = opened(folder)
    fill(ledger, 50, 60)
    await storage.synced()
    storage.abandon()


async def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    """A second one is refused."""
    _, storage = opened(tmp_path)

    with pytest.raises(StorageError, match="in use by another central-stub"):
        FolderStorage(tmp_path)
    storage.abandon()


async def test_long_journal_is_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One snapshot, one short journal and the same ledger, during writes."""
    monkeypatch.setattr(storage_module, "COMPACT_BYTES", 2000)
    ledger, storage = opened(tmp_path)
    for number in range(60):
        fill(ledger, number, number + 1)
        await storage.synced()
    await storage.close()

    assert (1, 1) == (count(tmp_path, "snapshot"), count(tmp_path, "journal"))
    assert newest(tmp_path, "snapshot").name != "snapshot-1.jsonl"
    assert ledger.backup() == opened_and_left(tmp_path).backup()


async def test_after_a_failed_fsync_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the disk works again: the pages of the failed fsync may be lost."""
    ledger, storage = opened(tmp_path)

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", broken)
        fill(ledger, 0, 1)
        with pytest.raises(StorageError, match="cannot be written: Input/output error"):
            await storage.synced()

    fill(ledger, 1, 2)
    with pytest.raises(StorageError):
        await storage.synced()
    storage.abandon()


def test_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    """The path and the reason."""
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match=r"file/data cannot be used: Not a directory"):
        FolderStorage(tmp_path / "file" / "data")
