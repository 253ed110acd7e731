"""A Central in a process of its own, at which other shops sell, create and delete all the time."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import mmap
import os
import random
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from central_stub.ledger import Ledger
from central_stub.server import Running
from central_stub.settings import Settings
from central_stub.switches import Switches
from tests.crash.forking import fork, kill
from tests.harness.background import in_background

PRODUCTS = [f"P-{number:03}" for number in range(40)]
"""These are never deleted, so that their versions may never go back. Tills sell these."""

PASSING = [f"L-{number}" for number in range(6)]
"""These are created and deleted again and again."""

ADMIN = {"X-API-Key": "admin-demo"}
MOST_PAUSE_SECONDS = 0.015
QUIET, BUSY = b"\0", b"\1"


class BusyCentral:
    """`start` forks it. It ends with `stop`, or with the process that started it. `more`: how many
    other products it has, which are never sold."""

    def __init__(self, output: Path, seed: int, *, more: int = 0, page_limit: int = 15) -> None:
        self.url = ""
        self._output = output
        self._seed = seed
        self._more = more
        self._switches = Switches(page_limit=page_limit, event_limit=1_000_000)
        self._activity = mmap.mmap(-1, 1)
        self._process = 0

    def start(self) -> None:
        ready, told = os.pipe()
        watched, self._held = os.pipe()
        self._process = fork(lambda: asyncio.run(self._serve(told, watched)), self._output)
        os.close(told)
        os.close(watched)
        self.url = os.read(ready, 200).decode()
        os.close(ready)
        assert self.url, f"Central did not start: see {self._output}"

    def stop(self) -> None:
        kill(self._process)
        os.close(self._held)

    def be_busy(self, is_busy: bool) -> None:
        self._activity[:] = BUSY if is_busy else QUIET

    def state(self) -> dict[str, Any]:
        """The ledger: `products`, `events`, and more."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=10)
        try:
            connection.request("GET", "/v1/admin/backup", headers=ADMIN)
            return dict(orjson.loads(connection.getresponse().read()))
        finally:
            connection.close()

    # -- in its own process ----------------------------------------------------------------

    async def _serve(self, told: int, watched: int) -> None:
        os.close(self._held)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watched, ended.set)
        settings = Settings(_env_file=None, port=0, data_dir=None)
        running = Running(settings, self._switches, self._seed)
        await running.start()
        for number in range(self._more):
            row = {"productId": f"M-{number:07}", "name": f"Product number {number}", "price": 9.99}
            running.ledger.create(row, time.time())
        async with httpx.AsyncClient(headers=ADMIN, trust_env=False, verify=False) as client:
            await _create(client, running.url, PRODUCTS)
            os.write(told, running.url.encode())
            os.close(told)
            async with in_background(self._sell(client, running)):
                await ended.wait()

    async def _sell(self, client: httpx.AsyncClient, running: Running) -> None:
        chance = random.Random(self._seed)
        for number in itertools.count():
            await asyncio.sleep(chance.random() * MOST_PAUSE_SECONDS)
            if self._activity[:] == BUSY:
                await _change(client, running, chance, number)


async def _create(client: httpx.AsyncClient, url: str, ids: list[str]) -> None:
    products = [{"productId": i, "name": f"Product {i}", "available": 100_000} for i in ids]
    await client.post(f"{url}/v1/admin/products/create", json={"products": products})


async def _change(
    client: httpx.AsyncClient, running: Running, chance: random.Random, number: int
) -> None:
    """Do what other shops do: most often, sell one to five products."""
    dice = chance.random()
    admin = f"{running.url}/v1/admin/products"
    if dice < 0.1:
        await _create(client, running.url, [chance.choice(PASSING)])
    elif dice < 0.2:
        body = {"productIds": [chance.choice(PASSING)]}
        await client.request("DELETE", f"{admin}/delete", json=body)
    elif dice < 0.3:
        rows = [{"productId": i, "price": chance.randint(1, 99)} for i in _some(chance)]
        await client.put(f"{admin}/set", json={"products": rows})
    else:
        updates = [_sale(running.ledger, i, f"{number}-{i}") for i in _some(chance)]
        batch: dict[str, Any] = {"storeId": "elsewhere", "updates": updates}
        path = f"{running.url}/v1/inventory/updates"
        await client.post(path, json=batch, headers={"X-API-Key": "demo"})


def _some(chance: random.Random) -> list[str]:
    return chance.sample(PRODUCTS, chance.randint(1, 5))


def _sale(ledger: Ledger, product_id: str, key: str) -> dict[str, Any]:
    row = ledger.read(product_id)
    assert row is not None
    return {
        "productId": product_id,
        "delta": -1,
        "version": row["version"],
        "idempotencyKey": f"elsewhere-{key}",
    }
