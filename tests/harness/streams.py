"""A till's end of a stream of changes: parses what comes, and holds what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from store_cache.model.product import version_of
from tests.harness.clients import TILL_KEY
from tests.harness.http import HEAD_END, Reply, head_of, head_of_reply
from tests.harness.memory_network import MemoryTransport

PATIENCE_SECONDS = 700.0
STREAM = "/v1/store/inventory/stream"


class Event(NamedTuple):
    """`data` is the text as it came. `id` is the last one that was told, with it or before."""

    name: str
    data: bytes
    id: str | None

    @property
    def value(self) -> Any:
        return orjson.loads(self.data)


@dataclass
class EventParser:
    """Parses a stream as WHATWG HTML says. `retry` is in milliseconds."""

    last_id: str | None = None
    retry: int | None = None
    _rest: bytes = b""

    def feed(self, data: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [event for block in blocks if (event := self._event(block)) is not None]

    def _event(self, block: bytes) -> Event | None:
        name, lines = "message", []
        for line in block.split(b"\n"):
            field_name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            match field_name:
                case b"event":
                    name = value.decode()
                case b"data":
                    lines.append(value)
                case b"id":
                    self.last_id = value.decode()
                case b"retry":
                    self.retry = int(value)
        return Event(name, b"\n".join(lines), self.last_id) if lines else None


@dataclass
class Shelf:
    """What a till holds that applies the events: rows by product id, and whether all are there."""

    rows: dict[str, bytes] = field(default_factory=dict)
    is_ready: bool = False
    state: dict[str, Any] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        match event.name:
            case "product":
                self.rows[event.value["productId"]] = event.data
            case "deleted":
                self.rows.pop(event.value["productId"], None)
            case "reset":
                self.rows.clear()
                self.is_ready = False
            case "ready":
                self.is_ready = True
            case "state":
                self.state = event.value


class Dechunker:
    """Takes the chunks of a body apart; `is_whole` once the last one has come."""

    def __init__(self) -> None:
        self.is_whole = False
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        body = b""
        while True:
            line, end, rest = self._rest.partition(b"\r\n")
            if not end:
                return body
            size = int(line, 16)
            if len(rest) < size + 2:
                return body
            assert rest[size : size + 2] == b"\r\n"
            self._rest = rest[size + 2 :]
            body += rest[:size]
            self.is_whole = self.is_whole or size == 0


class StreamClient:
    """A stream that was opened. Nothing is read from its connection but by the methods."""

    def __init__(
        self, head: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.head = head
        self.parser = EventParser()
        self.shelf = Shelf()
        self.events: list[Event] = []
        self.has_ended = False
        self._asked = 0
        self._reader = reader
        self._writer = writer
        self._body = Dechunker()

    @classmethod
    async def open(
        cls, port: int, query: str = "", *, key: str = TILL_KEY, **headers: str
    ) -> StreamClient:
        """Open a stream; `last_event_id=…` becomes the header Last-Event-ID. An answer that is no
        stream has its body in `head`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        named = {"X-API-Key": key}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        writer.write(head_of("GET", STREAM + query, named, b""))
        status, fields = head_of_reply(await reader.readuntil(HEAD_END))
        length = int(fields.get("Content-Length", "0"))
        return cls(Reply(status, fields, await reader.readexactly(length)), reader, writer)

    async def read(self) -> list[Event]:
        """Wait for what comes next and apply it; empty at the end. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            data = await self._reader.read(65_536)
        if not data:
            self.has_ended = True
            return []
        came = self.parser.feed(self._body.feed(data))
        for event in came:
            self.shelf.apply(event)
        self.events += came
        return came

    async def until(self, is_it: Callable[[Event], bool]) -> Event:
        """Read until an event is it, from the one after the last that was asked for.

        Raises EOFError at the end of the stream, TimeoutError.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                while self._asked < len(self.events):
                    self._asked += 1
                    if is_it(self.events[self._asked - 1]):
                        return self.events[self._asked - 1]
                if self.has_ended:
                    raise EOFError
                await self.read()

    async def until_named(self, name: str) -> Event:
        return await self.until(lambda event: event.name == name)

    async def rest(self) -> list[Event]:
        """Read to the end."""
        began = len(self.events)
        while not self.has_ended:
            await self.read()
        return self.events[began:]

    @property
    def last_id(self) -> str:
        """The id to go on from."""
        assert self.parser.last_id is not None
        return self.parser.last_id

    @property
    def ended_cleanly(self) -> bool:
        return self.has_ended and self._body.is_whole

    @property
    def bytes_kept(self) -> int:
        """What the server keeps in memory for this client."""
        return self._other.get_write_buffer_size()

    @property
    def is_cut(self) -> bool:
        """Whether the server has closed the connection."""
        return self._other.is_closing()

    @property
    def _other(self) -> MemoryTransport:
        """The server's end, on a network in memory."""
        transport = self._writer.transport
        assert isinstance(transport, MemoryTransport)
        return transport.other

    def close(self) -> None:
        self._writer.close()


class FollowingReader:
    """Reads a stream for ever, and goes on after each break; checks that nothing goes back."""

    def __init__(self, port: int, wanted: list[str] | None = None) -> None:
        self.shelf = Shelf()
        self.resets: list[str] = []
        self.breaks = 0
        self.problems: list[str] = []
        self.wanted = wanted
        self._port = port
        self._last_id: str | None = None
        self._versions: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        query = "?from=start"
        if self.wanted is not None:
            query += "&productIds=" + ",".join(self.wanted)
        while True:
            headers = {} if self._last_id is None else {"last_event_id": self._last_id}
            with suppress(OSError, asyncio.IncompleteReadError):
                client = await StreamClient.open(self._port, query, key=TILL_KEY, **headers)
                try:
                    while not client.has_ended and client.head.status == 200:
                        for event in await client.read():
                            self._apply(event)
                finally:
                    client.close()
            self.breaks += 1
            await asyncio.sleep(0.05)

    def _apply(self, event: Event) -> None:
        self.shelf.apply(event)
        self._last_id = event.id or self._last_id
        if event.name == "reset":
            self.resets.append(event.value["reason"])
        if event.name == "product":
            place = (self.shelf.state["generation"], event.value["productId"])
            version = version_of(event.data)
            if version < self._versions.get(place, 0):
                self.problems.append(f"{place} went back to {version}")
            self._versions[place] = version

    def holds(self, rows: dict[str, Any]) -> bool:
        wanted = {i: row for i, row in rows.items() if self.wanted is None or i in self.wanted}
        held = {i: orjson.loads(row) for i, row in self.shelf.rows.items()}
        return self.shelf.is_ready and held == wanted
