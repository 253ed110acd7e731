"""Those who use a store while things break: readers, tills, other shops.

Knows: what no reader may ever see, and what a till does with each answer.
Refuses to know: what is being broken.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.scenarios.chain import Central
from tests.scenarios.shop import INVENTORY, Answer, Store

SLOW_SECONDS = 0.8
"""Whoever waits for Central here waits a second and more; the machine may be busy, too."""

MOST_REPEATS = 200
UNSETTLED = (429, 503, 504)


@dataclass
class Reads:
    """What a reader saw: one page with every product, again and again."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    steps_back: int = 0
    _last: dict[str, int] = field(default_factory=dict)
    _generation: str | None = None

    def note(self, response: Answer, seconds: float) -> None:
        self.answered += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if response.status != 200:
            self.failed.append(f"{response.status} {response.body!r}")
            return
        generation = response.headers.get("X-Cache-Generation")
        seen = {row["productId"]: row["version"] for row in response.json["products"]}
        same = generation == self._generation
        back = any(version < self._last.get(i, 0) for i, version in seen.items())
        self.steps_back += same and back
        self._last, self._generation = seen, generation

    @property
    def problems(self) -> list[str]:
        """A failed read, and one that waited; empty if all is well."""
        slow = self.slowest_seconds > SLOW_SECONDS
        return self.failed + slow * [f"the slowest read took {self.slowest_seconds:.2f} s"]


@asynccontextmanager
async def reading(store: Store) -> AsyncIterator[Reads]:
    """Somebody who reads all the time, until the block ends."""
    reads = Reads()
    task = asyncio.create_task(_read(store, reads))
    try:
        yield reads
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert reads.answered


async def _read(store: Store, reads: Reads) -> None:
    while True:
        began = time.monotonic()
        response = await store.call("GET", INVENTORY, params={"limit": "200"})
        reads.note(response, time.monotonic() - began)
        await asyncio.sleep(0.02)


class Till:
    """Sells under keys of its own; repeats what was not settled until it is."""

    def __init__(self, store: Store, name: str) -> None:
        self.applied: Counter[str] = Counter()
        """What was acknowledged, by product."""
        self.conflicts = 0
        self.repeats = 0
        self._store = store
        self._name = name
        self._keys = itertools.count()

    async def sell(self, product_id: str, delta: int) -> None:
        """Sell until it is applied: a conflict is sold again under another key."""
        while True:
            row = await self._store.row(product_id)
            assert row is not None
            key = f"{self._name}-{next(self._keys)}"
            response = await self._settled(product_id, delta, row["version"], key)
            if response.status == 200:
                self.applied[product_id] += delta
                return
            assert response.json.get("errorType") == "version_conflict", response.body
            self.conflicts += 1

    async def _settled(self, product_id: str, delta: int, version: int, key: str) -> Answer:
        while True:
            response = await self._store.update(product_id, delta, version, key)
            if response.status not in UNSETTLED:
                return response
            self.repeats += 1
            assert self.repeats < MOST_REPEATS, (response.status, response.body)
            await asyncio.sleep(min(float(response.headers.get("Retry-After", "0.1")), 5.0))


async def trade(
    store: Store,
    central: Central,
    product_ids: Sequence[str],
    *,
    sales: int = 4,
) -> Counter[str]:
    """Three tills and another shop sell the same products at once, each so often; what they
    sold, by product."""
    sold: Counter[str] = Counter()
    people = [Till(store, f"till-{number}") for number in range(3)]
    async with asyncio.TaskGroup() as group:
        for number, till in enumerate(people):
            group.create_task(_sell_some(till, random.Random(number), product_ids, sales))
        group.create_task(_sell_elsewhere(central, random.Random(99), product_ids, sales, sold))
    for till in people:
        sold.update(till.applied)
    return sold


async def _sell_some(
    till: Till, chance: random.Random, product_ids: Sequence[str], sales: int
) -> None:
    for _ in range(sales):
        await till.sell(chance.choice(product_ids), -chance.randint(1, 3))


async def _sell_elsewhere(
    central: Central,
    chance: random.Random,
    product_ids: Sequence[str],
    sales: int,
    sold: Counter[str],
) -> None:
    for _ in range(sales):
        product_id, delta = chance.choice(product_ids), -chance.randint(1, 3)
        await central.sell(product_id, delta)
        sold[product_id] += delta
