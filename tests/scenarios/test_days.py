"""An ordinary day of one store, and its restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.harness.clients import INVENTORY, checked
from tests.scenarios.in_process import Store
from tests.scenarios.people import trade
from tests.scenarios.shop import a_shop, until


async def test_a_change_at_central_is_seen_at_the_till(tmp_path: Path) -> None:
    """[F1] [E1] The first start reads everything; from then on the feed brings each change: a new
    product, another stock, a deletion."""
    async with a_shop(tmp_path) as shop:
        await shop.central.set("P-001", available=7, price=1.5)
        await shop.central.create({"productId": "P-new", "name": "New", "available": 3})
        await shop.central.delete("P-002")
        await shop.until_in_sync()

        assert ["first start"] == await shop.store.reasons()
        assert 404 == (await shop.store.get("P-002")).status


async def test_a_change_is_seen_at_the_next_poll(tmp_path: Path) -> None:
    """[E1] With POLL_MODE=interval each poll reads all pages that there are."""
    async with a_shop(tmp_path, poll_mode="interval", event_batch_limit=10) as shop:
        for number in range(20):
            await shop.central.sell(f"P-0{number:02}", -1)
        await shop.until_in_sync()

        assert ["first start"] == await shop.store.reasons()


async def test_each_update_of_a_batch_stands_alone(tmp_path: Path) -> None:
    """[W1] [W6] One is applied, one meets a conflict, one an unknown product; all three
    are shown as Central has them, and a repeat of the batch gets the same answers."""
    async with a_shop(tmp_path) as shop:
        sent = [("P-001", 1), ("P-002", 9), ("P-none", 1)]
        updates = [
            {"productId": i, "delta": -1, "version": version, "idempotencyKey": f"order-{i}"}
            for i, version in sent
        ]
        path = f"{INVENTORY}/batch-updates"
        answer = checked(await shop.store.call("POST", path, json={"updates": updates}))
        again = checked(await shop.store.call("POST", path, json={"updates": updates}))
        await shop.until_in_sync()

        assert (3, 1, 2) == (answer["totalCount"], answer["successCount"], answer["failureCount"])
        assert [None, "version_conflict", "product_not_found"] == [
            result.get("errorType") for result in answer["results"]
        ]
        assert answer == again
        assert 999 == shop.central.stock("P-001")


async def test_a_write_is_read_back_at_once(tmp_path: Path) -> None:
    """[W6] The read after a write's answer shows it, though no event has come yet."""
    async with a_shop(tmp_path) as shop:
        await shop.central.fault("delay", routes=["events"], when="after", seconds=1)
        await shop.central.set("P-000", available=999)  # ends the poll that is being held
        answer = checked(await shop.store.update("P-001", -2, 1, "order-1"))
        row = await shop.store.row("P-001")

        assert row is not None
        assert (998, 2) == (row["available"], row["version"])
        assert (998, 2) == (answer["newQuantity"], answer["newVersion"])
        assert 998 == shop.central.stock("P-001")


async def test_a_restart_with_central_down_serves_from_disk(tmp_path: Path) -> None:
    """[D7] [D2] A store that starts while Central is away serves what it had shown. Once
    Central is back, it goes on with the feed where it was: no full sync."""
    async with a_shop(tmp_path) as shop:
        await shop.central.set("P-001", available=5)
        await shop.until_in_sync()
        shown = await shop.store.rows()
        await shop.store.stop()
        async with shop.central.out_of_sight() as hidden:
            await hidden.set("P-002", available=6)
            await shop.store.start()

            assert shown == await shop.store.rows()
            assert "cached" == await shop.store.state()
            assert 503 == (await shop.store.update("P-001", -1, 2, "order-1")).status
        await shop.until_live()

        assert [] == await shop.store.reasons()


async def test_a_killed_store_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """[D2] [W1] After `kill -9` and a start with Central down, every answered sale is
    there, and a repeat of it gets its first answer, not another sale."""
    async with a_shop(tmp_path) as shop:
        await trade(shop.store, shop.central, ["P-001", "P-002"])
        answer = checked(await shop.store.adjust("P-003", -4, "last-sale"))
        shown = await shop.store.rows()
        await shop.store.kill()
        await shop.central.stop()
        await shop.store.start()
        held = await shop.store.rows()
        repeated = checked(await shop.store.adjust("P-003", -4, "last-sale"))

        assert answer == repeated
        assert shown.keys() == held.keys()
        assert [] == [i for i, row in shown.items() if held[i]["version"] < row["version"]]
        await shop.central.start()
        await shop.until_live()
        assert 996 == shop.central.stock("P-003")
        assert [] == await shop.store.reasons()


async def test_a_kill_in_the_middle_of_sales_loses_and_doubles_none(tmp_path: Path) -> None:
    """[W1] [W5] Tills that were not answered repeat at the store's next process: each sale is
    applied exactly once."""
    async with a_shop(tmp_path) as shop:
        await shop.central.fault("delay", routes=["updates"], when="after", seconds=0.6)
        keys = [f"order-{number}" for number in range(8)]
        calls = [
            asyncio.create_task(shop.store.adjust(f"P-00{n}", -1, key))
            for n, key in enumerate(keys)
        ]
        await until(lambda: sum(row["version"] for row in shop.central.ledger.everything()) > 20)
        await shop.store.kill()
        answered = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(answer, Exception) for answer in answered)
        await shop.central.clear_faults()
        await shop.store.start()
        for number, key in enumerate(keys):
            await _repeated(shop.store, f"P-00{number}", key)
        await shop.until_in_sync()

        assert {999} == {shop.central.stock(f"P-00{number}") for number in range(8)}


async def _repeated(store: Store, product_id: str, key: str) -> None:
    async def is_applied() -> bool:
        return (await store.adjust(product_id, -1, key)).status == 200

    await until(is_applied)
