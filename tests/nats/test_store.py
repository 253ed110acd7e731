"""Stores that follow the feed over NATS, with a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from central_stub.publisher import publisher
from central_stub.publisher.plan import GAP
from central_stub.publisher.stream import FeedStream
from central_stub.testing import TestCentral
from store_cache.api.parts import StoreParts
from store_cache.app.build import Environment, running
from store_cache.central.client import Exchange
from store_cache.nats import report, source
from store_cache.storage.memory_directory import MemoryDirectory
from store_cache.sync.cursor import ANOTHER_EVENT
from tests.harness.nats_server import NatsServer, needs_nats
from tests.harness.store import settings_of
from tests.nats.conftest import StartPublisher

pytestmark = needs_nats

SOON_SECONDS = 20.0


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports come every second, and silence is noticed after three."""
    monkeypatch.setattr(publisher, "WAIT_SECONDS", 1)
    monkeypatch.setattr(source, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(report, "SILENT_SECONDS", 3.0)


@asynccontextmanager
async def store(
    central: TestCentral, server: NatsServer | None, directory: MemoryDirectory | None = None
) -> AsyncIterator[StoreParts]:
    """A store in memory, which follows over NATS if there is a server."""
    source = {} if server is None else {"feed_source": "nats", "nats_url": server.url}
    settings = settings_of(
        central_api_url=central.url,
        central_api_key=central.key,
        event_wait_timeout_seconds=5,
        sync_interval_seconds=1,
        **source,
    )
    environment = Environment(directory or MemoryDirectory(), uptime=time.monotonic)
    async with running(settings, environment) as parts:
        yield parts


async def until(condition: Callable[[], bool], seconds: float = SOON_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def offset_of(parts: StoreParts) -> int:
    position = parts.writer.position
    return 0 if position is None else position.offset


def rows_of(parts: StoreParts) -> dict[str, bytes]:
    catalogue = parts.writer.catalogue
    assert catalogue is not None
    return dict(catalogue.rows)


def status_of(parts: StoreParts) -> dict[str, Any]:
    return dict(parts.status.sync_status())


def is_on_nats(parts: StoreParts) -> bool:
    return bool(status_of(parts)["feed"]["source"] == "nats")


def full_syncs(parts: StoreParts) -> int:
    return parts.runner.state.full_syncs_begun


async def test_two_stores_are_equal(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """One over HTTP and one over NATS, at the same position, after many sales."""
    start_publisher()
    async with store(central, None) as plain, store(central, server) as relayed:
        await until(lambda: is_on_nats(relayed))
        for n in range(150):
            central.sell(f"P-{n % 3}", 1 + n % 2)
            await asyncio.sleep(0)
        central.set_products({"productId": "NEW", "name": "Café", "available": 1})
        central.delete_products("P-2")
        await until(lambda: offset_of(plain) == offset_of(relayed) == 156)
        assert rows_of(plain) == rows_of(relayed)
        assert plain.writer.position == relayed.writer.position
        assert full_syncs(relayed) == 1
        assert status_of(relayed)["feed"] == {
            "source": "nats",
            "server": f"127.0.0.1:{server.port}",
            "behind": 0,
            "problem": "",
        }


def in_sync_at(parts: StoreParts) -> float:
    """The moment from which `Age` counts."""
    at = parts.runner.state.in_sync_at
    assert at is not None
    return at


def shows(parts: StoreParts, central: TestCentral) -> bool:
    """Whether the store shows Central's stock."""
    stock = {i: row["available"] for i, row in central.products().items()}
    return stock == {i: orjson.loads(row)["available"] for i, row in rows_of(parts).items()}


@pytest.mark.usefixtures("_impatient")
async def test_nats_dies_and_comes_back(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """Events come from Central meanwhile; none is lost, there is no full sync, and `Age` counts
    from before the first event that is not shown."""
    start_publisher()
    async with store(central, server) as parts:
        await until(lambda: is_on_nats(parts))
        central.sell("P-1")
        await until(lambda: shows(parts, central))
        await server.kill()
        central.sell("P-1", 5)
        sold_at = time.monotonic()
        while not shows(parts, central):
            assert in_sync_at(parts) <= sold_at
            await asyncio.sleep(0.02)
        assert status_of(parts)["feed"]["source"] == "central"
        assert status_of(parts)["feed"]["problem"]
        central.sell("P-2", 7)
        await until(lambda: shows(parts, central))
        assert time.monotonic() - in_sync_at(parts) < 3
        await server.start()
        await until(lambda: is_on_nats(parts))
        central.sell("P-0")
        await until(lambda: shows(parts, central))
        assert full_syncs(parts) == 1
        assert parts.runner.state.health.failures == 0


async def test_the_storage_of_nats_is_lost(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """The stream that is made anew is compared with what is held: it is the same feed."""
    start_publisher()
    async with store(central, server) as parts:
        await until(lambda: is_on_nats(parts))
        for _ in range(20):
            central.sell("P-1")
        await until(lambda: shows(parts, central))
        await server.kill()
        server.wipe()
        central.sell("P-2")
        await server.start()
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        central.sell("P-0")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 1


@pytest.mark.usefixtures("_impatient")
async def test_the_publisher_dies(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """Silence is never freshness: Central is asked."""
    publishing = start_publisher()
    async with store(central, server) as parts:
        await until(lambda: is_on_nats(parts))
        publishing.cancel()
        await asyncio.sleep(0.1)
        central.sell("P-1")
        sold_at = time.monotonic()
        while not shows(parts, central):
            assert in_sync_at(parts) <= sold_at
            await asyncio.sleep(0.02)
        assert "the publisher or Central is away" in status_of(parts)["feed"]["problem"]
        start_publisher()
        await until(lambda: is_on_nats(parts))
        central.sell("P-1")
        await until(lambda: shows(parts, central) and status_of(parts)["feed"]["problem"] == "")
        assert full_syncs(parts) == 1


async def test_a_lost_event_is_a_loss(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """Central itself is asked about a gap; if the event is missing there, too, a full sync
    follows."""
    start_publisher()
    async with store(central, server) as parts:
        await until(lambda: is_on_nats(parts))
        central.fault("skip")
        central.sell("P-1")
        central.sell("P-2")
        await until(lambda: shows(parts, central) and full_syncs(parts) == 2)
        central.sell("P-0")
        await until(lambda: shows(parts, central) and is_on_nats(parts))


async def test_a_gap_that_central_fills_later(
    server: NatsServer,
    central: TestCentral,
    start_publisher: StartPublisher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The publisher was too impatient: no event is lost, and no full sync follows."""
    start_publisher()
    async with store(central, server) as parts:
        await until(lambda: is_on_nats(parts))
        append = FeedStream.append

        async def lossy(self: FeedStream, offset: int, messages: Sequence[bytes]) -> None:
            await append(self, offset, [GAP, *messages[1:]])

        monkeypatch.setattr(FeedStream, "append", lossy)
        central.sell("P-1")
        await until(lambda: shows(parts, central))
        monkeypatch.undo()
        central.sell("P-2")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 1


async def test_a_new_generation(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """The store was started anew, since a full sync so soon after another one would be spaced."""
    start_publisher()
    directory = MemoryDirectory()
    async with store(central, server, directory) as parts:
        await until(lambda: is_on_nats(parts))
    async with store(central, server, directory) as parts:
        central.sell("P-1")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 0
        central.reset([{"productId": f"N-{n}", "name": "Mug", "available": 3} for n in range(3)])
        central.sell("N-1")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 1


async def test_a_central_that_was_restored_under_its_own_generation(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """[E4] It has passed the store's position when a publisher makes the stream anew, and the last
    report is fresh: the store sees that the event before its position is another one."""
    publishing = start_publisher()
    directory = MemoryDirectory()
    async with store(central, server, directory) as parts:
        await until(lambda: is_on_nats(parts))
    async with store(central, server, directory) as parts:
        for _ in range(5):
            central.sell("P-1")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        publishing.cancel()
        await asyncio.wait([publishing])
        central.fault("crash", loses="events", count=3, seconds=0)
        for _ in range(9):
            central.sell("P-2")
        start_publisher()
        await until(lambda: full_syncs(parts) == 1 and shows(parts, central) and is_on_nats(parts))
        assert parts.runner.state.full_syncs[-1].reasons == (ANOTHER_EVENT,)
        central.sell("P-0")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 1


async def test_a_start_goes_on_from_the_position(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    """What was sold meanwhile comes from NATS; Central is asked for nothing."""
    start_publisher()
    directory = MemoryDirectory()
    async with store(central, server, directory) as parts:
        await until(lambda: is_on_nats(parts))
    for _ in range(700):
        central.sell("P-1")
    async with store(central, server, directory) as parts:
        exchanges: list[Exchange] = []
        parts.status._central.on_exchange = exchanges.append
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 0
        assert exchanges == []


async def test_a_start_while_nats_is_away(
    server: NatsServer, central: TestCentral, start_publisher: StartPublisher
) -> None:
    await server.kill()
    async with store(central, server) as parts:
        await until(lambda: parts.writer.catalogue is not None and shows(parts, central))
        await server.start()
        start_publisher()
        await until(lambda: is_on_nats(parts))
        central.sell("P-1")
        await until(lambda: shows(parts, central))
        assert full_syncs(parts) == 1
