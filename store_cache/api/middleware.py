"""The one middleware: request id, preflight, authentication, errors as answers, access log."""

from __future__ import annotations

import asyncio
import logging
import re
from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from store_cache.api import auth, request_ids
from store_cache.api.answers import LongAnswer
from store_cache.api.auth import ANONYMOUS, CALLER, Authenticator, Scope
from store_cache.api.cors import Cors
from store_cache.api.metrics.counts import Counts
from store_cache.api.problems import (
    STATUS,
    ApiError,
    CacheNotReady,
    Forbidden,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    WriteFailed,
    render,
)
from store_cache.api.proxies import ADDRESS, TrustedProxies, peer_of
from store_cache.api.proxies import HEADER as FORWARDED_FOR
from store_cache.api.request_rates import RequestRates
from store_cache.api.routing import Scopes, route_name
from store_cache.api.throttled_log import SampledLog
from store_cache.central import carried
from store_cache.writes.write import WriteError

FIXED_HEADERS = {"Server": "store-cache", "X-Content-Type-Options": "nosniff"}
"""Part of every answer. aiohttp's own `Server` shows versions; without `nosniff` a browser may take
the text of a product for a page or a script."""

SLOW_SECONDS = 1.0
"""Requests that take longer are logged as warnings."""

LONGEST_PATH = 200
"""So many characters of a path are logged."""

_NONE: tuple[str, ...] = ()
_ANSWERED = "request answered"
_LOOKUP = "/v1/store/inventory/lookup"  # a read, whatever its method
_READINESS = "/ready"

_FORBIDDEN = {
    Scope.WRITE: "This call needs a key that may write; the key given may only read",
    Scope.ADMIN: "This call needs an admin key; the key given is a till's",
}

# `Host` (RFC 9110, 7.2): an address in brackets, or a name (RFC 3986, 3.2.2), and a port.
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)

log = logging.getLogger(__name__)


def build_middleware(
    *,
    authenticator: Authenticator,
    scopes: Scopes,
    rates: RequestRates,
    proxies: TrustedProxies,
    cors: Cors,
    counts: Counts | None = None,
) -> Middleware:
    refusals = SampledLog(log, _ANSWERED)

    async def respond(
        request: web.Request, handler: Handler, started: float
    ) -> tuple[web.StreamResponse, bool]:
        """Return the answer, and whether it is an error."""
        refusal: ApiError
        try:
            if preflight := cors.preflight(request.method, request.headers):
                return preflight, False
            _check_message(request)
            needed = scopes.needed(request.match_info)
            _authenticate(request, authenticator, needed, rates, started)
            return await handler(request), False
        except ApiError as error:
            refusal = error
        except WriteError as error:
            refusal = WriteFailed(error)
        except asyncio.CancelledError:
            refusal = WriteFailed(_STOPPED)
        except Exception:
            log.exception("a request failed unexpectedly", extra=_facts(request))
            refusal = InternalError(_DEFECT)
        return _refused(request, refusal), True

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        now = asyncio.get_running_loop().time
        started = now()
        began_at = perf_counter()  # the loop's clock may be one of milliseconds
        headers = request.headers
        request_id = _note_ids(request)
        request[ADDRESS] = proxies.client_of(peer_of(request), headers.getall(FORWARDED_FOR, _NONE))
        response, is_refusal = await respond(request, handler, started)
        add_common_headers(response, request_id, headers.get("Origin"), cors)
        _log(request, response.status, now() - started, refusals if is_refusal else None)
        if counts is not None:
            seconds = perf_counter() - began_at
            counts.note_request(route_name(request), request.method, response.status, seconds)
        if isinstance(response, LongAnswer):
            await response.send(request)
        return response

    return middleware


# Only a stop of the server cancels requests.
_STOPPED = WriteError(
    "central_timeout",
    "The store was stopped before Central answered; the outcome is unknown: repeat it as it is",
)
_DEFECT = (
    "The store failed to answer this request; its log has the cause under the request's id "
    "(X-Request-ID)"
)


def add_common_headers(
    response: web.StreamResponse, request_id: str, origin: str | None, cors: Cors
) -> None:
    """Add what every answer carries: the request's id, the fixed headers, and CORS."""
    response.headers[request_ids.HEADER] = request_id
    response.headers.update(FIXED_HEADERS)
    cors.add_headers(response, origin)


def _note_ids(request: web.Request) -> str:
    """Note the request's id, which is returned, and its trace, for the log and for Central."""
    values = request.headers.getall
    request_id = request_ids.choose_request_id(values(request_ids.HEADER, ()))
    carried.request_id.set(request_id)
    trace = carried.read_trace(values(carried.TRACEPARENT, ()), values(carried.TRACESTATE, ()))
    carried.trace.set(trace)
    return request_id


def _check_message(request: web.Request) -> None:
    """Raise ApiError for what other programs might understand differently, or cannot be a route."""
    if not _HOST.fullmatch(request.headers.get("Host", "")):
        raise InvalidRequest.of_fields({"Host": "must be a name or an address, and a port if any"})
    if _has_odd_coding(request):
        raise InvalidRequest.of_fields(
            {"Transfer-Encoding": "must be chunked, the only coding that is understood"}
        )
    if request.match_info.http_exception is not None:
        # A target that is not a path matches no route, not even the one for 404.
        raise MethodNotAllowed.instead_of(request.method, ())


def _refused(request: web.Request, refusal: ApiError) -> web.Response:
    response = render(refusal, ",".join(request.headers.getall("Accept", ())))
    if _has_odd_coding(request):
        response.force_close()  # other programs may not agree on where its body ends
    return response


def _has_odd_coding(request: web.Request) -> bool:
    codings = request.headers.getall("Transfer-Encoding", ())
    return bool(codings) and ",".join(codings).lower() != "chunked"


def _authenticate(
    request: web.Request,
    authenticator: Authenticator,
    needed: Scope,
    rates: RequestRates,
    now: float,
) -> None:
    """Raise ApiError unless the caller has the scope and keeps to its limit; reads nothing of the
    body."""
    if needed is Scope.OPEN:
        return
    request[CALLER] = caller = authenticator.identify(
        request.headers.getall(auth.HEADER, ()), address=request[ADDRESS], now=now
    )
    if caller.scope < needed:
        raise Forbidden(_FORBIDDEN[needed])
    rates.count(caller, needed)


def _log(request: web.Request, status: int, seconds: float, refusals: SampledLog | None) -> None:
    """Log failed and slow requests, writes and admin calls; other reads at level debug.

    `refusals`: where the request was refused, which anybody can have happen at any rate.
    """
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
    if not log.isEnabledFor(level):
        return
    facts = _facts(request) | {"seconds": round(seconds, 4)}
    if refusals is not None:
        refusals.note(level, facts, status=status, caller=facts["caller"])
    else:
        log.log(level, _ANSWERED, extra=facts | {"status": status})


def _facts(request: web.Request) -> dict[str, object]:
    return {
        "method": request.method,
        "path": request.rel_url.raw_path[:LONGEST_PATH],
        "address": request[ADDRESS],
        "caller": request.get(CALLER, ANONYMOUS).name,
    }
