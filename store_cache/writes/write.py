"""A write on its way to Central: what a till asks, what Central answered, what the till is told.

Knows: the values of a write and of its outcome, and which answers of Central prove what (W3).
Refuses to know: how a write is sent, kept or laid over the catalogue.

An outcome is *applied* or *refused* by nothing but a complete answer of Central's own shape;
everything else is *unknown*:

    answer                                                 no earlier try       one may have
                                                           reached Central      reached it
    applied, the product asked for, version sent + 1       Applied              Applied
    applied, anything else                                 Unknown              Unknown
    a refusal by one of `REFUSAL_STATUS`                   Refused              Unknown
    400, 409 or 422 in Central's general error shape       Refused              Unknown
    any other 4xx in that shape (no such route, too large) Rejected             Unknown
    401, 403, 408, 429, 5xx, internal_error, other shapes  Unknown              Unknown

A whole 4xx in the general error shape says that Central read the request and would not have it.
With 400, 409 and 422 that is about the write, and final. With any other it is about the call
(a wrong address, a method that is missing): nothing was applied, and nothing is remembered, so
that the same key works once the cause is mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store_cache.model.product import MAX_WHOLE
from store_cache.model.stock import StockAnswer

ERROR_STATUS = {
    "product_not_found": 404,
    "idempotency_key_reused": 422,
    "central_error": 502,
    "central_unavailable": 503,
    "storage_unavailable": 503,
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

_UNDECIDED = frozenset({401, 403, 408, 429})
_ABOUT_THE_WRITE = frozenset({400, 409, 422})

# Refusals are remembered for a day by the hundred thousand; a text of Central's must not decide
# how much memory that takes.
_MESSAGE_CHARACTERS = 300
_TIME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Write:
    """One update as a till asks for it: add `delta` if the product is still at `version`.

    `key` is the caller's idempotency key, without the store's prefix.
    """

    product_id: str
    delta: int
    version: int
    key: str
    reason: str | None = None
    updated_by: str | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """The same for callers that track no versions (PATCH); the store fills one in."""

    product_id: str
    delta: int
    key: str
    reason: str | None = None
    updated_by: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What Central said of one write, applied or not: status and body as the till gets them."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The bodies of a batch's answers, in the order the writes were sent."""

    results: tuple[dict[str, Any], ...]


class WriteError(Exception):
    """A write that Central gave no final answer to; becomes the API's one error shape.

    `code` is one of `ERROR_STATUS`. `retry_after_seconds` is set where waiting helps.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        return ERROR_STATUS[self.code]


def unavailable(reason: str, retry_after_seconds: float) -> WriteError:
    """Nothing was sent, and the till may be told so."""
    return WriteError(
        "central_unavailable",
        f"{reason}. Nothing was sent: repeat the write with the same key",
        retry_after_seconds=retry_after_seconds,
    )


def unsettled(
    reason: str, keys: Sequence[str], retry_after_seconds: float | None = None
) -> WriteError:
    """The outcome of these keys is not known; only the same keys can tell."""
    named = {"idempotencyKey": keys[0]} if len(keys) == 1 else {"idempotencyKeys": [*keys]}
    return WriteError(
        "central_timeout",
        "It is not known whether Central applied the write: repeat it unchanged, with the same key",
        details=named | {"reason": reason},
        retry_after_seconds=retry_after_seconds,
    )


def not_kept(problem: OSError) -> WriteError:
    """What must be on disk first is not."""
    return WriteError(
        "storage_unavailable",
        f"The store could not keep the write on disk ({problem}) and did not send it: "
        "see to DATA_DIR, and repeat the write with the same key",
    )


@dataclass(frozen=True, slots=True)
class Applied:
    """Central changed the product, once."""

    stock: StockAnswer


@dataclass(frozen=True, slots=True)
class Refused:
    """Central did not change the product and never will under this key. `new_quantity` and
    `new_version` are its current state where it gave them."""

    error_type: str
    message: str
    new_quantity: int | None = None
    new_version: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was applied, and nothing said about the write: it may be sent again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The write may have been applied. `refusal`: what a repeat of it was told; the feed may
    prove it right."""

    reason: str
    refusal: Refused | None = None


Outcome = Applied | Refused | Rejected | Unknown


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent for one update. `is_certain`: no earlier try of it can have reached Central."""

    product_id: str
    version: int
    is_certain: bool


def judge(status: int, value: object, sent: Sent) -> Outcome:
    """What a whole JSON answer to one update proves."""
    return _doubted(_read(status, value, sent), sent)


def judge_batch(status: int, value: object, sent: Sequence[Sent]) -> list[Outcome]:
    """What an answer to a batch proves of each of its updates, in their order."""
    results = value.get("results") if isinstance(value, dict) else None
    if not isinstance(results, list):
        whole = _read_whole(status, value)
        return [_doubted(whole, update) for update in sent]
    if len(results) != len(sent) or status != 200:
        reason = f"Central gave {len(results)} results for {len(sent)} updates, status {status}"
        return [Unknown(reason)] * len(sent)
    return [judge(200, item, update) for item, update in zip(results, sent, strict=True)]


def answer_to(outcome: Applied | Refused, product_id: str) -> Answer:
    """A final outcome as the till gets it."""
    if isinstance(outcome, Applied):
        return Answer(200, _applied_body(outcome.stock))
    body: dict[str, Any] = {"productId": product_id, "applied": False}
    if outcome.new_quantity is not None:
        body["newQuantity"] = outcome.new_quantity
    if outcome.new_version is not None:
        body["newVersion"] = outcome.new_version
    body |= {"errorType": outcome.error_type, "errorMessage": outcome.message}
    return Answer(REFUSAL_STATUS[outcome.error_type], body)


def _applied_body(stock: StockAnswer) -> dict[str, Any]:
    body: dict[str, Any] = {
        "productId": stock.product_id,
        "newQuantity": stock.new_quantity,
        "newVersion": stock.new_version,
        "applied": True,
    }
    return body if stock.last_updated is None else body | {"lastUpdated": stock.last_updated}


def _doubted(outcome: Outcome, sent: Sent) -> Outcome:
    if sent.is_certain or isinstance(outcome, Applied | Unknown):
        return outcome
    if isinstance(outcome, Rejected):
        return Unknown(outcome.reason)
    reason = f"Central refused a repeat ({outcome.error_type}), which proves nothing of before"
    return Unknown(reason, outcome)


def _read(status: int, value: object, sent: Sent) -> Outcome:
    if not isinstance(value, dict):
        return Unknown("Central's answer is not a JSON object")
    if value.get("applied", False) is True:
        return _read_applied(status, value, sent)
    return _read_refusal(status, value, sent.product_id)


def _read_whole(status: int, value: object) -> Outcome:
    """An answer without results to a batch: it can refuse all of it, and apply nothing."""
    if isinstance(value, dict) and value.get("applied", False) is not True:
        outcome = _read_refusal(status, value, None)
        if not isinstance(outcome, Refused) or outcome.error_type == "invalid_request":
            return outcome
    return Unknown("Central's answer to the batch has no list of results")


def _read_applied(status: int, value: dict[str, Any], sent: Sent) -> Applied | Unknown:
    if status != 200 or value.get("errorType"):
        return Unknown(f"Central's answer contradicts itself: applied, with status {status}")
    if value.get("productId") != sent.product_id:
        return Unknown("Central's answer is about another product")
    version, quantity = value.get("newVersion"), value.get("newQuantity", 0)
    if type(version) is not int or version != sent.version + 1:
        return Unknown(
            f"Central's answer says version {str(version)[:20]} after {sent.version}: "
            "another write holds this idempotency key there"
        )
    if not _is_whole(quantity):
        return Unknown("Central's answer gives no readable quantity")
    updated = value.get("lastUpdated")
    known = updated if isinstance(updated, str) and len(updated) <= _TIME_CHARACTERS else None
    return Applied(StockAnswer(sent.product_id, sent.version, version, quantity, known))


def _read_refusal(
    status: int, value: dict[str, Any], product_id: str | None
) -> Refused | Rejected | Unknown:
    if status in _UNDECIDED or not (status == 200 or 400 <= status < 500):
        return Unknown(f"Central answered with status {status}")
    error_type = value.get("errorType")
    if not error_type:
        return _read_general(status, value)
    if not isinstance(error_type, str) or error_type not in REFUSAL_STATUS:
        return Unknown(f"Central's answer says {str(error_type)[:80]}")
    if product_id is not None and value.get("productId", product_id) not in (product_id, ""):
        return Unknown("Central's answer is about another product")
    return _with_state(error_type, value)


def _with_state(error_type: str, value: dict[str, Any]) -> Refused | Unknown:
    """Zeros may be left out or not: a version 0 means that none is known, and a quantity that
    is missing beside a version means 0."""
    version, quantity = value.get("newVersion") or 0, value.get("newQuantity") or 0
    if not _is_whole(version) or not _is_whole(quantity):
        return Unknown("Central's answer gives no readable state")
    known = quantity if version or quantity else None
    return Refused(error_type, _text(value.get("errorMessage")), known, version or None)


def _read_general(status: int, value: dict[str, Any]) -> Refused | Rejected | Unknown:
    code, message = value.get("code"), value.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        code, message = "", value.get("error")
    if status < 400 or not isinstance(message, str) or code == "internal_error":
        return Unknown(f"Central's answer with status {status} has no shape that is known")
    if status not in _ABOUT_THE_WRITE:
        return Rejected(f"Central refused the call with status {status}: {_text(message)}")
    return Refused(code if code in REFUSAL_STATUS else "invalid_request", _text(message))


def _is_whole(item: object) -> bool:
    return type(item) is int and 0 <= item <= MAX_WHOLE


def _text(message: object) -> str:
    return message[:_MESSAGE_CHARACTERS] if isinstance(message, str) else ""
