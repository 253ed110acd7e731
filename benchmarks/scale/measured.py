"""Measure what Centrals carry, with real stores: the points and the last tables of docs/scale.md.

    python -m benchmarks.scale.measured [--stores 1,100,300] [--rounds 3] [--seconds 40]
    python -m benchmarks.scale.measured --look --ways NATS --stores 20 --rounds 1
    python -m benchmarks.scale.measured --draw

Stores are tasks of two processes of `benchmarks.scale.followers`, each with the client, the sync
and the writer of a shop; one of them has a process of its own, and tells when it shows a sale. They
follow real programs, in three ways: one `central-stub` with a folder; two over one PostgreSQL; and
these with NATS and a publisher. For each way and number of stores: what the programs and the stores
do while nothing is sold, then while something is sold every four seconds. Rounds of the ways are
interleaved.

A busy machine makes all of it slower, and hardly changes the processor time of an event. What was
measured is kept in docs/evidence/scale.json; `--draw` writes tables and picture from there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness.processes import LONGEST_LINE
from benchmarks.scale import page, plots, sizes
from benchmarks.scale.plan import EVENTS, MODES
from benchmarks.scale.points import (
    CHAINS,
    FOLDER,
    NATS,
    PAGE,
    WAYS,
    Point,
    Watched,
    buy_table,
    carried_table,
    costs_table,
    load,
    measured_table,
    save,
)
from benchmarks.scale.steady import habit
from central_stub.postgres.temporary import TemporaryServer
from central_stub.postgres.upkeep import migrate
from tests.harness.commands import run_to_end
from tests.harness.nats_server import NatsServer
from tests.harness.proc import cpu_seconds
from tests.harness.processes import ROOT, CentralProcess, end

DOCS = ROOT / "docs"
KEPT = DOCS / "evidence" / "scale.json"
BOUGHT = ("continuous", "interval 30 s")
PRODUCTS = 200
EVENTS_A_SECOND = 0.25
"""So few that 300 stores on two cores have done with one before the next: each is a poll."""

QUIET_SECONDS = 20.0
"""As long as a poll is held: each store asks once."""

START_SECONDS = 600.0
SETTLE_SECONDS = 5.0
TRIES = 3
TIMES = 200
PARTS = 2
"""Processes of stores, beside the one store that is timed."""

PATIENT = ("nice", "-n", "10")
"""These run only if the programs that are measured, and that one store, do not."""


class Disturbed(Exception):
    """Stores did not follow all the time: the machine is too busy for so many."""


class Helper:
    """A process of `benchmarks.scale.followers`, which tells when it is asked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def told(self) -> Any:
        """Return its next line. Raises RuntimeError if it has ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of stores ended; its reason stands above")
        return orjson.loads(line)

    async def ask(self) -> Any:
        """Return what has happened since it was asked last."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        return await self.told()


@asynccontextmanager
async def helper(*arguments: object, before: Sequence[str] = ()) -> AsyncIterator[Helper]:
    process = await asyncio.create_subprocess_exec(
        *before,
        *(sys.executable, "-m", "benchmarks.scale.followers", *map(str, arguments)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=LONGEST_LINE,
    )
    try:
        yield Helper(process)
    finally:
        await end(process)


@dataclass
class Servers:
    """The programs of one way."""

    centrals: Sequence[CentralProcess]
    database: TemporaryServer | None = None
    nats: NatsServer | None = None
    publisher: Helper | None = None

    def cpu(self) -> dict[str, float]:
        """Return the processor seconds of each program since its start."""
        spent = {"Central": sum(cpu_seconds(each.process_id) for each in self.centrals)}
        if self.database is not None:
            spent["PostgreSQL"] = self.database.cpu_seconds()
        if self.nats is not None and self.publisher is not None:
            spent["NATS"] = cpu_seconds(self.nats.process_id)
            spent["publisher"] = cpu_seconds(self.publisher.process.pid)
        return spent


@asynccontextmanager
async def serving(way: str, folder: Path) -> AsyncIterator[Servers]:
    """Run the programs of a way until the block ends."""
    async with AsyncExitStack() as stack:
        database = None
        if way != FOLDER:
            database = stack.enter_context(TemporaryServer(folder=folder / "postgres"))
            database.query("CREATE DATABASE central")
            await migrate(database.url("central"))
        url = None if database is None else database.url("central")
        names = ("a",) if database is None else ("a", "b")
        servers = Servers([CentralProcess(folder / name, database=url) for name in names], database)
        for central in servers.centrals:
            stack.push_async_callback(central.close)
            await central.start()
        rows = [{"productId": f"P{n}", "available": 1_000_000} for n in range(PRODUCTS)]
        await servers.centrals[0].create(*rows)
        if way == NATS:
            servers.nats = NatsServer(folder / "nats")
            stack.push_async_callback(servers.nats.kill)
            await servers.nats.start()
            about = ("publisher", servers.nats.url, servers.centrals[0].url)
            servers.publisher = await stack.enter_async_context(helper(*about))
            await servers.publisher.told()
        yield servers


# -- one point ---------------------------------------------------------------------------------


async def measure(way: str, servers: Servers, stores: int, seconds: float) -> Point:
    """Let so many stores follow, and watch them while it is quiet and while there are sales."""
    nats_url = "-" if servers.nats is None else servers.nats.url
    where = [central.url for central in servers.centrals]
    shares = [len(range(part, stores - 1, PARTS)) for part in range(PARTS)]
    async with AsyncExitStack() as stack:
        timed = await stack.enter_async_context(helper("stores", 0, 1, nats_url, *where))
        helpers = [timed]
        for part, share in enumerate(shares):
            about = ("stores", 1 + sum(shares[:part]), share, nats_url, *where)
            if share:
                helpers.append(await stack.enter_async_context(helper(*about, before=PATIENT)))
        try:
            async with asyncio.timeout(START_SECONDS):
                began = await asyncio.gather(*(each.told() for each in helpers))
        except TimeoutError:
            raise Disturbed(f"not all stores followed after {START_SECONDS:.0f} s") from None
        asked = [*helpers, *(() if servers.publisher is None else (servers.publisher,))]
        await asyncio.sleep(SETTLE_SECONDS)
        quiet, _ = await watch(servers, asked, asyncio.sleep(QUIET_SECONDS))
        sales: dict[int, float] = {}
        busy, told = await watch(servers, asked, sell(servers, seconds, sales))
        syncs = (sum(each["full_syncs"] for each in those) for those in (began, told))
        if len(set(syncs)) != 1 or (way == NATS and sum(t["on_nats"] for t in told) != stores):
            raise Disturbed("stores began full syncs, or left NATS")
        seen = sum(len(each["seen"]) for each in told[: len(helpers)])
        if seen != stores * len(sales):
            raise Disturbed(f"{seen} events were seen of {stores * len(sales)}")
        took = [at - sales[offset] for offset, at in told[0]["seen"]]
    return Point(
        way=way,
        stores=stores,
        quiet=quiet,
        busy=busy,
        visible_seconds=took,
        alone=await alone(servers),
        load=os.getloadavg()[0],
    )


async def watch(
    servers: Servers, asked: Sequence[Helper], doing: Awaitable[int | None]
) -> tuple[Watched, list[Any]]:
    """Return what happens meanwhile."""
    await asyncio.gather(*(each.ask() for each in asked))
    cpu, began = servers.cpu(), time.monotonic()
    events = await doing
    took, after = time.monotonic() - began, servers.cpu()
    told = list(await asyncio.gather(*(each.ask() for each in asked)))
    spent = {name: after[name] - cpu[name] for name in cpu}
    return Watched(took, events or 0, sum(each["requests"] for each in told), spent), told


async def sell(servers: Servers, seconds: float, sales: dict[int, float]) -> int:
    """Sell at each Central in turn, and note when each event's sale was sent; return how many."""
    page_ = await servers.centrals[0].call("GET", "/v1/inventory?limit=1")
    offset, began = page_.json["eventOffset"], time.monotonic()
    for number in range(int(seconds * EVENTS_A_SECOND)):
        await asyncio.sleep(max(0.0, began + number / EVENTS_A_SECOND - time.monotonic()))
        offset += 1
        central = number % len(servers.centrals)
        sales[offset] = time.monotonic()
        await servers.centrals[central].sell(f"P{central}", -1)
    await asyncio.sleep(max(SETTLE_SECONDS, began + seconds - time.monotonic()))
    return len(sales)


async def alone(servers: Servers) -> dict[str, Mapping[str, float]]:
    """Return the processor time of one report of a store, one sale, and one page of events, at the
    first Central, one after the other and while nobody follows."""
    central = servers.centrals[0]
    body = {
        "process": "0123456789ab",
        "version": "0.1.0",
        "uptimeSeconds": 86400.0,
        "state": {"name": "live", "seconds": 3600.0},
        "position": {"offset": PRODUCTS},
        "outbox": {"queued": 0},
    }
    reports = (f"/v1/stores/shop-{number}/report" for number in count())
    page_of_events = f"/v1/inventory/events?offset=1&limit={PAGE}"
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "report": lambda: central.call("PUT", next(reports), json=body),
        "write": lambda: central.sell("P1", -1),
        "page": lambda: central.call("GET", page_of_events),
    }
    found: dict[str, Mapping[str, float]] = {}
    for name, work in works.items():
        before = servers.cpu()
        for _ in range(TIMES):
            await work()
        await asyncio.sleep(SETTLE_SECONDS)  # until the other processes have heard of it
        after = servers.cpu()
        found[name] = {program: (after[program] - before[program]) / TIMES for program in before}
    return found


# -- the command -------------------------------------------------------------------------------


async def run(
    ways: Sequence[str],
    counts: Sequence[int],
    rounds: int,
    seconds: float,
    keep: Callable[[Sequence[Point]], None],
) -> list[Point]:
    points: list[Point] = []
    for _ in range(rounds):
        for way in ways:
            with a_folder() as folder:
                async with serving(way, folder) as servers:
                    for stores in counts:
                        points.append(await tried(way, servers, stores, seconds))
                        print(_line(points[-1]), file=sys.stderr, flush=True)
        keep(points)
    return points


async def tried(way: str, servers: Servers, stores: int, seconds: float) -> Point:
    """Measure again if stores did not follow all the time. Raises Disturbed at the third time."""
    for _ in range(TRIES - 1):
        try:
            return await measure(way, servers, stores, seconds)
        except Disturbed as problem:
            print(f"measured again: {problem}", file=sys.stderr, flush=True)
    return await measure(way, servers, stores, seconds)


@contextmanager
def a_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    folder.chmod(0o711)  # PostgreSQL may run as another user in a folder below
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget(_: Sequence[Point]) -> None:
    """Keep nothing."""


def _line(point: Point) -> str:
    cores = {name: round(each / point.busy.seconds, 4) for name, each in point.busy.cpu.items()}
    middle, late = statistics.median(point.visible_seconds), max(point.visible_seconds)
    return (
        f"{point.way}: {point.stores} stores, {point.busy.events} events, "
        f"{point.busy.requests} requests, cores {cores}, visible {middle * 1e3:.0f} and "
        f"{late * 1e3:.0f} ms, load {point.load:.1f}"
    )


def draw(points: Sequence[Point]) -> None:
    """Write the tables and the picture."""
    found = sizes.measure()
    event_bytes = (found[sizes.EVENTS_500].down - found[sizes.EMPTY].down) / 500
    usual = habit(MODES["continuous"], EVENTS_A_SECOND)
    rates = {chain: chain.events for chain in CHAINS}
    habits = {
        mode: {chain: habit(pace, rate) for chain, rate in rates.items()}
        for mode, pace in MODES.items()
        if mode in BOUGHT
    }
    tables = {
        "measured": measured_table(points, usual),
        "costs": costs_table(points),
        "carried, measured": carried_table(
            points, {rate: habit(MODES["continuous"], rate) for rate in EVENTS}
        ),
        "to buy": buy_table(points, habits, event_bytes),
    }
    page.write(DOCS / "scale.md", tables)
    plots.draw_measured(points, usual, DOCS / "scale" / "measured.png", events=EVENTS_A_SECOND)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default="1,100,300", help="numbers of stores, by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0, help="of sales, for each point")
    parser.add_argument("--draw", action="store_true", help="write from what was measured before")
    parser.add_argument("--look", action="store_true", help="measure, and write nothing")
    parser.add_argument("--ways", default="", help="with --look: those whose name has this")
    options = parser.parse_args()
    if options.draw:
        draw(load(KEPT))
        return 0
    counts = [int(each) for each in options.stores.split(",")]
    ways = [way for way in WAYS if not options.look or options.ways in way]
    try:
        keep = partial(save, path=KEPT) if not options.look else _forget
        points = run_to_end(run(ways, counts, options.rounds, options.seconds, keep))
    except KeyboardInterrupt:
        print("stopped; whole rounds are kept, see --draw", file=sys.stderr)
        return 130
    if not options.look:
        draw(points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
