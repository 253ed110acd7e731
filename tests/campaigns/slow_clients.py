"""Thousands of slow and silent clients: are others read to at once, and do new tills get in?

    python -m tests.campaigns.slow_clients [--slow 1000] [--silent 2000] [--seconds 40]
        [--limit-ms 50] [--new-limit-ms 1000]

The store and its Central are real processes, as is the `crowd`. Eight tills read products, pages
and lookups on connections that they keep, 200 times a second in all, and twenty new tills a second
connect, from addresses of the crowd and from others, and read a product. Some products change all
the time, so that streams have something to say. The same is measured before the crowd comes.

On a shared machine the store and this program also wait for a processor, which says nothing about
the store. So what counts of an answer's time is without these waits, but at least the processor
time that the store used meanwhile. The time that passed is told too.

Exits with 1 if 99 % of the reads, or of the new tills, are not answered within their limit, if one
is refused or waits for five seconds, if the crowd was not there, or if the store keeps descriptors
of it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import uvloop

from central_stub.switches import Switches
from tests.campaigns.crowd import ADDRESSES
from tests.harness import proc
from tests.harness.background import in_background
from tests.harness.clients import INVENTORY, TILL_KEY, path_of
from tests.harness.http import Connection, Reply
from tests.harness.processes import ROOT, StoreProcess, end
from tests.scenarios.shop import ProcessShop, a_shop_of_processes, until

PRODUCTS = 2000
TILLS = 8
READS_A_SECOND = 25
"""Of each till."""
NEW_PAUSE_SECONDS = 0.05
CHANGE_PAUSE_SECONDS = 0.05
AT_FIRST_SECONDS = 5.0
"""How long is measured without the crowd, and how long it is left to settle."""
ARRIVAL_SECONDS = 60.0
LEFT_SECONDS = 40.0
"""A client that does not read is ended after 30 s, see `api/connection.py`."""
MOST_LEFT = 5
PATIENCE_SECONDS = 30.0
"""As much may pass on a shared machine; what counts has limits of its own."""
LONGEST_MS = 5000.0
"""A connection that the system has dropped, since the store could not accept it at once, is tried
again after a second and after three."""
FEWEST = 20
"""Of fewer answers nothing can be told."""
LEAST_CROWD = 1 / 3
"""The share of the crowd that must be connected all the time. A silent client is ended after five
seconds, and comes back after three; others are kept out by the caps."""

KEY = {"X-API-Key": TILL_KEY}
JSON = {"Content-Type": "application/json"}


class Wait(NamedTuple):
    """For an answer, in seconds."""

    counted: float
    passed: float


@dataclass
class Waits:
    """How long each answer took, and what was no right answer."""

    process_id: int
    reads: list[Wait] = field(default_factory=list)
    new_tills: list[Wait] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def note(self, into: list[Wait], asked: Awaitable[Reply]) -> bool:
        """Time an answer; return whether it was a right one."""
        began, store, own = time.monotonic(), self._scheduling(), proc.scheduling(os.getpid())
        try:
            reply = await asked
        except (OSError, EOFError) as problem:  # TimeoutError is an OSError
            self.failed.append(repr(problem))
            return False
        passed = time.monotonic() - began
        then, own_then = self._scheduling(), proc.scheduling(os.getpid())
        shared = then.waited - store.waited + own_then.waited - own.waited
        into.append(Wait(min(passed, max(then.ran - store.ran, passed - shared)), passed))
        if reply.status != 200:
            self.failed.append(f"{reply.status} {reply.body[:200]!r}")
        return reply.status == 200

    def _scheduling(self) -> proc.Scheduling:
        return proc.scheduling(self.process_id)


async def ask(line: Connection, method: str, target: str, body: bytes = b"") -> Reply:
    headers = KEY | JSON if body else KEY
    return await line.send(
        method, target, headers=headers, body=body, within_seconds=PATIENCE_SECONDS
    )


async def read(store: StoreProcess, till: int, waits: Waits) -> None:
    """Read in turn a product, a page and a lookup, on one connection for as long as it lasts."""
    ids = [f"P-{number:05}" for number in range(till, PRODUCTS, TILLS)]
    line: Connection | None = None
    for number in itertools.count():
        line = line or await Connection.open(store.port, local_addr=(f"127.0.0.{11 + till}", 0))
        chosen = [ids[(number + step) % len(ids)] for step in range(5)]
        body = orjson.dumps({"productIds": chosen})
        match number % 3:
            case 0:
                asked = ask(line, "GET", path_of(chosen[0]))
            case 1:
                asked = ask(line, "GET", f"{INVENTORY}?limit=20&after={chosen[0]}")
            case _:
                asked = ask(line, "POST", f"{INVENTORY}/lookup", body)
        if not await waits.note(waits.reads, asked):
            line.close()
            line = None
        await asyncio.sleep(1 / READS_A_SECOND)


async def keep_arriving(store: StoreProcess, waits: Waits) -> None:
    """Connect as a new till and read a product, again and again: from an address of the crowd and
    from another one in turn."""

    async def arrive(address: str) -> Reply:
        line = await Connection.open(store.port, local_addr=(address, 0))
        try:
            return await ask(line, "GET", path_of("P-00001"))
        finally:
            line.reset()

    for number in itertools.count():
        address = ADDRESSES[number // 2 % len(ADDRESSES)] if number % 2 else "127.0.0.30"
        await waits.note(waits.new_tills, arrive(address))
        await asyncio.sleep(NEW_PAUSE_SECONDS)


async def change(shop: ProcessShop) -> None:
    for number in itertools.count():
        await shop.central.set(f"P-{number * 7919 % PRODUCTS:05}", available=number % 900)
        await asyncio.sleep(CHANGE_PAUSE_SECONDS)


async def measured(store: StoreProcess, seconds: float) -> Waits:
    waits = Waits(store.process_id)
    tills = [read(store, till, waits) for till in range(TILLS)]
    async with in_background(*tills, keep_arriving(store, waits)):
        await asyncio.sleep(seconds)
    return waits


# -- the crowd ---------------------------------------------------------------------------------


@dataclass
class Crowd:
    """`told`: what it said last. `connected`: how many clients were, each time."""

    told: dict[str, Any] = field(default_factory=dict)
    connected: list[int] = field(default_factory=list)

    async def listen(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            self.told = orjson.loads(line)
            self.connected.append(sum(self.told["connected"].values()))


@asynccontextmanager
async def crowded(store: StoreProcess, slow: int, silent: int) -> AsyncIterator[Crowd]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.campaigns.crowd", str(store.port)),
        *("--slow", str(slow), "--silent", str(silent)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    crowd = Crowd()
    try:
        async with in_background(crowd.listen(child.stdout)):
            await until(
                lambda: crowd.told.get("opened", 0) >= slow + silent,
                within_seconds=ARRIVAL_SECONDS,
            )
            await asyncio.sleep(AT_FIRST_SECONDS)
            crowd.connected.clear()
            yield crowd
    finally:
        await end(child)


# -- the command -------------------------------------------------------------------------------


def said(name: str, waits: Sequence[Wait]) -> str:
    if len(waits) < FEWEST:
        return f"  {name:9} {len(waits):6}"
    counted, passed = ([part * 1000 for part in parts] for parts in zip(*waits, strict=True))
    return (
        f"  {name:9} {len(waits):6}: p50 {p(50, counted):5.1f} ms, p99 {p(99, counted):5.1f} ms, "
        f"longest {max(counted):6.1f} ms ({p(99, passed):.1f} and {max(passed):.1f} ms passed)"
    )


def p(percent: int, values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


async def run(folder: Path, options: argparse.Namespace) -> list[str]:
    """Measure, print the figures, and return what is not as it must be."""
    products = [
        {"productId": f"P-{n:05}", "name": f"Product {n}", "available": 9, "text": "x" * 600}
        for n in range(PRODUCTS)
    ]
    async with a_shop_of_processes(folder, products, Switches()) as shop:
        store = shop.store
        await store.start("/ready")
        async with in_background(change(shop)):
            before = await measured(store, min(AT_FIRST_SECONDS, options.seconds))
            files = proc.open_files(store.process_id)
            async with crowded(store, options.slow, options.silent) as crowd:
                during = await measured(store, options.seconds)
                memory = proc.resident_bytes(store.process_id)
            try:
                await until(
                    lambda: proc.open_files(store.process_id) <= files + MOST_LEFT,
                    within_seconds=LEFT_SECONDS,
                )
            except AssertionError:
                during.failed.append(f"{proc.open_files(store.process_id)} descriptors are left")
            health = await store.health()
    for name, waits in (("before", before), ("with the crowd", during)):
        print(f"{name}:")
        print(said("reads", waits.reads))
        print(said("new tills", waits.new_tills))
    there, least, most = crowd.told, min(crowd.connected), max(crowd.connected)
    print(f"the crowd: {least} to {most} of {options.slow + options.silent} connected at a time")
    print(f"  at last {there['connected']}")
    print(f"  {there['opened']} connections in all, {there['refused']} refused")
    print(f"the store takes {memory / 1e6:.0f} MB")
    return list(_problems(options, before, during, crowd, health))


def _problems(
    options: argparse.Namespace, before: Waits, during: Waits, crowd: Crowd, health: dict[str, Any]
) -> Iterator[str]:
    yield from (before.failed + during.failed)[:10]
    if min(len(during.reads), len(during.new_tills)) < FEWEST:
        yield "too few answers came to tell anything"
        return
    reads_ms = [wait.counted * 1000 for wait in during.reads]
    new_ms = [wait.counted * 1000 for wait in during.new_tills]
    if (p99 := p(99, reads_ms)) > options.limit_ms:
        yield f"99 % of the reads take up to {p99:.1f} ms"
    if (p99 := p(99, new_ms)) > options.new_limit_ms:
        yield f"99 % of the new tills are served within {p99:.1f} ms"
    if (longest := max(reads_ms + new_ms)) > LONGEST_MS:
        yield f"an answer took {longest:.1f} ms"
    if min(crowd.connected) < LEAST_CROWD * (options.slow + options.silent):
        yield f"only {min(crowd.connected)} of the crowd were there"
    if health["status"] == "unhealthy":
        yield f"the store is unhealthy afterwards: {health['checks']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--silent", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--limit-ms", type=float, default=50.0, help="p99 of reads")
    parser.add_argument("--new-limit-ms", type=float, default=1000.0, help="p99 of new tills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slow-clients-") as folder:
        problems = uvloop.run(run(Path(folder), options))
    for problem in problems:
        print(f"NOT as it must be: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
