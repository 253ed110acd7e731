"""Writes through the store, beside the same writes straight at Central.

Two Centrals, so that neither candidate pays for the other's writes: the store forwards to one, the
tills of the other candidate write to the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.machine import LOAD_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import KEY, central, client, figures, store
from benchmarks.harness.results import Comparison, Goal, Part
from benchmarks.harness.tills import PRODUCTS_EACH
from store_cache.sync.full_sync import HEAD_SLACK
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY

STORE, CENTRAL = "store: answered, on disk and shown", "straight at central-stub"
MEDIAN, P99, RATE = "p50 ms", "p99 ms", "writes a second"
AT_ONCE = 32
DELAY_SECONDS = 0.02
"""What the way to Central and Central's own disk take, which a stub in memory lacks."""

WRITES = 1_600
"""In one round."""


@dataclass
class Target:
    """Where tills write. `version`: what their products are at."""

    url: str
    path: str
    key: str
    version: int = 1


async def measure(effort: Effort) -> Sequence[Part]:
    parts = [
        await compare(effort, tills=tills, delay_seconds=delay_seconds)
        for delay_seconds in (0.0, DELAY_SECONDS)
        for tills in (1, AT_ONCE)
    ]
    return [*parts]


async def compare(effort: Effort, *, tills: int, delay_seconds: float) -> Comparison:
    who = "One write at a time" if tills == 1 else f"{tills} tills at once"
    work = f"that takes {delay_seconds * 1000:g} ms" if delay_seconds else "that answers at once"
    median = Goal(candidate=STORE, metric=MEDIAN, at_most=2.0, peer=CENTRAL)
    rate = Goal(candidate=STORE, metric=RATE, at_least=0.8, peer=CENTRAL)
    return Comparison(
        title=f"{who}, a Central {work}",
        metric=MEDIAN if tills == 1 else RATE,
        peers=(CENTRAL,),
        also=(P99, RATE) if tills == 1 else (MEDIAN, P99),
        rounds=await taken(effort, tills=tills, delay_seconds=delay_seconds),
        goals=(median,) if tills == 1 else (rate,),
    )


async def taken(
    effort: Effort, *, tills: int, delay_seconds: float
) -> dict[str, dict[str, list[float]]]:
    folder, products = effort.folder / f"{tills}-{delay_seconds}", tills * PRODUCTS_EACH
    folder.mkdir()
    writes = WRITES if tills > 1 or not delay_seconds else WRITES // 8
    each = max(1, writes // products // (4 if effort.quick else 1))
    # The store follows the feed from HEAD_SLACK events before its first page on. Of a product whose
    # creation it meets there it reads Central's row after each write, for a minute (W6).
    created = products + HEAD_SLACK + 1
    async with (
        central(folder, created, name="central-of-store") as followed,
        central(folder, created, name="central-of-tills") as written,
        store(folder, followed.url) as served,
    ):
        for url in (followed.url, written.url) if delay_seconds else ():
            fault = {"kind": "delay", "seconds": delay_seconds, "routes": ["updates"]}
            async with client(url, CENTRAL_ADMIN_KEY) as admin:
                (await admin.post("/v1/admin/faults", json=fault)).raise_for_status()
        through = Target(served.url, "/v1/store/inventory/updates", KEY)
        straight = Target(written.url, "/v1/inventory/updates", CENTRAL_KEY)
        candidates = {STORE: writing(through, tills, each), CENTRAL: writing(straight, tills, each)}
        return await interleave(effort.rounds, candidates)


def writing(target: Target, tills: int, each: int) -> Candidate:
    async def candidate() -> Sample:
        arguments = (target.url, target.path, target.key, tills, target.version, each)
        seconds, latencies = await figures("harness.tills", *arguments, core=LOAD_CORE)
        target.version += each
        cuts = statistics.quantiles(latencies, n=100)
        return {MEDIAN: cuts[49], P99: cuts[98], RATE: len(latencies) / seconds}

    return candidate


BENCHMARK = Benchmark(
    "writes",
    "Writes",
    "From the moment a till sends a write until it has the answer that it was applied. The store "
    "has the write on disk before it sends it to Central, and the answer on disk and in what "
    "readers see before the till gets it: two `fdatasync`, shared by writes that are under way at "
    "the same time. Each till has one connection, one write on its way and products of its own. "
    "The store has one core; both Centrals, in memory, and the tills share the other.",
    measure,
)
