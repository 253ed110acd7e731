"""Puts this store's writes to one product one after the other, first come first served (W8).

Central applies a write only with the product's current version. If a shop's own tills wrote to a
product at the same time, all but one of them would meet a conflict.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Line:
    """`users` hold the lock or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ProductQueue:
    """A line for each product that somebody writes to, and for no other."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def is_free(self, product_id: str) -> bool:
        """Whether nobody writes to the product, or waits for it."""
        return product_id not in self._lines

    @asynccontextmanager
    async def turn(self, product_ids: Iterable[str]) -> AsyncIterator[None]:
        """Wait until no earlier write to these products is under way, and keep later ones waiting.

        Products are taken in the order of their ids, so that two batches never wait for each other.
        """
        async with AsyncExitStack() as held:
            for product_id in sorted(set(product_ids)):
                line = self._lines.setdefault(product_id, _Line())
                line.users += 1
                held.callback(self._leave, product_id)
                await held.enter_async_context(line.lock)
            yield

    def _leave(self, product_id: str) -> None:
        line = self._lines[product_id]
        line.users -= 1
        if not line.users:
            del self._lines[product_id]
