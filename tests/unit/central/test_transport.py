"""The network transport against servers that speak HTTP well, badly or not at all."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import httpx
import pytest

from store_cache.central.transport import AiohttpTransport

LONG = 20.0
SHORT = 0.05
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
END = b"<the line ends>"


class Server:
    """Answers each request with the next of `answers`, bytes as they are; after one with `END` it
    closes the line, and None it never gives."""

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
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1?offset=7"

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


@asynccontextmanager
async def network(connections: int = 4) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(connections=connections, idle_seconds=LONG, tls=None)
    try:
        yield transport
    finally:
        await transport.aclose()


def request(url: str, method: str = "GET", *, seconds: float = LONG) -> httpx.Request:
    timeouts = {"connect": seconds, "pool": seconds / 2, "read": seconds, "write": seconds}
    headers = {"Accept-Encoding": "identity", "X-API-Key": "canary"}
    content = b"{}" if method == "POST" else None
    extensions = {"timeout": timeouts}
    return httpx.Request(method, url, headers=headers, content=content, extensions=extensions)


async def ask(transport: AiohttpTransport, asked: httpx.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(asked)
    try:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return response.status_code, b"".join([chunk async for chunk in response.stream])
    finally:
        await response.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n[]" + END,
        b"HTTP/1.0 200 OK\r\n\r\n[]" + END,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
)
async def test_an_answer_is_taken_however_its_end_is_told(answer: bytes) -> None:
    """By its length, in chunks, or by the end of the line."""
    async with Server(answer) as server, network() as transport:
        assert (200, b"[]") == await ask(transport, request(server.url))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (END, httpx.RemoteProtocolError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]" + END, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n[]", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", httpx.ReadTimeout),
        (None, httpx.ReadTimeout),
    ],
)
async def test_what_is_no_whole_answer_is_an_error_of_the_line(
    answer: bytes | None, error: type[Exception]
) -> None:
    """[W3] The request was sent: each may have reached Central, and none says otherwise."""
    async with Server(answer) as server, network() as transport:
        with pytest.raises(error):
            await ask(transport, request(server.url, "POST", seconds=0.2))


async def test_nobody_listening_is_an_error_of_connecting() -> None:
    """[W3] Nothing was sent."""
    async with Server() as server:
        url = server.url
    async with network() as transport:
        with pytest.raises(httpx.ConnectError):
            await ask(transport, request(url, "POST"))


async def test_a_wait_for_a_free_connection_ends_as_one_for_connecting() -> None:
    """[W3] Nothing was sent."""
    async with Server(None) as server, network(connections=1) as transport:
        held = asyncio.create_task(ask(transport, request(server.url)))
        await server.asked.wait()
        with pytest.raises(httpx.ConnectTimeout):
            await ask(transport, request(server.url, "POST", seconds=SHORT))
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)

        assert 1 == server.connections


async def test_a_write_is_sent_once_though_its_connection_had_ended() -> None:
    """[W2] What reuses a kept connection in the moment of its end may have arrived: whether it is
    sent again is not the transport's to decide."""
    async with Server(OK, END, OK) as server, network() as transport:
        await ask(transport, request(server.url))
        with pytest.raises(httpx.TransportError):
            await ask(transport, request(server.url, "POST"))

        assert ["GET", "POST"] == [head.split()[0] for head in server.heads]


async def test_nothing_is_followed_kept_unpacked_or_added() -> None:
    """T6, T13: no redirect, no cookie, no content coding, and just the headers that were given."""
    moved = (
        b"HTTP/1.1 302 Found\r\nLocation: /v2\r\nSet-Cookie: a=b\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(packed := gzip.compress(b"[]")), packed)
    )
    async with Server(moved, OK) as server, network() as transport:
        assert (302, packed) == await ask(transport, request(server.url))
        await ask(transport, request(server.url))
        names = {line.partition(":")[0] for line in server.heads[1].split("\r\n")[1:] if line}

    assert {"Host", "Accept-Encoding", "X-API-Key"} == names
    assert server.heads[1].startswith("GET /v1?offset=7 HTTP/1.1\r\n")


async def test_an_answer_left_unread_takes_its_connection_with_it() -> None:
    """E6: the rest of an endless answer must not be taken for the next one."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n["
    async with Server(endless, OK) as server, network() as transport:
        response = await transport.handle_async_request(request(server.url))
        await response.aclose()

        assert (200, b"[]") == await ask(transport, request(server.url))
        assert 2 == server.connections
