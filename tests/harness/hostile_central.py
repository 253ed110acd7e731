"""A Central on a real socket that answers rightly, until an attack is set.

An attack is the bytes of whole HTTP answers, by the kind of request that they answer. They are made
piece by piece, so that an answer of 60 MB costs this process nothing.
"""

from __future__ import annotations

import asyncio
import gzip
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

MEGABYTE = 1_000_000
MOST = 60 * MEGABYTE
"""About as much as one answer may have."""

PIECE = 64 * 1024
GENERATION = "g-hostile"
HELD_SECONDS = 1.1
FIRST_OFFSET = 1

Query = Mapping[str, str]
AnswerTo = Callable[[Query], Iterable[bytes]]


class Route(StrEnum):
    EVENTS = "events"
    PAGES = "pages"
    PRODUCT = "product"
    UPDATES = "updates"


@dataclass(frozen=True, slots=True)
class Attack:
    """`answers`: by route; other routes are answered rightly."""

    name: str
    answers: Mapping[Route, AnswerTo]


def row(product_id: str, *, version: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "productId": product_id,
        "name": f"Product {product_id}",
        "available": 7,
        "version": version,
        **more,
    }


def event(offset: int, product_id: str = "P-1", **more: Any) -> dict[str, Any]:
    """An update of the product to the version that is the offset."""
    return {
        "offset": offset,
        "eventType": "product_modified",
        "productId": product_id,
        "version": offset + 1,
        "data": row(product_id, version=offset + 1),
    } | more


class HostileCentral:
    """Three products and a feed; `tell` adds an event."""

    def __init__(self) -> None:
        self.attack: Attack | None = None
        self.struck = 0
        self.asked: deque[str] = deque(maxlen=1000)
        """The heads of the last requests, as they came."""
        self.rows = {f"P-{number}": row(f"P-{number}") for number in range(1, 4)}
        self.events: list[dict[str, Any]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def next_offset(self) -> int:
        return FIRST_OFFSET + len(self.events)

    def tell(self, product_id: str = "P-1") -> None:
        """Change a product; its event is on the feed."""
        told = event(self.next_offset, product_id)
        self.rows[product_id] = told["data"]
        self.events.append(told)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[HostileCentral]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()
        self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.asked.append(head)
        method, target = head.split(" ")[:2]
        length = next((line for line in head.split("\r\n") if line.startswith("Content-L")), ": 0")
        body = await reader.readexactly(int(length.partition(":")[2]))
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        route = _route(method, parts.path)
        answer = None if self.attack is None else self.attack.answers.get(route)
        if answer is None:
            writer.write(json_answer(await self._right_answer(route, parts.path, query, body)))
            await writer.drain()
            return True
        self.struck += 1
        for piece in answer(query | {"next": str(self.next_offset)}):
            writer.write(piece)
            await writer.drain()
        return False

    async def _right_answer(self, route: Route, path: str, query: Query, body: bytes) -> Any:
        match route:
            case Route.EVENTS:
                if int(query["offset"]) >= self.next_offset and query.get("wait", "0") != "0":
                    await asyncio.sleep(HELD_SECONDS)
                first = int(query["offset"]) - FIRST_OFFSET
                events = self.events[max(0, first) :][: int(query["limit"])]
                return {
                    "events": events,
                    "nextOffset": self.next_offset,
                    "hasMore": False,
                    "generation": GENERATION,
                }
            case Route.PAGES:
                return {
                    "products": [*self.rows.values()],
                    "pagination": {"total": len(self.rows), "hasMore": False},
                    "eventOffset": self.next_offset - 1,
                    "generation": GENERATION,
                }
            case Route.PRODUCT:
                return self.rows.get(unquote(path.rpartition("/")[2])) or {"error": "not_found"}
            case Route.UPDATES:
                return {"error": "no writes here"}


def _route(method: str, path: str) -> Route:
    if method == "POST":
        return Route.UPDATES
    if path.endswith("/events"):
        return Route.EVENTS
    return Route.PAGES if path.endswith("/inventory") else Route.PRODUCT


# -- answers -----------------------------------------------------------------------------------


def json_answer(value: Any) -> bytes:
    body = orjson.dumps(value)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def until_closed(*pieces: Iterable[bytes], headers: bytes = b"") -> Iterator[bytes]:
    """An answer of these pieces, which ends when the connection does."""
    yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + headers + b"\r\n"
    for some in pieces:
        yield from some


def repeated(item: bytes, *, size: int = MOST, between: bytes = b",") -> Iterator[bytes]:
    """As many items as fit into `size` bytes, with commas between."""
    count = max(1, PIECE // (len(item) + 1))
    piece = between.join([item] * count)
    for number in range(max(1, size // len(piece))):
        yield between + piece if number else piece


def numbered(template: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    """Items with numbers from 0 on, with commas between."""
    held = bytearray()
    for number in range(count):
        held += (b"," if number else b"") + template(number)
        if len(held) >= PIECE:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def feed_of(*items: Iterable[bytes]) -> Iterator[bytes]:
    return until_closed([b'{"generation":"%s","events":[' % GENERATION.encode()], *items, [b"]}"])


def page_of(*items: Iterable[bytes]) -> Iterator[bytes]:
    head = b'{"generation":"%s","eventOffset":0,"products":[' % GENERATION.encode()
    return until_closed([head], *items, [b"]}"])


def one_byte_chunks(size: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(size // PIECE):
        yield b"1\r\n \r\n" * PIECE
    yield b"0\r\n\r\n"


# -- attacks -----------------------------------------------------------------------------------


def _offset(query: Query) -> int:
    return int(query.get("offset", "0"))


def _event_of(offset: int, **more: Any) -> bytes:
    return orjson.dumps(event(offset, **more))


def _soup_event(offset: int, size: int) -> bytes:
    """An event whose data is as many objects as fit."""
    plain = _event_of(offset)
    return plain[:-2] + b',"tags":[' + b",".join([b"{}"] * (size // 3)) + b"]}}"


def _soup_row(number: int, size: int) -> bytes:
    plain = orjson.dumps(row(f"S-{number}"))
    return plain[:-1] + b',"tags":[' + b",".join([b"{}"] * (size // 3)) + b"]}"


def _named_row(number: int) -> bytes:
    """A row whose names no other row has."""
    names = {f"name {number} {each}": each for each in range(50)}
    return orjson.dumps(row(f"N-{number}") | names)


def _tiny_row(number: int) -> bytes:
    return b'{"productId":"%x","name":"","version":1,"available":0}' % number


def _large_row(number: int, size: int) -> bytes:
    return orjson.dumps(row(f"L-{number}", text="x" * size))


EVENT_ATTACKS: Mapping[str, AnswerTo] = {
    "400,000 events": lambda query: feed_of(
        numbered(lambda number: _event_of(_offset(query) + number), 400_000)
    ),
    "20 million objects": lambda _: feed_of(repeated(b"{}")),
    "20 million lists": lambda _: feed_of(repeated(b"[]")),
    "30 million numbers": lambda _: feed_of(repeated(b"0")),
    "small objects": lambda _: feed_of(repeated(b'{"a":1}')),
    "an event of 10 MB": lambda query: feed_of(
        [_soup_event(_offset(query), 10 * MEGABYTE)],
    ),
    "100 events of 60 kB": lambda query: feed_of(
        numbered(lambda number: _soup_event(_offset(query) + number, 60_000), 100)
    ),
    "events behind a gap": lambda query: feed_of(
        numbered(lambda number: _soup_event(_offset(query) + 10 + number, 60_000), 100)
    ),
    "a text of 60 MB": lambda _: until_closed(
        [b'{"generation":"'], repeated(b"g" * PIECE, between=b"")
    ),
    "60 MB of spaces": lambda _: until_closed([b" "], repeated(b" " * PIECE, between=b"")),
    "many names": lambda _: until_closed(
        [b"{"], numbered(lambda number: b'"%x":0' % number, 6_000_000), [b"}"]
    ),
    "nested deep": lambda _: feed_of(repeated(b"[", between=b"")),
    "nested deep, objects": lambda _: feed_of(repeated(b'{"a":', between=b"")),
    "long numbers": lambda _: feed_of(repeated(b"12345678901234567890123")),
    "a number of 10 MB": lambda _: feed_of(repeated(b"9" * PIECE, size=10_000_000, between=b"")),
    "quotation marks": lambda _: feed_of([b'"'], repeated(b'\\"', between=b"")),
    "chunks of a byte": lambda _: one_byte_chunks(10 * MEGABYTE),
    "interim answers": lambda _: repeated(b"HTTP/1.1 100 Continue\r\n\r\n", between=b""),
    "endless headers": lambda _: [
        b"HTTP/1.1 200 OK\r\n",
        *repeated(b"X-Header: some value\r\n", size=10_000_000, between=b""),
    ],
    "compressed": lambda _: until_closed(
        [gzip.compress(b'{"events":[' + b"{}," * MEGABYTE)], headers=b"Content-Encoding: gzip\r\n"
    ),
    "a long error": lambda _: [
        b"HTTP/1.1 503 Unavailable\r\nConnection: close\r\n\r\n",
        *repeated(b"{}"),
    ],
}

PAGE_ATTACKS: Mapping[str, AnswerTo] = {
    "20 million objects": lambda _: page_of(repeated(b"{}")),
    "20 million lists": lambda _: page_of(repeated(b"[]")),
    "bare 20 million objects": lambda _: until_closed([b"["], repeated(b"{}"), [b"]"]),
    "a million tiny rows": lambda _: page_of(numbered(_tiny_row, 1_100_000)),
    "a row of 10 MB": lambda _: page_of(
        numbered(lambda number: orjson.dumps(row(f"P-{number + 1}")), 2),
        [b"," + _soup_row(1, 10 * MEGABYTE)],
    ),
    "1,000 rows of 60 kB": lambda _: page_of(
        numbered(lambda number: _soup_row(number, 58_000), 1000)
    ),
    "rows of other names": lambda _: page_of(numbered(_named_row, 20_000)),
    "one product again and again": lambda _: page_of(repeated(orjson.dumps(row("P-1")))),
    "long ids": lambda _: page_of(
        numbered(lambda number: b'{"productId":"%x%s"}' % (number, b"i" * 20_000), 900)
    ),
    "nested deep": lambda _: page_of(repeated(b"[", between=b"")),
    "a text of 60 MB": lambda _: until_closed(
        [b'{"nextCursor":"'], repeated(b"g" * PIECE, between=b"")
    ),
}

PRODUCT_ATTACKS: Mapping[str, AnswerTo] = {
    "20 million objects": lambda _: until_closed([b"["], repeated(b"{}"), [b"]"]),
    "a row of 10 MB": lambda _: until_closed(
        [b'{"productId":"P-1","version":9,"available":1,"name":"'],
        repeated(b"x" * PIECE, size=10 * MEGABYTE, between=b""),
        [b'"}'],
    ),
    "as much as is taken": lambda _: until_closed([b"["], repeated(b"{}", size=990_000), [b"]"]),
}

ATTACKS: Mapping[str, Attack] = {
    f"{route}: {name}": Attack(name, {route: answer})
    for route, answers in (
        (Route.EVENTS, EVENT_ATTACKS),
        (Route.PAGES, PAGE_ATTACKS),
        (Route.PRODUCT, PRODUCT_ATTACKS),
    )
    for name, answer in answers.items()
}
