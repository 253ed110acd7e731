"""aiohttp's protocol of one connection, with deadlines, fast reads and answers to odd clients.

    a connection …                                      is ended after
    on which nothing arrives at first                   `first_byte_seconds`, gracefully
    on which nothing arrives between two requests       `idle_seconds` (keep-alive), gracefully
    on which the head of a request does not end         `head_seconds` from its first byte; one that
                                                        began to arrive during the answer to another
                                                        request: `idle_seconds` from that answer
    whose client does not read its answer               `unread_seconds` without progress
    with a long answer, such as a stream                what the answer decides

From a client that was refused with 429, nothing more is read for `refused_seconds`.

The body of a request has its own deadline, in `content.requests`. The caps on connections are in
`limits`, which also checks the deadlines.
"""

from __future__ import annotations

import asyncio
import logging
import math
from http import HTTPStatus
from typing import Protocol, cast

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from store_cache.api import request_ids
from store_cache.api.addresses import is_loopback
from store_cache.api.fast.pipelining import PipeliningGuard
from store_cache.api.fast.reads import FastConnection, FastReads
from store_cache.api.limits import ConnectionLimiter
from store_cache.api.middleware import FIXED_HEADERS
from store_cache.api.problems import ApiError, InternalError, InvalidRequest, render

log = logging.getLogger(__name__)

# How long a refused body may go on arriving before the connection closes, so that the client gets
# to read the answer.
_LINGERING_SECONDS = 2.0

# Aiohttp's keep-alive timer does not see fast reads, so it is put out of action.
_NEVER_SECONDS = 365 * 86_400.0

# So much is parsed at a time, before others get their turn: it takes milliseconds at most, even if
# it is all chunks of a byte.
_SLICE_BYTES = 4 * 1024


class LongReply(Protocol):
    """An answer that goes on for as long as its client reads, and has deadlines of its own."""

    def resume(self) -> None:
        """The client has taken what was written: more may be."""

    def lost(self) -> None:
        """The connection is gone."""


class Abortable(Protocol):
    """A socket that was accepted, or its transport."""

    def abort(self) -> None: ...


class ClientConnection(web.RequestHandler):
    """One connection of a client, counted and timed by `limiter`."""

    __slots__ = (
        "_answered",
        "_deadline",
        "_fast",
        "_fast_reads",
        "_has_unanswered",
        "_is_half_closed",
        "_is_held",
        "_is_tls",
        "_kept_back",
        "_limiter",
        "_long_reply",
        "_pipelining",
        "_socket",
        "_unread_since",
        "_waits_for_answer",
        "_wire",
        "address",
        "is_busy",
        "is_local",
        "is_stranger",
    )

    def __init__(
        self, server: web.Server, limiter: ConnectionLimiter, fast_reads: FastReads | None
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_NEVER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is what turns it off
            auto_decompress=False,  # a small body may unpack into one that stalls the loop
            lingering_time=_LINGERING_SECONDS,
        )
        self._limiter = limiter
        # Aiohttp drops its `transport` when it closes; this one can still be aborted then.
        self._wire: asyncio.Transport | None = None
        # A transport of TLS that closes can no longer be aborted; this can.
        self._socket: Abortable | None = None
        self._fast_reads = fast_reads
        self._fast: FastConnection | None = None
        self._pipelining = PipeliningGuard()
        # Bytes that aiohttp does not have yet; nothing more is read while there are any.
        self._kept_back = b""
        self._waits_for_answer = False  # whether they do, or only for their turn
        self._long_reply: LongReply | None = None
        self._has_unanswered = False  # a request, or the beginning of one
        self._answered = 0  # of the requests that aiohttp has counted
        self._is_half_closed = False
        self._is_held = False
        self._is_tls = False
        self._unread_since = math.inf
        self._deadline = math.inf
        self.address = ""
        self.is_local = False
        """Whether its client is on this machine."""
        self.is_busy = False
        """Whether a handler is answering a request."""
        self.is_stranger = True
        """Whether no API key has been accepted on this connection so far."""

    def is_overdue(self, now: float) -> bool:
        unread_seconds = self._limiter.limits.unread_seconds
        return now > self._deadline or now > self._unread_since + unread_seconds

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being answered or has begun to arrive."""
        if self.is_busy or self._has_unanswered:
            return
        if self._wire is not None:
            self._wire.close()
        else:
            self.abort()

    def end_overdue(self) -> None:
        """Close the connection if it is merely idle; abort it if a request is incomplete or the
        client does not read."""
        wire = self._wire
        if wire is None or self._has_unanswered or self.writing_paused or wire.is_closing():
            self.abort()
        else:
            wire.close()

    def abort(self) -> None:
        """End the connection without sending what the client has not read."""
        if self._socket is not None:
            self._socket.abort()

    def begin_long_reply(self, reply: LongReply) -> None:
        """Tell `reply` what becomes of the connection, which has no deadlines, until the request
        ends."""
        self._long_reply = reply

    def note_request_begun(self) -> None:
        """The head of a request is complete and its handler starts."""
        self.is_busy = True
        self._deadline = math.inf
        if self._is_half_closed:
            self._end_body()

    def note_request_ended(self, *, is_authenticated: bool) -> None:
        self.is_busy = self._has_unanswered = False
        self._long_reply = None
        if is_authenticated and self.is_stranger:
            self._limiter.trust(self)
        self._wait_for_request(self._limiter.limits.idle_seconds)
        self._limiter.note_request_ended()

    def _wait_for_request(self, seconds: float) -> None:
        self._deadline = self._limiter.now() + seconds

    # -- called by the transport and by aiohttp ----------------------------------------------

    def accept(self, accepted: Abortable, address: str, *, is_local: bool) -> bool:
        """Count the connection in, as one of a client of this address; end it, and return False, if
        there is no place. `front` calls this before the connection is made."""
        self._socket, self.address, self.is_local = accepted, address, is_local
        if not self._limiter.admit(self):
            accepted.abort()
            return False
        self._wait_for_request(self._limiter.limits.first_byte_seconds)
        return True

    def give_up(self) -> None:
        """Count a connection out that was accepted, and is not going to be made."""
        self._limiter.forget(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        if self._socket is None:
            peer = transport.get_extra_info("peername")
            address = str(peer[0]) if peer else ""
            if not self.accept(wire, address, is_local=is_loopback(address)):
                return
        self._wire = wire
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        if self._fast_reads is not None:
            self._fast = FastConnection(self._fast_reads)
        self._wait_for_request(self._limiter.limits.first_byte_seconds)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp calls it so, to go on with what it has buffered
            super().data_received(data)
            return
        if self._kept_back:
            self._kept_back += data
            return
        if self._pipelining.is_clear and self._fast is not None and self._answer(self._fast, data):
            return
        self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        """Give aiohttp the first bytes, and keep back what has to wait."""
        if not self.is_busy and not self._has_unanswered:
            self._has_unanswered = True
            self._wait_for_request(self._limiter.limits.head_seconds)
        given = data[:_SLICE_BYTES]
        now_due = self._pipelining.hand_over(given)
        self._kept_back = data[now_due:]
        if self._kept_back:
            self._pause_transport_reading()
            self._waits_for_answer = now_due < len(given)
            if not self._waits_for_answer:
                self._loop.call_soon(self._go_on)
        super().data_received(given[:now_due])

    def _go_on(self) -> None:
        """Hand over what was kept back."""
        data, self._kept_back = self._kept_back, b""
        self._hand_over(data)
        if not (self._kept_back or self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _hold(self) -> None:
        """Read nothing for a while from a client that is too fast: one that takes a refusal for a
        reason to ask again at once would else slow all others down."""
        if not self._is_held:
            self._is_held = True
            self._pause_transport_reading()
            self._loop.call_later(self._limiter.limits.refused_seconds, self._end_hold)

    def _end_hold(self) -> None:
        self._is_held = False
        if not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not (self._kept_back or self._is_held):
            super()._resume_transport_reading()

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
        if self.is_stranger:
            self._limiter.trust(self)
        self._wire.write(answer)
        if fast.has_refused:
            fast.has_refused = False
            self._hold()
        self._wait_for_request(self._limiter.limits.idle_seconds)
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self._answered += 1
        is_last = self._is_half_closed and self._answered >= self._request_count
        if is_last or (request._message.upgrade and not self._pipelining.is_certain):
            resp.force_close()
        answered, is_reset = await super().finish_response(request, resp, start_time)
        self._pipelining.note_answer(is_kept=bool(answered.keep_alive) and not is_reset)
        if answered.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._hold()
        if self._waits_for_answer:
            self._waits_for_answer = False
            self._go_on()
        return answered, is_reset

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's never stays open
        """The client will send no more. Stay open until what it sent is answered; TLS cannot.

        A client that closes its connection cannot be told from one that sends no more. A long reply
        would go on for nobody, so it ends.
        """
        is_answered = self._answered >= self._request_count
        if self._is_tls or is_answered or self._long_reply is not None:
            return False
        self._is_half_closed = True
        self._end_body()
        return True

    def _end_body(self) -> None:
        """Make the last body malformed, which its handler answers, if it is not complete."""
        if self._messages:
            body = self._messages[-1][1]
        elif self._current_request is not None:
            body = self._current_request.content
        else:
            return  # its handler is about to begin
        if not body.is_eof():
            body.set_exception(RequestPayloadError("the client sent only a part of it"))
            body.feed_eof()

    def close(self) -> None:
        self._pipelining.close()
        super().close()

    def force_close(self) -> None:
        self._pipelining.close()
        super().force_close()

    def pause_writing(self) -> None:
        if self._long_reply is None:
            self._unread_since = self._limiter.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = math.inf
        super().resume_writing()
        if self._long_reply is not None:
            self._long_reply.resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._limiter.forget(self)
        super().connection_lost(exc)
        if self._long_reply is not None:
            self._long_reply.lost()

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
            self._limiter.malformed.note(logging.INFO, facts)
        response = render(error, request.headers.get("Accept", ""))
        response.headers[request_ids.HEADER] = request_id
        response.headers.update(FIXED_HEADERS)
        response.force_close()
        return response
