"""Regions: a leaf node with a mirror of the feed, and stores that read from it, with the servers
of `config/nats/server.conf` and `config/nats/region.conf`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import api

from central_stub.publisher import mirrors, publisher
from central_stub.publisher.central import CentralFeed
from central_stub.publisher.mirrors import Mirrors
from central_stub.publisher.publisher import Publisher
from central_stub.testing import TestCentral
from store_cache.api.parts import StoreParts
from store_cache.app.build import Environment, running
from store_cache.central.client import Exchange
from store_cache.nats import report, source
from store_cache.storage.memory_directory import MemoryDirectory
from store_cache.sync.backoff import UNLOST_SECONDS
from tests.harness.nats_server import NatsServer, needs_nats
from tests.harness.processes import free_port
from tests.harness.store import settings_of
from tests.nats.delivered import LEAF_PORT, Key, connected, keys_in, leaf_port, server_of
from tests.nats.test_store import full_syncs, in_sync_at, is_on_nats, shows, status_of, until

pytestmark = needs_nats


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports and looks come every second, silence is noticed after three, and a message that does
    not come after one."""
    monkeypatch.setattr(publisher, "WAIT_SECONDS", 1)
    monkeypatch.setattr(mirrors, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(source, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(report, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(source, "DELIVERY_SECONDS", 1.0)


class Link:
    """The way from the leaf node to its hub, which can be cut."""

    def __init__(self, hub_port: int) -> None:
        self.port = free_port()
        self.hub_port = hub_port
        self.is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.hub_port)
        self._writers |= {writer, back}
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        self.is_cut = True
        for each in self._writers:
            each.close()
        self._writers.clear()


@dataclass
class Region:
    hub: NatsServer
    leaf: NatsServer
    link: Link
    office: Client
    """Where the publisher is connected."""

    store_key: Key
    central: TestCentral
    mirroring: asyncio.Task[None] | None = None

    def start_mirrors(self) -> None:
        self.mirroring = asyncio.create_task(Mirrors(self.office, ["north"]).run())

    async def stop_mirrors(self) -> None:
        assert self.mirroring is not None
        self.mirroring.cancel()
        await asyncio.wait([self.mirroring], timeout=10)

    async def hold_mirror(self) -> None:
        """Put one in the place of the mirror that says the same of itself, and gets nothing."""
        await self.stop_mirrors()
        north = self.office.jetstream(prefix="$JS.north.API")
        ((name, *_),) = await counts(self.office, "$JS.north.API")
        info = await north.stream_info(name)
        await north.delete_stream(name)
        nowhere = api.StreamSource(name=name, external=api.ExternalStream(api="$JS.nowhere.API"))
        metadata = {"created": (info.config.metadata or {})["created"]}
        await north.add_stream(api.StreamConfig(name=name, mirror=nowhere, metadata=metadata))

    async def let_mirror_go(self) -> None:
        north = self.office.jetstream(prefix="$JS.north.API")
        ((name, *_),) = await counts(self.office, "$JS.north.API")
        await north.delete_stream(name)
        self.start_mirrors()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[StoreParts]:
        """A store that is told of the region's server, and of nothing else."""
        settings = settings_of(
            central_api_url=self.central.url,
            central_api_key=self.central.key,
            event_wait_timeout_seconds=5,
            sync_interval_seconds=1,
            hole_grace_seconds=0.1,
            feed_source="nats",
            nats_url=self.leaf.url,
            nats_api_prefix="FEED.API",
            nats_credentials_file=self.store_key.file,
        )
        environment = Environment(MemoryDirectory(), uptime=time.monotonic)
        async with running(settings, environment) as parts:
            yield parts


@pytest.fixture
async def region(tmp_path: Path, central: TestCentral) -> AsyncIterator[Region]:
    keys, link = keys_in(tmp_path), Link(free_port())
    # There is no way but the link.
    ports = {LEAF_PORT: f"{leaf_port(link.hub_port)}\n  no_advertise: true"}
    hub = server_of("server.conf", tmp_path / "hub", keys, ports)
    address = {"nats.example.com:7422": f"127.0.0.1:{link.port}"}
    leaf = server_of("region.conf", tmp_path / "leaf", keys, address)
    await hub.start()
    async with link.open():
        await leaf.start()
        office = await connected(hub, keys["PUBLISHER"], [])
        feed = CentralFeed(central.url, central.key)
        publishing = asyncio.create_task(Publisher(feed, office).run())
        region = Region(hub, leaf, link, office, keys["STORE_S1"], central)
        region.start_mirrors()
        yield region
        await region.stop_mirrors()
        publishing.cancel()
        await asyncio.wait([publishing], timeout=10)
        await feed.close()
        await office.close()
        await leaf.kill()
        await hub.kill()


async def test_a_store_reads_from_the_mirror(region: Region, central: TestCentral) -> None:
    """Central is asked for no event; the sequence numbers of the mirror are those of the hub."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        exchanges: list[Exchange] = []
        parts.status._central.on_exchange = exchanges.append
        for n in range(60):
            central.sell(f"P-{n % 3}")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert exchanges == []
        assert status_of(parts)["feed"]["server"] == f"127.0.0.1:{region.leaf.port}"
        assert status_of(parts)["feed"]["problem"] == ""
        assert full_syncs(parts) == 1
        assert await counts(region.office, "$JS.north.API") == await counts(region.office)


async def counts(office: Client, api_prefix: str = "$JS.API") -> list[tuple[str, int, int, int]]:
    """The streams, each with its messages and its first and last sequence."""
    streams = await office.jetstream(prefix=api_prefix).streams_info()
    return sorted(
        (each.config.name or "", each.state.messages, each.state.first_seq, each.state.last_seq)
        for each in streams
        if each.config.name != "KV_FEED"
    )


def may_sync_again(parts: StoreParts) -> bool:
    """Whether the next full sync may begin at once."""
    installed_at = parts.runner.state.spacing.installed_at
    return installed_at is not None and time.monotonic() > installed_at + UNLOST_SECONDS + 0.2


async def test_the_link_is_cut(region: Region, central: TestCentral) -> None:
    """Silence is never freshness: stores of the region ask Central, until the mirror has it."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        region.link.cut()
        central.sell("P-1", 5)
        sold_at = time.monotonic()
        while not shows(parts, central):
            assert in_sync_at(parts) <= sold_at
            await asyncio.sleep(0.02)
        assert status_of(parts)["feed"]["source"] == "central"
        assert "the publisher or Central is away" in status_of(parts)["feed"]["problem"]
        for _ in range(300):
            central.sell("P-2")
        region.link.is_cut = False
        await until(lambda: is_on_nats(parts) and shows(parts, central))
        assert await counts(region.office, "$JS.north.API") == await counts(region.office)
        assert full_syncs(parts) == 1


async def test_the_mirror_is_behind(region: Region, central: TestCentral) -> None:
    """Reports pass the link and the feed does not: Central is asked, and `Age` does not count from
    the reports."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        await region.hold_mirror()
        central.sell("P-0")
        await until(lambda: shows(parts, central))
        await until(lambda: status_of(parts)["feed"]["problem"] == "event 4 does not come")
        central.sell("P-1", 5)
        sold_at = time.monotonic()
        while not shows(parts, central):
            assert in_sync_at(parts) <= sold_at
            await asyncio.sleep(0.02)
        assert not is_on_nats(parts)
        await region.let_mirror_go()
        central.sell("P-2")
        await until(lambda: is_on_nats(parts) and shows(parts, central))
        assert full_syncs(parts) == 1


async def test_what_is_mirrored_is_made_anew(region: Region, central: TestCentral) -> None:
    """After the hub lost its storage, its streams of the same names count from the beginning: a
    mirror would wait until they are longer than it is."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        for _ in range(20):
            central.sell("P-1")
        await until(lambda: shows(parts, central))
        await region.hub.kill()
        region.hub.wipe()
        await region.hub.start()
        central.sell("P-2")
        await until(lambda: is_on_nats(parts) and shows(parts, central))
        central.sell("P-0")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 1


async def test_a_central_restored_under_its_own_name(region: Region, central: TestCentral) -> None:
    """What the mirror has of the log before is not believed, nor what it would go on with."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        for _ in range(5):
            central.sell("P-1")
        await until(lambda: shows(parts, central) and may_sync_again(parts))
        central.fault("crash", loses="events", count=3, seconds=0)
        central.sell("P-2")  # wakes the publisher
        await until(lambda: full_syncs(parts) == 2)
        for _ in range(6):
            central.sell("P-2")
        await until(lambda: shows(parts, central) and is_on_nats(parts))


async def test_a_mirror_of_another_stream_is_not_read(region: Region, central: TestCentral) -> None:
    """Nobody makes it anew, and it would go on with events of a log that the store does not know;
    the report says that it is another stream."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        for _ in range(5):
            central.sell("P-1")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        await region.stop_mirrors()
        central.fault("crash", loses="events", count=3, seconds=0)
        central.sell("P-2")  # wakes the publisher
        await until(lambda: "mirrors another stream" in status_of(parts)["feed"]["problem"])
        region.start_mirrors()
        await until(lambda: is_on_nats(parts) and shows(parts, central))


async def test_a_new_generation(region: Region, central: TestCentral) -> None:
    """It gets a mirror of its own; that of the generation before goes."""
    async with region.store() as parts:
        await until(lambda: is_on_nats(parts))
        await until(lambda: may_sync_again(parts))
        central.reset([{"productId": f"N-{n}", "name": "Mug", "available": 3} for n in range(3)])
        central.sell("N-1")
        await until(lambda: shows(parts, central) and is_on_nats(parts))
        assert full_syncs(parts) == 2
        assert len(await counts(region.office, "$JS.north.API")) == 1
