"""A write on its way to Central: what a till asks, what it is told.

Knows: the values of a write, of its answer, of what may go wrong with it.
Refuses to know: how a write is sent, kept or laid over the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ERROR_STATUS = {
    "product_not_found": 404,
    "idempotency_key_reused": 422,
    "central_error": 502,
    "central_unavailable": 503,
    "storage_unavailable": 503,
    "central_timeout": 504,
}
"""The HTTP status of each `WriteError.code`."""


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
class StockAnswer:
    """What Central says that an applied write made of the product; laid over the catalogue (W6).

    `last_updated` is RFC 3339 as Central sent it, or None where it sent none.
    """

    product_id: str
    sent_version: int
    new_version: int
    new_quantity: int
    last_updated: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What Central said of one write, applied or not: status and body as the till gets them."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The bodies of a batch's answers, in the order the writes were sent."""

    results: tuple[Mapping[str, Any], ...]


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
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        return ERROR_STATUS[self.code]
