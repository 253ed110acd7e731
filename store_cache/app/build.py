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
from store_cache.central.rate_limit import RateLimit
from store_cache.storage.directory import Directory
from store_cache.storage.files import CacheFiles
from store_cache.storage.lazy_directory import LazyDirectory
from store_cache.sync.refetch import Refetcher
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import SyncSettings
from store_cache.writer import CacheWriter
from store_cache.writes.admission import Admission
from store_cache.writes.delivery import Delivery
from store_cache.writes.forwarder import Forwarder
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.in_doubt_search import InDoubtSearch

log = logging.getLogger(__name__)

WRITES_GRACE_SECONDS = 5.0
"""How long a stop waits for writes under way; with the server's own grace it stays under the 10 s
that a container is given."""

AFTER_DEFECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Environment:
    """What the program reaches outside itself: the wall clock (unix seconds), chance (numbers in
    [0, 1)), its folder, and the way to Central (None: the network)."""

    folder: Directory
    now: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    transport: httpx.AsyncBaseTransport | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """The running parts that somebody outside may ask."""

    service: StoreService
    writer: CacheWriter
    runner: SyncRunner


def sync_settings(settings: Settings) -> SyncSettings:
    return SyncSettings(
        continuous=settings.poll_mode == "continuous",
        interval_seconds=settings.sync_interval_seconds,
        wait_seconds=settings.event_wait_timeout_seconds,
        batch_limit=settings.event_batch_limit,
        grace_seconds=settings.hole_grace_seconds,
        fallback_seconds=settings.sync_interval_minutes * 60.0,
    )


@asynccontextmanager
async def running(settings: Settings, world: Environment | None = None) -> AsyncIterator[Store]:
    """Build the store, load its files, follow Central until the block is left.

    Raises DirectoryInUse and NewerFormat; a disk that fails is no reason not to start (D5).
    """
    folder = LazyDirectory(settings.data_dir)  # opens nothing before it is used
    world = world or Environment(folder)
    central = build_central(settings, world)
    keys = KeyTable(retention_seconds=settings.key_retention_hours * 3600.0)
    steady = steady_clock(world.now)
    writer = CacheWriter(
        CacheFiles(world.folder, now=world.now),
        keys,
        now=world.now,
        steady=steady,
        grace_seconds=settings.hole_grace_seconds,
        read_whole=central.product,
    )
    try:
        damaged = await writer.open()
        async with following(settings, world, steady, central, writer, keys) as store:
            if damaged:
                store.runner.want("files were damaged")
            if writer.catalogue is not None and writer.catalogue.follow_up_reason:
                store.runner.want(
                    writer.catalogue.follow_up_reason
                )  # the process before did not come to it
            yield store
    finally:
        await writer.close()
        await central.close()
        await folder.close()


def steady_clock(now: Callable[[], float]) -> Callable[[], float]:
    """Unix seconds as of now, going on as the monotonic clock does: somebody who sets the clock
    of a shop's machine must not age what the store has to remember."""
    loop_time = asyncio.get_running_loop().time
    ahead = now() - loop_time()
    return lambda: ahead + loop_time()


def build_central(settings: Settings, world: Environment) -> Central:
    ca_file = settings.central_ca_file
    return Central(
        base_url=settings.central_api_url,
        api_key=settings.central_api_key.get_secret_value(),
        budget=RateLimit(),
        random=world.random,
        now=world.now,
        transport=world.transport,
        ca_file=None if ca_file is None else str(ca_file),
    )


@asynccontextmanager
async def following(
    settings: Settings,
    world: Environment,
    steady: Callable[[], float],
    central: Central,
    writer: CacheWriter,
    keys: KeyTable,
) -> AsyncIterator[Store]:
    """The parts that work on their own, from when the files are loaded until they are let go."""
    loop = asyncio.get_running_loop()
    refetcher = Refetcher(
        central,
        writer,
        now=steady,
        random=world.random,
        on_hopeless=lambda reason: runner.want(reason),  # noqa: PLW0108 - built below
    )
    admission = Admission(
        central=central,
        random=world.random,
        on_answer=lambda: runner.wake(),  # noqa: PLW0108 - built below
    )
    forwarder = build_forwarder(
        settings,
        world,
        central=central,
        admission=admission,
        writer=writer,
        refetcher=refetcher,
        keys=keys,
    )
    runner = SyncRunner(
        central,
        writer,
        sync_settings(settings),
        least_percent=settings.snapshot_min_percent,
        now=steady,
        random=world.random,
        on_events=forwarder.events_seen,
        on_line=lambda there: forwarder.central_seen() if there else forwarder.central_lost(),
        on_advance=lambda: status.named(),  # noqa: PLW0108 - built below
    )
    status = Status(
        runner=runner,
        writer=writer,
        forwarder=forwarder,
        clock=Clock(world.now, loop.time),
        stale_after_seconds=settings.stale_after_seconds,
        version=version("store-cache"),
    )
    service = StoreService(
        writer=writer, runner=runner, refetcher=refetcher, forwarder=forwarder, status=status
    )
    forwarder.start()
    tasks = [
        loop.create_task(kept_going("event sync", runner.run)),
        loop.create_task(kept_going("repairs", refetcher.run)),
    ]
    try:
        yield Store(service, writer, runner)
    finally:
        await forwarder.stop(within_seconds=WRITES_GRACE_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def build_forwarder(
    settings: Settings,
    world: Environment,
    *,
    central: Central,
    admission: Admission,
    writer: CacheWriter,
    refetcher: Refetcher,
    keys: KeyTable,
) -> Forwarder:
    proof = InDoubtSearch(store_id=settings.store_id, feed=central, standing=writer)
    delivery = Delivery(
        store_id=settings.store_id,
        admission=admission,
        ledger=writer,
        rereads=refetcher,
        keys=keys,
        proof=proof,
        now=world.now,
    )
    return Forwarder(
        admission=admission,
        delivery=delivery,
        proof=proof,
        keys=keys,
        ledger=writer,
        rereads=refetcher,
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
