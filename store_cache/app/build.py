"""The parts list: what the program is built of, and in which order it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx

from store_cache.api.content.clock import Clock
from store_cache.api.content.defects import Defects
from store_cache.api.content.freshness import FreshnessGauge
from store_cache.api.content.state import StateTracker
from store_cache.api.content.status import StatusDocuments
from store_cache.api.metrics.counts import Counts
from store_cache.api.metrics.watched import Watched
from store_cache.api.parts import StoreParts
from store_cache.api.search.indexer import Indexer
from store_cache.api.stream.feed import ChangeFeed
from store_cache.api.stream.state import StreamState
from store_cache.api.stream.streams import Streams
from store_cache.app.settings import Settings
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.history.history import ChangeHistory
from store_cache.central.client import CentralClient
from store_cache.central.connection import network_transport
from store_cache.central.rate_limit import RateLimit
from store_cache.fleet.report import Reported, Subject
from store_cache.fleet.reporter import Reporter
from store_cache.model.event import AnyEvent
from store_cache.storage.directory import Directory, LocalDirectory
from store_cache.storage.files import CacheFiles
from store_cache.sync.refetch import Refetcher
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import SyncSettings
from store_cache.sync.verification.changes import RecentChanges
from store_cache.sync.verification.verifier import VerificationSettings, Verifier
from store_cache.writer import CacheWriter
from store_cache.writes.admission import Admission
from store_cache.writes.circuit_breaker import LONGEST_PAUSE_SECONDS
from store_cache.writes.forwarder import Forwarder
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.outbox.outbox import Outbox, OutboxSettings
from store_cache.writes.outbox.sender import OutboxSender, SenderSettings

if TYPE_CHECKING:
    from store_cache.api.metrics.metrics import Metrics
    from store_cache.nats.source import NatsSource
    from store_cache.tracing.spans import Spans

log = logging.getLogger(__name__)

WRITES_GRACE_SECONDS = 5.0
"""How long a stop waits for writes under way. Together with the grace of the server it stays below
the 10 s that a container has between SIGTERM and SIGKILL."""

AFTER_DEFECT_SECONDS = 1.0

MAY_LACK = (
    "files in DATA_DIR were damaged (disk.findings says which): queued writes in them may be "
    "missing. Compare what the tills have sold with the outbox and with Central"
)

OUTBOX_PAUSE_SECONDS = 1.5
"""The longest pause between two probes of Central if there is an outbox: what is queued is sent
within two seconds of Central's return (O8)."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What the program reaches outside itself.

    `now` is the wall clock in unix seconds, `random` gives numbers in [0, 1), `transport` is the
    way to Central (None: the network), `spans` are made of requests (None: there are none).
    `uptime`: seconds that are never set and go on while the machine is suspended; None: the loop's
    clock, which stops then.
    """

    directory: Directory
    now: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    transport: httpx.AsyncBaseTransport | None = None
    spans: Spans | None = None
    uptime: Callable[[], float] | None = None


@asynccontextmanager
async def running(
    settings: Settings,
    environment: Environment | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    spans: Spans | None = None,
) -> AsyncIterator[StoreParts]:
    """Build the store, load its files, and follow Central until the block ends. `tls` is for
    connections to Central (see `app.tls`). `spans` are the environment's, if that is not given.

    Raises DirectoryInUse, NewerFormat and OtherStore. A failing disk does not prevent a start (D5).
    """
    local = LocalDirectory(settings.data_dir)  # opens nothing before its first use
    environment = environment or Environment(local, spans=spans, uptime=machine_uptime())
    steady = steady_clock(environment.now)
    central = build_central(settings, environment, tls)
    keys = KeyTable(retention_seconds=settings.key_retention_hours * 3600.0)
    writer = CacheWriter(
        CacheFiles(
            environment.directory,
            store_id=settings.store_id,
            tenant_id=settings.tenant_id,
            now=environment.now,
        ),
        keys,
        now=environment.now,
        steady=steady,
        grace_seconds=settings.hole_grace_seconds,
        fetch_product=central.product,
    )
    outbox = build_outbox(settings, environment, writer, keys)
    try:
        were_damaged = await writer.open()
        used = outbox if outbox.is_used or not writer.is_loaded else None
        if used is None:
            writer.without_outbox()
        elif were_damaged:
            outbox.may_lack = MAY_LACK
        async with following(
            settings, environment, steady, central, writer, keys, outbox=used
        ) as store:
            if were_damaged:
                store.runner.request_full_sync("files were damaged")
            if writer.catalogue is not None and writer.catalogue.follow_up_reason:
                # The process before did not get to it.
                store.runner.request_full_sync(writer.catalogue.follow_up_reason)
            yield store
    finally:
        await writer.close()
        await central.close()
        await local.close()


def machine_uptime() -> Callable[[], float]:
    """Return the clock that counts the seconds in which the machine is suspended, too.

    Elsewhere than on Linux there is none, and an age leaves them out until Central answers again.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


def steady_clock(now: Callable[[], float]) -> Callable[[], float]:
    """Return a clock in unix seconds that starts at `now` and goes on as the monotonic clock does.

    Neither setting the clock of the machine nor suspending it may age what the store has to
    remember: how near two events are is measured by this clock.
    """
    loop_time = asyncio.get_running_loop().time
    offset = now() - loop_time()
    return lambda: offset + loop_time()


def build_central(
    settings: Settings, environment: Environment, tls: ssl.SSLContext | None = None
) -> CentralClient:
    transport = environment.transport
    if environment.spans is not None:
        transport = environment.spans.transport(transport or network_transport(tls))
    return CentralClient(
        base_url=settings.central_api_url,
        api_key=settings.central_api_key.get_secret_value(),
        tenant_id=settings.tenant_id,
        rate_limit=RateLimit(),
        random=environment.random,
        now=environment.now,
        transport=transport,
        tls=tls,
    )


@asynccontextmanager
async def following(
    settings: Settings,
    environment: Environment,
    steady: Callable[[], float],
    central: CentralClient,
    writer: CacheWriter,
    keys: KeyTable,
    *,
    outbox: Outbox | None,
) -> AsyncIterator[StoreParts]:
    """Build the parts that need loaded files, and let them work until the block ends."""
    loop = asyncio.get_running_loop()
    defects = Defects(environment.uptime or loop.time)
    store = build_parts(
        settings, environment, steady, central, writer, keys, defects=defects, outbox=outbox
    )
    works = {"event sync": store.runner.run, "refetches": store.refetcher.run}
    if store.feed is not None:
        works["feed on NATS"] = store.feed.run
    if store.metrics is not None:
        works["metrics"] = store.metrics.history.run
    if store.verifier is not None:
        works["verification"] = store.verifier.run
    if store.search is not None:
        works["search index"] = store.search.run
    if store.sender is not None:
        works["outbox"] = store.sender.run
    if store.report is not None:
        works["fleet report"] = store.report
    store.forwarder.start()
    tasks = [loop.create_task(keep_running(name, work, defects)) for name, work in works.items()]
    try:
        yield store
    finally:
        async with asyncio.TaskGroup() as stopping:
            stopping.create_task(store.forwarder.stop(within_seconds=WRITES_GRACE_SECONDS))
            if store.sender is not None:
                stopping.create_task(store.sender.stop(within_seconds=WRITES_GRACE_SECONDS))
        if store.verifier is not None:
            await store.verifier.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def build_parts(
    settings: Settings,
    environment: Environment,
    steady: Callable[[], float],
    central: CentralClient,
    writer: CacheWriter,
    keys: KeyTable,
    *,
    defects: Defects,
    outbox: Outbox | None,
) -> StoreParts:
    """Build what works on the loaded catalogue, and tell each part whom to tell what."""
    uptime = environment.uptime or asyncio.get_running_loop().time
    feed = build_feed(settings, environment, central, uptime)
    runner = SyncRunner(
        central,
        writer,
        SyncSettings(
            continuous=settings.poll_mode == "continuous",
            interval_seconds=settings.sync_interval_seconds,
            wait_seconds=settings.event_wait_timeout_seconds,
            batch_limit=settings.event_batch_limit,
            grace_seconds=settings.hole_grace_seconds,
            fallback_seconds=settings.sync_interval_minutes * 60.0,
        ),
        least_percent=settings.snapshot_min_percent,
        now=steady,
        uptime=uptime,
        random=environment.random,
        feed=feed,
    )
    if feed is not None:
        join_feed(feed, runner, poll_mode=settings.poll_mode)
    refetcher = Refetcher(
        central,
        writer,
        now=steady,
        random=environment.random,
        grace_seconds=settings.hole_grace_seconds,
        request_full_sync=runner.request_full_sync,
    )

    longest = LONGEST_PAUSE_SECONDS if outbox is None else OUTBOX_PAUSE_SECONDS
    admission = Admission(
        central=central,
        random=environment.random,
        on_answer=runner.wake_after_failure,
        write_timeout_seconds=settings.write_timeout_seconds,
        longest_pause_seconds=longest,
    )
    forwarder = Forwarder(
        store_id=settings.store_id,
        admission=admission,
        store=writer,
        refetches=refetcher,
        events=central,
        keys=keys,
        now=environment.now,
        write_timeout_seconds=settings.write_timeout_seconds,
        outbox=outbox,
    )

    clock = Clock(environment.now, uptime)
    freshness = FreshnessGauge(
        runner, writer, clock, stale_after_seconds=settings.stale_after_seconds
    )
    state = StateTracker(runner, writer, freshness, clock, central)
    store_version = version("store-cache")
    status = StatusDocuments(
        central=central,
        runner=runner,
        writer=writer,
        forwarder=forwarder,
        freshness=freshness,
        state=state,
        defects=defects,
        clock=clock,
        version=store_version,
        outbox=outbox,
    )

    verifier = build_verifier(settings, environment, central, writer, runner)
    if verifier is not None:
        status.verification = verifier.findings
    status.feed = feed

    runner.on_events = forwarder.observe_events
    runner.on_central_reached = admission.sync_reached_central
    central.on_refused_connection = admission.connection_refused
    runner.on_advance = state.update
    sender = None
    if outbox is not None:
        sender = build_sender(
            settings,
            environment,
            central=central,
            writer=writer,
            refetcher=refetcher,
            admission=admission,
            forwarder=forwarder,
            outbox=outbox,
        )
        follow_with(runner, forwarder, admission, sender)

    told_state = StreamState(state, freshness, clock, outbox)
    streams = build_streams(settings, environment, writer, told_state, outbox)
    metrics = None
    if settings.metrics:
        watched = Watched(
            *(writer, runner, forwarder, freshness, state, store_version),
            *(streams, verifier, outbox, feed),
        )
        key_required = settings.metrics_key_required
        metrics = build_metrics(watched, central, clock, key_required=key_required)
    return StoreParts(
        writer,
        runner,
        refetcher,
        forwarder,
        freshness,
        status,
        metrics=metrics,
        streams=streams,
        verifier=verifier,
        search=build_search(writer, runner) if settings.search else None,
        history=build_history(settings, environment, writer),
        traced=None if environment.spans is None else environment.spans.around,
        outbox=outbox,
        sender=sender,
        report=build_report(
            settings,
            environment,
            Reported(central, runner, writer, freshness, state, outbox),
            version=store_version,
            uptime=uptime,
        ),
        feed=feed,
    )


def build_feed(
    settings: Settings,
    environment: Environment,
    central: CentralClient,
    uptime: Callable[[], float],
) -> NatsSource | None:
    """Build what brings the feed from NATS; None if it comes from Central."""
    if settings.feed_source == "http":
        return None
    from store_cache.nats.connection import FeedConnection, NatsSettings  # noqa: PLC0415 - an extra
    from store_cache.nats.source import NatsSource  # noqa: PLC0415

    connection = FeedConnection(
        NatsSettings(
            urls=settings.nats_url,
            name=settings.store_id,
            api_prefix=settings.nats_api_prefix,
            credentials_file=settings.nats_credentials_file,
            ca_file=settings.nats_ca_file,
        ),
        uptime=uptime,
    )
    return NatsSource(
        central,
        connection,
        interval_seconds=settings.sync_interval_seconds,
        uptime=uptime,
        random=environment.random,
    )


def join_feed(feed: NatsSource, runner: SyncRunner, *, poll_mode: str) -> None:
    """Tell the feed and the sync what to tell each other."""
    runner.on_read_at_central = feed.note_read_at_central
    feed.on_break = lambda: runner.on_break()  # noqa: PLW0108 - it is set later
    if poll_mode == "continuous":
        feed.on_mode = runner.follow_continuously


def build_report(
    settings: Settings,
    environment: Environment,
    parts: Reported,
    *,
    version: str,
    uptime: Callable[[], float],
) -> Callable[[], Coroutine[Any, Any, None]] | None:
    """Return what tells Central how the store is, and have it told of each step of the sync; None
    if it is switched off."""
    if not settings.fleet_report:
        return None
    process = f"{int(environment.random() * 2**48):012x}"
    reporter = Reporter(
        parts.central,
        parts,
        Subject(process, settings.tenant_id, version, uptime()),
        store_id=settings.store_id,
        random=environment.random,
        uptime=uptime,
    )

    def on_advance() -> None:
        parts.state.update()
        reporter.note_advance()

    parts.runner.on_advance = on_advance
    return reporter.run


def build_outbox(
    settings: Settings, environment: Environment, writer: CacheWriter, keys: KeyTable
) -> Outbox:
    """Build the outbox, which takes its entries when the files are loaded."""
    outbox = Outbox(
        OutboxSettings(
            store_id=settings.store_id,
            limit=settings.outbox_limit,
            is_accepting=settings.offline_writes == "queue",
            retention_seconds=settings.key_retention_hours * 3600.0,
        ),
        keys=keys,
        store=writer,
        now=environment.now,
        random=environment.random,
    )
    writer.on_keys_loaded = outbox.load
    writer.settles = outbox.settled_by
    return outbox


def build_sender(
    settings: Settings,
    environment: Environment,
    *,
    central: CentralClient,
    writer: CacheWriter,
    refetcher: Refetcher,
    admission: Admission,
    forwarder: Forwarder,
    outbox: Outbox,
) -> OutboxSender:
    """Build what sends the entries of the outbox."""
    return OutboxSender(
        outbox,
        SenderSettings(
            store_id=settings.store_id,
            write_timeout_seconds=settings.write_timeout_seconds,
            retention_seconds=settings.key_retention_hours * 3600.0,
            max_age_seconds=settings.outbox_max_age_hours * 3600.0,
        ),
        admission=admission,
        store=writer,
        refetches=refetcher,
        events=central,
        turns=forwarder.turns,
        now=environment.now,
        random=environment.random,
    )


def follow_with(
    runner: SyncRunner, forwarder: Forwarder, admission: Admission, sender: OutboxSender
) -> None:
    """Have the sender told of events, and of Central's answers to the sync."""

    def on_events(events: Sequence[AnyEvent]) -> None:
        forwarder.observe_events(events)
        sender.observe_events(events)

    def on_central_reached() -> None:
        admission.sync_reached_central()
        sender.wake()

    runner.on_events = on_events
    runner.on_central_reached = on_central_reached


def build_streams(
    settings: Settings,
    environment: Environment,
    writer: CacheWriter,
    state: StreamState,
    outbox: Outbox | None,
) -> Streams | None:
    """Build the streams, and have them told of changes; None if they are switched off."""
    if not settings.stream_readers:
        return None
    pending = None if outbox is None else outbox.pending
    feed = ChangeFeed(
        writer, size=settings.stream_history, random=environment.random, pending=pending
    )
    writer.announcer.observers += (feed,)
    if outbox is not None:
        outbox.on_changed = feed.entry_changed
    return Streams(feed, state, most=settings.stream_readers, random=environment.random)


def build_search(writer: CacheWriter, runner: SyncRunner) -> Indexer:
    """Build the search index, and have it told of changes."""
    indexer = Indexer(writer, caught_up=runner.caught_up, on_growth=writer.replaced.set)
    writer.announcer.observers += (indexer,)
    return indexer


def build_history(
    settings: Settings, environment: Environment, writer: CacheWriter
) -> ChangeHistory | None:
    """Build the history of products, and have it told of changes; None if it is switched off."""
    if not settings.history_limit:
        return None
    history = ChangeHistory(settings.history_limit, store_id=settings.store_id, now=environment.now)
    writer.announcer.observers += (history,)
    return history


def build_metrics(
    watched: Watched, central: CentralClient, clock: Clock, *, key_required: bool
) -> Metrics:
    """Build the metrics, and have the parts tell them what happens."""
    from store_cache.api.metrics.metrics import Metrics  # noqa: PLC0415 - see there

    counts = Counts(now=clock.now, uptime=clock.uptime)
    runner, forwarder = watched.runner, watched.forwarder
    settle_writes = runner.on_events

    def on_events(events: Sequence[AnyEvent]) -> None:
        settle_writes(events)
        counts.note_events(events)

    runner.on_events = on_events
    runner.on_full_sync = counts.note_full_sync
    forwarder.on_result = counts.note_write
    central.on_exchange = counts.note_exchange
    watched.writer.files.on_sync = counts.note_sync
    return Metrics(counts, watched, clock, key_required=key_required)


def build_verifier(
    settings: Settings,
    environment: Environment,
    central: CentralClient,
    writer: CacheWriter,
    runner: SyncRunner,
) -> Verifier | None:
    """Return what compares the store with Central, or None if that is off."""
    if not settings.verify_interval_minutes:
        return None
    digest = CatalogueDigest()
    if writer.catalogue is not None:
        digest.begin(writer.catalogue)
    changes = RecentChanges(asyncio.get_running_loop().time)
    writer.announcer.observers += (digest, changes)
    writer.on_renamed = runner.note_renamed
    verifier = Verifier(
        central,
        writer,
        runner,
        digest,
        changes,
        VerificationSettings(
            interval_seconds=settings.verify_interval_minutes * 60.0,
            lap_seconds=settings.verify_lap_hours * 3600.0,
            grace_seconds=settings.hole_grace_seconds,
            least_percent=settings.snapshot_min_percent,
        ),
        now=environment.now,
        random=environment.random,
    )
    changes.on_replaced = verifier.note_replaced
    runner.on_break = verifier.note_break
    return verifier


async def keep_running(name: str, work: Callable[[], Awaitable[None]], defects: Defects) -> None:
    """Run `work` for ever: if it raises, log the traceback, note the defect and start it again.

    A defect in one part must not leave a shop with a cache that stands still. The part begins
    afresh from what is on disk and in memory.
    """
    while True:
        try:
            await work()
        except Exception as defect:
            defects.note(name, defect)
            log.exception("%s: a defect of the store; please report it. It begins afresh", name)
            await asyncio.sleep(AFTER_DEFECT_SECONDS)
