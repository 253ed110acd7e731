"""A connection that the server ends with an error, which nats-py does not make again by itself."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from central_stub.publisher import cli, publisher
from store_cache.nats import connection
from store_cache.nats.connection import FeedConnection, NatsSettings

INFO = (
    b'INFO {"server_id":"x","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}\r\n'
)


class ExpiringServer:
    """Ends its first connection once that is set up; the others stay."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        is_first = self.connections == 1
        writer.write(INFO)
        with suppress(ConnectionError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                    if is_first:
                        await asyncio.sleep(0.05)
                        writer.write(b"-ERR 'User Authentication Expired'\r\n")
                        break
        if is_first:
            writer.close()

    def end(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[ExpiringServer]:
    server = ExpiringServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()
    server.end()


async def connected_again(server: ExpiringServer, work: asyncio.Task[None]) -> None:
    async with asyncio.timeout(10):
        while server.connections < 2:
            assert not work.done()
            await asyncio.sleep(0.01)


async def cancelled(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.wait([work], timeout=5)
    assert work.done()


def options_of(nats_url: str) -> Namespace:
    return Namespace(
        central="http://127.0.0.1:1",
        api_key="key",
        nats=nats_url,
        credentials=None,
        ca=None,
        replicas=1,
        mirror=[],
    )


async def test_a_store_connects_again(
    server: ExpiringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LONGEST_RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(connection, "FAILURE_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(connection, "REPLY_SECONDS", 0.2)
    feed = FeedConnection(NatsSettings(server.url, "S1"), uptime=time.monotonic)
    running = asyncio.create_task(feed.run())
    await connected_again(server, running)
    await cancelled(running)


async def test_a_publisher_connects_again(
    server: ExpiringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(publisher, "FAILURE_PAUSE_SECONDS", 0.1)
    running = asyncio.create_task(cli.publish(options_of(server.url)))
    await connected_again(server, running)
    await cancelled(running)


class ConnectingClient:
    """Connects for ever. `loses_cancellation`: as `asyncio.wait_for` of Python 3.11 does if what it
    waits for is there in the same turn of the loop."""

    def __init__(self, *, loses_cancellation: bool) -> None:
        self.loses_cancellation = loses_cancellation
        self.is_connecting = asyncio.Event()
        self.is_closed = False

    async def connect(self, *_: object, **__: object) -> None:
        self.is_connecting.set()
        with suppress(*[asyncio.CancelledError] * self.loses_cancellation):
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("loses_cancellation", [True, False])
async def test_a_publisher_ends_while_it_connects(
    monkeypatch: pytest.MonkeyPatch, loses_cancellation: bool
) -> None:
    client = ConnectingClient(loses_cancellation=loses_cancellation)
    monkeypatch.setattr(cli, "Client", lambda: client)
    running = asyncio.create_task(cli.publish(options_of("nats://127.0.0.1:1")))
    await client.is_connecting.wait()
    await cancelled(running)
    assert client.is_closed
