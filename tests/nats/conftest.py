"""A real NATS server, a Central, and publishers between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from central_stub.publisher.central import CentralFeed
from central_stub.publisher.publisher import Publisher
from central_stub.testing import TestCentral
from tests.harness.nats_server import NatsServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
def central() -> Iterator[TestCentral]:
    rows = [{"productId": f"P-{n}", "name": "Tea", "available": 1000} for n in range(3)]
    with TestCentral(rows) as central:
        yield central


async def connected(server: NatsServer) -> Client:
    async def ignore(_: Exception) -> None:
        pass

    return await nats.connect(
        server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=ignore
    )


StartPublisher = Callable[[], "asyncio.Task[None]"]


@pytest.fixture
async def start_publisher(
    server: NatsServer, central: TestCentral
) -> AsyncIterator[StartPublisher]:
    """Start a publisher; cancelling the task is its death."""
    tasks: list[asyncio.Task[None]] = []

    async def publish() -> None:
        client, feed = await connected(server), CentralFeed(central.url, central.key)
        try:
            await Publisher(feed, client).run()
        finally:
            await feed.close()
            async with asyncio.timeout(5):
                await client.close()

    def start() -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(publish()))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    if tasks:
        _, running = await asyncio.wait(tasks, timeout=10)
        assert not running, "a publisher does not end"
