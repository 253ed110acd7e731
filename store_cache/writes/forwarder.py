"""Writes of tills, forwarded to Central: each key sent once, settled once, answered for ever (W1).

Knows: which key is new, under way, unknown or final, and who waits for it.
Refuses to know: how a write gets to Central and what comes of it (`delivery`).

Each write runs in a task of its own, so that a till that hangs up cancels nothing (W5); a repeat
joins it. Between a look into the key table and the entry made there nothing pauses, so that two
tills can never start the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store_cache.model.event import AnyEvent, Event
from store_cache.writes.admission import Admission, AdmissionStatus
from store_cache.writes.delivery import Asked, Delivery, Entry, Ledger, Rereads, Result
from store_cache.writes.idempotency import Attempt, Final, KeyTable, fingerprint
from store_cache.writes.in_doubt_search import InDoubtSearch
from store_cache.writes.write import (
    Adjustment,
    Answer,
    Applied,
    BatchAnswer,
    Outcome,
    Refused,
    Write,
    WriteError,
    unsettled,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WritesStatus:
    """How many keys are under way, unknown and remembered with a final answer; and the gate."""

    admission: AdmissionStatus
    under_way: int
    unknown: int
    remembered: int


class Forwarder:
    def __init__(
        self,
        *,
        admission: Admission,
        delivery: Delivery,
        proof: InDoubtSearch,
        keys: KeyTable,
        ledger: Ledger,
        rereads: Rereads,
        write_timeout_seconds: float,
    ) -> None:
        self._admission = admission
        self._delivery = delivery
        self._proof = proof
        self._keys = keys
        self._ledger = ledger
        self._rereads = rereads
        self._write_timeout_seconds = write_timeout_seconds
        self._under_way: dict[str, asyncio.Future[Result]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what the last process left unknown. Call it once the key table is loaded."""
        for attempt in self._keys.open_attempts():
            self._proof.watch(attempt)

    async def stop(self, *, within_seconds: float) -> None:
        """Wait for the writes under way; what takes longer is left unknown, as it is on disk."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def status(self) -> WritesStatus:
        attempts = self._keys.open_attempts()
        unknown = sum(attempt.key not in self._under_way for attempt in attempts)
        remembered = len(self._keys) - len(attempts)
        return WritesStatus(self._admission.status(), len(self._under_way), unknown, remembered)

    # -- calls of tills --------------------------------------------------------------------

    async def update(self, write: Write) -> Answer:
        """Forward one write. Raises WriteError where Central gave no final answer."""
        return (await self._forward((write,)))[0]

    async def update_batch(self, writes: Sequence[Write]) -> BatchAnswer:
        """Forward writes with distinct keys in one request. Raises WriteError.

        One unknown outcome makes the whole answer `central_timeout`: a till repeats the batch
        with the same keys, and whatever is settled by then is given again, not sent again. A
        batch that was answered in part would leave it to guess which keys to repeat.
        """
        answers = await self._forward(writes)
        return BatchAnswer(tuple(answer.body for answer in answers))

    async def adjust(self, adjustment: Adjustment) -> Answer:
        """Forward a write that names no version: the one held, and on a conflict Central's.

        A conflict is the answer only when the attempts, or the time, are used up. Raises
        WriteError; `product_not_found` where the store does not hold it and cannot read it.
        """
        if self._find(adjustment) is None and self._held(adjustment) is None:
            await self._rereads.refresh_missing(adjustment.product_id)
        return (await self._forward((adjustment,)))[0]

    # -- what the sync tells ---------------------------------------------------------------

    def events_seen(self, events: Iterable[AnyEvent]) -> None:
        """Take the events just applied, in order: they may settle what is unknown (W3)."""
        readable = (event for event in events if isinstance(event, Event))
        for key, outcome in self._proof.see(readable):
            attempt = self._keys.open_attempt(key)
            if attempt is not None and key not in self._under_way:
                started = {key: self._begin(key)}
                self._spawn(self._settle(attempt, outcome), started)

    def central_seen(self) -> None:
        """The sync had an answer from Central (B4)."""
        self._admission.seen()

    def central_lost(self) -> None:
        """The sync found Central away (B4)."""
        self._admission.lost()

    # -- the key table ---------------------------------------------------------------------

    async def _forward(self, asked: Sequence[Asked]) -> list[Answer]:
        self._delivery.expire()
        found = [self._find(each) for each in asked]
        self._start_missing(asked, found)
        # A key under way may have its final entry already, which is not durable yet: join it.
        joined = [self._under_way.get(each.key) for each in asked]
        results = [
            await (self._joined(future) if future else self._repeated(each, known))
            for each, known, future in zip(asked, found, joined, strict=True)
        ]
        return _answers(results, [each.key for each in asked])

    def _find(self, asked: Asked) -> Attempt | Final | None:
        return self._keys.find(asked.key, fingerprint(asked), asked.product_id)

    def _held(self, asked: Asked) -> int | None:
        return self._ledger.held_version(asked.product_id)

    def _start_missing(
        self, asked: Sequence[Asked], found: Sequence[Attempt | Final | None]
    ) -> None:
        """Start what is neither final nor under way: all of it or, with WriteError, nothing."""
        missing = [
            (each, known)
            for each, known in zip(asked, found, strict=True)
            if not isinstance(known, Final) and each.key not in self._under_way
        ]
        if not missing:
            return
        self._check_gate([known.key for _, known in missing if known and known.is_unknown])
        self._keys.reserve(sum(known is None for _, known in missing))
        self._start([self._entry(each, known) for each, known in missing])

    def _check_gate(self, unknown: list[str]) -> None:
        """Fail at once while Central is away; what may have been applied is not answered as
        something that was never sent."""
        try:
            self._admission.check()
        except WriteError as away:
            if not unknown:
                raise
            raise unsettled(away.message, unknown, away.retry_after_seconds) from None

    def _entry(self, asked: Asked, known: Attempt | None) -> Entry:
        if known is not None:
            return Entry(asked, known, is_noted=True)
        version = asked.version if isinstance(asked, Write) else self._held(asked)
        if version is None:
            raise WriteError(
                "product_not_found",
                "Product not found in local cache; nothing was sent",
                details={"productId": asked.product_id},
            )
        attempt = self._delivery.attempt(asked, number=1, version=version)
        return Entry(asked, attempt, is_noted=False)

    def _start(self, entries: list[Entry]) -> None:
        for entry in entries:
            if not entry.is_noted:
                self._delivery.enter(entry.attempt)
        started = {entry.asked.key: self._begin(entry.asked.key) for entry in entries}
        self._spawn(self._run(entries), started)

    # -- tasks, and those who wait for them ------------------------------------------------

    async def _run(self, entries: list[Entry]) -> None:
        deadline_at = asyncio.get_running_loop().time() + self._write_timeout_seconds
        outcomes = await self._delivery.send(entries, deadline_at)
        async with asyncio.TaskGroup() as group:
            for entry, outcome in zip(entries, outcomes, strict=True):
                group.create_task(self._conclude(entry, outcome, deadline_at))

    async def _conclude(
        self, entry: Entry, outcome: Outcome | WriteError, deadline_at: float
    ) -> None:
        self._end(entry.asked.key, await self._delivery.conclude(entry, outcome, deadline_at))

    async def _settle(self, attempt: Attempt, outcome: Applied | Refused) -> None:
        _log.info("the feed settles a write that was unknown, key %s", attempt.key)
        self._end(attempt.key, await self._delivery.finish(attempt, outcome))

    def _begin(self, key: str) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        return future

    def _end(self, key: str, result: Result) -> None:
        self._under_way.pop(key).set_result(result)

    def _spawn(
        self, work: Coroutine[Any, Any, None], started: Mapping[str, asyncio.Future[Result]]
    ) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, started))

    def _ended(
        self, task: asyncio.Task[None], started: Mapping[str, asyncio.Future[Result]]
    ) -> None:
        """However a task ends, nobody waits for it for ever."""
        self._tasks.discard(task)
        for key, future in started.items():
            if not future.done():
                self._end(key, unsettled("the store gave up before Central answered", [key]))
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("a write is left unknown by a defect of the store", exc_info=problem)

    async def _joined(self, future: asyncio.Future[Result]) -> Result:
        """Wait, but leave the attempt alone when the waiting is cancelled (W5)."""
        await asyncio.wait([future])
        return future.result()

    async def _repeated(self, asked: Asked, known: Attempt | Final | None) -> Result:
        assert isinstance(known, Final), "what is not final has been started"
        return await self._delivery.repeat(asked, known)


def _answers(results: Sequence[Result], keys: Sequence[str]) -> list[Answer]:
    """The answers, or the error that says most: an unknown outcome before any other."""
    errors = [result for result in results if isinstance(result, WriteError)]
    if not errors:
        return [result for result in results if isinstance(result, Answer)]
    unknown = [
        key
        for key, result in zip(keys, results, strict=True)
        if isinstance(result, WriteError) and result.code == "central_timeout"
    ]
    if len(keys) > 1 and unknown:
        raise unsettled("not every write of the batch is settled", unknown)
    raise errors[0]
