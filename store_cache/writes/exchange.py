"""A write on its way to Central: its attempt, its request, and what a failure to send it means.

Tills' own writes and those of the outbox are sent by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from store_cache.central.failures import AccessDenied, CentralError, WriteUnsent
from store_cache.model.position import Position
from store_cache.model.stock import StockAnswer
from store_cache.writes.admission import Admission
from store_cache.writes.idempotency import Attempt, fingerprint
from store_cache.writes.write import (
    Sent,
    Unknown,
    WriteError,
    WriteOutcome,
    WriteRequest,
    judge,
    judge_batch,
    unavailable,
    updated_by,
)


class HeldStock(Protocol):
    """The cache's writer, as far as this module uses it."""

    @property
    def position(self) -> Position | None: ...

    def held_version(self, product_id: str) -> int | None: ...


def new_attempt(
    request: WriteRequest, *, number: int, version: int, store: HeldStock, now: float
) -> Attempt:
    """Return an attempt to be sent now, with what the store has of its product and of the feed: the
    evidence about it begins there (W3)."""
    position = store.position
    return Attempt(
        key=request.key,
        fingerprint=fingerprint(request),
        product_id=request.product_id,
        version=version,
        at=now,
        number=number,
        held_version=store.held_version(request.product_id),
        generation=None if position is None else position.generation,
        offset=None if position is None else position.offset,
        client=request.client,
    )


def stock_to_show(
    stock: StockAnswer, attempt: Attempt, *, is_repeated: bool, now: float
) -> StockAnswer:
    """Return an answer with its age and generation: it may have been applied as soon as it was
    first sent, an unknown time ago if it was repeated and the clock was set back since."""
    age_seconds = now - attempt.at
    if age_seconds < 0.0:
        age_seconds = inf if is_repeated else 0.0
    return replace(stock, age_seconds=age_seconds, generation=attempt.generation or "")


def payload_of(store_id: str, attempts: Sequence[tuple[WriteRequest, Attempt]]) -> dict[str, Any]:
    """Return the body of the request: an update alone, or a batch."""
    updates = []
    for request, attempt in attempts:
        update: dict[str, Any] = {
            "productId": request.product_id,
            "delta": request.delta,
            "version": attempt.version,
            "idempotencyKey": attempt.central_key(store_id),
        }
        if request.reason is not None:
            update["reason"] = request.reason
        if (person := updated_by(request)) is not None:
            update["updatedBy"] = person
        updates.append(update)
    return {"storeId": store_id} | (updates[0] if len(updates) == 1 else {"updates": updates})


async def exchange(
    writes: Sequence[tuple[WriteRequest, Attempt]],
    *,
    store_id: str,
    admission: Admission,
    are_repeated: Sequence[bool],
    deadline_at: float,
) -> list[WriteOutcome]:
    """Send writes in one request, and judge the answer to each. `are_repeated`: an earlier sending
    of the attempt may have reached Central. `deadline_at` is on the loop's clock."""
    try:
        reply = await admission.send(payload_of(store_id, writes), deadline_at=deadline_at)
    except (CentralError, WriteError) as problem:
        return [failure(problem)] * len(writes)
    sent = [
        Sent(attempt.product_id, attempt.version, reply.certain and not is_repeated)
        for (_, attempt), is_repeated in zip(writes, are_repeated, strict=True)
    ]
    if len(sent) == 1:
        return [judge(reply.status, reply.value, sent[0])]
    return judge_batch(reply.status, reply.value, sent)


def failure(problem: CentralError | WriteError) -> WriteOutcome:
    """Return the outcome of a write that got no answer that can be judged."""
    match problem:
        case WriteUnsent():
            return unavailable(str(problem), problem.retry_after_seconds or 1.0)
        case AccessDenied():
            return WriteError("central_error", str(problem), is_central_away=True)
        case CentralError():
            return Unknown(str(problem))
        case WriteError():
            return problem
