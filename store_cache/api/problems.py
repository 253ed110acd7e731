"""The errors of the API: their codes, statuses and the two shapes of their answers.

ApiError
├── InvalidRequest         a parameter, header or field; `details.fields` names each
├── InvalidJson            the body is no JSON that can be trusted
├── Unauthorized           the key is missing or wrong
├── Forbidden              the key is right, its scope is not
├── WrongTenant            the request is for another tenant than the store's
├── NotFound               no such route
├── ProductNotFound        no such product in the cache
├── MethodNotAllowed       the route has other methods
├── PayloadTooLarge
├── UnsupportedMediaType   not JSON, or compressed
├── RateLimited            too many wrong keys, or requests of one client
├── CacheNotReady          there is no catalogue yet
├── TooManyStreams         as many streams are open as may be
├── IndexNotReady          the search index is being built
├── SyncFailed             a forced full sync did not succeed; 502 or 503
├── WriteFailed            a write without a final answer: any code of `writes.write`
└── InternalError          a defect of this service
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from aiohttp import web

from store_cache.api.answers import outbox_path
from store_cache.api.content.doubts import doubt_document, doubt_facts
from store_cache.writes.write import ERROR_STATUS, WriteError

STATUS: dict[str, int] = ERROR_STATUS | {
    "invalid_request": 400,
    "invalid_json": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "wrong_tenant": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "internal_error": 500,
    "sync_failed": 502,
    "cache_not_ready": 503,
    "too_many_streams": 503,
    "index_not_ready": 503,
}
"""The status of each code."""

SECOND_STATUS = {"sync_failed": 503}
"""The status of a code that has two; this one while Central is away."""

PROBLEM_JSON = "application/problem+json"

# The media type in a list of them, with its parameters. The list may be long: a pattern that begins
# with what is looked for is searched twenty times as fast.
_PROBLEM = re.compile(
    r"application/problem\+json(?<![^, \t]application/problem\+json)[ \t]*((?:;[^,]*)?)(?:,|$)"
)
_ZERO_WEIGHT = re.compile(r";[ \t]*q[ \t]*=[ \t]*[0.]*[ \t]*(?:;|$)")

_MOST_FIELDS = 50
_MOST_CHARACTERS = 100


class ApiError(Exception):
    """`message` is for a person, `details` are for a program, `headers` are added to the answer."""

    code: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    @property
    def shown_code(self) -> str:
        return self.code

    @property
    def status(self) -> int:
        return STATUS[self.shown_code]


class InvalidRequest(ApiError):
    code = "invalid_request"

    @classmethod
    def of_fields(cls, fields: Mapping[str, str]) -> InvalidRequest:
        """Name each bad field, header or parameter with its reason, up to a limit."""
        shown = {_shorten(name): reason for name, reason in list(fields.items())[:_MOST_FIELDS]}
        first, reason = next(iter(shown.items()))
        rest = f", and {len(fields) - 1} more" if len(fields) > 1 else ""
        return cls(f"{first} {reason}{rest}", details={"fields": shown})


class InvalidJson(ApiError):
    code = "invalid_json"


class Unauthorized(ApiError):
    code = "unauthorized"


class Forbidden(ApiError):
    code = "forbidden"


class WrongTenant(ApiError):
    code = "wrong_tenant"


class NotFound(ApiError):
    code = "not_found"


class ProductNotFound(ApiError):
    code = "product_not_found"


class MethodNotAllowed(ApiError):
    code = "method_not_allowed"

    @classmethod
    def instead_of(cls, method: str, allowed: Iterable[str]) -> MethodNotAllowed:
        allow = ", ".join(sorted(allowed))
        message = f"{method} is not possible here; use one of: {allow or 'none'}"
        return cls(message, headers={"Allow": allow})


class PayloadTooLarge(ApiError):
    code = "payload_too_large"


class UnsupportedMediaType(ApiError):
    code = "unsupported_media_type"


class RateLimited(ApiError):
    code = "rate_limited"


class CacheNotReady(ApiError):
    code = "cache_not_ready"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The store has no catalogue yet ({reason}); try again in a moment, and see "
            "/v1/store/sync/status",
            headers=retry_after(1),
        )


class TooManyStreams(ApiError):
    code = "too_many_streams"


class IndexNotReady(ApiError):
    code = "index_not_ready"

    def __init__(self) -> None:
        super().__init__(
            "The search index is being built; try again in a moment. Reads without a search are "
            "answered meanwhile",
            headers=retry_after(1),
        )


class SyncFailed(ApiError):
    code = "sync_failed"

    def __init__(self, message: str, *, status: int, details: Mapping[str, Any]) -> None:
        super().__init__(message, details=details)
        self._status = status

    @property
    def status(self) -> int:
        return self._status


class WriteFailed(ApiError):
    def __init__(self, error: WriteError) -> None:
        wait = error.retry_after_seconds
        headers = {} if wait is None else retry_after(wait)
        details = dict(error.details)
        if len(error.doubts) == 1:
            details |= doubt_facts(error.doubts[0])
        elif error.doubts:
            details["writes"] = [doubt_document(doubt) for doubt in error.doubts]
        outbox_id = details.get("outboxId")
        if error.code == "central_timeout" and outbox_id is not None:
            headers["Location"] = outbox_path(outbox_id)
        super().__init__(error.message, details=details, headers=headers)
        self._code = error.code

    @property
    def shown_code(self) -> str:
        return self._code


class InternalError(ApiError):
    code = "internal_error"


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header for a wait, in whole seconds rounded up."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def render(error: ApiError, accept: str) -> web.Response:
    """Return the answer to an error, in the shape that the `Accept` header asks for."""
    value: dict[str, Any]
    if wants_problem := _wants_problem(accept):
        value = {
            "type": "about:blank",
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": error.message,
            "code": error.shown_code,
            "details": error.details,
        }
    else:
        value = {
            "error": {
                "code": error.shown_code,
                "message": error.message,
                "details": error.details,
            }
        }
    return web.Response(
        status=error.status,
        body=orjson.dumps(value),
        headers={
            "Content-Type": PROBLEM_JSON if wants_problem else "application/json",
            "Cache-Control": "no-store",
            **error.headers,
        },
    )


def _wants_problem(accept: str) -> bool:
    named = _PROBLEM.search(accept.lower())
    return named is not None and not _ZERO_WEIGHT.search(named[1])


def _shorten(name: str) -> str:
    return name if len(name) <= _MOST_CHARACTERS else name[:_MOST_CHARACTERS] + "..."
