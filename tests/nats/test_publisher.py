"""The publisher, with a real NATS server: the stream is Central's feed, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NoStreamResponseError

from central_stub.publisher.central import CentralFeed, Nameless
from central_stub.publisher.publisher import Publisher
from central_stub.publisher.stream import FeedStream
from central_stub.testing import TestCentral
from tests.harness.nats_server import NatsServer, needs_nats
from tests.nats.conftest import StartPublisher, connected

pytestmark = needs_nats


@pytest.fixture
async def client(server: NatsServer) -> AsyncIterator[Client]:
    client = await connected(server)
    yield client
    await client.close()


async def entry(client: Client) -> dict[str, Any]:
    """The entry that names the stream; empty before there is one."""
    try:
        message = await client.jetstream().get_last_msg("KV_FEED", "$KV.FEED.current")
    except (APIError, NoStreamResponseError, TimeoutError):
        return {}
    value: dict[str, Any] = orjson.loads(message.data or b"{}")
    return value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def reported(client: Client, head: int, generation: str | None = None) -> dict[str, Any]:
    """The entry, once it says that the stream has all up to `head`."""

    async def is_there() -> bool:
        now = await entry(client)
        return now.get("head") == head and generation in (None, now["generation"])

    await until(is_there)
    return await entry(client)


def feed(central: TestCentral, offset: int = 0) -> dict[str, Any]:
    query = {"offset": str(offset), "limit": "1000"}
    reply = httpx.get(
        f"{central.url}/v1/inventory/events", params=query, headers={"X-API-Key": central.key}
    )
    page: dict[str, Any] = reply.json()
    return page


def feed_generation(central: TestCentral) -> str:
    reply = httpx.get(f"{central.url}/v1/inventory/events", headers={"X-API-Key": central.key})
    return reply.headers["X-Feed-Generation"]


async def is_copy(client: Client, central: TestCentral, offset: int = 0) -> bool:
    """Whether the stream named holds Central's events from `offset` on, each at its sequence."""
    stream = (await entry(client))["stream"]
    for event in (await asyncio.to_thread(feed, central, offset))["events"]:
        message = await client.jetstream().get_msg(stream, seq=event["offset"] + 1)
        if orjson.loads(message.data or b"null") != event:
            return False
    return True


async def test_the_stream_is_a_copy(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    central.sell("P-1", 3)
    start_publisher()
    await reported(client, 4)
    for _ in range(20):
        central.sell("P-2")
    await reported(client, 24)
    assert await is_copy(client, central)


async def test_two_publishers_and_the_death_of_one(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """Each offset is written once, whoever is first."""
    first, _ = start_publisher(), start_publisher()
    for n in range(60):
        central.sell("P-1")
        await asyncio.sleep(0)
        if n == 30:
            first.cancel()
    current = await reported(client, 63)
    info = await client.jetstream().stream_info(current["stream"])
    assert (info.state.messages, info.state.last_seq) == (63, 64)
    assert await is_copy(client, central)


async def test_a_moment_without_central_is_told(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """Stores see nothing else of it, and compare themselves with Central once it is over."""
    start_publisher()
    before = await reported(client, 3)
    central.sell("P-1")
    assert (await reported(client, 4))["since"] == before["since"] <= before["at"]

    central.fault("status", routes=["events"], times=1)
    central.sell("P-1")  # ends the held poll: the next one fails
    await until_later(client, before["since"])
    central.sell("P-1")
    assert await is_copy(client, central)


async def until_later(client: Client, since: float) -> None:
    """Wait until the entry says that Central has failed after that."""

    async def is_later() -> bool:
        return float((await entry(client))["since"]) > since

    await until(is_later)


async def test_a_lost_event_becomes_a_gap(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    central.fault("skip")
    central.sell("P-1")
    central.sell("P-1")
    start_publisher()
    current = await reported(client, 5)
    gap = await client.jetstream().get_msg(current["stream"], seq=5)
    assert not gap.data


async def test_the_stream_begins_where_the_log_begins(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """A new stream has the sequence numbers of a log that is older than it."""
    central.switch(event_limit=10)
    for _ in range(40):
        central.sell("P-1")
    start_publisher()
    current = await reported(client, 43)
    info = await client.jetstream().stream_info(current["stream"])
    assert info.state.first_seq == feed_begins(central) + 1
    assert await is_copy(client, central, feed_begins(central))


def feed_begins(central: TestCentral) -> int:
    page = feed(central, 34)
    offset: int = page["events"][0]["offset"]
    assert feed(central, offset - 1)["code"] == "gone"
    return offset


async def test_a_new_generation_gets_a_stream_of_its_own(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    start_publisher()
    before = await reported(client, 3)
    central.reset()
    central.sell("P-1")  # wakes the poll

    async def is_another() -> bool:
        return bool((await entry(client))["generation"] != before["generation"])

    await until(is_another)
    assert (await entry(client))["stream"] != before["stream"]
    assert await is_copy(client, central)


async def test_the_storage_of_nats_is_lost(
    server: NatsServer, client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    start_publisher()
    await reported(client, 3)
    await server.kill()
    server.wipe()
    central.sell("P-1")
    await server.start()
    await reported(client, 4)
    assert await is_copy(client, central)


async def test_a_central_restored_under_its_own_name(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """The stream holds events that Central does not know any more: it is made anew. Before it is,
    readers of mirrors are told."""
    told: list[str] = []

    async def note(message: Msg) -> None:
        told.append(orjson.loads(message.data)["created"])

    for _ in range(5):
        central.sell("P-1")
    start_publisher()
    await reported(client, 8)
    await client.subscribe("feed.report", cb=note)
    central.fault("crash", loses="events", count=3, seconds=0)
    central.sell("P-2")
    after = await reported(client, 6)
    assert told[-1] == after["created"]
    assert "" in told
    assert await is_copy(client, central)


async def test_the_bucket_alone_is_missing(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """A publisher died before it had created it; later it is lost."""
    stream = FeedStream(client, feed_generation(central))
    await stream.create(1)
    start_publisher()
    await reported(client, 3)
    await client.jetstream().delete_key_value("FEED")
    central.sell("P-1")
    await reported(client, 4)


async def test_an_event_that_nats_does_not_take_is_a_gap(
    client: Client, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """The feed goes on behind it; stores ask Central for it."""
    central.set_products({"productId": "P-1", "description": "x" * client.max_payload})
    central.sell("P-2")
    start_publisher()
    current = await reported(client, 5)
    gap = await client.jetstream().get_msg(current["stream"], seq=5)
    assert not gap.data


async def test_a_central_without_a_generation_is_refused(
    client: Client, central: TestCentral
) -> None:
    central.switch(without=["generation"])
    feed = CentralFeed(central.url, central.key)
    with pytest.raises(Nameless, match="names no generation"):
        await Publisher(feed, client).run()
    await feed.close()
