"""The return of Central after an outage, with many stores, played in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.scale.central import Capacity, CentralModel, tenth
from benchmarks.scale.store import Chance, StoreModel, in_the_middle
from store_cache.sync.states import SyncSettings
from tests.harness.background import in_background
from tests.harness.virtual_time import run

SETTLE_SECONDS = 25.0
"""Before the outage, until every poll is held, each since a different moment."""

STEP_SECONDS = 0.25


@dataclass(frozen=True)
class Outage:
    """`is_log_lost`: Central returns with an empty log, so that every store needs a full sync.
    `sales_per_second`: of each store."""

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
    """What happened after Central's return; seconds count from there. `arrived` and `refused`:
    requests, by tenths of a second. `in_sync`: when each store was, in order, without those that
    never were. `full_syncs`: how many began."""

    outage: Outage
    arrived: tuple[int, ...]
    refused: tuple[int, ...]
    kinds: dict[str, int]
    in_sync: tuple[float, ...]
    full_syncs: int
    longest_queue_seconds: float

    @property
    def busiest_second(self) -> int:
        """Requests in the busiest second, to a tenth."""
        return max(map(sum, windowed(self.arrived)), default=0)

    @property
    def busiest_tenth(self) -> int:
        return max(self.arrived, default=0)

    def in_sync_after(self, share: float) -> float | None:
        """Return the seconds until that share of the stores was in sync; None if it never was."""
        needed = max(1, round(share * self.outage.stores))
        return self.in_sync[needed - 1] if len(self.in_sync) >= needed else None


def windowed(arrived: Sequence[int]) -> Iterator[Sequence[int]]:
    """Return each second, beginning with any tenth."""
    return (arrived[start : start + 10] for start in range(max(1, len(arrived) - 9)))


def play(outage: Outage) -> Return:
    """Play an outage in virtual time; the same outage gives the same return."""
    return run(_played(outage))


async def _played(outage: Outage) -> Return:
    central = CentralModel(outage.capacity, products=outage.products, collapses=outage.collapses)
    stores = [
        StoreModel(central, SyncSettings(), random=_chance(outage, n)) for n in range(outage.stores)
    ]
    chance = Random(outage.seed)
    async with in_background(*(_start(s, chance, outage.sales_per_second) for s in stores)):
        await asyncio.sleep(SETTLE_SECONDS)
        central.go_down()
        await asyncio.sleep(outage.seconds)
        if outage.is_log_lost:
            central.lose_log()
        begun = _full_syncs_begun(stores)
        returned_at = asyncio.get_running_loop().time()
        central.come_back()
        await _watch(stores, returned_at + outage.watched_seconds)
        return _seen(outage, central, stores, returned_at, _full_syncs_begun(stores) - begun)


def _chance(outage: Outage, number: int) -> Chance:
    return Random(f"{outage.seed}-{number}").random if outage.jitter else in_the_middle


async def _start(store: StoreModel, chance: Random, sales_per_second: float) -> None:
    """Start the store at a moment of its own, with or without jitter, as people do."""
    await asyncio.sleep(chance.uniform(0.0, SETTLE_SECONDS - 5.0))
    async with asyncio.TaskGroup() as group:
        group.create_task(store.runner.run())
        if sales_per_second:
            group.create_task(store.sell(sales_per_second, Random(chance.random())))


async def _watch(stores: Sequence[StoreModel], until: float) -> None:
    """Wait until every store has been in sync again, at most until this time."""
    for store in stores:
        store.in_sync_at = None
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(STEP_SECONDS)
        if all(store.in_sync_at is not None for store in stores):
            return


def _full_syncs_begun(stores: Sequence[StoreModel]) -> int:
    return sum(store.runner.state.full_syncs_begun for store in stores)


def _seen(
    outage: Outage,
    central: CentralModel,
    stores: Sequence[StoreModel],
    since: float,
    full_syncs: int,
) -> Return:
    tally = central.tally
    tenths = range(tenth(since), tenth(asyncio.get_running_loop().time()) + 1)
    moments = (store.in_sync_at for store in stores)
    return Return(
        outage,
        arrived=tuple(tally.arrived[each] for each in tenths),
        refused=tuple(tally.refused[each] for each in tenths),
        kinds=dict(tally.kinds),
        in_sync=tuple(sorted(at - since for at in moments if at is not None)),
        full_syncs=full_syncs,
        longest_queue_seconds=tally.longest_queue_seconds,
    )
