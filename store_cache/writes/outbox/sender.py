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
from typing import Any, Protocol

from store_cache.central.failures import CentralError, RequestRefused, UnsendableId
from store_cache.model.event import AnyEvent, Event
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.writes.admission import Admission
from store_cache.writes.exchange import HeldStock, failure, new_attempt, payload_of, stock_to_show
from store_cache.writes.idempotency import Attempt
from store_cache.writes.in_doubt_search import EventSource, decided_by_feed
from store_cache.writes.outbox import transitions
from store_cache.writes.outbox.entry import TO_BE_SENT, Entry, State
from store_cache.writes.outbox.order import pause_seconds
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.product_queue import ProductQueue
from store_cache.writes.write import (
    Applied,
    Refused,
    Sent,
    Write,
    WriteError,
    WriteOutcome,
    judge,
    unavailable,
)

log = logging.getLogger(__name__)

SENT_AT_ONCE = 16
"""Half of the writes that Central gets at a time: the tills' own always find room (O8)."""

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
            readable = (event for event in events if isinstance(event, Event))
            for key, _ in self._outbox.in_doubt.observe(readable):
                entry = self._outbox.get(key)
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
        while True:
            room, seconds = self._room(now)
            if len(self._tasks) >= room:
                return seconds
            key = order.take(now)
            if key is None:
                return min(max(order.due_at() - now, 0.0), seconds)
            entry = self._outbox.get(key)
            if entry is not None and entry.state in TO_BE_SENT:
                self._start(entry)
            else:
                order.free(key)

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

    def _start(self, entry: Entry) -> None:
        self._outbox.busy.add(entry.key)
        task = asyncio.create_task(self._send(entry))
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._outbox.busy.discard(entry.key)
            self._outbox.order.free(entry.key)
            if not done.cancelled() and (problem := done.exception()) is not None:
                log.error(
                    "entry %s of the outbox waits because of a defect of the store; please report "
                    "it",
                    entry.id,
                    exc_info=problem,
                )
                self._put_back(entry.key)
            self.wake()

        task.add_done_callback(ended)

    # -- one entry -------------------------------------------------------------------------

    async def _send(self, entry: Entry) -> None:
        """Send one entry once, and put it back if it is to be sent again."""
        if entry.state is State.SENDING:
            entry = transitions.recovered(entry, DEFECT, self._now())
            await self._outbox.record(entry)
        if (given_up := self._given_up(entry)) is not entry:
            await self._outbox.record(given_up)
            return
        deadline_at = _time() + self._settings.write_timeout_seconds
        if entry.state is State.IN_DOUBT:
            await self._send_again(entry, deadline_at)
            return
        async with self._turns.turn([entry.product_id]):
            if self._outbox.get(entry.key) is entry:  # nobody has decided otherwise meanwhile
                await self._send_queued(entry, deadline_at)

    async def _send_queued(self, entry: Entry, deadline_at: float) -> None:
        try:
            version = await self._version(entry, deadline_at)
        except WriteError as problem:
            await self._conclude(entry, problem)
            return
        if version is None:
            refused = Refused("product_not_found", "Central has no such product")
            await self._conclude(entry, refused)
            return
        attempt = new_attempt(
            entry.request,
            number=entry.number,
            version=version,
            store=self._store,
            now=self._now(),
        )
        sent = transitions.sending(entry, attempt, self._now())
        await self._outbox.record(sent)
        if self._store.is_durable:
            outcome = await self._exchange(sent, attempt, deadline_at)
        else:  # after a restart nothing would say that it was sent
            outcome = unavailable("The disk fails", 1.0)
        await self._conclude(sent, outcome)

    async def _send_again(self, entry: Entry, deadline_at: float) -> None:
        """Send the very attempt that is in doubt once more (W3)."""
        attempt = entry.attempt
        assert attempt is not None
        outcome = await self._exchange(entry, attempt, deadline_at)
        found, position = self._outbox.in_doubt.get(attempt), self._store.position
        outcome = await decided_by_feed(
            outcome, found, self._events, position, deadline_at=deadline_at
        )
        await self._conclude(entry, outcome)

    async def _exchange(self, entry: Entry, attempt: Attempt, deadline_at: float) -> WriteOutcome:
        request = entry.request
        payload: dict[str, Any] = payload_of(self._settings.store_id, [(request, attempt)])
        outcome: WriteOutcome
        try:
            reply = await self._admission.send(payload, deadline_at=deadline_at)
        except (CentralError, WriteError) as problem:
            outcome = failure(problem)
        else:
            is_certain = reply.certain and entry.state is not State.IN_DOUBT
            sent = Sent(entry.product_id, attempt.version, is_certain)
            outcome = judge(reply.status, reply.value, sent)
        return self._outbox.in_doubt.verdict(attempt) or outcome

    async def _conclude(self, entry: Entry, outcome: WriteOutcome) -> None:
        """Put an entry into the state that an outcome leads to; schedule it if it is to be sent
        again."""
        if self._outbox.get(entry.key) is not entry:
            return  # the feed was faster, and has settled it
        after = transitions.concluded(entry, outcome, self._now())
        if after.is_unsettled:
            if after is not entry and after != replace(entry, changed_at=after.changed_at):
                await self._outbox.record(after)
        else:
            await self._outbox.settle(after, self._stock(entry, outcome))
        self._note(outcome)
        self._schedule(after, outcome)
        if isinstance(outcome, Refused) and outcome.error_type == "version_conflict":
            await self._refetches.refresh_outdated(entry.product_id, outcome.new_version)

    def _stock(self, entry: Entry, outcome: WriteOutcome) -> StockAnswer | None:
        if not isinstance(outcome, Applied) or entry.attempt is None:
            return None
        is_repeated = entry.state is State.IN_DOUBT
        return stock_to_show(outcome.stock, entry.attempt, is_repeated=is_repeated, now=self._now())

    def _schedule(self, entry: Entry, outcome: WriteOutcome) -> None:
        """Have an entry sent again at its time, if it is to be."""
        current = self._outbox.get(entry.key)
        if current is None or current.state not in (State.QUEUED, State.IN_DOUBT):
            return
        due = 0.0
        if _is_its_own(outcome):
            self._outbox.failures[entry.key] += 1
            failures = self._outbox.failures[entry.key]
            is_conflict = isinstance(outcome, Refused)
            if not is_conflict or failures > CONFLICTS_AT_ONCE:
                due = _time() + pause_seconds(failures, self._random())
        order = self._outbox.order
        if current.state is State.QUEUED:
            order.put_queued(current.key, current.product_id, current.sequence, due=due)
        else:
            order.put_in_doubt(current.key, current.product_id, current.sequence, due=due)

    def _put_back(self, key: str) -> None:
        """Have an entry sent again a minute after a defect of the store."""
        entry, loop = self._outbox.get(key), asyncio.get_running_loop()
        if entry is None:
            return
        if entry.state is State.QUEUED:
            due = loop.time() + AFTER_DEFECT_SECONDS
            self._outbox.order.put_queued(key, entry.product_id, entry.sequence, due=due)
        else:  # out of the order, where Central's return would hasten it
            loop.call_later(AFTER_DEFECT_SECONDS, self._take_up, key)

    def _take_up(self, key: str) -> None:
        entry = self._outbox.get(key)
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

    async def _version(self, entry: Entry, deadline_at: float) -> int | None:
        """Return the version to send an entry with (O2); None if Central has no such product.
        Raises WriteError if Central cannot say."""
        request = entry.request
        if isinstance(request, Write) and entry.number == 1:
            position = self._store.position
            generation = None if position is None else position.generation
            return self._outbox.continued_version(request.product_id, request.version, generation)
        if entry.next_version is not None:
            # Not continued: a Central restored from a backup makes the same versions again.
            return entry.next_version
        if (held := self._store.held_version(request.product_id)) is not None:
            return held
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
            if max_age_seconds and now - entry.queued_at > max_age_seconds:
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


def _is_its_own(outcome: WriteOutcome) -> bool:
    """Whether an outcome says something of the entry, not of Central as a whole."""
    return not (isinstance(outcome, WriteError) and outcome.is_central_away)


def _time() -> float:
    return asyncio.get_running_loop().time()
