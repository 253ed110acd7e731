"""What the return of Central looks like, with so many stores.

Knows: how an outage is played in virtual time, and what is measured after it.
Refuses to know: tables and plots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from benchmarks.scale.central import Capacity, Central, tenth
from benchmarks.scale.store import Chance, Store, in_the_middle
from store_cache.sync.states import SyncSettings
from tests.harness.virtual_time import run

SETTLE_SECONDS = 25.0
"""Before the outage every poll is being held, each since another moment."""

STEP_SECONDS = 0.25


@dataclass(frozen=True)
class Outage:
    """`is_log_lost`: Central's log begins anew, so that every store needs a full sync.
    `sales_per_second` is of each store."""

    stores: int
    seconds: float
    capacity: Capacity
    jitter: bool = True
    is_log_lost: bool = False
    collapses: bool = False
    sales_per_second: float = 0.0
    products: int = 100_000
    watched_seconds: float = 300.0
    seed: int = 1


@dataclass(frozen=True)
class Return:
    """What was seen after Central's return; seconds count from there. `arrived` and `refused` by
    tenths of a second. `in_step`: when each store was, the first one first; stores that were not
    are left out. `full_syncs`: how many began."""

    outage: Outage
    arrived: tuple[int, ...]
    refused: tuple[int, ...]
    kinds: dict[str, int]
    in_step: tuple[float, ...]
    full_syncs: int
    longest_queue_seconds: float

    @property
    def busiest_second(self) -> int:
        """Requests in the busiest second, to a tenth."""
        return max(map(sum, windowed(self.arrived)), default=0)

    @property
    def busiest_tenth(self) -> int:
        return max(self.arrived, default=0)

    def in_step_after(self, share: float) -> float | None:
        """Seconds until that share of the stores was in step; None if it never was."""
        needed = max(1, round(share * self.outage.stores))
        return self.in_step[needed - 1] if len(self.in_step) >= needed else None


def windowed(arrived: Sequence[int]) -> Iterator[Sequence[int]]:
    """Each second, beginning with any tenth."""
    return (arrived[start : start + 10] for start in range(max(1, len(arrived) - 9)))


def play(outage: Outage) -> Return:
    """Play it to the end, in virtual time; the same outage gives the same return."""
    return run(_played(outage))


async def _played(outage: Outage) -> Return:
    central = Central(outage.capacity, products=outage.products, collapses=outage.collapses)
    stores = [
        Store(central, SyncSettings(), random=_chance(outage, n)) for n in range(outage.stores)
    ]
    async with _running(stores, outage):
        await asyncio.sleep(SETTLE_SECONDS)
        central.goes_down()
        await asyncio.sleep(outage.seconds)
        if outage.is_log_lost:
            central.lose_log()
        runs = _runs_begun(stores)
        returned_at = asyncio.get_running_loop().time()
        central.comes_back()
        await _watch(stores, returned_at + outage.watched_seconds)
        return _seen(outage, central, stores, returned_at, _runs_begun(stores) - runs)


def _chance(outage: Outage, number: int) -> Chance:
    return Random(f"{outage.seed}-{number}").random if outage.jitter else in_the_middle


@asynccontextmanager
async def _running(stores: Sequence[Store], outage: Outage) -> AsyncIterator[None]:
    """Each store starts at a moment of its own, jitter or not, as people start them."""
    chance = Random(outage.seed)
    works = [_lives(store, chance, outage.sales_per_second) for store in stores]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lives(store: Store, chance: Random, sales_per_second: float) -> None:
    await asyncio.sleep(chance.uniform(0.0, SETTLE_SECONDS - 5.0))
    async with asyncio.TaskGroup() as group:
        group.create_task(store.runner.run())
        if sales_per_second:
            group.create_task(store.sells(sales_per_second, Random(chance.random())))


async def _watch(stores: Sequence[Store], until: float) -> None:
    """Wait until every store has been in step again, or until then."""
    for store in stores:
        store.in_sync_at = None
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(STEP_SECONDS)
        if all(store.in_sync_at is not None for store in stores):
            return


def _runs_begun(stores: Sequence[Store]) -> int:
    return sum(store.runner.state.full_syncs_begun for store in stores)


def _seen(
    outage: Outage, central: Central, stores: Sequence[Store], since: float, runs: int
) -> Return:
    tally = central.tally
    tenths = range(tenth(since), tenth(asyncio.get_running_loop().time()) + 1)
    steps = (store.in_sync_at for store in stores)
    return Return(
        outage,
        arrived=tuple(tally.arrived[each] for each in tenths),
        refused=tuple(tally.refused[each] for each in tenths),
        kinds=dict(tally.kinds),
        in_step=tuple(sorted(at - since for at in steps if at is not None)),
        full_syncs=runs,
        longest_queue_seconds=tally.longest_queue_seconds,
    )
