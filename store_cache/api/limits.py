"""Connection limits that aiohttp does not have: deadlines and caps, before the HTTP parser.

    a connection …                                      is ended after
    on which nothing arrives between two requests       `idle_seconds` (keep-alive), gracefully
    on which the head of a request does not end         `head_seconds` from its first byte
    whose client does not read its answer               `unread_seconds` without progress
    beyond the caps, in total or from one address       nothing: at once

The body of a request has its own deadline, in `content.requests`. One timer checks all connections
a few times a second: a timer for each of thousands of requests would cost more than the requests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import resource
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from aiohttp import web

from store_cache.api import request_ids
from store_cache.api.fast.pipelining import PipeliningGuard
from store_cache.api.fast.reads import FastConnection, FastReads
from store_cache.api.middleware import SERVER_NAME
from store_cache.api.problems import ApiError, InternalError, InvalidRequest, render
from store_cache.api.throttled_log import ThrottledWarning

log = logging.getLogger(__name__)

# File descriptors for all else: files, up to 64 writes under way, polls, full syncs.
_OTHER_FILES = 200

# How long a refused body may go on arriving before the connection closes, so that the client gets
# to read the answer.
_LINGERING_SECONDS = 2.0

# Aiohttp's keep-alive timer does not see fast reads, so it is put out of action.
_NEVER_SECONDS = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Deadlines in seconds; caps in connections."""

    idle_seconds: float = 75.0
    head_seconds: float = 10.0
    unread_seconds: float = 30.0
    check_seconds: float = 0.5
    most_connections: int = 2048
    most_connections_per_address: int = 512
    cure: str = "close connections that are not needed"
    """What a person can do once the caps are reached."""

    @classmethod
    def within(cls, open_files: int) -> ConnectionLimits:
        """Return limits that leave files and connections to Central enough of `open_files`, the
        process's limit of file descriptors.

        Without a free one the system would cut connections, and nothing in the log would say so.
        """
        usual = cls()
        room = open_files - min(_OTHER_FILES, open_files // 2)
        if open_files == resource.RLIM_INFINITY or room >= usual.most_connections:
            return usual
        cure = f"raise the limit of open files, now {open_files}: LimitNOFILE= or ulimit -n"
        return cls(most_connections=room, cure=cure)


class ClientConnection(web.RequestHandler):
    """aiohttp's protocol of one connection, with deadlines and fast reads."""

    __slots__ = (
        "_deadline",
        "_fast",
        "_has_unanswered",
        "_limiter",
        "_pipelining",
        "_unread_since",
        "_wire",
        "address",
        "is_busy",
    )

    def __init__(
        self, limiter: ConnectionLimiter, server: web.Server, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=_NEVER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is what turns it off
            auto_decompress=False,  # a small body may unpack into one that stalls the loop
            lingering_time=_LINGERING_SECONDS,
        )
        self._limiter = limiter
        # Aiohttp drops its `transport` when it closes; this one can still be aborted then.
        self._wire: asyncio.Transport | None = None
        self._fast: FastConnection | None = None
        self._pipelining = PipeliningGuard()
        self._has_unanswered = False  # a request, or the beginning of one
        self._unread_since = math.inf
        self._deadline = math.inf
        self.address = ""
        self.is_busy = False
        """Whether a handler is answering a request."""

    def is_overdue(self, now: float) -> bool:
        unread_seconds = self._limiter.limits.unread_seconds
        return now > self._deadline or now > self._unread_since + unread_seconds

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being answered or has begun to arrive."""
        if self._wire is not None and not (self.is_busy or self._has_unanswered):
            self._wire.close()

    def end_overdue(self) -> None:
        """Close the connection if it is merely idle; abort it if a request is incomplete or the
        client does not read."""
        if self._wire is None:
            return
        if self._has_unanswered or self.writing_paused or self._wire.is_closing():
            self._wire.abort()
        else:
            self._wire.close()

    def abort(self) -> None:
        """End the connection without sending what the client has not read."""
        if self._wire is not None:
            self._wire.abort()

    def note_request_begun(self) -> None:
        """The head of a request is complete and its handler starts."""
        self.is_busy = True
        self._deadline = math.inf

    def note_request_ended(self) -> None:
        self.is_busy = self._has_unanswered = False
        self._wait_for_request()
        self._limiter.note_request_ended()

    def _wait_for_request(self) -> None:
        self._deadline = self._limiter.now() + self._limiter.limits.idle_seconds

    # -- called by the transport and by aiohttp ----------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = wire = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if not self._limiter.admit(self):
            wire.abort()
            return
        self._wait_for_request()
        if self._limiter.fast_reads is not None:
            self._fast = FastConnection(self._limiter.fast_reads)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp calls it so, to go on with what it has buffered
            super().data_received(data)
            return
        if self._pipelining.is_clear and self._fast is not None and self._answer(self._fast, data):
            return
        self._pipelining.hand_over(data)
        if not self.is_busy:
            self._has_unanswered = True
            head_ends = self._limiter.now() + self._limiter.limits.head_seconds
            self._deadline = min(self._deadline, head_ends)
        super().data_received(data)

    def _answer(self, fast: FastConnection, data: bytes) -> bool:
        """Answer the bytes if they are one of the commonest reads; aiohttp then never sees them."""
        if self.writing_paused or self._wire is None:
            return False
        try:
            answer = fast.answer(data)
        except Exception:  # a defect here must cost speed, and no answers
            log.exception("a fast read failed; its connection goes on without them")
            self._fast = answer = None
        if answer is None:
            return False
        self._wire.write(answer)
        self._wait_for_request()
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        answered, is_reset = await super().finish_response(request, resp, start_time)
        self._pipelining.note_answer(is_kept=bool(answered.keep_alive) and not is_reset)
        return answered, is_reset

    def close(self) -> None:
        self._pipelining.close()
        super().close()

    def force_close(self) -> None:
        self._pipelining.close()
        super().force_close()

    def pause_writing(self) -> None:
        self._unread_since = self._limiter.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = math.inf
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._limiter.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP in the shape of all errors, repeating none of its content."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer to this request has begun already")
        request_id = request_ids.new_request_id()
        facts = {"requestId": request_id}
        error: ApiError
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            error = InternalError("The store failed to answer this request")
            log.error("a request failed unexpectedly", exc_info=exc, extra=facts)
        else:
            error = InvalidRequest(
                "This is not a well-formed HTTP request, or its line or headers are too long"
            )
            facts |= {"address": self.address, "reason": type(exc).__name__}
            log.info("malformed HTTP request refused", extra=facts)
        response = render(error, request.headers.get("Accept", ""))
        response.headers[request_ids.HEADER] = request_id
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


class ConnectionLimiter:
    """Applies the limits to all connections of one server. Built inside a running loop."""

    def __init__(self, limits: ConnectionLimits, fast_reads: FastReads | None = None) -> None:
        self.limits = limits
        self.fast_reads = fast_reads
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._connections: set[ClientConnection] = set()
        self._count_of: Counter[str] = Counter()  # by address
        self._too_many = ThrottledWarning(
            log, "connections are refused: too many are open", counted_as="refused"
        )
        self._request_ended = asyncio.Event()
        self._timer = self._loop.call_later(limits.check_seconds, self._check)

    def __len__(self) -> int:
        return len(self._connections)

    def protocol(self, server: web.Server) -> ClientConnection:
        return ClientConnection(self, server, self._loop)

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection in; return False, counting nothing, if a cap is reached."""
        address, limits = connection.address, self.limits
        is_full = len(self._connections) >= limits.most_connections
        if is_full or self._count_of[address] >= limits.most_connections_per_address:
            self._too_many.note(address=address, open=len(self._connections), cure=limits.cure)
            return False
        self._connections.add(connection)
        self._count_of[address] += 1
        return True

    def forget(self, connection: ClientConnection) -> None:
        """Count a closed connection out; one that was refused is not counted."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._count_of[connection.address] -= 1
        if not self._count_of[connection.address]:
            del self._count_of[connection.address]
        self.note_request_ended()

    def note_request_ended(self) -> None:
        """A request has been answered, or its connection is gone."""
        self._request_ended.set()

    def close_idle(self) -> None:
        """Close every connection on which no request is under way."""
        for connection in tuple(self._connections):
            connection.close_if_idle()

    async def wait_idle(self) -> None:
        """Wait until no request is being answered."""
        while any(connection.is_busy for connection in self._connections):
            self._request_ended.clear()
            await self._request_ended.wait()

    def close(self) -> None:
        """Abort all connections and stop checking."""
        self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    def _check(self) -> None:
        now = self.now()
        for connection in [one for one in self._connections if one.is_overdue(now)]:
            connection.end_overdue()
        self._timer = self._loop.call_later(self.limits.check_seconds, self._check)
