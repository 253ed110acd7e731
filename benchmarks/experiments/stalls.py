"""The longest time for which no read could be answered, by a ticker in the loop."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from benchmarks.harness.measuring import Benchmark, Effort
from benchmarks.harness.processes import serving
from benchmarks.harness.results import Comparison, Goal, Part, Rounds

METRIC = "longest stall ms"
LIMITS_MS = {100_000: 20.0, 1_000_000: 80.0}
QUICK_LIMITS_MS = {10_000: 20.0}
KINDS = {"with everything on": (), "with everything off": ("--without-features",)}


async def measure(effort: Effort) -> Sequence[Part]:
    limits = QUICK_LIMITS_MS if effort.quick else LIMITS_MS
    parts: list[Part] = []
    for products, limit in limits.items():
        parts += await measure_size(effort, products, limit)
    return parts


async def measure_size(effort: Effort, products: int, limit_ms: float) -> list[Comparison]:
    found: dict[str, Rounds] = {kind: {} for kind in KINDS}
    for _ in range(min(effort.rounds, 5)):
        for kind, options in KINDS.items():
            for phase, stall in (await tick(effort, products, options)).items():
                found[kind].setdefault(phase, {METRIC: []})[METRIC].append(stall)
    return [
        Comparison(
            title=f"Longest stall, {products:,} products, {kind}",
            metric=METRIC,
            peers=(),
            rounds=rounds,
            goals=[Goal(candidate=phase, metric=METRIC, at_most=limit_ms) for phase in rounds],
        )
        for kind, rounds in found.items()
    ]


async def tick(effort: Effort, products: int, options: Sequence[str]) -> dict[str, float]:
    """The milliseconds of each phase, of one run."""
    said = effort.folder / "stalls.log"
    said.unlink(missing_ok=True)
    arguments = ("--products", str(products), "--json", *options)
    async with serving(
        (sys.executable, "-m", "tests.crash.stalls", *arguments), log=said
    ) as program:
        assert await program.process.wait() == 0, said.read_text()
    found: dict[str, float] = json.loads(said.read_text().splitlines()[-1])
    return found


BENCHMARK = Benchmark(
    "stalls",
    "Stalls",
    "A ticker in the loop of the whole store, once a millisecond, while the catalogue is synced "
    "for the first time, loaded from disk, indexed for searches, written by a compaction, synced "
    "again, and told to a hundred streams that begin at the start. Other shops "
    "sell all the time (`tests/crash/stalls.py`). With everything on there are streams, search, "
    "history, metrics and verification; with everything off none of them. A stall is the processor "
    "time that the process used between two ticks, or the time that passed, whichever is less. "
    "Shown is the longest of each run.",
    measure,
)
