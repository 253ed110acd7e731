"""Searching a catalogue by the beginnings of words, beside SQLite's FTS5."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.machine import SERVER_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import figures
from benchmarks.harness.results import Comparison, Goal, Part, Rounds
from benchmarks.harness.search_indexes import ROWS, SEARCHES, write_shelf

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
    return parts


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


BENCHMARK = Benchmark(
    "search",
    "Search",
    "A process builds an index beside the rows of a catalogue, and searches it: for each letter "
    f"and digit, and {SEARCHES:,} times for the beginnings of two words of a product. "
    f"A search counts what it finds and returns the first {ROWS} rows: the store's by relevance, "
    "those of SQLite in the order of ids. Both find as many products in every search. Names are of "
    "3 to 7 made words, the n-th of which is 1/n as common as the commonest; every product has an "
    "id, a sku and a barcode of its own, and every third one a description. Times are processor "
    "time. Resident memory is what the index has taken beside the rows. FTS5 keeps neither texts "
    "nor positions (`content=''`, `detail=none`), has prefix indexes of 1 to 3 characters, and was "
    "optimised after it was filled.",
    measure,
)
