"""Two stores of one chain."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.harness.clients import checked
from tests.scenarios.people import added, trade
from tests.scenarios.shop import a_shop

BOTH = ("store-s1", "store-s2")


async def test_the_same_order_id_in_two_shops_is_two_orders(tmp_path: Path) -> None:
    """[W1] Keys go to Central with the store's prefix, so that the second shop's order is not taken
    for a repeat of the first one's."""
    async with a_shop(tmp_path, store_ids=BOTH) as shop:
        first, second = shop.stores
        one = checked(await first.update("P-001", -2, 1, "order-1"))
        two = checked(await second.update("P-002", -5, 1, "order-1"))
        await shop.until_in_sync()

        assert ("P-001", 998) == (one["productId"], one["newQuantity"])
        assert ("P-002", 995) == (two["productId"], two["newQuantity"])
        assert one == checked(await first.update("P-001", -2, 1, "order-1"))


async def test_two_stores_that_sell_the_same_products_agree(tmp_path: Path) -> None:
    """[V1] [W6] Two stores and Central sell the same products at once, tills of both with the same
    order ids: all three agree in the end, and every sale is counted once."""
    shared = ["P-001", "P-002", "P-003"]
    async with a_shop(tmp_path, store_ids=BOTH) as shop:
        trades = (trade(store, shop.central, shared) for store in shop.stores)
        sold = added(*await asyncio.gather(*trades))
        await shop.until_in_sync()

        assert {i: 1000 + sold[i] for i in shared} == {i: shop.central.stock(i) for i in shared}
        assert [["first start"]] * 2 == [await store.reasons() for store in shop.stores]
