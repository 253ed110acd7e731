"""Two nodes of one shop (docs/two-nodes.md): real processes with one STORE_ID and a folder each.

A till repeats at the other node what the first one has not answered, with the same key.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY, StoreClient, checked
from tests.harness.processes import ROOT, CentralProcess, Program, StoreProcess, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TEA = "TEA-001"
STOCK = 100
CONFIG = ROOT / "config" / "haproxy" / "two-nodes.cfg"


class Shop:
    def __init__(self, central: CentralProcess, a: StoreProcess, b: StoreProcess) -> None:
        self.central, self.a, self.b = central, a, b

    async def stock(self) -> int:
        """What Central has left of the tea."""
        return int((await self.central.rows())[TEA]["available"])

    async def writes(self) -> int:
        """How many writes of the shop Central has applied."""
        events = (await self.central.backup())["events"]
        return sum(1 for event in events if event.get("storeId") == "shop-7")


@asynccontextmanager
async def two_nodes(
    folder: Path, of_b: dict[str, str] | None = None, **settings: str
) -> AsyncIterator[Shop]:
    """Two nodes that follow one Central with a hundred pieces of tea."""
    central = CentralProcess(folder / "central")
    usual = {"STORE_ID": "shop-7"} | settings
    a = StoreProcess(folder / "a", central.url, **usual)
    b = StoreProcess(folder / "b", central.url, **(usual | (of_b or {})))
    try:
        await central.start()
        await central.create({"productId": TEA, "name": "Assam", "available": STOCK})
        await asyncio.gather(a.start("/ready"), b.start("/ready"))
        yield Shop(central, a, b)
    finally:
        await asyncio.gather(a.close(), b.close(), central.close())


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = 90.0) -> None:
    async with asyncio.timeout(seconds):
        while not await is_so():  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.05)


async def entries(store: StoreProcess) -> list[dict[str, Any]]:
    headers = {"X-API-Key": STORE_ADMIN_KEY}
    return list((await store.call("GET", "/v1/store/outbox", headers=headers)).json["entries"])


async def is_empty(store: StoreProcess) -> bool:
    return not await entries(store)


async def test_a_sale_that_is_repeated_at_the_other_node_is_applied_once(tmp_path: Path) -> None:
    """[W1] Whether the first node has answered, or was killed with the write at Central: the other
    gives Central's first answer."""
    async with two_nodes(tmp_path) as shop:
        sold = checked(await shop.a.update(TEA, -2, 1, "till-3-0001"))
        assert sold == checked(await shop.b.update(TEA, -2, 1, "till-3-0001"))

        await shop.central.fault("delay", when="after", seconds=30, routes=["updates"], times=1)
        lost = asyncio.create_task(shop.a.update(TEA, -1, 2, "till-3-0002"))
        await until(lambda: reached(shop, 2))
        await shop.a.kill()
        with pytest.raises(aiohttp.ClientError):
            await lost
        repeated = checked(await shop.b.update(TEA, -1, 2, "till-3-0002"))
        assert (97, True) == (repeated["newQuantity"], repeated["applied"])
        assert (97, 2) == (await shop.stock(), await shop.writes())


async def test_a_patch_that_is_repeated_at_the_other_node_is_applied_once(tmp_path: Path) -> None:
    """[W3] The node fills in the version that it holds by then. If that is another one, Central's
    first answer does not fit it, and the node says what Central holds, and that it does not know:
    it never sells a second time."""
    async with two_nodes(tmp_path) as shop:
        for number in range(4):
            key = f"till-3-{number}"
            sold = checked(await shop.a.adjust(TEA, -1, key))
            repeated = await shop.b.adjust(TEA, -1, key)
            if repeated.status == 200:
                assert sold == repeated.json
            else:
                assert (504, "central_timeout") == (repeated.status, repeated.code)
                at_central = repeated.json["error"]["details"]["atCentral"]
                assert {"available": sold["newQuantity"], "version": number + 2} == at_central
            assert (STOCK - number - 1, number + 1) == (await shop.stock(), await shop.writes())


async def reached(shop: Shop, writes: int) -> bool:
    return await shop.writes() == writes


async def test_what_both_nodes_have_queued_is_applied_once(tmp_path: Path) -> None:
    """[O2, O4] Central is away, and a till repeats at the other node. Another shop has sold
    meanwhile: Central refuses the first attempt of both for its version, and both go on under the
    derived key `<key>~2`, of which Central gives its first answer, too."""
    async with two_nodes(tmp_path, OFFLINE_WRITES="queue") as shop:
        async with shop.central.out_of_sight() as hidden:
            for node in (shop.a, shop.b):
                queued = await node.adjust(TEA, -4, "till-3-0001")
                assert queued.status == 202, queued.body
            assert 202 == (await shop.a.adjust(TEA, -1, "till-3-0002")).status
            await hidden.sell(TEA, -10)
        await until(lambda: is_empty(shop.a))
        await until(lambda: is_empty(shop.b))

        assert STOCK - 10 - 4 - 1 == await shop.stock()
        assert 2 == await shop.writes()
        keys = {event.get("idempotencyKey") for event in (await shop.central.backup())["events"]}
        assert "shop-7-till-3-0001~2" in keys
        for node in (shop.a, shop.b):
            assert checked(await node.adjust(TEA, -4, "till-3-0001"))["applied"]
        assert 2 == await shop.writes()


async def test_a_queued_sale_that_is_too_old_waits_for_a_person(tmp_path: Path) -> None:
    """[O5] The node is down for longer than Central remembers keys, the till has sold at the other
    one, and this Central's events name no write: with OUTBOX_MAX_AGE_HOURS below that time the
    entry is parked, and not sold a second time."""
    seconds: dict[str, str] = {"OUTBOX_MAX_AGE_HOURS": str(2 / 3600)}
    async with two_nodes(tmp_path, None, OFFLINE_WRITES="queue", **seconds) as shop:
        await shop.central.switch(unnamedWrites=True)
        await shop.central.stop()
        assert 202 == (await shop.a.adjust(TEA, -4, "till-3-0001")).status
        await shop.a.kill()
        shop.central.switches = shop.central.switches.model_copy(update={"unnamed_writes": True})
        await shop.central.start()
        sold = await shop.b.adjust(TEA, -4, "till-3-0001")
        assert sold.status in (200, 202), sold.body
        await until(lambda: is_empty(shop.b))
        await shop.central.fault("forget_keys")
        await asyncio.sleep(2.0)
        await shop.a.start("/ready")
        await until(lambda: is_parked(shop.a))

        assert "too_old" == (await entries(shop.a))[0]["errorType"]
        assert STOCK - 4 == await shop.stock()


async def is_parked(store: StoreProcess) -> bool:
    return ["parked"] == [entry["state"] for entry in await entries(store)]


async def test_a_read_at_the_other_node_goes_back_by_no_more_than_its_age(tmp_path: Path) -> None:
    """[B5] The second node asks once in ten seconds. What it shows was true at Central at the time
    that `Age` names, and the row's `version` tells which of two reads is the older one: the node
    that sold shows its own sale before the feed does, so its offset may be the same."""
    behind = {"POLL_MODE": "interval", "SYNC_INTERVAL_SECONDS": "10"}
    async with two_nodes(tmp_path, behind) as shop:
        went_back = 0
        for number in range(12):
            sold = checked(await shop.a.adjust(TEA, -1, f"till-3-{number}"))
            sold_at = moment(sold["lastUpdated"])
            here, there = await shop.a.get(TEA), await shop.b.get(TEA)
            read_at = time.time()
            assert sold["newQuantity"] == here.json["available"]
            if there.json["available"] != sold["newQuantity"]:
                went_back += 1
                assert there.json["version"] < here.json["version"]
                assert offset(there) <= offset(here)
                # The clocks of both programs are this machine's; Age is rounded up.
                assert read_at - int(there.headers["Age"]) <= sold_at + 0.05
            assert here.headers["X-Cache-Generation"] == there.headers["X-Cache-Generation"]
            await asyncio.sleep(0.3)
        assert went_back


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def offset(reply: Any) -> int:
    return int(reply.headers["X-Cache-Offset"])


# Behind one address


class Balancer(Program, StoreClient):
    """HAProxy with the configuration of the documentation, in front of two nodes."""

    def __init__(self, folder: Path, a: StoreProcess, b: StoreProcess) -> None:
        haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if haproxy is None:
            pytest.skip("haproxy is not installed: Debian has a package of that name")
        StoreClient.__init__(self)
        port = free_port()
        written = CONFIG.read_text()
        for placeholder, given in (
            ("bind :8083", f"bind 127.0.0.1:{port}"),
            ("10.0.0.11:8083", f"127.0.0.1:{a.port}"),
            ("10.0.0.12:8083", f"127.0.0.1:{b.port}"),
            ("inter 2s", "inter 200ms"),
        ):
            assert placeholder in written
            written = written.replace(placeholder, given)
        file = folder / "two-nodes.cfg"
        file.write_text(written)
        super().__init__(haproxy, "-db", "-f", str(file), port=port, log=folder / "haproxy.log")

    async def close(self) -> None:
        await self.close_client()
        await self.kill()


async def test_a_till_behind_one_address_stays_at_a_node_until_that_one_ends(
    tmp_path: Path,
) -> None:
    """The balancer of the documentation: sticky by till, by `/ready`; a sale that was not answered
    is repeated at the same address, and applied once."""
    async with two_nodes(tmp_path, TRUSTED_PROXIES="127.0.0.1") as shop:
        balancer = Balancer(tmp_path, shop.a, shop.b)
        try:
            await balancer.start("/ready")
            for number in range(6):
                checked(await balancer.adjust(TEA, -1, f"till-3-{number}"))
            served = [await requests_of(node) for node in (shop.a, shop.b)]
            assert sorted(served) == [0, 6], served
            sticky, other = (shop.a, shop.b) if served[0] else (shop.b, shop.a)

            await shop.central.fault("delay", when="after", seconds=30, routes=["updates"], times=1)
            lost = asyncio.create_task(balancer.update(TEA, -1, 7, "till-3-lost"))
            await until(lambda: reached(shop, 7))
            await sticky.kill()
            with suppress(aiohttp.ClientError):
                assert (await lost).status in (502, 503)
            await until(lambda: is_sold(balancer, "till-3-lost"))
            assert 7 == await shop.writes()
            await until(lambda: has_sold(other))
            assert STOCK - 7 == await shop.stock()
        finally:
            await balancer.close()


async def is_sold(till: StoreClient, key: str) -> bool:
    reply = await till.update(TEA, -1, 7, key)
    return reply.status == 200 and bool(reply.json["applied"])


async def has_sold(store: StoreProcess) -> bool:
    return await requests_of(store, "POST") > 0


async def requests_of(store: StoreProcess, method: str = "PATCH") -> int:
    """How many requests with this method a node has answered."""
    reply = await store.call("GET", "/metrics", headers={"X-API-Key": TILL_KEY})
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in reply.body.decode().splitlines()
        if line.startswith("store_cache_http_requests_total") and f'method="{method}"' in line
    )
