"""The whole store but its port, in process and in virtual time: Central's stub behind a transport.

Knows: how the parts list is built on a disk that can fail and a line that can be cut; with
`served`, in true time, on a port, too.
Refuses to know: processes, and what any test proves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from central_stub.central import AccessKeys, Central, Held
from central_stub.faults import Faults
from central_stub.ledger import Ledger
from central_stub.wire import Reply, Request
from store_cache.api.app import build_api
from store_cache.api.parts import StoreParts
from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.settings import Settings
from store_cache.storage.directory import Directory
from tests.harness.faulty_directory import FaultyFolder
from tests.harness.shelf import NOON, Clock

KEY = "demo"
TILL_KEY = "till-secret"
ADMIN_KEY = "office-secret"
PRODUCTS = ("P-1", "P-2", "P-3")


class Line(httpx.AsyncBaseTransport):
    """The way to a Central that holds `PRODUCTS`. `is_cut`: nobody can be reached. `holding`: no
    answer comes before it is set."""

    def __init__(self, clock: Clock) -> None:
        self.ledger = Ledger(generation="g-1")
        self.is_cut = False
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self._clock = clock
        self._news = asyncio.Event()
        keys = AccessKeys([KEY], [])
        faults = Faults(lambda: 0.0)
        self._central = Central(self.ledger, keys=keys, faults=faults, new_name=lambda: "g-2")
        for product_id in PRODUCTS:
            self.ledger.create({"productId": product_id, "name": "Tea", "available": 10}, NOON)

    def tell(self) -> None:
        """Held polls see what there is, and a cut."""
        self._news.set()
        self._news = asyncio.Event()

    def cut(self) -> None:
        self.is_cut = True
        self.tell()

    def sell(self, product_id: str) -> None:
        """Central sells by itself."""
        held = self.ledger.read(product_id)
        assert held is not None
        self.ledger.set({"productId": product_id, "available": held["available"] - 1}, NOON)
        self.tell()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        self.asked.append(target)
        key = request.headers["X-API-Key"]
        asked = Request(request.method, target, key, await request.aread(), "a store")
        await self.open.wait()
        reply = self._central.answer(asked, self._clock.now())
        if isinstance(reply, Held) and not self.is_cut:
            reply = await self._wait(reply)
        if self.is_cut or isinstance(reply, Held):
            raise httpx.ConnectError("nobody listens there")
        return httpx.Response(reply.status, content=reply.body, headers=dict(reply.headers))

    async def _wait(self, held: Held) -> Reply:
        with suppress(TimeoutError):
            async with asyncio.timeout(held.wait_seconds):
                await self._news.wait()
        now = self._clock.now()
        return self._central.poll(held, now) or self._central.release(held, now)


class Whole:
    """A store that runs, its line and its disk."""

    def __init__(self, parts: StoreParts, line: Line, folder: Directory, clock: Clock) -> None:
        self.parts = parts
        self.line = line
        self.folder = folder
        self.clock = clock

    @property
    def disk(self) -> FaultyFolder:
        assert isinstance(self.folder, FaultyFolder)
        return self.folder

    @property
    def status(self) -> dict[str, Any]:
        return self.parts.status.sync_status()

    @property
    def state(self) -> str:
        return str(self.status["state"]["name"])

    async def until(self, name: str) -> float:
        """Wait for a state, step by step of the sync; how many seconds that took."""
        began_at = asyncio.get_running_loop().time()
        async with asyncio.timeout(10_000.0):
            while self.state != name:
                await self.parts.runner.changed.wait()
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop().time() - began_at


@asynccontextmanager
async def whole_store(
    folder: Directory | None = None,
    *,
    clock: Clock | None = None,
    line: Line | None = None,
    **settings: Any,
) -> AsyncIterator[Whole]:
    """A store that runs until the block ends; what its folder holds is left there."""
    clock = clock or Clock()
    line = line or Line(clock)
    folder = folder or FaultyFolder()
    usual: dict[str, Any] = {"central_api_key": KEY, "api_keys": TILL_KEY}
    world = Environment(folder, now=clock.now, random=lambda: 0.5, transport=line)
    async with running(Settings(_env_file=None, **(usual | settings)), world) as parts:
        yield Whole(parts, line, folder, clock)


@asynccontextmanager
async def served(store: Whole) -> AsyncIterator[str]:
    """The store's API on a free port; its address."""
    api = build_api(
        store.parts,
        store_id="store-s1",
        keys=[TILL_KEY],
        admin_keys=[ADMIN_KEY],
        cors_origins=(),
    )
    server = await serve(api, host="127.0.0.1", port=0)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop(1.0)
