"""A write and its outcome: what a till requests, what Central's answer proves, what the till gets.

An outcome is *applied* or *refused* only by a complete answer in Central's own format (W3).
Everything else is *unknown*:

    answer                                                 no earlier try       one may have
                                                           reached Central      reached it
    applied, the product asked for, version sent + 1       Applied              Applied
    applied, anything else                                 Unknown              Unknown
    a refusal by one of `REFUSAL_STATUS`                   Refused              Unknown
    400, 409 or 422 in Central's general error format      Refused              Unknown
    any other 4xx in that format (no such route, too big)  WriteError           Unknown
    401, 403, 408, 429, 5xx, internal_error, other formats Unknown              Unknown

401, 403, 429 and 5xx do not get here: they end in Central's client as errors, of which
`exchange.failure` makes outcomes. Their row is a safeguard.

A complete 4xx in the general error format says that Central read the request and rejected it.
With 400, 409 and 422 it rejected the write: that is final. With any other it rejected the call (a
wrong address, an unknown method): nothing was applied and nothing is remembered, so that the same
key works once the cause is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from store_cache.model.product import MAX_WHOLE
from store_cache.model.stock import StockAnswer

ERROR_STATUS = {
    "product_not_found": 404,
    "write_not_found": 404,
    "write_under_way": 409,
    "write_not_in_doubt": 409,
    "idempotency_key_reused": 422,
    "central_error": 502,
    "central_unavailable": 503,
    "storage_unavailable": 503,
    "outbox_full": 503,
    "outbox_entry_not_found": 404,
    "outbox_entry_in_other_state": 409,
    "central_timeout": 504,
}
"""The HTTP status of each `WriteError.code`."""

REFUSAL_STATUS = {
    "version_conflict": 409,
    "insufficient_inventory": 409,
    "product_not_found": 404,
    "invalid_request": 400,
    "missing_product_id": 400,
}
"""The HTTP status that a till gets for each refusal, whatever status Central used."""

SETTLED_NOT_APPLIED = "settled_not_applied"
"""The error type of a write that a person has settled as not applied; its status is 409."""

_UNDECIDED = frozenset({401, 403, 408, 429})
_ABOUT_THE_WRITE = frozenset({400, 409, 422})

# Hundreds of thousands of refusals may be remembered; texts of Central must not decide how
# much memory that takes.
_MESSAGE_CHARACTERS = 300
_TIME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Write:
    """One update: add `delta` if the product is still at `version`.

    `key` is the caller's idempotency key, without the store's prefix. `client` is the name of the
    API key that the caller used, `user_id` the person at the till: neither makes another write.
    `rebases`: if it was queued, it may be sent with another version.
    """

    product_id: str
    delta: int
    version: int
    key: str
    reason: str | None = None
    updated_by: str | None = None
    client: str = field(default="", compare=False)
    rebases: bool = False
    user_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """An update by a caller that tracks no versions (PATCH); the store fills one in."""

    product_id: str
    delta: int
    key: str
    reason: str | None = None
    updated_by: str | None = None
    client: str = field(default="", compare=False)
    user_id: str | None = field(default=None, compare=False)


WriteRequest = Write | Adjustment


def updated_by(request: WriteRequest) -> str | None:
    """Return who changes the stock, for Central: as the body says, else the person at the till."""
    return request.updated_by if request.updated_by is not None else request.user_id


@dataclass(frozen=True, slots=True)
class Answer:
    """Central's final answer to one write, applied or not: status and body for the till."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The bodies of a batch's answers, in the order of its writes."""

    results: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event of the feed about a product. `available` is None after a deletion; `store_id` is
    that of the write which the event names, None if it names none."""

    offset: int
    version: int
    available: int | None
    store_id: str | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is known of a write whose outcome is unknown, for a person to judge it by.

    `version` is the one it was sent with, first at `sent_at` (unix seconds). `seen`: what the feed
    has brought about the product since, the oldest first, up to a limit. `at_central` is the
    quantity and version that Central has now; None if Central was not asked, or did not say.
    """

    key: str
    product_id: str
    version: int
    sent_at: float
    client: str = ""
    seen: tuple[SeenEvent, ...] = ()
    at_central: tuple[int, int] | None = None


class WriteError(Exception):
    """A write without a final answer of Central; the API answers it as one of its errors.

    `code` is one of `ERROR_STATUS`. `message` says what a till can do, `reason` only what is wrong.
    `retry_after_seconds` is set where waiting helps. `doubts` are the writes of unknown outcome
    that it is about. `is_central_away`: nothing was sent, and it is not this write that is at
    fault.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
        doubts: Sequence[Doubt] = (),
        is_central_away: bool = False,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or message
        self.details = dict(details or {})
        self.retry_after_seconds = retry_after_seconds
        self.doubts = tuple(doubts)
        self.is_central_away = is_central_away

    @property
    def status(self) -> int:
        return ERROR_STATUS[self.code]


def unavailable(reason: str, retry_after_seconds: float) -> WriteError:
    """Return the error of a write that certainly was not sent."""
    return WriteError(
        "central_unavailable",
        f"{reason}. Nothing was sent: repeat the write with the same key",
        retry_after_seconds=retry_after_seconds,
        is_central_away=True,
        reason=reason,
    )


def unsettled(
    reason: str,
    keys: Sequence[str],
    doubts: Sequence[Doubt],
    retry_after_seconds: float | None = None,
) -> WriteError:
    """Return the error of keys whose outcome is unknown: a repeat, the feed or a person settles
    them. `doubts` say what is known of each."""
    named = {"idempotencyKey": keys[0]} if len(keys) == 1 else {"idempotencyKeys": [*keys]}
    return WriteError(
        "central_timeout",
        "It is not known whether Central applied the write: repeat it unchanged, with the same "
        "key. If that settles nothing, a person can, with an admin key",
        details=named | {"reason": reason},
        retry_after_seconds=retry_after_seconds,
        doubts=doubts,
    )


@dataclass(frozen=True, slots=True)
class Applied:
    """Central changed the product, once."""

    stock: StockAnswer


@dataclass(frozen=True, slots=True)
class Refused:
    """Central did not change the product and never will under this key. `new_quantity` and
    `new_version` are its current state where Central gave them."""

    error_type: str
    message: str
    new_quantity: int | None = None
    new_version: int | None = None


@dataclass(frozen=True, slots=True)
class SettledByPerson:
    """A person has said what became of a write in doubt; it is never sent again.

    `by`: the name of the key that was used. `new_quantity` and `new_version` are the product's
    state then, None if neither Central nor the cache could say it.
    """

    is_applied: bool
    by: str
    reason: str
    new_quantity: int | None = None
    new_version: int | None = None


FinalOutcome = Applied | Refused | SettledByPerson


@dataclass(frozen=True, slots=True)
class Unknown:
    """The write may have been applied. `refusal` is Central's answer to a repeat, if it was one;
    the feed may prove it right. `is_key_taken`: Central answered for another write of this key."""

    reason: str
    refusal: Refused | None = None
    is_key_taken: bool = False


WriteOutcome = Applied | Refused | Unknown | WriteError
"""With a WriteError nothing was applied, and the same key may be sent again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent for one update. `is_certain`: no earlier try can have reached Central."""

    product_id: str
    version: int
    is_certain: bool


def judge(status: int, value: object, sent: Sent) -> WriteOutcome:
    """Return what a complete JSON answer to one update proves."""
    if not isinstance(value, dict):
        return Unknown("Central's answer is not a JSON object")
    if value.get("applied") is True:
        return _read_applied(status, value, sent)
    return _proven(_read_refusal(status, value, sent.product_id), sent)


def judge_batch(status: int, value: object, sent: Sequence[Sent]) -> list[WriteOutcome]:
    """Return what an answer to a batch proves of each of its updates, in their order."""
    results = value.get("results") if isinstance(value, dict) else None
    if isinstance(results, list):
        if len(results) == len(sent) and status == 200:
            return [judge(200, item, update) for item, update in zip(results, sent, strict=True)]
        reason = f"Central gave {len(results)} results for {len(sent)} updates, status {status}"
        return [Unknown(reason)] * len(sent)
    whole: WriteOutcome = Unknown("Central's answer to the batch has no list of results")
    if isinstance(value, dict) and value.get("applied") is not True:
        # An answer without results can refuse the whole batch; it can apply nothing.
        refusal = _read_refusal(status, value, None)
        if not isinstance(refusal, Refused) or refusal.error_type == "invalid_request":
            whole = refusal
    return [_proven(whole, update) for update in sent]


def answer_to(outcome: FinalOutcome, product_id: str) -> Answer:
    """Return the till's answer for a final outcome."""
    if isinstance(outcome, SettledByPerson):
        return _answer_of_person(outcome, product_id)
    if isinstance(outcome, Applied):
        stock = outcome.stock
        body: dict[str, Any] = {
            "productId": stock.product_id,
            "newQuantity": stock.new_quantity,
            "newVersion": stock.new_version,
            "applied": True,
        }
        if stock.last_updated is not None:
            body["lastUpdated"] = stock.last_updated
        return Answer(200, body)
    body = {"productId": product_id, "applied": False}
    if outcome.new_quantity is not None:
        body["newQuantity"] = outcome.new_quantity
    if outcome.new_version is not None:
        body["newVersion"] = outcome.new_version
    body |= {"errorType": outcome.error_type, "errorMessage": outcome.message}
    return Answer(REFUSAL_STATUS[outcome.error_type], body)


def _answer_of_person(settled: SettledByPerson, product_id: str) -> Answer:
    body: dict[str, Any] = {"productId": product_id, "applied": settled.is_applied}
    if settled.new_quantity is not None and settled.new_version is not None:
        body |= {"newQuantity": settled.new_quantity, "newVersion": settled.new_version}
    if settled.is_applied:
        return Answer(200, body)
    body["errorType"] = SETTLED_NOT_APPLIED
    body["errorMessage"] = (
        f"A person ({settled.by}) has settled this write as not applied: {settled.reason}. It is "
        "not sent again; to sell, send a new write with a new key"
    )
    return Answer(409, body)


def _proven(outcome: WriteOutcome, sent: Sent) -> WriteOutcome:
    """Return what an outcome proves, given that an earlier try may have reached Central: only
    *applied* settles that one, too."""
    if sent.is_certain or isinstance(outcome, Applied | Unknown):
        return outcome
    if isinstance(outcome, WriteError):
        return Unknown(outcome.message)
    reason = f"Central refused a repeat ({outcome.error_type}), which proves nothing of before"
    return Unknown(reason, outcome)


def _read_applied(status: int, value: dict[str, Any], sent: Sent) -> Applied | Unknown:
    if status != 200 or value.get("errorType"):
        return Unknown(f"Central's answer contradicts itself: applied, with status {status}")
    if value.get("productId") != sent.product_id:
        return Unknown("Central's answer is about another product")
    version, quantity = value.get("newVersion"), value.get("newQuantity", 0)
    if type(version) is not int or version != sent.version + 1:
        return Unknown(
            f"Central's answer says version {str(version)[:20]} after {sent.version}: "
            "another write holds this idempotency key there",
            is_key_taken=True,
        )
    if not _is_whole(quantity):
        return Unknown("Central's answer gives no readable quantity")
    updated = value.get("lastUpdated")
    known = updated if isinstance(updated, str) and len(updated) <= _TIME_CHARACTERS else None
    return Applied(StockAnswer(sent.product_id, sent.version, version, quantity, known))


def _read_refusal(status: int, value: dict[str, Any], product_id: str | None) -> WriteOutcome:
    """Read an answer that is not *applied*. `product_id` is None for a batch as a whole."""
    if status in _UNDECIDED or not (status == 200 or 400 <= status < 500):
        return Unknown(f"Central answered with status {status}")
    error_type = value.get("errorType")
    if not error_type:
        return _read_general_error(status, value)
    if not isinstance(error_type, str) or error_type not in REFUSAL_STATUS:
        return Unknown(f"Central's answer says {str(error_type)[:80]}")
    if product_id is not None and value.get("productId", product_id) not in (product_id, ""):
        return Unknown("Central's answer is about another product")
    # Central may leave zeros out. Version 0 means that no version is known; a quantity missing
    # beside a version means 0.
    version, quantity = value.get("newVersion") or 0, value.get("newQuantity") or 0
    if not _is_whole(version) or not _is_whole(quantity):
        return Unknown("Central's answer gives no readable state")
    known = quantity if version or quantity else None
    return Refused(error_type, _text(value.get("errorMessage")), known, version or None)


def _read_general_error(status: int, value: dict[str, Any]) -> WriteOutcome:
    code, message = value.get("code"), value.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        code, message = "", value.get("error")
    if status < 400 or not isinstance(message, str) or code == "internal_error":
        return Unknown(f"Central's answer with status {status} has no shape that is known")
    if status not in _ABOUT_THE_WRITE:
        reason = f"Central refused the call with status {status}: {_text(message)}"
        return WriteError("central_error", reason)
    return Refused(code if code in REFUSAL_STATUS else "invalid_request", _text(message))


def _is_whole(item: object) -> bool:
    return type(item) is int and 0 <= item <= MAX_WHOLE


def _text(message: object) -> str:
    return message[:_MESSAGE_CHARACTERS] if isinstance(message, str) else ""
