"""Full syncs on demand, and catalogues that must not be believed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.harness.clients import checked
from tests.scenarios.in_process import Store
from tests.scenarios.people import trade
from tests.scenarios.shop import InProcessShop, a_shop, product, until

MANY = [f"P-{number:03}" for number in range(15)]


async def test_a_catalogue_that_shrank_is_not_believed(tmp_path: Path) -> None:
    """[F5] Central shows a quarter of its products, and no event says why: the full sync is refused
    and reported, and the old catalogue served. An admin may accept the new one at once."""
    async with a_shop(tmp_path) as shop, shop.reading() as reads:
        shown = await shop.store.rows()
        for product_id in MANY:
            await shop.central.fault("lie", productId=product_id, attributes=None)
        refused = await shop.store.force()

        assert (502, "sync_failed") == (refused.status, refused.code)
        assert "SNAPSHOT_MIN_PERCENT" in refused.json["error"]["details"]["status"]["errorMessage"]
        assert shown == await shop.store.rows()
        assert "live" == await shop.store.state()
        checked(await shop.store.force(accept="true"))
        assert ({"on demand"}, 5) == (
            set((await shop.store.reasons())[1:]),
            len(await shop.store.rows()),
        )
        await shop.until_in_sync()
        assert [] == reads.problems


async def test_deletions_on_the_feed_explain_a_small_catalogue(tmp_path: Path) -> None:
    """[F5] Products that the feed says are deleted are not missing."""
    async with a_shop(tmp_path) as shop:
        await shop.central.delete(*MANY)
        await shop.until_in_sync()
        checked(await shop.store.force())

        assert 5 == len(await shop.store.rows())


async def test_a_forced_sync_repairs_what_no_event_told(tmp_path: Path) -> None:
    """[F1] The answer comes when it is done: the next read shows Central's row."""
    async with a_shop(tmp_path) as shop:
        await shop.central.fault("lie", productId="P-001", attributes={"shelf": "B", "version": 9})
        answer = checked(await shop.store.force())

        assert "Force sync completed successfully" == answer["message"]
        assert await shop.central.rows() == await shop.store.rows()
        assert ["first start", "on demand"] == await shop.store.reasons()


async def test_calls_during_a_full_sync_share_the_next_one(tmp_path: Path) -> None:
    """[F1] Three calls during a full sync are answered by one full sync that begins after them."""
    async with a_shop(tmp_path) as shop:
        await shop.central.fault("delay", routes=["pages"], seconds=0.2)
        first = asyncio.create_task(shop.store.force())
        await until(lambda: _is_running(shop.store))
        others = [asyncio.create_task(shop.store.force()) for _ in range(3)]
        answers = await asyncio.gather(first, *others)

        assert [200] * 4 == [answer.status for answer in answers]
        assert ["first start", "on demand", "on demand"] == await shop.store.reasons()


async def test_a_client_that_disconnects_stops_no_full_sync(tmp_path: Path) -> None:
    """[F6] It runs to its end."""
    async with a_shop(tmp_path) as shop:
        await shop.central.fault("delay", routes=["pages"], seconds=0.2)
        call = asyncio.create_task(shop.store.force())
        await until(lambda: _is_running(shop.store))
        call.cancel()
        await until(lambda: _has_run(shop, 2))

        assert (await shop.store.status())["lastSyncSuccess"]
        assert ["first start", "on demand"] == await shop.store.reasons()


async def test_a_forced_sync_without_central_says_so(tmp_path: Path) -> None:
    """[F1] [B3] The failure is answered soon, and the store serves on."""
    async with a_shop(tmp_path) as shop:
        await shop.central.stop()
        failed = await shop.store.force()

        assert (503, "sync_failed") == (failed.status, failed.code)
        assert "cannot be reached" in failed.json["error"]["message"]
        assert 20 == len(await shop.store.rows())


async def test_the_catalogue_moves_while_it_is_read(tmp_path: Path) -> None:
    """[F2] [F3] [F4] Products come and go on pages that were read and on pages that were not, and
    tills sell: the new catalogue is complete, and no reader sees a mixture or a step back."""
    products = [product(number) for number in range(60)]
    async with (
        a_shop(tmp_path, products=products) as shop,
        shop.reading() as reads,
    ):
        await shop.central.switch(pageLimit=5)
        await shop.central.fault("delay", routes=["pages"], seconds=0.02)
        run = asyncio.create_task(shop.store.force())
        sales = asyncio.create_task(trade(shop.store, shop.central, ["P-030", "P-031"]))
        for number in range(12):
            await shop.central.delete(f"P-{number:03}")
            await shop.central.create(product(100 + number), product(number, available=5))
            await shop.central.delete(f"P-0{40 + number}")
        checked(await run)
        sold = await sales
        await shop.until_in_sync()

        assert 1000 + sold["P-030"] == shop.central.stock("P-030")
        assert ["first start", "on demand"] == await shop.store.reasons()
        assert [] == reads.problems


async def _is_running(store: Store) -> bool:
    return bool((await store.status())["inProgress"])


async def _has_run(shop: InProcessShop, runs: int) -> bool:
    return len(await shop.store.reasons()) == runs
