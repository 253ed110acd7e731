"""Searching a catalogue by the beginnings of words, beside SQLite's FTS5."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from benchmarks.experiments.backlog import begin_anew, write_files
from benchmarks.experiments.reads import (
    EVENTS_PER_SECOND,
    FOLLOWED,
    offset_of,
    product_paths,
    while_arriving,
)
from benchmarks.harness.machine import SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.prepared_central import EVENT_LIMIT
from benchmarks.harness.processes import client, figures, prepared_central, store
from benchmarks.harness.results import Comparison, Goal, Part, Rounds, Text
from benchmarks.harness.search_indexes import ROWS, SEARCHES, write_shelf
from benchmarks.harness.wrk import (
    BUSY,
    MEDIAN,
    MISSING,
    P99,
    RATE,
    is_installed,
    load_of,
    processor_seconds,
    write_requests,
)
from tests.harness.processes import Program

STORE, FTS5 = "store: search index", "SQLite FTS5"
WORDS, WORDS_MEDIAN = "two words, p99 ms", "two words, p50 ms"
LETTER, LETTER_MEDIAN = "one letter, longest ms", "one letter, p50 ms"
SECONDS, MEMORY, STALL = "seconds", "MB", "longest part ms"
ROUNDS = {100_000: 5, 1_000_000: 3}
QUICK_ROUNDS = {10_000: 2}
GOAL_SIZE = 100_000


async def measure(effort: Effort) -> Sequence[Part]:
    parts: list[Part] = []
    for products, count in (QUICK_ROUNDS if effort.quick else ROUNDS).items():
        folder = effort.folder / str(products)
        folder.mkdir()
        write_shelf(folder, products)
        found: dict[str, list[int]] = {}
        candidates = {STORE: built("store", folder, found), FTS5: built("fts5", folder, found)}
        rounds = await interleave(count, candidates, warm_ups=0)
        assert found["store"] == found["fts5"], "they do not find as many products"
        parts += comparisons(products, rounds, with_goals=products == GOAL_SIZE)
    if is_installed():
        parts += await measure_beside(effort)
    else:
        parts.append(Text(text=f"Left out: {MISSING}"))
    return [*parts, await measure_start(effort)]


def comparisons(products: int, rounds: Rounds, *, with_goals: bool) -> list[Comparison]:
    """Return one for each metric that a goal is about."""
    metrics = [
        (f"A search for two words among {products:,} products", WORDS, (WORDS_MEDIAN,), 5.0),
        (f"A search for one letter among {products:,} products", LETTER, (LETTER_MEDIAN,), 20.0),
        (f"Building the index of {products:,} products", SECONDS, (STALL,), 3.0),
        (f"Resident memory of the index of {products:,} products", MEMORY, (), 60.0),
    ]
    return [
        Comparison(
            title=title,
            metric=metric,
            peers=(FTS5,),
            also=also,
            rounds=rounds,
            goals=[Goal(candidate=STORE, metric=metric, at_most=most)] if with_goals else (),
        )
        for title, metric, also, most in metrics
    ]


def built(kind: str, folder: Path, found: dict[str, list[int]]) -> Candidate:
    """Return a candidate; `found` gets the number of products of each search, by kind."""

    async def candidate() -> Sample:
        said = await figures("harness.search_indexes", kind, folder, core=SERVER_CORE)
        found[kind] = said["found"]
        cuts = statistics.quantiles(said["words"], n=100)
        return {
            WORDS: cuts[98],
            WORDS_MEDIAN: cuts[49],
            LETTER: max(said["letters"]),
            LETTER_MEDIAN: statistics.median(said["letters"]),
            SECONDS: said["seconds"],
            MEMORY: said["MB"],
            STALL: said["longest part ms"],
        }

    return candidate


# -- beside everything else --------------------------------------------------------------------

WITH, WITHOUT = "store", "store, without search"
SETTINGS = {WITH: {}, WITHOUT: {"SEARCH": "false"}}
MOST_LOST = 0.95
TURN_SECONDS = 1.0


async def measure_beside(effort: Effort) -> list[Comparison]:
    """What reads and following lose to the index while events arrive."""
    products = 10_000 if effort.quick else GOAL_SIZE
    requests = write_requests(effort.folder / "while-events", product_paths(products))
    candidates: dict[str, Candidate] = {}
    async with AsyncExitStack() as running:
        for number, (name, settings) in enumerate(SETTINGS.items()):
            url = await running.enter_async_context(prepared_central(products, 1))
            opened = store(effort.folder, url, name=f"beside-{number}", settings=settings)
            server = await running.enter_async_context(opened)
            if name == WITH:
                await until_indexed(server)
            reads = load_of(server, requests, TURN_SECONDS)
            candidates[name] = partial(while_arriving, server, url, reads)
        rounds = await interleave(effort.rounds, candidates, turns=effort.turns)
    about = f"while {EVENTS_PER_SECOND:,} events a second arrive"
    return [
        Comparison(
            title=f"GET one product {about}, with and without the index",
            metric=RATE,
            peers=(WITHOUT,),
            also=(MEDIAN, P99, BUSY),
            rounds=rounds,
            goals=(Goal(candidate=WITH, metric=RATE, at_least=MOST_LOST, peer=WITHOUT),),
            note=f"{products:,} products, each of which an event changes in turn.",
        ),
        Comparison(
            title=f"What the store follows {about}, with and without the index",
            metric=FOLLOWED,
            peers=(WITHOUT,),
            rounds=rounds,
            goals=(Goal(candidate=WITH, metric=FOLLOWED, at_least=MOST_LOST, peer=WITHOUT),),
            note="In the same rounds, beside the same reads.",
        ),
    ]


async def until_indexed(server: Program) -> None:
    async with client(server.url) as asking:
        while (await asking.get("/v1/store/inventory?search=prod")).status_code != 200:
            await asyncio.sleep(LOOK_SECONDS)


LOOK_SECONDS = 0.02
CAUGHT_UP, INDEXED = "s until caught up", "s until a search is answered"


async def measure_start(effort: Effort) -> Comparison:
    """What the index costs a store that starts with a backlog."""
    count = 10_000 if effort.quick else GOAL_SIZE
    held = effort.folder / "held"
    await write_files(held, count)
    async with prepared_central(count, count) as url:
        rounds = await interleave(
            min(effort.rounds, 5),
            {name: partial(start, effort, held, url, count, name) for name in SETTINGS},
            warm_ups=0,
        )
    return Comparison(
        title=f"A start with {count:,} products and a backlog of as many events, with and without "
        "the index",
        metric=CAUGHT_UP,
        peers=(WITHOUT,),
        also=(INDEXED,),
        rounds=rounds,
        goals=(Goal(candidate=WITH, metric=CAUGHT_UP, at_most=1.05, peer=WITHOUT),),
        note="Processor time of the whole process since its start. The index waits until the store "
        "has caught up.",
    )


async def start(effort: Effort, held: Path, url: str, events: int, name: str) -> Sample:
    name_of_copy = Path(await asyncio.to_thread(begin_anew, held, "start")).name
    settings = SETTINGS[name] | {"EVENT_BATCH_LIMIT": str(EVENT_LIMIT)}
    async with (
        store(effort.folder, url, name=name_of_copy, settings=settings) as server,
        client(server.url) as asking,
    ):
        while await offset_of(asking) < events:
            await asyncio.sleep(LOOK_SECONDS)
        sample = {CAUGHT_UP: processor_seconds(server.process_id)}
        if name == WITH:
            await until_indexed(server)
            sample[INDEXED] = processor_seconds(server.process_id)
        return sample


BENCHMARK = Benchmark(
    "search",
    "Search",
    "For the first parts, a process builds an index beside the rows of a catalogue, and searches "
    f"it: for each letter and digit, and {SEARCHES:,} times for the beginnings of two words of a "
    f"product. A search counts what it finds and returns the first {ROWS} rows: the store's by "
    "relevance, those of SQLite in the order of ids. Both find as many products in every search. "
    "Names are of 3 to 7 made words, the n-th of which is 1/n as common as the commonest; every "
    "product has an id, a sku and a barcode of its own, and every third one a description. Times "
    "are processor time. Resident memory is what the index has taken beside the rows. FTS5 keeps "
    "neither texts nor positions (`content=''`, `detail=none`), has prefix indexes of 1 to 3 "
    "characters, and was optimised after it was filled. For the last parts, stores serve and "
    "follow.",
    measure,
)
