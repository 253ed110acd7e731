"""Two servers before one shop, with the fast reads and without, on connections in memory.

What is fed to one is fed to the other; what they say must be the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from store_cache.api.app import FAST_READS, build_api
from store_cache.api.limits import ClientConnection, ConnectionLimiter, ConnectionLimits
from store_cache.api.server import track_requests
from tests.harness.shop import Shop

SETTLED_SECONDS = 0.001
"""Of virtual time: it does not pass before everything that can be done has been."""

_CHANGING = re.compile(rb"(?m)^(Date: ).*\r$|^(X-Request-ID: )[0-9a-f]{32}\r$")


class Wire(asyncio.Transport):
    """A connection's other end. `sent` is all that was written, `writes` how often; `at_once` is
    what the other side says as soon as it is next written to."""

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
        """What waits here is fed nevertheless: a parser holds it."""

    def resume_reading(self) -> None:
        pass


@dataclass
class Server:
    """One of the two. `seen` counts the requests that came to aiohttp."""

    server: web.Server
    limiter: ConnectionLimiter

    @property
    def seen(self) -> int:
        return self.server.requests_count

    def connect(self, address: str = "127.0.0.1") -> Wire:
        return Wire(self.limiter.protocol(self.server), address)


@asynccontextmanager
async def a_server(
    shop: Shop, *, fast_reads: bool = True, limits: ConnectionLimits | None = None, **settings: Any
) -> AsyncIterator[Server]:
    usual: dict[str, Any] = {
        "store_id": "store-s1",
        "keys": ["till-secret"],
        "admin_keys": ["office-secret"],
        "cors_origins": [],
    }
    app = build_api(shop.parts, fast_reads=fast_reads, **(usual | settings))
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    track_requests(runner.server)
    limiter = ConnectionLimiter(limits or ConnectionLimits(), app.get(FAST_READS))
    yield Server(runner.server, limiter)
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
    def said(self) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        """What each has sent, without what changes each time, and whether it closed."""
        return (
            (unchanging(self.plain.sent), self.plain.is_closed),
            (unchanging(self.fast.sent), self.fast.is_closed),
        )

    async def close(self) -> None:
        self.fast.close()
        self.plain.close()
        await asyncio.sleep(SETTLED_SECONDS)


@asynccontextmanager
async def the_twins(shop: Shop, **settings: Any) -> AsyncIterator[Twins]:
    async with (
        a_server(shop, fast_reads=True, **settings) as fast,
        a_server(shop, fast_reads=False, **settings) as plain,
    ):
        yield Twins(fast, plain)


def unchanging(sent: bytes | bytearray) -> bytes:
    return _CHANGING.sub(rb"\1\2*\r", bytes(sent))
