"""What a group of requests does to a ledger. Pure.

Requests of a group take effect one after the other, each on what those before it left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from central_stub.catalogue import Row
from central_stub.feed import Event
from central_stub.keys import Answer, Remembered
from central_stub.rules import Operation, Update, decide, repeated
from central_stub.switches import Switches


@dataclass(frozen=True, slots=True)
class Asked:
    """The operations of one request, which came at `now` (unix seconds)."""

    operations: Sequence[Operation]
    now: float


@dataclass(slots=True)
class Effects:
    """`answers` of each request; `events` without offsets; `rows` of the products that changed, as
    they are after the group, None for a deleted one; `keys` that are new."""

    answers: list[list[Answer]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    rows: dict[str, Row | None] = field(default_factory=dict)
    keys: dict[str, Remembered] = field(default_factory=dict)


def effects_of(
    group: Sequence[Asked],
    held: Mapping[str, Row],
    remembered: Mapping[str, Answer],
    switches: Switches,
) -> Effects:
    """Return what a group does. `held` and `remembered` are the products and keys that it names, as
    far as there are any."""
    effects = Effects()
    for asked in group:
        effects.answers.append(
            [
                _answer(each, asked.now, held, remembered, switches, effects)
                for each in asked.operations
            ]
        )
    return effects


def _answer(
    operation: Operation,
    now: float,
    held: Mapping[str, Row],
    remembered: Mapping[str, Answer],
    switches: Switches,
    effects: Effects,
) -> Answer:
    key = operation.idempotency_key if isinstance(operation, Update) else None
    if isinstance(operation, Update) and key is not None:
        known = effects.keys[key].answer if key in effects.keys else remembered.get(key)
        if known is not None:
            return repeated(known, operation)
    product_id = operation.product_id
    row = effects.rows[product_id] if product_id in effects.rows else held.get(product_id)
    decision = decide(operation, row, switches, now)
    if decision.write is not None:
        effects.rows[product_id] = decision.write.row
        effects.events.append(decision.write.event)
    if key is not None:
        effects.keys[key] = Remembered(key, now, decision.answer)
    return decision.answer
