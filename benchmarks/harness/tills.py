"""Tills that write to one program: each has products of its own, and one write on its way.

    python -m benchmarks.harness.tills URL PATH KEY TILLS FROM_VERSION WRITES

It prints as JSON the seconds that all the writes took, and the latencies in milliseconds. Run it
again with the version that it left: FROM_VERSION plus WRITES, which each till sends to each of
`PRODUCTS_EACH` products in turn.
"""

from __future__ import annotations

import asyncio
import sys
import time
from urllib.parse import urlsplit

import orjson
import uvloop

from benchmarks.harness.rows import product_id
from tests.harness.http import Connection

PRODUCTS_EACH = 8
TAKEN = (200, 202)
"""Applied, or queued by a store whose Central is away."""


class Till:
    def __init__(self, number: int, connection: Connection, path: str, key: str) -> None:
        self.latencies: list[float] = []
        self._number = number
        self._connection = connection
        self._path = path
        self._headers = {"X-API-Key": key, "Content-Type": "application/json"}

    async def write(self, versions: range) -> None:
        for version in versions:
            for product in range(PRODUCTS_EACH):
                await self._write_one(self._number * PRODUCTS_EACH + product, version)

    async def _write_one(self, product: int, version: int) -> None:
        update = {
            "storeId": "store-s1",
            "productId": product_id(product),
            "delta": 1,
            "version": version,
            "idempotencyKey": f"store-s1-sale-{product}-{version}",
        }
        body = orjson.dumps(update)
        began = time.perf_counter()
        reply = await self._connection.send("POST", self._path, headers=self._headers, body=body)
        self.latencies.append((time.perf_counter() - began) * 1000)
        if reply.status not in TAKEN:
            raise RuntimeError(f"{reply.status} {reply.body!r}")


async def main(url: str, path: str, key: str, tills: int, from_version: int, writes: int) -> None:
    port = urlsplit(url).port or 80
    selling = [Till(n, await Connection.open(port), path, key) for n in range(tills)]
    versions = range(from_version, from_version + writes)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for till in selling:
            group.create_task(till.write(versions))
    seconds = time.perf_counter() - began
    latencies = [latency for till in selling for latency in till.latencies]
    sys.stdout.write(orjson.dumps([seconds, latencies]).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asked = sys.argv[1:]
    uvloop.run(main(asked[0], asked[1], asked[2], *map(int, asked[3:])))
