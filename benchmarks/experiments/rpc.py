"""A hundred watchers over gRPC, beside as many readers of the stream over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

from benchmarks.experiments.stream import CARRIED_MS, Peer, changed, reading
from benchmarks.harness.measuring import Benchmark, Effort, interleave
from benchmarks.harness.processes import central, next_line, store
from benchmarks.harness.results import Comparison, Goal, Growth, Part, Text
from benchmarks.harness.rows import product_id, random_numbers
from benchmarks.harness.wrk import (
    BUSY,
    MEDIAN,
    MISSING,
    P99,
    RATE,
    is_installed,
    load_of,
    write_requests,
)
from tests.harness.processes import Program, free_port

RPC, HTTP = "gRPC: visible until received", "HTTP: visible until received"
WATCHERS = 100
PRODUCTS = 20_000

COMPARED = 50
RATES = (10, COMPARED, 200, 800, 1600, 3200)
"""Changes a second. A candidate takes part until it no longer carries one."""

CURVE_ROUNDS = 3
SECONDS = 4.0

REQUESTS = 50_000
READ_SECONDS = 4.0
OFF, ON, WATCHED = "gRPC off", "gRPC on", "gRPC on, watchers"


async def measure(effort: Effort) -> Sequence[Part]:
    watchers = 20 if effort.quick else WATCHERS
    async with central(effort.folder, PRODUCTS) as source:
        parts = await measure_watchers(effort, source, watchers)
        if is_installed():
            parts.append(await measure_reads(effort, source, watchers))
        else:
            parts.append(Text(text=f"Left out: {MISSING}"))
    return parts


async def measure_watchers(effort: Effort, source: Program, watchers: int) -> list[Part]:
    """Measure how long changes take to reach all, at more and more changes a second."""
    rpc_port = free_port()
    folder, settings = effort.folder, {"GRPC_PORT": str(rpc_port)}
    over_rpc, over_http = folder / "rpc-notes", folder / "http-notes"
    noting = "benchmarks.harness.noting_store"
    async with (
        store(
            *(folder, source.url), name="rpc", settings=settings, module=(noting, str(over_rpc))
        ) as rpc,
        store(*(folder, source.url), name="http", module=(noting, str(over_http))) as http,
    ):
        changes = ("central", source.port)
        peers = {
            RPC: Peer(rpc, changes, "rpc", (over_rpc,), rpc_port),
            HTTP: Peer(http, changes, "store", (over_http,)),
        }
        parts: list[Part] = []
        curves: dict[str, dict[int, list[float]]] = {name: {} for name in peers}
        for rate in (10, COMPARED) if effort.quick else RATES:
            candidates = {
                name: partial(changed, peer, watchers, rate, 2.0 if effort.quick else SECONDS)
                for name, peer in peers.items()
            }
            rounds = await interleave(CURVE_ROUNDS, candidates, warm_ups=0)
            if rate == COMPARED:
                parts.append(
                    Comparison(
                        title=f"{rate} changes a second to {watchers} watchers",
                        metric=MEDIAN,
                        peers=(HTTP,),
                        also=(P99, BUSY),
                        rounds=rounds,
                        note="From the moment when a read shows the change until a watcher has it. "
                        "The other core has Central, all watchers and whoever changes.",
                    )
                )
            for name in tuple(peers):
                curves[name][rate] = rounds[name][MEDIAN]
                if median(rounds[name][P99]) > CARRIED_MS:
                    del peers[name]
    saturation = Growth(
        title=f"By changes a second, {watchers} watchers",
        metric=MEDIAN,
        curves=curves,
        axis="changes a second",
        note=f"A curve ends at {RATES[-1]:,}, or with the first rate at which one message of a "
        f"hundred took more than {CARRIED_MS / 1000:g} s.",
    )
    return [*parts, saturation]


async def measure_reads(effort: Effort, source: Program, watchers: int) -> Comparison:
    """Measure reads over HTTP of a store without gRPC, of one with it, and beside watchers."""
    paths = (f"/v1/store/inventory/{product_id(n)}" for n in random_numbers(REQUESTS, PRODUCTS))
    requests = write_requests(effort.folder / "reads", paths)
    folder, rpc_port = effort.folder, free_port()
    with_rpc = {"GRPC_PORT": str(rpc_port)}
    watched = {"GRPC_PORT": str(free_port())}
    async with (
        store(folder, source.url, name="off") as off,
        store(folder, source.url, name="on", settings=with_rpc) as on,
        store(folder, source.url, name="watched", settings=watched) as beside,
        reading("rpc", int(watched["GRPC_PORT"]), watchers, 0) as reads,
    ):
        await next_line(reads)
        seconds = 1.0 if effort.quick else READ_SECONDS
        servers = {OFF: off, ON: on, WATCHED: beside}
        rounds = await interleave(
            min(effort.rounds, 5),
            {name: load_of(server, requests, seconds) for name, server in servers.items()},
        )
    return Comparison(
        title="Reads of one product over HTTP, with gRPC off and on",
        metric=RATE,
        peers=(OFF,),
        also=(MEDIAN, P99, BUSY),
        rounds=rounds,
        goals=(Goal(candidate=ON, metric=RATE, at_least=0.97, peer=OFF),),
        note="Asked by wrk, which shares its core with all watchers and with Central.",
    )


BENCHMARK = Benchmark(
    "rpc",
    "Over gRPC",
    f"{WATCHERS} watchers of a store's changes over gRPC, and as many readers of its stream over "
    f"HTTP; and reads over HTTP, with gRPC off and on. {PRODUCTS:,} products. All watchers are "
    "sockets of one process that reads them alike, by epoll.",
    measure,
)
