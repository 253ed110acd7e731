"""What all routes have in common: request id, preflight, authentication, errors as answers, log."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from time import perf_counter

from aiohttp import web
from aiohttp.hdrs import ACCEPT, HOST, ORIGIN, TRANSFER_ENCODING
from aiohttp.typedefs import Handler

from store_cache.api import auth, request_ids
from store_cache.api.answers import LongAnswer
from store_cache.api.auth import ANONYMOUS, CALLER, Authenticator, Scope
from store_cache.api.canary import ECHO_HEADER, Canaries
from store_cache.api.canary import HEADER as CANARY
from store_cache.api.cors import Cors
from store_cache.api.metrics.counts import LOOKUP, Counts
from store_cache.api.problems import (
    STATUS,
    ApiError,
    CacheNotReady,
    Forbidden,
    InternalError,
    InvalidRequest,
    WriteFailed,
    render,
)
from store_cache.api.proxies import ADDRESS, TrustedProxies, peer_of
from store_cache.api.proxies import HEADER as FORWARDED_FOR
from store_cache.api.request_rates import RequestRates
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

Traced = Callable[[Handler, str], Handler]
"""Returns a handler that makes a span of what the handler of a route does; given its name."""


class Middleware:
    """Puts what all routes have in common around their handlers."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        rates: RequestRates,
        proxies: TrustedProxies,
        cors: Cors,
        counts: Counts | None = None,
        traced: Traced | None = None,
    ) -> None:
        self._canaries = Canaries(counts)
        self._authenticator = authenticator
        self._rates = rates
        self._proxies = proxies
        self._cors = cors
        self._counts = counts
        self._traced = traced
        self._refusals = SampledLog(log, _ANSWERED)

    def around(self, handler: Handler, route: str, scope: Scope) -> Handler:
        """Return a handler of a route that answers every request, also if `handler` raises.

        `route` is its name in metrics and spans. Callers need a key of the scope.
        """
        if self._traced is not None:
            handler = self._traced(handler, route)

        async def answer(request: web.Request) -> web.StreamResponse:
            began_at = perf_counter()
            headers = request.headers
            request_id, canary = _note_carried(request, self._canaries)
            forwarded = headers.getall(FORWARDED_FOR, _NONE)
            request[ADDRESS] = self._proxies.client_of(peer_of(request), forwarded)
            refusal: ApiError | None = None
            response: web.StreamResponse
            try:
                if preflight := self._cors.preflight(request.method, headers):
                    response = preflight
                else:
                    _check_message(request)
                    self._authenticate(request, scope)
                    response = await handler(request)
            except ApiError as error:
                refusal = error
            except WriteError as error:
                refusal = WriteFailed(error)
            except asyncio.CancelledError:
                refusal = WriteFailed(_STOPPED)
            except Exception:
                log.exception("a request failed unexpectedly", extra=_facts(request))
                refusal = InternalError(_DEFECT)
            if refusal is not None:
                response = _refused(request, refusal)
            add_common_headers(response, request_id, headers.get(ORIGIN), self._cors, canary)
            seconds = perf_counter() - began_at
            self._record(request, route, response.status, seconds, is_refusal=refusal is not None)
            if isinstance(response, LongAnswer):
                await response.send(request)
            return response

        return answer

    def _authenticate(self, request: web.Request, needed: Scope) -> None:
        """Raise ApiError unless the caller has the scope and keeps to its limit; reads nothing of
        the body."""
        if needed is Scope.OPEN:
            return
        keys = request.headers.getall(auth.HEADER, _NONE)
        request[CALLER] = caller = self._authenticator.identify(
            keys, address=request[ADDRESS], now=asyncio.get_running_loop().time()
        )
        if caller.scope < needed:
            raise Forbidden(_FORBIDDEN[needed])
        self._authenticator.check_tenant(request.headers.getall(auth.TENANT_HEADER, _NONE))
        self._rates.count(caller, needed)

    def _record(
        self, request: web.Request, route: str, status: int, seconds: float, *, is_refusal: bool
    ) -> None:
        """Count an answer, and log it. Refusals are sampled in the log, since anybody can have them
        happen at any rate."""
        if self._counts is not None:
            self._counts.note_request(route, request.method, status, seconds)
        if status == STATUS[InternalError.code]:
            return  # logged already, with its cause
        level = _level(request.method, route, status, seconds)
        if not log.isEnabledFor(level):
            return
        facts = _facts(request) | {"seconds": round(seconds, 4)}
        if is_refusal:
            self._refusals.note(level, facts, status=status, caller=facts["caller"])
        else:
            log.log(level, _ANSWERED, extra=facts | {"status": status})


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
    response: web.StreamResponse,
    request_id: str,
    origin: str | None,
    cors: Cors,
    canary: str | None = None,
) -> None:
    """Add what every answer carries: the request's id, its canary, the fixed headers, and CORS."""
    headers = response.headers
    headers[request_ids.HEADER] = request_id
    if canary is not None:
        headers[ECHO_HEADER] = canary
    headers.update(FIXED_HEADERS)
    cors.add_headers(response, origin)


def _note_carried(request: web.Request, canaries: Canaries) -> tuple[str, str | None]:
    """Note the request's id and canary, which are returned, and its trace, for the log and for
    Central."""
    values = request.headers.getall
    request_id = request_ids.choose_request_id(values(request_ids.HEADER, _NONE))
    carried.request_id.set(request_id)
    parents, states = values(carried.TRACEPARENT, _NONE), values(carried.TRACESTATE, _NONE)
    carried.trace.set(carried.read_trace(parents, states))
    return request_id, canaries.note(values(CANARY, _NONE))


def _check_message(request: web.Request) -> None:
    """Raise ApiError for what other programs might understand differently."""
    if not _HOST.fullmatch(request.headers.get(HOST, "")):
        raise InvalidRequest.of_fields({"Host": "must be a name or an address, and a port if any"})
    if _has_odd_coding(request):
        raise InvalidRequest.of_fields(
            {"Transfer-Encoding": "must be chunked, the only coding that is understood"}
        )


def _refused(request: web.Request, refusal: ApiError) -> web.Response:
    response = render(refusal, ",".join(request.headers.getall(ACCEPT, _NONE)))
    if _has_odd_coding(request):
        response.force_close()  # other programs may not agree on where its body ends
    return response


def _has_odd_coding(request: web.Request) -> bool:
    codings = request.headers.getall(TRANSFER_ENCODING, _NONE)
    return bool(codings) and ",".join(codings).lower() != "chunked"


def _level(method: str, route: str, status: int, seconds: float) -> int:
    """Failed and slow requests are warnings, writes and admin calls are of level info; other reads
    of level debug."""
    if route == _READINESS and status == STATUS[CacheNotReady.code]:
        return logging.DEBUG  # the usual answer to a probe until there is a catalogue
    if status >= 500 or seconds > SLOW_SECONDS:
        return logging.WARNING
    if method in ("GET", "HEAD") or route == LOOKUP:
        return logging.DEBUG
    return logging.INFO


def _facts(request: web.Request) -> dict[str, object]:
    return {
        "method": request.method,
        "path": request.rel_url.raw_path[:LONGEST_PATH],
        "address": request[ADDRESS],
        "caller": request.get(CALLER, ANONYMOUS).name,
    }
