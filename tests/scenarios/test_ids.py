"""Every id and every attribute that Central may give a product."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.clients import INVENTORY, Row, checked, path_of
from tests.scenarios.shop import InProcessShop, a_shop

IDS = {
    "lower case": "abc-1",
    "upper case": "ABC-1",
    "a space": "two words",
    "spaces around": " padded ",
    "a slash": "screws/M4",
    "slashes": "/a//b/",
    "dots": "a..b",
    "a leading dot": ".hidden",
    "three dots": "...",
    "dots and a slash": "../up",
    "percent": "50%25off%",
    "query": "a?b=c&d#e",
    "plus": "a+b",
    "semicolon and comma": "a;b,c",
    "quotes": "12\" \u2013 l'eau \\",
    "braces": "{id}",
    "tilde": "a~2",
    "umlauts": "K\u00e4sesp\u00e4tzle",
    "composed another way": "Ka\u0308sespa\u0308tzle",
    "cyrillic": "\u0422\u043e\u0432\u0430\u0440-1",
    "beyond the first plane": "\U0001f9c0 & \U0001f377",
    "a word of the API": "lookup",
    "another word": "updates",
    "inventory": "inventory",
    "a word of Central's": "events",
    "long": "x" * 300,
}
BEYOND: Row = {
    "category": "Tools",
    "tags": ["new", "heavy"],
    "description": "Multi\nline, \u20ac, <b>",
    "dimensions": {"width": 1.50, "unit": None, "sizes": []},
    "barcode": "0012345",
    "discontinued": False,
    "rating": 1e-7,
    "count": 9007199254740991,
    "": "an empty name",
}

PRODUCTS = [
    {"productId": product_id, "name": f"Called {name}", "available": 50, "price": 9.90} | BEYOND
    for name, product_id in IDS.items()
]


async def test_every_id_in_every_call(tmp_path: Path) -> None:
    """[D2] [V1] Each id is listed, read, looked up, renamed at Central, sold by update and by
    PATCH, and all is there after a restart with Central down; ids that differ in one character's
    case or composition stay apart. Attributes beyond the six are as Central has them."""
    async with a_shop(tmp_path, products=PRODUCTS) as shop:
        await all_can_be_looked_up(shop)
        for number, product_id in enumerate(IDS.values()):
            await can_be_sold(shop, product_id, f"order-{number}")
            await shop.central.set(product_id, name=f"Renamed {number}")
        await shop.until_in_sync()
        shown = await shop.store.rows()
        await shop.store.stop()
        await shop.central.stop()
        await shop.store.start()

        assert sorted(IDS.values()) == list(shown)
        assert shown == await shop.store.rows()
        assert await shop.central.rows() == shown
        for row in shown.values():
            assert BEYOND.items() <= row.items()
        assert shown == {i: await shop.store.row(i) for i in IDS.values()}


async def all_can_be_looked_up(shop: InProcessShop) -> None:
    asked = {"productIds": [*IDS.values(), "ABC-2"]}
    found = checked(await shop.store.call("POST", f"{INVENTORY}/lookup", json=asked))

    assert list(IDS.values()) == [row["productId"] for row in found["products"]]
    assert ["ABC-2"] == found["missing"]


async def can_be_sold(shop: InProcessShop, product_id: str, order: str) -> None:
    answer = checked(await shop.store.update(product_id, -1, 1, order))
    adjusted = checked(await shop.store.adjust(product_id, -2, f"{order}-more"))
    fresh = checked(await shop.store.get(product_id, **{"Cache-Control": "no-cache"}))

    assert [product_id] * 3 == [each["productId"] for each in (answer, adjusted, fresh)]
    assert [49, 47, 47] == [answer["newQuantity"], adjusted["newQuantity"], fresh["available"]]


@pytest.mark.parametrize("product_id", [".", "..", "a\nb", "\u0000"])
async def test_ids_that_cannot_stand_in_an_address(tmp_path: Path, product_id: str) -> None:
    """[F5] Central can hold ids that cannot be part of a URL: they are listed, read and looked up
    all the same."""
    odd: dict[str, Any] = {"productId": product_id, "name": "Odd", "available": 5}
    async with a_shop(tmp_path, products=[odd]) as shop:
        await shop.central.set(product_id, available=4)
        await shop.until_in_sync()
        asked = {"productIds": [product_id]}
        found = checked(await shop.store.call("POST", f"{INVENTORY}/lookup", json=asked))

        encoded = "".join(f"%{byte:02X}" for byte in product_id.encode())
        read = await shop.store.call("GET", f"{INVENTORY}/{encoded}")

        assert [4] == [row["available"] for row in found["products"]]
        assert (200, 4) == (read.status, read.json["available"])
        assert "live" == await shop.store.state()


async def test_an_id_is_the_same_however_it_is_encoded(tmp_path: Path) -> None:
    """[P1] Percent-encoding more than needed, in either case, names the same product."""
    async with a_shop(tmp_path, products=PRODUCTS) as shop:
        for product_id in ("screws/M4", "abc-1", "K\u00e4sesp\u00e4tzle"):
            encoded = "".join(f"%{byte:02x}" for byte in product_id.encode())
            answer = await shop.store.call("GET", f"{INVENTORY}/{encoded}")

            assert product_id == checked(answer)["productId"]
            assert answer.body == (await shop.store.call("GET", path_of(product_id))).body
        assert 404 == (await shop.store.call("GET", f"{INVENTORY}/{quote('abc-1 ')}")).status
