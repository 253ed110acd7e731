"""A verification of a catalogue in memory, and what it does to the loop; prints figures as JSON.

    python -m benchmarks.harness.verifying FOLDER PRODUCTS

Central is a transport that answers with the digest of what the store holds: what is measured is
the store's own part. A stall is what a ticker of one millisecond sees: the processor time that was
used between two ticks, or the time that passed, whichever is less.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import uvloop

from benchmarks.harness.cache import GENERATION, Cache, a_cache
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.observer import VisibleChange
from store_cache.catalogue.row_hash import bucket_count
from store_cache.central.client import CentralClient
from store_cache.central.rate_limit import RateLimit
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import SyncSettings
from store_cache.sync.verification.changes import RecentChanges
from store_cache.sync.verification.digests import DigestComparer
from store_cache.sync.verification.findings import Findings
from store_cache.sync.verification.following import Following
from store_cache.sync.verification.patience import PatientSource
from tests.harness.background import in_background

CHANGES, BATCH = 10_000, 20
TICK_SECONDS = 0.001


class OwnDigest(httpx.AsyncBaseTransport):
    """Answers with the digest as the store has hashed it; `body` is made before."""

    body = b""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=self.body)

    def tell(self, digest: CatalogueDigest, offset: int, products: int) -> None:
        buckets = bucket_count(products)
        own, _ = digest.at(offset, buckets)
        sums = [f"{total:032x}" for total in own.sums]
        head = {"generation": GENERATION, "nextOffset": offset}
        self.body = orjson.dumps(head | {"rows": own.rows, "sums": sums})


class Nothing:
    """An observer that does nothing."""

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None: ...

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None: ...

    def reset(self) -> None: ...


@dataclass
class Ticker:
    """`longest`: the longest stall since it was last set to 0, in seconds."""

    longest: float = 0.0

    async def run(self) -> None:
        while True:
            passed, used = time.monotonic(), time.process_time()
            await asyncio.sleep(TICK_SECONDS)
            stall = min(time.monotonic() - passed - TICK_SECONDS, time.process_time() - used)
            self.longest = max(self.longest, stall)


@dataclass
class Verified:
    """The parts that compare, over a cache. Nothing follows its feed."""

    cache: Cache
    digest: CatalogueDigest
    changes: RecentChanges
    comparer: DigestComparer
    central: OwnDigest
    ticker: Ticker

    async def compare(self) -> tuple[float, float]:
        """Return how many milliseconds a comparison took, and its longest stall."""
        position = self.cache.writer.position
        assert position is not None
        self.ticker.longest, began_at = 0.0, time.perf_counter()
        compared = await self.comparer.compared()
        took = time.perf_counter() - began_at
        await asyncio.sleep(2 * TICK_SECONDS)  # the ticker sees the end
        assert not compared.differing, "the store differs from its own digest"
        return took * 1000, self.ticker.longest * 1000

    async def hash_all(self) -> tuple[float, float]:
        """Hash what is not hashed, in slices; return the seconds and the longest stall in ms."""
        self.ticker.longest, began_at = 0.0, time.perf_counter()
        while not self.digest.is_hashed:
            self.digest.hash_some(250)
            await asyncio.sleep(0)
        return time.perf_counter() - began_at, self.ticker.longest * 1000

    def prepare(self) -> None:
        """Have Central tell the present digest."""
        position = self.cache.writer.position
        assert position is not None
        self.central.tell(self.digest, position.offset, self.cache.products)


@asynccontextmanager
async def verified(folder: Path, products: int) -> AsyncIterator[Verified]:
    async with a_cache(folder, products) as cache:
        central, findings, ticker = OwnDigest(), Findings(), Ticker()
        client = CentralClient(
            base_url="http://central.test",
            api_key="key",
            rate_limit=RateLimit(),
            random=lambda: 0.5,
            now=time.time,
            transport=central,
        )
        digest, changes = CatalogueDigest(), RecentChanges(time.monotonic)
        runner = SyncRunner(
            client,
            cache.writer,
            SyncSettings(),
            least_percent=50,
            now=time.time,
            random=lambda: 0.5,
            uptime=time.monotonic,
        )
        following = Following(cache.writer, runner, grace_seconds=2.0)
        patient = PatientSource(client, lambda: 0.5)
        comparer = DigestComparer(
            patient, cache.writer, digest, following, findings, grace_seconds=2.0
        )
        async with in_background(ticker.run()):
            yield Verified(cache, digest, changes, comparer, central, ticker)


async def change(one: Verified) -> float:
    """Apply events in batches; return the ms of processor time that each thousand took."""
    used = time.process_time()
    for _ in range(CHANGES // BATCH):
        await one.cache.writer.apply_events(*one.cache.batch(BATCH))
    return (time.process_time() - used) * 1000 / (CHANGES / 1000)


async def main(folder: str, products: int) -> dict[str, float]:
    async with verified(Path(folder), products) as one:
        gc.collect()
        gc.freeze()  # as the store does (app/memory.py)
        writer = one.cache.writer
        began_at = time.perf_counter()
        one.digest.replaced(None, one.cache.catalogue)
        one.changes.replaced(None, one.cache.catalogue)
        begin_ms = (time.perf_counter() - began_at) * 1000
        first_seconds, first_stall = await one.hash_all()
        one.prepare()
        quiet_ms, quiet_stall = await one.compare()
        writer.announcer.observers = (Nothing(),)  # streams and searches are told as well
        unseen = await change(one)
        writer.announcer.observers = (one.digest, one.changes)
        seen = await change(one)
        used = time.process_time()
        await one.hash_all()
        hashing = (time.process_time() - used) * 1000 / (CHANGES / 1000)
        await change(one)
        changed_seconds, changed_stall = await one.hash_all()
        return {
            "begin ms": begin_ms,
            "first hashing s": first_seconds,
            "first stall ms": first_stall,
            "quiet ms": quiet_ms,
            "quiet stall ms": quiet_stall,
            "changed s": changed_seconds,
            "changed stall ms": changed_stall,
            "telling ms": max(0.0, seen - unseen),
            "hashing ms": hashing,
        }


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(main(sys.argv[1], int(sys.argv[2])))).decode())
