"""Forwards writes to Central: each key is sent once, settled once, and always answered alike (W1).

A write takes the steps of this module from top to bottom: its key is looked up (`_forward`), it
waits for its turn at the product (`_deliver`), its attempt is recorded on disk, admitted, sent and
judged (`_send`), and its outcome is settled on disk, shown and answered (`_conclude`). A batch is
one request with several writes, which are sent together and then concluded each by itself.

With an outbox, a write that certainly never reached Central is queued instead of refused, one to a
product that has queued writes queues behind them, and one of unknown outcome is taken in.

A write runs in a task of its own, so that a client that disconnects cancels nothing (W5); a repeat
joins it. What stays of unknown outcome is listed (`in_doubt`), and a person may settle it
(`settle`). Nothing pauses between the look-up of a key and the start of its task, so that two calls
never start the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Protocol

from store_cache.central.failures import CentralError, RequestRefused, UnsendableId
from store_cache.model.event import AnyEvent
from store_cache.model.position import Position
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.writes.admission import Admission, AdmissionStatus
from store_cache.writes.exchange import exchange, new_attempt, stock_to_show
from store_cache.writes.idempotency import (
    Attempt,
    Final,
    KeyRoom,
    KeyTable,
    encode_attempt,
    encode_final,
    final_answer,
    fingerprint,
    key_reused,
)
from store_cache.writes.in_doubt import InDoubtWrites
from store_cache.writes.in_doubt_search import EventSource, decided_by_feed
from store_cache.writes.outbox.entry import Entry
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.product_queue import ProductQueue
from store_cache.writes.write import (
    Adjustment,
    Answer,
    Applied,
    BatchAnswer,
    Doubt,
    FinalOutcome,
    Refused,
    SettledByPerson,
    Unknown,
    Write,
    WriteError,
    WriteOutcome,
    WriteRequest,
    answer_to,
    unavailable,
    unsettled,
)

MOST_ATTEMPTS = 5
"""How often an adjustment is sent with Central's version before a conflict is its answer."""

STOCK_SECONDS = 1.0
"""How long a till that was refused for the stock, or whose write is in doubt, waits for Central to
say what the stock is."""

_log = logging.getLogger(__name__)

Result = Answer | WriteError


class WriteStore(Protocol):
    """The cache's writer, as far as this module uses it."""

    async def record_write(self, *key_entries: bytes) -> None:
        """Append records of the key table, with one sync; while the disk fails they are kept in
        memory only (D5)."""

    async def settle_write(
        self, key_entry: bytes, answer: StockAnswer | None, *, shown: Callable[[], None]
    ) -> None:
        """Append the record likewise; then show the answer, and call `shown` in the same step."""

    def held_version(self, product_id: str) -> int | None: ...

    def held_row(self, product_id: str) -> Row | None: ...

    @property
    def position(self) -> Position | None: ...


class Refetches(Protocol):
    """Refetches single products."""

    async def refresh_outdated(self, product_id: str, version: int | None) -> None:
        """Have the next read show Central's state. Does not raise if Central is away."""

    async def read(self, product_id: str, *, seconds: float) -> Row | None:
        """Return Central's product, None if it has none, and show it. Raises CentralError."""


@dataclass(slots=True)
class Delivery:
    """A write on its way.

    `attempt`: its latest attempt, as it was before it was last sent: `is_unknown` in it speaks of
    earlier sendings only. `is_recorded`: it was appended to the journal.
    """

    request: WriteRequest
    attempt: Attempt
    is_recorded: bool


@dataclass(frozen=True, slots=True)
class WritesStatus:
    """How many keys are under way, unknown (the oldest for `unknown_seconds`), and remembered with
    a final answer. `keys_reused`: how many writes came with the key of another one."""

    admission: AdmissionStatus
    under_way: int
    unknown: int
    unknown_seconds: float
    remembered: int
    keys_reused: int
    room: KeyRoom


class Forwarder:
    """`now` is unix seconds; deadlines are on the loop's clock."""

    def __init__(
        self,
        *,
        store_id: str,
        admission: Admission,
        store: WriteStore,
        refetches: Refetches,
        events: EventSource,
        keys: KeyTable,
        now: Callable[[], float],
        write_timeout_seconds: float,
        outbox: Outbox | None = None,
    ) -> None:
        self._outbox = outbox
        self._store_id = store_id
        self._admission = admission
        self._store = store
        self._refetches = refetches
        self._events = events
        self._keys = keys
        self._now = now
        self._write_timeout_seconds = write_timeout_seconds
        self._in_doubt = InDoubtWrites(store_id=store_id)
        self.turns = ProductQueue()
        self._under_way: dict[str, asyncio.Future[Result]] = {}
        self._keys_reused = 0
        # New keys that wait for their turn, since when: the key table does not have them yet.
        self._waiting: dict[str, tuple[WriteRequest, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_result: Callable[[Result, float], None] = _ignore
        """Called with each write's result, and how many seconds that took."""

    # -- start, stop, status ---------------------------------------------------------------

    def start(self) -> None:
        """Look for attempts that the last process left unknown. Call it once the key table is
        loaded."""
        for attempt in self._keys.open_attempts():
            self._in_doubt.add(attempt)

    async def stop(self, *, within_seconds: float) -> None:
        """Wait for the writes under way; those that take longer are left unknown."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def status(self) -> WritesStatus:
        attempts = self._keys.open_attempts()
        unknown = [each.at for each in attempts if each.key not in self._under_way]
        queued = 0
        if self._outbox is not None:
            queued = len(self._keys.outbox)
            unknown += [doubt.sent_at for doubt in self._outbox.doubts()]
        return WritesStatus(
            self._admission.status(),
            under_way=len(self._under_way),
            unknown=len(unknown),
            unknown_seconds=self._now() - min(unknown, default=self._now()),
            remembered=len(self._keys) - len(attempts) - queued,
            keys_reused=self._keys_reused,
            room=self._keys.room(),
        )

    # -- calls -----------------------------------------------------------------------------

    async def update(self, write: Write) -> Answer:
        """Forward one write. Raises WriteError if Central gave no final answer."""
        return (await self._forward((write,)))[0]

    async def update_batch(self, writes: Sequence[Write]) -> BatchAnswer:
        """Forward writes with distinct keys in one request. Raises WriteError.

        If one outcome is unknown, the whole answer is `central_timeout`. The till repeats the
        batch with the same keys, and gets again what was settled, without another sending. An
        answer to a part of the batch would leave it to guess which keys to repeat.
        """
        answers = await self._forward(writes)
        return BatchAnswer(tuple(answer.body for answer in answers))

    async def adjust(self, adjustment: Adjustment) -> Answer:
        """Forward a write without a version: with the version held when its turn comes and, after
        a conflict, with Central's. A product that is not held is read from Central, also while
        there is no catalogue yet.

        A conflict is the answer once the attempts, or the time, are used up. Raises WriteError;
        `product_not_found` if neither the store nor Central has the product.
        """
        return (await self._forward((adjustment,)))[0]

    def in_doubt(self) -> list[Doubt]:
        """Return what is known of each write of unknown outcome that is not under way, the oldest
        first."""
        doubts = [
            self._doubt(attempt)
            for attempt in self._keys.open_attempts()
            if attempt.is_unknown and attempt.key not in self._under_way
        ]
        if self._outbox is not None:
            doubts += self._outbox.doubts()
        return sorted(doubts, key=lambda doubt: doubt.sent_at)

    async def settle(self, key: str, *, is_applied: bool, by: str, reason: str) -> Answer:
        """Settle a write in doubt as a person says, and return what its till will be answered.

        `by` is the name of the person's API key. It is never sent again. Raises WriteError
        `write_not_found`, `write_under_way` or `write_not_in_doubt`.
        """
        entry = None if self._outbox is None else self._outbox.get(key)
        if entry is not None:
            return await self.settle_entry(entry, is_applied=is_applied, by=by, reason=reason)
        attempt = self._keys.open_attempt(key)
        if key in self._under_way or key in self._waiting:
            raise WriteError(
                "write_under_way",
                "The write is on its way to Central: wait for its outcome, and settle it if that "
                "is unknown",
                details={"idempotencyKey": key},
            )
        if attempt is None or not attempt.is_unknown:
            if key not in self._keys:
                raise WriteError(
                    "write_not_found",
                    "The store knows no write with this idempotency key; see the list of writes "
                    "in doubt",
                    details={"idempotencyKey": key},
                )
            raise WriteError(
                "write_not_in_doubt",
                "The outcome of this write is known, so there is nothing to settle: a repeat of "
                "the write gets it",
                details={"idempotencyKey": key},
            )
        self._start([key], self._settle_by_person(attempt, is_applied, by, reason))
        result = await asyncio.shield(self._under_way[key])
        if isinstance(result, WriteError):
            raise result
        return result

    async def settle_entry(self, entry: Entry, *, is_applied: bool, by: str, reason: str) -> Answer:
        """Settle an entry of the outbox likewise."""
        assert self._outbox is not None
        self._outbox.check_doubtful(entry.id)
        stock = await self._stock_for_person(entry.product_id)
        await self._outbox.settle_by_person(
            entry.id, is_applied=is_applied, by=by, reason=reason, stock=stock
        )
        answer = await self._outbox.answer(entry.key)
        assert isinstance(answer, Answer), "a settled entry has an answer"
        return answer

    def observe_events(self, events: Sequence[AnyEvent]) -> None:
        """Take events just applied, in order: they may settle unknown writes (W3)."""
        for key, outcome in self._in_doubt.observe(events):
            attempt = self._keys.open_attempt(key)
            if attempt is not None and key not in self._under_way:
                _log.info("the feed settles a write that was unknown, key %s", key)
                self._start([key], self._settle(attempt, outcome))

    # -- look up ---------------------------------------------------------------------------

    async def _forward(self, requests: Sequence[WriteRequest]) -> list[Answer]:
        """Start the writes whose keys are new or unknown, and return an answer for each key."""
        for expired in self._keys.expire(self._now()):
            self._in_doubt.drop(expired)
        found = [self._find(request) for request in requests]
        self._start_missing(requests, found)
        # A key under way may have its final entry already, while its product is refetched: join it.
        joined = [self._under_way.get(request.key) for request in requests]
        results = []
        for request, known, future in zip(requests, found, joined, strict=True):
            if future is not None:
                results.append(await asyncio.shield(future))
            elif isinstance(known, Entry):
                assert self._outbox is not None
                results.append(await self._outbox.answer(known.key))
            else:
                assert isinstance(known, Final), "every other key has been started"
                results.append(await self._repeat(request, known))
        return _answers(results, [request.key for request in requests])

    def _find(self, request: WriteRequest) -> Attempt | Final | Entry | None:
        """Return the entry of a request's key. Raises WriteError `idempotency_key_reused`."""
        waiting = self._waiting.get(request.key)
        try:
            if waiting is not None and fingerprint(waiting[0]) != fingerprint(request):
                raise key_reused(request.key, client=waiting[0].client, used_at=waiting[1])
            entry = None if self._outbox is None else self._outbox.find(request)
            return entry or self._keys.find(request)
        except WriteError as problem:
            self._keys_reused += problem.code == "idempotency_key_reused"
            raise

    def _start_missing(
        self, requests: Sequence[WriteRequest], found: Sequence[Attempt | Final | Entry | None]
    ) -> None:
        """Start what is neither final, nor in the outbox, nor under way: all of it or, raising
        WriteError, nothing."""
        missing = [
            (request, known)
            for request, known in zip(requests, found, strict=True)
            if not isinstance(known, Final | Entry) and request.key not in self._under_way
        ]
        if self._outbox is not None:
            missing = self._queue_at_once(self._outbox, missing)
        if not missing:
            return
        try:
            self._admission.check()
            self._admission.check_room(len(self._tasks))
        except WriteError as away:
            unknown = [known for _, known in missing if known and known.is_unknown]
            if not unknown:
                raise
            # What may have been applied is never answered as something that was not sent.
            raise self._unsettled(away.reason, unknown, away.retry_after_seconds) from None
        now = self._now()
        new = {request.key: (request, now) for request, known in missing if known is None}
        client, waiting = missing[0][0].client, len(self._waiting)
        self._keys.reserve(len(new), client=client, waiting=waiting, now=now)
        self._waiting |= new
        self._start([request.key for request, _ in missing], self._deliver(missing))

    def _queue_at_once(
        self, outbox: Outbox, missing: Sequence[tuple[WriteRequest, Attempt | None]]
    ) -> list[tuple[WriteRequest, Attempt | None]]:
        """Queue what cannot be sent now, or comes behind a queued write; return the rest. If there
        is no room for one write of a batch, none is taken: raises WriteError."""
        is_away = outbox.is_accepting and self._admission.is_open
        waits = [
            (request, known)
            for request, known in missing
            if is_away or outbox.holds_up(request.product_id)
        ]
        if not waits:
            return [*missing]
        if not outbox.is_accepting:
            raise unavailable("Queued writes to the product are being sent first", 1.0)
        outbox.check_room(len(missing))
        reason = "Central cannot be reached" if is_away else "earlier writes to the product wait"
        now = self._now()
        self._waiting |= {request.key: (request, now) for request, known in waits if known is None}
        self._start([request.key for request, _ in waits], self._queue(outbox, waits, reason))
        return [each for each in missing if each not in waits]

    async def _queue(
        self,
        outbox: Outbox,
        writes: Sequence[tuple[WriteRequest, Attempt | None]],
        reason: str,
    ) -> None:
        """Queue writes that did not reach Central, and answer them; those of which an earlier
        sending may have are taken in."""
        new = [
            (request, 1 if known is None else known.number)
            for request, known in writes
            if known is None or not known.is_unknown
        ]
        refused: WriteError | None = None
        try:
            if new:
                await outbox.queue(new, reason)
        except WriteError as problem:
            refused = problem
        for request, known in writes:
            if known is not None and (refused is not None or known.is_unknown):
                error = refused or unavailable(reason, 1.0)
                await self._withdraw(Delivery(request, known, is_recorded=True), error)
            elif refused is not None:
                self._end(request.key, refused)
            else:
                if known is not None:
                    self._in_doubt.drop(known)
                self._end(request.key, await outbox.answer(request.key))

    async def _repeat(self, request: WriteRequest, final: Final) -> Answer:
        """Return the first answer again.

        The answer was shown when it was given. If the cache holds a lower version by now, that may
        be of another incarnation: the product is refetched, and the old figures are not applied.
        """
        outcome, held = final.outcome, self._store.held_version(request.product_id)
        if isinstance(outcome, Applied) and held is not None and held <= final.version:
            await self._refetches.refresh_outdated(request.product_id, None)
        return answer_to(outcome, request.product_id)

    # -- wait for the turn -----------------------------------------------------------------

    async def _deliver(self, missing: Sequence[tuple[WriteRequest, Attempt | None]]) -> None:
        """Send writes in one request once it is their products' turn; conclude each by itself."""
        deadline_at = asyncio.get_running_loop().time() + self._write_timeout_seconds
        products = {request.product_id for request, _ in missing}
        async with AsyncExitStack() as turn:
            try:
                queued = turn.enter_async_context(self.turns.turn(products))
                await self._admission.in_time(queued, deadline_at)
                missing = await self._queue_behind(missing)
                if not missing:
                    return
                deliveries = [
                    await self._delivery(request, known, deadline_at) for request, known in missing
                ]
            except WriteError as problem:
                await self._turn_away(missing, problem)
                return
            outcomes = await self._attempt(deliveries, deadline_at)
            concluded = [*zip(deliveries, outcomes, strict=True)]
            # What was applied is shown before the next write to the product takes its version, and
            # what is queued comes before the next write, too.
            first = [each for each in concluded if isinstance(each[1], Applied | WriteError)]
            await self._conclude_first(first, deadline_at)
        others = [each for each in concluded if each not in first]
        await self._conclude_each(others, deadline_at)

    async def _conclude_first(
        self, concluded: Sequence[tuple[Delivery, WriteOutcome]], deadline_at: float
    ) -> None:
        """Conclude what was applied or not sent. What Central cannot be blamed for refusing is
        queued if there is an outbox, all of it together."""
        outbox = self._outbox
        is_queueing = outbox is not None and outbox.is_accepting
        away = [
            (delivery, outcome)
            for delivery, outcome in concluded
            if is_queueing and isinstance(outcome, WriteError) and outcome.is_central_away
        ]
        if outbox is not None and away:
            queued = [(delivery.request, delivery.attempt) for delivery, _ in away]
            await self._queue(outbox, queued, away[0][1].reason)
        # The feed may have settled a line of a batch that could not be sent.
        await self._conclude_each([each for each in concluded if each not in away], deadline_at)

    async def _delivery(
        self, request: WriteRequest, known: Attempt | None, deadline_at: float
    ) -> Delivery:
        """Take up a known attempt, or make the first one. Raises WriteError."""
        if known is not None:
            return Delivery(request, known, is_recorded=True)
        if isinstance(request, Write):
            version = request.version
        elif (held := self._store.held_version(request.product_id)) is not None:
            version = held
        else:
            version = await self._version_at_central(request.product_id, deadline_at)
        attempt = self._new_attempt(request, number=1, version=version)
        return Delivery(request, attempt, is_recorded=False)

    def _new_attempt(self, request: WriteRequest, *, number: int, version: int) -> Attempt:
        """Enter an attempt into the key table, and look for it on the feed from now on."""
        attempt = new_attempt(
            request, number=number, version=version, store=self._store, now=self._now()
        )
        self._keys.put(attempt)
        self._waiting.pop(request.key, None)
        self._in_doubt.add(attempt)
        return attempt

    async def _version_at_central(self, product_id: str, deadline_at: float) -> int:
        """Return the version of a product that is not held. Raises WriteError."""
        seconds = deadline_at - asyncio.get_running_loop().time()
        row = None
        try:
            row = await self._refetches.read(product_id, seconds=seconds)
        except CentralError as problem:
            # Some Centrals can only list their products: then the catalogue says what there is.
            is_only_listed = isinstance(problem, RequestRefused | UnsendableId)
            if not is_only_listed or self._store.position is None:
                reason = f"The store does not hold the product: {problem}"
                raise unavailable(reason, problem.retry_after_seconds or 1.0) from problem
        if row is None:
            raise WriteError(
                "product_not_found",
                "Product not found in local cache; nothing was sent",
                details={"productId": product_id},
            )
        return row.version

    async def _queue_behind(
        self, missing: Sequence[tuple[WriteRequest, Attempt | None]]
    ) -> Sequence[tuple[WriteRequest, Attempt | None]]:
        """Queue writes whose turn has come behind a write that was queued meanwhile; return the
        others."""
        outbox = self._outbox
        if outbox is None or not outbox.is_accepting:
            return missing
        behind = [each for each in missing if outbox.holds_up(each[0].product_id)]
        if behind:
            await self._queue(outbox, behind, "earlier writes to the product wait")
        return [each for each in missing if each not in behind]

    async def _turn_away(
        self, missing: Sequence[tuple[WriteRequest, Attempt | None]], error: WriteError
    ) -> None:
        """End writes that were not sent this time."""
        outbox = self._outbox
        if outbox is not None and outbox.is_accepting and error.is_central_away:
            await self._queue(outbox, missing, error.reason)
            return
        for request, known in missing:
            if known is None:
                self._end(request.key, error)
            else:
                await self._withdraw(Delivery(request, known, is_recorded=True), error)

    # -- record, admit, send, judge --------------------------------------------------------

    async def _attempt(
        self, deliveries: Sequence[Delivery], deadline_at: float
    ) -> list[WriteOutcome]:
        """Send writes; an adjustment that meets a conflict again, with Central's version."""
        outcomes = await self._send(deliveries, deadline_at)
        while (version := self._retry_version(deliveries[0], outcomes[0], deadline_at)) is not None:
            [delivery] = deliveries
            number = delivery.attempt.number + 1
            delivery.attempt = self._new_attempt(delivery.request, number=number, version=version)
            delivery.is_recorded = False
            outcomes = await self._send(deliveries, deadline_at)
        return outcomes

    async def _send(self, deliveries: Sequence[Delivery], deadline_at: float) -> list[WriteOutcome]:
        """Record the latest attempts, send them in one request, and judge the answer to each."""
        attempts = [delivery.attempt for delivery in deliveries]
        records = [
            encode_attempt(delivery.attempt) for delivery in deliveries if not delivery.is_recorded
        ]
        if records:
            await self._store.record_write(*records)
        for delivery in deliveries:
            delivery.is_recorded = True
            # From here on Central may have the write, even if this task ends early.
            self._keys.put(replace(delivery.attempt, is_unknown=True))
        outcomes = await exchange(
            [(delivery.request, delivery.attempt) for delivery in deliveries],
            store_id=self._store_id,
            admission=self._admission,
            are_repeated=[attempt.is_unknown for attempt in attempts],
            deadline_at=deadline_at,
        )
        # The feed may have been faster than the answer.
        pairs = zip(attempts, outcomes, strict=True)
        return [self._in_doubt.verdict(attempt) or outcome for attempt, outcome in pairs]

    def _retry_version(
        self, delivery: Delivery, outcome: WriteOutcome, deadline_at: float
    ) -> int | None:
        """Return Central's version if an adjustment met a conflict and may be sent again."""
        attempt = delivery.attempt
        is_last = attempt.is_unknown or attempt.number >= MOST_ATTEMPTS
        if isinstance(delivery.request, Write) or is_last or self._admission.is_late(deadline_at):
            return None
        if not isinstance(outcome, Refused) or outcome.error_type != "version_conflict":
            return None
        return outcome.new_version

    # -- settle, answer --------------------------------------------------------------------

    async def _conclude_each(
        self, concluded: Sequence[tuple[Delivery, WriteOutcome]], deadline_at: float
    ) -> None:
        if len(concluded) < 2:  # nearly always
            for delivery, outcome in concluded:
                await self._conclude(delivery, outcome, deadline_at)
            return
        async with asyncio.TaskGroup() as group:
            for delivery, outcome in concluded:
                group.create_task(self._conclude(delivery, outcome, deadline_at))

    async def _conclude(
        self, delivery: Delivery, outcome: WriteOutcome, deadline_at: float
    ) -> None:
        """End one write: let the feed decide an unknown outcome, then settle, leave unknown or
        withdraw it."""
        attempt = delivery.attempt
        in_doubt, position = self._in_doubt.get(attempt), self._store.position
        outcome = await decided_by_feed(
            outcome, in_doubt, self._events, position, deadline_at=deadline_at
        )
        if isinstance(outcome, Refused) and outcome.error_type == "insufficient_inventory":
            outcome = await self._with_stock(attempt, outcome, deadline_at)
        if isinstance(outcome, Applied | Refused):
            await self._settle(attempt, outcome)
        elif isinstance(outcome, Unknown):
            at_central = await self._stock_at_central(attempt, outcome, deadline_at)
            reason = outcome.reason + self._missing_memory(outcome)
            await self._leave_unknown(delivery, reason, at_central)
        else:
            await self._withdraw(delivery, outcome)

    async def _with_stock(self, attempt: Attempt, refused: Refused, deadline_at: float) -> Refused:
        """Fill in the stock if Central refused a write for it without saying what it is.

        It is read from Central; if that fails, the cache says it. Neither counts if it is older
        than the version that was sent.
        """
        if refused.new_version is not None:
            return refused
        seconds_left = deadline_at - asyncio.get_running_loop().time()
        try:
            seconds = min(STOCK_SECONDS, seconds_left)
            row = await self._refetches.read(attempt.product_id, seconds=seconds)
        except CentralError as problem:
            _log.info("the stock could not be read after a refusal: %s", problem)
            row = self._store.held_row(attempt.product_id)
        if row is None or row.version < attempt.version:
            return refused
        if refused.new_quantity not in (None, row.available):
            return refused  # it has changed since, and no version of that quantity is known
        return replace(refused, new_quantity=row.available, new_version=row.version)

    async def _stock_at_central(
        self, attempt: Attempt, unknown: Unknown, deadline_at: float
    ) -> tuple[int, int] | None:
        """Return the quantity and version of the product at Central: as its refusal says, or as it
        says in the time that is left. None if it does not."""
        if (refusal := unknown.refusal) is not None:
            quantity, version = refusal.new_quantity, refusal.new_version
            if quantity is not None and version is not None:
                return quantity, version
        seconds = min(STOCK_SECONDS, deadline_at - asyncio.get_running_loop().time())
        if seconds <= 0.0:
            return None
        return await self._read_stock(attempt.product_id, seconds)

    async def _read_stock(self, product_id: str, seconds: float) -> tuple[int, int] | None:
        try:
            row = await self._refetches.read(product_id, seconds=seconds)
        except CentralError as problem:
            _log.info("the stock could not be read for a write in doubt: %s", problem)
            return None
        return None if row is None else (row.available, row.version)

    async def _stock_for_person(self, product_id: str) -> tuple[int, int] | None:
        """Return the stock as Central has it, or else the cache, which then refetches it."""
        stock = await self._read_stock(product_id, STOCK_SECONDS)
        if stock is None:
            await self._refetches.refresh_outdated(product_id, None)
            held = self._store.held_row(product_id)
            stock = None if held is None else (held.available, held.version)
        return stock

    async def _settle_by_person(
        self, attempt: Attempt, is_applied: bool, by: str, reason: str
    ) -> None:
        """Make what a person says the final outcome, with the stock as it is now."""
        stock = await self._stock_for_person(attempt.product_id)
        settled = SettledByPerson(is_applied, by, reason, *(stock or (None, None)))
        _log.warning(
            "write %s of product %s, in doubt since %s, is settled as %s by %s: %s",
            attempt.central_key(self._store_id),
            attempt.product_id,
            datetime.fromtimestamp(attempt.at, UTC).isoformat(timespec="seconds"),
            "applied" if is_applied else "not applied",
            by,
            reason,
        )
        await self._settle(attempt, settled)

    async def _settle(self, attempt: Attempt, outcome: FinalOutcome) -> None:
        """Make an outcome final: durable and visible, then answered.

        The key table has it once it is durable, in the step in which readers see the answer: a
        snapshot that is written before must not have the one without the other.

        If the answer alone does not say what the product is now, the store fetches it, which may
        take PRODUCT_DEADLINE_SECONDS beyond the write's deadline. Later writes to the product wait.
        """
        final = final_answer(attempt, outcome, self._now())
        stock = None
        if isinstance(outcome, Applied):
            is_repeated = attempt.is_unknown
            stock = stock_to_show(outcome.stock, attempt, is_repeated=is_repeated, now=self._now())
        await self._store.settle_write(
            encode_final(attempt.key, final),
            stock,
            shown=lambda: self._keys.finish(attempt.key, final),
        )
        self._in_doubt.drop(attempt)
        if isinstance(outcome, Refused) and outcome.error_type == "version_conflict":
            await self._refetches.refresh_outdated(attempt.product_id, outcome.new_version)
        self._end(attempt.key, answer_to(outcome, attempt.product_id))

    def _missing_memory(self, outcome: Unknown) -> str:
        """Return why the other write under a key may be this very one, sent before the store's
        memory of keys began; empty if it cannot be."""
        since = self._keys.since
        if since is None or not outcome.is_key_taken or self._keys.remembers_all(self._now()):
            return ""
        began = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
        return (
            f". This store's memory of keys began at {began}: if the write was first sent before, "
            "it was applied then. Compare the product's stock before it is sent with another key"
        )

    async def _leave_unknown(
        self,
        delivery: Delivery,
        reason: str,
        at_central: tuple[int, int] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """End a write whose outcome is unknown, unless an event has settled it meanwhile. If there
        is an outbox, it takes the write in."""
        attempt = delivery.attempt
        if (settled := self._in_doubt.verdict(attempt)) is not None:
            await self._settle(attempt, settled)
            return
        self._keys.put(replace(attempt, is_unknown=True))
        _log.warning("write %s is unknown: %s", attempt.central_key(self._store_id), reason)
        doubt = replace(self._doubt(attempt), at_central=at_central)
        error = unsettled(reason, [attempt.key], [doubt], retry_after_seconds)
        if self._outbox is not None and self._outbox.can_take_in:
            entry = await self._outbox.take_in(delivery.request, attempt, reason)
            self._in_doubt.drop(attempt)
            error.details["outboxId"] = entry.id
        self._end(attempt.key, error)

    def _unsettled(
        self, reason: str, attempts: Sequence[Attempt], retry_after_seconds: float | None = None
    ) -> WriteError:
        keys, doubts = [each.key for each in attempts], [self._doubt(each) for each in attempts]
        return unsettled(reason, keys, doubts, retry_after_seconds)

    def _doubt(self, attempt: Attempt) -> Doubt:
        found = self._in_doubt.get(attempt)
        seen = () if found is None else found.seen
        return Doubt(
            attempt.key, attempt.product_id, attempt.version, attempt.at, attempt.client, seen
        )

    async def _withdraw(self, delivery: Delivery, error: WriteError) -> None:
        """End an attempt that was not applied this time. An earlier sending of it may have been."""
        attempt = delivery.attempt
        if attempt.is_unknown:
            seconds = error.retry_after_seconds
            await self._leave_unknown(delivery, error.reason, retry_after_seconds=seconds)
            return
        self._keys.put(attempt)
        if attempt.number == 1:
            # No attempt under the key was applied, or will be: the key is free again.
            self._keys.drop(attempt.key)
            self._in_doubt.drop(attempt)
        self._end(attempt.key, error)

    # -- tasks -----------------------------------------------------------------------------

    def _start(self, keys: Iterable[str], work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which ends each of the keys, in a task of its own."""
        loop = asyncio.get_running_loop()
        started: dict[str, asyncio.Future[Result]] = {key: loop.create_future() for key in keys}
        self._under_way |= started
        began_at = perf_counter()
        for future in started.values():
            future.add_done_callback(
                lambda done: self.on_result(done.result(), perf_counter() - began_at)
            )

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for key, future in started.items():
                if not future.done():
                    never_sent = unavailable("The store stops", 1.0)
                    attempt = self._keys.open_attempt(key)
                    doubts = [] if attempt is None else [self._doubt(attempt)]
                    gave_up = unsettled("the store gave up before Central answered", [key], doubts)
                    self._end(key, never_sent if key in self._waiting else gave_up)
            if not task.cancelled() and (problem := task.exception()) is not None:
                _log.error("a write is left unknown by a defect of the store", exc_info=problem)

        task = loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _end(self, key: str, result: Result) -> None:
        """Answer the calls that wait for a key, and free it for a repeat."""
        self._waiting.pop(key, None)
        self._under_way.pop(key).set_result(result)


def _ignore(*_: object) -> None:
    """The callback if none is set."""


def _answers(results: Sequence[Result], keys: Sequence[str]) -> list[Answer]:
    """Return the answers, or raise the error that says most: an unknown outcome before others."""
    errors = [result for result in results if isinstance(result, WriteError)]
    if not errors:
        return [result for result in results if isinstance(result, Answer)]
    unknown = [
        key
        for key, result in zip(keys, results, strict=True)
        if isinstance(result, WriteError) and result.code == "central_timeout"
    ]
    if len(keys) > 1 and unknown:
        doubts = [doubt for error in errors for doubt in error.doubts]
        raise unsettled("not every write of the batch is settled", unknown, doubts)
    raise errors[0]
