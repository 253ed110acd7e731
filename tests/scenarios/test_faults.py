"""The network and Central misbehave, one fault at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from central_stub.switches import Switches
from tests.harness.clients import checked
from tests.scenarios.in_process import Store
from tests.scenarios.people import Till
from tests.scenarios.shop import InProcessShop, a_shop, until

UNNAMED = Switches(unnamed_writes=True)


# -- the feed itself ---------------------------------------------------------------------------


async def test_an_event_that_never_comes_is_loss(tmp_path: Path) -> None:
    """[E3] [F1] A gap that stays is noticed after the grace: exactly one full sync repairs it."""
    async with a_shop(tmp_path) as shop, shop.reading() as reads:
        await shop.until_held()
        await shop.central.fault("skip", count=1)
        await shop.central.set("P-001", available=1)
        await shop.central.set("P-002", available=2)
        await shop.until_in_sync()
        await shop.until_live()
        _, *later = await shop.store.reasons()

        assert ["events are missing from Central's feed"] == later
        assert [] == reads.problems


async def test_an_event_that_comes_twice_changes_nothing(tmp_path: Path) -> None:
    """[P2] [V1] Every page gives its first event again at its end."""
    async with a_shop(tmp_path) as shop, shop.reading() as reads:
        await shop.central.fault("repeat")
        for number in range(6):
            await shop.central.sell("P-001", -1 - number)
            await shop.central.delete(f"P-01{number}")
        await shop.until_in_sync()

        assert ["first start"] == await shop.store.reasons()
        assert [] == reads.problems


async def test_a_conflict_reveals_what_no_event_told(tmp_path: Path) -> None:
    """[E4] [W6] Central changed a product without an event, to a lower version. The first write's
    conflict names it, the product is read again, and Central's row is served."""
    async with a_shop(tmp_path) as shop:
        await shop.central.sell("P-001", -1)
        await shop.central.sell("P-001", -1)
        await shop.until_in_sync()
        await shop.central.fault(
            "lie", productId="P-001", attributes={"available": 44, "version": 2, "shelf": "B"}
        )
        refused = await shop.store.update("P-001", -1, 3, "order-1")
        row = await shop.store.row("P-001")

        assert (409, 2) == (refused.status, refused.json["newVersion"])
        assert (await shop.central.rows())["P-001"] == row
        assert 200 == (await shop.store.update("P-001", -1, 2, "order-2")).status
        assert ["first start"] == await shop.store.reasons()


# -- a bad network -----------------------------------------------------------------------------

NETWORK_FAULTS: dict[str, dict[str, Any]] = {
    "a slow answer": {"kind": "delay", "seconds": 0.2, "when": "after"},
    "a lost request": {"kind": "drop", "when": "before"},
    "a lost answer": {"kind": "drop", "when": "after"},
    "a body cut short": {"kind": "cut"},
    "500": {"kind": "status", "status": 500},
    "503 afterwards": {"kind": "status", "status": 503, "when": "after"},
    "503 with a hint": {"kind": "status", "status": 503, "retryAfter": 1},
    "429 with Retry-After": {"kind": "status", "status": 429, "retryAfter": 1},
    "429 with no hint": {"kind": "status", "status": 429, "body": "error"},
    "a proxy's page": {"kind": "html", "status": 502},
    "a page that says 200": {"kind": "html", "status": 200},
}


@pytest.mark.parametrize("fault", NETWORK_FAULTS.values(), ids=NETWORK_FAULTS)
async def test_the_network_fails_for_a_while(tmp_path: Path, fault: dict[str, Any]) -> None:
    """[B1] [B3] [W1] [W3] Every kind of request except the pages of a full sync meets the fault
    three times: the feed is followed, each sale is applied exactly once, no reader notices, and no
    full sync runs."""
    async with a_shop(tmp_path, switches=UNNAMED) as shop, shop.reading() as reads:
        for route in ("events", "updates", "product"):
            await shop.central.fault(routes=[route], times=3, **fault)
        till = Till(shop.store, "till-1")
        await _sell(till, ["P-001", "P-002", "P-001"])
        await shop.central.set("P-003", name="Renamed")
        await until(lambda: is_well(shop))

        assert {"P-001": -2, "P-002": -1} == dict(till.applied)
        assert [998, 999] == [shop.central.stock(i) for i in ("P-001", "P-002")]
        assert ["first start"] == await shop.store.reasons()
        assert [] == reads.problems


async def _sell(till: Till, product_ids: Sequence[str]) -> None:
    for product_id in product_ids:
        await till.sell(product_id, -1)


async def is_well(shop: InProcessShop) -> bool:
    await asyncio.sleep(0.5)
    return await shop.store.state() == "live" and await shop.is_in_sync()


async def test_an_unknown_outcome_is_called_unknown(tmp_path: Path) -> None:
    """[W3] [W1] Central applies a sale, and no answer arrives: 504. A repeat of the key gets the
    answer once the network works, and the sale was applied once."""
    async with a_shop(tmp_path, switches=UNNAMED, write_timeout_seconds=1) as shop:
        await shop.central.fault("drop", when="after", routes=["updates"])
        lost = await shop.store.update("P-001", -2, 1, "order-1")
        await shop.central.clear_faults()
        again = await _settled(shop.store)

        assert (504, "central_timeout") == (lost.status, lost.code)
        assert {"idempotencyKey": "order-1"}.items() <= lost.json["error"]["details"].items()
        assert (998, 2) == (again["newQuantity"], again["newVersion"])
        assert 998 == shop.central.stock("P-001")


async def _settled(store: Store) -> Any:
    async def is_settled() -> bool:
        return (await store.update("P-001", -2, 1, "order-1")).status == 200

    await until(is_settled)
    return checked(await store.update("P-001", -2, 1, "order-1"))


async def test_the_feed_settles_what_no_answer_does(tmp_path: Path) -> None:
    """[W3] Where events name their write, the till gets its answer though every answer is lost."""
    async with a_shop(tmp_path, write_timeout_seconds=1) as shop:
        await shop.central.fault("drop", when="after", routes=["updates"])
        answer = checked(await shop.store.update("P-001", -2, 1, "order-1"))

        assert (998, 2) == (answer["newQuantity"], answer["newVersion"])


async def test_a_key_that_central_forgot_is_never_sold_twice(tmp_path: Path) -> None:
    """[W3] Central applied the sale, lost the answer and forgot the key: its conflict proves
    nothing, so the outcome stays unknown however often the till asks."""
    async with a_shop(tmp_path, switches=UNNAMED, write_timeout_seconds=1) as shop:
        await shop.central.fault("drop", when="after", routes=["updates"], times=50)
        lost = await shop.store.update("P-001", -2, 1, "order-1")
        await shop.central.clear_faults()
        await shop.central.fault("forget_keys")
        await asyncio.sleep(6)
        again = [await shop.store.update("P-001", -2, 1, "order-1") for _ in range(2)]
        await shop.until_in_sync()

        assert [504] * 3 == [answer.status for answer in (lost, *again)]
        assert 998 == shop.central.stock("P-001")


async def test_a_limit_is_no_failure(tmp_path: Path) -> None:
    """[B1] [F6] While Central limits, the feed pauses as long as it says, and no failure is
    counted: the store neither falls back nor refuses writes."""
    async with a_shop(tmp_path) as shop:
        await shop.central.fault("status", status=429, retryAfter=3, routes=["events"], times=6)
        await until(lambda: _has_struck(shop))
        began_at = asyncio.get_running_loop().time()
        await shop.central.set("P-001", available=1)
        failures = set()
        while not await shop.is_in_sync():
            failures.add((await shop.store.status())["eventSync"]["consecutiveFailures"])
            await asyncio.sleep(0.5)

        assert {0} == failures
        assert asyncio.get_running_loop().time() - began_at >= 15
        assert ["first start"] == await shop.store.reasons()


async def _has_struck(shop: InProcessShop) -> bool:
    return await shop.central.struck() > 0


async def test_a_wrong_key_for_central_is_named(tmp_path: Path, caplog: Any) -> None:
    """[B2] [B6] Central does not know the store's key: the store serves on from disk, tries slowly,
    and its status and log name CENTRAL_API_KEY. A restart with the right key repairs it."""
    async with a_shop(tmp_path) as shop:
        shown = await shop.store.rows()
        await shop.store.stop()
        await shop.store.start(central_api_key="mistyped")
        await until(lambda: _has_trouble(shop.store))
        status = await shop.store.status()
        refused = await shop.store.update("P-001", -1, 1, "order-1")

        assert "CENTRAL_API_KEY" in status["errorMessage"]
        assert not status["eventSync"]["fallbackMode"]
        assert any(
            record.levelname == "ERROR" and "CENTRAL_API_KEY" in record.getMessage()
            for record in caplog.records
        )
        assert (502, "central_error") == (refused.status, refused.code)
        assert "CENTRAL_API_KEY" in refused.json["error"]["message"]
        assert "mistyped" not in f"{caplog.text}{status}{refused.body!r}"
        assert shown == await shop.store.rows()
        await shop.store.stop()
        await shop.store.start(central_api_key="demo")
        await shop.until_live()
        assert [] == await shop.store.reasons()


async def _has_trouble(store: Store) -> bool:
    return bool((await store.status())["errorMessage"])
