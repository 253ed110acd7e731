"""What becomes of an entry: each function returns the entry that follows.

    queued → sending | parked (refused before it was sent, or too old) | discarded (by a person)
    sending → applied | parked | queued (not sent, or to be rebased) | in_doubt
    in_doubt → applied | parked | queued (proved not applied, or retried) | discarded (settled)
    parked → queued (retried) | applied (settled) | discarded

    queued | sending | in_doubt | parked → applied (an event names it)
    nothing → queued | in_doubt (taken in from a till)

`now` is unix seconds.
"""

from __future__ import annotations

from dataclasses import replace

from store_cache.writes.idempotency import Attempt
from store_cache.writes.outbox.entry import Entry, Result, State, Step
from store_cache.writes.write import (
    Applied,
    Refused,
    Unknown,
    WriteError,
    WriteOutcome,
    WriteRequest,
)

KEY_TAKEN = "idempotency_key_taken"
"""Why an entry is parked: Central holds another write under its key."""

TOO_OLD = "too_old"
"""Why an entry is parked: it was not sent within OUTBOX_MAX_AGE_HOURS."""

FORGOTTEN = "forgotten"
"""Why an entry is parked: Central may have forgotten the key of an attempt in doubt."""

REPLACED = "central_replaced"
"""Why an entry is parked: Central was replaced while an attempt was in doubt."""


def queued(
    request: WriteRequest, *, entry_id: str, sequence: int, number: int, reason: str, now: float
) -> Entry:
    """Return the entry of a write that certainly never reached Central."""
    state = State.QUEUED
    return Entry(entry_id, sequence, request, state, now, now, number=number, problem=reason)


def taken_in(
    request: WriteRequest,
    attempt: Attempt,
    *,
    entry_id: str,
    sequence: int,
    reason: str,
    now: float,
) -> Entry:
    """Return the entry of a write of a till whose outcome is unknown."""
    return Entry(
        *(entry_id, sequence, request, State.IN_DOUBT, attempt.at, now),
        number=attempt.number,
        attempt=replace(attempt, is_unknown=True),
        problem=reason,
    )


def sending(entry: Entry, attempt: Attempt, now: float) -> Entry:
    return replace(entry, state=State.SENDING, attempt=attempt, changed_at=now)


def recovered(entry: Entry, reason: str, now: float) -> Entry:
    """Return the entry if nobody waits for its answer any more, for this reason: what was on its
    way may have been applied."""
    if entry.state is not State.SENDING:
        return entry
    return replace(entry, state=State.IN_DOUBT, problem=reason, changed_at=now)


def concluded(entry: Entry, outcome: WriteOutcome, now: float) -> Entry:
    """Return the entry after an attempt has ended so (O2, O3, O4)."""
    match outcome:
        case Applied():
            stock = outcome.stock
            return applied(
                entry, Result(stock.new_quantity, stock.new_version, stock.last_updated), now
            )
        case Refused(error_type="version_conflict") if entry.may_rebase:
            return _next_attempt(entry, outcome.new_version, outcome.message, now)
        case Refused():
            return parked(entry, outcome.error_type, outcome.message, now)
        case Unknown(is_key_taken=True):
            return parked(entry, KEY_TAKEN, outcome.reason, now)
        case Unknown() if entry.state is State.IN_DOUBT:
            return entry
        case Unknown():
            return replace(entry, state=State.IN_DOUBT, problem=outcome.reason, changed_at=now)
        case WriteError():
            return unsent(entry, outcome.reason, now)


def unsent(entry: Entry, problem: str, now: float) -> Entry:
    """Return the entry after a try of which nothing has reached Central: its attempt was not sent.
    If an earlier sending may have, it stays in doubt."""
    if entry.state is State.IN_DOUBT:
        return entry
    return replace(entry, state=State.QUEUED, attempt=None, problem=problem, changed_at=now)


def applied(entry: Entry, result: Result, now: float) -> Entry:
    return replace(
        entry, state=State.APPLIED, result=result, error_type="", problem="", changed_at=now
    )


def parked(entry: Entry, error_type: str, problem: str, now: float) -> Entry:
    return replace(
        entry, state=State.PARKED, error_type=error_type, problem=problem, changed_at=now
    )


def retried(entry: Entry, step: Step) -> Entry:
    """Return a parked or doubtful entry that a person has sent again: under the next key, or the
    same one if it was never sent. No number is skipped: another node that has the same write counts
    through the same keys."""
    again = _next_attempt(entry, None, "", step.at)
    is_used = entry.attempt is not None and entry.attempt.number == entry.number
    number = again.number if is_used else entry.number
    return replace(again, number=number, steps=(*entry.steps, step))


def discarded(entry: Entry, step: Step) -> Entry:
    """Return an entry that a person has given up."""
    return replace(entry, state=State.DISCARDED, changed_at=step.at, steps=(*entry.steps, step))


def settled(entry: Entry, step: Step, result: Result) -> Entry:
    """Return an entry of which a person has said what became of it."""
    state = State.APPLIED if step.outcome == "applied" else State.DISCARDED
    return replace(
        entry, state=state, result=result, changed_at=step.at, steps=(*entry.steps, step)
    )


def _next_attempt(entry: Entry, version: int | None, problem: str, now: float) -> Entry:
    """Return the entry to be sent again under the next derived key: Central remembers a refusal,
    too, so the same key would only get it again."""
    return replace(
        entry,
        state=State.QUEUED,
        number=entry.number + 1,
        next_version=version,
        error_type="",
        problem=problem,
        changed_at=now,
    )
