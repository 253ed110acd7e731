"""Errors of the client of Central. Every message says what was wrong and what to do.

    CentralError
    ├── Unreachable       no connection: the request cannot have arrived
    ├── ExchangeBroken    it may have arrived: a timeout, a broken connection, a cut answer, a 5xx
    ├── LimitExceeded     429, or the store's own rate limit: the request had no effect
    │   └── HeldBack      the store's own: nothing was sent
    ├── AccessDenied      401 or 403: Central does not accept the key
    ├── RequestRefused    any other 4xx, or a redirect
    ├── PositionGone      410: Central no longer holds the events asked for
    ├── Unreadable        a complete answer whose shape is not Central's
    ├── OtherFeed         a product of another generation than expected
    ├── UnsendableId      a product id that no address can hold: nothing was sent
    ├── WriteUnsent       no try of a write can have arrived
    └── WriteUnknown      a try of a write may have arrived, and none was answered

What each means for the sync is the table `sync.runner.FAILURES`. No message contains a key, or more
than the first characters of an answer.
"""

from __future__ import annotations

from enum import Enum


class InvalidShape(ValueError):
    """The answer has none of Central's shapes; the message says what is wrong with it. The client
    raises it as Unreadable."""


class CentralError(Exception):
    """Central did not give what it was asked for.

    `retry_after_seconds` is how long Central asks to wait before the next request, or None.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unreachable(CentralError):
    """There was no connection, so Central cannot have seen the request."""


class ExchangeBroken(CentralError):
    """Central may have seen the request and may have acted on it. `status`: of a 5xx, else None."""

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.status = status


class LimitExceeded(CentralError):
    """No request is allowed for `retry_after_seconds`: an estimate if Central names no time."""

    retry_after_seconds: float

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class HeldBack(LimitExceeded):
    """The store keeps to Central's limit by itself. This is the usual pace, and no trouble."""


class AccessDenied(CentralError):
    """Central does not accept the store's key."""


class RequestRefused(CentralError):
    """Central, or a proxy in front of it, refuses the request with `status`."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class PositionGone(CentralError):
    """Central no longer holds the events asked for."""


class Unreadable(CentralError):
    """The answer is complete, but its shape is not one of Central's."""


class OtherFeed(CentralError):
    """Central was replaced: its `generation` is another than that of the products held, so its
    answer about a product belongs to another history."""

    def __init__(self, message: str, *, generation: str) -> None:
        super().__init__(message)
        self.generation = generation


class UnsendableId(CentralError):
    """The product id would lead to another address than its own."""


class Unsent(Enum):
    """What kept a write from Central."""

    REFUSED = "no connection was possible"
    LIMITED = "Central answered 429"
    HELD_BACK = "the store kept to a limit of its own"


class WriteUnsent(CentralError):
    """Central cannot have seen the write. `retry_after_seconds` is set after a limit."""

    def __init__(
        self, message: str, *, cause: Unsent, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.cause = cause


class WriteUnknown(CentralError):
    """Central may have applied the write; only a repeat with the same key can tell (W3)."""
