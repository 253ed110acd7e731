"""What two processes of Central over one PostgreSQL carry, and what it costs.

    python -m benchmarks.chain [--seconds 10] [--polls 10000]

1. Single writes over HTTP, each till on a connection and a product of its own, half of the tills
   at either process, with `synchronous_commit=on` and fsync: writes a second, and the processor
   time of each program for one write. The same again at one process with its ledger in a folder.
2. Polls held at both processes, half at either, woken by one change: seconds until the last poll
   has its whole answer.

Rounds of the first are interleaved. On a machine that does something else, too, the processor time
for a write says more than the rate.
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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.harness.held_polls import SETTLE_SECONDS, HeldPolls, allow_files
from central_stub.postgres.temporary import TemporaryServer
from central_stub.postgres.upkeep import migrate
from tests.harness.clients import CENTRAL_KEY
from tests.harness.proc import cpu_seconds
from tests.harness.processes import CentralProcess

TILLS = 64
ROUNDS = 3
WAKES = 5
STOCK = 1_000_000_000
HEAD = (
    "POST /v1/inventory/updates HTTP/1.1\r\nHost: central\r\nX-API-Key: {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


class Till(asyncio.Protocol):
    """Sells one piece of its product after the other; `sold` counts."""

    def __init__(self, number: int, version: int, run: str) -> None:
        self.sold = 0
        self.problem = ""
        self.ended = asyncio.get_running_loop().create_future()
        self._number = number
        self._version = version
        self._run = run
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._goes_on = True

    @property
    def version(self) -> int:
        return self._version

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._sell()

    def _sell(self) -> None:
        assert self._transport is not None
        body = (
            f'{{"productId":"P{self._number}","delta":-1,"version":{self._version},'
            f'"idempotencyKey":"{self._run}-{self._number}-{self._version}","storeId":"s"}}'
        )
        head = HEAD.format(key=CENTRAL_KEY, length=len(body))
        self._transport.write((head + body).encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        if b'"applied":true' not in body:
            self.problem = bytes(body).decode()
        self._received.clear()
        self.sold += 1
        self._version += 1
        if self._goes_on and not self.problem:
            self._sell()
        else:
            self._end()

    def connection_lost(self, _: Exception | None) -> None:
        self._end()

    def stop(self) -> None:
        self._goes_on = False

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._transport is not None:
            self._transport.close()


class Measured:
    """Programs whose processor time is measured, by name."""

    def __init__(self, centrals: Sequence[CentralProcess], server: TemporaryServer | None) -> None:
        self.centrals = centrals
        self.server = server
        self.versions = [1] * TILLS
        self.rates: list[float] = []
        self.costs: list[dict[str, float]] = []

    def seconds(self) -> dict[str, float]:
        spent = {"Central": sum(cpu_seconds(each.process_id) for each in self.centrals)}
        if self.server is not None:
            spent["PostgreSQL"] = self.server.cpu_seconds()
        return spent | {"tills": time.process_time()}

    async def sell(self, seconds: float, run: str) -> None:
        """Sell for so long, and note the rate and the processor time of one write."""
        loop = asyncio.get_running_loop()
        began, spent, tills = time.perf_counter(), self.seconds(), []
        for number, version in enumerate(self.versions):
            port = self.centrals[number % len(self.centrals)].port
            make = partial(Till, number, version, run)
            _, till = await loop.create_connection(make, "127.0.0.1", port)
            tills.append(till)
        await asyncio.sleep(seconds)
        for till in tills:
            till.stop()
        await asyncio.gather(*(till.ended for till in tills))
        took, sold = time.perf_counter() - began, sum(till.sold for till in tills)
        problems = [till.problem for till in tills if till.problem]
        if problems:
            raise RuntimeError(problems[0])
        self.versions = [till.version for till in tills]
        self.rates.append(sold / took)
        after = self.seconds()
        self.costs.append({name: (after[name] - spent[name]) / sold for name in spent})

    def report(self, name: str) -> None:
        print(f"{name}: {statistics.median(self.rates):,.0f} writes/s, of", end=" ")
        print(", ".join(f"{rate:,.0f}" for rate in self.rates))
        for program in self.costs[0]:
            each = statistics.median(cost[program] for cost in self.costs)
            print(f"  {program}: {each * 1e6:,.0f} us of processor time for a write")


async def run(folder: Path, server: TemporaryServer, options: argparse.Namespace) -> None:
    url = server.url("central")
    await migrate(url)
    pair = [CentralProcess(folder / name, database=url) for name in ("a", "b")]
    alone = CentralProcess(folder / "alone")
    try:
        for central in (*pair, alone):
            await central.start()
        products = [{"productId": f"P{number}", "available": STOCK} for number in range(TILLS)]
        await pair[0].create(*products)
        await alone.create(*products)
        in_database, in_folder = Measured(pair, server), Measured([alone], None)
        for number in range(ROUNDS):
            await in_database.sell(options.seconds, f"round-{number}")
            await in_folder.sell(options.seconds, f"round-{number}")
        print(
            f"{TILLS} tills, load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
        in_database.report("two processes over PostgreSQL")
        in_folder.report("one process with a folder")
        await alone.stop()
        took = await wake(pair, options.polls)
        print(f"{options.polls:,} polls held at two processes, woken by one change: ", end="")
        print(f"{statistics.median(took):.2f} s until the last is answered, of", end=" ")
        print(", ".join(f"{each:.2f}" for each in took))
    finally:
        for central in (*pair, alone):
            await central.close()


async def wake(pair: Sequence[CentralProcess], count: int) -> list[float]:
    """Return the seconds from a change until every held poll has its answer, of each round."""
    polls, took = [HeldPolls(each.url, count // 2) for each in pair], []
    for each in polls:
        await each.gather()
    page = await pair[0].call("GET", "/v1/inventory?limit=1")
    following = page.json["eventOffset"] + 1
    for number in range(WAKES):
        for each, central in zip(polls, pair, strict=True):
            each.ask(following)
            await central.call("GET", "/health")  # answered after what was sent before it
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        changed = asyncio.create_task(pair[0].set("P0", available=number))
        following = max(await asyncio.gather(*(each.over() for each in polls)))
        took.append(time.perf_counter() - began)
        await changed
    for each in polls:
        each.close()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--polls", type=int, default=10_000)
    options = parser.parse_args()
    allow_files(options.polls)
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    folder.chmod(0o711)  # PostgreSQL may run as another user in a folder below
    try:
        with TemporaryServer(folder=folder / "postgres") as server:
            server.query("CREATE DATABASE central")
            uvloop.run(run(folder, server, options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
