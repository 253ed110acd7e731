"""Answers written at once: the same bytes as aiohttp writes, and aiohttp where that is needed."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import web

from store_cache.api.answers import WholeAnswer
from tests.harness.http import DEADLINE_SECONDS, Connection

BODY = b'{"name":"caf\xc3\xa9"}'
HEADERS = {"Content-Type": "application/json", "ETag": '"a"', "Vary": "Origin", "Server": "x"}
GET = "GET /%s HTTP/1.1\r\nHost: store\r\n%s\r\n"
LAST = "Connection: close\r\n"


async def whole(_: web.Request) -> web.Response:
    return WholeAnswer(body=BODY, headers=HEADERS)


async def usual(_: web.Request) -> web.Response:
    return web.Response(body=BODY, headers=HEADERS)


async def closing(_: web.Request) -> web.Response:
    answer = WholeAnswer(status=409, body=BODY, headers=HEADERS)
    answer.force_close()
    return answer


async def answered(*requests: str) -> bytes:
    """What a server of both answers until it closes, without dates."""
    app = web.Application()
    app.add_routes([web.get(f"/{one.__name__}", one) for one in (whole, usual, closing)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
    line = await Connection.open(server.sockets[0].getsockname()[1])
    line.writer.write("".join(requests).encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        found = await line.reader.read()
    line.close()
    server.close()
    await runner.cleanup()
    return re.sub(rb"Date: [^\r]+", b"Date: *", found)


@pytest.mark.parametrize(
    "request_",
    [
        GET % ("%s", LAST),
        GET % ("%s", "") + GET % ("%s", LAST),
        GET.replace("GET", "HEAD") % ("%s", "") + GET % ("%s", LAST),
        GET.replace("1.1", "1.0") % ("%s", ""),
        GET.replace("1.1", "1.0") % ("%s", "Connection: keep-alive\r\n") + GET % ("%s", LAST),
    ],
    ids=["the last one", "pipelined", "HEAD", "HTTP/1.0", "HTTP/1.0, kept"],
)
async def test_it_is_what_aiohttp_would_write(request_: str) -> None:
    """To the byte, for every way in which an answer may be asked for."""
    names = request_.count("%s")
    at_once = await answered(request_ % (("whole",) * names))

    assert at_once == await answered(request_ % (("usual",) * names))
    assert names == at_once.count(b"HTTP/1.")


async def test_it_can_be_the_last_one() -> None:
    """If the handler wishes so, the client is told, and what follows is not answered."""
    found = await answered(GET % ("closing", ""), GET % ("whole", ""))

    assert 1 == found.count(b"HTTP/1.1 409 Conflict")
    assert b"\r\nConnection: close\r\n" in found
    assert b"200 OK" not in found
