"""Resident memory, beside a process that holds nothing but a dict of the same rows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.cache import snapshot_in
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import central, client, serving, store
from benchmarks.harness.results import Comparison, Goal, Part
from benchmarks.harness.rows import product_id, random_numbers
from tests.harness import proc
from tests.harness.processes import Program

STORE, PEAK = "store: after a full sync and reads", "store: peak of another full sync"
DICT = "dict of id to bytes"
METRIC = "MB"
READS = 2_000
HELD_SECONDS = 900.0

GOALS = (
    Goal(candidate=STORE, metric=METRIC, at_most=1.5, peer=DICT),
    Goal(candidate=PEAK, metric=METRIC, at_most=2.2, peer=DICT),
)

HOLD = """
import sys, orjson
rows = {}
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        if line.startswith(b'{"productId"'):
            rows[orjson.loads(line)["productId"]] = line[:-1]
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        print(line.split()[1])
"""


async def measure(effort: Effort) -> Sequence[Part]:
    products = 10_000 if effort.quick else 1_000_000
    async with (
        central(effort.folder, products) as source,
        store(effort.folder, source.url) as served,
    ):
        candidates = {
            STORE: resident(served, products),
            PEAK: peak(served),
            DICT: held_by_a_dict(effort, effort.folder / "store"),
        }
        rounds = await interleave(min(effort.rounds, 5), candidates, warm_ups=0)
    return [
        Comparison(
            title=f"Resident memory, {products:,} products",
            metric=METRIC,
            peers=(DICT,),
            rounds=rounds,
            goals=() if effort.quick else GOALS,
            note="From the second round on, the first figure includes what earlier full syncs "
            "left behind in the allocator.",
        )
    ]


def resident(served: Program, products: int) -> Candidate:
    async def candidate() -> Sample:
        async with client(served.url) as asking:
            for number in random_numbers(READS, products):
                path = f"/v1/store/inventory/{product_id(number)}"
                (await asking.get(path)).raise_for_status()
        return {METRIC: proc.resident_bytes(served.process_id) / 1e6}

    return candidate


def peak(served: Program) -> Candidate:
    async def candidate() -> Sample:
        await asyncio.to_thread(proc.forget_highest, served.process_id)
        async with client(served.url) as asking:
            answer = await asking.post("/v1/store/sync/force", timeout=HELD_SECONDS)
            answer.raise_for_status()
        return {METRIC: proc.highest_resident_bytes(served.process_id) / 1e6}

    return candidate


def held_by_a_dict(effort: Effort, data: Path) -> Candidate:
    async def candidate() -> Sample:
        said = effort.folder / "dict.log"
        said.unlink(missing_ok=True)
        command = (sys.executable, "-c", HOLD, str(snapshot_in(data)))
        async with serving(command, log=said) as program:
            assert await program.process.wait() == 0, said.read_text()
        return {METRIC: int(said.read_text()) * 1024 / 1e6}

    return candidate


BENCHMARK = Benchmark(
    "memory",
    "Memory",
    "Resident memory of the store's process, following a `central-stub` with as many products: "
    f"after {READS:,} reads, and at the peak of a forced full sync that finds nothing changed. The "
    "peer is a Python process that holds the snapshot's rows in a dict, each in a bytes object of "
    "its exact size, and nothing else: no order of ids, no server.",
    measure,
)
