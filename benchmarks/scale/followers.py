"""A part of the stores of `benchmarks.scale.measured`, as tasks of a process of their own.

    python -m benchmarks.scale.followers stores FIRST COUNT NATS CENTRAL...
    python -m benchmarks.scale.followers publisher NATS CENTRAL

Each store is the whole program but its API and its files: it follows a Central with the client, the
sync and the writer of a shop, and its files are in memory. NATS is an address, or `-` for none. The
second form copies the feed as `central-stub publish-feed` does, and counts what it asks.

Prints a line of JSON once all follow, and then one for each line that it reads, as `Told` says.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import nats
import orjson
import uvloop

from benchmarks.harness.held_polls import allow_files
from central_stub.publisher.central import Answer, CentralFeed
from central_stub.publisher.publisher import Publisher
from store_cache.api.parts import StoreParts
from store_cache.app.build import Environment, running
from store_cache.central.connection import network_transport
from store_cache.storage.memory_directory import MemoryDirectory
from tests.harness.background import in_background
from tests.harness.clients import CENTRAL_KEY
from tests.harness.store import settings_of

FILES_OF_A_STORE = 4
NONE = "-"


@dataclass
class Told:
    """Since the last line. `requests`: sent to Central. `seen`: each offset that a store has made
    visible, and when, in seconds of the machine's monotonic clock. `on_nats`: stores whose feed
    comes from NATS now. `full_syncs`: begun since the start."""

    requests: int = 0
    seen: list[tuple[int, float]] = field(default_factory=list)
    on_nats: int = 0
    full_syncs: int = 0


class Counted(httpx.AsyncBaseTransport):
    """The way to Central, which counts what goes there."""

    def __init__(self, told: Told) -> None:
        self._network = network_transport(None)
        self._told = told

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._told.requests += 1
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


class CountedFeed(CentralFeed):
    """What a publisher asks of Central, counted."""

    def __init__(self, url: str, told: Told) -> None:
        super().__init__(url, CENTRAL_KEY)
        self._told = told

    async def events(self, offset: int, *, limit: int, wait_seconds: int = 0) -> Answer:
        self._told.requests += 1
        return await super().events(offset, limit=limit, wait_seconds=wait_seconds)


@asynccontextmanager
async def following(
    number: int, central: str, nats_url: str, told: Told
) -> AsyncIterator[StoreParts]:
    """Run a store until the block ends."""
    source = {} if nats_url == NONE else {"feed_source": "nats", "nats_url": nats_url}
    settings = settings_of(
        central_api_url=central,
        store_id=f"store-{number}",
        stream_readers=0,
        search=False,
        history_limit=0,
        metrics=False,
        **source,
    )
    environment = Environment(MemoryDirectory(), transport=Counted(told), uptime=time.monotonic)
    async with running(settings, environment) as parts, in_background(_note(parts, told)):
        yield parts


async def _note(parts: StoreParts, told: Told) -> None:
    """Note when each event is visible: the position moves in the same step."""
    reached = _offset_of(parts)
    while True:
        await parts.runner.changed.wait()
        offset = _offset_of(parts)
        if offset > reached > 0:
            now = time.monotonic()
            told.seen += [(each, now) for each in range(reached, offset)]
        reached = offset


def _offset_of(parts: StoreParts) -> int:
    position = parts.writer.position
    return 0 if position is None else position.offset


async def follow(first: int, count: int, nats_url: str, centrals: Sequence[str]) -> None:
    """Run stores, half of them at either Central if there are two."""
    told = Told()
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                following(number, centrals[number % len(centrals)], nats_url, told)
            )
            for number in range(first, first + count)
        ]
        for parts in stores:
            while parts.runner.state.in_sync_at is None or not _is_as_set(parts, nats_url):
                await asyncio.sleep(0.05)
        await _tell(told, stores)


def _is_as_set(parts: StoreParts, nats_url: str) -> bool:
    return nats_url == NONE or (parts.feed is not None and parts.feed.is_from_nats)


async def publish(nats_url: str, central: str) -> None:
    told = Told()
    client = await nats.connect(nats_url)
    feed = CountedFeed(central, told)
    try:
        async with in_background(Publisher(feed, client).run()):
            await _tell(told, ())
    finally:
        await feed.close()
        await client.close()


async def _tell(told: Told, stores: Sequence[StoreParts]) -> None:
    """Answer each line of the input, until it ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while True:
        told.on_nats = sum(parts.feed is not None and parts.feed.is_from_nats for parts in stores)
        told.full_syncs = sum(parts.runner.state.full_syncs_begun for parts in stores)
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
        sys.stdout.flush()
        told.requests = 0
        told.seen.clear()
        if not await lines.readline():
            return


def main() -> None:
    logging.disable(logging.CRITICAL)
    role, *rest = sys.argv[1:]
    with suppress(KeyboardInterrupt):
        if role == "publisher":
            uvloop.run(publish(*rest))
        else:
            first, count, nats_url, *centrals = rest
            allow_files(FILES_OF_A_STORE * int(count))
            uvloop.run(follow(int(first), int(count), nats_url, centrals))


if __name__ == "__main__":
    main()
