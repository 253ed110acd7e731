"""A shop for scenarios: a Central and the stores that follow it, wherever they run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from central_stub.switches import Switches
from tests.harness.clients import Row, StoreClient
from tests.harness.clock import Clock
from tests.harness.processes import CentralProcess, StoreProcess
from tests.scenarios.in_process import Central, Store
from tests.scenarios.people import Reads, reading

LOOK_SECONDS = 0.05
HELD_SECONDS = 6.0
"""A full sync has held after five seconds: the next one may then run at once (F6)."""

C = TypeVar("C", Central, CentralProcess)
S = TypeVar("S", Store, StoreProcess)
Condition = Callable[[], bool | Awaitable[bool]]


def product(number: int, **attributes: Any) -> Row:
    usual = {"productId": f"P-{number:03}", "name": f"Product {number}", "available": 1000}
    return usual | attributes


async def until(condition: Condition, *, within_seconds: float = 60.0) -> None:
    """Wait for what has no event to wait for, with a deadline of the loop's time."""
    time = asyncio.get_running_loop().time
    ends_at = time() + within_seconds
    while not await _holds(condition):
        assert time() < ends_at, f"not so within {within_seconds} s: {condition}"
        await asyncio.sleep(LOOK_SECONDS)


async def _holds(condition: Condition) -> bool:
    held = condition()
    return await held if inspect.isawaitable(held) else held


@dataclass
class Shop(Generic[C, S]):
    """`product_ids`: what Central held at first."""

    central: C
    stores: list[S]
    product_ids: list[str]

    @property
    def store(self) -> S:
        return self.stores[0]

    def reading(self) -> AbstractAsyncContextManager[Reads]:
        """Have products read at the first store until the block ends."""
        return reading(self.store, self.product_ids)

    async def is_in_sync(self) -> bool:
        """Whether every store holds what Central holds, attribute by attribute."""
        expected = essence(await self.central.rows())
        return all([essence(await rows_of(store)) == expected for store in self.stores])

    async def until_in_sync(self, within_seconds: float = 60.0) -> None:
        try:
            await until(self.is_in_sync, within_seconds=within_seconds)
        except AssertionError:
            expected = essence(await self.central.rows())
            for store in self.stores:
                assert essence(await rows_of(store)) == expected, await store.status()
            raise

    async def until_live(self, state: str = "live") -> None:
        """Wait until every store is in `state`, and holds what Central holds."""
        await self.until_in_sync()
        await until(lambda: self._are(state))

    async def _are(self, state: str) -> bool:
        return {state} == {await store.state() for store in self.stores}

    async def until_held(self) -> None:
        """Let the last full sync become old enough for another one to run at once."""
        await self.until_live()
        await asyncio.sleep(HELD_SECONDS)
        await self.until_live()


InProcessShop = Shop[Central, Store]
ProcessShop = Shop[CentralProcess, StoreProcess]
AnyShop = Shop[Any, Any]


@asynccontextmanager
async def a_shop(
    folder: Path,
    *,
    products: Sequence[Row] = tuple(product(number) for number in range(20)),
    switches: Switches | None = None,
    store_ids: Sequence[str] = ("store-s1",),
    state: str | None = "live",
    seed: int = 7,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[InProcessShop]:
    """A Central that holds `products`, and a store for each id, in `state` and in sync with it
    (None: not started yet), all in this process. Everything stops when the block ends."""
    async with AsyncExitStack() as stack:
        clock = clock or Clock()
        central = Central(folder / "central", switches or Switches(), clock, seed=seed)
        stack.push_async_callback(central.close)
        await central.start()
        await central.create(*products)
        shop = Shop(central, [], [row["productId"] for row in products])
        for store_id in store_ids:
            store = Store(clock, central.url, folder / store_id, store_id=store_id, **settings)
            stack.push_async_callback(store.close)
            shop.stores.append(store)
            if state is not None:
                await store.start()
        if state is not None:
            await shop.until_live(state)
        yield shop


@asynccontextmanager
async def a_shop_of_processes(
    folder: Path, products: Sequence[Row], switches: Switches | None = None, **settings: str
) -> AsyncIterator[ProcessShop]:
    """A Central that holds `products`, and a store that is not started yet, each a process of its
    own. `settings` are environment variables. Both are killed when the block ends."""
    central = CentralProcess(folder / "central", switches)
    store = StoreProcess(folder / "store", central.url, **settings)
    try:
        await central.start()
        await central.create(*products)
        yield Shop(central, [store], [row["productId"] for row in products])
    finally:
        await store.close()
        await central.close()


async def rows_of(store: StoreClient) -> dict[str, Row]:
    """What it holds; nothing where it has no catalogue."""
    return await store.rows() if await store.is_ready() else {}


def essence(rows: dict[str, Row]) -> dict[str, Row]:
    """Rows without their zeros and falses, which some Centrals leave out."""
    return {i: {n: v for n, v in row.items() if v or v == ""} for i, row in rows.items()}
