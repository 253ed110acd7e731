"""`WatchProducts`: a stream of `api.stream`, as messages.

The streams write to a watcher as to any reader: they group changes, skip what is superseded, tell
the position after silence, and end who takes nothing. What they write at a time becomes one
message; it is parsed and serialized once for all watchers at the same place. So a watcher gets
exactly what a reader over HTTP gets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from store_cache.api.content.freshness import Freshness
from store_cache.api.stream.streams import Stream
from store_cache.rpc import messages
from store_cache.rpc.generated import inventory_pb2 as pb

Response = pb.WatchProductsResponse
Event = Response.Event

_MOST_REMEMBERED = 8
_MOST_EVENTS_REMEMBERED, _LARGEST_REMEMBERED = 2_048, 4_096
"""So many events of at most so many bytes: some 16 MiB, usually one."""


class Watcher(asyncio.Transport):
    """Takes what a stream writes, and hands it to a call as fast as its client reads.

    To the stream it is both the connection and its transport.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._has_news = asyncio.Event()
        self._is_ended = False
        self._stream: Stream | None = None

    async def read(self) -> bytes | None:
        """Return the next events that the stream has written; None at its end."""
        while not self._unread:
            if self._is_ended:
                return None
            if self._stream is not None and self._stream.is_blocked:
                self._stream.resume()
            self._has_news.clear()
            await self._has_news.wait()
        events = self._unread.popleft()
        self._unread_bytes -= len(events)
        return events

    def end(self) -> None:
        """Let `read` return None behind what is there."""
        self._is_ended = True
        self._has_news.set()

    # -- the transport ---------------------------------------------------------------------

    def write(self, data: Any) -> None:
        self._unread.append(bytes(data))
        self._unread_bytes += len(data)
        self._has_news.set()

    def get_write_buffer_size(self) -> int:
        return self._unread_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """What is unread blocks the stream at once."""

    def is_closing(self) -> bool:
        return self._is_ended

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is no socket of its own."""
        return default

    # -- the connection --------------------------------------------------------------------

    @property
    def writing_paused(self) -> bool:
        return self._unread_bytes > 0

    def begin_long_reply(self, reply: Stream) -> None:
        self._stream = reply

    def abort(self) -> None:
        self._unread.clear()
        self.end()


@dataclass(frozen=True, slots=True)
class _Place:
    """An event that tells how far the store is, from which a message is made when it is sent."""

    kind: str
    resume_token: str
    told: Mapping[str, Any]


def message_of(events: bytes, freshness: Freshness) -> bytes:
    """Return what events tell as one serialized message; empty if they tell nothing.

    Messages with parts of a list, one behind the other, are the message with the whole list.
    """
    return b"".join(
        told if isinstance(told, bytes) else _message(_of_place(told, freshness))
        for told in _parsed(events)
    )


def _message(event: Event) -> bytes:
    return Response(events=[event]).SerializeToString()


@lru_cache(maxsize=_MOST_REMEMBERED)
def _parsed(events: bytes) -> tuple[bytes | _Place, ...]:
    """Parse events (WHATWG HTML, "Server-sent events") and serialize all that is the same for every
    watcher. Those at the same place get the same bytes; those that fall behind get the same events
    in other groups, so each is remembered by itself, too."""
    blocks = (block for block in events.split(b"\n\n") if block)
    told = (
        _remembered(block) if len(block) <= _LARGEST_REMEMBERED else _serialized(block)
        for block in blocks
    )
    return tuple(each for each in told if each is not None)


@lru_cache(maxsize=_MOST_EVENTS_REMEMBERED)
def _remembered(block: bytes) -> bytes | _Place | None:
    return _serialized(block)


def _serialized(block: bytes) -> bytes | _Place | None:
    parsed = _parsed_block(block)
    return _message(parsed) if isinstance(parsed, Event) else parsed


def _parsed_block(block: bytes) -> Event | _Place | None:
    """Return what one event tells; None: how long to wait before connecting again."""
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
    if b"event" not in fields:
        return None
    data, token = fields[b"data"], fields.get(b"id", b"").decode()
    match kind := fields[b"event"].decode():
        case "product":
            return Event(resume_token=token, product=messages.product(data))
        case "deleted":
            deleted = Response.Deleted(product_id=orjson.loads(data)["productId"])
            return Event(resume_token=token, deleted=deleted)
        case "write":
            told = orjson.loads(data)
            write = Response.WriteState(
                outbox_id=told["outboxId"],
                request_id=told["idempotencyKey"],
                state=told["state"],
                product_id=told["productId"],
            )
            return Event(resume_token=token, write=write)
        case "reset":
            return Event(reset=Response.Reset(reason=orjson.loads(data)["reason"]))
        case "state" | "ready" | "position":
            return _Place(kind, token, orjson.loads(data))
    raise ValueError(f"a stream wrote an event that no message tells: {kind}")


def _of_place(place: _Place, freshness: Freshness) -> Event:
    told = place.told
    at = messages.freshness(freshness)
    at.generation, at.offset = told["generation"] or "", told["offset"]
    event = Event(resume_token=place.resume_token)
    match place.kind:
        case "state":
            state = Response.State(state=told["state"], since=told["since"], freshness=at)
            event.state.CopyFrom(state)
        case "ready":
            event.ready.CopyFrom(Response.Ready(products=told["products"], freshness=at))
        case "position":
            event.position.CopyFrom(Response.ReadPosition(freshness=at))
    return event
