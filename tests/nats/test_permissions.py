"""`config/nats/server.conf`: a store may read the feed and write its own report, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from nats.aio.client import Client
from nats.js import api

from central_stub.publisher.central import CentralFeed
from central_stub.publisher.publisher import Publisher
from central_stub.testing import TestCentral
from store_cache.app.build import Environment, running
from store_cache.storage.memory_directory import MemoryDirectory
from tests.harness.nats_server import NatsServer, needs_nats
from tests.harness.store import settings_of
from tests.nats.delivered import Key, connected, keys_in, server_of
from tests.nats.test_store import is_on_nats, shows, until

pytestmark = needs_nats


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Key]:
    return keys_in(tmp_path)


@pytest.fixture
async def guarded(tmp_path: Path, keys: dict[str, Key]) -> AsyncIterator[NatsServer]:
    server = server_of("server.conf", tmp_path / "nats", keys)
    await server.start()
    yield server
    await server.kill()


async def check_refused(store: Client, subjects: list[str], problems: list[str]) -> None:
    """The server refuses to publish to the subjects, and to read what is not the store's."""
    for subject in subjects:
        await store.publish(subject, b"{}")
    await store.subscribe("_INBOX.>")
    await store.subscribe("reports.>")
    await store.publish("reports.store-s1", b"{}")
    await store.flush()
    await asyncio.sleep(0.2)
    for subject in (*subjects, "_inbox.>", "reports.>"):
        assert any(f'"{subject.lower()}"' in problem.lower() for problem in problems), subject
    assert not any("reports.store-s1" in problem for problem in problems)


async def lead_answers_astray(store: Client, stream: str, *targets: str) -> None:
    """Ask what a store may ask, and have the answers sent to subjects that it may not write."""
    pull = orjson.dumps({"batch": 1, "no_wait": True})
    consumer = await store.jetstream(prefix="FEED.API").add_consumer(
        stream, api.ConsumerConfig(name="mine", ack_policy=api.AckPolicy.NONE)
    )
    for target in targets:
        await store.publish(f"FEED.API.STREAM.INFO.{stream}", b"", reply=target)
        asked = f"FEED.API.CONSUMER.MSG.NEXT.{stream}.{consumer.name}"
        await store.publish(asked, pull, reply=target)
    await store.flush()


async def test_what_a_store_may(
    guarded: NatsServer, keys: dict[str, Key], central: TestCentral
) -> None:
    """It follows the feed with its own key; all else is refused by the server."""
    problems: list[str] = []
    office = await connected(guarded, keys["PUBLISHER"], [])
    feed = CentralFeed(central.url, central.key)
    publishing = asyncio.create_task(Publisher(feed, office).run())
    settings = settings_of(
        central_api_url=central.url,
        central_api_key=central.key,
        feed_source="nats",
        nats_url=guarded.url,
        nats_api_prefix="FEED.API",
        nats_credentials_file=keys["STORE_S1"].file,
    )
    async with running(settings, Environment(MemoryDirectory())) as parts:
        await until(lambda: is_on_nats(parts))
        for _ in range(50):
            central.sell("P-1")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert parts.feed is not None
        assert parts.feed.problem == ""

    store = await connected(guarded, keys["STORE_S1"], problems, "store-s1")
    current = await office.jetstream().get_last_msg("KV_FEED", "$KV.FEED.current")
    entry = orjson.loads(current.data or b"")
    stream, generation = entry["stream"], entry["stream"].removeprefix("FEED_")

    async def state() -> tuple[int, int]:
        info = await office.jetstream().stream_info(stream)
        return info.state.messages, info.state.last_seq

    before = await state()
    forbidden = [
        f"feed.{generation}",
        "$KV.FEED.current",
        "reports.store-s2",
        f"FEED.API.STREAM.PURGE.{stream}",
        f"$JS.API.STREAM.DELETE.{stream}",
        "$JS.API.STREAM.CREATE.OTHER",
        f"$JS.API.DIRECT.GET.{stream}",
    ]
    await check_refused(store, forbidden, problems)

    await lead_answers_astray(store, stream, f"feed.{generation}", "$KV.FEED.current")
    await asyncio.sleep(0.2)
    assert await state() == before
    last = await office.jetstream().get_last_msg("KV_FEED", "$KV.FEED.current")
    assert orjson.loads(last.data or b"")["stream"] == stream
    publishing.cancel()
    await asyncio.wait([publishing], timeout=5)
    await feed.close()
    await store.close()
    await office.close()
