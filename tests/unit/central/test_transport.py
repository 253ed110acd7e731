"""The network transport against servers that speak HTTP correctly, wrongly or not at all."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from store_cache.central.transport import PARSED_AT_ONCE_BYTES, AiohttpTransport
from tests.unit.central.server import END, Server

LONG = 20.0
SHORT = 0.05
PATH = "/v1?offset=7"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


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


async def send(transport: AiohttpTransport, asked: httpx.Request) -> tuple[int, bytes]:
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
async def test_answer_ends_by_length_chunks_or_close(answer: bytes) -> None:
    async with Server(answer) as server, network() as transport:
        assert (200, b"[]") == await send(transport, request(server.url + PATH))


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
async def test_incomplete_answer_is_an_error_of_the_exchange(
    answer: bytes | None, error: type[Exception]
) -> None:
    """[W3] The request may have reached Central, and no such error says otherwise."""
    async with Server(answer) as server, network() as transport:
        with pytest.raises(error):
            await send(transport, request(server.url + PATH, "POST", seconds=0.2))


async def test_closed_port_is_an_error_of_connecting() -> None:
    """[W3] Nothing was sent."""
    async with Server() as server:
        url = server.url + PATH
    async with network() as transport:
        with pytest.raises(httpx.ConnectError):
            await send(transport, request(url, "POST"))


async def test_wait_for_a_free_connection_ends_as_an_error_of_connecting() -> None:
    """[W3] Nothing was sent."""
    async with Server(None) as server, network(connections=1) as transport:
        held = asyncio.create_task(send(transport, request(server.url + PATH)))
        await server.asked.wait()
        with pytest.raises(httpx.ConnectTimeout):
            await send(transport, request(server.url + PATH, "POST", seconds=SHORT))
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)

        assert 1 == server.connections


async def test_write_is_sent_once_though_its_connection_closes() -> None:
    """[W2] On a kept connection that closes, a write may have arrived: the transport does not
    repeat it."""
    async with Server(OK, END, OK) as server, network() as transport:
        await send(transport, request(server.url + PATH))
        with pytest.raises(httpx.TransportError):
            await send(transport, request(server.url + PATH, "POST"))

        assert ["GET", "POST"] == [head.split()[0] for head in server.heads]


async def test_no_redirect_cookie_unpacking_or_extra_header() -> None:
    """T6, T13: the transport does exactly what the request says."""
    moved = (
        b"HTTP/1.1 302 Found\r\nLocation: /v2\r\nSet-Cookie: a=b\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(packed := gzip.compress(b"[]")), packed)
    )
    async with Server(moved, OK) as server, network() as transport:
        assert (302, packed) == await send(transport, request(server.url + PATH))
        await send(transport, request(server.url + PATH))
        names = {line.partition(":")[0] for line in server.heads[1].split("\r\n")[1:] if line}

    assert {"Host", "Accept-Encoding", "X-API-Key"} == names
    assert server.heads[1].startswith("GET /v1?offset=7 HTTP/1.1\r\n")


async def test_unread_answer_closes_its_connection() -> None:
    """E6: the rest of an endless answer is not taken for the next answer."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n["
    async with Server(endless, OK) as server, network() as transport:
        response = await transport.handle_async_request(request(server.url + PATH))
        await response.aclose()

        assert (200, b"[]") == await send(transport, request(server.url + PATH))
        assert 2 == server.connections


@pytest.mark.parametrize("ending", [b"", END])
async def test_other_tasks_run_while_an_answer_is_parsed(ending: bytes) -> None:
    """E6: what the socket has at once is parsed in parts, so that an answer of tiny chunks holds up
    nothing. All of it arrives, in its order."""
    body = b"".join(b"%07d," % number for number in range(200_000))
    length = b"" if ending else b"Content-Length: %d\r\n" % len(body)
    answer = b"HTTP/1.1 200 OK\r\n%s\r\n%s%s" % (length, body, ending)
    async with Server(answer) as server, network() as transport:
        response = await transport.handle_async_request(request(server.url + PATH))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        chunks = [chunk async for chunk in response.stream]
        await response.aclose()

    assert body == b"".join(chunks)
    assert max(map(len, chunks)) <= 2 * PARSED_AT_ONCE_BYTES


async def test_a_reader_that_waits_gets_all_of_an_answer() -> None:
    """The peer is paused meanwhile, and goes on."""
    body = b"".join(b"%07d," % number for number in range(200_000))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with Server(answer, OK) as server, network() as transport:
        response = await transport.handle_async_request(request(server.url + PATH))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        read = b""
        async for chunk in response.stream:
            read += chunk
            for _ in range(20):
                await asyncio.sleep(0)
        await response.aclose()

        assert body == read
        assert (200, b"[]") == await send(transport, request(server.url + PATH))
        assert 1 == server.connections


async def test_what_follows_an_answer_is_taken_for_no_other() -> None:
    """A Central that sends two answers to one request has its connection closed."""
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"7" * 60_000
    async with Server(OK + more, OK) as server, network() as transport:
        assert (200, b"[]") == await send(transport, request(server.url + PATH))
        await asyncio.sleep(0)

        assert (200, b"[]") == await send(transport, request(server.url + PATH))
        assert 2 == server.connections
