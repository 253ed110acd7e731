"""The parts list: how the program is put together, and in which order it begins and ends.

Knows: every part, and which plain values it needs of the settings.
Refuses to know: what the parts do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import httpx

from store_cache.app.service import StoreService
from store_cache.app.settings import Settings
from store_cache.app.status import Clock, Status
from store_cache.central.client import Central
from store_cache.central.rate_limit import Budget
from store_cache.storage.directory import Folder
from store_cache.storage.files import Archive
from store_cache.storage.lazy_directory import LateFolder
from store_cache.sync.refetch import Repairs
from store_cache.sync.runner import Driver
from store_cache.sync.states import Pace
from store_cache.writer import Keeper
from store_cache.writes.admission import Gate
from store_cache.writes.delivery import Delivery
from store_cache.writes.forwarder import Forwarding
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.in_doubt_search import Proof

log = logging.getLogger(__name__)

WRITES_GRACE_SECONDS = 5.0
"""How long a stop waits for writes under way; with the server's own grace it stays under the 10 s
that a container is given."""

AFTER_DEFECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """What the program reaches outside itself: the wall clock (unix seconds), chance (numbers in
    [0, 1)), its folder, and the way to Central (None: the network)."""

    folder: Folder
    now: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    transport: httpx.AsyncBaseTransport | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """The running parts that somebody outside may ask."""

    service: StoreService
    keeper: Keeper
    driver: Driver


def pace_of(settings: Settings) -> Pace:
    return Pace(
        continuous=settings.poll_mode == "continuous",
        interval_seconds=settings.sync_interval_seconds,
        wait_seconds=settings.event_wait_timeout_seconds,
        batch_limit=settings.event_batch_limit,
        grace_seconds=settings.hole_grace_seconds,
        fallback_seconds=settings.sync_interval_minutes * 60.0,
    )


@asynccontextmanager
async def running(settings: Settings, world: World | None = None) -> AsyncIterator[Store]:
    """Build the store, load its files, follow Central until the block is left.

    Raises FolderInUse and NewerFormat; a disk that fails is no reason not to start (D5).
    """
    folder = LateFolder(settings.data_dir)  # opens nothing before it is used
    world = world or World(folder)
    central = central_of(settings, world)
    keys = KeyTable(retention_seconds=settings.key_retention_hours * 3600.0)
    steady = steady_clock(world.now)
    keeper = Keeper(
        Archive(world.folder, now=world.now),
        keys,
        now=world.now,
        steady=steady,
        grace_seconds=settings.hole_grace_seconds,
        read_whole=central.product,
    )
    try:
        damaged = await keeper.open()
        async with following(settings, world, steady, central, keeper, keys) as store:
            if damaged:
                store.driver.want("files were damaged")
            if keeper.catalogue is not None and keeper.catalogue.flaw:
                store.driver.want(keeper.catalogue.flaw)  # the process before did not come to it
            yield store
    finally:
        await keeper.close()
        await central.close()
        await folder.close()


def steady_clock(now: Callable[[], float]) -> Callable[[], float]:
    """Unix seconds as of now, going on as the monotonic clock does: somebody who sets the clock
    of a shop's machine must not age what the store has to remember."""
    loop_time = asyncio.get_running_loop().time
    ahead = now() - loop_time()
    return lambda: ahead + loop_time()


def central_of(settings: Settings, world: World) -> Central:
    ca_file = settings.central_ca_file
    return Central(
        base_url=settings.central_api_url,
        api_key=settings.central_api_key.get_secret_value(),
        budget=Budget(),
        random=world.random,
        now=world.now,
        transport=world.transport,
        ca_file=None if ca_file is None else str(ca_file),
    )


@asynccontextmanager
async def following(
    settings: Settings,
    world: World,
    steady: Callable[[], float],
    central: Central,
    keeper: Keeper,
    keys: KeyTable,
) -> AsyncIterator[Store]:
    """The parts that work on their own, from when the files are loaded until they are let go."""
    loop = asyncio.get_running_loop()
    repairs = Repairs(
        central,
        keeper,
        now=steady,
        random=world.random,
        on_hopeless=lambda reason: driver.want(reason),  # noqa: PLW0108 - built below
    )
    gate = Gate(
        central=central,
        random=world.random,
        on_answer=lambda: driver.nudge(),  # noqa: PLW0108 - built below
    )
    forwarding = forwarding_of(
        settings,
        world,
        central=central,
        gate=gate,
        keeper=keeper,
        repairs=repairs,
        keys=keys,
    )
    driver = Driver(
        central,
        keeper,
        pace_of(settings),
        least_percent=settings.snapshot_min_percent,
        now=steady,
        random=world.random,
        on_events=forwarding.events_seen,
        on_line=lambda there: forwarding.central_seen() if there else forwarding.central_lost(),
        on_advance=lambda: status.named(),  # noqa: PLW0108 - built below
    )
    status = Status(
        driver=driver,
        keeper=keeper,
        forwarding=forwarding,
        clock=Clock(world.now, loop.time),
        stale_after_seconds=settings.stale_after_seconds,
        version=version("store-cache"),
    )
    service = StoreService(
        keeper=keeper, driver=driver, repairs=repairs, forwarding=forwarding, status=status
    )
    forwarding.start()
    tasks = [
        loop.create_task(kept_going("event sync", driver.run)),
        loop.create_task(kept_going("repairs", repairs.run)),
    ]
    try:
        yield Store(service, keeper, driver)
    finally:
        await forwarding.stop(within_seconds=WRITES_GRACE_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def forwarding_of(
    settings: Settings,
    world: World,
    *,
    central: Central,
    gate: Gate,
    keeper: Keeper,
    repairs: Repairs,
    keys: KeyTable,
) -> Forwarding:
    proof = Proof(store_id=settings.store_id, feed=central, standing=keeper)
    delivery = Delivery(
        store_id=settings.store_id,
        gate=gate,
        ledger=keeper,
        rereads=repairs,
        keys=keys,
        proof=proof,
        now=world.now,
    )
    return Forwarding(
        gate=gate,
        delivery=delivery,
        proof=proof,
        keys=keys,
        ledger=keeper,
        rereads=repairs,
        write_timeout_seconds=settings.write_timeout_seconds,
    )


async def kept_going(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """A defect in one part must not leave a shop with a cache that silently stands still: it is
    logged with its traceback, and the part begins afresh from what is on disk and in memory."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s: a defect of the store; please report it. It begins afresh", name)
            await asyncio.sleep(AFTER_DEFECT_SECONDS)
