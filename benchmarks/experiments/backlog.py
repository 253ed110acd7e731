"""Catching up a hundred thousand events, beside a bare client that fetches and parses them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness.machine import LOAD_CORE, ROOT, SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import end, free_port, on_core
from benchmarks.harness.ready_central import EVENT_LIMIT, GENERATION
from benchmarks.harness.results import Comparison, Goal, Part, Text
from benchmarks.harness.rows import row
from benchmarks.harness.spent import told
from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.position import Position
from store_cache.model.product import read_product
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.files import CacheFiles

STORE, BARE = "store: on disk and visible", "bare httpx client: fetched and parsed"
SECONDS, RATE = "s", "events a second"


async def measure(effort: Effort) -> Sequence[Part]:
    products, events = (10_000, 10_000) if effort.quick else (100_000, 100_000)
    held = effort.folder / "held"
    await hold(held, products)
    async with ready_central(products, events) as url:
        rounds = await interleave(
            effort.rounds,
            {
                STORE: rated(events, catching("backlog", url, events, held)),
                BARE: rated(events, catching("events", url, events)),
            },
        )
        spent = await spent_on("backlog", url, events, held)
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
            "visible, and is asked to have it visible before it asks for the next one: that "
            "question tells Central that everything before is owned.",
        ),
        spent,
    ]


async def hold(path: Path, products: int) -> None:
    """A data folder with the catalogue of `rows`, at the feed's beginning."""
    catalogue = Catalogue()
    rows = (read_product(row(number)) for number in range(products))
    catalogue.fill((each.product_id, each.body) for each in rows)
    catalogue.index()
    catalogue.position = Position(GENERATION, 1)
    folder = LocalDirectory(path)
    archive = CacheFiles(folder, now=time.time)
    await archive.load()
    await archive.begin(catalogue, ())
    await archive.close()
    await folder.close()


def rated(events: int, seconds: Candidate) -> Candidate:
    async def measure_once() -> Sample:
        sample = await seconds()
        return {**sample, RATE: events / sample[SECONDS]}

    return measure_once


def catching(part: str, url: str, count: int, held: Path | None = None) -> Candidate:
    """A part of `benchmarks.harness.catching`, with a data folder of its own if it needs one."""

    async def measure_once() -> Sample:
        return {SECONDS: json.loads(await caught(part, url, count, held))}

    return measure_once


async def spent_on(part: str, url: str, count: int, held: Path) -> Text:
    """What the store's time goes into."""
    return Text(text=told(json.loads(await caught(part, url, count, held, "profiled"))))


async def caught(part: str, url: str, count: int, held: Path | None, *more: str) -> bytes:
    """What a part of `benchmarks.harness.catching` says."""
    folder = "-" if held is None else await asyncio.to_thread(begin_anew, held, part)
    process = await asyncio.create_subprocess_exec(
        *on_core(SERVER_CORE),
        *(
            sys.executable,
            "-m",
            "benchmarks.harness.catching",
            part,
            url,
            folder,
            str(count),
            *more,
        ),
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
        raise RuntimeError(f"{part} ended without a figure; its reason stands above")
    return said


def begin_anew(held: Path, part: str) -> str:
    """A data folder like `held`, which may be one that is not there; the last round's is gone."""
    folder = held.with_name(f"{held.name}-{part}")
    shutil.rmtree(folder, ignore_errors=True)
    if held.exists():
        shutil.copytree(held, folder)
    return str(folder)


@asynccontextmanager
async def ready_central(products: int, events: int) -> AsyncIterator[str]:
    """Its address, once all its answers are made."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *on_core(LOAD_CORE),
        *(
            sys.executable,
            "-m",
            "benchmarks.harness.ready_central",
            str(port),
            str(products),
            str(events),
        ),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        await end(process)


BENCHMARK = Benchmark(
    name="backlog",
    title="Catching up a backlog",
    about="How long a store that was away needs to be in sync again, beside the least that any "
    "client has to do.",
    measure=measure,
)
