"""Central changes without an event, or comes back as another: verification notices and repairs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from central_stub.switches import Feature, Switches
from tests.harness.clients import STORE_ADMIN_KEY, checked
from tests.scenarios.in_process import Store
from tests.scenarios.shop import a_shop, product, until

MINUTE = 60.0
ADMIN = {"X-API-Key": STORE_ADMIN_KEY}


async def found(store: Store) -> dict[str, Any]:
    verification: dict[str, Any] = (await store.status())["verification"]
    return verification


async def verify(store: Store, **body: Any) -> dict[str, Any]:
    reply = await store.call("POST", "/v1/store/sync/verify", json=body, headers=ADMIN)
    document: dict[str, Any] = checked(reply)
    return document


async def stock(store: Store, product_id: str) -> int:
    row = await store.row(product_id)
    assert row is not None
    return int(row["available"])


async def test_twenty_lies_are_found_and_repaired_within_an_interval(tmp_path: Path) -> None:
    products = [product(number) for number in range(400)]
    lied = {f"P-{number:03}" for number in range(0, 400, 20)}
    async with a_shop(tmp_path, products=products, verify_interval_minutes=1) as shop:
        before = await shop.store.rows()
        for product_id in lied:
            await shop.central.fault("lie", productId=product_id, attributes={"available": 5})
        await until(shop.is_in_sync, within_seconds=2 * MINUTE)
        await until(lambda: _has_ended(shop.store), within_seconds=MINUTE)

        verification = await found(shop.store)
        assert "repaired" == verification["state"]
        assert (20, 20) == (verification["mismatches"], verification["repaired"])
        assert lied == {one["productId"] for one in verification["recent"]}
        assert {("available",)} == {tuple(one["fields"]) for one in verification["recent"]}
        after = await shop.store.rows()
        assert lied == {i for i in before if before[i] != after[i]}
        assert ["first start"] == await shop.store.reasons()
        assert "degraded" == (await shop.store.call("GET", "/health")).json["status"]


async def _has_ended(store: Store) -> bool:
    return bool((await found(store))["state"] in ("equal", "repaired", "differs"))


async def test_equal_catalogues_are_said_to_be_equal(tmp_path: Path) -> None:
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:
        verification = await verify(shop.store)
        assert ("equal", "digest", 0) == tuple(
            verification[name] for name in ("state", "method", "mismatches")
        )
        assert verification["lastRun"] == verification["lastEqual"] is not None


async def test_sales_and_events_meanwhile_are_no_mismatch(tmp_path: Path) -> None:
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:

        async def sell() -> None:
            for number in range(60):
                await shop.central.sell(f"P-{number % 20:03}", -1)
                row = await shop.store.row(f"P-{number % 20:03}")
                assert row is not None
                await shop.store.update(
                    f"P-{number % 20:03}", -1, row["version"], f"order-{number}"
                )
                await asyncio.sleep(0.05)

        selling = asyncio.create_task(sell())
        while not selling.done():
            verification = await verify(shop.store)
            assert 0 == verification["mismatches"]
            await asyncio.sleep(0.02)
        await selling
        assert "equal" == (await verify(shop.store))["state"]


async def test_without_repair_the_difference_is_only_told(tmp_path: Path) -> None:
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:
        await shop.central.fault("lie", productId="P-003", attributes={"available": 1})
        verification = await verify(shop.store, repair=False)
        assert ("differs", 1, 0) == tuple(
            verification[name] for name in ("state", "mismatches", "repaired")
        )
        assert 1000 == await stock(shop.store, "P-003")
        assert "repaired" == (await verify(shop.store))["state"]
        assert 1 == await stock(shop.store, "P-003")
        assert "equal" == (await verify(shop.store))["state"]


async def test_a_repair_that_lowers_a_version_shows_another_generation(tmp_path: Path) -> None:
    """[P1] A version never goes back within a generation, and the feed is followed on."""
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:
        await shop.central.sell("P-001", -1)
        await shop.central.sell("P-001", -1)
        await shop.until_in_sync()
        await asyncio.sleep(10.0)  # no refetch is pending any more that would find it by itself
        before = (await shop.store.status())["generation"]
        await shop.central.fault(
            "lie", productId="P-001", attributes={"available": 44, "version": 2}
        )
        await verify(shop.store)
        after = (await shop.store.status())["generation"]
        assert 44 == await stock(shop.store, "P-001")
        assert f"{before}~2" == after
        await shop.central.set("P-002", available=7)
        await shop.until_in_sync()
        assert after == (await shop.store.status())["generation"]
        assert ["first start"] == await shop.store.reasons()


async def test_a_product_that_vanished_and_one_that_appeared(tmp_path: Path) -> None:
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:
        await shop.central.fault("lie", productId="P-004", attributes=None)
        await shop.central.fault("lie", productId="P-900", attributes={"available": 3, "name": ""})
        verification = await verify(shop.store)
        assert {"P-004", "P-900"} == {one["productId"] for one in verification["recent"]}
        await shop.until_in_sync()
        assert 404 == (await shop.store.call("GET", "/v1/store/inventory/P-004")).status


async def test_a_half_empty_central_empties_no_shelf(tmp_path: Path) -> None:
    """[F5] What would remove too much is left to a full sync, which is refused."""
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:
        for number in range(12):
            await shop.central.fault("lie", productId=f"P-{number:03}", attributes=None)
        await verify(shop.store)
        assert 20 == len(await shop.store.rows())


async def test_a_central_without_digests_is_walked_by_pages(tmp_path: Path) -> None:
    switches = Switches(without=frozenset({Feature.DIGEST}))
    async with a_shop(tmp_path, switches=switches, verify_interval_minutes=60) as shop:
        await shop.central.fault("lie", productId="P-003", attributes={"available": 1})
        await shop.central.fault("lie", productId="P-004", attributes=None)
        verification = await verify(shop.store)
        assert ("repaired", "pages") == (verification["state"], verification["method"])
        await shop.until_in_sync()
        assert "equal" == (await verify(shop.store))["state"]


async def test_only_an_admin_may_ask_and_off_means_absent(tmp_path: Path) -> None:
    async with a_shop(tmp_path, verify_interval_minutes=60) as shop:
        refused = await shop.store.call("POST", "/v1/store/sync/verify", json={})
        assert 403 == refused.status
        wrong = await shop.store.call(
            "POST", "/v1/store/sync/verify", json={"repair": 1}, headers=ADMIN
        )
        assert (400, ["repair"]) == (wrong.status, list(wrong.json["error"]["details"]["fields"]))
    async with a_shop(tmp_path / "off") as shop:
        reply = await shop.store.call("POST", "/v1/store/sync/verify", json={}, headers=ADMIN)
        assert 404 == reply.status
        assert "off" == (await found(shop.store))["state"]
