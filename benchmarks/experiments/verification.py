"""What comparing with Central costs: beside following, and in one comparison."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.machine import SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import client, figures, prepared_central, store
from benchmarks.harness.results import Comparison, Goal, Part, Rounds

PRODUCTS, QUICK_PRODUCTS = 1_000_000, 20_000
EVENTS_PER_SECOND = 1_000
FOLLOWING_SECONDS, QUICK_SECONDS = 20.0, 3.0

FOLLOWING, VERIFYING = "store: following", "store: verification of the same events"
QUIET, FIRST, CHANGED = (
    "store: comparison of a quiet feed",
    "store: hashing of all products, the first time",
    "store: hashing of 10,000 changed products",
)
BEGIN = "store: what a start or a first full sync waits for"
CPU, MILLISECONDS, STALL, SECONDS = "ms of CPU a second", "ms", "longest stall ms", "s"


async def measure(effort: Effort) -> Sequence[Part]:
    products = QUICK_PRODUCTS if effort.quick else PRODUCTS
    rounds: Rounds = {}
    candidates = {VERIFYING: verifying(effort, products, rounds)}
    async with (
        prepared_central(products, 1) as url,
        store(effort.folder, url, settings={"VERIFY_INTERVAL_MINUTES": "0"}) as server,
    ):
        seconds = QUICK_SECONDS if effort.quick else FOLLOWING_SECONDS
        candidates[FOLLOWING] = following(url, server.process_id, seconds)
        beside = await interleave(min(effort.rounds, 5), candidates, warm_ups=0)
    return [
        Comparison(
            title=f"Following {EVENTS_PER_SECOND:,} events a second, {products:,} products",
            metric=CPU,
            peers=(FOLLOWING,),
            rounds=beside,
            goals=(Goal(candidate=VERIFYING, metric=CPU, at_most=0.05, peer=FOLLOWING),),
            note="Following is the whole process, with verification off. Verification is what it "
            "adds for these events if each is of another product: telling it of the change, and "
            "hashing the row once. A product that changes again before the next comparison is "
            "hashed only once.",
        ),
        Comparison(
            title=f"A comparison, {products:,} products",
            metric=MILLISECONDS,
            peers=(),
            rounds={name: rounds[name] for name in (QUIET, BEGIN)},
            goals=(
                Goal(candidate=QUIET, metric=MILLISECONDS, at_most=50.0),
                Goal(candidate=BEGIN, metric=MILLISECONDS, at_most=10.0),
            ),
            note="Without what Central and the network take: from the whole answer on.",
        ),
        Comparison(
            title=f"The longest stall of a comparison, {products:,} products",
            metric=STALL,
            peers=(),
            also=(SECONDS,),
            rounds={name: rounds[f"stall of {name}"] for name in (QUIET, FIRST, CHANGED)},
            goals=[
                Goal(candidate=name, metric=STALL, at_most=20.0) for name in (QUIET, FIRST, CHANGED)
            ],
        ),
    ]


def verifying(effort: Effort, products: int, rounds: Rounds) -> Candidate:
    """Return what measures verification alone; its other figures go into `rounds`."""

    def note(candidate: str, sample: Sample) -> None:
        for metric, figure in sample.items():
            rounds.setdefault(candidate, {}).setdefault(metric, []).append(figure)

    async def candidate() -> Sample:
        folder = effort.folder / "verified"
        said = await figures("harness.verifying", folder, products, core=SERVER_CORE)
        await asyncio.to_thread(shutil.rmtree, folder)
        note(QUIET, {MILLISECONDS: said["quiet ms"]})
        note(BEGIN, {MILLISECONDS: said["begin ms"]})
        for name, stall, seconds in (
            (QUIET, said["quiet stall ms"], said["quiet ms"] / 1000),
            (FIRST, said["first stall ms"], said["first hashing s"]),
            (CHANGED, said["changed stall ms"], said["changed s"]),
        ):
            note(f"stall of {name}", {STALL: stall, SECONDS: seconds})
        return {CPU: said["telling ms"] + said["hashing ms"]}

    return candidate


def following(central_url: str, process_id: int, seconds: float) -> Candidate:
    """Return what measures the processor time of a store that follows that many events."""

    async def candidate() -> Sample:
        async with client(central_url) as central:
            await central.get(f"/pace?events={EVENTS_PER_SECOND}")
            used, began_at = cpu_seconds(process_id), time.monotonic()
            await asyncio.sleep(seconds)
            spent, passed = cpu_seconds(process_id) - used, time.monotonic() - began_at
            await central.get("/pace?events=0")
        return {CPU: spent * 1000 / passed}

    return candidate


def cpu_seconds(process_id: int) -> float:
    """The processor time that a process and its threads have used."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


BENCHMARK = Benchmark(
    "verification",
    "Verification",
    "What it costs to compare the catalogue with Central's: beside following, in one comparison by "
    "digests, and for how long the loop is held meanwhile.",
    measure,
)
