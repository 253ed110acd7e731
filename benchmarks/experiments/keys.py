"""Remembered idempotency keys: memory and start, beside a dict of key to record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.key_tables import write_files
from benchmarks.harness.machine import SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import figures
from benchmarks.harness.results import Comparison, Goal, Part
from store_cache.writes.idempotency import MAX_KEYS

STORE, DICT = "store: key table", "dict of key to record"
BYTES, SECONDS = "bytes a key", "seconds"


async def measure(effort: Effort) -> Sequence[Part]:
    count = 50_000 if effort.quick else MAX_KEYS
    data = effort.folder / "keys"
    await write_files(data, count)
    candidates = {STORE: loaded("store", data), DICT: loaded("dict", data)}
    rounds = await interleave(min(effort.rounds, 5), candidates, warm_ups=1)
    memory = (
        Goal(candidate=STORE, metric=BYTES, at_most=200.0),
        Goal(candidate=STORE, metric=BYTES, at_most=1.0, peer=DICT),
    )
    start = (
        Goal(candidate=STORE, metric=SECONDS, at_most=2.0),
        Goal(candidate=STORE, metric=SECONDS, at_most=3.0, peer=DICT),
    )
    parts = [("Memory", BYTES, memory), ("Start", SECONDS, start)]
    return [
        Comparison(
            title=f"{what} of {count:,} remembered keys",
            metric=metric,
            peers=(DICT,),
            rounds=rounds,
            goals=() if effort.quick else goals,
        )
        for what, metric, goals in parts
    ]


def loaded(kind: str, data: Path) -> Candidate:
    async def candidate() -> Sample:
        found = await figures("harness.key_tables", kind, data, core=SERVER_CORE)
        return dict(zip((BYTES, SECONDS), found, strict=True))

    return candidate


BENCHMARK = Benchmark(
    "keys",
    "Remembered keys",
    "A process that loads the key table as a start does: reading and checking the files, then "
    "writing a new snapshot and a new journal durably. Each key has 36 characters and the answer "
    "to an applied write. Resident memory is what each has taken, less its own 36 bytes. The peer "
    "reads the same snapshot into a dict of key to record; it checks nothing and writes nothing.",
    measure,
)
