"""A TCP proxy with Toxiproxy's eight faults, in both directions."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum

AT_ONCE_BYTES = 4096
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: a close is a reset


class Toxic(StrEnum):
    LATENCY = "latency"  # every piece is late
    DOWN = "down"  # nothing listens, and open connections break
    BANDWIDTH = "bandwidth"  # a few bytes at a time
    SLOW_CLOSE = "slow_close"  # connections end, and the store is told late
    TIMEOUT = "timeout"  # silence, the connection stays open
    SLICER = "slicer"  # pieces of a few bytes, with pauses
    LIMIT_DATA = "limit_data"  # the connection ends after some bytes, in the middle of an answer
    RESET_PEER = "reset_peer"  # connections are reset, some of them before anything was passed


class Proxy:
    """Listens on a port that stays the same, and passes everything on to `target_port`. `struck`
    counts how often the fault had an effect."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.struck = 0
        self._target_port = target_port
        self._toxic: Toxic | None = None
        self._healed = asyncio.Event()
        self._hit = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._onward: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def strike(self, toxic: Toxic) -> None:
        """Begin this fault, for open connections too."""
        self._healed.clear()
        self._hit.clear()
        self._toxic, self.struck = toxic, 0
        if toxic is Toxic.DOWN:
            self._note()
            await self.stop()
        if toxic is Toxic.SLOW_CLOSE:
            for writer in self._onward:
                writer.transport.abort()

    async def until_struck(self) -> None:
        """Wait until the fault has had an effect."""
        await self._hit.wait()

    async def heal(self) -> None:
        was, self._toxic = self._toxic, None
        self._healed.set()
        if was is Toxic.DOWN:
            await self.start()

    def _note(self) -> None:
        self.struck += 1
        self._hit.set()

    # -- connections -----------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._toxic is Toxic.RESET_PEER and self.struck % 2:
                self._reset(writer)
                return
            onward = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        finally:
            self._writers.discard(writer)
        self._writers |= {writer, onward[1]}
        self._onward.add(onward[1])
        there = asyncio.create_task(self._pass_on(reader, onward[1]))
        back = asyncio.create_task(self._pass_on(onward[0], writer))
        await asyncio.wait([there, back])
        self._writers -= {writer, onward[1]}
        self._onward.discard(onward[1])

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(AT_ONCE_BYTES):
                passed += len(data)
                if not await self._let_through(data, writer, passed):
                    break
            if self._toxic is Toxic.SLOW_CLOSE:
                await self._wait(2.0)
        writer.close()

    async def _let_through(self, data: bytes, writer: asyncio.StreamWriter, passed: int) -> bool:
        """Pass a piece on as the fault allows; return False if the connection ends here."""
        match self._toxic:
            case Toxic.RESET_PEER:
                self._reset(writer)
                return False
            case Toxic.LIMIT_DATA if passed > 300:
                self._note()
                writer.write(data[: max(len(data) // 2, 1)])
                return False
            case Toxic.TIMEOUT:
                self._note()
                await self._healed.wait()
                return False
            case Toxic.LATENCY:
                await self._wait(0.3)
            case Toxic.BANDWIDTH:
                await self._pieces(data, writer, size=64, pause_seconds=0.05)
                return True
            case Toxic.SLICER:
                await self._pieces(data, writer, size=7, pause_seconds=0.002)
                return True
        writer.write(data)
        await writer.drain()
        return True

    async def _pieces(
        self, data: bytes, writer: asyncio.StreamWriter, *, size: int, pause_seconds: float
    ) -> None:
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await self._wait(pause_seconds)

    async def _wait(self, seconds: float) -> None:
        """Pause, at most until the fault ends."""
        self._note()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._healed.wait(), seconds)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._note()
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
