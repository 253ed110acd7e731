"""A server on a real socket, whose answers are bytes."""

from __future__ import annotations

import asyncio
from types import TracebackType

END = b"<the connection closes>"


class Server:
    """Answers each request with the next of `answers`. After an answer with `END` it closes the
    connection; None holds the request."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.heads: list[str] = []
        self.asked = asyncio.Event()
        self.connections = 0
        self._held = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._held.set()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        self.asked.set()
        answer = self._answers.pop(0)
        if answer is None:
            await self._held.wait()
            return False
        writer.write(answer.removesuffix(END))
        return not answer.endswith(END)
