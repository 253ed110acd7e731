"""What each piece of work costs, by the size of the catalogue."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

from benchmarks.harness.cache import Cache, a_cache, as_served
from benchmarks.harness.measuring import Benchmark, Effort, Sample, interleave
from benchmarks.harness.results import Growth, Part, Rounds
from benchmarks.harness.rows import product_id, random_numbers

SIZES = (1_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 10_000, 100_000)
EVENTS = 100
BATCHES = 50
READS = 2_000
PAGE_ROWS = 50
METRIC = "us"

Work = Callable[[Cache], Awaitable[float]]
"""Does a piece of work some times; returns the microseconds of one."""


async def measure(effort: Effort) -> Sequence[Part]:
    return await as_served(lambda: measure_here(effort))


async def measure_here(effort: Effort) -> Sequence[Part]:
    sizes = QUICK_SIZES if effort.quick else SIZES
    async with AsyncExitStack() as running:
        stores = {}
        for size in sizes:
            entered = a_cache(effort.folder / str(size), size)
            stores[size] = await running.enter_async_context(entered)
        gc.freeze()  # as the store itself does with its catalogue
        try:
            small = await curves(CONSTANT, stores, effort.rounds)
            large = await curves(GROWING, stores, max(5, effort.rounds - 2))
        finally:
            gc.unfreeze()
    return [
        Growth(
            title="Work that must not grow with the catalogue",
            metric=METRIC,
            curves=small,
            note=f"A batch has {EVENTS} events, is durable and visible; a page has {PAGE_ROWS} "
            "rows. With a catalogue that outgrows the processor's caches, a row that was not "
            "used lately comes from memory.",
        ),
        Growth(
            title="Work on the whole catalogue",
            metric=METRIC,
            curves=large,
            note="Both grow with the catalogue. A compaction writes a whole snapshot. A full sync "
            "takes pages that were read already, finds nothing changed, writes a snapshot and "
            "installs the replica.",
        ),
    ]


async def curves(
    works: Mapping[str, Work], stores: Mapping[int, Cache], rounds: int
) -> dict[str, dict[int, list[float]]]:
    """By work, then by size, the figure of each round."""
    found: dict[str, dict[int, list[float]]] = {}
    for name, work in works.items():
        candidates = {str(size): candidate(work, store) for size, store in stores.items()}
        taken: Rounds = await interleave(rounds, candidates)
        found[name] = {size: taken[str(size)][METRIC] for size in stores}
    return found


def candidate(work: Work, store: Cache) -> Callable[[], Awaitable[Sample]]:
    async def measured() -> Sample:
        return {METRIC: await work(store)}

    return measured


# -- pieces of work ----------------------------------------------------------------------------


async def apply_batches(store: Cache) -> float:
    took = []
    for _ in range(BATCHES):
        events, position = store.batch(EVENTS)
        began = time.perf_counter()
        await store.writer.apply_events(events, position)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


async def look_up(store: Cache) -> float:
    catalogue, ids = store.catalogue, [product_id(n) for n in numbers(store)]
    began = time.perf_counter()
    for each in ids:
        catalogue.get(each)
    return (time.perf_counter() - began) / READS * 1e6


async def read_pages(store: Cache) -> float:
    catalogue, offsets = store.catalogue, list(numbers(store))
    began = time.perf_counter()
    for offset in offsets:
        b",".join(catalogue.page(offset, PAGE_ROWS))
    return (time.perf_counter() - began) / READS * 1e6


async def walk_on(store: Cache) -> float:
    catalogue, ids = store.catalogue, [product_id(n) for n in numbers(store)]
    began = time.perf_counter()
    for each in ids:
        b",".join(catalogue.page_after(each, PAGE_ROWS)[1])
    return (time.perf_counter() - began) / READS * 1e6


def numbers(store: Cache) -> Sequence[int]:
    return list(itertools.islice(random_numbers(READS, store.products), READS))


async def compact(store: Cache) -> float:
    began = time.perf_counter()
    await store.files.compact(store.keys.encoded)
    return (time.perf_counter() - began) * 1e6


async def sync(store: Cache) -> float:
    began = time.perf_counter()
    await store.sync()
    return (time.perf_counter() - began) * 1e6


CONSTANT: Mapping[str, Work] = {
    "event batch": apply_batches,
    "lookup": look_up,
    "page at any offset": read_pages,
    "page of an `after` walk": walk_on,
}
GROWING: Mapping[str, Work] = {"compaction": compact, "full sync": sync}

BENCHMARK = Benchmark(
    "growth",
    "Cost that follows the work",
    "The same work at 1,000, 100,000 and 1,000,000 products, in one process and on one core, "
    "without HTTP. Products are chosen at random, pages begin anywhere.",
    measure,
)
