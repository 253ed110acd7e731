"""Live changes to a thousand readers, beside mosquitto and as many subscribers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import orjson

from benchmarks.harness.machine import LOAD_CORE
from benchmarks.harness.measuring import Benchmark, Effort, Sample, interleave
from benchmarks.harness.processes import central, helper, next_line, store
from benchmarks.harness.results import Comparison, Goal, Growth, Part, Rounds, Text
from benchmarks.harness.rows import product_id, random_numbers
from benchmarks.harness.wrk import (
    BUSY,
    MEDIAN,
    MISSING,
    P99,
    RATE,
    Requests,
    is_installed,
    load_of,
    processor_seconds,
    write_requests,
)
from benchmarks.peers import mosquitto
from tests.harness import proc
from tests.harness.processes import Program

Helper = AbstractAsyncContextManager[asyncio.subprocess.Process]

STORE, PEER = "store: visible until received", "mosquitto: published until received"
READERS = 1_000
SETTINGS = {"STREAM_READERS": "1500"}

COMPARED = (10, 50)
RATES = (*COMPARED, 100, 200, 400, 800)
"""Changes a second. A candidate takes part until it no longer carries one."""

CURVE_ROUNDS = 3
CARRIED_MS = 1_000.0
"""A rate is carried if every message arrives, 99 of 100 of them within this."""

CORE, MEMORY = "core %", "kB a reader"
IDLE_ROUNDS, IDLE_SECONDS = 3, 31.0
"""Each reader is told its position twice in that time."""

SETTLE_SECONDS = 8.0
"""After a start: the index is built, and the catalogue compared with Central's."""

REQUESTS = 50_000
BESIDE_SECONDS = 4.0
BESIDE_A_SECOND = 10


@dataclass(frozen=True)
class Peer:
    """A server, and what changes and reads at it: names of `stream_changes` and `stream_readers`.

    `notes`: the file of `noting_store`.
    """

    server: Program
    changes: tuple[str, int]
    reads: str
    notes: tuple[Path, ...] = ()
    rpc_port: int | None = None
    """Where its watchers connect, if it is a store's gRPC that is measured."""

    @property
    def readers_port(self) -> int:
        return self.server.port if self.rpc_port is None else self.rpc_port


async def measure(effort: Effort) -> Sequence[Part]:
    if not mosquitto.is_installed():
        return [Text(text=f"Left out: {mosquitto.MISSING}")]
    readers = 100 if effort.quick else READERS
    products = 10_000 if effort.quick else 100_000
    async with central(effort.folder, products) as source:
        parts = await measure_latencies(effort, source, readers)
        parts.append(await measure_idle(effort, source, readers))
        if is_installed():
            parts.append(await measure_reads(effort, source, readers, products))
        else:
            parts.append(Text(text=f"Left out: {MISSING}"))
    return parts


# -- how long a change takes -------------------------------------------------------------------


async def measure_latencies(effort: Effort, source: Program, readers: int) -> list[Part]:
    notes = effort.folder / "notes"
    noting = ("benchmarks.harness.noting_store", str(notes))
    async with (
        store(effort.folder, source.url, settings=SETTINGS, module=noting) as served,
        mosquitto.mosquitto(effort.folder) as broker,
    ):
        peers = {
            STORE: Peer(served, ("central", source.port), "store", (notes,)),
            PEER: Peer(broker, ("mosquitto", broker.port), "mosquitto"),
        }
        parts: list[Part] = []
        curves: dict[str, dict[int, list[float]]] = {name: {} for name in peers}
        for rate in COMPARED if effort.quick else RATES:
            candidates = {
                name: partial(changed, peer, readers, rate, 2.0 if effort.quick else 5.0)
                for name, peer in peers.items()
            }
            count = min(effort.rounds, 5) if rate in COMPARED else CURVE_ROUNDS
            rounds = await interleave(count, candidates, warm_ups=0)
            if rate in COMPARED:
                parts.append(latencies(rounds, rate, readers))
            for name in tuple(peers):
                curves[name][rate] = rounds[name][MEDIAN][:CURVE_ROUNDS]
                if median(rounds[name][P99]) > CARRIED_MS:
                    del peers[name]
    return [*parts, curve(curves, readers)]


SINCE_CENTRAL, SINCE_CENTRAL_P99 = "since sent to Central, p50 ms", "since sent to Central, p99 ms"


def latencies(rounds: Rounds, rate: int, readers: int) -> Comparison:
    goals = [Goal(candidate=STORE, metric=MEDIAN, at_most=2.0, peer=PEER)]
    return Comparison(
        title=f"{rate} changes a second to {readers:,} readers",
        metric=MEDIAN,
        peers=(PEER,),
        also=(P99, BUSY, SINCE_CENTRAL, SINCE_CENTRAL_P99),
        rounds=rounds,
        goals=goals if rate == max(COMPARED) else (),
        note="A store's change is made at Central, and goes through the long poll and the journal "
        "before it is visible. What is compared with mosquitto is the way from there: from the "
        "moment when a read shows the change until a reader has it, for all readers alike. "
        "mosquitto's begins when the message is handed to its publisher's socket. Whoever changes, "
        "all readers and Central share the other core.",
    )


def curve(curves: dict[str, dict[int, list[float]]], readers: int) -> Growth:
    return Growth(
        title=f"By changes a second, {readers:,} readers",
        metric=MEDIAN,
        curves=curves,
        axis="changes a second",
        note=f"A curve ends at {RATES[-1]:,}, or with the first rate at which one message of a "
        f"hundred took more than {CARRIED_MS / 1000:g} s. The store writes at most fifty times a "
        "second to a reader, what has changed meanwhile at once; mosquitto sends each message by "
        "itself.",
    )


def reading(kind: str, port: int, *arguments: object) -> Helper:
    return helper("harness.stream_readers", kind, port, *arguments, core=LOAD_CORE)


def changing(kind: str, port: int, count: int, rate: float) -> Helper:
    return helper("harness.stream_changes", kind, port, count, rate, core=LOAD_CORE)


async def changed(peer: Peer, readers: int, rate: int, seconds: float) -> Sample:
    """Measure how long changes take to reach all readers. Raises LostMessages."""
    count = round(rate * seconds)
    async with reading(peer.reads, peer.readers_port, readers, count, *peer.notes) as reads:
        await next_line(reads)
        async with changing(*peer.changes, count, rate) as changes:
            await next_line(changes)
            before = processor_seconds(peer.server.process_id)
            took = float(await next_line(changes))
            used = processor_seconds(peer.server.process_id) - before
            found = orjson.loads(await next_line(reads))
    if found["messages"] != count * readers:
        raise LostMessages(f"{found['messages']} of {count * readers} messages were received")
    usual, longest = found["since_visible"] or found["since_sent"]
    sample = {MEDIAN: usual, P99: longest, BUSY: 100 * used / took}
    if found["since_visible"]:
        usual, longest = found["since_sent"]
        sample |= {SINCE_CENTRAL: usual, SINCE_CENTRAL_P99: longest}
    return sample


class LostMessages(Exception):
    """A server did not do the work that is measured."""


# -- readers that are told nothing -------------------------------------------------------------

Opened = Callable[[], AbstractAsyncContextManager[Program]]

IDLE_STORE, IDLE_PEER, NO_READERS = "store", "mosquitto", "store, no readers"


async def measure_idle(effort: Effort, source: Program, readers: int) -> Comparison:
    seconds = 5.0 if effort.quick else IDLE_SECONDS
    opened_store = partial(store, effort.folder, source.url, name="idle", settings=SETTINGS)
    opened_peer = partial(mosquitto.mosquitto, effort.folder)
    rounds = await interleave(
        IDLE_ROUNDS,
        {
            IDLE_STORE: partial(idle, opened_store, "store", readers, seconds),
            NO_READERS: partial(idle, opened_store, "store", 0, seconds),
            IDLE_PEER: partial(idle, opened_peer, "mosquitto", readers, seconds),
        },
        warm_ups=0,
    )
    return Comparison(
        title=f"{readers:,} readers while nothing changes",
        metric=CORE,
        peers=(),  # of nothing at all there is no ratio
        also=(MEMORY,),
        rounds=rounds,
        goals=(Goal(candidate=IDLE_STORE, metric=CORE, at_most=3.0),),
        note=f"For {seconds:g} s. The store tells each reader its position after 15 s of silence, "
        "and looks every half second whether keys are still valid; mosquitto tells and looks at "
        "nothing. Memory is what the process has grown by when all readers had connected.",
    )


async def idle(opened: Opened, kind: str, readers: int, seconds: float) -> Sample:
    async with opened() as server, AsyncExitStack() as running:
        await asyncio.sleep(SETTLE_SECONDS)
        before = proc.resident_bytes(server.process_id)
        sample = {}
        if readers:
            reads = await running.enter_async_context(reading(kind, server.port, readers, 0))
            await next_line(reads)
            await asyncio.sleep(SETTLE_SECONDS)
            grown = proc.resident_bytes(server.process_id) - before
            sample[MEMORY] = grown / 1000 / readers
        used = processor_seconds(server.process_id)
        await asyncio.sleep(seconds)
        sample[CORE] = 100 * (processor_seconds(server.process_id) - used) / seconds
        return sample


# -- others who read meanwhile -----------------------------------------------------------------

ALONE, QUIET, BUSY_STORE = "store, no readers", "store, readers", "store, readers and changes"


async def measure_reads(effort: Effort, source: Program, readers: int, products: int) -> Comparison:
    paths = (f"/v1/store/inventory/{product_id(n)}" for n in random_numbers(REQUESTS, products))
    requests = write_requests(effort.folder / "beside", paths)
    async with (
        store(effort.folder, source.url, name="alone") as alone,
        store(effort.folder, source.url, name="beside", settings=SETTINGS) as beside,
        reading("store", beside.port, readers, 0) as reads,
    ):
        await next_line(reads)
        seconds = 1.0 if effort.quick else BESIDE_SECONDS
        rounds = await interleave(
            min(effort.rounds, 5),
            {
                ALONE: load_of(alone, requests, seconds),
                QUIET: load_of(beside, requests, seconds),
                BUSY_STORE: partial(read_beside, beside, source.port, requests, seconds),
            },
        )
    return Comparison(
        title=f"Reads of one product beside {readers:,} readers and {BESIDE_A_SECOND} changes a "
        "second",
        metric=RATE,
        peers=(QUIET, ALONE),
        also=(MEDIAN, P99, BUSY),
        rounds=rounds,
        goals=(Goal(candidate=BUSY_STORE, metric=RATE, at_least=0.8, peer=QUIET),),
        note="Asked by wrk, which shares its core with all readers and with Central.",
    )


async def read_beside(
    served: Program, central_port: int, requests: Requests, seconds: float
) -> Sample:
    count = round(BESIDE_A_SECOND * (seconds + 1))
    async with changing("central", central_port, count, BESIDE_A_SECOND) as changes:
        await next_line(changes)
        return await load_of(served, requests, seconds)()


BENCHMARK = Benchmark(
    "stream",
    "Live changes",
    f"{READERS:,} readers of a store's stream of changes, and as many subscribers of a topic of "
    "mosquitto (QoS 0, nothing on disk, `set_tcp_nodelay`). Rows of products of about 200 bytes "
    "change at random moments, the n-th time at the same moments for both. All readers are sockets "
    "of one process that reads them alike, by epoll.",
    measure,
)
