"""The two programs as processes of their own, to be started, stopped and killed by a campaign.

Knows: their commands, ports and folders. Refuses to know: what a campaign proves.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

CENTRAL_KEY = "demo"
ADMIN_KEY = "admin-demo"
TILL_KEY = "till-key-of-the-campaign"
START_SECONDS = 30.0

Stock = dict[str, tuple[int, int]]
"""Quantity and version by product id."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program:
    """One program on a port that stays the same however often it is started."""

    def __init__(
        self, module: str, arguments: tuple[str, ...], environment: Mapping[str, str], log: Path
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = (module, *arguments)
        self._environment = dict(environment)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, path: str = "/health", **environment: str) -> None:
        """Start and wait until `path` is answered with success."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._arguments,
                env={**os.environ, **self._environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await self.until_answers(path)

    async def until_answers(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            while time.monotonic() < deadline:
                with suppress(httpx.HTTPError):
                    if (await client.get(self.url + path)).is_success:
                        return
                await asyncio.sleep(0.02)
        raise AssertionError(f"{self._arguments} does not answer {path}; see {self._log}")

    async def kill(self) -> None:
        """`kill -9`."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return await asyncio.wait_for(process.wait(), 15.0)


class Central(Program):
    """`central-stub`, with its ledger in a folder that outlives it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder / "ledger"
        super().__init__(
            "central_stub",
            ("serve",),
            {"CENTRAL_STUB_DATA_DIR": str(self.folder), **environment},
            folder / "central.log",
        )
        self._environment["CENTRAL_STUB_PORT"] = str(self.port)

    async def load(self, rows: list[dict[str, Any]]) -> None:
        for start in range(0, len(rows), 500):
            body = {"products": rows[start : start + 500]}
            await self.admin("POST", "/v1/admin/products/create", body)

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"X-API-Key": ADMIN_KEY}
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as client:
            response = await client.request(method, self.url + path, json=body)
            response.raise_for_status()
            return response.json() if response.content else None

    async def stock(self) -> Stock:
        """Every product, walked page by page, from an address whose limit is its own."""
        held: Stock = {}
        async with client_from("127.0.0.9", CENTRAL_KEY) as client:
            while True:
                path = f"{self.url}/v1/inventory?offset={len(held)}&limit=1000"
                response = await client.get(path)
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
                    continue
                products = response.raise_for_status().json()["products"]
                for row in products:
                    held[row["productId"]] = (row.get("available", 0), row["version"])
                if not products:
                    return held


class Store(Program):
    """`store-cache serve`, with its files in a folder that outlives it."""

    def __init__(self, folder: Path, central_url: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder / "data"
        settings = {
            "HOST": "127.0.0.1",
            "API_KEYS": TILL_KEY,
            "CENTRAL_API_URL": central_url,
            "CENTRAL_API_KEY": CENTRAL_KEY,
            "DATA_DIR": str(self.folder),
            "EVENT_WAIT_TIMEOUT_SECONDS": "5",
            "LOG_LEVEL": "info",
        }
        super().__init__("store_cache", ("serve",), settings | environment, folder / "store.log")
        self._environment["PORT"] = str(self.port)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            base_url=self.url, headers={"X-API-Key": TILL_KEY}, trust_env=False, timeout=30
        ) as client:
            yield client

    async def status(self) -> dict[str, Any]:
        async with self.client() as client:
            response = await client.get("/v1/store/sync/status")
            document: dict[str, Any] = response.raise_for_status().json()
            return document

    async def stock(self) -> Stock:
        """Every product, as the store's reads give it, walked with `after`."""
        held: Stock = {}
        after = ""
        async with self.client() as client:
            while True:
                query = f"?limit=200&after={quote(after, safe='')}" if after else "?limit=200"
                response = await client.get("/v1/store/inventory" + query)
                document = response.raise_for_status().json()
                for row in document["products"]:
                    held[row["productId"]] = (row["available"], row["version"])
                if not document["pagination"]["hasMore"]:
                    return held
                after = document["products"][-1]["productId"]


def client_from(address: str, key: str) -> httpx.AsyncClient:
    """A client whose requests come from `address`: Central's limit counts each one by itself."""
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(local_address=address),
        headers={"X-API-Key": key},
        timeout=60,
    )


def checksum(stock: Stock) -> str:
    """sha256 over `productId=available\\n` for all products in code point order."""
    lines = (f"{product_id}={stock[product_id][0]}\n" for product_id in sorted(stock))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


async def until_equal(store: Store, central: Central, within_seconds: float) -> float:
    """Wait until the store's reads give what Central has; returns how long it took."""
    began = time.monotonic()
    wanted = await central.stock()
    while time.monotonic() - began < within_seconds:
        with suppress(httpx.HTTPError):
            if await store.stock() == wanted:
                return time.monotonic() - began
        await asyncio.sleep(0.05)
        wanted = await central.stock()
    held = await store.stock()
    wrong = [i for i in wanted.keys() | held.keys() if wanted.get(i) != held.get(i)]
    raise AssertionError(
        f"not equal after {within_seconds} s: {len(wrong)} products, e.g. {sorted(wrong)[:5]}; "
        f"status: {await store.status()}"
    )
