"""An event batch of 100, durable and visible, beside the disk alone and beside SQLite."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness.cache import Cache, a_cache, as_served
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.profiling import as_markdown, profiled
from benchmarks.harness.results import Comparison, Goal, Part, Text
from benchmarks.harness.rows import product_id, row
from store_cache.model.product import encode_exactly

STORE, DISK, SQLITE = "store: apply_events", "write + fdatasync", "SQLite, WAL, FULL"
MEDIAN, P99, MEAN = "p50 ms", "p99 ms", "mean ms"
EVENTS = 100
BATCHES = 200

WriteBatch = Callable[[], Awaitable[float]]
"""Makes one batch durable; returns the seconds that took."""


async def measure(effort: Effort) -> Sequence[Part]:
    return await as_served(lambda: measure_here(effort))


async def measure_here(effort: Effort) -> Sequence[Part]:
    products = 10_000 if effort.quick else 100_000
    async with (
        a_cache(effort.folder / "store", products) as store,
        disk(effort.folder / "peer.jsonl", await record_of(store)) as alone,
        sqlite(effort.folder / "peer.db", products) as database,
    ):
        writers = {STORE: in_store(store), DISK: alone, SQLITE: database}
        candidates = {name: batches(write) for name, write in writers.items()}
        rounds = await interleave(effort.rounds, candidates)
        spent = await profiled(candidates[STORE]())
    return [
        Comparison(
            title=f"An event batch of {EVENTS}, {products:,} products",
            metric=MEDIAN,
            peers=(DISK, SQLITE),
            also=(P99, MEAN),
            rounds=rounds,
            goals=(
                Goal(candidate=STORE, metric=MEDIAN, at_most=2.0, peer=DISK),
                Goal(candidate=SQLITE, metric=MEDIAN, at_least=2.0, peer=STORE),
            ),
        ),
        Text(text=as_markdown(spent)),
    ]


def batches(write: WriteBatch) -> Candidate:
    async def candidate() -> Sample:
        took = sorted([await write() for _ in range(BATCHES)])
        return {
            MEDIAN: statistics.median(took) * 1000,
            P99: took[-BATCHES // 100 - 1] * 1000,
            MEAN: statistics.mean(took) * 1000,
        }

    return candidate


def in_store(store: Cache) -> WriteBatch:
    async def write() -> float:
        events, position = store.batch(EVENTS)
        began = time.perf_counter()
        await store.writer.apply_events(events, position)
        return time.perf_counter() - began

    return write


async def record_of(store: Cache) -> bytes:
    """As many bytes as the store writes for a batch."""
    before = store.files.journal_bytes
    await store.writer.apply_events(*store.batch(EVENTS))
    return b"x" * (store.files.journal_bytes - before)


@asynccontextmanager
async def disk(path: Path, record: bytes) -> AsyncIterator[WriteBatch]:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    async def write() -> float:
        began = time.perf_counter()
        os.write(descriptor, record)
        os.fdatasync(descriptor)
        return time.perf_counter() - began

    try:
        yield write
    finally:
        os.close(descriptor)


# -- SQLite ------------------------------------------------------------------------------------

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE product (id TEXT PRIMARY KEY, version INTEGER, body BLOB) WITHOUT ROWID;
CREATE TABLE position (id INTEGER PRIMARY KEY, next_offset INTEGER);
"""
UPSERT = """
INSERT INTO product VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET version = excluded.version, body = excluded.body
WHERE excluded.version >= version
"""


@asynccontextmanager
async def sqlite(path: Path, products: int) -> AsyncIterator[WriteBatch]:
    """The same products and events, and the position with them, in one transaction."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(SCHEMA)
    database.execute("BEGIN")
    rows = ((product_id(n), 1, encode_exactly(row(n))) for n in range(products))
    database.executemany(UPSERT, rows)
    database.execute("COMMIT")
    feed = Feed(products)

    async def write() -> float:
        changed = feed.next_rows()
        began = time.perf_counter()
        database.execute("BEGIN")
        database.executemany(UPSERT, changed)
        database.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (feed.offset,))
        database.execute("COMMIT")
        return time.perf_counter() - began

    try:
        yield write
    finally:
        database.close()


class Feed:
    """Rows changed all over the catalogue, as the store's events are."""

    def __init__(self, products: int) -> None:
        self.offset = 1
        self._products = products
        self._version = 1

    def next_rows(self) -> list[tuple[str, int, bytes]]:
        self._version += 1
        first, step = self.offset // EVENTS, self._products // EVENTS
        self.offset += EVENTS
        return [self._row((first + index * step) % self._products) for index in range(EVENTS)]

    def _row(self, number: int) -> tuple[str, int, bytes]:
        body = encode_exactly(row(number, version=self._version))
        return product_id(number), self._version, body


BENCHMARK = Benchmark(
    "durable",
    "A durable batch of events",
    f"A batch of {EVENTS} events, already parsed, from the moment the store has it until it is on "
    "disk and visible: rules, journal record, write and fdatasync in a thread, change of the "
    "catalogue. The disk alone writes as many bytes to a file of its own and syncs them, on the "
    "spot. SQLite upserts the same rows, encoded beforehand, with the position, in one "
    "transaction. Events touch products all over the catalogue. All of it on one core.",
    measure,
)
