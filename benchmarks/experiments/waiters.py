"""Polls held by `central-stub`, and how long until all of them have heard of an event."""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from benchmarks.harness.crowd import SPARE_FILES
from benchmarks.harness.machine import LOAD_CORE, ROOT
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import Server, end, fill, free_port, on_core, serving
from benchmarks.harness.results import Comparison, Goal, Part, Text

POLLS = 10_000
WAKES = 5
STUB, BARE = "central-stub", "bare aiohttp, one future, one answer"
LAST = "s until the last has its answer"


async def measure(effort: Effort) -> Sequence[Part]:
    polls = allowed(1_000 if effort.quick else POLLS)
    async with central(effort.folder) as stub, bell(effort.folder) as bare:
        candidates = {STUB: crowd(stub, polls), BARE: crowd(bare, polls)}
        rounds = await interleave(effort.rounds, candidates)
    comparison = Comparison(
        title=f"{polls:,} polls held at once, woken by one event",
        metric=LAST,
        peers=(BARE,),
        rounds=rounds,
        goals=(Goal(candidate=STUB, metric=LAST, at_most=0.4),),
        note="From the sending of a change until the last poll has its whole answer, the median "
        f"of {WAKES} events in each round. Who polls has the other core.",
    )
    if polls < POLLS and not effort.quick:
        said = f"The system allows too few open files for {POLLS:,} polls: `ulimit -n` raises that."
        return [comparison, Text(text=said)]
    return [comparison]


@asynccontextmanager
async def central(folder: Path) -> AsyncIterator[Server]:
    """`central-stub` on the core of what is measured: here it is that."""
    port = free_port()
    async with serving(
        (sys.executable, "-m", "central_stub", "serve"),
        port=port,
        path="/health",
        log=folder / "central.log",
        environment={"CENTRAL_STUB_PORT": str(port)},
    ) as server:
        await fill(server.url, 1)
        yield server


@asynccontextmanager
async def bell(folder: Path) -> AsyncIterator[Server]:
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.peers.bell", str(port))
    async with serving(command, port=port, path="/health", log=folder / "bell.log") as server:
        yield server


def allowed(polls: int) -> int:
    """So many, or as many as there may be open files for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(polls, hard - SPARE_FILES)


def crowd(server: Server, polls: int) -> Candidate:
    async def measure_once() -> Sample:
        process = await asyncio.create_subprocess_exec(
            *on_core(LOAD_CORE),
            *(sys.executable, "-m", "benchmarks.harness.crowd", server.url, str(polls), str(WAKES)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            said = await process.stdout.read()
        finally:
            await end(process)
        if not said:
            raise RuntimeError("the crowd ended without figures; its reason stands above")
        return {LAST: statistics.median(orjson.loads(said))}

    return measure_once


BENCHMARK = Benchmark(
    name="waiters",
    title="Polls held at Central",
    about="How long an event takes to reach every store that polls the Central that comes with "
    "this project, beside the least that aiohttp can do.",
    measure=measure,
)
