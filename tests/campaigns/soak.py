"""A store in use for long, while Central fails in turn: does it take ever more of anything?

    python -m tests.campaigns.soak [--minutes 30] [--products 1000] [--keep]

A real store follows a real Central over a connection that fails. Tills read and sell, readers
follow streams, and clients come, break off and go, as much in the first minute as in the last. In
each quarter of the run Central fails in the same ways (`FAULTS`), and full syncs are forced. Once a
second the store's memory, descriptors, threads and tasks are noted; `flatness` says what is flat.

Exits with 1, and keeps files and logs, if one of them is not flat, if a read fails or goes back, if
the store does not catch up after a fault, or if at the end it is not equal to Central.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from central_stub.switches import Switches
from tests.campaigns.flatness import Sample, rises
from tests.crash.proxy import a_proxied_shop
from tests.crash.toxics import Proxy, Toxic
from tests.harness import proc
from tests.harness.clients import INVENTORY, STORE_ADMIN_KEY, TILL_KEY, Row, path_of
from tests.harness.commands import run_to_end
from tests.harness.http import Connection, head_of
from tests.harness.processes import CentralProcess, StoreProcess
from tests.harness.streams import STREAM, FollowingReader
from tests.scenarios.people import Reads, reading
from tests.scenarios.shop import ProcessShop, until

SAMPLE_SECONDS = 1.0
CYCLE_SECONDS = 90.0
FAULT_SHARE = 0.4
WITHIN_SECONDS = 70.0
"""The longest wait that may be in force when Central is back is a minute (B1)."""

TILLS = 3
SALE_PAUSE_SECONDS = 0.5
CHANGE_PAUSE_SECONDS = 0.2
WALK_PAUSE_SECONDS = 0.02
VISIT_PAUSE_SECONDS = 0.1
FOLLOWERS = 6
MOST_ENDED = 0.01
"""The share of short visits that the store may end: on a machine that others use, this program may
be late by more than the five seconds that a new connection has."""

KEY = {"X-API-Key": TILL_KEY}

SETTINGS = {
    "WRITE_TIMEOUT_SECONDS": "2",
    "VERIFY_INTERVAL_MINUTES": "1",
    "SYNC_INTERVAL_MINUTES": "1",
    # Full within the first quarter, as they are in a store that runs for long.
    "HISTORY_LIMIT": "1000",
    "STREAM_HISTORY": "1000",
}

# On SIGUSR1 the store writes the number of its tasks, which no interface shows, into a file.
_SITE = """
import asyncio, pathlib, signal
_file = pathlib.Path(__file__).with_name("tasks")
def _write(*_):
    _file.write_text(str(len(asyncio.all_tasks())))
signal.signal(signal.SIGUSR1, _write)
"""


@dataclass
class Soak:
    """`changing`: held by whoever changes which products Central has. `visits`: connections that
    were opened to be broken off; `ended`: those of them that the store ended first."""

    shop: ProcessShop
    proxy: Proxy
    tasks_file: Path
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    asked: int = 0
    sold: int = 0
    visits: int = 0
    ended: int = 0

    @property
    def central(self) -> CentralProcess:
        return self.shop.central

    @property
    def store(self) -> StoreProcess:
        return self.shop.store


# -- what happens to Central -------------------------------------------------------------------


async def cut(soak: Soak, seconds: float) -> None:
    """Nothing listens there, and open connections break."""
    await _struck(soak, Toxic.DOWN, seconds)


async def hanging(soak: Soak, seconds: float) -> None:
    """It takes requests and does not answer."""
    await _struck(soak, Toxic.TIMEOUT, seconds)


async def refusing(soak: Soak, seconds: float) -> None:
    """It answers everything with 503."""
    await soak.central.fault("status", status=503)
    await asyncio.sleep(seconds)
    await soak.central.clear_faults()


async def replaced(soak: Soak, _seconds: float) -> None:
    """It comes back from a backup, under another name."""
    async with soak.changing:
        await soak.central.restore(await soak.central.backup())


async def wiped(soak: Soak, _seconds: float) -> None:
    """It is cut off, wiped, and has its products created afresh."""
    async with soak.changing:
        await soak.proxy.strike(Toxic.DOWN)
        products = [*(await soak.central.rows()).values()]
        await soak.central.wipe()
        await soak.central.create(*map(_created, products))
        await soak.proxy.heal()


async def synced(soak: Soak, _seconds: float) -> None:
    """Nothing: an administrator forces a full sync."""
    await soak.store.force()


Fault = Callable[[Soak, float], Awaitable[None]]
FAULTS: Sequence[Fault] = (cut, replaced, refusing, synced, hanging, wiped)


async def _struck(soak: Soak, toxic: Toxic, seconds: float) -> None:
    await soak.proxy.strike(toxic)
    await asyncio.sleep(seconds)
    await soak.proxy.heal()


def _created(row: Row) -> Row:
    return {name: row[name] for name in ("productId", "name", "available")}


async def fail_in_turn(soak: Soak, seconds: float, faults: Sequence[Fault]) -> None:
    """Let each quarter have the same faults at the same times of it."""
    quarter = seconds / 4
    cycles = max(1, round(quarter / CYCLE_SECONDS))
    each = quarter / cycles / len(faults)
    began = time.monotonic()
    for number in range(4 * cycles * len(faults)):
        fault = faults[number % len(faults)]
        await fault(soak, each * FAULT_SHARE)
        try:
            await until(lambda: _has_caught_up(soak.store), within_seconds=WITHIN_SECONDS)
        except AssertionError:
            status = await soak.store.status()
            soak.problems.append(f"not in sync after {fault.__name__}: {status['errorMessage']}")
        await asyncio.sleep(began + (number + 1) * each - time.monotonic())


async def _has_caught_up(store: StoreProcess) -> bool:
    status = await store.status()
    return status["state"]["name"] == "live" and not status["lag"]


# -- who uses the store ------------------------------------------------------------------------


async def sell(soak: Soak, till: int) -> None:
    """Ask twice for each sale that is not settled at once, then leave it."""
    chance = random.Random(till)
    for number in itertools.count():
        product_id, delta = chance.choice(soak.shop.product_ids), chance.choice((-1, 1))
        soak.asked += 1
        for _ in range(2):
            reply = await soak.store.adjust(product_id, delta, f"soak-{till}-{number}")
            if "applied" in reply.json:
                soak.sold += reply.json["applied"]
                break
        await asyncio.sleep(SALE_PAUSE_SECONDS)


async def change_elsewhere(soak: Soak) -> None:
    """Change one product after the other at Central."""
    for number in itertools.count():
        product_id = soak.shop.product_ids[number * 7919 % len(soak.shop.product_ids)]
        async with soak.changing:
            await soak.central.set(product_id, available=number % 900)
        await asyncio.sleep(CHANGE_PAUSE_SECONDS)


async def walk(soak: Soak) -> None:
    """Ask for everything that the store answers, one after the other, with right requests and
    wrong ones."""
    chance = random.Random(3)
    office = {"X-API-Key": STORE_ADMIN_KEY}
    for number in itertools.count():
        path = path_of(chance.choice(soak.shop.product_ids))
        for asked in (
            *(path, path, path, INVENTORY, f"{path}/history", f"{path}?unknown=1"),
            *(f"{INVENTORY}?q=product%20{number % 9}", f"{INVENTORY}/none", "/none"),
            *("/v1/store/sync/status", "/v1/store/cache/stats", "/v1/store/metrics/history"),
            *("/metrics", "/health", "/ready", "/openapi.json", "/", "/docs"),
        ):
            reply = await soak.store.call("GET", asked, headers=office)
            if reply.status >= 500:
                soak.problems.append(f"{asked}: {reply.status} {reply.body[:200]!r}")
            await asyncio.sleep(WALK_PAUSE_SECONDS)


async def come_and_go(soak: Soak) -> None:
    """Open a connection, do one thing, and break it off."""
    chance = random.Random(5)
    for _ in itertools.count():
        soak.visits += 1
        try:
            await visit(soak, chance)
        except (OSError, EOFError):  # the store has ended it
            soak.ended += 1
        await asyncio.sleep(VISIT_PAUSE_SECONDS)


async def visit(soak: Soak, chance: random.Random) -> None:
    """Break off after an answer, in the middle of a request, of a stream or of a body, or with a
    wrong key. Raises OSError and EOFError."""
    target = path_of(chance.choice(soak.shop.product_ids))
    line = await Connection.open(soak.store.port, local_addr=("127.0.0.31", 0))
    try:
        match chance.randrange(5):
            case 0:
                await line.send("GET", target, headers=KEY)
            case 1:
                line.writer.write(head_of("GET", target, KEY, b"")[:30])
            case 2:
                line.writer.write(head_of("GET", f"{STREAM}?from=start", KEY, b""))
                await line.reader.read(1000)
            case 3:
                await line.send("GET", target, headers={"X-API-Key": "wrong"})
            case 4:
                head = head_of("POST", f"{INVENTORY}/lookup", {**KEY, "Content-Length": "99"}, b"")
                line.writer.write(head + b"{")
    finally:
        line.reset()


# -- what it takes -----------------------------------------------------------------------------


async def sample(soak: Soak) -> None:
    while True:
        process_id = soak.store.process_id
        soak.store.process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(SAMPLE_SECONDS)
        text = await asyncio.to_thread(soak.tasks_file.read_text)
        if text:  # else it is being written
            soak.samples.append(
                Sample(
                    memory_bytes=proc.resident_bytes(process_id),
                    open_files=proc.open_files(process_id),
                    threads=proc.threads(process_id),
                    tasks=int(text),
                    sales=soak.asked,
                )
            )


# -- the run -----------------------------------------------------------------------------------


@asynccontextmanager
async def soaking(folder: Path, products: int) -> AsyncIterator[Soak]:
    """A store that is in sync with Central over a connection that can fail."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    ids = [f"P-{number:06}" for number in range(products)]
    rows = [{"productId": i, "name": f"Product {i} of the shop", "available": 1000} for i in ids]
    switches, settings = Switches(event_limit=1000), SETTINGS | {"PYTHONPATH": str(site)}
    async with a_proxied_shop(folder, rows, switches, **settings) as (shop, proxy):
        yield Soak(shop, proxy, site / "tasks")


async def run(soak: Soak, seconds: float, faults: Sequence[Fault] = FAULTS) -> Reads:
    """Let all that is in this module happen; what went wrong is in the soak's problems."""
    followers = [FollowingReader(soak.store.port) for _ in range(FOLLOWERS)]
    async with (
        asyncio.TaskGroup() as group,
        reading(soak.store, soak.shop.product_ids) as reads,
    ):
        users = [
            *(group.create_task(sell(soak, till)) for till in range(TILLS)),
            *(group.create_task(reader.run()) for reader in followers),
            *(group.create_task(work(soak)) for work in (walk, come_and_go, sample)),
        ]
        elsewhere = group.create_task(change_elsewhere(soak))
        await fail_in_turn(soak, seconds, faults)
        elsewhere.cancel()
        await _judge_followers(soak, followers)
        for user in users:
            user.cancel()
    await soak.shop.until_in_sync(WITHIN_SECONDS)
    soak.problems += reads.failed + reads.went_back
    if soak.ended > MOST_ENDED * soak.visits:
        soak.problems.append(f"the store ended {soak.ended} of {soak.visits} connections")
    return reads


async def _judge_followers(soak: Soak, followers: Sequence[FollowingReader]) -> None:
    """They hold what reads show, soon after it has changed for the last time."""

    async def all_hold() -> bool:
        rows = await soak.store.rows()
        return all(reader.holds(rows) for reader in followers)

    with suppress(AssertionError):
        await until(all_hold, within_seconds=WITHIN_SECONDS)
        return
    soak.problems.append("a reader of the stream does not hold what reads show")
    soak.problems += [problem for reader in followers for problem in reader.problems]


async def run_in(folder: Path, options: argparse.Namespace) -> bool:
    async with soaking(folder, options.products) as soak:
        reads = await run(soak, options.minutes * 60)
        syncs = await soak.store.reasons()
        await soak.store.stop()
    compared = rises(soak.samples)
    for rise in compared:
        print(rise)
    highest = max(soak.samples, key=lambda one: one.memory_bytes)
    print(
        f"{len(soak.samples)} samples, highest memory {highest.memory_bytes / 1e6:.1f} MB; "
        f"{reads.answered} lookups, the slowest {reads.slowest_seconds * 1000:.0f} ms; "
        f"{soak.asked} sales asked for, {soak.sold} applied; {soak.visits} visits broken off, "
        f"{soak.ended} ended by the store; "
        f"the last full syncs: {syncs[-6:]}"
    )
    for problem in soak.problems[:10]:
        print(f"NOT as it must be: {problem}")
    return not soak.problems and all(rise.is_flat for rise in compared)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--keep", action="store_true", help="leave files and logs")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"{options.minutes:g} minutes, files in {folder}", flush=True)
    is_well = run_to_end(run_in(folder, options))
    if is_well and not options.keep:
        shutil.rmtree(folder)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
