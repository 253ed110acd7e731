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

from store_cache.catalogue.replica import PagingBroken, Rebuild
from store_cache.central.failures import (
    Broken,
    CentralError,
    Denied,
    Gone,
    Limited,
    OtherFeed,
    Unreachable,
    Unreadable,
)
from store_cache.model.event import AnyEvent, SetAside
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.product import Row
from store_cache.sync.backoff import settle_spacing
from store_cache.sync.machine import advance, begin, begin_again
from store_cache.sync.states import (
    ON_DEMAND,
    Command,
    CopyPlaced,
    CopyRefused,
    Doing,
    DoubtsSettled,
    EventsArrived,
    EventsKept,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    Interrupted,
    KeepEvents,
    Outcome,
    Pace,
    PageTaken,
    PlaceCopy,
    Polling,
    Rest,
    Rested,
    Resting,
    RunBroken,
    Running,
    RunRecord,
    SettleDoubts,
    State,
    want,
)
from store_cache.writer import Keeper

log = logging.getLogger(__name__)


class Source(Protocol):
    """What the driver asks of Central; `edges.central.Central` is one."""

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage: ...

    async def page(self, request: PageRequest) -> CataloguePage: ...

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None: ...


FAILURES: tuple[tuple[type[CentralError], Failure], ...] = (
    (Unreachable, Failure.UNREACHABLE),
    (Broken, Failure.BROKEN),
    (Unreadable, Failure.UNREADABLE),
    (Limited, Failure.LIMITED),
    (Denied, Failure.DENIED),
    (Gone, Failure.GONE),
)


def as_outcome(problem: CentralError) -> ExchangeFailed:
    """An exchange's error as the outcome it is; what is not listed is a refusal."""
    failure = next((f for kind, f in FAILURES if isinstance(problem, kind)), Failure.REFUSED)
    retry_after = getattr(problem, "retry_after_seconds", None)
    return ExchangeFailed(failure, str(problem), retry_after)


SPEAKING = (Failure.UNREACHABLE, Failure.DENIED, Failure.REFUSED, Failure.GONE)
"""What says for certain whether Central is there. A feed that breaks while writes pass (a proxy
that cuts long polls) says nothing about writes, and a limit nothing at all."""


class Driver:
    """Runs the sync until it is stopped.

    `now` gives unix seconds, `random` numbers in [0, 1). `on_events` is told of every event
    applied, in order; `on_line` whether Central just answered or could not be reached;
    `on_advance` of every step.
    """

    def __init__(
        self,
        central: Source,
        keeper: Keeper,
        pace: Pace,
        *,
        least_percent: int,
        now: Callable[[], float],
        random: Callable[[], float],
        on_events: Callable[[Sequence[AnyEvent]], None],
        on_line: Callable[[bool], None],
        on_advance: Callable[[], object],
    ) -> None:
        self.state = begin(pace, keeper.position)
        self.set_aside = 0
        self.last_set_aside: SetAside | None = None
        self.rests_until: float | None = None
        self.head_offset: int | None = None
        self.changed = asyncio.Event()
        self._central = central
        self._keeper = keeper
        self._least_percent = least_percent
        self._now = now
        self._random = random
        self._on_events = on_events
        self._on_line = on_line
        self._on_advance = on_advance
        self._rebuild: Rebuild | None = None
        self._bell = asyncio.Event()
        self._held: asyncio.Timeout | None = None

    # -- asked from outside ----------------------------------------------------------------

    def want(self, reason: str) -> None:
        """Have a full sync run for `reason`, as soon as it may: at once where the last one held."""
        now = asyncio.get_running_loop().time()
        self.state = want(settle_spacing(self.state, now), reason)
        self._ring()

    async def force(self, *, accept: bool) -> RunRecord:
        """Run a full sync that begins after this call, and say how it ended (F1)."""
        target = self.state.runs_begun + 1
        self.state = want(self.state, ON_DEMAND, forced=True, accept=accept)
        self._ring()
        while (record := self._ended(target)) is None:
            await self.changed.wait()
        return record

    @property
    def copied_products(self) -> int:
        """How many products the copy of the full sync under way has."""
        return len(self._rebuild.copy) if self._rebuild is not None else 0

    def _ended(self, number: int) -> RunRecord | None:
        return next((r for r in self.state.runs if r.number >= number), None)

    def nudge(self) -> None:
        """Central seems to be back: end a wait that a failure began."""
        if self.state.line.failures and self._may_be_interrupted():
            self._ring()

    def _ring(self) -> None:
        """End the rest or the poll under way, else the next one."""
        self._bell.set()
        held, self._held = self._held, None
        if held is not None and not held.expired():  # else it ends already
            held.reschedule(asyncio.get_running_loop().time())

    # -- the loop --------------------------------------------------------------------------

    async def run(self) -> None:
        """Advance for ever. Called again after a defect, it begins afresh from the position."""
        now = asyncio.get_running_loop().time()
        self.state = begin_again(self.state, self._keeper.position, now)
        outcome: Outcome = Interrupted()
        while True:
            in_step_at = self.state.in_step_at
            command = self._advance(outcome)
            if self.state.in_step_at != in_step_at and self.state.is_proven:
                await self._keeper.note_in_step()
            outcome = await self._perform(command)

    def _advance(self, outcome: Outcome) -> Command:
        before = self.state
        now = asyncio.get_running_loop().time()
        self.state, command = advance(before, outcome, now)
        self._tell(before, outcome)
        self._on_advance()
        self.changed.set()
        self.changed = asyncio.Event()
        return command

    def _tell(self, before: State, outcome: Outcome) -> None:
        if isinstance(outcome, EventsArrived | PageTaken):
            self._note_head(outcome)
            self._on_line(True)
        elif isinstance(outcome, ExchangeFailed) and outcome.failure in SPEAKING:
            self._on_line(outcome.failure is not Failure.UNREACHABLE)
        report(before, self.state, outcome)

    def _note_head(self, outcome: EventsArrived | PageTaken) -> None:
        if isinstance(outcome, PageTaken):
            self.head_offset = outcome.event_offset or self.head_offset
        elif outcome.page.events:
            last = max(event.offset for event in outcome.page.events)
            self.head_offset = max(last, (outcome.page.next_offset or 0) - 1)
        elif outcome.page.next_offset is not None:
            self.head_offset = outcome.page.next_offset - 1

    def _may_be_interrupted(self) -> bool:
        match self.state.phase:
            case Resting() | Polling():
                return True
            case Running(run):
                return run.doing is Doing.RESTING
        return False

    async def _perform(self, command: Command) -> Outcome:
        try:
            match command:
                case Rest():
                    return await self._rest(command)
                case FetchEvents():
                    return await self._fetch_events(command)
                case KeepEvents():
                    return await self._keep_events(command)
                case FetchPage():
                    return await self._fetch_page(command)
                case SettleDoubts():
                    return await self._settle_doubts(command)
                case PlaceCopy():
                    return await self._place(command)
        except CentralError as problem:
            return as_outcome(problem)
        except PagingBroken as problem:
            return RunBroken(str(problem))

    async def _rest(self, command: Rest) -> Outcome:
        seconds = command.at_least_seconds + command.spread_seconds * self._random()
        self.rests_until = asyncio.get_running_loop().time() + seconds
        rang = await self._rings_within(seconds)
        self.rests_until = None
        return Interrupted() if rang else Rested()

    async def _rings_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        rang = self._bell.is_set()
        self._bell.clear()
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
        held = asyncio.timeout(0.0 if self._bell.is_set() else None)
        try:
            async with held:
                self._held = held
                return await exchange
        except TimeoutError:
            if not held.expired():
                raise
            self._bell.clear()
            return None
        finally:
            self._held = None

    async def _keep_events(self, command: KeepEvents) -> Outcome:
        if command.in_catalogue:
            await self._keeper.keep_events(command.events, command.position)
        if command.in_copy and self._rebuild is not None:
            self._rebuild.take_events(command.events, position=command.position, now=self._now())
        self._note(command.events)
        self._on_events(command.events)
        return EventsKept()

    def _note(self, events: Sequence[AnyEvent]) -> None:
        for event in events:
            if isinstance(event, SetAside):
                self.set_aside += 1
                self.last_set_aside = event
                log.warning(
                    "event sync: the event at offset %d was set aside, its product is read again "
                    "from Central: %s",
                    event.offset,
                    event.reason,
                )

    # -- the copy --------------------------------------------------------------------------

    async def _fetch_page(self, command: FetchPage) -> Outcome:
        if command.begins or self._rebuild is None:
            self._rebuild = self._keeper.begin_copy(same_generation=command.same_generation)
        request = command.request or self._rebuild.first_request()
        page = await self._central.page(request)
        following = self._rebuild.take_page(request, page)
        return PageTaken(following, page.event_offset, page.generation)

    async def _settle_doubts(self, command: SettleDoubts) -> Outcome:
        read = 0
        if self._rebuild is None:
            return DoubtsSettled(0)
        try:
            for product_id in self._rebuild.unsettled():
                await self._settle(self._rebuild, product_id, command.generation)
                read += 1
        except OtherFeed as problem:
            return DoubtsSettled(read, problem.generation)
        return DoubtsSettled(read)

    async def _settle(self, rebuild: Rebuild, product_id: str, generation: str | None) -> None:
        seen = rebuild.seen(product_id)
        try:
            row = await self._central.product(product_id, generation=generation)
        except (Unreachable, Broken, Limited, Denied, OtherFeed):
            raise
        except CentralError as problem:
            rebuild.give_up(product_id, str(problem), now=self._now())
        else:
            rebuild.take_reading(product_id, row, seen=seen, now=self._now())

    async def _place(self, command: PlaceCopy) -> Outcome:
        rebuild, self._rebuild = self._rebuild, None
        if rebuild is None:
            return RunBroken("the copy was lost; this is a defect, please report it")
        verdict = await self._keeper.place(
            rebuild,
            command.position,
            least_percent=self._least_percent,
            accept=command.accept,
            agreed_products=command.agreed_products,
            unfollowed_until=command.unfollowed_until,
            flaw=command.flaw,
        )
        if not verdict.accepted:
            self._keeper.drop_copy()
            return CopyRefused(verdict.problem, len(rebuild.copy))
        return CopyPlaced(len(rebuild.copy))


def report(before: State, after: State, outcome: Outcome) -> None:
    """Log what an operator wants to read: failures, full syncs, returns (B6)."""
    if isinstance(outcome, ExchangeFailed):
        level = logging.WARNING if after.line.failures <= 1 else logging.INFO
        if outcome.failure in (Failure.DENIED, Failure.REFUSED):
            level = logging.ERROR
        what = "full sync" if isinstance(before.phase, Running) else "event sync"
        log.log(level, "%s: Central %s: %s", what, outcome.failure, outcome.problem)
    if after.line.fell_back and not before.line.fell_back:
        log.error("event sync: %d failures in a row, falling back", after.line.failures)
    if before.line.fell_back and not after.line.fell_back:
        log.info("event sync: Central is back")
    if after.runs_begun > before.runs_begun and isinstance(after.phase, Running):
        log.info("full sync: begins: %s", "; ".join(after.phase.run.reasons))
    for record in after.runs:
        if record not in before.runs:
            _report_run(record)


def _report_run(record: RunRecord) -> None:
    seconds = record.ended_at - record.began_at
    if record.problem:
        log.error("full sync: failed after %.1f s: %s", seconds, record.problem)
    else:
        log.info("full sync: %d products in place after %.1f s", record.products, seconds)
