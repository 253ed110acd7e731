"""The disk fails, is damaged, or belongs to another process."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import orjson
import pytest

from store_cache.storage.directory import DirectoryInUse
from store_cache.storage.files import CHECK_SECONDS
from store_cache.storage.framing import FORMAT, NewerFormat, frame
from tests.harness.clients import checked
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.scenarios.in_process import Store
from tests.scenarios.shop import InProcessShop, a_shop, until

HEAL_SECONDS = 31.0
"""A failing disk is tried again every half minute."""


# -- a disk that fails -------------------------------------------------------------------------


async def test_a_shop_sells_while_its_disk_fails(tmp_path: Path) -> None:
    """[D5] The disk fills up: the store follows, serves and sells on in memory, and every answer
    says so. When there is room again, a new snapshot holds everything."""
    async with a_shop(tmp_path) as shop:
        disk = await _put_on_failing_disk(shop.store)
        disk.room = 0
        async with shop.reading() as reads:
            await shop.central.set("P-001", available=7)
            await shop.until_in_sync()
            sold = checked(await shop.store.update("P-002", -2, 1, "order-1"))
        answer = await shop.store.get("P-002")
        status, health = await shop.store.status(), await shop.store.health()

        assert "store-cache; hit; detail=not-durable" == answer.headers["Cache-Status"]
        assert (998, 998) == (sold["newQuantity"], answer.json["available"])
        assert "degraded" == status["state"]["name"] == health["status"]
        assert "No space left on device" in status["disk"]["problem"]
        assert "promises 2 and 7" in status["disk"]["promise"]
        assert [] == reads.problems
        disk.room = None
        await asyncio.sleep(HEAL_SECONDS)
        await until(lambda: _is_durable(shop.store))
        await _serves_all_of_it_after_a_restart(shop)


async def _put_on_failing_disk(store: Store) -> FaultyDirectory:
    """Restart the store on what its folder holds, on a disk that a test can fill up."""
    await store.stop()
    disk = FaultyDirectory(_files(store.data_dir))
    store.disk = lambda _: disk
    await store.start()
    return disk


async def test_a_folder_that_cannot_be_made_is_no_reason_not_to_start(tmp_path: Path) -> None:
    """[D5] DATA_DIR cannot be created: the store starts, syncs, sells, and says that nothing is on
    disk. It recovers without a restart."""
    in_the_way = tmp_path / "store-s1"
    in_the_way.write_text("a file where a folder should be")
    async with a_shop(tmp_path, state="degraded") as shop:
        checked(await shop.store.update("P-002", -2, 1, "order-1"))
        status = await shop.store.status()

        assert not status["durable"]
        assert "store-s1" in status["disk"]["problem"]
        in_the_way.unlink()
        await asyncio.sleep(HEAL_SECONDS)
        await until(lambda: _is_durable(shop.store))
        await shop.until_live()
        await _serves_all_of_it_after_a_restart(shop)


@pytest.mark.parametrize("how", ["deleted", "emptied", "moved", "replaced"])
async def test_a_directory_that_is_deleted_under_the_store_is_made_anew(
    tmp_path: Path, how: str
) -> None:
    """[D5] Writes to deleted files succeed, and are lost with the process. The store notices within
    seconds, makes the directory anew and locks it, and a new snapshot holds everything."""
    async with a_shop(tmp_path) as shop:
        _take_away(shop.store.data_dir, how)
        checked(await shop.store.update("P-002", -2, 1, "order-1"))
        await asyncio.sleep(CHECK_SECONDS + 1.0)
        await until(lambda: _is_durable(shop.store))
        second = Store(Clock(), shop.central.url, shop.store.data_dir)
        with pytest.raises(DirectoryInUse):
            await second.start()
        await second.close()
        await _serves_all_of_it_after_a_restart(shop)


def _take_away(data_dir: Path, how: str) -> None:
    if how == "emptied":
        for file in data_dir.iterdir():
            file.unlink()
    elif how == "deleted":
        shutil.rmtree(data_dir)
    else:
        data_dir.rename(data_dir.with_name("elsewhere"))
    if how == "replaced":
        shutil.copytree(data_dir.with_name("elsewhere"), data_dir)


async def test_a_second_store_may_take_the_path_of_a_deleted_directory(tmp_path: Path) -> None:
    """[D5] [D6] The first one says so and goes on in memory; it takes nothing from the second."""
    async with a_shop(tmp_path) as shop:
        shutil.rmtree(shop.store.data_dir)
        second = Store(Clock(), shop.central.url, shop.store.data_dir)
        await second.start()
        await asyncio.sleep(CHECK_SECONDS + 1.0)
        checked(await shop.store.update("P-002", -2, 1, "order-1"))
        first, other = await shop.store.status(), await second.status()
        await second.close()
        await asyncio.sleep(HEAL_SECONDS)

        assert "in use by another store-cache" in first["disk"]["problem"]
        assert other["durable"]
        assert await _is_durable(shop.store)


async def _serves_all_of_it_after_a_restart(shop: InProcessShop) -> None:
    shown = await shop.store.rows()
    await shop.central.stop()
    await shop.store.stop()
    await shop.store.start()

    assert shown == await shop.store.rows()
    assert 998 == checked(await shop.store.update("P-002", -2, 1, "order-1"))["newQuantity"]


async def _is_durable(store: Store) -> bool:
    return bool((await store.status())["durable"])


# -- files that are not as they were -----------------------------------------------------------


async def test_a_damaged_snapshot_is_put_aside_and_replaced(tmp_path: Path) -> None:
    """[D4] A bit has flipped: nothing wrong is ever served, the status says what was found, the
    file is kept under another name, and a full sync brings the catalogue back."""
    async with a_shop(tmp_path) as shop:
        await shop.store.stop()
        [snapshot] = shop.store.data_dir.glob("snapshot-*.jsonl")
        _flip_a_bit(snapshot)
        await shop.store.start()
        await shop.until_live()
        findings = (await shop.store.status())["disk"]["findings"]

        assert [True] == [snapshot.name in finding for finding in findings]
        assert 1 == len([*shop.store.data_dir.glob("*.damaged-*")])
        assert ["first start; files were damaged"] == await shop.store.reasons()


async def test_a_damaged_journal_is_followed_by_a_full_sync(tmp_path: Path) -> None:
    """[D4] A record in the middle is damaged: an older state, which is certain, is served at once,
    and a full sync brings the rest."""
    async with a_shop(tmp_path) as shop:
        for number in range(3):
            await shop.central.set(f"P-00{number}", available=number)
            await shop.until_in_sync()
        await shop.store.stop()
        [journal] = shop.store.data_dir.glob("journal-*.jsonl")
        first = journal.read_bytes().splitlines(keepends=True)
        _flip_a_bit(journal, at=len(first[0]) + len(first[1]) // 2)
        await shop.store.start()
        findings = (await shop.store.status())["disk"]["findings"]
        await shop.until_live()

        assert [True] == [journal.name in finding for finding in findings]
        assert ["files were damaged"] == await shop.store.reasons()


async def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    """[D4] The power failed within a record that was never visible: it is cut off, the feed brings
    it again, and no full sync is needed."""
    async with a_shop(tmp_path) as shop:
        await shop.central.set("P-001", available=1)
        await shop.until_in_sync()
        await shop.store.stop()
        [journal] = shop.store.data_dir.glob("journal-*.jsonl")
        journal.write_bytes(journal.read_bytes()[:-20])
        await shop.store.start()
        await shop.until_live()

        assert [] == await shop.store.reasons()


def _flip_a_bit(file: Path, at: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    file.write_bytes(data)


async def test_files_of_a_newer_version_are_refused_and_kept(tmp_path: Path) -> None:
    """[D6] The start ends with a message, and every file is as it was."""
    async with a_shop(tmp_path) as shop:
        await shop.store.stop()
        [snapshot] = shop.store.data_dir.glob("snapshot-*.jsonl")
        number = int(snapshot.stem.rpartition("-")[2])
        header = {"file": "snapshot", "format": FORMAT + 1, "number": number}
        snapshot.write_bytes(frame("header", orjson.dumps(header)))
        before = _files(shop.store.data_dir)
        with pytest.raises(NewerFormat, match="newer version"):
            await shop.store.start()

        assert before == _files(shop.store.data_dir)


async def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    """[D6] The second one ends with a message; the first one goes on undisturbed."""
    async with a_shop(tmp_path) as shop:
        second = Store(Clock(), shop.central.url, shop.store.data_dir)
        with pytest.raises(DirectoryInUse, match="in use by another"):
            await second.start()
        await second.close()
        await shop.central.set("P-001", available=1)
        await shop.until_live()

        assert ["first start"] == await shop.store.reasons()


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "lock"}
