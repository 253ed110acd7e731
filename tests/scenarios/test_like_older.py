"""Stores follow the deployed, older Central that `central-stub serve --like older` imitates."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from central_stub.switches import LIKE
from tests.harness.clients import CENTRAL_KEY, Client, Row, checked
from tests.scenarios.shop import a_shop, essence, product, until


class OtherStore(Client):
    """A minimal store of another make: it lists all products once, and then knows one type of
    event. It waits for a missing offset, and ignores older versions."""

    key = CENTRAL_KEY

    def __init__(self, central_url: str) -> None:
        super().__init__()
        self._central_url = central_url
        self._offset = 1
        self.rows: dict[str, Row] = {}
        self.types: set[str] = set()

    @property
    def url(self) -> str:
        return self._central_url

    async def list_products(self) -> None:
        cursor = ""
        while cursor is not None:
            page = checked(await self._get(f"inventory?limit=0&cursor={cursor}"))
            self.rows |= {row["productId"]: row for row in page["items"]}
            cursor = page["nextCursor"]

    async def follow(self) -> None:
        """Poll for ever."""
        while True:
            reply = await self._get(f"inventory/events?offset={self._offset}&limit=500&wait=5")
            if reply.status == 429:
                await asyncio.sleep(float(reply.headers["Retry-After"]))
                continue
            for event in sorted(checked(reply)["events"] or [], key=lambda each: each["offset"]):
                if event["offset"] == self._offset:
                    self._offset += 1
                    self._apply(event)
            await asyncio.sleep(1.0)

    async def _get(self, path: str) -> Any:
        return await self.call("GET", f"/v1/{path}")

    def _apply(self, event: dict[str, Any]) -> None:
        self.types.add(event["eventType"])
        held = self.rows.get(event["productId"], {"version": 0})
        if event["eventType"] == "product_updated" and event["version"] > held["version"]:
            self.rows[event["productId"]] = event["data"]


async def test_stores_of_two_makes_follow_the_older_central(tmp_path: Path) -> None:
    """[E5] Sales, changes and new products reach a store that knows only `product_updated`, and
    this store."""
    async with a_shop(tmp_path, switches=LIKE["older"]) as shop:
        central = shop.central
        other = OtherStore(central.url)
        other.address = "127.0.0.2"
        await other.list_products()
        following = asyncio.create_task(other.follow())
        await central.create(product(100, available=0), product(101))
        for number in range(10):
            await central.sell(f"P-00{number}", -1 - number)
            await central.sell("P-101", -1)
        await central.set("P-005", price=0, name="Renamed")
        rows = await central.rows()
        await until(lambda: essence(other.rows) == essence(rows), within_seconds=120)
        await shop.until_in_sync(120)
        following.cancel()
        await other.close_client()

    assert {"product_updated"} == other.types


async def test_a_deletion_has_a_name_of_its_own(tmp_path: Path) -> None:
    """[E5] This store takes the product off its shelf."""
    async with a_shop(tmp_path, switches=LIKE["older"]) as shop:
        await shop.central.delete("P-003")
        await shop.until_in_sync(120)

        assert 404 == (await shop.store.get("P-003")).status
