"""Performs what `core.sync` commands, and hands back what came of it. It decides nothing.

Knows: which part performs which command, and how an exchange's error becomes an outcome.
Refuses to know: what follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from store_cache.catalogue.paging import PagingBroken
from store_cache.catalogue.replica import Replica
from store_cache.central.failures import (
    AccessDenied,
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    OtherFeed,
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
    InFlight,
    InstallReplica,
    Interrupted,
    Outcome,
    PageApplied,
    Polling,
    ProductsRefetched,
    RefetchProducts,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Sleeping,
    Slept,
    State,
    SyncSettings,
    request_full_sync,
)
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)


class Source(Protocol):
    """What the driver asks of Central; `edges.central.Central` is one."""

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage: ...

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
    """An exchange's error as the outcome it is; what is not listed is a refusal."""
    failure = next((f for kind, f in FAILURES if isinstance(problem, kind)), Failure.REFUSED)
    retry_after = getattr(problem, "retry_after_seconds", None)
    return ExchangeFailed(failure, str(problem), retry_after)


REFUSALS = (Failure.DENIED, Failure.REFUSED, Failure.GONE)
"""Failures that prove that Central answers. A feed that breaks while writes pass (a proxy that cuts
long polls) says nothing about writes, and a limit nothing at all."""


class SyncRunner:
    """Runs the sync until it is stopped.

    `now` gives unix seconds, `random` numbers in [0, 1). Set the callbacks before `run`:
    `on_events` is called with each batch of events applied, in order; `on_central_reached` and
    `on_central_lost` when Central just answered or could not be reached; `on_advance` after every
    step.
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
    ) -> None:
        self.state = begin(settings, writer.position)
        self.quarantined = 0
        self.last_quarantined: QuarantinedEvent | None = None
        self.rests_until: float | None = None
        self.head_offset: int | None = None
        self.changed = asyncio.Event()
        self.on_events: Callable[[Sequence[AnyEvent]], None] = _ignore
        self.on_central_reached: Callable[[], None] = _ignore
        self.on_central_lost: Callable[[], None] = _ignore
        self.on_advance: Callable[[], None] = _ignore
        self._central = central
        self._writer = writer
        self._least_percent = least_percent
        self._now = now
        self._random = random
        self._wakes = asyncio.Event()
        self._held: asyncio.Timeout | None = None

    # -- asked from outside ----------------------------------------------------------------

    def request_full_sync(self, reason: str) -> None:
        """Have a full sync run for `reason`, as soon as it may: at once where the last one held."""
        now = asyncio.get_running_loop().time()
        self.state = request_full_sync(settle_spacing(self.state, now), reason)
        self._wake()

    async def force_full_sync(self, *, accept: bool) -> FullSyncRecord:
        """Run a full sync that begins after this call, and say how it ended (F1)."""
        target = self.state.full_syncs_begun + 1
        self.state = request_full_sync(self.state, ON_DEMAND, forced=True, accept=accept)
        self._wake()
        while (record := self._ended(target)) is None:
            await self.changed.wait()
        return record

    @property
    def replica_products(self) -> int:
        """How many products the copy of the full sync under way has."""
        replica = self._writer.replica
        return 0 if replica is None else len(replica.catalogue)

    def _ended(self, number: int) -> FullSyncRecord | None:
        return next((r for r in self.state.full_syncs if r.number >= number), None)

    def wake(self) -> None:
        """Central seems to be back: end a wait that a failure began."""
        if self.state.health.failures and self._may_be_interrupted():
            self._wake()

    def _wake(self) -> None:
        """End the rest or the poll under way, else the next one."""
        self._wakes.set()
        held, self._held = self._held, None
        if held is not None and not held.expired():  # else it ends already
            held.reschedule(asyncio.get_running_loop().time())

    # -- the loop --------------------------------------------------------------------------

    async def run(self) -> None:
        """Advance for ever. Called again after a defect, it begins afresh from the position."""
        now = asyncio.get_running_loop().time()
        self.state = begin_again(self.state, self._writer.position, now)
        outcome: Outcome = Interrupted()
        while True:
            in_sync_at = self.state.in_sync_at
            command = self._advance(outcome)
            if self.state.in_sync_at != in_sync_at and self.state.is_proven:
                await self._writer.note_in_sync()
            outcome = await self._perform(command)

    def _advance(self, outcome: Outcome) -> Command:
        before = self.state
        now = asyncio.get_running_loop().time()
        self.state, command = advance(before, outcome, now)
        if not isinstance(self.state.phase, FullSyncing):
            self._writer.drop_replica()  # it would collect answers until the next one begins
        self._tell(before, outcome)
        self.on_advance()
        self.changed.set()
        self.changed = asyncio.Event()
        return command

    def _tell(self, before: State, outcome: Outcome) -> None:
        if isinstance(outcome, EventsArrived | PageApplied):
            self._note_head(outcome)
            self.on_central_reached()
        elif isinstance(outcome, ExchangeFailed) and outcome.failure is Failure.UNREACHABLE:
            self.on_central_lost()
        elif isinstance(outcome, ExchangeFailed) and outcome.failure in REFUSALS:
            self.on_central_reached()
        report(before, self.state, outcome)

    def _note_head(self, outcome: EventsArrived | PageApplied) -> None:
        if isinstance(outcome, PageApplied):
            self.head_offset = outcome.event_offset or self.head_offset
        elif outcome.page.events:
            last = max(event.offset for event in outcome.page.events)
            self.head_offset = max(last, (outcome.page.next_offset or 0) - 1)
        elif outcome.page.next_offset is not None:
            self.head_offset = outcome.page.next_offset - 1

    def _may_be_interrupted(self) -> bool:
        match self.state.phase:
            case Sleeping() | Polling():
                return True
            case FullSyncing(run):
                return run.in_flight is InFlight.SLEEPING
        return False

    async def _perform(self, command: Command) -> Outcome:
        try:
            match command:
                case Sleep():
                    return await self._rest(command)
                case FetchEvents():
                    return await self._fetch_events(command)
                case ApplyEvents():
                    return await self._keep_events(command)
                case FetchPage():
                    return await self._fetch_page(command)
                case RefetchProducts():
                    return await self._settle_doubts(command)
                case InstallReplica():
                    return await self._place(command)
        except CentralError as problem:
            return as_outcome(problem)
        except PagingBroken as problem:
            return FullSyncFailed(str(problem))

    async def _rest(self, command: Sleep) -> Outcome:
        seconds = command.at_least_seconds + command.spread_seconds * self._random()
        self.rests_until = asyncio.get_running_loop().time() + seconds
        rang = await self._rings_within(seconds)
        self.rests_until = None
        return Interrupted() if rang else Slept()

    async def _rings_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakes.wait()
        rang = self._wakes.is_set()
        self._wakes.clear()
        return rang

    async def _fetch_events(self, command: FetchEvents) -> Outcome:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        exchange = self._central.events(
            offset=command.offset, limit=command.limit, wait_seconds=command.wait_seconds
        )
        if not self._may_be_interrupted():
            return EventsArrived(await exchange, loop.time() - asked_at)
        page = await self._unless_rung(exchange)
        if page is None:
            return Interrupted()
        return EventsArrived(page, loop.time() - asked_at)

    async def _unless_rung(self, exchange: Awaitable[EventPage]) -> EventPage | None:
        """The page, or None where the bell rang first: giving up a poll loses nothing, since the
        position has not moved. No task is made to wait for either: each poll would pay for it."""
        held = asyncio.timeout(0.0 if self._wakes.is_set() else None)
        try:
            async with held:
                self._held = held
                return await exchange
        except TimeoutError:
            if not held.expired():
                raise
            self._wakes.clear()
            return None
        finally:
            self._held = None

    async def _keep_events(self, command: ApplyEvents) -> Outcome:
        if command.in_catalogue:
            await self._writer.apply_events(command.events, command.position)
        if command.in_replica and (replica := self._writer.replica) is not None:
            replica.take_events(command.events, position=command.position, now=self._now())
        self._note(command.events)
        self.on_events(command.events)
        return EventsApplied()

    def _note(self, events: Sequence[AnyEvent]) -> None:
        for event in events:
            if isinstance(event, QuarantinedEvent):
                self.quarantined += 1
                self.last_quarantined = event
                log.warning(
                    "event sync: the event at offset %d was set aside, its product is read again "
                    "from Central: %s",
                    event.offset,
                    event.reason,
                )

    # -- the copy --------------------------------------------------------------------------

    async def _fetch_page(self, command: FetchPage) -> Outcome:
        replica = self._writer.replica
        if command.begins or replica is None:
            replica = self._writer.begin_replica(same_generation=command.same_generation)
        request = command.request or replica.first_request()
        page = await self._central.page(request)
        next_page = replica.take_page(request, page)
        return PageApplied(next_page, page.event_offset, page.generation)

    async def _settle_doubts(self, command: RefetchProducts) -> Outcome:
        read = 0
        replica = self._writer.replica
        if replica is None:
            return ProductsRefetched(0)
        try:
            for product_id in replica.products_to_refetch():
                await self._settle(replica, product_id, command.generation)
                read += 1
        except OtherFeed as problem:
            return ProductsRefetched(read, problem.generation)
        return ProductsRefetched(read)

    async def _settle(self, replica: Replica, product_id: str, generation: str | None) -> None:
        known = replica.known_state(product_id)
        try:
            row = await self._central.product(product_id, generation=generation)
        except (Unreachable, ExchangeBroken, LimitExceeded, AccessDenied, OtherFeed):
            raise
        except CentralError as problem:
            replica.give_up(product_id, str(problem), now=self._now())
        else:
            replica.apply_refetch(product_id, row, known=known, now=self._now())

    async def _place(self, command: InstallReplica) -> Outcome:
        replica = self._writer.replica
        if replica is None:
            return FullSyncFailed("the copy was lost; this is a defect, please report it")
        verdict = await self._writer.install(
            command.installation, least_percent=self._least_percent
        )
        if not verdict.accepted:
            return ReplicaRefused(verdict.problem, len(replica.catalogue))
        return ReplicaInstalled(len(replica.catalogue))


def _ignore(*_: object) -> None:
    """The callback where none is set."""


def report(before: State, after: State, outcome: Outcome) -> None:
    """Log what an operator wants to read: failures, full syncs, returns (B6)."""
    if isinstance(outcome, ExchangeFailed):
        level = logging.WARNING if after.health.failures <= 1 else logging.INFO
        if outcome.failure in (Failure.DENIED, Failure.REFUSED):
            level = logging.ERROR
        what = "full sync" if isinstance(before.phase, FullSyncing) else "event sync"
        log.log(level, "%s: Central %s: %s", what, outcome.failure, outcome.problem)
    if after.health.fell_back and not before.health.fell_back:
        log.error("event sync: %d failures in a row, falling back", after.health.failures)
    if before.health.fell_back and not after.health.fell_back:
        log.info("event sync: Central is back")
    if after.full_syncs_begun > before.full_syncs_begun and isinstance(after.phase, FullSyncing):
        log.info("full sync: begins: %s", "; ".join(after.phase.full_sync.reasons))
    for record in after.full_syncs:
        if record not in before.full_syncs:
            _report_run(record)


def _report_run(record: FullSyncRecord) -> None:
    seconds = record.ended_at - record.began_at
    if record.problem:
        log.error("full sync: failed after %.1f s: %s", seconds, record.problem)
    else:
        log.info("full sync: %d products in place after %.1f s", record.products, seconds)
