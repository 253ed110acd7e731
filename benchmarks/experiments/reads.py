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

from benchmarks.harness.measuring import Benchmark, Candidate, Effort, Sample, interleave
from benchmarks.harness.processes import central, client, prepared_central, store
from benchmarks.harness.read_cost import asked, measure_answers
from benchmarks.harness.results import Comparison, Goal, Part, Text
from benchmarks.harness.rows import PAGE_ROWS, product_id, random_numbers
from benchmarks.harness.servers import (
    FASTAPI,
    HELLO,
    NGINX,
    PLAIN,
    STORE,
    Servers,
    check_answers,
    start_peers,
    start_stores,
)
from benchmarks.harness.wrk import BUSY, MEDIAN, MISSING, P99, RATE, is_installed
from benchmarks.peers import nginx
from tests.harness.processes import Program

REQUESTS = 50_000
BASKETS = 5_000
EVENTS_PER_SECOND = 1_000
FOLLOWED = "events/s"
ALSO = (MEDIAN, P99, BUSY)


async def measure(effort: Effort) -> Sequence[Part]:
    if not is_installed():
        return [Text(text=f"Left out: {MISSING}")]
    products = 10_000 if effort.quick else 100_000
    servers = Servers(effort, products)
    async with AsyncExitStack() as running:
        source = await running.enter_async_context(central(effort.folder, products))
        await start_stores(servers, source, running)
        await start_peers(servers, running)
        await check_answers(servers)
        quiet = [await measure_product(servers), await measure_page(servers)]
    return [*quiet, await measure_events(servers), await measure_answers(products, kinds(products))]


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


async def measure_product(servers: Servers) -> Comparison:
    requests = servers.requests("products", product_paths(servers.products))
    hello = servers.requests("hello", iter(("/hello",)))
    candidates: dict[str, Candidate] = {}
    for name in (STORE, PLAIN, NGINX, HELLO, FASTAPI):
        candidates |= servers.asked(name, hello if name == HELLO else requests)
    return Comparison(
        title=f"GET one product of {servers.products:,}, at random",
        metric=RATE,
        peers=(NGINX, HELLO, FASTAPI, PLAIN),
        also=ALSO,
        rounds=await interleave(servers.effort.rounds, candidates, turns=servers.effort.turns),
        goals=(
            Goal(candidate=STORE, metric=RATE, at_least=1.0, peer=NGINX),
            Goal(candidate=STORE, metric=RATE, at_least=2.0, peer=HELLO),
            Goal(candidate=STORE, metric=RATE, at_least=8.0, peer=FASTAPI),
            Goal(candidate=STORE, metric=P99, at_most=1.5, peer=NGINX),
            Goal(candidate=PLAIN, metric=RATE, at_least=0.6, peer=HELLO),
        ),
        without=servers.without,
        note="The key is checked by all but aiohttp, which says hello to anyone; the store answers "
        "with `ETag`, `Age`, `Cache-Status`, offset, generation and request id. nginx serves the "
        f"same JSON as files in memory, {nginx_files(servers.products)}.",
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


async def measure_page(servers: Servers) -> Comparison:
    requests = servers.requests("pages", page_paths(servers.products))
    files = servers.requests("files", page_files(servers.products))
    path = "/v1/store/inventory/lookup"
    lookups = servers.requests("baskets", baskets(servers.products), method="POST", path=path)
    candidates: dict[str, Candidate] = {}
    for name in (STORE, PLAIN, NGINX, FASTAPI):
        candidates |= servers.asked(name, files if name == NGINX else requests)
    candidates[BASKET] = servers.asked(STORE, lookups)[STORE]
    return Comparison(
        title=f"GET a page of {PAGE_ROWS} of {servers.products:,}, at random",
        metric=RATE,
        peers=(NGINX, FASTAPI, PLAIN, STORE),
        also=ALSO,
        rounds=await interleave(servers.effort.rounds, candidates, turns=servers.effort.turns),
        goals=(
            Goal(candidate=STORE, metric=RATE, at_least=0.8, peer=NGINX),
            Goal(candidate=STORE, metric=RATE, at_least=8.0, peer=FASTAPI),
            Goal(candidate=BASKET, metric=RATE, at_least=0.6, peer=STORE),
        ),
        without=servers.without,
        note="The store and FastAPI are asked from any offset, nginx for one of its "
        f"{servers.products // PAGE_ROWS:,} files of a page each.",
    )


# -- while events arrive -----------------------------------------------------------------------

QUIET = f"{STORE}, quiet"
BUSY_STORE = f"{STORE}, {EVENTS_PER_SECOND:,} events a second"


async def measure_events(servers: Servers) -> Comparison:
    """A store of its own, that follows a Central whose answers cost the load's core next to
    nothing: what reads lose is then what the store spends on events."""
    requests = servers.requests("while-events", product_paths(servers.products))
    async with (
        prepared_central(servers.products, 1) as url,
        store(servers.effort.folder, url, name="following") as server,
    ):
        servers.running[QUIET] = server
        quiet = servers.asked(QUIET, requests)[QUIET]
        rounds = await interleave(
            servers.effort.rounds,
            {QUIET: quiet, BUSY_STORE: lambda: while_arriving(server, url, quiet)},
            turns=servers.effort.turns,
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


async def while_arriving(server: Program, central_url: str, quiet: Candidate) -> Sample:
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
