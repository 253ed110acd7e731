"""The catalogue of benchmarks: rows made from their number, 142 bytes each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson

PAGE_ROWS = 50


def product_id(number: int) -> str:
    return f"PROD-{number:07d}"


def row(number: int, *, available: int = 10, version: int = 1) -> dict[str, Any]:
    return {
        "productId": product_id(number),
        "name": f"Product number {number:07d}",
        "available": available,
        "version": version,
        "lastUpdated": "2026-01-15T10:30:00.000Z",
        "price": 99.99,
    }


def random_numbers(count: int, below: int) -> Iterator[int]:
    """Return the same numbers every time."""
    source = random.Random(7)
    return (source.randrange(below) for _ in range(count))


def page_body(offset: int, total: int) -> bytes:
    """Return a store's answer for that page, with every row as `row` made it."""
    rows = [row(number) for number in range(offset, min(total, offset + PAGE_ROWS))]
    pagination = {
        "offset": offset,
        "limit": PAGE_ROWS,
        "total": total,
        "hasMore": offset + PAGE_ROWS < total,
    }
    info = {"lastSyncTime": "2026-01-15T10:30:00.000Z", "totalProducts": total}
    return orjson.dumps({"products": rows, "pagination": pagination, "cacheInfo": info})
