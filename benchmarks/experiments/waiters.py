"""Polls held by `central-stub`, and how long until all of them are answered with an event."""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness.held_polls import SPARE_FILES
from benchmarks.harness.machine import LOAD_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import figures, fill, serving
from benchmarks.harness.results import Comparison, Goal, Part, Text
from tests.harness.processes import Program, free_port

POLLS = 10_000
WAKES = 5
STUB, BARE = "central-stub", "bare aiohttp, one future, one answer"
LAST = "s until the last has its answer"


async def measure(effort: Effort) -> Sequence[Part]:
    polls = allowed(1_000 if effort.quick else POLLS)
    async with central(effort.folder) as stub, minimal_central(effort.folder) as bare:
        candidates = {STUB: held_polls(stub, polls), BARE: held_polls(bare, polls)}
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
async def central(folder: Path) -> AsyncIterator[Program]:
    """`central-stub` on the core of what is measured."""
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
async def minimal_central(folder: Path) -> AsyncIterator[Program]:
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.peers.minimal_central", str(port))
    log = folder / "minimal-central.log"
    async with serving(command, port=port, path="/health", log=log) as server:
        yield server


def allowed(polls: int) -> int:
    """So many polls, or as many as there may be open files for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(polls, hard - SPARE_FILES)


def held_polls(server: Program, polls: int) -> Candidate:
    async def measure_once() -> Sample:
        arguments = (server.url, polls, WAKES)
        took = await figures("harness.held_polls", *arguments, core=LOAD_CORE)
        return {LAST: statistics.median(took)}

    return measure_once


BENCHMARK = Benchmark(
    name="waiters",
    title="Polls held at Central",
    about="How long an event takes to reach every store that polls the Central that comes with "
    "this project, beside the least that aiohttp can do.",
    measure=measure,
)
