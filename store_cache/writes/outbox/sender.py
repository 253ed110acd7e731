"""Sends the entries of the outbox: paced, the oldest of each product first, in doubt before queued.

While the breaker of writes is open, the head of the outbox is the probe. What keeps everything from
being sent (a breaker, a limit, a refused key, a failing disk) holds all entries back; what is one
entry's own does not (O3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from store_cache.central.failures import CentralError, RequestRefused, UnsendableId
from store_cache.model.event import AnyEvent
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.writes.admission import Admission
from store_cache.writes.exchange import HeldStock, exchange, new_attempt, stock_to_show
from store_cache.writes.in_doubt_search import EventSource, decided_by_feed
from store_cache.writes.outbox import transitions
from store_cache.writes.outbox.entry import TO_BE_SENT, Entry, State
from store_cache.writes.outbox.order import pause_seconds
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.product_queue import ProductQueue
from store_cache.writes.write import (
    Applied,
    Refused,
    Write,
    WriteError,
    WriteOutcome,
    unavailable,
)

log = logging.getLogger(__name__)

SENT_AT_ONCE = 16
"""Requests. Half of those that Central gets at a time: the tills' own always find room (O8)."""

LINES = 16
"""So many entries share a request: sending and answering one costs far more than a line of it."""

SHARED_AT_ONCE = 2
"""So many of the requests at once have several entries: Central has the next one when it has
answered one, and a till's write waits for a few lines only."""

SINGLY_SECONDS = 600.0
"""So long each entry has a request of its own after Central has refused one of several as a whole:
it may take none of that kind, or refuse them all for one line."""

LOOK_SECONDS = 5.0
"""How often the sender looks by itself, such as for a disk that works again."""

AFTER_DEFECT_SECONDS = 60.0

DEFECT = "a defect of the store ended its try"
"""Why an entry is in doubt that a defect has left on its way."""

PRODUCT_SECONDS = 5.0
CONFLICTS_AT_ONCE = 5
"""So many conflicts in a row have an entry sent again at once; then it waits between them."""


class ShownStock(HeldStock, Protocol):
    """The cache's writer, as far as this module uses it."""

    @property
    def is_durable(self) -> bool: ...


class Refetches(Protocol):
    """Refetches single products."""

    async def refresh_outdated(self, product_id: str, version: int | None) -> None: ...

    async def read(self, product_id: str, *, seconds: float) -> Row | None: ...


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """`max_age_seconds`: an entry that was not sent by then is parked; 0.0: none is.
    `retention_seconds`: how long Central may be taken to remember a key."""

    store_id: str
    write_timeout_seconds: float
    retention_seconds: float
    max_age_seconds: float


class OutboxSender:
    """`now` is unix seconds; `random` returns numbers from 0 to 1. `turns` are those of the tills'
    own writes to a product (W8)."""

    def __init__(
        self,
        outbox: Outbox,
        settings: SenderSettings,
        *,
        admission: Admission,
        store: ShownStock,
        refetches: Refetches,
        events: EventSource,
        turns: ProductQueue,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._admission = admission
        self._store = store
        self._refetches = refetches
        self._events = events
        self._turns = turns
        self._now = now
        self._random = random
        self._wakes = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = 0  # requests with several entries that are on their way
        self._singly_until = 0.0
        self._denials = 0  # of everything, in a row
        self._paused_until = 0.0
        self._is_stopping = False
        self._was_open = False
        outbox.on_work = self.wake

    def wake(self) -> None:
        """Look again what may be sent: there is a new entry, or Central has answered."""
        self._wakes.set()

    def observe_events(self, events: Sequence[AnyEvent]) -> None:
        """Take events just applied: they may prove that an attempt in doubt was refused (O4)."""
        if len(self._outbox):
            for key, _ in self._outbox.in_doubt.observe(events):
                entry = self._outbox.unsettled(key)
                if entry is not None and entry.state is State.IN_DOUBT:
                    self._outbox.order.hasten_doubts()
                    self.wake()

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            self._wakes.clear()
            self._outbox.expire()
            seconds = self._start_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wakes.wait()

    async def stop(self, *, within_seconds: float) -> None:
        """Send nothing more, and wait for the entries on their way; those that take longer are in
        doubt at the next start."""
        self._is_stopping = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # -- what may be sent ------------------------------------------------------------------

    def _start_due(self) -> float:
        """Start what may be sent now; return after how many seconds to look again."""
        is_open, now = self._admission.is_open, _time()
        order = self._outbox.order
        if is_open or self._was_open:
            # An attempt in doubt is the best probe, and at Central's return they come first (O8).
            order.hasten_doubts()
        self._was_open = is_open
        room, seconds = self._room(now)
        for entries in self._take_due(now, room - len(self._tasks)):
            self._start(entries)
        if len(self._tasks) >= room or self._shared >= SHARED_AT_ONCE:
            return seconds
        return min(max(order.due_at() - now, 0.0), seconds)

    def _take_due(self, now: float, most: int) -> list[list[Entry]]:
        """Take entries that are due, for so many requests; return those of each request."""
        order, most_sharing = self._outbox.order, (SHARED_AT_ONCE - self._shared) * LINES
        sharing: list[Entry] = []
        alone: list[Entry] = []
        while len(sharing) < most_sharing and len(alone) + ceil(len(sharing) / LINES) < most:
            if (key := order.take(now)) is None:
                break
            entry = self._outbox.unsettled(key)
            if entry is None or entry.state not in TO_BE_SENT:
                order.free(key)
            elif self._may_share(entry, now):
                sharing.append(entry)
            else:
                alone.append(entry)
        shared = [sharing[n : n + LINES] for n in range(0, len(sharing), LINES)]
        return [*([entry] for entry in alone), *shared]

    def _may_share(self, entry: Entry, now: float) -> bool:
        """Whether an entry needs nothing that others would have to wait for."""
        return (
            entry.state is State.QUEUED
            and now >= self._singly_until
            and self._turns.is_free(entry.product_id)
            and self._known_version(entry) is not None
            and self._given_up(entry) is entry
        )

    def _room(self, now: float) -> tuple[int, float]:
        """Return how many entries may be on their way, and when to look again."""
        outbox = self._outbox
        if self._is_stopping:
            return 0, LOOK_SECONDS
        if not self._store.is_durable:
            outbox.waits_for = "the disk fails: nothing is sent whose outcome could not be kept"
            return 0, LOOK_SECONDS
        if now < self._paused_until:
            return 0, self._paused_until - now
        if self._admission.is_open:
            outbox.waits_for = "Central cannot be reached"
            wait_seconds = self._admission.wait_seconds()
            return (0, wait_seconds) if wait_seconds > 0 else (1, LOOK_SECONDS)
        outbox.waits_for = ""
        return SENT_AT_ONCE, LOOK_SECONDS

    def _start(self, entries: Sequence[Entry]) -> None:
        self._outbox.busy.update(entry.key for entry in entries)
        is_shared = len(entries) > 1
        work = self._send_together(entries) if is_shared else self._send(entries[0])
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._shared += is_shared

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._shared -= is_shared
            for entry in entries:
                self._outbox.busy.discard(entry.key)
                self._outbox.order.free(entry.key)
            if not done.cancelled() and (problem := done.exception()) is not None:
                log.error(
                    "entries of the outbox wait because of a defect of the store, please report "
                    "it: %s",
                    ", ".join(entry.id for entry in entries),
                    exc_info=problem,
                )
                for entry in entries:
                    self._put_back(entry.key)
            self.wake()

        task.add_done_callback(ended)

    # -- several entries -------------------------------------------------------------------

    async def _send_together(self, entries: Sequence[Entry]) -> None:
        """Send queued entries of different products once, in one request."""
        deadline_at = _time() + self._settings.write_timeout_seconds
        async with self._turns.turn(entry.product_id for entry in entries):
            sent = []
            for entry in filter(self._outbox.is_current, entries):
                if (version := self._known_version(entry)) is None:  # it has been deleted since
                    self._outbox.order.put_queued(entry.key, entry.product_id, entry.sequence)
                else:
                    sent.append(self._sending(entry, version))
            if not sent:
                return
            await self._outbox.record(*sent)
            outcomes = await self._exchange(sent, deadline_at)
            if len(sent) > 1 and _is_refused_as_a_whole(outcomes):
                self._singly_until = _time() + SINGLY_SECONDS
                log.warning("Central refuses writes that share a request: %s", outcomes[0])
                outcomes = [unavailable("Central refused the request as a whole", 0.0)] * len(sent)
            await self._conclude_each(sent, outcomes)

    async def _conclude_each(
        self, entries: Sequence[Entry], outcomes: Sequence[WriteOutcome]
    ) -> None:
        """Conclude each entry, also if a defect ends that of another one."""
        pairs = zip(entries, outcomes, strict=True)
        concluding = (self._conclude(entry, outcome) for entry, outcome in pairs)
        for problem in await asyncio.gather(*concluding, return_exceptions=True):
            if problem is not None:
                raise problem

    # -- one entry -------------------------------------------------------------------------

    async def _send(self, entry: Entry) -> None:
        """Send one entry once, and put it back if it is to be sent again."""
        if entry.state is State.SENDING and self._outbox.is_current(entry):
            entry = transitions.recovered(entry, DEFECT, self._now())
            await self._outbox.record(entry)
        if not self._outbox.is_current(entry):
            return  # the feed or a person has decided meanwhile
        if (given_up := self._given_up(entry)) is not entry:
            await self._outbox.record(given_up)
            return
        deadline_at = _time() + self._settings.write_timeout_seconds
        if entry.state is State.IN_DOUBT:
            await self._send_again(entry, deadline_at)
            return
        async with self._turns.turn([entry.product_id]):
            if self._outbox.is_current(entry):  # nobody has decided otherwise meanwhile
                await self._send_queued(entry, deadline_at)

    async def _send_queued(self, entry: Entry, deadline_at: float) -> None:
        try:
            version = await self._version(entry, deadline_at)
        except WriteError as problem:
            self._note(problem)
            await self._conclude(entry, problem)
            return
        if version is None:
            refused = Refused("product_not_found", "Central has no such product")
            await self._conclude(entry, refused)
            return
        sent = self._sending(entry, version)
        await self._outbox.record(sent)
        [outcome] = await self._exchange([sent], deadline_at)
        await self._conclude(sent, outcome)

    async def _send_again(self, entry: Entry, deadline_at: float) -> None:
        """Send the very attempt that is in doubt once more (W3)."""
        attempt = entry.attempt
        assert attempt is not None
        [outcome] = await self._exchange([entry], deadline_at)
        found, position = self._outbox.in_doubt.get(attempt), self._store.position
        outcome = await decided_by_feed(
            outcome, found, self._events, position, deadline_at=deadline_at
        )
        await self._conclude(entry, outcome)

    def _sending(self, entry: Entry, version: int) -> Entry:
        now, number = self._now(), entry.number
        attempt = new_attempt(
            entry.request, number=number, version=version, store=self._store, now=now
        )
        return transitions.sending(entry, attempt, now)

    async def _exchange(self, entries: Sequence[Entry], deadline_at: float) -> list[WriteOutcome]:
        """Send the attempts of entries in one request."""
        attempts = [entry.attempt for entry in entries if entry.attempt is not None]
        outcomes: list[WriteOutcome]
        if not self._store.is_durable:  # after a restart nothing would say that they were sent
            outcomes = [unavailable("The disk fails", 1.0)] * len(entries)
        else:
            outcomes = await exchange(
                [(e.request, attempt) for e, attempt in zip(entries, attempts, strict=True)],
                store_id=self._settings.store_id,
                admission=self._admission,
                are_repeated=[entry.state is State.IN_DOUBT for entry in entries],
                deadline_at=deadline_at,
            )
        self._note(outcomes[0])
        pairs = zip(attempts, outcomes, strict=True)
        return [self._outbox.in_doubt.verdict(attempt) or outcome for attempt, outcome in pairs]

    async def _conclude(self, entry: Entry, outcome: WriteOutcome) -> None:
        """Put an entry into the state that an outcome leads to; schedule it if it is to be sent
        again."""
        if not self._outbox.is_current(entry):
            return  # the feed was faster, and has settled it
        after = transitions.concluded(entry, outcome, self._now())
        if after.is_unsettled:
            if after != replace(entry, changed_at=after.changed_at):
                await self._outbox.record(after)
        else:
            await self._outbox.settle(after, self._stock(entry, outcome))
        self._schedule(entry.key, outcome)
        if isinstance(outcome, Refused) and outcome.error_type == "version_conflict":
            await self._refetches.refresh_outdated(entry.product_id, outcome.new_version)

    def _stock(self, entry: Entry, outcome: WriteOutcome) -> StockAnswer | None:
        if not isinstance(outcome, Applied) or entry.attempt is None:
            return None
        is_repeated = entry.state is State.IN_DOUBT
        return stock_to_show(outcome.stock, entry.attempt, is_repeated=is_repeated, now=self._now())

    def _schedule(self, key: str, outcome: WriteOutcome) -> None:
        """Have an entry sent again at its time, if it is to be."""
        current = self._outbox.unsettled(key)
        if current is None or current.state not in (State.QUEUED, State.IN_DOUBT):
            return
        due = 0.0
        if _is_its_own(outcome):
            self._outbox.failures[key] += 1
            failures = self._outbox.failures[key]
            is_conflict = isinstance(outcome, Refused)
            if not is_conflict or failures > CONFLICTS_AT_ONCE:
                due = _time() + pause_seconds(failures, self._random())
        order = self._outbox.order
        if current.state is State.QUEUED:
            order.put_queued(key, current.product_id, current.sequence, due=due)
        else:
            order.put_in_doubt(key, current.product_id, current.sequence, due=due)

    def _put_back(self, key: str) -> None:
        """Have an entry sent again a minute after a defect of the store."""
        entry, loop = self._outbox.unsettled(key), asyncio.get_running_loop()
        if entry is None:
            return
        if entry.state is State.QUEUED:
            due = loop.time() + AFTER_DEFECT_SECONDS
            self._outbox.order.put_queued(key, entry.product_id, entry.sequence, due=due)
        else:  # out of the order, where Central's return would hasten it
            loop.call_later(AFTER_DEFECT_SECONDS, self._take_up, key)

    def _take_up(self, key: str) -> None:
        entry = self._outbox.unsettled(key)
        is_left = entry is not None and entry.state in (State.SENDING, State.IN_DOUBT)
        if entry is not None and is_left and key not in self._outbox.busy:
            self._outbox.order.put_in_doubt(key, entry.product_id, entry.sequence, due=0.0)
            self.wake()

    def _note(self, outcome: WriteOutcome) -> None:
        """Hold everything back if it is not the entry that failed (O3)."""
        if not (isinstance(outcome, WriteError) and outcome.is_central_away):
            self._denials = 0
            return
        self._denials += 1
        if self._admission.is_open and self._admission.wait_seconds() > 0.0:
            return  # the breaker says when
        seconds = outcome.retry_after_seconds or pause_seconds(self._denials, self._random())
        self._paused_until = _time() + seconds
        self._outbox.waits_for = outcome.reason

    # -- an attempt ------------------------------------------------------------------------

    def _known_version(self, entry: Entry) -> int | None:
        """Return the version to send an entry with (O2); None if Central has to be asked."""
        request = entry.request
        if isinstance(request, Write) and entry.number == 1:
            position = self._store.position
            generation = None if position is None else position.generation
            return self._outbox.continued_version(request.product_id, request.version, generation)
        if entry.next_version is not None:
            # Not continued: a Central restored from a backup makes the same versions again.
            return entry.next_version
        return self._store.held_version(request.product_id)

    async def _version(self, entry: Entry, deadline_at: float) -> int | None:
        """Return the version likewise; None if Central has no such product. Raises WriteError if
        Central cannot say."""
        if (known := self._known_version(entry)) is not None:
            return known
        request = entry.request
        seconds = min(PRODUCT_SECONDS, deadline_at - _time())
        try:
            row = await self._refetches.read(request.product_id, seconds=seconds)
        except (RequestRefused, UnsendableId) as problem:
            raise WriteError("central_error", str(problem)) from problem
        except CentralError as problem:
            raise unavailable(str(problem), problem.retry_after_seconds or 1.0) from problem
        return None if row is None else row.version

    # -- what a person has to decide -------------------------------------------------------

    def _given_up(self, entry: Entry) -> Entry:
        """Return the entry parked if it must not be sent by itself any more (O4, O5); else as it
        is."""
        now, attempt = self._now(), entry.attempt
        if entry.state is State.QUEUED:
            max_age_seconds = self._settings.max_age_seconds
            if max_age_seconds and now - entry.waits_since > max_age_seconds:
                hours = max_age_seconds / 3600.0
                reason = f"it was not sent within OUTBOX_MAX_AGE_HOURS ({hours:g})"
                return transitions.parked(entry, transitions.TOO_OLD, reason, now)
            return entry
        assert attempt is not None
        position = self._store.position
        if position is not None and attempt.generation not in (None, position.generation):
            reason = (
                "Central was replaced after it was sent: only Central's people can say whether the "
                "new one has it"
            )
            return transitions.parked(entry, transitions.REPLACED, reason, now)
        if now - attempt.at > self._settings.retention_seconds:
            reason = "Central may have forgotten its key, so sending it again would prove nothing"
            return transitions.parked(entry, transitions.FORGOTTEN, reason, now)
        return entry


def _is_refused_as_a_whole(outcomes: Sequence[WriteOutcome]) -> bool:
    """Whether no line was judged by itself: nothing was applied, and each may be sent alone."""
    return all(
        each.error_type == "invalid_request"
        if isinstance(each, Refused)
        else isinstance(each, WriteError) and not each.is_central_away
        for each in outcomes
    )


def _is_its_own(outcome: WriteOutcome) -> bool:
    """Whether an outcome says something of the entry, not of Central as a whole."""
    return not (isinstance(outcome, WriteError) and outcome.is_central_away)


def _time() -> float:
    return asyncio.get_running_loop().time()
