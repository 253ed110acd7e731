"""The turn at a product (W8)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from store_cache.writes.product_queue import ProductQueue


async def test_a_product_that_nobody_writes_to_takes_no_room() -> None:
    """W8: a lock exists while it is held or waited for, also if the wait is given up."""
    queue = ProductQueue()
    async with queue.turn(["P-1", "P-2"]):
        held = len(queue)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.0), queue.turn(["P-0", "P-2", "P-3"]):
                raise AssertionError("P-2 is taken")

    assert (2, 0) == (held, len(queue))


async def test_a_wait_that_is_given_up_lets_the_next_one_go_first() -> None:
    """W8: first come first served among those that still wait."""
    queue = ProductQueue()
    order: list[str] = []

    async def write(name: str) -> None:
        async with queue.turn(["P-1"]):
            order.append(name)

    async with queue.turn(["P-1"]):
        tasks = [asyncio.create_task(write(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert ["a", "c"] == order
