"""What every call passes: its key, the scope it needs, the rate of its client; then errors become
statuses, and the call is logged and counted.

A call of another service (health, reflection) needs no key: it tells nothing of the shop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote

import grpc
from grpc import aio
from grpc_status import rpc_status

from store_cache.api import request_ids
from store_cache.api.auth import ANONYMOUS, HEADER, TENANT_HEADER, Authenticator, Caller, Scope
from store_cache.api.canary import ECHO_HEADER, Canaries
from store_cache.api.canary import HEADER as CANARY
from store_cache.api.content.models import USER_HEADER, read_user
from store_cache.api.metrics.counts import Counts
from store_cache.api.problems import (
    STATUS,
    ApiError,
    Forbidden,
    InternalError,
    NotFound,
    WriteFailed,
)
from store_cache.api.request_rates import RequestRates
from store_cache.api.throttled_log import SampledLog
from store_cache.central import carried
from store_cache.rpc.errors import status_of
from store_cache.writes.write import WriteError

log = logging.getLogger(__name__)

Context: TypeAlias = "aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

PACKAGE = "/storecache.v1."
INVENTORY = f"{PACKAGE}Inventory/"
SYNC = f"{PACKAGE}Sync/"

SCOPES: Mapping[str, Scope] = {
    f"{INVENTORY}GetProduct": Scope.READ,
    f"{INVENTORY}BatchGetProducts": Scope.READ,
    f"{INVENTORY}ListProducts": Scope.READ,
    f"{INVENTORY}WatchProducts": Scope.READ,
    f"{INVENTORY}ListProductHistory": Scope.READ,
    f"{INVENTORY}UpdateInventory": Scope.WRITE,
    f"{INVENTORY}AdjustInventory": Scope.WRITE,
    f"{INVENTORY}BatchUpdateInventory": Scope.WRITE,
    f"{SYNC}GetStatus": Scope.READ,
    f"{SYNC}GetCacheStats": Scope.READ,
    f"{SYNC}ForceSync": Scope.ADMIN,
}
"""The scope that each method of the store's services needs."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)
"""Who made the call that this task answers."""

USER: ContextVar[str | None] = ContextVar("user", default=None)
"""Who is at the till that made it."""

_ANSWERED = "call answered"
_FORBIDDEN = "This call needs a key with the scope {needed}; the key given has {held}"
_DEFECT = (
    "The store failed to answer this call; its log has the cause under the request's id "
    "(x-request-id)"
)


class NotServed(NotFound):
    """What a call needs is switched off."""

    def __init__(self, what: str, setting: str) -> None:
        super().__init__(f"{what} is switched off in this store ({setting})")


class Calls(aio.ServerInterceptor):
    """`counts` is None where metrics are off."""

    def __init__(
        self,
        authenticator: Authenticator,
        rates: RequestRates,
        counts: Counts | None,
    ) -> None:
        self._canaries = Canaries(counts)
        self._authenticator = authenticator
        self._rates = rates
        self._counts = counts
        self._refusals = SampledLog(log, _ANSWERED)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler behind all that a call of the store's own services passes."""
        handler = await continuation(handler_call_details)
        name = handler_call_details.method
        if handler is None or not name.startswith(PACKAGE):
            return handler
        # grpcio's types know only the blocking kind of methods.
        one: Any = handler.unary_unary
        several: Any = handler.unary_stream

        async def call(request: Any, context: Context) -> Any:
            async with self._guarded(name, context):
                return await one(request, context)

        async def watch(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._guarded(name, context, is_counted=False):
                async for message in several(request, context):
                    yield message

        read = handler.request_deserializer
        if handler.response_streaming:
            streamed: Any = watch
            # None: a watch yields messages that are serialized already.
            return grpc.unary_stream_rpc_method_handler(streamed, read, None)
        answered: Any = call
        return grpc.unary_unary_rpc_method_handler(answered, read, handler.response_serializer)

    @asynccontextmanager
    async def _guarded(
        self, name: str, context: Context, *, is_counted: bool = True
    ) -> AsyncIterator[None]:
        """Admit a call, then let errors end it with a status.

        A watch is counted by the streams, not here, where it would be a request of hours.
        """
        began_at = perf_counter()
        error: ApiError
        try:
            self._admit(context, SCOPES.get(name, Scope.ADMIN))  # a new one is noticed
            yield
        except ApiError as refusal:
            error = refusal
        except WriteError as refusal:
            error = WriteFailed(refusal)
        except Exception as defect:
            if isinstance(defect, aio.AbortError):
                raise
            log.exception("a call failed unexpectedly", extra=_facts(name, context))
            error = InternalError(_DEFECT)
        else:
            if is_counted:
                self._note(name, context, 200, began_at)
            return
        self._note(name, context, error.status, began_at, is_refusal=True)
        await _abort(context, error)

    def _admit(self, context: Context, needed: Scope) -> None:
        """Raise ApiError unless the caller has the scope and keeps to its limit."""
        values = _metadata(context)
        request_id = request_ids.choose_request_id(values.get(request_ids.HEADER.lower(), ()))
        carried.request_id.set(request_id)
        traces = [values.get(name, ()) for name in (carried.TRACEPARENT, carried.TRACESTATE)]
        carried.trace.set(carried.read_trace(*traces))
        canary = self._canaries.note(values.get(CANARY.lower(), ()))
        echo = () if canary is None else ((ECHO_HEADER.lower(), canary),)
        context.set_trailing_metadata(((request_ids.HEADER.lower(), request_id), *echo))
        caller = self._authenticator.identify(
            values.get(HEADER.lower(), ()),
            address=address_of(context.peer()),
            now=asyncio.get_running_loop().time(),
        )
        CALLER.set(caller)
        if caller.scope < needed:
            raise Forbidden(
                _FORBIDDEN.format(needed=needed.name.lower(), held=caller.scope.name.lower())
            )
        self._authenticator.check_tenant(values.get(TENANT_HEADER.lower(), ()))
        USER.set(read_user(values.get(USER_HEADER.lower(), ())))
        self._rates.count(caller, needed)

    def _note(
        self, name: str, context: Context, status: int, began_at: float, *, is_refusal: bool = False
    ) -> None:
        """Log writes, admin calls and failures, other reads at level debug; count the call."""
        seconds = perf_counter() - began_at
        if self._counts is not None:
            self._counts.note_request(name, "POST", status, seconds)
        if status == STATUS[InternalError.code]:
            return  # logged already, with its cause
        is_read = SCOPES.get(name) is Scope.READ
        level = logging.WARNING if status >= 500 else logging.DEBUG if is_read else logging.INFO
        if not log.isEnabledFor(level):
            return
        facts = _facts(name, context) | {"seconds": round(seconds, 4)}
        if is_refusal:
            self._refusals.note(level, facts, status=status, caller=facts["caller"])
        else:
            log.log(level, _ANSWERED, extra=facts | {"status": status})


def address_of(peer: str) -> str:
    """Return the address in a peer's name, such as `ipv4:10.0.0.7:51000` or `ipv6:[::1]:51000`."""
    _, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]")


def _metadata(context: Context) -> dict[str, list[str]]:
    """Return the values of each field that the client sent, texts only."""
    values: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            values.setdefault(name, []).append(value)
    return values


def _facts(name: str, context: Context) -> dict[str, object]:
    return {
        "method": "gRPC",
        "path": name,
        "address": address_of(context.peer()),
        "caller": CALLER.get().name,
    }


async def _abort(context: Context, error: ApiError) -> NoReturn:
    status = rpc_status.to_status(status_of(error))
    trailing = (*(context.trailing_metadata() or ()), *(status.trailing_metadata or ()))
    await context.abort(status.code, status.details or "", trailing)
