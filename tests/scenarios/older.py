"""Older Centrals, each different from an honest one in one way, and one in all ways.

Tests play each of them in virtual time, the campaign with real processes and a real catalogue.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from central_stub.switches import LIKE
from tests.scenarios.people import Reads, added, sell_elsewhere, trade
from tests.scenarios.shop import AnyShop, product, until

FEATURES = ("generation", "event-offset", "gone", "hold", "cursor", "zeros", "order")

SHARED = ["P-001", "P-002", "P-003", "P/3"]
PRODUCTS = [product(number) for number in range(20)] + [
    {"productId": "P/3", "name": "With a slash", "available": 1000},
    {"productId": "last", "name": "The last one", "available": 2},
]
FIRST_SYNC_SECONDS = 300.0
SYNC_SECONDS = 90.0
PAUSE_SECONDS = 0.3


def older(*, page_limit: int, rate_limit: int, key_memory_seconds: float) -> dict[str, Any]:
    """The switches of each older Central, by what is different. The numbers are those that a larger
    catalogue needs larger."""
    small = {"pageLimit": page_limit}
    limited = {"rateLimit": rate_limit}
    different: dict[str, dict[str, Any]] = {
        "an honest one": {},
        "small pages": small,
        "few requests a minute": limited,
        "the limit in the draft's fields": limited | {"rateLimitFields": "draft"},
        "a limit that is not named": limited | {"rateLimitFields": "absent"},
        "keys forgotten soon": {"keyMemorySeconds": key_memory_seconds},
        "errors in HTML": {"htmlErrors": True},
        "items and cursors": {"pageShape": "items"} | small,
        "one bare list": {"pageShape": "list"},
        "camel case totals": {"totalNames": "camel"} | small,
        "refusals of every status": {"refusalStatus": "varied"},
        "old names of events": {"oldEventNames": True},
        "events that name no write": {"unnamedWrites": True},
        "eventOffset is the next": {"eventOffsetMeans": "next"},
        "slashes cannot be fetched": {"slashesUnreachable": True},
        "null for no events": {"nullEvents": True},
        "held beyond the head": {"holdBeyondHead": True},
        "deletions without data": {"deletionData": "absent"},
        "deletions with nothing": {"deletionData": "empty"},
        "versions that stay": {"sameVersion": True},
    }
    in_all_ways = (
        small
        | limited
        | {
            "without": [*FEATURES, "digest"],
            "rateLimitHint": "none",
            "rateLimitFields": "absent",
            "keyMemorySeconds": 2,
            "htmlErrors": True,
            "refusalStatus": "varied",
            "oldEventNames": True,
            "unnamedWrites": True,
            "slashesUnreachable": True,
            "nullEvents": True,
            "holdBeyondHead": True,
            "deletionData": "absent",
        }
    )
    lacking = {f"no {feature}": {"without": [feature]} for feature in FEATURES}
    like = {f"like {name}": each.model_dump(by_alias=True) for name, each in LIKE.items()}
    return lacking | different | {"all together": in_all_ways} | like


@dataclass(frozen=True)
class Played:
    first_sync_seconds: float
    sold: Counter[str]
    stock: dict[str, int]
    reasons: list[str]
    reads: Reads


async def play(shop: AnyShop, *, sales: int = 4) -> Played:
    """Start the store while another shop sells. Then tills sell, too, and products come, change
    and go, one of them sold out, until all is quiet."""
    time = asyncio.get_running_loop().time
    central, store = shop.central, shop.store
    elsewhere = asyncio.create_task(
        sell_elsewhere(central, SHARED, sales=2 * sales, pause_seconds=PAUSE_SECONDS)
    )
    began_at = time()
    await store.start()
    await until(store.is_ready, within_seconds=FIRST_SYNC_SECONDS)
    first_sync_seconds = time() - began_at
    async with shop.reading() as reads:
        selling = asyncio.create_task(trade(store, central, SHARED, sales=sales))
        await central.create(product(100), product(101))
        await central.set("P-005", price=0, name="Renamed", tags=["a", "b"])
        await central.delete("P-006", "P-007")
        await central.create(product(6, available=3))
        await central.sell("last", -2)
        sold = added(await selling, await elsewhere)
        await shop.until_in_sync(SYNC_SECONDS)
    rows = await central.rows()
    stock = {product_id: rows[product_id]["available"] for product_id in SHARED}
    return Played(first_sync_seconds, sold, stock, await store.reasons(), reads)


def problems(played: Played) -> list[str]:
    """What is not as it must be: each sale is counted once, no reader notices anything, and no
    other full sync than the first one runs."""
    found = [*played.reads.problems]
    expected = {product_id: 1000 + played.sold[product_id] for product_id in SHARED}
    if played.stock != expected:
        found.append(f"stock is {played.stock}, and should be {expected}")
    if played.reasons != ["first start"]:
        found.append(f"full syncs: {played.reasons}")
    return found
