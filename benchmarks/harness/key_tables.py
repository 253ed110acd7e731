"""Remembered keys as a process of their own: `store` or `dict`, then the DATA_DIR.

It loads them as a start does, and prints as JSON how many bytes of resident memory each key has
taken beyond its own, and how long the load took in seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.harness.cache import snapshot_in
from store_cache.app.memory import freeze_imports, frozen_heap
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.files import CacheFiles
from store_cache.writer import CacheWriter
from store_cache.writes.idempotency import Final, KeyTable, encode_final
from store_cache.writes.write import Applied
from tests.harness import proc

RETENTION_SECONDS = 86_400.0


def records(count: int) -> Iterator[bytes]:
    """The final answers to that many sales, given one after the other until now."""
    began_at = time.time() - count / 100
    for number in range(count):
        version = number % 5_000
        updated = f"2026-11-29T10:{number // 60 % 60:02}:{number % 60:02}.{number % 1000:03}Z"
        stock = StockAnswer("", version, version + 1, number % 300, updated)
        fingerprint = number.to_bytes(12, "big")
        given_at = began_at + number / 100
        client = f"till-{number % 40:02}"
        final = Final(fingerprint, 1, version, given_at, Applied(stock), client)
        yield encode_final(key_of(number), final)


def key_of(number: int) -> str:
    """36 characters, as a UUID has."""
    return f"till-{number % 40:02}-sale-of-2026-11-29-{number:09}"


async def write_files(data: Path, count: int) -> None:
    directory = LocalDirectory(data)
    files = CacheFiles(directory, store_id="store-s1", now=time.time)
    await files.load()
    await files.begin(None, records(count))
    await files.close()
    await directory.close()


async def load_store(data: Path) -> None:
    """Load the files and write new ones, as each start does."""
    directory, keys = LocalDirectory(data), KeyTable(retention_seconds=RETENTION_SECONDS)
    files = CacheFiles(directory, store_id="store-s1", now=time.time)
    freeze_imports()
    before, began = proc.resident_bytes(os.getpid()), time.perf_counter()
    writer = CacheWriter(
        files, keys, now=time.time, steady=time.time, grace_seconds=2.0, fetch_product=no_product
    )
    await writer.open()
    async with frozen_heap(asyncio.Event()):
        print_figures(before, len(keys), time.perf_counter() - began)
    await writer.close()
    await directory.close()


async def no_product(product_id: str, *, generation: str | None) -> Row | None:
    raise AssertionError("no product is fetched")


async def load_dict(data: Path) -> None:
    """Put each record under its key, and nothing else."""
    path = snapshot_in(data)
    before, began = proc.resident_bytes(os.getpid()), time.perf_counter()
    held: dict[bytes, bytes] = {}
    with path.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"write"'):
                held[orjson.loads(line)["write"]["key"].encode()] = line[:-1]
    print_figures(before, len(held), time.perf_counter() - began)


def print_figures(before: int, count: int, seconds: float) -> None:
    beyond = (proc.resident_bytes(os.getpid()) - before) / count - len(key_of(0))
    sys.stdout.write(f"{orjson.dumps([beyond, seconds]).decode()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    kind, data_dir = sys.argv[1:]
    asyncio.run({"store": load_store, "dict": load_dict}[kind](Path(data_dir)))
