"""What the outbox costs: replaying what was queued, and queueing one write.

The replay runs beside the same writes straight at Central. There are two Centrals, so that neither
candidate pays for the other's writes; both keep their log on disk, since one of them has to be away
for a while.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import httpx

from benchmarks.experiments.writes import DELAY_SECONDS, Target
from benchmarks.harness.cache import Cache, a_cache, as_served
from benchmarks.harness.machine import LOAD_CORE
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import KEY, central, client, figures, store
from benchmarks.harness.results import Comparison, Goal, Part
from benchmarks.harness.rows import product_id
from benchmarks.harness.tills import PRODUCTS_EACH
from store_cache.storage.journal import JournalRecord
from store_cache.sync.full_sync import HEAD_SLACK
from store_cache.writes.outbox.outbox import Outbox, OutboxSettings
from store_cache.writes.outbox.sender import SENT_AT_ONCE
from store_cache.writes.write import Write
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY
from tests.harness.processes import Program

REPLAY, CENTRAL = "store: replayed from the outbox", "straight at central-stub"
QUEUE, APPEND = "store: queued", "the store's durable append"
SECONDS, RATE, MEDIAN, P99 = "seconds", "writes a second", "p50 ms", "p99 ms"

PRODUCTS = SENT_AT_ONCE * PRODUCTS_EACH
WRITES_EACH = 79
"""To each product: with 128 products the fewest that make 10,000 writes."""

LIMIT = 100_000
LOOK_SECONDS = 0.01
LONGEST_REPLAY_SECONDS = 300.0
QUEUED = 200
"""In one round, one after the other."""

AppendOne = Callable[[], Awaitable[None]]


async def measure(effort: Effort) -> Sequence[Part]:
    replays = [
        await replaying(effort, delay_seconds=delay_seconds)
        for delay_seconds in (0.0, DELAY_SECONDS)
    ]
    return [*replays, await as_served(lambda: queueing(effort))]


# -- replay ------------------------------------------------------------------------------------


async def replaying(effort: Effort, *, delay_seconds: float) -> Comparison:
    folder = effort.folder / f"delay-{delay_seconds}"
    folder.mkdir()
    each = WRITES_EACH // 10 if effort.quick else WRITES_EACH
    # As in `writes`: products that the store has not just seen created in the feed.
    created = PRODUCTS + HEAD_SLACK + 1
    settings = {"OFFLINE_WRITES": "queue", "OUTBOX_LIMIT": str(LIMIT)}
    kept = [{"CENTRAL_STUB_DATA_DIR": str(folder / name)} for name in ("followed", "written")]
    async with (
        central(folder, created, name="central-of-store", settings=kept[0]) as followed,
        central(folder, created, name="central-of-tills", settings=kept[1]) as written,
        store(folder, followed.url, settings=settings) as served,
    ):
        await delay(written, delay_seconds)
        through = Target(served.url, "/v1/store/inventory/updates", KEY)
        straight = Target(written.url, "/v1/inventory/updates", CENTRAL_KEY)
        candidates = {
            REPLAY: replay(through, followed, each, delay_seconds),
            CENTRAL: sending(straight, each),
        }
        rounds = await interleave(min(effort.rounds, 5), candidates)
    work = f"that takes {delay_seconds * 1000:g} ms" if delay_seconds else "that answers at once"
    goal = Goal(candidate=REPLAY, metric=SECONDS, at_most=2.0, peer=CENTRAL)
    return Comparison(
        title=f"{PRODUCTS * each:,} writes, {SENT_AT_ONCE} at once, a Central {work}",
        metric=SECONDS,
        peers=(CENTRAL,),
        also=(RATE,),
        rounds=rounds,
        goals=() if effort.quick else (goal,),
        note="From the moment Central answers again until the outbox is empty, the pause until the "
        "store notices included.",
    )


def replay(target: Target, source: Program, each: int, delay_seconds: float) -> Candidate:
    async def candidate() -> Sample:
        async with client(target.url) as asking:
            await source.stop()
            await until_noticed(asking)
            await sell(target, each)
            await source.start("/health")
            began = time.perf_counter()
            await delay(source, delay_seconds)
            await until_empty(asking)
        return figures_of(time.perf_counter() - began, each)

    return candidate


def sending(target: Target, each: int) -> Candidate:
    async def candidate() -> Sample:
        return figures_of(await sell(target, each), each)

    return candidate


async def delay(source: Program, seconds: float) -> None:
    """Have a Central that was just started take so long for each write."""
    if not seconds:
        return
    fault = {"kind": "delay", "seconds": seconds, "routes": ["updates"]}
    async with client(source.url, CENTRAL_ADMIN_KEY) as admin:
        (await admin.post("/v1/admin/faults", json=fault)).raise_for_status()


async def sell(target: Target, each: int) -> float:
    """Send the writes of a round, and return how many seconds that took."""
    arguments = (target.url, target.path, target.key, SENT_AT_ONCE, target.version, each)
    seconds, _ = await figures("harness.tills", *arguments, core=LOAD_CORE)
    target.version += each
    return float(seconds)


async def until_noticed(asking: httpx.AsyncClient) -> None:
    """Sell until the store knows that Central is away: its first writes wait for it in vain."""
    for number in count():
        status = (await asking.get("/v1/store/sync/status")).raise_for_status().json()
        if status["writes"]["breaker"] == "open":
            return
        path = f"/v1/store/inventory/{product_id(PRODUCTS)}/inventory"
        key = {"Idempotency-Key": f"first-{time.time_ns()}-{number}"}
        sold = await asking.patch(path, json={"quantityChange": 1}, headers=key)
        sold.raise_for_status()


async def until_empty(asking: httpx.AsyncClient) -> None:
    async with asyncio.timeout(LONGEST_REPLAY_SECONDS):
        while not (await asking.get("/ready")).raise_for_status().json()["outboxEmpty"]:
            await asyncio.sleep(LOOK_SECONDS)


def figures_of(seconds: float, each: int) -> Sample:
    return {SECONDS: seconds, RATE: PRODUCTS * each / seconds}


# -- queueing one ------------------------------------------------------------------------------


async def queueing(effort: Effort) -> Comparison:
    products = 10_000
    async with a_cache(effort.folder / "queueing", products) as cache:
        outbox = outbox_of(cache)
        queue_one = queued_one_by_one(outbox, products)
        await queue_one()
        record = next(iter(cache.keys.outbox.values()))

        async def append() -> None:
            await cache.files.append(JournalRecord(key_entry=record))

        candidates = {QUEUE: one_by_one(queue_one), APPEND: one_by_one(append)}
        rounds = await interleave(effort.rounds, candidates)
    return Comparison(
        title="Queueing one write",
        metric=MEDIAN,
        peers=(APPEND,),
        also=(P99,),
        rounds=rounds,
        goals=(Goal(candidate=QUEUE, metric=MEDIAN, at_most=2.0, peer=APPEND),),
        note="The append writes a record of the same size.",
    )


def outbox_of(cache: Cache) -> Outbox:
    settings = OutboxSettings("store-s1", LIMIT, is_accepting=True, retention_seconds=86_400.0)
    return Outbox(
        settings, keys=cache.keys, store=cache.writer, now=time.time, random=random.random
    )


def queued_one_by_one(outbox: Outbox, products: int) -> AppendOne:
    numbers = count()

    async def queue_one() -> None:
        number = next(numbers)
        write = Write(
            product_id=product_id(number % products), delta=-1, version=1, key=f"sale-{number}"
        )
        await outbox.queue([(write, 1)], "Central cannot be reached")

    return queue_one


def one_by_one(append: AppendOne) -> Candidate:
    async def candidate() -> Sample:
        took = []
        for _ in range(QUEUED):
            began = time.perf_counter()
            await append()
            took.append((time.perf_counter() - began) * 1000)
        cuts = statistics.quantiles(took, n=100)
        return {MEDIAN: cuts[49], P99: cuts[98]}

    return candidate


BENCHMARK = Benchmark(
    "outbox",
    "The outbox",
    "Writes that were queued while Central was away, from its return until each has been applied "
    "and is on disk and shown, beside the same writes by as many tills straight at Central, each "
    "with one connection and products of its own. Both Centrals keep their log on disk. The store "
    "has one core; both Centrals and the tills share the other. Then what queueing one write adds "
    "to the durable append of its record.",
    measure,
)
