"""A till's connection to the store: bytes over the store's own HTTP protocol, in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from tests.harness.http import HEAD_END, Reply, head_of_reply
from tests.simulation.loop import Listener, SimulatedLoop

PATIENCE_SECONDS = 30.0


class ConnectionLost(Exception):
    """The connection is gone; it is not known whether the request arrived."""


class ServerEnd(asyncio.Transport):
    """The store's end of a connection."""

    def __init__(self, connection: TillConnection) -> None:
        super().__init__({"peername": ("127.0.0.9", 50_000)})
        self._connection = connection
        self._is_closing = False

    def write(self, data: Any) -> None:
        self._connection.take(bytes(data))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._connection.closed_by_server()

    def abort(self) -> None:
        self.close()

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class TillConnection:
    """One connection, open as long as both ends want."""

    def __init__(self, loop: SimulatedLoop, listener: Listener) -> None:
        self.is_open = True
        self._loop = loop
        self._listener = listener
        self._end = ServerEnd(self)
        self._protocol: asyncio.Protocol | None = None
        self._received = b""
        self._waiter: asyncio.Future[None] | None = None

    async def call(self, request: bytes) -> Reply:
        """Send a request and wait for its answer. Raises ConnectionLost."""
        self._received = b""
        self._loop.call_soon(self._deliver, request, context=self._listener.context)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._answer()
        except TimeoutError:
            self.hang_up()
            raise ConnectionLost("no answer") from None
        except asyncio.CancelledError:
            self.hang_up()  # the next call would take this one's answer for its own
            raise

    def hang_up(self) -> None:
        """Close it from the till's end."""
        if self.is_open:
            self.is_open = False
            self._loop.call_soon(self._lose, context=self._listener.context)

    def break_off(self) -> None:
        """End it because the process at the other end died."""
        self.is_open = False
        self._wake()

    # -- the server's end ------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def closed_by_server(self) -> None:
        self.is_open = False
        self._loop.call_soon(self._lose, context=self._listener.context)
        self._wake()

    def _deliver(self, data: bytes) -> None:
        if self._protocol is None:
            self._protocol = self._listener.factory()
            self._protocol.connection_made(self._end)
        if not self._end.is_closing():
            self._protocol.data_received(data)

    def _lose(self) -> None:
        if self._protocol is not None:
            self._end._is_closing = True
            self._protocol.connection_lost(None)

    # -- the answer ------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _answer(self) -> Reply:
        while (answer := self._whole()) is None:
            if not self.is_open:
                raise ConnectionLost("closed")
            self._waiter = self._loop.create_future()
            await self._waiter
        return answer

    def _whole(self) -> Reply | None:
        head, separator, rest = self._received.partition(HEAD_END)
        if not separator:
            return None
        status, headers = head_of_reply(head + separator)
        length = int(headers.get("Content-Length", "0"))
        return None if len(rest) < length else Reply(status, headers, rest[:length])


def request_bytes(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    content = b"" if body is None else orjson.dumps(body)
    named = {"Host": "store", "X-API-Key": "till-secret", "Content-Length": str(len(content))}
    if body is not None:
        named["Content-Type"] = "application/json"
    named |= {name.replace("_", "-"): text for name, text in headers.items()}
    lines = "".join(f"{name}: {text}\r\n" for name, text in named.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + content
