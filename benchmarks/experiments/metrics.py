"""Counting a fast read, and a scrape, beside the objects of prometheus_client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.results import Comparison, Goal, Part
from store_cache.api.auth import Authenticator, KeyRing
from store_cache.api.cors import Cors
from store_cache.api.fast.reads import FastConnection, FastReads
from store_cache.api.metrics.counts import QUICK_SECONDS, Counts
from store_cache.api.metrics.metrics import OPENMETRICS, TEXT
from store_cache.api.request_rates import RequestRates
from store_cache.api.wrong_keys import WrongKeys
from store_cache.central.client import Exchange
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.fake_store import FakeStore, product
from tests.harness.store import RunningStore, a_store

STORE, CLIENT = "store: counting a fast read", "prometheus_client: Histogram.observe"
STORE_TEXT, STORE_OPENMETRICS = "store: text", "store: OpenMetrics"
CLIENT_OPENMETRICS = "prometheus_client: as many lines of its own, OpenMetrics"
NANOSECONDS, MILLISECONDS, LINES = "ns of CPU", "ms of CPU", "lines"

KEY = "a-key"
READ = (
    b"GET /v1/store/inventory/PROD-001 HTTP/1.1\r\nHost: store\r\nX-API-Key: " + KEY.encode()
) + b"\r\n\r\n"
TURN = 300
"""Reads in a turn: short enough that some turns are not interrupted."""

QUIET_SHARE = 0.05
"""Of the turns, those that count: a shared machine interrupts the others."""

ROUTES, METHODS_AND_STATUSES = 16, (("GET", 200), ("GET", 404), ("HEAD", 200))
EXCHANGES = [(kind, s) for kind in ("feed", "page", "product", "write") for s in ("200", "503")]


async def measure(effort: Effort) -> Sequence[Part]:
    turns = 500 if effort.quick else 4000
    counting = await interleave(
        effort.rounds, {STORE: counting_by_store(turns), CLIENT: counting_by_client(turns)}
    )
    async with a_store(central=LedgerTransport(Clock())) as store:
        await store.until("live")
        scrapes = await interleave(effort.rounds, scraping(store))
    return [
        Comparison(
            title="What counting costs a fast read",
            metric=NANOSECONDS,
            peers=(CLIENT,),
            rounds=counting,
            goals=(Goal(candidate=STORE, metric=NANOSECONDS, at_most=300.0),),
            note="The store's figure is the difference between reads that are counted, by route, "
            "status and duration, and reads that are not. The peer's is one call of a child that "
            "is at hand, without measuring the duration.",
        ),
        Comparison(
            title="A scrape",
            metric=MILLISECONDS,
            peers=(CLIENT_OPENMETRICS,),
            also=(LINES,),
            rounds=scrapes,
            goals=(Goal(candidate=STORE_OPENMETRICS, metric=MILLISECONDS, at_most=10.0),),
            note="After every route has answered in three ways, and Central in two for each kind "
            "of request.",
        ),
    ]


def quiet(figures: list[float]) -> float:
    return sorted(figures)[int(len(figures) * QUIET_SHARE)]


def ns_each(call: Callable[[], object], times: int = TURN) -> float:
    began_at = time.thread_time_ns()
    for _ in range(times):
        call()
    return (time.thread_time_ns() - began_at) / times


def connection(counts: Counts | None) -> Callable[[], object]:
    """Return a call that answers one read."""
    fake = FakeStore([product("PROD-001")])
    authenticator = Authenticator(KeyRing(keys=[KEY]), WrongKeys())
    rates = RequestRates()
    reads = FastReads(fake.parts, authenticator, Cors([]), counts, rates.reads)
    one = FastConnection(reads)
    assert one.answer(READ)
    return lambda: one.answer(READ)


def counting_by_store(turns: int) -> Candidate:
    async def measure_once() -> Sample:
        counted = connection(Counts(now=time.time, uptime=time.monotonic))
        plain = connection(None)
        pairs = [(ns_each(counted), ns_each(plain)) for _ in range(turns)]
        with_it, without = (quiet(list(side)) for side in zip(*pairs, strict=True))
        return {NANOSECONDS: with_it - without + _uncounted(turns)}

    return measure_once


def _uncounted(turns: int) -> float:
    """Return what a read that is not counted spends on it all the same: into nobody's histogram."""
    histogram = Counts(now=time.time, uptime=time.monotonic).requests.of("r", "GET", "200")

    def as_in_fast_reads() -> None:
        began_at = perf_counter()
        seconds = perf_counter() - began_at
        if seconds <= QUICK_SECONDS:
            histogram.counts[0] += 1
            histogram.total_seconds += seconds

    def nothing() -> None:
        pass

    pairs = [(ns_each(as_in_fast_reads), ns_each(nothing)) for _ in range(turns)]
    with_it, without = (quiet(list(side)) for side in zip(*pairs, strict=True))
    return with_it - without


def counting_by_client(turns: int) -> Candidate:
    async def measure_once() -> Sample:
        child = Histogram("h", "h", ["route"], registry=None).labels("r")
        return {NANOSECONDS: quiet([ns_each(lambda: child.observe(0.00001)) for _ in range(turns)])}

    return measure_once


def scraping(store: RunningStore) -> dict[str, Candidate]:
    metrics = store.parts.metrics
    assert metrics is not None
    for number in range(ROUTES):
        for method, status in METHODS_AND_STATUSES:
            metrics.counts.note_request(f"/v1/route-{number}", method, status, 0.001)
    for kind, answer in EXCHANGES:
        metrics.counts.note_exchange(Exchange(kind, answer, 0.001, None))

    def scrape(content_type: str) -> Candidate:
        return scraped(lambda: metrics.exposition(content_type))

    lines = metrics.exposition(OPENMETRICS).count(b"\n")
    registry = own_objects(lines)
    return {
        STORE_TEXT: scrape(TEXT),
        STORE_OPENMETRICS: scrape(OPENMETRICS),
        CLIENT_OPENMETRICS: scraped(lambda: generate_latest(registry)),  # type: ignore[no-untyped-call]
    }


def scraped(make: Callable[[], bytes]) -> Candidate:
    async def measure_once() -> Sample:
        await asyncio.sleep(0)
        taken = [ns_each(make, 1) for _ in range(20)]
        return {MILLISECONDS: median(taken) / 1e6, LINES: float(make().count(b"\n"))}

    return measure_once


def own_objects(lines: int) -> CollectorRegistry:
    """Return a registry with about as many lines, half of histograms and half of counters."""
    registry = CollectorRegistry()
    buckets = tuple(float(number) for number in range(10))
    histogram = Histogram("h", "h", ["label"], registry=registry, buckets=buckets)
    counter = Counter("c", "c", ["label"], registry=registry)
    for number in range(lines // 2 // 14):
        histogram.labels(str(number)).observe(1.0)
    for number in range(lines // 2 // 2):
        counter.labels(str(number)).inc()
    return registry


BENCHMARK = Benchmark(
    "metrics",
    "Metrics",
    "What it costs to count, and to be scraped. Processor time of the thread, so that what else "
    "runs on the machine counts little; the quietest twentieth of many short turns.",
    measure,
)
