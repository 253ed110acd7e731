"""Catching up a hundred thousand events, beside a bare client that fetches and parses them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.cache import a_cache
from benchmarks.harness.machine import SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.prepared_central import EVENT_LIMIT
from benchmarks.harness.processes import figures, prepared_central
from benchmarks.harness.profiling import as_markdown
from benchmarks.harness.results import Comparison, Goal, Part, Text

STORE, BARE = "store: on disk and visible", "bare httpx client: fetched and parsed"
SECONDS, RATE = "s", "events a second"


async def measure(effort: Effort) -> Sequence[Part]:
    products, events = (10_000, 10_000) if effort.quick else (100_000, 100_000)
    held = effort.folder / "held"
    await write_files(held, products)
    async with prepared_central(products, events) as url:
        rounds = await interleave(
            effort.rounds,
            {
                STORE: rated(events, catching("backlog", url, events, held)),
                BARE: rated(events, catching("events", url, events)),
            },
        )
        spent = await spent_on("backlog", url, events, held)
    return [
        Comparison(
            title=f"A backlog of {events:,} events over {products:,} products, "
            f"in batches of {EVENT_LIMIT}",
            metric=SECONDS,
            peers=(BARE,),
            also=(RATE,),
            rounds=rounds,
            goals=(
                Goal(candidate=STORE, metric=SECONDS, at_most=1.5, peer=BARE),
                Goal(candidate=STORE, metric=RATE, at_least=100_000),
            ),
            note="Both ask a Central whose answers are made beforehand, on the other core, so that "
            "its time hides nothing. The store has each batch on disk (fdatasync) before it is "
            "visible before it asks for the next one: "
            "that request tells Central that the store has everything before it.",
        ),
        spent,
    ]


def rated(events: int, seconds: Candidate) -> Candidate:
    async def measure_once() -> Sample:
        sample = await seconds()
        return {**sample, RATE: events / sample[SECONDS]}

    return measure_once


def catching(part: str, url: str, count: int, held: Path | None = None) -> Candidate:
    """A part of `benchmarks.harness.catch_up`, with a data folder of its own if it needs one."""

    async def measure_once() -> Sample:
        return {SECONDS: await fetched(part, url, count, held)}

    return measure_once


async def spent_on(part: str, url: str, count: int, held: Path) -> Text:
    """Where the store's time goes."""
    return Text(text=as_markdown(await fetched(part, url, count, held, "profiled")))


async def fetched(part: str, url: str, count: int, held: Path | None, *more: str) -> Any:
    """What a part of `benchmarks.harness.catch_up` prints."""
    folder = "-" if held is None else await asyncio.to_thread(begin_anew, held, part)
    return await figures("harness.catch_up", part, url, folder, count, *more, core=SERVER_CORE)


async def write_files(path: Path, products: int) -> None:
    """Write a data folder with the catalogue of `rows`, at the beginning of the feed."""
    async with a_cache(path, products):
        pass


def begin_anew(held: Path, part: str) -> str:
    """A copy of the data folder `held`, or a new folder if there is none; replaces the last
    round's."""
    folder = held.with_name(f"{held.name}-{part}")
    shutil.rmtree(folder, ignore_errors=True)
    if held.exists():
        shutil.copytree(held, folder)
    return str(folder)


BENCHMARK = Benchmark(
    name="backlog",
    title="Catching up a backlog",
    about="How long a store that was away needs to be in sync again, beside the least that any "
    "client has to do.",
    measure=measure,
)
