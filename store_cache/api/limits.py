"""The guard before the HTTP parser: deadlines and caps that aiohttp does not have.

Knows: connections, and when each was last heard of. Refuses to know: what requests mean.

    a connection …                                 is cut after
    that says nothing between two requests         `silent_seconds` (keep-alive), in good order
    whose request's head does not end              `head_seconds` from its first byte
    that does not read what it asked for           `unread_seconds` without room for more
    beyond the caps, in all or of one address      nothing: at once

A body has its own deadline, in `bodies`. One timer looks at all connections a few times a second:
a timer for each of thousands of requests would cost more than the requests.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from aiohttp import web

from store_cache.api import request_ids
from store_cache.api.fast.pipelining import Turns
from store_cache.api.fast.reads import FastReads, Till
from store_cache.api.middleware import SERVER_NAME
from store_cache.api.problems import ApiError, InternalError, InvalidRequest, render

log = logging.getLogger(__name__)

# A flood must not become a flood of log lines.
_SECONDS_BETWEEN_REPORTS = 60.0

# What a refused body may still send before its connection is closed, so that the answer arrives.
_LINGERING_SECONDS = 2.0

# Aiohttp's own timer for silent connections knows nothing of requests that it did not see; theirs
# and all others' deadline is here.
_NEVER_SECONDS = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds; caps in connections."""

    silent_seconds: float = 75.0
    head_seconds: float = 10.0
    unread_seconds: float = 30.0
    sweep_seconds: float = 0.5
    most_connections: int = 2048
    most_connections_per_address: int = 512


class Connection(web.RequestHandler):
    """aiohttp's protocol of one connection, watched."""

    __slots__ = (
        "_guard",
        "_has_heard",
        "_till",
        "_turns",
        "_unread_since",
        "_wire",
        "address",
        "deadline",
        "is_busy",
    )

    def __init__(self, guard: Guard, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=_NEVER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is what turns it off
            auto_decompress=False,  # a small body may unpack into one that stalls the loop
            lingering_time=_LINGERING_SECONDS,
        )
        self._guard = guard
        self._wire: asyncio.Transport | None = None
        self._till: Till | None = None
        self._turns = Turns()
        self._has_heard = False
        self._unread_since = math.inf
        self.address = ""
        self.deadline = math.inf
        self.is_busy = False

    def is_overdue(self, now: float) -> bool:
        return now > self.deadline or now > self._unread_since + self._guard.limits.unread_seconds

    def close_quiet(self) -> None:
        """Close it if nothing is under way on it, not even a request that has just come in."""
        if self._wire is not None and not (self.is_busy or self._has_heard):
            self._wire.close()

    def end_overdue(self) -> None:
        """Close a connection that was merely silent; cut one that owes bytes, or takes none."""
        if self._wire is None:
            return
        if self._has_heard or self.writing_paused or self._wire.is_closing():
            self._wire.abort()
        else:
            self._wire.close()

    def cut(self) -> None:
        """End it without waiting for what the other side has not read."""
        if self._wire is not None:
            self._wire.abort()

    def begin(self) -> None:
        """A request's head is whole; its handler runs."""
        self.is_busy = True
        self.deadline = math.inf

    def end(self) -> None:
        """The handler has answered."""
        self.is_busy = self._has_heard = False
        self.deadline = self._guard.now() + self._guard.limits.silent_seconds
        self._guard.note_end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = wire = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if not self._guard.admit(self):
            wire.abort()
            return
        self.deadline = self._guard.now() + self._guard.limits.silent_seconds
        if self._guard.fast_reads is not None:
            self._till = Till(self._guard.fast_reads, self.address)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp calls it so, to go on with what it holds
            super().data_received(data)
            return
        if self._turns.is_ours and self._till is not None and self._answer(self._till, data):
            return
        self._turns.hand_over(data)
        if not self.is_busy:
            self._has_heard = True
            head_ends = self._guard.now() + self._guard.limits.head_seconds
            self.deadline = min(self.deadline, head_ends)
        super().data_received(data)

    def _answer(self, till: Till, data: bytes) -> bool:
        """Answer it here if it is one of the commonest reads; aiohttp then never sees it."""
        if self.writing_paused or self._wire is None:
            return False
        try:
            answer = till.answer(data)
        except Exception:  # a defect here must cost speed, and no answers
            log.exception("a fast read failed; its connection goes on without them")
            self._till = answer = None
        if answer is None:
            return False
        self._wire.write(answer)
        self.deadline = self._guard.now() + self._guard.limits.silent_seconds
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        answered, is_reset = await super().finish_response(request, resp, start_time)
        self._turns.note_answer(is_kept=bool(answered.keep_alive) and not is_reset)
        return answered, is_reset

    def close(self) -> None:
        self._turns.close()
        super().close()

    def force_close(self) -> None:
        self._turns.close()
        super().force_close()

    def pause_writing(self) -> None:
        self._unread_since = self._guard.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = math.inf
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._guard.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP in the one error shape, with nothing of what came in it."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer to this request has begun already")
        name = request_ids.new_request_id()
        error = _as_error(status)
        if isinstance(error, InternalError):
            log.error("a request failed unexpectedly", exc_info=exc, extra={"requestId": name})
        else:
            facts = {"address": self.address, "reason": type(exc).__name__, "requestId": name}
            log.info("malformed HTTP request refused", extra=facts)
        response = render(error, request.headers.get("Accept", ""))
        response.headers[request_ids.HEADER] = name
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


def _as_error(status: int) -> ApiError:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return InternalError("The store failed to answer this request")
    return InvalidRequest(
        "This is not a well-formed HTTP request, or its line or headers are too long"
    )


class Guard:
    """All connections of one server, and the timer that looks after them."""

    def __init__(
        self, limits: Limits, loop: asyncio.AbstractEventLoop, fast_reads: FastReads | None = None
    ) -> None:
        self.limits = limits
        self.fast_reads = fast_reads
        self.now = loop.time
        self._loop = loop
        self._connections: set[Connection] = set()
        self._of_address: Counter[str] = Counter()
        self._refused = 0
        self._reported_at = -math.inf
        self._ended = asyncio.Event()
        self._timer = loop.call_later(limits.sweep_seconds, self._sweep)

    def __len__(self) -> int:
        return len(self._connections)

    def protocol(self, server: web.Server) -> Connection:
        return Connection(self, server, self._loop)

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, unless a cap is reached."""
        address, limits = connection.address, self.limits
        is_full = len(self._connections) >= limits.most_connections
        if is_full or self._of_address[address] >= limits.most_connections_per_address:
            self._report(address)
            return False
        self._connections.add(connection)
        self._of_address[address] += 1
        return True

    def forget(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]
        self.note_end()

    def note_end(self) -> None:
        """A request has been handled, or its connection is gone."""
        self._ended.set()

    def close_quiet(self) -> None:
        """Close every connection on which nothing is under way."""
        for connection in tuple(self._connections):
            connection.close_quiet()

    async def wait_idle(self) -> None:
        """Until no request is being handled."""
        while any(connection.is_busy for connection in self._connections):
            self._ended.clear()
            await self._ended.wait()

    def close(self) -> None:
        """Cut what is left, and look no more."""
        self._timer.cancel()
        for connection in tuple(self._connections):
            connection.cut()

    def _sweep(self) -> None:
        now = self.now()
        for connection in [one for one in self._connections if one.is_overdue(now)]:
            connection.end_overdue()
        self._timer = self._loop.call_later(self.limits.sweep_seconds, self._sweep)

    def _report(self, address: str) -> None:
        self._refused += 1
        if self.now() < self._reported_at + _SECONDS_BETWEEN_REPORTS:
            return
        log.warning(
            "connections are refused: too many are open",
            extra={"address": address, "refused": self._refused, "open": len(self._connections)},
        )
        self._reported_at, self._refused = self.now(), 0
