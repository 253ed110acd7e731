"""A ticker in the loop of a store, while that does its largest pieces of work.

    python -m tests.crash.stalls [--products 100000] [--limit-ms 20] [--without-features] [--json]

It ticks every millisecond while the catalogue is synced for the first time, loaded from disk,
indexed for searches, written by a compaction, synced again and told to a hundred readers, and other
shops sell all the time. Without features, only the core of the store runs. A stall is what a
till's read would wait for. On a shared machine the loop also waits for the processor, which says
nothing about the program: so a stall counts as the processor time that this process used between
two ticks, or the time that passed, whichever is less. Exits with 1 if one is longer than the limit:
20 ms up to 100,000 products, 80 ms beyond, since at a million the catalogue's dict alone takes half
of that to grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store_cache.api.parts import StoreParts
from store_cache.api.problems import IndexNotReady
from store_cache.api.search.indexer import Indexer
from store_cache.app.build import running
from store_cache.app.memory import frozen_heap
from store_cache.app.settings import Settings
from tests.crash.busy_central import BusyCentral
from tests.crash.forking import warm_up
from tests.harness.background import in_background
from tests.harness.processes import ROOT
from tests.harness.store import served, settings_of

Features = dict[str, Any]

TICK_SECONDS = 0.001
WITHIN_SECONDS = 600.0
FREEING_SECONDS = 1.0
"""The replaced catalogue is freed part by part afterwards."""

MANY_PRODUCTS = 100_000
LIMIT_MS, LIMIT_MANY_MS = 20.0, 80.0

READERS, READING_SECONDS = 100, 5.0

WITH_FEATURES: Features = {"verify_interval_minutes": 15}
WITHOUT_FEATURES: Features = {
    "stream_readers": 0,
    "search": False,
    "history_limit": 0,
    "metrics": False,
    "verify_interval_minutes": 0,
}


@dataclass
class Stalls:
    """`longest`: of each phase, in seconds, as it counts and as it passed."""

    longest: dict[str, tuple[float, float]] = field(default_factory=dict)
    _phase: str = ""

    @asynccontextmanager
    async def during(self, phase: str) -> AsyncIterator[None]:
        self._phase = phase
        self.longest[phase] = (0.0, 0.0)
        try:
            yield
            await asyncio.sleep(2 * TICK_SECONDS)  # so that the tick after the last stall counts
        finally:
            self._phase = ""

    async def tick(self) -> None:
        while True:
            passed, used = time.monotonic(), time.process_time()
            await asyncio.sleep(TICK_SECONDS)
            self._note(time.monotonic() - passed - TICK_SECONDS, time.process_time() - used)

    def _note(self, passed: float, used: float) -> None:
        if self._phase:
            counted, whole = self.longest[self._phase]
            self.longest[self._phase] = max(counted, min(passed, used)), max(whole, passed)


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[StoreParts]:
    """The store with these settings, following its Central."""
    async with running(settings) as store, frozen_heap(store.writer.replaced):
        yield store


async def measure(settings: Settings, products: int) -> dict[str, tuple[float, float]]:
    """Return the longest stall of each phase. No till waits for the end of a store."""
    stalls = Stalls()
    async with in_background(stalls.tick()):
        for first, then in (("first full sync", _nothing), ("load from disk", _large_work)):
            async with AsyncExitStack() as stack:
                async with stalls.during(first):
                    store = await stack.enter_async_context(started(settings))
                    await _until_complete(store, products)
                await then(stalls, store, settings)
                del store
    return stalls.longest


async def _nothing(_stalls: Stalls, _store: StoreParts, _settings: Settings) -> None:
    pass


async def _large_work(stalls: Stalls, store: StoreParts, settings: Settings) -> None:
    if store.search is not None:
        async with stalls.during("search index"):
            await _until_indexed(store.search)
    async with stalls.during("compaction"):
        await store.writer.files.compact(tuple)  # no till sells here
    async with stalls.during("full sync again"):
        record = await store.runner.force_full_sync(accept=False)
        assert not record.problem, record.problem
        await asyncio.sleep(FREEING_SECONDS)
    if store.streams is not None:
        async with served(store, settings) as server, stalls.during("streams from the start"):
            await _read_streams(server.port)


async def _until_indexed(search: Indexer) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            with suppress(IndexNotReady):
                await search.current()
                return


async def _read_streams(port: int) -> None:
    arguments = (str(port), str(READERS), str(READING_SECONDS))
    readers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.crash.draining_readers", *arguments), cwd=ROOT
    )
    assert await readers.wait() == 0


async def _until_complete(store: StoreParts, products: int) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while store.writer.catalogue is None or len(store.writer.catalogue) < products:
            await store.runner.changed.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=MANY_PRODUCTS)
    parser.add_argument("--limit-ms", type=float)
    parser.add_argument("--without-features", action="store_true", help="only the core runs")
    parser.add_argument("--json", action="store_true", help="the milliseconds counted, by phase")
    options = parser.parse_args()
    usual = LIMIT_MS if options.products <= MANY_PRODUCTS else LIMIT_MANY_MS
    limit_ms = usual if options.limit_ms is None else options.limit_ms
    folder = Path(tempfile.mkdtemp(prefix="stalls-"))
    warm_up()
    central = BusyCentral(folder / "central.log", 1, more=options.products, page_limit=1000)
    central.start()
    central.be_busy(True)
    settings = settings_of(
        central_api_url=central.url,
        data_dir=folder / "data",
        **(WITHOUT_FEATURES if options.without_features else WITH_FEATURES),
    )
    try:
        longest = asyncio.run(measure(settings, options.products))
    finally:
        central.stop()
        shutil.rmtree(folder)
    if options.json:
        sys.stdout.write(json.dumps({phase: it[0] * 1000 for phase, it in longest.items()}) + "\n")
        return 0
    return _report(longest, limit_ms)


def _report(longest: dict[str, tuple[float, float]], limit_ms: float) -> int:
    for phase, (counted, passed) in longest.items():
        said = f"{phase:22} longest stall {counted * 1000:6.1f} ms ({passed * 1000:.1f} ms passed)"
        sys.stdout.write(said + "\n")
    too_long = [phase for phase, (counted, _) in longest.items() if counted * 1000 > limit_ms]
    if too_long:
        sys.stdout.write(f"longer than {limit_ms:g} ms: {', '.join(too_long)}\n")
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
