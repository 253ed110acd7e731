"""One write in the outbox: what it is, where it stands, and what was tried.

An entry never changes; `transitions` makes the next one. Its record on disk holds all of it, in
place of any other entry of the key table under its key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from store_cache.model.product import encode_exactly
from store_cache.writes.idempotency import Attempt, fingerprint
from store_cache.writes.write import Adjustment, Write, WriteRequest

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID_CHARACTERS = 26
_RANDOM_BITS = 80


class State(StrEnum):
    """Where an entry stands."""

    QUEUED = "queued"  # nothing of it has reached Central
    SENDING = "sending"  # it is on its way
    IN_DOUBT = "in_doubt"  # it may have been applied
    PARKED = "parked"  # a person has to decide
    APPLIED = "applied"
    DISCARDED = "discarded"


UNSETTLED = frozenset({State.QUEUED, State.SENDING, State.IN_DOUBT, State.PARKED})
"""The states of an entry that still counts: its delta is shown as pending."""

TO_BE_SENT = frozenset({State.QUEUED, State.SENDING, State.IN_DOUBT})
"""The states of an entry whose turn to be sent may come. A defect may have ended the try of one
that is sending."""


SETTLED = "settled"
"""The action of a person who has said what became of an entry in doubt."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a person did with an entry: `action` is retried, `SETTLED` or discarded; `by` is the
    name of the API key; `outcome` is what a settlement or a retry said of the attempt in doubt."""

    action: str
    by: str
    reason: str
    at: float
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Central's state after an applied entry; None where it is not known."""

    new_quantity: int | None
    new_version: int | None
    last_updated: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """`sequence` orders the entries of a store. `number`: of the attempt that was sent last, or is
    sent next if the entry is queued. `attempt` is the one sent last, or None. `next_version`: what
    Central said when it refused the attempt before for its version. `error_type` and `problem` say
    why it is parked, or what failed last. Times are unix seconds.
    """

    id: str
    sequence: int
    request: WriteRequest
    state: State
    queued_at: float
    changed_at: float
    number: int = 1
    attempt: Attempt | None = None
    next_version: int | None = None
    result: Result | None = None
    error_type: str = ""
    problem: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def key(self) -> str:
        return self.request.key

    @property
    def product_id(self) -> str:
        return self.request.product_id

    @property
    def delta(self) -> int:
        return self.request.delta

    @property
    def is_unsettled(self) -> bool:
        return self.state in UNSETTLED

    @property
    def holds_up(self) -> bool:
        """Whether later entries of the product wait for this one (O1)."""
        return self.state in (State.QUEUED, State.SENDING)

    @property
    def waits_since(self) -> float:
        """Since when a queued entry waits: since it was queued, or a person last retried it."""
        return self.steps[-1].at if self.steps else self.queued_at

    @property
    def may_rebase(self) -> bool:
        """Whether it may be sent with another version than the till named (O2)."""
        return isinstance(self.request, Adjustment) or self.request.rebases

    @property
    def version_raised(self) -> tuple[str | None, int] | None:
        """The generation and the version that the entry has raised by one; None if it is not known
        to have raised one. What a person says of it says nothing of a version."""
        is_said = bool(self.steps) and self.steps[-1].action == SETTLED
        made = None if self.result is None else self.result.new_version
        if self.state is not State.APPLIED or made is None or is_said or self.attempt is None:
            return None
        return self.attempt.generation, made - 1

    @property
    def fingerprint(self) -> bytes:
        return fingerprint(self.request)


def new_id(now: float, random: Callable[[], float]) -> str:
    """Return a ULID: 48 bits of milliseconds since 1970, then 80 random bits, in Crockford's
    base 32 (https://github.com/ulid/spec). `random` returns numbers from 0 to 1."""
    half = _RANDOM_BITS // 2
    chance = int(random() * 2**half) << half | int(random() * 2**half)
    number = (int(now * 1000) & (2**48 - 1)) << _RANDOM_BITS | chance
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_ID_CHARACTERS)))


# -- on disk -----------------------------------------------------------------------------------


def encode_entry(entry: Entry) -> bytes:
    """Return the record of an entry: one JSON object."""
    request = entry.request
    value: dict[str, Any] = {
        "id": entry.id,
        "sequence": entry.sequence,
        "state": entry.state.value,
        "queuedAt": entry.queued_at,
        "changedAt": entry.changed_at,
        "productId": request.product_id,
        "delta": request.delta,
        "number": entry.number,
    }
    optional = {
        "version": request.version if isinstance(request, Write) else None,
        "rebases": (isinstance(request, Write) and request.rebases) or None,
        "reason": request.reason,
        "updatedBy": request.updated_by,
        "client": request.client or None,
        "userId": request.user_id,
        "nextVersion": entry.next_version,
        "errorType": entry.error_type or None,
        "problem": entry.problem or None,
        "attempt": None if entry.attempt is None else _encode_attempt(entry.attempt),
        "result": None if entry.result is None else _encode_result(entry.result),
        "steps": [_encode_step(step) for step in entry.steps] or None,
    }
    value |= {name: item for name, item in optional.items() if item is not None}
    return encode_exactly({"key": entry.key, "outbox": value})


def decode_entry(record: dict[str, Any]) -> Entry:
    """Return the entry of a record that was parsed.

    Raises KeyError, TypeError or ValueError if the object is no record of an entry.
    """
    value = record["outbox"]
    common = (value.get("reason"), value.get("updatedBy"), value.get("client", ""))
    request: WriteRequest
    if "version" in value:
        request = Write(
            *(value["productId"], value["delta"], value["version"], record["key"]),
            *common,
            rebases=value.get("rebases", False),
            user_id=value.get("userId"),
        )
    else:
        request = Adjustment(
            *(value["productId"], value["delta"], record["key"]),
            *common,
            user_id=value.get("userId"),
        )
    entry = Entry(
        id=value["id"],
        sequence=value["sequence"],
        request=request,
        state=State(value["state"]),
        queued_at=value["queuedAt"],
        changed_at=value["changedAt"],
        number=value["number"],
        next_version=value.get("nextVersion"),
        error_type=value.get("errorType", ""),
        problem=value.get("problem", ""),
        steps=tuple(_decode_step(step) for step in value.get("steps", ())),
    )
    attempt, result = value.get("attempt"), value.get("result")
    if attempt is not None:
        entry = replace(entry, attempt=_decode_attempt(attempt, entry))
    if result is not None:
        entry = replace(entry, result=Result(*result))
    return entry


def _encode_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "version": attempt.version,
        "at": attempt.at,
        "heldVersion": attempt.held_version,
        "generation": attempt.generation,
        "offset": attempt.offset,
    }


def _decode_attempt(value: dict[str, Any], entry: Entry) -> Attempt:
    return Attempt(
        key=entry.key,
        fingerprint=entry.fingerprint,
        product_id=entry.product_id,
        version=value["version"],
        at=value["at"],
        number=value["number"],
        held_version=value["heldVersion"],
        generation=value["generation"],
        offset=value["offset"],
        is_unknown=True,
        client=entry.request.client,
    )


def _encode_result(result: Result) -> list[Any]:
    return [result.new_quantity, result.new_version, result.last_updated]


def _encode_step(step: Step) -> list[Any]:
    return [step.action, step.by, step.reason, step.at, step.outcome]


def _decode_step(value: list[Any]) -> Step:
    return Step(*value)
