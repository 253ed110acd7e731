"""The open streams: who is written to when, and who is ended.

A change is written at once if nothing was in the last 20 ms; else what happens within 20 ms goes
out together. Streams are served in turn, some at a time, so that the store's other requests never
wait for a thousand of them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from store_cache.api.stream import blocks
from store_cache.api.stream.feed import ChangeFeed
from store_cache.api.stream.reader import Reader
from store_cache.api.stream.state import StreamState
from store_cache.api.throttled_log import ThrottledWarning

log = logging.getLogger(__name__)

GROUP_SECONDS = 0.02
SILENCE_SECONDS = 15.0
"""How long nothing is written to a stream until it is told its position."""

STUCK_SECONDS = 60.0
"""How long a client may take nothing of what was written to it."""

CHECK_SECONDS = 0.5

RETRY_SECONDS = 2.0, 3.0
"""How long clients wait before they connect again, at random between the two."""

RETRY_AT_STOP_SECONDS = 1.0, 6.0
"""The same after a stop: not all at once when the store is back."""

_STREAMS_AT_ONCE, _BYTES_AT_ONCE = 100, 128 * 1024
"""How many streams are served, and how much is written to them, until other requests get their
turn: a few milliseconds at most. Streams that begin at the start get more than others, and each its
own part of the catalogue."""

_MOST_UNSENT_BYTES = 128 * 1024
"""What the system keeps for a client that is slow: what is newer by then replaces the rest."""


class Connection(Protocol):
    """A client's connection, see `connection`."""

    @property
    def writing_paused(self) -> bool: ...

    def begin_long_reply(self, reply: Stream) -> None: ...

    def abort(self) -> None: ...


class StreamEnd(StrEnum):
    LOST = "the client is gone"
    STUCK = "the client takes nothing"
    REVOKED = "the key is no longer valid"
    STOPPED = "the store stops"


class Stream:
    """One open stream. `is_allowed` says whether its client still may read.

    Its connection tells it when more may be written (`resume`) and when it is gone (`lost`).
    """

    __slots__ = (
        "_connection",
        "_frame",
        "_streams",
        "_transport",
        "_unsent",
        "ended",
        "is_allowed",
        "is_blocked",
        "is_queued",
        "last_written_at",
        "reader",
        "since",
    )

    def __init__(
        self,
        streams: Streams,
        reader: Reader,
        connection: Connection,
        transport: asyncio.Transport,
        *,
        is_allowed: Callable[[], bool],
        is_chunked: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.reader = reader
        self.is_allowed = is_allowed
        self.since = self.last_written_at = loop.time()
        self.is_blocked = self.is_queued = False
        self.ended: asyncio.Future[StreamEnd] = loop.create_future()
        self._streams = streams
        self._connection = connection
        self._transport = transport
        self._frame = _chunk if is_chunked else bytes
        self._unsent = 0

    def write(self, events: bytes, now: float) -> None:
        if self._transport.is_closing():
            self.end(StreamEnd.LOST)
            return
        self._transport.write(self._frame(events))
        self.last_written_at = now
        if self._connection.writing_paused:
            self.is_blocked = True
            self._unsent = self._transport.get_write_buffer_size()

    def can_write(self) -> bool:
        return not (self.is_blocked or self.ended.done())

    def takes_nothing(self, now: float) -> bool:
        """Return whether the client has taken nothing for too long. Call it again and again."""
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self.last_written_at = unsent, now
        return now - self.last_written_at > STUCK_SECONDS

    def end(self, reason: StreamEnd) -> None:
        """End the stream, and its connection too if its client takes nothing: the end could not be
        written, and what is on its way is not to wait for the client."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._streams.forget(self)
        if self.is_blocked and reason is not StreamEnd.LOST:
            self._connection.abort()

    # -- called by the connection ----------------------------------------------------------

    def resume(self) -> None:
        self.is_blocked = False
        self._streams.serve(self)

    def lost(self) -> None:
        self.end(StreamEnd.LOST)


class Streams:
    """All open streams, of which there are at most `most`."""

    def __init__(
        self, feed: ChangeFeed, state: StreamState, *, most: int, random: Callable[[], float]
    ) -> None:
        self.feed = feed
        self.state = state
        self.most = most
        self.is_stopping = False
        self._random = random
        self._open: dict[Stream, None] = {}
        self._queue: deque[Stream] = deque()
        self._flushed_at = float("-inf")
        self._flush_handle: asyncio.Handle | None = None
        self._serve_handle: asyncio.Handle | None = None
        self._check_handle: asyncio.Handle | None = None
        self._stuck = ThrottledWarning(
            log, "streams are ended: their clients take nothing", counted_as="ended"
        )
        feed.on_news = self._note_news

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        return len(self._open) >= self.most

    def random_seconds(self, bounds: tuple[float, float]) -> float:
        """Return a random number of seconds between two bounds."""
        least, most = bounds
        return least + (most - least) * self._random()

    def open(
        self,
        reader: Reader,
        connection: Connection,
        transport: asyncio.Transport,
        *,
        is_allowed: Callable[[], bool],
        is_chunked: bool,
        begins: bytes,
    ) -> Stream:
        """Open a stream and write its first events, `begins`; the rest follows by itself."""
        _limit_buffers(transport)
        stream = Stream(
            self, reader, connection, transport, is_allowed=is_allowed, is_chunked=is_chunked
        )
        self._open[stream] = None
        connection.begin_long_reply(stream)
        loop = asyncio.get_running_loop()
        stream.write(blocks.retry(self.random_seconds(RETRY_SECONDS)) + begins, loop.time())
        self.serve(stream)
        if self._check_handle is None:
            self._check_handle = loop.call_later(CHECK_SECONDS, self._check)
        return stream

    def forget(self, stream: Stream) -> None:
        """Free the place of a stream that has ended."""
        self._open.pop(stream, None)
        if not self._open and self._check_handle is not None:
            self._check_handle.cancel()
            self._check_handle = None

    def stop(self) -> None:
        """End all streams, and open no more."""
        self.is_stopping = True
        for stream in tuple(self._open):
            if not stream.is_blocked:
                seconds = self.random_seconds(RETRY_AT_STOP_SECONDS)
                stream.write(blocks.retry(seconds), stream.last_written_at)
            stream.end(StreamEnd.STOPPED)

    # -- writing ---------------------------------------------------------------------------

    def _note_news(self) -> None:
        if self._open and self._flush_handle is None:
            loop = asyncio.get_running_loop()
            due = self._flushed_at + GROUP_SECONDS
            self._flush_handle = loop.call_at(max(due, loop.time()), self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        self._flushed_at = asyncio.get_running_loop().time()
        self.state.update()
        for stream in self._open:
            self._put_in_line(stream)
        if self._serve_handle is None:
            self._serve_next()
        if not self.feed.is_complete:
            self._note_news()

    def serve(self, stream: Stream) -> None:
        """Write to one stream as soon as it is its turn."""
        self._put_in_line(stream)
        if self._queue:
            self._serve_soon()

    def _put_in_line(self, stream: Stream) -> None:
        if stream.can_write() and not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)

    def _serve_soon(self) -> None:
        if self._serve_handle is None:
            self._serve_handle = asyncio.get_running_loop().call_soon(self._serve_next)

    def _serve_next(self) -> None:
        self._serve_handle = None
        now = asyncio.get_running_loop().time()
        written = 0
        for _ in range(min(len(self._queue), _STREAMS_AT_ONCE)):
            if written > _BYTES_AT_ONCE:
                break
            stream = self._queue.popleft()
            stream.is_queued = False
            if not stream.can_write():
                continue
            events = stream.reader.take()
            if not events and now - stream.last_written_at >= SILENCE_SECONDS:
                events = stream.reader.position()
            if events:
                written += len(events)
                stream.write(events, now)
                if not stream.reader.is_current:
                    self._put_in_line(stream)
        if self._queue:
            self._serve_soon()

    # -- now and then ----------------------------------------------------------------------

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        self._check_handle = loop.call_later(CHECK_SECONDS, self._check)
        now = loop.time()
        if self.state.update():
            self._note_news()
        for stream in tuple(self._open):
            if not stream.is_allowed():
                stream.end(StreamEnd.REVOKED)
            elif stream.is_blocked:
                if stream.takes_nothing(now):
                    self._stuck.note()
                    stream.end(StreamEnd.STUCK)
            elif now - stream.last_written_at >= SILENCE_SECONDS:
                self.serve(stream)


def _chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _limit_buffers(transport: asyncio.Transport) -> None:
    """Keep little for a slow client, and have the system notice one that has vanished."""
    transport.set_write_buffer_limits(high=0)
    connected = transport.get_extra_info("socket")
    if connected is None:
        return
    vanished_milliseconds = round(STUCK_SECONDS * 1000)
    for name, value in (
        ("TCP_USER_TIMEOUT", vanished_milliseconds),
        ("TCP_NOTSENT_LOWAT", _MOST_UNSENT_BYTES),
    ):
        if (option := getattr(socket, name, None)) is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
