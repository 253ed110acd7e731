"""From the start of the process to the first read served, beside a script that indexes the file."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.experiments.backlog import write_files
from benchmarks.harness.cache import as_served, snapshot_in
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import KEY, Environment, serving
from benchmarks.harness.results import Comparison, Goal, Part
from benchmarks.harness.rows import product_id
from tests.harness.processes import free_port

STORE, SCRIPT = "store: first read served", "script: read and indexed"
METRIC = "seconds"
ASK_SECONDS = 0.002
GOAL_PRODUCTS = 1_000_000
"""With fewer, a start is mostly imports."""

INDEX = """
import sys, orjson
rows = {}
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        if line.startswith(b'{"productId"'):
            rows[orjson.loads(line)["productId"]] = line[:-1]
ids = sorted(rows)
print(len(ids), rows[ids[len(ids) // 2]])
"""


async def measure(effort: Effort) -> Sequence[Part]:
    sizes = (1_000, 10_000) if effort.quick else (1_000, 100_000, 1_000_000)
    return [await measure_size(effort, products) for products in sizes]


async def measure_size(effort: Effort, products: int) -> Comparison:
    data = effort.folder / str(products)
    await as_served(lambda: write_files(data, products))
    candidates = {STORE: store(effort, data, products), SCRIPT: script(effort, data)}
    goal = Goal(candidate=STORE, metric=METRIC, at_most=1.5, peer=SCRIPT)
    return Comparison(
        title=f"Start from disk, {products:,} products",
        metric=METRIC,
        peers=(SCRIPT,),
        rounds=await interleave(effort.rounds, candidates),
        goals=(goal,) if products >= GOAL_PRODUCTS else (),
    )


def environment(effort: Effort) -> Environment:
    """Bytecode is kept, as an installation does."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(effort.folder / "bytecode")}


def store(effort: Effort, data: Path, products: int) -> Candidate:
    async def candidate() -> Sample:
        port = free_port()
        settings = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "API_KEYS": KEY,
            "DATA_DIR": str(data),
            "CENTRAL_API_URL": "http://127.0.0.1:9",
            "LOG_LEVEL": "error",
        }
        command = (sys.executable, "-m", "store_cache", "serve")
        log = effort.folder / "store.log"
        began = time.perf_counter()
        async with serving(command, log=log, environment={**environment(effort), **settings}):
            await first_read(port, product_id(products // 2))
            return {METRIC: time.perf_counter() - began}

    return candidate


async def first_read(port: int, wanted: str) -> None:
    """Until the product is served; asked in the fewest steps, so that asking takes no time."""
    lines = (f"GET /v1/store/inventory/{wanted} HTTP/1.1", "Host: store", f"X-API-Key: {KEY}")
    request = "\r\n".join((*lines, "", "")).encode()
    async with asyncio.timeout(120):
        while True:
            if (await answer(port, request)).startswith(b"HTTP/1.1 200"):
                return
            await asyncio.sleep(ASK_SECONDS)


async def answer(port: int, request: bytes) -> bytes:
    """What comes first of the answer; nothing where nobody listens yet."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return b""
    try:
        writer.write(request)
        return await reader.read(4096)
    finally:
        writer.close()


def script(effort: Effort, data: Path) -> Candidate:
    async def candidate() -> Sample:
        command = (sys.executable, "-c", INDEX, str(snapshot_in(data)))
        began = time.perf_counter()
        log = effort.folder / "script.log"
        async with serving(command, log=log, environment=environment(effort)) as program:
            assert await program.process.wait() == 0, log.read_text()
            return {METRIC: time.perf_counter() - began}

    return candidate


BENCHMARK = Benchmark(
    "start",
    "Start from disk",
    "From the start of the process to the first product served, key checked, with Central down: "
    "imports, reading and checking the files, writing a new snapshot and a new journal durably (a "
    "start begins new files before anything is shown or acknowledged), listening. The script reads "
    "the same snapshot into a dict, sorts the ids and ends; it checks nothing and writes nothing.",
    measure,
)
