"""Live changes over real sockets: real programs, killed and replaced, with readers that stay."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.background import in_background
from tests.harness.clients import TILL_KEY
from tests.harness.streams import STREAM, FollowingReader
from tests.scenarios.shop import ProcessShop, a_shop_of_processes

pytestmark = pytest.mark.timeout(120)

PRODUCTS = [f"P-{number:03}" for number in range(300)]
READERS = 12
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.1


class Shop:
    """A Central, a store, and the readers of its changes."""

    def __init__(self, shop: ProcessShop) -> None:
        self.central, self.store = shop.central, shop.store
        self.readers: list[FollowingReader] = []
        self.generation = ""
        self._chance = random.Random(7)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Start the store, and have its changes read until the block ends."""
        await self.store.start("/ready")
        some = self._chance.sample(PRODUCTS, 20)
        for number in range(READERS):
            self.readers.append(FollowingReader(self.store.port, some if number % 3 == 0 else None))
        self.generation = (await self.store.status())["generation"]
        async with in_background(*(reader.run() for reader in self.readers)):
            yield

    async def sell(self, times: int) -> None:
        for _ in range(times):
            await self.central.sell(self._chance.choice(PRODUCTS[1:]), -1)

    async def replace_central(self) -> None:
        """Central comes back from a backup, under another name; wait until the store knows."""
        await self.central.restore(await self.central.backup())
        await self.sell(1)
        before = self.generation
        async with asyncio.timeout(WAIT_SECONDS):
            while self.generation == before:
                await asyncio.sleep(LOOK_SECONDS)
                self.generation = (await self.store.status())["generation"]

    async def until_all_hold(self) -> None:
        """Wait until every reader holds what reads show."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await self._do_all_hold():
                await asyncio.sleep(LOOK_SECONDS)

    async def _do_all_hold(self) -> bool:
        page = await self.store.call("GET", "/v1/store/inventory")
        if page.headers.get("X-Cache-Generation") != self.generation:
            return False
        rows = await self.store.rows()
        return rows == await self.central.rows() and all(one.holds(rows) for one in self.readers)

    @property
    def resets(self) -> list[list[str]]:
        return [reader.resets for reader in self.readers]


async def test_readers_hold_what_reads_show(tmp_path: Path) -> None:
    """[L1, L2, L3] Through sales, a full sync, a killed store, a replaced Central, and beside
    clients that read nothing or vanish."""
    rows = [{"productId": i, "name": i, "available": 10_000} for i in PRODUCTS]
    async with a_shop_of_processes(tmp_path, rows) as processes:
        shop = Shop(processes)
        async with shop.followed():
            await _outlive(shop)


async def _outlive(shop: Shop) -> None:
    await shop.until_all_hold()
    deaf, gone = await deaf_client(shop.store.port), await deaf_client(shop.store.port)
    gone.close()

    await shop.sell(100)
    await shop.central.delete(PRODUCTS[0])
    await shop.until_all_hold()
    assert (await shop.store.force()).status == 200
    await shop.sell(1)
    await shop.until_all_hold()
    assert shop.resets == [[]] * READERS
    assert not any(reader.breaks for reader in shop.readers)

    await shop.store.kill()
    await shop.sell(1)
    await shop.store.start("/ready")
    await shop.until_all_hold()
    assert shop.resets == [["restarted"]] * READERS

    await shop.replace_central()
    await shop.until_all_hold()
    assert shop.resets == [["restarted", "replaced"]] * READERS

    deaf.close()
    assert await shop.store.stop() == 0
    assert [] == [problem for reader in shop.readers for problem in reader.problems]


async def deaf_client(port: int) -> socket.socket:
    """Open a stream that nobody reads."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connected.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connected, ("127.0.0.1", port))
    head = f"GET {STREAM}?from=start HTTP/1.1\r\nHost: s\r\nX-API-Key: {TILL_KEY}"
    await loop.sock_sendall(connected, f"{head}\r\n\r\n".encode())
    return connected
