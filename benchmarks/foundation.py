"""What the cache costs: memory, start, and an event batch, by the size of the catalogue.

    make bench

Each figure stands beside a peer of the same run, and the ratio is what counts: machines are shared
and differ. Writes docs/benchmarks.md.

- **An event batch of 100**, through the keeper (rules, journal, fdatasync, visible), at 1,000 and
  100,000 products; the peer is one write and fdatasync of the same bytes.
- **Start from disk**: from the process's start to the first product served, at 100,000 products;
  the peer is a script that reads and indexes the same snapshot.
- **Memory**: resident, of the store process with 100,000 products after 2,000 reads.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import httpx

from store_cache.app.keeper import Keeper
from store_cache.core.catalogue import Catalogue
from store_cache.core.change import Change, encode_change
from store_cache.core.event import read_event
from store_cache.core.keys import KeyTable
from store_cache.core.position import Position
from store_cache.core.product import encode_exactly, read_product
from store_cache.edges.archive import Archive
from store_cache.edges.folder import LocalFolder

ROOT = Path(__file__).parent.parent
BATCH = 100
ROUNDS = 7
BATCHES_IN_ROUND = 60
SIZES = (1_000, 100_000)
START_PRODUCTS = 100_000
STARTS = 5
KEY = "key-of-the-benchmark"


def product(number: int, available: int, version_: int) -> dict[str, object]:
    return {
        "productId": f"PROD-{number:07d}",
        "name": f"Product number {number}",
        "available": available,
        "version": version_,
        "lastUpdated": "2026-01-15T10:30:00Z",
        "price": 99.99,
    }


def catalogue_of(count: int) -> Catalogue:
    catalogue = Catalogue()
    rows = (read_product(product(number, 10, 1)) for number in range(count))
    catalogue.fill((row.product_id, row.body) for row in rows)
    catalogue.index()
    catalogue.position = Position("g-bench", 1)
    return catalogue


# -- an event batch ----------------------------------------------------------------------------


async def _never(product_id: str, *, generation: str | None) -> None:
    raise AssertionError("nothing is read whole here")


class Batches:
    """A keeper over a catalogue of a given size, and event batches for it."""

    def __init__(self, count: int, folder: Path) -> None:
        self.count = count
        self._path = folder
        self._offset = 1
        self._version = 1

    async def open(self) -> None:
        archive = Archive(await LocalFolder.open(self._path), now=time.time)
        await archive.load()
        catalogue = catalogue_of(self.count)
        await archive.begin(catalogue, ())
        keys = KeyTable(retention_seconds=86_400)
        self.keeper = Keeper(
            archive,
            keys,
            now=time.time,
            steady=time.time,
            grace_seconds=2.0,
            read_whole=_never,
        )
        self.keeper.catalogue = catalogue

    async def keep(self) -> float:
        """Keep one batch, spread over the catalogue; how long that took, in seconds."""
        step = self.count // BATCH
        first = self._offset // BATCH % step
        self._version += 1
        events = [
            read_event(self._event(first + index * step, self._offset + index))
            for index in range(BATCH)
        ]
        self._offset += BATCH
        position = Position("g-bench", self._offset, events[-1].fingerprint)
        began = time.perf_counter()
        await self.keeper.keep_events(events, position)
        return time.perf_counter() - began

    def _event(self, number: int, offset: int) -> dict[str, object]:
        data = product(number, offset % 1000, self._version)
        return {
            "offset": offset,
            "timestamp": "2026-01-15T10:30:00Z",
            "eventType": "inventory_updated",
            "productId": data["productId"],
            "version": self._version,
            "data": data,
        }


def write_and_sync(descriptor: int, data: bytes) -> float:
    began = time.perf_counter()
    os.write(descriptor, data)
    os.fdatasync(descriptor)
    return time.perf_counter() - began


async def measure_batches(folder: Path) -> dict[str, list[float]]:
    """Median seconds of a batch in each round, interleaved, by what was measured."""
    found: dict[str, list[float]] = {}
    keepers = [Batches(count, folder / str(count)) for count in SIZES]
    for keeper in keepers:
        await keeper.open()
    record = encode_change_of_a_batch()
    descriptor = os.open(folder / "peer", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for _ in range(ROUNDS):
        for keeper in keepers:
            times = [await keeper.keep() for _ in range(BATCHES_IN_ROUND)]
            found.setdefault(f"{keeper.count:,} products", []).append(statistics.median(times))
        times = [write_and_sync(descriptor, record) for _ in range(BATCHES_IN_ROUND)]
        found.setdefault("write + fdatasync alone", []).append(statistics.median(times))
    for keeper in keepers:
        await keeper.keeper.close()
    return found


def encode_change_of_a_batch() -> bytes:
    products = [product(number, 10, 2) for number in range(BATCH)]
    rows = {str(each["productId"]): encode_exactly(each) for each in products}
    return encode_change(Change("events", 1, Position("g-bench", 1), rows)) + b"\n"


# -- start and memory --------------------------------------------------------------------------

INDEX_SCRIPT = """
import sys, orjson
rows = {}
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        if line.startswith(b'{"productId"'):
            rows[orjson.loads(line)["productId"]] = line[:-1]
print(len(rows), len(sorted(rows)))
"""


async def prepare(folder: Path) -> None:
    """Make a data folder with a snapshot of the catalogue."""
    opened = await LocalFolder.open(folder)
    archive = Archive(opened, now=time.time)
    await archive.load()
    await archive.begin(catalogue_of(START_PRODUCTS), ())
    await archive.close()
    await opened.close()


def index_by_script(snapshot: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", INDEX_SCRIPT, str(snapshot)], check=True, capture_output=True
    )
    return time.perf_counter() - began


def start_store(folder: Path) -> tuple[float, int]:
    """Seconds to the first product served, and resident bytes after 2,000 reads."""
    environment = os.environ | {
        "PORT": "18399",
        "HOST": "127.0.0.1",
        "API_KEYS": KEY,
        "DATA_DIR": str(folder),
        "CENTRAL_API_URL": "http://127.0.0.1:9",
        "LOG_LEVEL": "error",
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "store_cache", "serve"], env=environment, cwd=ROOT
    )
    try:
        with httpx.Client(headers={"X-API-Key": KEY}, trust_env=False) as client:
            until_served(client)
            took = time.perf_counter() - began
            for number in range(2_000):
                path = f"/v1/store/inventory/PROD-{number * 49:07d}"
                client.get("http://127.0.0.1:18399" + path).raise_for_status()
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return took, pages * os.sysconf("SC_PAGE_SIZE")
    finally:
        process.terminate()
        process.wait(15)


def until_served(client: httpx.Client) -> None:
    while True:
        try:
            client.get("http://127.0.0.1:18399/v1/store/inventory/PROD-0050000").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.005)
        else:
            return


# -- the report --------------------------------------------------------------------------------


def ratio(mine: list[float], peers: list[float]) -> str:
    """The ratio of the medians, or that the runs' own spread is larger than what it would claim."""
    claimed = statistics.median(mine) / statistics.median(peers)
    own = max(spread(mine), spread(peers))
    if abs(claimed - 1) < own:
        return f"{claimed:.2f} (within the runs' own spread of {own:.0%})"
    return f"{claimed:.2f}"


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def milliseconds(values: list[float]) -> str:
    return f"{statistics.median(values) * 1000:.2f}"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *rest = rows
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rest)]
    return "\n".join(lines)


def report(
    batches: dict[str, list[float]], starts: list[float], scripts: list[float], rss: int
) -> str:
    small, large = (batches[f"{count:,} products"] for count in SIZES)
    alone = batches["write + fdatasync alone"]
    rows = [
        ("an event batch of 100, durable and visible", "ms, median", "ratio"),
        ("write + fdatasync of the same bytes alone (peer)", milliseconds(alone), "1.00"),
        ("1,000 products", milliseconds(small), f"{ratio(small, alone)} x the peer"),
        ("100,000 products", milliseconds(large), f"{ratio(large, small)} x 1,000 products"),
    ]
    start_rows = [
        ("100,000 products", "figure", "ratio"),
        (
            "a script that reads and indexes the snapshot (peer)",
            f"{statistics.median(scripts):.2f} s",
            "1.00",
        ),
        (
            "store: process start to first product served",
            f"{statistics.median(starts):.2f} s",
            f"{ratio(starts, scripts)} x the script",
        ),
        ("store: resident memory after 2,000 reads", f"{rss / 1e6:.0f} MB", ""),
    ]
    return (
        "\n\n".join(
            [
                "# Benchmarks",
                f"Written by `make bench`; ratios are what counts. {machine()}",
                table(rows),
                f"Medians of {ROUNDS} interleaved rounds of {BATCHES_IN_ROUND} batches.",
                table(start_rows),
                f"Medians of {STARTS} starts, with Central down.",
            ]
        )
        + "\n"
    )


def machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    parts = ", ".join(
        f"{name} {version(name)}" for name in ("aiohttp", "httpx", "orjson", "uvloop")
    )
    return (
        f"Seen: {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {parts}, commit {commit}."
    )


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        batches = asyncio.run(measure_batches(folder))
        asyncio.run(prepare(folder / "start"))
        scripts, starts, sizes = [], [], []
        for _ in range(STARTS):
            scripts.append(index_by_script(next((folder / "start").glob("snapshot-*.jsonl"))))
            took, rss = start_store(folder / "start")
            starts.append(took)
            sizes.append(rss)
        text = report(batches, starts, scripts, max(sizes))
    finally:
        shutil.rmtree(folder)
    (ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
