"""Older Centrals: each difference by itself, and all of them together."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from central_stub.switches import Switches
from tests.scenarios.chain import product
from tests.scenarios.people import reading, trade
from tests.scenarios.shop import Shop, a_shop, until

WITHOUT: dict[str, dict[str, Any]] = {
    f"no {feature}": {"without": [feature]}
    for feature in ("generation", "event-offset", "gone", "hold", "cursor", "zeros", "order")
}
DIFFERENT: dict[str, dict[str, Any]] = {
    "pages of 5": {"pageLimit": 5},
    "40 requests a minute": {"rateLimit": 40},
    "keys forgotten at once": {"keyMemorySeconds": 0.05},
    "errors in HTML": {"htmlErrors": True},
    "items and cursors": {"pageShape": "items", "pageLimit": 5},
    "one bare list": {"pageShape": "list"},
    "camel case totals": {"totalNames": "camel", "pageLimit": 5},
    "refusals of every status": {"refusalStatus": "varied"},
    "old names of events": {"oldEventNames": True},
    "events that name no write": {"unnamedWrites": True},
    "eventOffset is the next": {"eventOffsetMeans": "next"},
    "slashes cannot be fetched": {"slashesUnreachable": True},
    "null for no events": {"nullEvents": True},
    "held beyond the head": {"holdBeyondHead": True},
    "deletions without data": {"deletionData": "absent"},
    "deletions with nothing": {"deletionData": "empty"},
    "versions that stay": {"sameVersion": True},
}
ALL_TOGETHER: dict[str, Any] = {
    "without": ["generation", "event-offset", "gone", "hold", "cursor", "zeros", "order", "digest"],
    "pageLimit": 5,
    "rateLimit": 40,
    "rateLimitHint": "none",
    "keyMemorySeconds": 2,
    "htmlErrors": True,
    "refusalStatus": "varied",
    "oldEventNames": True,
    "unnamedWrites": True,
    "slashesUnreachable": True,
    "nullEvents": True,
    "holdBeyondHead": True,
    "deletionData": "absent",
}
OLDER = WITHOUT | DIFFERENT | {"all together": ALL_TOGETHER}

LATE_CREATION = 59
"""A seed whose first draw numbers an event late, and whose second one does not."""

SHARED = ["P-001", "P-002", "P-003", "P/3"]
PRODUCTS = [product(number) for number in range(20)] + [
    {"productId": "P/3", "name": "With a slash", "available": 1000},
    {"productId": "last", "name": "The last one", "available": 2},
]


@pytest.mark.parametrize("switches", OLDER.values(), ids=OLDER)
async def test_an_older_central(tmp_path: Path, switches: dict[str, Any]) -> None:
    """[E1] [E2] [E3] [P2] [P4] [F3] [F6] [V1] [V2] [W1] With writers at work here and there,
    whatever Central leaves out, caps or muddles: the store ends equal to it, each sale was counted
    once, no reader noticed, and no full sync ran that the rules do not ask for."""
    older = Switches.model_validate(switches)
    async with (
        a_shop(
            tmp_path,
            products=PRODUCTS,
            switches=older,
            hole_grace_seconds=2,
            write_timeout_seconds=60,
        ) as shop,
        reading(shop.store) as reads,
    ):
        hour = a_busy_hour(shop)
        sold = await (shop.hurried(hour) if "rateLimit" in switches else hour)
        await until(lambda: is_in_step(shop))

        assert {i: 1000 + sold[i] for i in SHARED} == {i: shop.central.stock(i) for i in SHARED}
        assert ["first start"] == await shop.store.reasons()
        assert ([], 0) == (reads.problems, reads.steps_back)


async def a_busy_hour(shop: Shop) -> Counter[str]:
    """Sales here and there; products that come, change and go meanwhile, one that is sold out."""
    sales = asyncio.create_task(trade(shop.store, shop.central, SHARED))
    await shop.central.create(product(100), product(101))
    await shop.central.set("P-005", price=0, name="Renamed", tags=["a", "b"])
    await shop.central.delete("P-006", "P-007")
    await shop.central.create(product(6, available=3))
    await shop.central.sell("last", -2)
    return await sales


@pytest.mark.parametrize(
    "html",
    [
        pytest.param(False, id="errors in Central's own shape"),
        pytest.param(True, id="errors in HTML"),
    ],
)
async def test_a_creation_that_comes_behind_its_deletion(tmp_path: Path, *, html: bool) -> None:
    """[V2] [F1] Central numbers a product's creation after its deletion, a tenth of a second later:
    the product that the feed seems to begin is gone again after it was read by itself, or, where a
    page that says 404 proves no absence, after a full sync."""
    async with a_shop(tmp_path, seed=LATE_CREATION) as shop:
        await shop.central.switch(without=["order"], htmlErrors=html)
        await shop.central.create(product(100))
        await shop.central.delete("P-100")
        await until(lambda: shop.central.ledger.head == 22)
        await until(lambda: has_seen(shop, 22))
        await until(lambda: is_in_step(shop), within_seconds=4)

        assert 404 == (await shop.store.get("P-100")).status


async def has_seen(shop: Shop, offset: int) -> bool:
    return int((await shop.store.status())["eventSync"]["lastEventOffset"]) == offset


async def is_in_step(shop: Shop) -> bool:
    await shop.passes(0.2)
    return await shop.is_in_step()
