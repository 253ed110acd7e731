"""Reads under load: one product, a page, a basket, and one product while events arrive.

The candidates are whole programs, all running from the start, of which one at a time is asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import islice

import httpx
import orjson

from benchmarks.experiments.backlog import ready_central
from benchmarks.harness.answering import asked, measure_answers
from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import Server, central, client, store
from benchmarks.harness.results import Comparison, Goal, Part, Text
from benchmarks.harness.rows import PAGE_ROWS, product_id, random_numbers
from benchmarks.harness.shop import (
    FASTAPI,
    HELLO,
    NGINX,
    PLAIN,
    STORE,
    Shop,
    check_answers,
    start_peers,
    start_stores,
)
from benchmarks.harness.wrk import BUSY, MEDIAN, MISSING, P99, RATE, is_installed
from benchmarks.peers import nginx

REQUESTS = 50_000
BASKETS = 5_000
EVENTS_PER_SECOND = 1_000
FOLLOWED = "events/s"
ALSO = (MEDIAN, P99, BUSY)


async def measure(effort: Effort) -> Sequence[Part]:
    if not is_installed():
        return [Text(text=f"Left out: {MISSING}")]
    products = 10_000 if effort.quick else 100_000
    shop = Shop(effort, products)
    async with AsyncExitStack() as running:
        source = await running.enter_async_context(central(effort.folder, products))
        await start_stores(shop, source, running)
        await start_peers(shop, running)
        await check_answers(shop)
        quiet = [await measure_product(shop), await measure_page(shop)]
    return [*quiet, await measure_events(shop), await measure_answers(products, kinds(products))]


def kinds(products: int) -> dict[str, list[bytes]]:
    """Some thousand requests of each kind that a store is asked for."""
    lookup = "POST /v1/store/inventory/lookup"
    return {
        "one product": [asked(f"GET {path}") for path in islice(product_paths(products), BASKETS)],
        "a page of 50": [asked(f"GET {path}") for path in islice(page_paths(products), BASKETS)],
        "a lookup of 50": [asked(lookup, body=basket) for basket in baskets(products)],
    }


# -- one product -------------------------------------------------------------------------------


def product_paths(products: int) -> Iterator[str]:
    return (f"/v1/store/inventory/{product_id(n)}" for n in random_numbers(REQUESTS, products))


async def measure_product(shop: Shop) -> Comparison:
    requests = shop.requests("products", product_paths(shop.products))
    hello = shop.requests("hello", iter(("/hello",)))
    candidates: dict[str, Candidate] = {}
    for name in (STORE, PLAIN, NGINX, HELLO, FASTAPI):
        candidates |= shop.asked(name, hello if name == HELLO else requests)
    return Comparison(
        title=f"GET one product of {shop.products:,}, at random",
        metric=RATE,
        peers=(NGINX, HELLO, FASTAPI, PLAIN),
        also=ALSO,
        rounds=await interleave(shop.effort.rounds, candidates, turns=shop.effort.turns),
        goals=(
            Goal(candidate=STORE, metric=RATE, at_least=1.0, peer=NGINX),
            Goal(candidate=STORE, metric=RATE, at_least=2.0, peer=HELLO),
            Goal(candidate=STORE, metric=RATE, at_least=8.0, peer=FASTAPI),
            Goal(candidate=STORE, metric=P99, at_most=1.5, peer=NGINX),
        ),
        without=shop.without,
        note="The key is checked by all but aiohttp, which says hello to anyone; the store answers "
        "with `ETag`, `Age`, `Cache-Status`, offset, generation and request id. nginx serves the "
        f"same JSON as files in memory, {nginx_files(shop.products)}.",
    )


def nginx_files(products: int) -> str:
    if nginx.holds_all(products):
        return "each of which it holds open"
    return "opened for each answer, since this machine does not let it hold as many open"


# -- a page, and a basket ----------------------------------------------------------------------


def page_paths(products: int) -> Iterator[str]:
    for offset in random_numbers(REQUESTS, products - PAGE_ROWS):
        yield f"/v1/store/inventory?offset={offset}&limit={PAGE_ROWS}"


def page_files(products: int) -> Iterator[str]:
    for number in random_numbers(REQUESTS, products // PAGE_ROWS):
        yield f"/pages/{number * PAGE_ROWS}"


def baskets(products: int) -> Iterator[str]:
    numbers = random_numbers(BASKETS * PAGE_ROWS, products)
    for _ in range(BASKETS):
        asked = [product_id(next(numbers)) for _ in range(PAGE_ROWS)]
        yield orjson.dumps({"productIds": asked}).decode()


BASKET = f"{STORE}: lookup of {PAGE_ROWS}"


async def measure_page(shop: Shop) -> Comparison:
    requests = shop.requests("pages", page_paths(shop.products))
    files = shop.requests("files", page_files(shop.products))
    path = "/v1/store/inventory/lookup"
    lookups = shop.requests("baskets", baskets(shop.products), method="POST", path=path)
    candidates: dict[str, Candidate] = {}
    for name in (STORE, PLAIN, NGINX, FASTAPI):
        candidates |= shop.asked(name, files if name == NGINX else requests)
    candidates[BASKET] = shop.asked(STORE, lookups)[STORE]
    return Comparison(
        title=f"GET a page of {PAGE_ROWS} of {shop.products:,}, at random",
        metric=RATE,
        peers=(NGINX, FASTAPI, PLAIN, STORE),
        also=ALSO,
        rounds=await interleave(shop.effort.rounds, candidates, turns=shop.effort.turns),
        goals=(
            Goal(candidate=STORE, metric=RATE, at_least=0.8, peer=NGINX),
            Goal(candidate=STORE, metric=RATE, at_least=8.0, peer=FASTAPI),
            Goal(candidate=BASKET, metric=RATE, at_least=0.6, peer=STORE),
        ),
        without=shop.without,
        note="The store and FastAPI are asked from any offset, nginx for one of its "
        f"{shop.products // PAGE_ROWS:,} files of a page each.",
    )


# -- while events arrive -----------------------------------------------------------------------

QUIET = f"{STORE}, quiet"
BUSY_STORE = f"{STORE}, {EVENTS_PER_SECOND:,} events a second"


async def measure_events(shop: Shop) -> Comparison:
    """A store of its own, that follows a Central whose answers cost the load's core next to
    nothing: what reads lose is then what the store spends on events."""
    requests = shop.requests("while-events", product_paths(shop.products))
    async with (
        ready_central(shop.products, 1) as url,
        store(shop.effort.folder, url, name="following") as server,
    ):
        shop.servers[QUIET] = server
        quiet = shop.asked(QUIET, requests)[QUIET]
        rounds = await interleave(
            shop.effort.rounds,
            {QUIET: quiet, BUSY_STORE: lambda: while_arriving(server, url, quiet)},
            turns=shop.effort.turns,
        )
    return Comparison(
        title=f"GET one product while {EVENTS_PER_SECOND:,} events a second arrive",
        metric=RATE,
        peers=(QUIET,),
        also=(FOLLOWED, *ALSO),
        rounds=rounds,
        goals=(Goal(candidate=BUSY_STORE, metric=RATE, at_least=0.85, peer=QUIET),),
        note="`events/s` is what the store followed meanwhile, in batches as they arrived: fifty a "
        "second. wrk shares its core with a Central that makes no work of its answers.",
    )


async def while_arriving(server: Server, central_url: str, quiet: Candidate) -> Sample:
    """Measure while events arrive, and how many a second the store followed meanwhile."""
    async with client(server.url) as asking, client(central_url) as central:
        await central.get(f"/pace?events={EVENTS_PER_SECOND}")
        offset, began = await offset_of(asking), time.monotonic()
        found = await quiet()
        followed, seconds = await offset_of(asking) - offset, time.monotonic() - began
        await central.get("/pace?events=0")
        return {**found, FOLLOWED: followed / seconds}


async def offset_of(asking: httpx.AsyncClient) -> int:
    answer = await asking.get(f"/v1/store/inventory/{product_id(0)}")
    return int(answer.headers["X-Cache-Offset"])


BENCHMARK = Benchmark(
    name="reads",
    title="Reads",
    about="One thread of wrk with 32 connections asks as fast as it is answered; each server has "
    "one core. Requests are prebuilt and in a random order.",
    measure=measure,
)
