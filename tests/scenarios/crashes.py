"""Crashes of a Central that saves its log and its stock apart, and what a store makes of them.

Tests play them in virtual time, a campaign with real processes and a real catalogue.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.scenarios.shop import AnyShop, until

LOSSES = ("events", "stock")
"""What a crash may lose the end of."""

SOON_SECONDS = 10.0
"""So soon after Central's return the store is equal again."""

SPACING_SECONDS = 62.0
"""The store compares once a minute at most because of failures."""

WRITES = 12
LOST = 5


@dataclass(frozen=True)
class Crashed:
    """One crash, and how it ended. `lost`: the products of which Central has lost something.
    `named`: those that verification found, `reasons`: why the store ran full syncs."""

    loses: str
    is_seen: bool
    equal_after_seconds: float
    lost: frozenset[str]
    named: frozenset[str]
    reasons: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        found = []
        if self.equal_after_seconds > SOON_SECONDS:
            found.append(f"equal only after {self.equal_after_seconds:.1f} s")
        if not self.reasons and (unnamed := self.lost - self.named):
            found.append(f"was lost, and is named nowhere: {sorted(unnamed)}")
        return found


async def crash(
    shop: AnyShop, loses: str, source: random.Random, *, is_seen: bool, is_killed: bool
) -> Crashed:
    """Sell some products, and crash Central. Another sale at its return shows when the store has
    followed the feed.

    `is_seen`: the store has seen the events that are then lost. Otherwise its feed is slow for a
    moment. `is_killed`: Central's process ends, too, and is started again.
    """
    time = asyncio.get_running_loop().time
    central, store = shop.central, shop.store
    before = await store.status()
    if not is_seen:
        await central.fault("delay", seconds=5, routes=["events"])
    *sold, last = source.sample(shop.product_ids, WRITES)
    for product_id in sold:
        await central.sell(product_id, 1)  # brought back: nothing runs out
    if is_seen:
        await until(shop.is_in_sync)
    await central.fault("crash", loses=loses, count=LOST)
    if is_killed:
        await central.kill()
        await central.start()
    await central.clear_faults()
    returned_at = time()
    await central.sell(last, 1)
    expected = await central.rows()

    async def is_equal() -> bool:
        return await store.row(last) == expected[last] and await shop.is_in_sync()

    await until(is_equal, within_seconds=120.0)
    equal_after_seconds = time() - returned_at
    after = await store.status()
    syncs = _news(before["fullSyncs"], after["fullSyncs"])
    named = _news(before["verification"]["recent"], after["verification"]["recent"])
    return Crashed(
        loses,
        is_seen,
        equal_after_seconds,
        frozenset(sold[-LOST:]),
        frozenset(one["productId"] for one in named),
        tuple(reason for sync in syncs for reason in sync["reasons"]),
    )


def _news(before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    return [one for one in after if one not in before]
