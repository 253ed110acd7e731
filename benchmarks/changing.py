"""Changes products at a Central at a steady rate, until it is ended.

    python -m benchmarks.changing URL CHANGES_A_SECOND PRODUCTS

Knows: Central's admin calls. Refuses to know: who follows.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import count, islice

import httpx

from benchmarks.processes import ADMIN_KEY, client
from benchmarks.rows import product_id, random_numbers

REQUESTS_A_SECOND = 50
"""Each changes several products, as tills of many shops do between two of Central's answers."""


async def change(url: str, a_second: int, products: int) -> None:
    """Change `a_second` products each second, in even steps; late steps are made up for."""
    async with client(url, ADMIN_KEY) as central:
        numbers = changed_numbers(products)
        began = time.monotonic()
        for step in count(1):
            await put(central, islice(numbers, a_second // REQUESTS_A_SECOND), available=step)
            if step == 1:
                print("changing", flush=True)
            await asyncio.sleep(began + step / REQUESTS_A_SECOND - time.monotonic())


def changed_numbers(products: int) -> Iterator[int]:
    while True:
        yield from random_numbers(100_000, products)


async def put(central: httpx.AsyncClient, numbers: Iterator[int], *, available: int) -> None:
    rows = [{"productId": product_id(number), "available": available} for number in numbers]
    answer = await central.put("/v1/admin/products/set", json={"products": rows})
    answer.raise_for_status()


if __name__ == "__main__":
    asyncio.run(change(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
