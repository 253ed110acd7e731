"""The documents of the outbox, as types, and how entries become them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from store_cache.api.content.clock import rfc3339
from store_cache.api.content.documents import Count, Moment, OutboxId, Problem, ProductId, Version
from store_cache.model.product import MAX_WHOLE
from store_cache.writes.idempotency import Attempt
from store_cache.writes.outbox.entry import Entry, Result, State, Step
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.write import Write


class SentAttempt(TypedDict):
    """The attempt that was sent last."""

    number: Annotated[int, Field(ge=1, description="from 2 on, the key ends in `~<number>`")]
    version: Version
    sentAt: Annotated[Moment, Field(description="first")]


class StockAfter(TypedDict):
    """Central's state after it; null where that is not known."""

    newQuantity: Annotated[int, Field(ge=0, le=MAX_WHOLE)] | None
    newVersion: Version | None


class PersonsStep(TypedDict):
    """What a person did with the entry."""

    action: Annotated[str, Field(description="retried, settled or discarded")]
    by: Annotated[str, Field(description="the name of the key")]
    reason: str
    at: Moment
    outcome: Annotated[str, Field(description="applied, not_applied, or empty")]


class OutboxEntry(TypedDict):
    """A write in the outbox."""

    outboxId: OutboxId
    idempotencyKey: str
    client: Annotated[str | None, Field(description="the name of the key that sent it")]
    state: Annotated[str, Field(description=f"one of {', '.join(State)}")]
    productId: ProductId
    delta: int
    version: Annotated[Version | None, Field(description="as the till named it; null: it did not")]
    queuedAt: Moment
    changedAt: Annotated[Moment, Field(description="since when it is in this state")]
    attempt: SentAttempt | None
    result: StockAfter | None
    errorType: Annotated[str, Field(description="why it is parked; empty: it is not")]
    problem: Annotated[Problem, Field(description="why it is parked, or what failed last")]
    steps: list[PersonsStep]


class OutboxCounts(TypedDict):
    """How many entries are in each state that is not final."""

    queued: Count
    sending: Count
    inDoubt: Count
    parked: Count


class OutboxList(TypedDict):
    """Entries in the order of their ids."""

    entries: list[OutboxEntry]
    counts: OutboxCounts


def entry_document(entry: Entry) -> OutboxEntry:
    request = entry.request
    return {
        "outboxId": entry.id,
        "idempotencyKey": entry.key,
        "client": request.client or None,
        "state": entry.state.value,
        "productId": entry.product_id,
        "delta": entry.delta,
        "version": request.version if isinstance(request, Write) else None,
        "queuedAt": rfc3339(entry.queued_at),
        "changedAt": rfc3339(entry.changed_at),
        "attempt": None if entry.attempt is None else _attempt(entry.attempt),
        "result": None if entry.result is None else _result(entry.result),
        "errorType": entry.error_type,
        "problem": entry.problem,
        "steps": [_step(step) for step in entry.steps],
    }


def counts_document(outbox: Outbox) -> OutboxCounts:
    counts = outbox.counts
    return {
        "queued": counts[State.QUEUED],
        "sending": counts[State.SENDING],
        "inDoubt": counts[State.IN_DOUBT],
        "parked": counts[State.PARKED],
    }


def _attempt(attempt: Attempt) -> SentAttempt:
    return {
        "number": attempt.number,
        "version": attempt.version,
        "sentAt": rfc3339(attempt.at),
    }


def _result(result: Result) -> StockAfter:
    return {"newQuantity": result.new_quantity, "newVersion": result.new_version}


def _step(step: Step) -> PersonsStep:
    return {
        "action": step.action,
        "by": step.by,
        "reason": step.reason,
        "at": rfc3339(step.at),
        "outcome": step.outcome,
    }
