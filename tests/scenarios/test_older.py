"""Older Centrals: each difference by itself, and all of them together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from central_stub.switches import Switches
from tests.scenarios.older import PRODUCTS, older, play, problems
from tests.scenarios.shop import InProcessShop, a_shop, product, until

OLDER = older(page_limit=5, rate_limit=40, key_memory_seconds=0.05)

LATE_CREATION = 59
"""A seed whose first draw numbers an event late, and whose second one does not."""


@pytest.mark.parametrize("switches", OLDER.values(), ids=OLDER)
async def test_an_older_central(tmp_path: Path, switches: dict[str, Any]) -> None:
    """[E1] [E2] [E3] [P2] [P4] [F3] [F6] [V1] [V2] [W1] Whatever Central leaves out,
    limits or mixes up, with writers at work at both: the store ends equal to it, each sale is
    counted once, no reader notices, and no needless full sync runs."""
    async with a_shop(
        tmp_path,
        products=PRODUCTS,
        switches=Switches.model_validate(switches),
        state=None,
        hole_grace_seconds=2,
        write_timeout_seconds=60,
    ) as shop:
        assert [] == problems(await play(shop))


@pytest.mark.parametrize(
    "html",
    [
        pytest.param(False, id="errors in Central's own shape"),
        pytest.param(True, id="errors in HTML"),
    ],
)
async def test_a_creation_that_is_numbered_after_its_deletion(
    tmp_path: Path, *, html: bool
) -> None:
    """[V2] [F1] Central numbers a product's creation after its deletion, a tenth of a second later:
    the product that the feed seems to begin is gone again after a refetch or, if a 404 does not
    prove its absence, after a full sync."""
    async with a_shop(tmp_path, seed=LATE_CREATION) as shop:
        await shop.central.switch(without=["order"], htmlErrors=html)
        await shop.central.create(product(100))
        await shop.central.delete("P-100")
        await until(lambda: shop.central.ledger.head == 22)
        await until(lambda: has_seen(shop, 22))
        await until(lambda: is_in_sync(shop), within_seconds=4)

        assert 404 == (await shop.store.get("P-100")).status


async def has_seen(shop: InProcessShop, offset: int) -> bool:
    return int((await shop.store.status())["eventSync"]["lastEventOffset"]) == offset


async def is_in_sync(shop: InProcessShop) -> bool:
    await asyncio.sleep(0.2)
    return await shop.is_in_sync()
