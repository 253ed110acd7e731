"""Two servers of one fake, one with fast reads and one without, on connections in memory.

Both are fed the same bytes, and must answer the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from store_cache.api.app import FAST_READS, UNROUTED
from store_cache.api.connection import ClientConnection
from store_cache.api.fast.reads import FastReads
from store_cache.api.limits import ConnectionLimiter, ConnectionLimits
from store_cache.api.server import track_requests
from tests.harness.fake_store import FakeStore
from tests.unit.api.conftest import api_of

SETTLED_SECONDS = 0.001
"""Of virtual time: it passes once all callbacks that are ready have run."""

_CHANGING = re.compile(rb"(?m)^(Date: ).*\r$|^(X-Request-ID: )[0-9a-f]{32}\r$")


def without_changing(answers: bytes | bytearray) -> bytes:
    """Return answers without their dates and new request ids."""
    return _CHANGING.sub(rb"\1\2*\r", bytes(answers))


class Wire(asyncio.Transport):
    """The client's end of a connection. `sent` is all that the server wrote, `writes` how often;
    `at_once` is fed as soon as the server writes next."""

    def __init__(self, connection: ClientConnection, address: str) -> None:
        super().__init__({"peername": (address, 50_000)})
        self.connection = connection
        self.sent = bytearray()
        self.writes = 0
        self.is_closed = False
        self.at_once = b""
        connection.connection_made(self)

    def feed(self, data: bytes) -> None:
        if not self.is_closed:
            self.connection.data_received(data)

    async def deliver(self, *chunks: bytes) -> None:
        """Feed one chunk after the other, each once the one before has been processed."""
        for chunk in chunks:
            self.feed(chunk)
            await asyncio.sleep(SETTLED_SECONDS)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closed:
            self.writes += 1
            self.sent += data
            if self.at_once:
                asyncio.get_running_loop().call_soon(self.feed, self.at_once)
                self.at_once = b""

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        """Bytes are fed nevertheless; the parser holds them."""

    def resume_reading(self) -> None:
        pass


@dataclass
class Server:
    """One of the two. `seen` counts the requests that reached aiohttp."""

    server: web.Server
    limiter: ConnectionLimiter
    fast_reads: FastReads | None

    @property
    def seen(self) -> int:
        return self.server.requests_count

    def connect(self, address: str = "127.0.0.1") -> Wire:
        return Wire(ClientConnection(self.server, self.limiter, self.fast_reads), address)


@asynccontextmanager
async def memory_server(
    fake: FakeStore, *, limits: ConnectionLimits | None = None, **settings: Any
) -> AsyncIterator[Server]:
    app = api_of(fake, **settings)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    track_requests(runner.server, app[UNROUTED])
    limiter = ConnectionLimiter(limits or ConnectionLimits())
    yield Server(runner.server, limiter, app.get(FAST_READS))
    limiter.close()
    await runner.cleanup()


@dataclass
class Twins:
    fast: Server
    plain: Server

    def connect(self, address: str = "127.0.0.1") -> Pair:
        return Pair(self.fast.connect(address), self.plain.connect(address))


@dataclass
class Pair:
    """A connection to each of the two."""

    fast: Wire
    plain: Wire

    async def feed(self, *chunks: bytes, settled_seconds: float = SETTLED_SECONDS) -> None:
        for chunk in chunks:
            self.fast.feed(chunk)
            self.plain.feed(chunk)
            await asyncio.sleep(settled_seconds)

    @property
    def plain_answers(self) -> tuple[bytes, bool]:
        """What the plain server sent, without dates and ids, and whether it closed."""
        return without_changing(self.plain.sent), self.plain.is_closed

    @property
    def fast_answers(self) -> tuple[bytes, bool]:
        return without_changing(self.fast.sent), self.fast.is_closed

    async def close(self) -> None:
        self.fast.close()
        self.plain.close()
        await asyncio.sleep(SETTLED_SECONDS)


@asynccontextmanager
async def twin_servers(fake: FakeStore, **settings: Any) -> AsyncIterator[Twins]:
    async with (
        memory_server(fake, fast_reads=True, **settings) as fast,
        memory_server(fake, fast_reads=False, **settings) as plain,
    ):
        yield Twins(fast, plain)
