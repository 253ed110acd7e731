"""The first full sync, beside a bare client that downloads and parses the same pages."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.experiments.backlog import SECONDS, catching, spent_on
from benchmarks.harness.measuring import Benchmark, Effort, interleave
from benchmarks.harness.prepared_central import PAGE_LIMIT
from benchmarks.harness.processes import prepared_central
from benchmarks.harness.results import Comparison, Goal, Part

STORE, BARE = "store: on disk and visible", "bare httpx client: downloaded and parsed"
EVENTS = 1_000
ROUNDS = 5


async def measure(effort: Effort) -> Sequence[Part]:
    products = 50_000 if effort.quick else 1_000_000
    nothing = effort.folder / "nothing"
    async with prepared_central(products, EVENTS) as url:
        rounds = await interleave(
            min(effort.rounds, ROUNDS),
            {
                STORE: catching("catalogue", url, products, nothing),
                BARE: catching("pages", url, products),
            },
        )
        spent = await spent_on("catalogue", url, products, nothing)
    return [
        Comparison(
            title=f"The first full sync of {products:,} products, in pages of {PAGE_LIMIT:,}",
            metric=SECONDS,
            peers=(BARE,),
            rounds=rounds,
            goals=(Goal(candidate=STORE, metric=SECONDS, at_most=1.3, peer=BARE),),
            note="Both ask a Central whose answers are made beforehand, on the other core. The "
            "store checks every product, encodes it anew in one order of fields, follows the feed "
            "meanwhile, and has the catalogue on disk (fsync) before any of it is visible.",
        ),
        spent,
    ]


BENCHMARK = Benchmark(
    name="full_sync",
    title="The first full sync",
    about="How long a new store needs until it serves, beside the least that any client has to do.",
    measure=measure,
)
