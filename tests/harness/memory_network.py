"""TCP in memory: listeners and connections of one event loop, without sockets.

A connection delivers bytes in the order in which they were written, each piece in a callback of
its own, and loses none. What an end that has paused does not read fills `SYSTEM_BYTES` and then the
writer's buffer. Callbacks of a server's end run in the context in which it began to listen.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

Factory = Callable[[], asyncio.BaseProtocol]
Address = tuple[str, int]

HOST = "127.0.0.1"
FIRST_PORT = 20_000

SYSTEM_BYTES = 64 * 1024
"""What the system takes for an end that does not read."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection; `connect` joins two of them."""

    def __init__(self, protocol: Any, context: Context, extra: dict[str, Address]) -> None:
        super().__init__(extra)
        self.other: MemoryTransport
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._context = context
        self._received: deque[bytes | None] = deque()  # None: the other end has closed
        self._is_paused = False
        self._is_closing = False
        self._unread = 0
        self._low, self._high = 16 * 1024, 64 * 1024
        self._has_paused_writer = False

    def begin(self) -> None:
        self._context.run(self._protocol.connection_made, self)

    def write(self, data: Any) -> None:
        if not self._is_closing and data:
            self.other.receive(bytes(data))
            if self.get_write_buffer_size() > self._high and not self._has_paused_writer:
                self._has_paused_writer = True
                self._context.run(self._protocol.pause_writing)

    def write_eof(self) -> None:
        self.other.receive(None)

    def can_write_eof(self) -> bool:
        return True

    def receive(self, data: bytes | None) -> None:
        self._received.append(data)
        self._unread += len(data or b"")
        self._loop.call_soon(self._deliver, context=self._context)

    def _deliver(self) -> None:
        if not self._received or self._is_paused or self._is_closing:
            return
        data = self._received.popleft()
        if data is not None:
            self._unread -= len(data)
            self.other.was_read()
            self._protocol.data_received(data)
        elif not self._protocol.eof_received():
            self.close()

    def was_read(self) -> None:
        """Note that the other end has read."""
        if self._has_paused_writer and self.get_write_buffer_size() <= self._low:
            self._has_paused_writer = False
            self._context.run(self._protocol.resume_writing)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.other.receive(None)
            self._loop.call_soon(self._protocol.connection_lost, None, context=self._context)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        for _ in self._received:
            self._loop.call_soon(self._deliver, context=self._context)

    def is_reading(self) -> bool:
        return not self._is_paused

    def get_write_buffer_size(self) -> int:
        return max(0, self.other._unread - SYSTEM_BYTES)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low


class Listener:
    """What `create_server` returns; it is its own only socket."""

    def __init__(self, network: MemoryNetwork, factory: Factory, address: Address) -> None:
        self.sockets = (self,)
        self._network = network
        self._factory = factory
        self._address = address
        self._context = copy_context()

    def getsockname(self) -> Address:
        return self._address

    def accept(self, peername: Address) -> MemoryTransport:
        extra = {"peername": peername, "sockname": self._address}
        return MemoryTransport(self._context.run(self._factory), self._context, extra)

    def close(self) -> None:
        self._network.end(self)

    async def wait_closed(self) -> None:
        """Its connections outlive it."""


class MemoryNetwork:
    """The ports of one machine."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._last_port = FIRST_PORT

    def listen(self, factory: Factory, port: int) -> Listener:
        """Listen on `port` (0: one that was never used). Raises OSError where it is taken."""
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = Listener(self, factory, (HOST, port or self._next_port()))
        self._listeners[listener.getsockname()[1]] = listener
        return listener

    def end(self, listener: Listener) -> None:
        port = listener.getsockname()[1]
        if self._listeners.get(port) is listener:
            del self._listeners[port]

    def check(self, port: int) -> None:
        """Raises ConnectionRefusedError where nothing listens on the port."""
        if port not in self._listeners:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nothing listens on port {port}")

    def connect(self, factory: Factory, port: int) -> MemoryTransport:
        """The client's end of a new connection. Raises ConnectionRefusedError."""
        self.check(port)
        address = (HOST, self._next_port())
        server = self._listeners[port].accept(address)
        extra = {"peername": (HOST, port), "sockname": address}
        client = MemoryTransport(factory(), copy_context(), extra)
        client.other, server.other = server, client
        server.begin()
        client.begin()
        return client

    def _next_port(self) -> int:
        self._last_port += 1
        return self._last_port
