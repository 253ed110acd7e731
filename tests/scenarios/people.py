"""Those who use a store while things break: readers, tills, other shops."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.harness.background import in_background
from tests.harness.clients import StoreClient
from tests.harness.http import Reply
from tests.harness.processes import CentralProcess
from tests.scenarios.in_process import Central

SLOW_SECONDS = 0.8
"""A read that waited for Central takes a second and more; one from memory no time, but for a busy
machine's."""

LOOKED_UP = 20
READ_PAUSE_SECONDS = 0.05
SALE_PAUSE_SECONDS = 0.2
MOST_REPEATS = 200
UNSETTLED = (429, 503, 504)


@dataclass
class Reads:
    """What readers were answered. `newest`: the highest version seen, by generation and product: a
    new generation may bring older versions."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    went_back: list[str] = field(default_factory=list)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, reply: Reply, seconds: float) -> None:
        self.answered += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if reply.status != 200:
            self.failed.append(f"{reply.status} {reply.body!r}")
            return
        generation = reply.headers.get("X-Cache-Generation", "")
        for row in reply.json["products"]:
            place, version = (generation, row["productId"]), row["version"]
            if version < self.newest.get(place, 0):
                self.went_back.append(f"{place}: {self.newest[place]} -> {version}")
            self.newest[place] = max(version, self.newest.get(place, 0))

    @property
    def problems(self) -> list[str]:
        """Reads that failed, waited, or went back; empty if all is well."""
        slow = self.slowest_seconds > SLOW_SECONDS
        waited = slow * [f"the slowest read took {self.slowest_seconds:.2f} s"]
        return self.failed + self.went_back + waited


@asynccontextmanager
async def reading(store: StoreClient, product_ids: Sequence[str]) -> AsyncIterator[Reads]:
    """Look up some of the products, again and again, until the block ends."""
    reads = Reads()
    async with in_background(_read(store, product_ids, reads)):
        yield reads
    assert reads.answered


async def _read(store: StoreClient, product_ids: Sequence[str], reads: Reads) -> None:
    chance, time = random.Random(7), asyncio.get_running_loop().time
    while True:
        began = time()
        wanted = chance.sample(product_ids, min(LOOKED_UP, len(product_ids)))
        reads.note(await store.look_up(*wanted), time() - began)
        await asyncio.sleep(READ_PAUSE_SECONDS)


class Till:
    """Sells under keys of its own; repeats what was not settled until it is."""

    def __init__(self, store: StoreClient, name: str) -> None:
        self.applied: Counter[str] = Counter()
        """What was acknowledged, by product."""
        self._store = store
        self._name = name
        self._keys = itertools.count()

    async def sell(self, product_id: str, delta: int) -> None:
        """Sell until it is applied: a conflict is sold again under another key."""
        while True:
            row = await self._store.row(product_id)
            assert row is not None
            key = f"{self._name}-{next(self._keys)}"
            reply = await self._settled(product_id, delta, row["version"], key)
            if reply.status == 200:
                self.applied[product_id] += delta
                return
            assert reply.json.get("errorType") == "version_conflict", reply.body

    async def _settled(self, product_id: str, delta: int, version: int, key: str) -> Reply:
        for _ in range(MOST_REPEATS):
            reply = await self._store.update(product_id, delta, version, key)
            if reply.status not in UNSETTLED:
                return reply
            await asyncio.sleep(min(float(reply.headers.get("Retry-After", "0.1")), 5.0))
        raise AssertionError((reply.status, reply.body))


async def trade(
    store: StoreClient,
    central: Central | CentralProcess,
    product_ids: Sequence[str],
    *,
    sales: int = 4,
) -> Counter[str]:
    """Have three tills and another shop sell the same products at once, each so often; what they
    sold, by product."""
    tills = [Till(store, f"till-{number}") for number in range(3)]
    async with asyncio.TaskGroup() as group:
        for number, till in enumerate(tills):
            chosen = _chosen(number, product_ids, sales)
            group.create_task(_sell(till, chosen))
        elsewhere = group.create_task(sell_elsewhere(central, product_ids, sales=sales))
    return added(elsewhere.result(), *(till.applied for till in tills))


def added(*counts: Counter[str]) -> Counter[str]:
    """Their sum, which may be negative: the sum of Counters leaves such out."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _chosen(seed: int, product_ids: Sequence[str], sales: int) -> list[tuple[str, int]]:
    chance = random.Random(seed)
    return [(chance.choice(product_ids), -chance.randint(1, 3)) for _ in range(sales)]


async def _sell(till: Till, sales: Sequence[tuple[str, int]]) -> None:
    for product_id, delta in sales:
        await till.sell(product_id, delta)


async def sell_elsewhere(
    central: Central | CentralProcess,
    product_ids: Sequence[str],
    *,
    sales: int,
    pause_seconds: float = 0.0,
) -> Counter[str]:
    """Have another shop sell so often; what it sold, by product."""
    sold: Counter[str] = Counter()
    for product_id, delta in _chosen(99, product_ids, sales):
        await central.sell(product_id, delta)
        sold[product_id] += delta
        await asyncio.sleep(pause_seconds)
    return sold


@dataclass
class Sales:
    """How many sales of a till were applied, and how many were not."""

    applied: int = 0
    others: int = 0


@asynccontextmanager
async def selling(store: StoreClient, product_id: str) -> AsyncIterator[Sales]:
    """Have a till sell and take back until the block ends, whatever it is answered."""
    sales = Sales()
    async with in_background(_sell_on(store, product_id, sales)):
        yield sales


async def _sell_on(store: StoreClient, product_id: str, sales: Sales) -> None:
    for number in itertools.count():
        reply = await store.adjust(product_id, 1 - 2 * (number % 2), f"on-and-on-{number}")
        sales.applied += reply.status == 200
        sales.others += reply.status != 200
        await asyncio.sleep(SALE_PAUSE_SECONDS)
