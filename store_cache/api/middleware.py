"""The one middleware: request id, preflight, authentication, errors as answers, access log."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from store_cache.api import auth, request_ids
from store_cache.api.auth import ANONYMOUS, CALLER, Authenticator, Scope
from store_cache.api.cors import Cors
from store_cache.api.problems import (
    STATUS,
    ApiError,
    CacheNotReady,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    WriteFailed,
    render,
)
from store_cache.api.routing import Scopes
from store_cache.writes.write import WriteError

SERVER_NAME = "store-cache"
"""Sent instead of aiohttp's own `Server` header, which shows versions."""

SLOW_SECONDS = 1.0
"""Requests that take longer are logged as warnings."""

_LOOKUP = "/v1/store/inventory/lookup"  # a read, whatever its method
_READINESS = "/ready"

_FORBIDDEN = {
    Scope.WRITE: "This call needs a key that may write; the key given may only read",
    Scope.ADMIN: "This call needs an admin key; the key given is a till's",
}

log = logging.getLogger(__name__)


def build_middleware(*, authenticator: Authenticator, scopes: Scopes, cors: Cors) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = asyncio.get_running_loop().time()
        request_id = request_ids.choose_request_id(request.headers.getall(request_ids.HEADER, ()))
        request_ids.request_id.set(request_id)
        preflight = cors.preflight(request.method, request.headers)
        response = preflight or await _answer(request, handler, authenticator, scopes)
        add_common_headers(response, request_id, request.headers.get("Origin"), cors)
        _log(request, response.status, asyncio.get_running_loop().time() - started)
        return response

    return middleware


def add_common_headers(
    response: web.StreamResponse, request_id: str, origin: str | None, cors: Cors
) -> None:
    """Add what every answer carries: the request's id, the server's name, and CORS."""
    response.headers[request_ids.HEADER] = request_id
    response.headers["Server"] = SERVER_NAME
    cors.add_headers(response, origin)


async def _answer(
    request: web.Request, handler: Handler, authenticator: Authenticator, scopes: Scopes
) -> web.StreamResponse:
    accept = ",".join(request.headers.getall("Accept", ()))
    try:
        if request.match_info.http_exception is not None:
            # A target that is not a path matches no route, not even the one for 404.
            raise MethodNotAllowed.instead_of(request.method, ())
        _authenticate(request, authenticator, needed=scopes.needed(request.match_info))
        return await handler(request)
    except ApiError as error:
        return render(error, accept)
    except WriteError as error:
        return render(WriteFailed(error), accept)
    except asyncio.CancelledError:
        # Only a stop of the server cancels requests.
        stopped = WriteError(
            "central_timeout",
            "The store was stopped before Central answered; the outcome is unknown: repeat it as "
            "it is",
        )
        return render(WriteFailed(stopped), accept)
    except Exception:
        log.exception("a request failed unexpectedly", extra=_facts(request))
        return render(
            InternalError(
                "The store failed to answer this request; its log has the cause under the "
                "request's id (X-Request-ID)"
            ),
            accept,
        )


def _authenticate(request: web.Request, authenticator: Authenticator, *, needed: Scope) -> None:
    """Raise ApiError unless the caller has the scope; reads nothing of the body."""
    if needed is Scope.OPEN:
        return
    request[CALLER] = caller = authenticator.identify(
        request.headers.getall(auth.HEADER, ()),
        address=request.remote or "",
        now=asyncio.get_running_loop().time(),
    )
    if caller.scope < needed:
        raise Forbidden(_FORBIDDEN[needed])


def _log(request: web.Request, status: int, seconds: float) -> None:
    """Log failed and slow requests, writes and admin calls; other reads at level debug."""
    if status == STATUS[InternalError.code]:
        return  # logged already, with its cause
    if request.path == _READINESS and status == STATUS[CacheNotReady.code]:
        level = logging.DEBUG  # the usual answer to a probe until there is a catalogue
    elif status >= 500 or seconds > SLOW_SECONDS:
        level = logging.WARNING
    elif request.method in ("GET", "HEAD") or request.path == _LOOKUP:
        level = logging.DEBUG
    else:
        level = logging.INFO
    if log.isEnabledFor(level):
        facts = _facts(request) | {"status": status, "seconds": round(seconds, 4)}
        log.log(level, "request answered", extra=facts)


def _facts(request: web.Request) -> dict[str, object]:
    return {
        "method": request.method,
        "path": request.rel_url.raw_path,
        "address": request.remote,
        "caller": request.get(CALLER, ANONYMOUS).name,
    }
