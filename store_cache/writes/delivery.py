"""One write's way to Central and back: on disk, sent, judged, settled on disk, shown (W1, W3, W6).

Knows: the order of these steps, and what the table holds of a key after each of them.
Refuses to know: which till waits for it (`forwarder`), what an answer proves (`core.writing`),
how one exchange is tried again (Central's client), how a change becomes visible (the keeper).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from store_cache.central.failures import AccessDenied, CentralError, WriteUnsent
from store_cache.model.position import Position
from store_cache.model.stock import StockAnswer
from store_cache.writes.admission import SHORTEST_EXCHANGE_SECONDS, Admission
from store_cache.writes.idempotency import (
    Attempt,
    Final,
    KeyTable,
    encode_attempt,
    encode_final,
    fingerprint,
)
from store_cache.writes.in_doubt_search import InDoubtSearch
from store_cache.writes.write import (
    Adjustment,
    Answer,
    Applied,
    Outcome,
    Refused,
    Rejected,
    Sent,
    Unknown,
    Write,
    WriteError,
    answer_to,
    judge,
    judge_batch,
    not_kept,
    unavailable,
    unsettled,
)

MOST_ATTEMPTS = 5
"""How often an adjustment is sent with Central's version before a conflict is its answer."""

_log = logging.getLogger(__name__)

Asked = Write | Adjustment
Result = Answer | WriteError


class Ledger(Protocol):
    """The keeper, as writes see it. `record_write` and `settle_write` may raise OSError."""

    async def record_write(self, write: bytes) -> None:
        """Make a record of the key table durable."""

    async def settle_write(self, write: bytes, answer: StockAnswer | None) -> None:
        """Make the record durable and lay an applied answer over the catalogue, in one step."""

    def held_version(self, product_id: str) -> int | None: ...

    @property
    def position(self) -> Position | None: ...


class Rereads(Protocol):
    """Readings of single products; no call raises when Central is away."""

    async def refresh_after_conflict(
        self, product_id: str, *, version: int | None, lower_than_held: bool
    ) -> None: ...

    async def refresh_missing(self, product_id: str) -> None: ...


@dataclass(slots=True)
class Entry:
    """One key on its way. `attempt` is the latest, as it was before it was last sent;
    `is_noted`: it is on disk."""

    asked: Asked
    attempt: Attempt
    is_noted: bool


class Delivery:
    """`now` is unix seconds; deadlines are on the loop's clock."""

    def __init__(
        self,
        *,
        store_id: str,
        admission: Admission,
        ledger: Ledger,
        rereads: Rereads,
        keys: KeyTable,
        proof: InDoubtSearch,
        now: Callable[[], float],
    ) -> None:
        self._store_id = store_id
        self._admission = admission
        self._ledger = ledger
        self._rereads = rereads
        self._keys = keys
        self._proof = proof
        self._now = now

    def attempt(self, asked: Asked, *, number: int, version: int) -> Attempt:
        """A new attempt, which says where the store stood before it was sent."""
        position = self._ledger.position
        return Attempt(
            key=asked.key,
            fingerprint=fingerprint(asked),
            product_id=asked.product_id,
            version=version,
            at=self._now(),
            number=number,
            held_version=self._ledger.held_version(asked.product_id),
            generation=None if position is None else position.generation,
            offset=None if position is None else position.offset,
        )

    def expire(self) -> None:
        """Forget the keys that are past their retention."""
        for forgotten in self._keys.expire(self._now()):
            self._proof.forget(forgotten)

    def enter(self, attempt: Attempt) -> None:
        """From now on the key stands for this attempt, and the feed is searched for it."""
        self._keys.put(attempt)
        self._proof.watch(attempt)

    async def send(
        self, entries: Sequence[Entry], deadline_at: float
    ) -> Sequence[Outcome | WriteError]:
        """Send entered attempts in one request, once all are durable; an outcome for each."""
        fresh = [entry.attempt for entry in entries if not entry.is_noted]
        if (failed := await self._note(fresh)) is not None:
            return [failed] * len(entries)
        for entry in entries:
            entry.is_noted = True
            # From here on Central may have it, whatever becomes of this task.
            self._keys.put(replace(entry.attempt, is_unknown=True))
        outcomes = await self._exchange(entries, deadline_at)
        pairs = zip(entries, outcomes, strict=True)
        return [self._proof.verdict(entry.attempt) or outcome for entry, outcome in pairs]

    async def conclude(
        self, entry: Entry, outcome: Outcome | WriteError, deadline_at: float
    ) -> Result:
        """Bring one entry to its end: further attempts of an adjustment, proof by the feed, the
        final answer. The key is free for a repeat when this returns."""
        while (further := self._further(entry, outcome, deadline_at)) is not None:
            outcome = await self._send_further(entry, further, deadline_at)
        if isinstance(outcome, Unknown):
            outcome = await self._proof.settle(entry.attempt, outcome, deadline_at)
        if isinstance(outcome, Applied | Refused):
            return await self.finish(entry.attempt, outcome)
        if isinstance(outcome, Unknown):
            return self._left_unknown(entry.attempt, outcome.reason)
        if isinstance(outcome, Rejected):
            outcome = WriteError("central_error", outcome.reason)
        return self._unsent(entry, outcome)

    async def finish(self, attempt: Attempt, outcome: Applied | Refused) -> Result:
        """Make an outcome final: durable and visible, then given.

        The table takes it first, so that a snapshot cut meanwhile does not miss it. Nobody is
        given it from there too early: the key is still under way.
        """
        final = Final(attempt.fingerprint, attempt.number, attempt.version, self._now(), outcome)
        self._keys.finish(attempt.key, final)
        stock = outcome.stock if isinstance(outcome, Applied) else None
        try:
            await self._ledger.settle_write(encode_final(attempt.key, final), stock)
        except OSError as problem:
            return self._left_unknown(attempt, f"the answer could not be kept on disk: {problem}")
        self._proof.forget(attempt)
        if isinstance(outcome, Refused) and outcome.error_type == "version_conflict":
            await self._refresh(attempt.product_id, outcome.new_version)
        return answer_to(outcome, attempt.product_id)

    async def repeat(self, asked: Asked, final: Final) -> Result:
        """The first answer again; an applied one is in the cache, too, when it is given."""
        outcome, held = final.outcome, self._ledger.held_version(asked.product_id)
        if isinstance(outcome, Applied) and held is not None and held <= final.version:
            try:
                await self._ledger.settle_write(encode_final(asked.key, final), outcome.stock)
            except OSError as problem:
                return not_kept(problem)
        return answer_to(outcome, asked.product_id)

    # -- sending ---------------------------------------------------------------------------

    async def _note(self, attempts: Sequence[Attempt]) -> WriteError | None:
        try:
            await asyncio.gather(
                *(self._ledger.record_write(encode_attempt(each)) for each in attempts)
            )
        except OSError as problem:
            return not_kept(problem)
        return None

    async def _exchange(
        self, entries: Sequence[Entry], deadline_at: float
    ) -> Sequence[Outcome | WriteError]:
        try:
            reply = await self._admission.send(self._payload(entries), deadline_at=deadline_at)
        except (CentralError, WriteError) as problem:
            return [_failure(problem)] * len(entries)
        sent = [_sent(entry.attempt, reply.certain) for entry in entries]
        if len(sent) == 1:
            return [judge(reply.status, reply.value, sent[0])]
        return judge_batch(reply.status, reply.value, sent)

    def _payload(self, entries: Sequence[Entry]) -> dict[str, Any]:
        updates = [self._update(entry) for entry in entries]
        if len(updates) == 1:
            return {"storeId": self._store_id} | updates[0]
        return {"storeId": self._store_id, "updates": updates}

    def _update(self, entry: Entry) -> dict[str, Any]:
        asked, attempt = entry.asked, entry.attempt
        update: dict[str, Any] = {
            "productId": asked.product_id,
            "delta": asked.delta,
            "version": attempt.version,
            "idempotencyKey": attempt.central_key(self._store_id),
        }
        passed_on = {"reason": asked.reason, "updatedBy": asked.updated_by}
        return update | {name: text for name, text in passed_on.items() if text is not None}

    # -- further attempts ------------------------------------------------------------------

    def _further(
        self, entry: Entry, outcome: Outcome | WriteError, deadline_at: float
    ) -> Attempt | None:
        """The next attempt of an adjustment that met a conflict, while there is time for one."""
        version = _central_version(outcome)
        attempt = entry.attempt
        if isinstance(entry.asked, Write) or version is None or attempt.is_unknown:
            return None
        late = asyncio.get_running_loop().time() + SHORTEST_EXCHANGE_SECONDS >= deadline_at
        if late or attempt.number >= MOST_ATTEMPTS:
            return None
        return self.attempt(entry.asked, number=attempt.number + 1, version=version)

    async def _send_further(
        self, entry: Entry, further: Attempt, deadline_at: float
    ) -> Outcome | WriteError:
        entry.attempt, entry.is_noted = further, False
        self.enter(further)
        return (await self.send([entry], deadline_at))[0]

    # -- ends ------------------------------------------------------------------------------

    async def _refresh(self, product_id: str, version: int | None) -> None:
        held = self._ledger.held_version(product_id)
        lower = version is not None and held is not None and version < held
        await self._rereads.refresh_after_conflict(
            product_id, version=version, lower_than_held=lower
        )

    def _left_unknown(self, attempt: Attempt, reason: str) -> WriteError:
        self._keys.put(replace(attempt, is_unknown=True))
        _log.warning("write %s is unknown: %s", attempt.central_key(self._store_id), reason)
        return unsettled(reason, [attempt.key])

    def _unsent(self, entry: Entry, error: WriteError) -> WriteError:
        """Nothing came of this sending; what an earlier one did may still be unknown."""
        attempt = entry.attempt
        self._keys.put(attempt)
        if attempt.is_unknown:
            return unsettled(error.message, [attempt.key], error.retry_after_seconds)
        if attempt.number == 1 or not entry.is_noted:
            # Nothing of the key was applied, or ever will be: it is free again.
            self._keys.drop(attempt.key)
            self._proof.forget(attempt)
        return error


def _sent(attempt: Attempt, certain: bool) -> Sent:
    return Sent(attempt.product_id, attempt.version, certain and not attempt.is_unknown)


def _failure(problem: CentralError | WriteError) -> Outcome | WriteError:
    if isinstance(problem, WriteError):
        return problem
    if isinstance(problem, WriteUnsent):
        return unavailable(str(problem), problem.retry_after_seconds or 1.0)
    return Rejected(str(problem)) if isinstance(problem, AccessDenied) else Unknown(str(problem))


def _central_version(outcome: Outcome | WriteError) -> int | None:
    """The version that a conflict names."""
    if isinstance(outcome, Refused) and outcome.error_type == "version_conflict":
        return outcome.new_version
    return None
