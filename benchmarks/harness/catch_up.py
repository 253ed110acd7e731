"""Programs that fetch all that a Central has, and print how long it took. Each is told its part:

    backlog CENTRAL FOLDER EVENTS      the store, from a snapshot
    singly CENTRAL FOLDER EVENTS       the same, each event in a page of its own
    events CENTRAL - EVENTS            a bare client: fetch and parse
    catalogue CENTRAL FOLDER COUNT     the store's first full sync
    pages CENTRAL - COUNT              a bare client: fetch and parse

    python -m benchmarks.harness.catch_up backlog http://127.0.0.1:8081 /tmp/data 100000

The store is all of it but the port: what it has is on disk and could be served. Prints, as JSON,
the seconds from the first request until the last is done; with one argument more, what they were
spent on (`benchmarks.harness.profiling`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

import httpx
import orjson
import uvloop

from benchmarks.harness.prepared_central import EVENT_LIMIT, PAGE_LIMIT
from benchmarks.harness.profiling import profiled
from store_cache.api.parts import StoreParts
from store_cache.app.build import running
from store_cache.app.settings import Settings, load_settings
from tests.harness.clients import CENTRAL_KEY


async def backlog(central: str, folder: str, events: int) -> float:
    """The store catches up `events` events."""
    return await until(has_followed(events), settings(central, folder))


async def singly(central: str, folder: str, events: int) -> float:
    """The store has each event on disk and visible before it asks for the next one."""
    single = settings(central, folder).model_copy(update={"event_batch_limit": 1})
    return await until(has_followed(events), single)


async def catalogue(central: str, folder: str, count: int) -> float:
    """The store reads a catalogue of `count` products, having none."""

    def is_done(store: StoreParts) -> bool:
        return store.writer.catalogue is not None and len(store.writer.catalogue) == count

    return await until(is_done, settings(central, folder))


def has_followed(events: int) -> Callable[[StoreParts], bool]:
    def is_done(store: StoreParts) -> bool:
        position = store.writer.position
        return position is not None and position.offset > events

    return is_done


async def until(is_done: Callable[[StoreParts], bool], settings: Settings) -> float:
    async with running(settings) as store:
        began = time.perf_counter()
        while not is_done(store):
            await store.runner.changed.wait()
        return time.perf_counter() - began


def settings(central: str, folder: str) -> Settings:
    environment = {
        "CENTRAL_API_URL": central,
        "CENTRAL_API_KEY": CENTRAL_KEY,
        "DATA_DIR": folder,
        "EVENT_BATCH_LIMIT": str(EVENT_LIMIT),
    }
    return load_settings(environment, env_file=None)


async def events(central: str, _: str, count: int) -> float:
    """A bare client fetches and parses the feed, and stores nothing."""
    async with bare(central) as asking:
        began = time.perf_counter()
        offset = 1
        while offset <= count:
            query = f"?offset={offset}&limit={EVENT_LIMIT}&wait=0"
            page = orjson.loads((await asking.get(f"/v1/inventory/events{query}")).content)
            offset = page["nextOffset"]
        return time.perf_counter() - began


async def pages(central: str, _: str, count: int) -> float:
    """A bare client fetches and parses the catalogue, and stores nothing."""
    async with bare(central) as asking:
        began = time.perf_counter()
        offset = 0
        while offset < count:
            query = f"?offset={offset}&limit={PAGE_LIMIT}"
            page = orjson.loads((await asking.get(f"/v1/inventory{query}")).content)
            offset += len(page["products"])
        return time.perf_counter() - began


def bare(central: str) -> httpx.AsyncClient:
    headers = {"X-API-Key": CENTRAL_KEY}
    return httpx.AsyncClient(base_url=central, headers=headers, trust_env=False, timeout=60)


PARTS: dict[str, Callable[[str, str, int], Awaitable[float]]] = {
    "backlog": backlog,
    "singly": singly,
    "catalogue": catalogue,
    "events": events,
    "pages": pages,
}


async def main(part: str, central: str, folder: str, count: str, profiling: str = "") -> str:
    work = PARTS[part](central, folder, int(count))
    return json.dumps(await profiled(work) if profiling else await work)


if __name__ == "__main__":
    print(uvloop.run(main(*sys.argv[1:])))
