"""What clients may send: bodies and query parameters, checked here and plain values afterwards.

The `description` of a field says what it must be, and is the reason given in the error. Unknown
fields of a body are noted and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from store_cache.api.content.paths import is_sendable
from store_cache.api.problems import InvalidRequest
from store_cache.catalogue.search import gtin
from store_cache.model.product import MAX_WHOLE
from store_cache.writes.outbox.entry import State
from store_cache.writes.write import Adjustment, Write

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200
DEFAULT_CHANGES = 20
MOST_LOOKUPS = 200
MOST_STREAMED = 200
MOST_UPDATES = 100

IDEMPOTENCY_HEADER = "Idempotency-Key"
USER_HEADER = "X-User-ID"

_USER_MUST_BE = "1 to 200 visible ASCII characters"
_USER = re.compile(r"[!-~]{1,200}")

KEY_MUST_BE = "1 to 200 visible ASCII characters without ~"
_KEY_PATTERN = r"[!-}]{1,200}"
_KEY = re.compile(_KEY_PATTERN)
_LARGEST_DELTA = 999_999_999
_WHOLE = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_MOST_DIGITS = 18


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise ValueError
    return delta


def _sendable(product_id: str) -> str:
    if not is_sendable(product_id):
        raise ValueError
    return product_id


def _of_this_store(store_id: str | None, info: ValidationInfo) -> str | None:
    if store_id is not None and store_id != info.context:
        raise ValueError
    return store_id


def _visible(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError
    return key


# What validators check is said in JSON Schema too, for `/openapi.json`.
SENDABLE_SCHEMA: dict[str, Any] = {
    "minLength": 1,
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$",
    "not": {"enum": [".", ".."]},
}
KEY_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 200, "pattern": f"^{_KEY_PATTERN}$"}

_ProductId = Annotated[
    str,
    AfterValidator(_sendable),
    Field(
        alias="productId",
        description="a text that is not empty, not . or .., and holds no control characters",
        json_schema_extra=SENDABLE_SCHEMA,
    ),
]
_StoreId = Annotated[
    str | None,
    AfterValidator(_of_this_store),
    Field(alias="storeId", description="this store's own id, or left out"),
]
_DELTA_MUST_BE = "a whole number other than 0, of at most nine digits"
_Delta = Annotated[
    int,
    Field(ge=-_LARGEST_DELTA, le=_LARGEST_DELTA, json_schema_extra={"not": {"const": 0}}),
    AfterValidator(_not_zero),
]
_Reason = Annotated[
    str | None,
    Field(max_length=1000, description="a text of at most 1,000 characters, or left out"),
]
_UpdatedBy = Annotated[
    str | None,
    Field(
        alias="updatedBy",
        max_length=200,
        description="a text of at most 200 characters, or left out",
    ),
]


class _RequestBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, hide_input_in_errors=True)


class UpdateBody(_RequestBody):
    """The body of `updates`, and one update of a batch."""

    product_id: _ProductId
    delta: Annotated[_Delta, Field(description=_DELTA_MUST_BE)]
    version: Annotated[
        int, Field(ge=1, le=MAX_WHOLE, description=f"a whole number from 1 to {MAX_WHOLE}")
    ]
    key: Annotated[
        str,
        AfterValidator(_visible),
        Field(alias="idempotencyKey", description=KEY_MUST_BE, json_schema_extra=KEY_SCHEMA),
    ]
    reason: _Reason = None
    updated_by: _UpdatedBy = None
    store_id: _StoreId = None
    on_conflict: Annotated[
        Literal["rebase"] | None,
        Field(
            alias="onConflict",
            description="rebase, or left out: if the write was queued and others have changed the "
            "product since, it is sent with the current version",
        ),
    ] = None

    def write(self, client: str, user_id: str | None) -> Write:
        return Write(
            self.product_id,
            self.delta,
            self.version,
            self.key,
            self.reason,
            self.updated_by,
            client,
            rebases=self.on_conflict == "rebase",
            user_id=user_id,
        )


class BatchBody(_RequestBody):
    """The body of `batch-updates`."""

    store_id: _StoreId = None
    updates: Annotated[
        list[UpdateBody],
        Field(
            min_length=1,
            max_length=MOST_UPDATES,
            description=f"a list of 1 to {MOST_UPDATES} updates",
        ),
    ]


class AdjustmentBody(_RequestBody):
    """The body of `PATCH .../inventory`. A `version` is refused: the store fills it in."""

    delta: Annotated[_Delta, Field(alias="quantityChange", description=_DELTA_MUST_BE)]
    reason: _Reason = None
    updated_by: _UpdatedBy = None


class IdLookupBody(_RequestBody):
    """The body of `lookup` in a store without search."""

    product_ids: Annotated[
        list[str],
        Field(
            alias="productIds",
            max_length=MOST_LOOKUPS,
            description=f"a list of at most {MOST_LOOKUPS} texts",
        ),
    ]


class LookupBody(_RequestBody):
    """The body of `lookup`: ids, barcodes or both."""

    product_ids: Annotated[
        list[str],
        Field(
            alias="productIds",
            default_factory=list,
            max_length=MOST_LOOKUPS,
            description=f"a list of at most {MOST_LOOKUPS} texts",
        ),
    ]
    barcodes: Annotated[
        list[Annotated[str, Field(json_schema_extra={"pattern": gtin.PATTERN})]],
        Field(
            default_factory=list,
            max_length=MOST_LOOKUPS,
            description=f"a list of at most {MOST_LOOKUPS} texts",
        ),
    ]


class VerifyBody(_RequestBody):
    """The body of `verify`."""

    repair: Annotated[
        bool, Field(strict=True, description="true or false: whether to repair what differs")
    ] = True


_PersonsReason = Annotated[
    str,
    Field(min_length=1, max_length=300, description="a text of 1 to 300 characters: how you know"),
]


class SettleBody(_RequestBody):
    """The body of `settle`: what a person says of a write in doubt."""

    outcome: Annotated[
        Literal["applied", "not_applied"], Field(description="applied or not_applied")
    ]
    reason: _PersonsReason


class RetryBody(_RequestBody):
    """The body of `retry`: an entry of the outbox is sent again."""

    reason: _PersonsReason
    outcome: Annotated[
        Literal["not_applied"] | None,
        Field(description="not_applied, or left out if no attempt is in doubt"),
    ] = None


class DiscardBody(_RequestBody):
    """The body of a DELETE: why an entry of the outbox is given up."""

    reason: _PersonsReason


def _described(*models: type[BaseModel]) -> dict[str, str | None]:
    """Return what each field must be."""
    return {
        field.alias or name: field.description
        for model in models
        for name, field in model.model_fields.items()
    }


_MUST_BE = _described(
    *(UpdateBody, BatchBody, AdjustmentBody, IdLookupBody, LookupBody, VerifyBody),
)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """A page of the list: from `offset`, or of the products behind the id `after`."""

    offset: int
    limit: int
    after: str | None


PAGE_PARAMETERS = ("offset", "limit", "after")


def read_page_query(parameters: Mapping[str, str], problems: Mapping[str, str]) -> PageQuery:
    """Return the page asked for; a `limit` above 200 means 200.

    Raises InvalidRequest if a parameter is wrong, or if `problems` has any.
    """
    problems = dict(problems)
    limit = _whole(parameters, "limit", DEFAULT_LIMIT, at_least=1, problems=problems)
    offset = _whole(parameters, "offset", 0, at_least=0, problems=problems)
    if "offset" in parameters and "after" in parameters:
        problems["after"] = "cannot be combined with offset; give one of them"
    if problems:
        raise InvalidRequest.of_fields(problems)
    return PageQuery(offset, min(limit, LARGEST_LIMIT), parameters.get("after"))


def read_history_limit(parameters: Mapping[str, str], problems: Mapping[str, str]) -> int:
    """Return how many changes are asked for; more than 200 mean 200.

    Raises InvalidRequest if the limit is wrong, or if `problems` has any.
    """
    problems = dict(problems)
    limit = _whole(parameters, "limit", DEFAULT_CHANGES, at_least=1, problems=problems)
    if problems:
        raise InvalidRequest.of_fields(problems)
    return min(limit, LARGEST_LIMIT)


def _whole(
    parameters: Mapping[str, str],
    name: str,
    default: int,
    *,
    at_least: int,
    problems: dict[str, str],
) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if _WHOLE.fullmatch(text):
        # A longer number is past the end of every catalogue too.
        number = int(text) if len(text) <= _MOST_DIGITS else 10**_MOST_DIGITS
        if number >= at_least:
            return number
    problems[name] = f"must be a whole number, at least {at_least}, in plain digits"
    return default


NoteUnknown = Callable[[str], None]
"""Called with the name of a field that no body has."""


def read_user(values: Sequence[str]) -> str | None:
    """Return who is at the till by the values of `X-User-ID`; None if it is not given.

    Raises InvalidRequest, as do the next four.
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest.of_fields({USER_HEADER: "is given more than once; give it once"})
    if not _USER.fullmatch(values[0]):
        raise InvalidRequest.of_fields({USER_HEADER: f"must be {_USER_MUST_BE}"})
    return values[0]


def read_update(
    value: object,
    *,
    store_id: str,
    client: str,
    note_unknown: NoteUnknown,
    user_id: str | None = None,
) -> Write:
    """`client` is the name of the caller, `user_id` who is at the till."""
    return _validated(UpdateBody, value, note_unknown, store_id).write(client, user_id)


def read_batch(
    value: object,
    *,
    store_id: str,
    client: str,
    note_unknown: NoteUnknown,
    user_id: str | None = None,
) -> tuple[Write, ...]:
    updates = _validated(BatchBody, value, note_unknown, store_id).updates
    first: dict[str, int] = {}
    problems = {}
    for number, update in enumerate(updates):
        if update.key in first:
            problems[f"updates.{number}.idempotencyKey"] = (
                f"is the key of updates.{first[update.key]} too; each update needs its own"
            )
        first.setdefault(update.key, number)
    if problems:
        raise InvalidRequest.of_fields(problems)
    return tuple(update.write(client, user_id) for update in updates)


def read_adjustment(
    value: object,
    *,
    product_id: str,
    keys: list[str],
    client: str,
    note_unknown: NoteUnknown,
    user_id: str | None = None,
) -> Adjustment:
    """`keys` are the values of the header `Idempotency-Key`, of which there must be one."""
    problems = {}
    if len(keys) > 1:
        problems[IDEMPOTENCY_HEADER] = "is given more than once; give it once"
    elif not keys:
        problems[IDEMPOTENCY_HEADER] = f"is missing; give a header of {KEY_MUST_BE}"
    elif not _KEY.fullmatch(keys[0]):
        problems[IDEMPOTENCY_HEADER] = f"must be {KEY_MUST_BE}"
    if not is_sendable(product_id):
        problems["productId"] = f"must be {_MUST_BE['productId']}"
    if isinstance(value, dict) and "version" in value:
        problems["version"] = "is filled in by the store; to give one, POST to updates"
    body = _validated(AdjustmentBody, value, note_unknown, problems=problems)
    return Adjustment(
        product_id, body.delta, keys[0], body.reason, body.updated_by, client, user_id
    )


def read_lookup(value: object, *, note_unknown: NoteUnknown) -> list[str]:
    """Return the ids to look up, each once, in the order given."""
    if isinstance(value, dict) and "barcodes" in value:
        raise InvalidRequest.of_fields(
            {"barcodes": "need the search index, which SEARCH=false leaves out; give productIds"}
        )
    return list(dict.fromkeys(_validated(IdLookupBody, value, note_unknown).product_ids))


def read_barcode_lookup(
    value: object, *, note_unknown: NoteUnknown
) -> tuple[list[str], list[str] | None]:
    """Return the ids to look up, each once, and the barcodes as given; None if there are none."""
    body = _validated(LookupBody, value, note_unknown)
    if not body.model_fields_set:
        raise InvalidRequest.of_fields(
            {"productIds": "is missing; give productIds, barcodes or both"}
        )
    has_barcodes = "barcodes" in body.model_fields_set
    return list(dict.fromkeys(body.product_ids)), body.barcodes if has_barcodes else None


def read_verify(value: object, *, note_unknown: NoteUnknown) -> bool:
    """Return whether to repair what differs."""
    return _validated(VerifyBody, value, note_unknown).repair


def read_settlement(value: object, *, note_unknown: NoteUnknown) -> SettleBody:
    """Return what a person says of a write in doubt. Raises InvalidRequest."""
    return _validated(SettleBody, value, note_unknown)


def read_retry(value: object, *, note_unknown: NoteUnknown) -> RetryBody:
    return _validated(RetryBody, value, note_unknown)


def read_discard(value: object, *, note_unknown: NoteUnknown) -> DiscardBody:
    return _validated(DiscardBody, value, note_unknown)


@dataclass(frozen=True, slots=True)
class OutboxQuery:
    """Which entries of the outbox are listed: unsettled ones unless a `state` or `key` is given,
    those after the id `after`."""

    state: State | None
    key: str | None
    limit: int
    after: str


OUTBOX_PARAMETERS = ("state", "idempotencyKey", "limit", "after")


def read_outbox_query(parameters: Mapping[str, str], problems: Mapping[str, str]) -> OutboxQuery:
    """Return which entries are asked for; a `limit` above 200 means 200.

    Raises InvalidRequest if a parameter is wrong, or if `problems` has any.
    """
    problems = dict(problems)
    limit = _whole(parameters, "limit", DEFAULT_LIMIT, at_least=1, problems=problems)
    state = parameters.get("state")
    if state is not None and state not in [*State]:
        problems["state"] = f"must be one of {', '.join(State)}"
    if problems:
        raise InvalidRequest.of_fields(problems)
    return OutboxQuery(
        None if state is None else State(state),
        parameters.get("idempotencyKey"),
        min(limit, LARGEST_LIMIT),
        parameters.get("after", ""),
    )


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(
    model: type[_Model],
    value: object,
    note_unknown: NoteUnknown,
    store_id: str | None = None,
    problems: Mapping[str, str] | None = None,
) -> _Model:
    """Return the value as a model; report all that is wrong, in it and in `problems`, at once."""
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object; see the API's documentation")
    found = dict(problems or {})
    try:
        body = model.model_validate(value, context=store_id)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            found.setdefault(".".join(map(str, error["loc"])), _reason(error, model))
        raise InvalidRequest.of_fields(found) from None
    if found:
        raise InvalidRequest.of_fields(found)
    for part in (body, *(body.updates if isinstance(body, BatchBody) else ())):
        for name in part.model_extra or ():
            note_unknown(name)
    return body


def _reason(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    described = _MUST_BE | _described(model)
    names = [part for part in error["loc"] if part in described]
    must_be = described[names[-1]] if names else "an object"
    if isinstance(error["loc"][-1], int) and names[-1:] == ["updates"]:
        must_be = "an object with productId, delta, version and idempotencyKey"
    return f"{'is missing; ' if error['type'] == 'missing' else ''}must be {must_be}"
