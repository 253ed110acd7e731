"""From Central's change to a read that shows it, beside a bare long-poll client.

Two Centrals, so that neither candidate pays for the other: the store follows one, the bare client
the other, and in each round products change at that of the candidate whose turn it is.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from benchmarks.experiments.backlog import SECONDS, catching, spent_on, write_files
from benchmarks.harness.machine import LOAD_CORE, SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.observers import CHANGES_A_SECOND, PAGE_ROWS, READ_PAUSE_SECONDS
from benchmarks.harness.processes import central, helper, next_line, prepared_central, store
from benchmarks.harness.results import Comparison, Goal, Part, Text

STORE, BARE = "store: seen in a read", "bare httpx client: parsed"
MEDIAN, P99, ANSWERED = "p50 ms", "p99 ms", "Central's answer to the change, p50 ms"
SINGLES = 5_000
ROUND_SECONDS = 5
"""A thousand changes: ten of them are beyond p99."""


async def measure(effort: Effort) -> Sequence[Part]:
    products = 10_000 if effort.quick else 100_000
    count = CHANGES_A_SECOND * (1 if effort.quick else ROUND_SECONDS)
    folder = effort.folder
    async with (
        central(folder, products, name="central-of-store") as followed,
        central(folder, products, name="central-of-client") as polled,
        store(folder, followed.url) as served,
    ):
        reader = Observer("read", served.url, LOAD_CORE)
        poller = Observer("poll", polled.url, SERVER_CORE)
        rounds = await interleave(
            effort.rounds,
            {STORE: turn(reader, followed.url, count), BARE: turn(poller, polled.url, count)},
        )
    return [comparison(rounds, products), await one_by_one(effort, products)]


async def one_by_one(effort: Effort, products: int) -> Text:
    """What the store itself spends on each event that comes alone."""
    held = effort.folder / "held"
    await write_files(held, products)
    async with prepared_central(products, SINGLES) as url:
        seconds = (await catching("singly", url, SINGLES, held)())[SECONDS]
        spent = await spent_on("singly", url, SINGLES, held)
    about = (
        f"{SINGLES:,} events in batches of one, from a Central whose answers are made beforehand: "
        f"{seconds / SINGLES * 1000:.2f} ms each, with the question, the disk and the change."
    )
    return Text(text=f"{about} {spent.text}")


def comparison(rounds: dict[str, dict[str, list[float]]], products: int) -> Comparison:
    return Comparison(
        title=f"A change at Central until it is seen, {CHANGES_A_SECOND} a second, "
        f"{products:,} products",
        metric=MEDIAN,
        peers=(BARE,),
        also=(P99, ANSWERED),
        rounds=rounds,
        goals=(
            Goal(candidate=STORE, metric=MEDIAN, at_most=3.0),
            Goal(candidate=STORE, metric=P99, at_most=10.0),
            Goal(candidate=STORE, metric=MEDIAN, at_most=2.0, peer=BARE),
            Goal(candidate=STORE, metric=P99, at_most=2.0, peer=BARE),
        ),
        note="From the moment the change is sent to Central, at random moments. The store has it "
        "on disk (fdatasync) before any read shows it; the bare client keeps nothing. The reader "
        f"asks for a page of {PAGE_ROWS}, and pauses {READ_PAUSE_SECONDS * 1000:g} ms between two "
        "reads that found nothing new. "
        "Store and bare client have one core; Central, who changes and who reads share the other.",
    )


@dataclass(frozen=True)
class Observer:
    """What sees the changes: a part of `benchmarks.harness.observers`, where, on which core."""

    part: str
    url: str
    core: int


def turn(observer: Observer, central_url: str, count: int) -> Candidate:
    async def measure_once() -> Sample:
        async with (
            started(observer.part, observer.url, count, observer.core) as observing,
            started("change", central_url, count, LOAD_CORE) as changing,
        ):
            lines = await asyncio.gather(next_line(observing), next_line(changing))
        latencies, answered = map(orjson.loads, lines)
        cuts = statistics.quantiles(latencies, n=100)
        return {MEDIAN: cuts[49], P99: cuts[98], ANSWERED: statistics.median(answered)}

    return measure_once


@asynccontextmanager
async def started(
    part: str, url: str, count: int, core: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A part of `benchmarks.harness.observers`, once it is ready."""
    async with helper("harness.observers", part, url, count, core=core) as process:
        await next_line(process)
        yield process


BENCHMARK = Benchmark(
    name="visibility",
    title="From Central's change to a read",
    about="How long a change at Central takes to be seen, through the store and by the shortest "
    "client that could see it.",
    measure=measure,
)
