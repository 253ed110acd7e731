"""What `/openapi.json` says of the routes of the outbox."""

from __future__ import annotations

from store_cache.api.content.models import (
    DEFAULT_LIMIT,
    LARGEST_LIMIT,
    DiscardBody,
    RetryBody,
    SettleBody,
)
from store_cache.api.openapi.operation import Answer, Operation, Parameter
from store_cache.api.openapi.operations import OUTBOX
from store_cache.api.outbox.documents import OutboxEntry, OutboxList
from store_cache.writes.outbox.entry import State

_ID = Parameter(
    "outboxId",
    "path",
    "As the answer to the write names it",
    {"type": "string", "minLength": 1},
    is_required=True,
    example="01JDQ8Z4M2V0X6T3R9Y1K7B5CD",
)
_ERRORS = (
    "outbox_entry_not_found",
    "outbox_entry_in_other_state",
    "write_under_way",
)

LIST_ENTRIES = Operation(
    "listOutbox",
    OUTBOX,
    "List the writes that wait",
    "Without `state` and `idempotencyKey`: all that have no outcome yet.",
    parameters=(
        Parameter("state", "query", "Those in this state", {"type": "string", "enum": [*State]}),
        Parameter("idempotencyKey", "query", "The one with this key, if there is one"),
        Parameter(
            "limit",
            "query",
            f"Entries in the answer; more than {LARGEST_LIMIT} count as {LARGEST_LIMIT}",
            {"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT},
        ),
        Parameter("after", "query", "The id before the list; empty: from the beginning"),
    ),
    answers=(Answer(200, "The entries", OutboxList),),
)
READ_ENTRY = Operation(
    "readOutboxEntry",
    OUTBOX,
    "Read one write of the outbox",
    parameters=(_ID,),
    answers=(Answer(200, "The entry", OutboxEntry),),
    errors=("outbox_entry_not_found",),
)
RETRY_ENTRY = Operation(
    "retryOutboxEntry",
    OUTBOX,
    "Send a parked write again",
    "If it was sent before, under a new key. If an attempt of it is in doubt, `outcome` must say "
    "that it was not applied.",
    parameters=(_ID,),
    body=RetryBody,
    answers=(Answer(200, "It is queued again", OutboxEntry),),
    errors=_ERRORS,
)
SETTLE_ENTRY = Operation(
    "settleOutboxEntry",
    OUTBOX,
    "Say what became of a write in doubt",
    parameters=(_ID,),
    body=SettleBody,
    answers=(Answer(200, "It is settled", OutboxEntry),),
    errors=(*_ERRORS, "write_not_in_doubt"),
)
DISCARD_ENTRY = Operation(
    "discardOutboxEntry",
    OUTBOX,
    "Give up a write that was not applied",
    parameters=(_ID,),
    body=DiscardBody,
    answers=(Answer(200, "It is discarded", OutboxEntry),),
    errors=_ERRORS,
)
