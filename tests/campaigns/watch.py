"""Readers who read and tills that sell all the time, while a campaign breaks things.

Knows: what no reader may ever see: a failed read, a slow one, a version that goes back within one
life and one generation. Refuses to know: what is being broken.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx

from tests.campaigns.processes import CENTRAL_KEY, Central, Store, client_from

SLOW_SECONDS = 1.0
"""A read is answered from memory; what takes longer did wait for something."""


@dataclass
class Reads:
    """What a reader saw. `seen` is per generation: a new one may bring older versions."""

    answered: int = 0
    slowest_seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    went_back: list[str] = field(default_factory=list)
    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, generation: str, product_id: str, version: int) -> None:
        key = (generation, product_id)
        if version < self.seen.get(key, 0):
            self.went_back.append(f"{product_id} in {generation}: {self.seen[key]} -> {version}")
        self.seen[key] = max(version, self.seen.get(key, 0))

    @property
    def problems(self) -> list[str]:
        slow = self.slowest_seconds > SLOW_SECONDS
        return self.failed + self.went_back + slow * [f"slowest read {self.slowest_seconds:.2f} s"]


@asynccontextmanager
async def reading(store: Store, ids: list[str]) -> AsyncIterator[Reads]:
    """Look twenty products up, again and again, until the block ends."""
    reads = Reads()
    task = asyncio.create_task(_read(store, ids, reads))
    try:
        yield reads
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _read(store: Store, ids: list[str], reads: Reads) -> None:
    chance = random.Random(7)
    async with store.client() as client:
        while True:
            asked = {"productIds": chance.sample(ids, min(20, len(ids)))}
            began = time.monotonic()
            try:
                response = await client.post("/v1/store/inventory/lookup", json=asked)
                response.raise_for_status()
            except httpx.HTTPError as problem:
                reads.failed.append(repr(problem))
                await asyncio.sleep(0.1)
                continue
            reads.answered += 1
            reads.slowest_seconds = max(reads.slowest_seconds, time.monotonic() - began)
            generation = response.headers.get("X-Cache-Generation", "")
            for row in response.json()["products"]:
                reads.note(generation, row["productId"], row["version"])
            await asyncio.sleep(0.02)


@dataclass
class Sales:
    """What tills got: applied, refused with a conflict, not answered (Central away)."""

    applied: int = 0
    conflicts: int = 0
    other: int = 0


@asynccontextmanager
async def selling(store: Store, central: Central, ids: list[str]) -> AsyncIterator[Sales]:
    """Two tills at the store and two at Central, over the same few products, until the end."""
    sales = Sales()
    few = ids[:40]
    tasks = [
        asyncio.create_task(_sell_at_store(store, few, sales, number)) for number in range(2)
    ] + [asyncio.create_task(_sell_at_central(central, few, sales, number)) for number in range(2)]
    try:
        yield sales
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sell_at_store(store: Store, ids: list[str], sales: Sales, till: int) -> None:
    chance = random.Random(till)
    async with store.client() as client:
        for number in itertools.count():
            path = f"/v1/store/inventory/{chance.choice(ids)}/inventory"
            with suppress(httpx.HTTPError):
                answer = await client.patch(
                    path,
                    json={"quantityChange": 1 - 2 * (number % 2)},
                    headers={"Idempotency-Key": f"till{till}-{id(sales)}-{number}"},
                )
                _count(sales, answer)
            await asyncio.sleep(0.05)


async def _sell_at_central(central: Central, ids: list[str], sales: Sales, till: int) -> None:
    chance = random.Random(100 + till)
    async with client_from(f"127.0.0.{10 + till}", CENTRAL_KEY) as client:
        client.base_url = httpx.URL(central.url)
        for number in itertools.count():
            with suppress(httpx.HTTPError, ValueError, KeyError):
                await _sell_one(client, chance.choice(ids), f"c{till}-{id(sales)}-{number}", sales)
            await asyncio.sleep(0.05)


async def _sell_one(client: httpx.AsyncClient, product_id: str, key: str, sales: Sales) -> None:
    row = (await client.get(f"/v1/inventory/{product_id}")).json()
    write = {
        "storeId": "elsewhere",
        "productId": product_id,
        "delta": 1,
        "version": row["version"],
        "idempotencyKey": key,
    }
    _count(sales, await client.post("/v1/inventory/updates", json=write))


def _count(sales: Sales, answer: httpx.Response) -> None:
    if answer.status_code == httpx.codes.OK:
        sales.applied += 1
    elif answer.status_code == httpx.codes.CONFLICT:
        sales.conflicts += 1
    else:
        sales.other += 1
