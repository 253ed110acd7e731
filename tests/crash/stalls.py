"""A ticker in the loop of a store, while that does its largest pieces of work.

    python -m tests.crash.stalls [--products 100000] [--limit-ms 20] [--json]

It ticks every millisecond while the catalogue is synced for the first time, loaded from disk,
written by a compaction and synced again, and other shops sell all the time. A stall is what a
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
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from store_cache.api.parts import StoreParts
from store_cache.app.build import running
from store_cache.app.memory import frozen_heap
from tests.crash.busy_central import BusyCentral
from tests.crash.forking import warm_up
from tests.harness.background import in_background
from tests.harness.store import settings_of

TICK_SECONDS = 0.001
WITHIN_SECONDS = 600.0
FREEING_SECONDS = 1.0
"""The replaced catalogue is freed part by part afterwards."""

MANY_PRODUCTS = 100_000
LIMIT_MS, LIMIT_MANY_MS = 20.0, 80.0


@dataclass
class Stalls:
    """`longest`: of each phase, in seconds, as it counts and as it passed."""

    longest: dict[str, tuple[float, float]] = field(default_factory=dict)
    _phase: str = ""

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        self._phase = phase
        self.longest[phase] = (0.0, 0.0)
        try:
            yield
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
async def started(data_dir: Path, central_url: str) -> AsyncIterator[StoreParts]:
    """The store on this folder, following that Central."""
    settings = settings_of(central_api_url=central_url, data_dir=data_dir)
    async with running(settings) as store, frozen_heap(store.writer.replaced):
        yield store


async def measure(
    data_dir: Path, central_url: str, products: int
) -> dict[str, tuple[float, float]]:
    """Return the longest stall of each phase. No till waits for the end of a store."""
    stalls = Stalls()
    async with in_background(stalls.tick()):
        for first, then in (("first full sync", _nothing), ("load from disk", _large_work)):
            async with AsyncExitStack() as stack:
                with stalls.during(first):
                    store = await stack.enter_async_context(started(data_dir, central_url))
                    await _until_complete(store, products)
                await then(stalls, store)
                del store
    return stalls.longest


async def _nothing(_stalls: Stalls, _store: StoreParts) -> None:
    pass


async def _large_work(stalls: Stalls, store: StoreParts) -> None:
    with stalls.during("compaction"):
        await store.writer.files.compact(tuple)  # no till sells here
    with stalls.during("full sync again"):
        record = await store.runner.force_full_sync(accept=False)
        assert not record.problem, record.problem
        await asyncio.sleep(FREEING_SECONDS)


async def _until_complete(store: StoreParts, products: int) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while store.writer.catalogue is None or len(store.writer.catalogue) < products:
            await store.runner.changed.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=MANY_PRODUCTS)
    parser.add_argument("--limit-ms", type=float)
    parser.add_argument("--json", action="store_true", help="the milliseconds counted, by phase")
    options = parser.parse_args()
    usual = LIMIT_MS if options.products <= MANY_PRODUCTS else LIMIT_MANY_MS
    limit_ms = usual if options.limit_ms is None else options.limit_ms
    folder = Path(tempfile.mkdtemp(prefix="stalls-"))
    warm_up()
    central = BusyCentral(folder / "central.log", 1, more=options.products, page_limit=1000)
    central.start()
    central.be_busy(True)
    try:
        longest = asyncio.run(measure(folder / "data", central.url, options.products))
    finally:
        central.stop()
        shutil.rmtree(folder)
    if options.json:
        sys.stdout.write(json.dumps({phase: it[0] * 1000 for phase, it in longest.items()}) + "\n")
        return 0
    return _report(longest, limit_ms)


def _report(longest: dict[str, tuple[float, float]], limit_ms: float) -> int:
    for phase, (counted, passed) in longest.items():
        said = f"{phase:16} longest stall {counted * 1000:6.1f} ms ({passed * 1000:.1f} ms passed)"
        sys.stdout.write(said + "\n")
    too_long = [phase for phase, (counted, _) in longest.items() if counted * 1000 > limit_ms]
    if too_long:
        sys.stdout.write(f"longer than {limit_ms:g} ms: {', '.join(too_long)}\n")
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
