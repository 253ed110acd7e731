"""Resident memory, beside a process that holds nothing but a dict of the same rows; and what each
feature takes of it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.experiments.reads import offset_of
from benchmarks.experiments.search import until_indexed
from benchmarks.harness.cache import snapshot_in
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import LOAD_ROWS, central, client, serving, store
from benchmarks.harness.results import Comparison, Goal, Part
from benchmarks.harness.rows import product_id, random_numbers
from tests.harness import proc
from tests.harness.clients import CENTRAL_ADMIN_KEY
from tests.harness.processes import Program

OFF = {
    "STREAM_READERS": "0",
    "SEARCH": "false",
    "HISTORY_LIMIT": "0",
    "METRICS": "false",
    "VERIFY_INTERVAL_MINUTES": "0",
}
STORE, PEAK = "store: after a full sync and reads", "store: peak of another full sync"
ON, ON_PEAK = f"{STORE}, everything on", f"{PEAK}, everything on"
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
        store(effort.folder, source.url, settings=OFF) as served,
        store(effort.folder, source.url, name="everything-on") as whole,
    ):
        await until_indexed(whole)
        candidates = {
            STORE: resident(served, products),
            PEAK: peak(served),
            ON: resident(whole, products),
            ON_PEAK: peak(whole),
            DICT: held_by_a_dict(effort, effort.folder / "store"),
        }
        rounds = await interleave(min(effort.rounds, 5), candidates, warm_ups=0)
    size = Comparison(
        title=f"Resident memory, {products:,} products",
        metric=METRIC,
        peers=(DICT,),
        rounds=rounds,
        goals=() if effort.quick else GOALS,
        note="From the second round on, the first figures include what earlier full syncs left "
        "behind in the allocator. The first two are of a store with everything off.",
    )
    return [size, await measure_features(effort)]


# -- what each feature takes -------------------------------------------------------------------

FEATURES = {
    "everything off": set[str](),
    "streams on": {"STREAM_READERS"},
    "search on": {"SEARCH"},
    "history on": {"HISTORY_LIMIT"},
    "metrics on": {"METRICS"},
    "verification on": {"VERIFY_INTERVAL_MINUTES"},
    "everything on": OFF.keys(),
}
CHANGES = 100_000
SETTLE_SECONDS = 3.0
LOOK_SECONDS = 0.1


async def measure_features(effort: Effort) -> Comparison:
    products = CHANGES // 10 if effort.quick else CHANGES
    async with central(effort.folder, products, name="central-of-features") as source:
        rounds = await interleave(
            2 if effort.quick else min(effort.rounds, 5),
            {
                f"store, {name}": partial(after_changes, effort, source, products, left_on)
                for name, left_on in FEATURES.items()
            },
            warm_ups=0,
        )
    return Comparison(
        title=f"Resident memory with each feature, {products:,} products and as many changes",
        metric=METRIC,
        peers=(),
        rounds=rounds,
        note="A new store each time, after it has followed a change of each product. What a "
        "feature takes is the difference to everything off. The streams keep the last 10,000 "
        "changes and have no readers, the history keeps 100,000 changes, and the index is built.",
    )


async def after_changes(
    effort: Effort, source: Program, products: int, left_on: Set[str]
) -> Sample:
    settings = {name: value for name, value in OFF.items() if name not in left_on}
    async with (
        temporary_folder(effort) as folder,
        store(folder, source.url, settings=settings) as served,
    ):
        if "SEARCH" not in settings:
            await until_indexed(served)
        last = await change_all(source, products)
        async with client(served.url) as asking:
            while await offset_of(asking) < last:
                await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        return {METRIC: proc.resident_bytes(served.process_id) / 1e6}


@asynccontextmanager
async def temporary_folder(effort: Effort) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(dir=effort.folder) as folder:
        yield Path(folder)


async def change_all(source: Program, products: int) -> int:
    """Change the stock of each product once; return the offset of the last event."""
    async with client(source.url, CENTRAL_ADMIN_KEY) as asking:
        for first in range(0, products, LOAD_ROWS):
            numbers = range(first, min(products, first + LOAD_ROWS))
            rows = [{"productId": product_id(n), "available": 20} for n in numbers]
            body = {"products": rows}
            (await asking.put("/v1/admin/products/set", json=body)).raise_for_status()
        page = (await asking.get("/v1/inventory?limit=1")).raise_for_status().json()
        return int(page["eventOffset"])


# -- how it is measured ------------------------------------------------------------------------


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
