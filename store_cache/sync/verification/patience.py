"""Asks Central, and waits for its limits: a comparison is never urgent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from store_cache.central.failures import LimitExceeded
from store_cache.model.digest import Digest
from store_cache.model.pages import CataloguePage, PageRequest
from store_cache.model.product import Row

T = TypeVar("T")

SPREAD_SECONDS = 1.0
"""Jitter after a limit, which ends for all stores of a chain at once."""


class Source(Protocol):
    """What verification asks of Central; `central.client.CentralClient` is one."""

    async def digest(self, buckets: int) -> Digest: ...

    async def bucket(self, bucket: int, buckets: int) -> CataloguePage: ...

    async def page(self, request: PageRequest) -> CataloguePage: ...

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None: ...


class PatientSource:
    """Central, whose limits (429, or the store's own share of the budget) are waited for.

    The methods raise what the client's raise, but no LimitExceeded. `random` gives numbers in
    [0, 1).
    """

    def __init__(self, central: Source, random: Callable[[], float]) -> None:
        self._central = central
        self._random = random

    async def digest(self, buckets: int, *, before: Callable[[], None]) -> Digest:
        """Return Central's digest. `before` is called before each request for it."""

        def ask() -> Awaitable[Digest]:
            before()
            return self._central.digest(buckets)

        return await self._patiently(ask)

    async def bucket(self, bucket: int, buckets: int) -> CataloguePage:
        return await self._patiently(lambda: self._central.bucket(bucket, buckets))

    async def page(self, request: PageRequest) -> CataloguePage:
        return await self._patiently(lambda: self._central.page(request))

    async def product(self, product_id: str, *, generation: str | None) -> Row | None:
        return await self._patiently(
            lambda: self._central.product(product_id, generation=generation)
        )

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except LimitExceeded as limit:
                await asyncio.sleep(limit.retry_after_seconds + SPREAD_SECONDS * self._random())
