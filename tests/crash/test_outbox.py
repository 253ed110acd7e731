"""The outbox of a real store that is killed, with a real Central that comes and goes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.harness.clients import STORE_ADMIN_KEY
from tests.harness.processes import CentralProcess, StoreProcess

pytestmark = pytest.mark.timeout(120)

PRODUCTS = [f"P-{number:02}" for number in range(12)]
STOCK = 1_000
ROUNDS = 2
"""`make offline` kills the store ten times."""

SALES_IN_A_ROUND = 40
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.1


async def counts_of(store: StoreProcess) -> dict[str, int]:
    headers = {"X-API-Key": STORE_ADMIN_KEY}
    reply = await store.call("GET", "/v1/store/outbox?limit=1", headers=headers)
    return dict(reply.json["counts"])


async def nothing_waits(store: StoreProcess) -> bool:
    return not any((await counts_of(store)).values())


async def knows_central_is_away(store: StoreProcess) -> bool:
    """Whether it queues at once."""
    return bool((await store.status())["writes"]["breaker"] != "closed")


async def until(is_so: Callable[[StoreProcess], Awaitable[bool]], store: StoreProcess) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        is_there = await is_so(store)
        while not is_there:
            await asyncio.sleep(LOOK_SECONDS)
            is_there = await is_so(store)


async def test_killed_with_queued_and_sending_entries_it_sells_each_once(tmp_path: Path) -> None:
    """[O4, O6] `kill -9` while sales are queued, and again while they are being sent, with lost
    answers: every sale that got 202 is applied exactly once, and nothing else is."""
    chance = random.Random(18)
    central = CentralProcess(tmp_path / "central")
    await central.start()
    await central.create(*({"productId": one, "name": one, "available": STOCK} for one in PRODUCTS))
    store = StoreProcess(tmp_path / "store", central.url, OFFLINE_WRITES="queue")
    await store.start("/ready")
    sold: Counter[str] = Counter()
    keys = 0
    try:
        for _ in range(ROUNDS):
            await central.kill()
            await until(knows_central_is_away, store)
            for _ in range(SALES_IN_A_ROUND):
                product, keys = chance.choice(PRODUCTS), keys + 1
                reply = await store.adjust(product, -1, f"sale-{keys}")
                assert 202 == reply.status, reply.body
                sold[product] += 1
            await store.kill()  # with all of them queued
            await store.start("/ready")
            await central.start()
            await central.fault("drop", when="after", routes=["updates"], times=5)
            await asyncio.sleep(chance.random() / 2)
            await store.kill()  # with some of them on their way
            await store.start("/ready")
        await until(nothing_waits, store)
        rows = await central.rows()

        assert {one: STOCK - sold[one] for one in PRODUCTS} == {
            one: rows[one]["available"] for one in PRODUCTS
        }
        for number in range(1, keys + 1):
            headers = {"X-API-Key": STORE_ADMIN_KEY}
            path = f"/v1/store/outbox?idempotencyKey=sale-{number}"
            [entry] = (await store.call("GET", path, headers=headers)).json["entries"]
            assert "applied" == entry["state"]
    finally:
        await store.close()
        await central.close()
