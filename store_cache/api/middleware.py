"""The one middleware: names the request, asks who calls, turns errors into answers, logs.

Knows: what every answer has in common. Refuses to know: what any handler does.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from store_cache.api import auth as keys
from store_cache.api import request_ids
from store_cache.api.auth import ANYBODY, Authority, Caller, Scope
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
from store_cache.api.routes import Scopes
from store_cache.writes.write import WriteError

SERVER_NAME = "store-cache"
"""Instead of aiohttp's own header, which tells versions."""

SLOW_SECONDS = 1.0

_READS = frozenset({"GET", "HEAD"})
_LOOKUP = "/v1/store/inventory/lookup"  # a read, whatever its method

log = logging.getLogger(__name__)

READINESS = "/ready"

_CALLER = web.RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True)
class _Gate:
    authority: Authority
    scopes: Scopes

    def admit(self, request: web.Request) -> None:
        """Raises ApiError unless the caller may use the route; reads nothing of the body."""
        needed = self.scopes.needed(request.match_info)
        request[_CALLER] = ANYBODY
        if needed is Scope.OPEN:
            return
        request[_CALLER] = caller = self.authority.identify(
            request.headers.getall(keys.HEADER, ()),
            address=request.remote or "",
            now=asyncio.get_running_loop().time(),
        )
        if caller.scope < needed:
            raise Forbidden("This call needs an admin key; the key given is a till's")


def exchange(*, authority: Authority, scopes: Scopes, cors: Cors) -> Middleware:
    admission = _Gate(authority, scopes)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = asyncio.get_running_loop().time()
        name = request_ids.choose_request_id(request.headers.getall(request_ids.HEADER, ()))
        request_ids.request_id.set(name)
        preflight = cors.preflight(request.method, request.headers)
        response = preflight or await _attempt(request, handler, admission)
        finish(response, name=name, origin=request.headers.get("Origin"), cors=cors)
        _log(request, response.status, asyncio.get_running_loop().time() - started)
        return response

    return middleware


def finish(response: web.StreamResponse, *, name: str, origin: str | None, cors: Cors) -> None:
    """Add what every answer says: the request's name, the server's, and who else may read it."""
    response.headers[request_ids.HEADER] = name
    response.headers["Server"] = SERVER_NAME
    cors.mark(origin, response)


async def _attempt(request: web.Request, handler: Handler, admission: _Gate) -> web.StreamResponse:
    accept = ",".join(request.headers.getall("Accept", ()))
    try:
        _check_target(request)
        admission.admit(request)
        return await handler(request)
    except ApiError as error:
        return render(error, accept)
    except WriteError as error:
        return render(WriteFailed(error), accept)
    except Exception:
        log.exception("a request failed unexpectedly", extra=_facts(request))
        return render(
            InternalError(
                "The store failed to answer this request; its log has the cause under the "
                "request's id (X-Request-ID)"
            ),
            accept,
        )


def _check_target(request: web.Request) -> None:
    """A target that is no path matches no route at all, not even that of what is not found."""
    if request.match_info.http_exception is not None:
        raise MethodNotAllowed.instead_of(request.method, ())


def _log(request: web.Request, status: int, seconds: float) -> None:
    """Failed and slow requests, writes and admin calls; reads only where somebody debugs."""
    if status == STATUS[InternalError.code]:
        return  # logged already, with its cause
    if request.path == READINESS and status == STATUS[CacheNotReady.code]:
        level = logging.DEBUG  # what a probe is answered until there is a catalogue
    elif status >= 500 or seconds > SLOW_SECONDS:
        level = logging.WARNING
    elif request.method in _READS or request.path == _LOOKUP:
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
        "caller": request[_CALLER].name if _CALLER in request else ANYBODY.name,
    }
