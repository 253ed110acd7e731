"""Performs the commands of the sync state machine and hands the outcomes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from store_cache.catalogue.paging import PagingBroken
from store_cache.catalogue.replica import Replica
from store_cache.central.failures import (
    AccessDenied,
    CentralError,
    ExchangeBroken,
    HeldBack,
    LimitExceeded,
    PositionGone,
    Unreachable,
    Unreadable,
)
from store_cache.model.event import AnyEvent, QuarantinedEvent
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.product import Row
from store_cache.sync.backoff import settle_spacing
from store_cache.sync.machine import advance, begin, begin_again
from store_cache.sync.states import (
    COUNTED,
    ON_DEMAND,
    ApplyEvents,
    Command,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    FullSyncFailed,
    FullSyncing,
    FullSyncRecord,
    InstallReplica,
    Interrupted,
    Outcome,
    PageApplied,
    Polling,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Sleeping,
    Slept,
    State,
    SyncSettings,
    renamed,
    request_full_sync,
)
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)


class Feed(Protocol):
    """Where the runner gets the events that it follows."""

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage: ...


class Source(Feed, Protocol):
    """What the runner asks of Central; `central.client.CentralClient` is one."""

    async def page(self, request: PageRequest) -> CataloguePage: ...

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None: ...


FAILURES: tuple[tuple[type[CentralError], Failure], ...] = (
    (Unreachable, Failure.UNREACHABLE),
    (ExchangeBroken, Failure.BROKEN),
    (Unreadable, Failure.UNREADABLE),
    (LimitExceeded, Failure.LIMITED),
    (AccessDenied, Failure.DENIED),
    (PositionGone, Failure.GONE),
)


def as_outcome(problem: CentralError) -> ExchangeFailed:
    """Return the outcome of an exchange that raised `problem`. What is not listed is a refusal."""
    failure = next((f for kind, f in FAILURES if isinstance(problem, kind)), Failure.REFUSED)
    retry_after = getattr(problem, "retry_after_seconds", None)
    return ExchangeFailed(failure, str(problem), retry_after, isinstance(problem, HeldBack))


REFUSALS = (Failure.DENIED, Failure.REFUSED, Failure.GONE)
"""Failures that prove that Central answers. A feed that breaks while writes pass (a proxy that cuts
long polls) says nothing about writes, and a limit nothing at all."""


class SyncRunner:
    """Runs the sync until it is stopped.

    `feed` is where events are followed, if not at Central (NATS); full syncs ask Central alone.
    `now` gives steady unix seconds (never set back), `random` numbers in [0, 1), `uptime` seconds
    that go on while the machine is suspended, too: the state machine counts these. Set the
    callbacks before `run`, see `app.build`: `on_events` (the forwarder) is called with each batch
    of events applied, in order; `on_central_reached` (the admission of writes) when Central just
    answered; `on_break` (verification) when an exchange failed for the connection or for Central;
    `on_advance` (the state in the status) after every step; `on_full_sync` (the metrics) with each
    full sync that ended; `on_read_at_central` (`feed`) when a full sync reads events.
    """

    def __init__(
        self,
        central: Source,
        writer: CacheWriter,
        settings: SyncSettings,
        *,
        least_percent: int,
        now: Callable[[], float],
        random: Callable[[], float],
        uptime: Callable[[], float],
        feed: Feed | None = None,
    ) -> None:
        self.state = begin(settings, writer.position, is_unfollowed=writer.is_unfollowed)
        self.events_applied = 0
        self.events_stale = 0
        """Events that set no row: what is held is newer, or of a later incarnation."""
        self.quarantined = 0
        self.last_quarantined: QuarantinedEvent | None = None
        self.sleeps_until: float | None = None
        self.head_offset: int | None = None
        self.pages_read = 0
        """Pages of the full sync under way, or of the last one."""
        self.pages_total: int | None = None
        """Products that these pages have in all, if Central says so."""
        self.changed = asyncio.Event()
        self.on_events: Callable[[Sequence[AnyEvent]], None] = _ignore
        self.on_central_reached: Callable[[], None] = _ignore
        self.on_break: Callable[[], None] = _ignore
        self.on_advance: Callable[[], None] = _ignore
        self.on_full_sync: Callable[[FullSyncRecord], None] = _ignore
        self.on_read_at_central: Callable[[], None] = _ignore
        self._central = central
        self._feed = feed or central
        self._writer = writer
        self._least_percent = least_percent
        self._now = now
        self._random = random
        self.uptime = uptime
        self._woken = asyncio.Event()
        self._poll_timeout: asyncio.Timeout | None = None

    # -- for other parts -------------------------------------------------------------------

    def request_full_sync(self, reason: str) -> None:
        """Request a full sync for `reason`. It begins at once if the feed was not lost since the
        last one."""
        self.state = request_full_sync(settle_spacing(self.state, self.uptime()), reason)
        self._wake()

    async def force_full_sync(self, *, accept: bool) -> FullSyncRecord:
        """Run a full sync that begins after this call, and return how it ended (F1). `accept`: take
        a catalogue that lost most of its products."""
        target = self.state.full_syncs_begun + 1
        self.state = request_full_sync(self.state, ON_DEMAND, forced=True, accept=accept)
        self._wake()
        while True:
            for record in self.state.full_syncs:
                if record.number >= target:
                    return record
            await self.changed.wait()

    async def caught_up(self) -> None:
        """Return once the store has been in sync since its start, runs a full sync, or fails to
        reach Central."""
        while (
            self.state.in_sync_at is None
            and not self.state.health.failures
            and not isinstance(self.state.phase, FullSyncing)
        ):
            await self.changed.wait()

    @property
    def replica_products(self) -> int:
        """How many products the replica of the full sync under way has."""
        replica = self._writer.replica
        return 0 if replica is None else len(replica.catalogue)

    def wake_after_failure(self) -> None:
        """End a wait that a failure began: Central seems to be back."""
        if self.state.health.failures and self._may_be_interrupted():
            self._wake()

    def ask_anew(self) -> bool:
        """End a wait or a held poll, and have the feed asked for its end as it is now. Return False
        if that cannot be done in this moment: something else is under way, or Central fails."""
        if not isinstance(self.state.phase, Polling | Sleeping) or self.state.health.failures:
            return False
        self.state = replace(self.state, is_proven=False)  # so that the next poll is not held
        self._wake()
        return True

    def follow_continuously(self, continuous: bool) -> None:
        """Follow with held polls from now on, or in intervals. The first ends a wait."""
        settings = replace(self.state.settings, continuous=continuous)
        self.state = replace(self.state, settings=settings)
        if continuous and isinstance(self.state.phase, Sleeping):
            self._wake()

    def note_renamed(self, generation: str) -> None:
        """The writer has given the generation another label."""
        self.state = renamed(self.state, generation)

    def _wake(self) -> None:
        """End the wait or the held poll in flight, or else the next one."""
        self._woken.set()
        timeout, self._poll_timeout = self._poll_timeout, None
        if timeout is not None and not timeout.expired():  # an expired one ends already
            timeout.reschedule(asyncio.get_running_loop().time())

    def _may_be_interrupted(self) -> bool:
        match self.state.phase:
            case Sleeping() | Polling():
                return True
            case FullSyncing(full_sync):
                return isinstance(full_sync.in_flight, Sleep)
        return False

    # -- the loop --------------------------------------------------------------------------

    async def run(self) -> None:
        """Advance for ever. Called again after a defect, it begins again from the position."""
        position, is_unfollowed = self._writer.position, self._writer.is_unfollowed
        self.state = begin_again(self.state, position, self.uptime(), is_unfollowed=is_unfollowed)
        outcome: Outcome = Interrupted()
        while True:
            in_sync_at = self.state.in_sync_at
            command = self._advance(outcome)
            if self.state.in_sync_at not in (None, in_sync_at) and self.state.is_proven:
                await self._writer.note_in_sync(self.uptime() - self.state.in_sync_at)
            outcome = await self._perform(command)

    def _advance(self, outcome: Outcome) -> Command:
        before = self.state
        self.state, command = advance(before, outcome, self.uptime())
        if not isinstance(self.state.phase, FullSyncing):
            # The replica of a full sync that has ended would go on collecting answers of writes.
            self._writer.drop_replica()
        match outcome:
            case EventsArrived(page):
                self._note_head(page)
                if page.relayed_at is None:
                    self.on_central_reached()
            case PageApplied(event_offset=offset):
                self.head_offset = offset or self.head_offset
                self.on_central_reached()
            case ExchangeFailed(failure) if failure in REFUSALS:
                self.on_central_reached()
            case ExchangeFailed(failure) if failure in COUNTED:
                self.on_break()
        report(before, self.state, outcome)
        if self.state.full_syncs is not before.full_syncs:
            for record in self.state.full_syncs:
                if record not in before.full_syncs:
                    self.on_full_sync(record)
        self.on_advance()
        self.changed.set()
        self.changed = asyncio.Event()
        return command

    def _note_head(self, page: EventPage) -> None:
        if page.events:
            last = max(event.offset for event in page.events)
            self.head_offset = max(last, (page.next_offset or 0) - 1)
        elif page.next_offset is not None:
            self.head_offset = page.next_offset - 1

    async def _perform(self, command: Command) -> Outcome:
        try:
            match command:
                case Sleep():
                    return await self._sleep(command)
                case FetchEvents():
                    return await self._fetch_events(command)
                case ApplyEvents():
                    return await self._apply_events(command)
                case FetchPage():
                    return await self._fetch_page(command)
                case InstallReplica():
                    return await self._install_replica(command)
        except CentralError as problem:
            return as_outcome(problem)
        except PagingBroken as problem:
            return FullSyncFailed(str(problem))

    async def _sleep(self, command: Sleep) -> Outcome:
        seconds = command.at_least_seconds + command.spread_seconds * self._random()
        self.sleeps_until = self.uptime() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self.sleeps_until = None
        was_woken = self._woken.is_set()
        self._woken.clear()
        return Interrupted() if was_woken else Slept()

    # -- the feed --------------------------------------------------------------------------

    async def _fetch_events(self, command: FetchEvents) -> Outcome:
        asked_at = self.uptime()
        feed = self._feed
        if isinstance(self.state.phase, FullSyncing):
            feed = self._central
            self.on_read_at_central()
        exchange = feed.events(
            offset=command.offset, limit=command.limit, wait_seconds=command.wait_seconds
        )
        if not self._may_be_interrupted():
            return self._arrived(await exchange, asked_at)
        # Giving up a poll loses nothing, since the position has not moved. A timeout ends it: a
        # task that waits for the event would cost every poll something.
        timeout = asyncio.timeout(0.0 if self._woken.is_set() else None)
        try:
            async with timeout:
                self._poll_timeout = timeout
                return self._arrived(await exchange, asked_at)
        except TimeoutError:
            if not timeout.expired():
                raise
            self._woken.clear()
            return Interrupted()
        finally:
            self._poll_timeout = None

    def _arrived(self, page: EventPage, asked_at: float) -> EventsArrived:
        true_at = asked_at if page.relayed_at is None else page.relayed_at
        return EventsArrived(page, self.uptime() - true_at)

    async def _apply_events(self, command: ApplyEvents) -> Outcome:
        applied = quarantined = 0
        if command.in_catalogue:
            applied = await self._writer.apply_events(command.events, command.position)
        if command.in_replica and (replica := self._writer.replica) is not None:
            position = command.position
            in_replica = replica.take_events(command.events, position=position, now=self._now())
            applied = applied if command.in_catalogue else in_replica
        for event in command.events:
            if isinstance(event, QuarantinedEvent):
                quarantined += 1
                self.last_quarantined = event
                log.warning(
                    "event sync: the event at offset %d was set aside, %s: %s",
                    event.offset,
                    "a full sync follows"
                    if event.needs_full_sync
                    else "its product is read again from Central",
                    event.reason,
                )
        self.events_applied += applied
        self.events_stale += len(command.events) - applied - quarantined
        self.quarantined += quarantined
        self.on_events(command.events)
        return EventsApplied()

    # -- the replica -----------------------------------------------------------------------

    async def _fetch_page(self, command: FetchPage) -> Outcome:
        replica = self._writer.replica
        if command.begins or replica is None:
            replica = self._writer.begin_replica(same_generation=command.same_generation)
            self.pages_read = 0
            self.pages_total = None
        request = command.request or replica.first_request()
        page = await self._central.page(request)
        next_page = await _take_page(replica, request, page)
        self.pages_read += 1
        self.pages_total = page.total
        return PageApplied(next_page, page.event_offset, page.generation)

    async def _install_replica(self, command: InstallReplica) -> Outcome:
        replica = self._writer.replica
        if replica is None:
            return FullSyncFailed("the replica was lost; this is a defect, please report it")
        verdict = await self._writer.install(
            command.installation, least_percent=self._least_percent
        )
        if not verdict.accepted:
            return ReplicaRefused(verdict.problem, verdict.found)
        return ReplicaInstalled(len(replica.catalogue))


async def _take_page(
    replica: Replica, request: PageRequest, page: CataloguePage
) -> PageRequest | None:
    """Have the replica take a page, in parts with other tasks in between; return the next request.

    Raises PagingBroken.
    """
    parts = replica.take_page_in_parts(request, page)
    while True:
        try:
            next(parts)
        except StopIteration as end:
            following: PageRequest | None = end.value
            return following
        await asyncio.sleep(0)


def _ignore(*_: object) -> None:
    """The callback if none is set."""


def report(before: State, after: State, outcome: Outcome) -> None:
    """Log what an operator wants to read: failures, full syncs, returns (B6)."""
    if isinstance(outcome, ExchangeFailed):
        level = logging.WARNING if after.health.failures <= 1 else logging.INFO
        if outcome.failure in (Failure.DENIED, Failure.REFUSED):
            level = logging.ERROR
        if outcome.is_held_back:
            level = logging.DEBUG
        what = "full sync" if isinstance(before.phase, FullSyncing) else "event sync"
        log.log(level, "%s: Central %s: %s", what, outcome.failure, outcome.problem)
    if after.health.fell_back and not before.health.fell_back:
        log.error("event sync: %d failures in a row, falling back", after.health.failures)
    if before.health.fell_back and not after.health.fell_back:
        log.info("event sync: Central is back")
    if after.full_syncs_begun > before.full_syncs_begun and isinstance(after.phase, FullSyncing):
        log.info("full sync: begins: %s", "; ".join(after.phase.full_sync.reasons))
    for record in after.full_syncs:
        seconds = record.ended_at - record.began_at
        if record in before.full_syncs:
            continue
        if record.problem:
            log.error("full sync: failed after %.1f s: %s", seconds, record.problem)
        else:
            log.info("full sync: %d products in place after %.1f s", record.products, seconds)
