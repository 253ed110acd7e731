"""Many stores that follow the feed over NATS, with a real server.

    python -m tests.campaigns.feed_on_nats --data ../shared/data --only sales

sales    the real sales (`--lines` of them), straight at Central: a store over HTTP and one over
         NATS, while NATS is killed, loses its storage, and publishers die: equal to Central at the
         same position, no full sync, and the age that the store tells is never too small
load     Central's requests with one store and with a hundred, as tasks of one process
death    Central's requests while NATS is away: the curve
latency  from the answer to a sale until a store shows it, over NATS and over HTTP, the same sales
"""

from __future__ import annotations

import asyncio
import gzip
import statistics
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import nats
import orjson

from central_stub.publisher.central import Answer, CentralFeed
from central_stub.publisher.publisher import Publisher
from central_stub.replay import central_target, read_movements, replay
from store_cache.api.parts import StoreParts
from store_cache.app.build import Environment, running
from store_cache.central.connection import network_transport
from store_cache.nats.report import SILENT_SECONDS
from store_cache.storage.memory_directory import MemoryDirectory
from tests.campaigns.command import Case, parser_of, play
from tests.harness.clients import CENTRAL_KEY, Row
from tests.harness.nats_server import NatsServer
from tests.harness.processes import CentralProcess
from tests.harness.store import settings_of

STORES = 100
SALES_A_SECOND = 2.0
LOAD_SECONDS = 40
DEATH_SECONDS = 75
SOON_SECONDS = 120.0


class Requests(httpx.AsyncBaseTransport):
    """The way to Central. `times`: when each request was sent."""

    def __init__(self, times: list[float]) -> None:
        self._network = network_transport(None)
        self._times = times

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._times.append(time.monotonic())
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


class CountedFeed(CentralFeed):
    """What the publisher asks of Central."""

    times: list[float]

    async def events(self, offset: int, *, limit: int, wait_seconds: int = 0) -> Answer:
        self.times.append(time.monotonic())
        return await super().events(offset, limit=limit, wait_seconds=wait_seconds)


@asynccontextmanager
async def publishing(
    central: CentralProcess, server: NatsServer, times: list[float]
) -> AsyncIterator[asyncio.Task[None]]:
    async def ignore(_: Exception) -> None:
        pass

    client = await nats.connect(
        server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=ignore
    )
    feed = CountedFeed(central.url, CENTRAL_KEY)
    feed.times = times
    task = asyncio.create_task(Publisher(feed, client).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=10)
        await feed.close()
        await client.close()


@asynccontextmanager
async def store(
    central: CentralProcess, server: NatsServer | None, times: list[float], **more: Any
) -> AsyncIterator[StoreParts]:
    source = {} if server is None else {"feed_source": "nats", "nats_url": server.url}
    settings = settings_of(
        central_api_url=central.url,
        stream_readers=0,
        search=False,
        history_limit=0,
        metrics=False,
        **source,
        **more,
    )
    environment = Environment(MemoryDirectory(), transport=Requests(times), uptime=time.monotonic)
    async with running(settings, environment) as parts:
        yield parts


@asynccontextmanager
async def chain(
    folder: Path, catalogue: list[Row]
) -> AsyncIterator[tuple[CentralProcess, NatsServer]]:
    central, server = CentralProcess(folder / "central"), NatsServer(folder / "nats")
    await server.start()
    await central.start()
    await central.switch(eventLimit=1_000_000)
    await central.create(*catalogue)
    try:
        yield central, server
    finally:
        await server.kill()
        await central.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    ends_at = time.monotonic() + SOON_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, f"not within {SOON_SECONDS:.0f} s: {what}"
        await asyncio.sleep(0.05)


def offset_of(parts: StoreParts) -> int:
    position = parts.writer.position
    return 0 if position is None else position.offset


def is_on_nats(parts: StoreParts) -> bool:
    return parts.feed is not None and parts.feed.is_from_nats


async def until_all_on_nats(stores: Sequence[StoreParts]) -> None:
    await until(lambda: all(map(is_on_nats, stores)), "the feed comes from NATS")


@asynccontextmanager
async def selling(central: CentralProcess, product_id: str, a_second: float) -> AsyncIterator[None]:
    async def sell() -> None:
        n = 0
        while True:
            n += 1
            await central.sell(product_id, 1 if n % 2 else -1)
            await asyncio.sleep(1 / a_second)

    task = asyncio.create_task(sell())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# -- the cases ---------------------------------------------------------------------------------


@dataclass
class Sales:
    """`answered`: when each sale was answered, in order."""

    lines: int
    answered: list[float] = field(default_factory=list)

    async def reach(self, share: float) -> None:
        """Return when this part of the lines is sold, however long that takes."""
        while len(self.answered) < share * self.lines:
            await asyncio.sleep(0.05)


async def sales(
    folder: Path, catalogue: list[Row], *, data: Path, lines: int
) -> tuple[str, list[str]]:
    """The real sales, through everything that may happen to NATS."""
    progress, asked = Sales(lines), list[float]()
    async with AsyncExitStack() as stack:
        central, server = await stack.enter_async_context(chain(folder, catalogue))

        async def publisher() -> asyncio.Task[None]:
            return await stack.enter_async_context(publishing(central, server, []))

        publishers = [await publisher(), await publisher()]
        plain = await stack.enter_async_context(store(central, None, []))
        relayed = await stack.enter_async_context(
            store(central, server, asked, sync_interval_seconds=2)
        )
        await until(lambda: is_on_nats(relayed), "the feed comes from NATS")
        await until(lambda: offset_of(plain) == offset_of(relayed), "both begin alike")
        requests, began_at = len(asked), time.monotonic()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch_age(relayed, progress))
            troubled = group.create_task(trouble(server, publishers, publisher, progress))
            with gzip.open(data / "sales.csv.gz", "rt") as text:
                summary = await replay(
                    read_movements(text, lines=lines),
                    [central_target(central.url, CENTRAL_KEY, "replay")],
                    tills=4,
                    answered=lambda _: progress.answered.append(time.monotonic()),
                )
            await troubled
            await until(
                lambda: offset_of(plain) == offset_of(relayed) and is_on_nats(relayed),
                "both stores are at the same position",
            )
            took = time.monotonic() - began_at
            watching.cancel()
        said = (
            f"{summary.sold} sold in {took:.0f} s; both at {offset_of(plain)}; "
            f"the store on NATS sent {len(asked) - requests} requests to Central"
        )
        wrong = [f"refused: {each}" for each in summary.refused]
        products = await central.rows()
        if {i: orjson.loads(row) for i, row in rows_of(relayed).items()} != products:
            wrong.append("the store on NATS differs from Central")
        return said, wrong + differences(plain, relayed)


async def trouble(
    server: NatsServer,
    publishers: list[asyncio.Task[None]],
    start_publisher: Callable[[], Awaitable[asyncio.Task[None]]],
    progress: Sales,
) -> None:
    """Kill NATS, for two seconds, with its storage, and for longer than silence is borne; then one
    of the two publishers; then the other one, and start two when that was noticed, too."""
    await progress.reach(1 / 7)
    await server.kill()
    await asyncio.sleep(2)
    await server.start()
    await progress.reach(2 / 7)
    await server.kill()
    server.wipe()
    await server.start()
    await progress.reach(3 / 7)
    await server.kill()
    await asyncio.sleep(SILENT_SECONDS + 5)
    await server.start()
    await progress.reach(4 / 7)
    publishers[0].cancel()
    await progress.reach(5 / 7)
    publishers[1].cancel()
    await asyncio.sleep(SILENT_SECONDS + 5)
    for _ in range(2):
        await start_publisher()


async def watch_age(relayed: StoreParts, progress: Sales) -> None:
    """Assert that a store that says to have been in sync at a moment shows each sale that was
    answered before that moment. Nobody else writes, so each sale is one event."""
    begins = offset_of(relayed)
    while True:
        in_sync_at = relayed.runner.state.in_sync_at
        shown = offset_of(relayed) - begins
        if in_sync_at is not None:
            sold = bisect_right(progress.answered, in_sync_at)
            assert sold <= shown, f"in sync, but {sold - shown} sales of before are not shown"
        await asyncio.sleep(0.05)


def rows_of(parts: StoreParts) -> dict[str, bytes]:
    assert parts.writer.catalogue is not None
    return dict(parts.writer.catalogue.rows)


def differences(plain: StoreParts, relayed: StoreParts) -> list[str]:
    wrong = []
    if rows_of(plain) != rows_of(relayed):
        wrong.append("the stores differ")
    if plain.writer.position != relayed.writer.position:
        wrong.append("the positions differ")
    if (begun := relayed.runner.state.full_syncs_begun) != 1:
        wrong.append(f"{begun} full syncs over NATS")
    return wrong


async def load(folder: Path, catalogue: list[Row]) -> tuple[str, list[str]]:
    """Requests at Central for each event, with one store and with a hundred."""
    rates = []
    async with chain(folder, catalogue[:200]) as (central, server):
        for count in (1, STORES):
            times: list[float] = []
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(publishing(central, server, times))
                stores = [
                    await stack.enter_async_context(
                        store(central, server, times, store_id=f"s-{n}")
                    )
                    for n in range(count)
                ]
                await until_all_on_nats(stores)
                asked, offset = len(times), offset_of(stores[0])
                async with selling(central, catalogue[0]["productId"], SALES_A_SECOND):
                    await asyncio.sleep(LOAD_SECONDS)
                requests, events = len(times) - asked, offset_of(stores[0]) - offset
                rates.append((requests, events))
    said = "; ".join(
        f"{count} stores: {requests} requests for {events} events"
        for count, (requests, events) in zip((1, STORES), rates, strict=True)
    )
    per_event = [requests / max(events, 1) for requests, events in rates]
    return said, [] if per_event[1] <= 2 * per_event[0] else ["more than twice as many"]


async def death(folder: Path, catalogue: list[Row]) -> tuple[str, list[str]]:
    """Requests at Central in each five seconds, from the death of NATS on."""
    times: list[float] = []
    async with AsyncExitStack() as stack:
        central, server = await stack.enter_async_context(chain(folder, catalogue[:200]))
        await stack.enter_async_context(publishing(central, server, times))
        stores = [
            await stack.enter_async_context(store(central, server, times, store_id=f"s-{n}"))
            for n in range(STORES)
        ]
        await until_all_on_nats(stores)
        async with selling(central, catalogue[0]["productId"], 1.0):
            await asyncio.sleep(5)
            died_at = time.monotonic()
            await server.kill()
            await asyncio.sleep(DEATH_SECONDS)
            back_at = time.monotonic()
            await server.start()
            await until_all_on_nats(stores)
            returned = time.monotonic() - back_at
            await asyncio.sleep(10)
        curve = Counter(int((each - died_at) // 5) for each in times)
        busiest = Counter(int(each - died_at) for each in times if each > died_at)
        shown = " ".join(f"{5 * n}s:{curve[n] / 5:.1f}" for n in range(-1, max(curve) + 1))
        most = max(busiest.values(), default=0)
        full = sum(each.runner.state.full_syncs_begun for each in stores)
        wrong = [] if full == STORES else [f"{full - STORES} full syncs"]
        said = f"requests/s: {shown}; busiest second {most}; all back after {returned:.1f} s"
        return said, wrong


async def latency(folder: Path, catalogue: list[Row]) -> tuple[str, list[str]]:
    """The same sales, seen by a store over NATS and by one over HTTP."""
    product_id = catalogue[0]["productId"]
    async with AsyncExitStack() as stack:
        central, server = await stack.enter_async_context(chain(folder, catalogue[:200]))
        await stack.enter_async_context(publishing(central, server, []))
        plain = await stack.enter_async_context(store(central, None, []))
        relayed = await stack.enter_async_context(store(central, server, []))
        await until(lambda: is_on_nats(relayed), "the feed comes from NATS")
        taken: dict[str, list[float]] = {"HTTP": [], "NATS": []}

        async def seen(parts: StoreParts, name: str, offset: int, began_at: float) -> None:
            while offset_of(parts) < offset:
                await asyncio.sleep(0.0005)
            taken[name].append(time.monotonic() - began_at)

        for n in range(300):
            offset = offset_of(plain) + 1
            began_at = time.monotonic()
            async with asyncio.TaskGroup() as group:
                group.create_task(central.sell(product_id, 1 if n % 2 else -1))
                group.create_task(seen(plain, "HTTP", offset, began_at))
                group.create_task(seen(relayed, "NATS", offset, began_at))
            await asyncio.sleep(0.01)
        medians = {name: statistics.median(each) * 1000 for name, each in taken.items()}
        ratio = medians["NATS"] / medians["HTTP"]
        said = ", ".join(f"{name} p50 {each:.1f} ms" for name, each in medians.items())
        return f"{said}, ratio {ratio:.2f}", [] if ratio <= 1.5 else ["more than 1.5 times"]


def main() -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--lines", type=int, default=2_000, help="how many of the sales")
    options = parser.parse_args()
    cases: dict[str, Case] = {
        "sales": partial(sales, data=options.data, lines=options.lines),
        "load": load,
        "death": death,
        "latency": latency,
    }
    return play(cases, options)


if __name__ == "__main__":
    sys.exit(main())
