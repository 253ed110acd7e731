"""How an exchange with Central can fail. Messages are for people: what was wrong, what to do.

    CentralError
    ├── Unreachable     it cannot have reached Central: no connection
    ├── Broken          it may have: a timeout, a broken line, a cut or endless answer, a 5xx
    ├── Limited         429, or the store's own budget says not now; nothing was done
    ├── Denied          401, 403: the key
    ├── Refused         any other 4xx, or a redirect
    ├── Gone            410: older than Central's log holds
    ├── Unreadable      a whole answer that is not of Central's shape
    ├── OtherFeed       a product of another generation than what is held
    ├── UnsendableId    a product id that no address can hold; nothing was sent
    ├── WriteUnsent     no try of a write can have reached Central
    └── WriteUnknown    one may have, and none was answered

No message holds a key, or more of an answer than its first characters.
"""

from __future__ import annotations


class CentralError(Exception):
    """Central did not give what it was asked for."""


class Unreachable(CentralError):
    """No connection came about, so that Central cannot have seen the request."""


class ExchangeBroken(CentralError):
    """Central may have seen the request, and may have done what it asks.

    `status` is that of a 5xx, else None. `retry_after_seconds` is what Central named, if anything.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class LimitExceeded(CentralError):
    """Not now: ask again in `retry_after_seconds`, an estimate where Central names no time."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AccessDenied(CentralError):
    """Central does not accept the store's key."""


class RequestRefused(CentralError):
    """Central, or something in front of it, refuses such a request with `status`."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class PositionGone(CentralError):
    """Central no longer holds the events asked for."""


class Unreadable(CentralError):
    """A whole answer, but not one that Central's contract knows."""


class OtherFeed(CentralError):
    """Central names another generation than the one whose products are held: it was replaced, and
    what it says of a product is of another history. `generation` is the name it gives."""

    def __init__(self, message: str, *, generation: str) -> None:
        super().__init__(message)
        self.generation = generation


class UnsendableId(CentralError):
    """A product id that would lead to another address than its own."""


class WriteUnsent(CentralError):
    """Central cannot have seen the write. `retry_after_seconds` is set after a 429."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class WriteUnknown(CentralError):
    """Central may have applied the write; only the same key can tell (W3)."""
