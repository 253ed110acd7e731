"""What a till is answered for a write that is in the outbox, at first and when it repeats it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from store_cache.writes.outbox.entry import SETTLED, Entry, State
from store_cache.writes.write import (
    SETTLED_NOT_APPLIED,
    Answer,
    Doubt,
    SeenEvent,
    WriteError,
    unsettled,
)

DISCARDED = "discarded"
"""The error type of a write that a person has given up; its status is 409."""


def answer_to(
    entry: Entry, *, available: int | None, pending: int, seen: tuple[SeenEvent, ...]
) -> Answer | WriteError:
    """Return the entry as it is now, its outcome once it has one.

    `available`: the stock that the store holds, None if it does not hold the product; `pending`:
    the sum of the product's unsettled entries; `seen`: events of the product since an attempt that
    is in doubt.
    """
    match entry.state:
        case State.QUEUED | State.SENDING | State.PARKED:
            return Answer(202, _waiting(entry, available, pending))
        case State.IN_DOUBT:
            return in_doubt(entry, seen)
        case State.APPLIED:
            return Answer(200, _applied(entry))
        case State.DISCARDED:
            return Answer(409, _discarded(entry))


def in_doubt(entry: Entry, seen: tuple[SeenEvent, ...]) -> WriteError:
    """Return the error of a write that may have been applied; the outbox settles it."""
    error = unsettled(entry.problem, [entry.key], [doubt_of(entry, seen)])
    error.details["outboxId"] = entry.id
    return error


def doubt_of(entry: Entry, seen: tuple[SeenEvent, ...]) -> Doubt:
    attempt = entry.attempt
    version, at = (0, entry.queued_at) if attempt is None else (attempt.version, attempt.at)
    return Doubt(entry.key, entry.product_id, version, at, entry.request.client, seen)


def _waiting(entry: Entry, available: int | None, pending: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "productId": entry.product_id,
        "applied": False,
        "queued": True,
        "outboxId": entry.id,
        "state": entry.state.value,
        "queuedAt": _moment(entry.queued_at),
        "available": available,
        "pendingDelta": pending,
        "expectedAvailable": None if available is None else available + pending,
    }
    if entry.state is State.PARKED:
        body |= {"errorType": entry.error_type, "errorMessage": entry.problem}
    return body


def _applied(entry: Entry) -> dict[str, Any]:
    body: dict[str, Any] = {"productId": entry.product_id, "applied": True, "outboxId": entry.id}
    result = entry.result
    if result is not None and result.new_quantity is not None:
        body |= {"newQuantity": result.new_quantity, "newVersion": result.new_version}
        if result.last_updated is not None:
            body["lastUpdated"] = result.last_updated
    return body


def _discarded(entry: Entry) -> dict[str, Any]:
    step = entry.steps[-1]
    if step.action == SETTLED:
        error_type, what = SETTLED_NOT_APPLIED, "settled this write as not applied"
    else:
        error_type, what = DISCARDED, "discarded this write"
    return {
        "productId": entry.product_id,
        "applied": False,
        "outboxId": entry.id,
        "errorType": error_type,
        "errorMessage": f"A person ({step.by}) has {what}: {step.reason}. It is not sent again; "
        "to sell, send a new write with a new key",
    }


def _moment(unix_seconds: float) -> str:
    moment = datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
