"""A Central and stores in this process, each with its real server and files.

They run in whatever loop is running: tests run them in virtual time, with connections in memory.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from central_stub.ledger import Ledger
from central_stub.rules import Update
from central_stub.server import Running as RunningCentral
from central_stub.settings import Settings as CentralSettings
from central_stub.switches import Switches
from store_cache.api.parts import StoreParts
from store_cache.api.server import ApiServer
from store_cache.app.build import Environment, running
from store_cache.central.connection import CONNECTIONS, IDLE_SECONDS
from store_cache.central.transport import AiohttpTransport
from store_cache.storage.directory import LocalDirectory
from tests.harness.clients import CentralAdmin, Row, StoreClient
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import served, settings_of


class Central(CentralAdmin):
    """`switches` are those that it starts with; a restart has them again. `seed` decides which
    events come late, where it does not keep them in order."""

    def __init__(
        self, folder: Path, switches: Switches, clock: Clock, *, port: int = 0, seed: int = 7
    ) -> None:
        super().__init__()
        self.switches = switches
        self._seed = seed
        self._clock = clock
        self._folder = folder
        self._running = self._made(port)
        self._sales = 0

    def _made(self, port: int) -> RunningCentral:
        settings = CentralSettings(_env_file=None, port=port, data_dir=self._folder)
        return RunningCentral(settings, self.switches, seed=self._seed, clock=self._clock.now)

    @property
    def url(self) -> str:
        return self._running.url

    @property
    def ledger(self) -> Ledger:
        return self._running.ledger

    @property
    def held_polls(self) -> int:
        return self._running.held_polls

    async def start(self) -> None:
        """Serve on the port that it had before, if it had one."""
        await self._running.start()

    async def stop(self) -> None:
        await self._running.stop()

    async def kill(self) -> None:
        """Lose what is not on disk, and break every connection."""
        await self._running.kill()

    async def close(self) -> None:
        await self.close_client()
        await self.stop()

    @asynccontextmanager
    async def out_of_sight(self, switches: Switches | None = None) -> AsyncIterator[Central]:
        """Stop, and serve the same ledger on another port, which no store knows; at the end start
        again on the old one: to stores, all that was done meanwhile happened at once."""
        await self.stop()
        self.switches = switches or self.switches
        hidden = Central(self._folder, self.switches, self._clock)
        await hidden.start()
        try:
            yield hidden
        finally:
            await hidden.close()
        self._running = self._made(int(self.url.rpartition(":")[2]))
        await self.start()

    async def rows(self) -> dict[str, Row]:
        return {row["productId"]: row for row in self.ledger.everything()}

    def stock(self, product_id: str) -> int:
        row = self.ledger.read(product_id)
        assert row is not None
        return int(row["available"])

    async def sell(self, product_id: str, delta: int) -> None:
        """Write as another shop does; no limit or fault strikes it."""
        row = self.ledger.read(product_id)
        assert row is not None
        self._sales += 1
        key = f"elsewhere-{id(self)}-{self._sales}"
        update = Update(product_id, delta, row["version"], key, "elsewhere")
        assert self.ledger.update(update, self._clock.now())["applied"]
        await self.admin("GET", "switches")  # held polls are answered after the next request


class CuttableTransport(httpx.AsyncBaseTransport):
    """A process's connections to Central; `is_cut` once the process is killed."""

    def __init__(self) -> None:
        self.is_cut = False
        self._network = AiohttpTransport(
            connections=CONNECTIONS, idle_seconds=IDLE_SECONDS, tls=None
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_cut:
            raise httpx.ConnectError("this process was killed")
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


class Store(StoreClient):
    """One store. `settings` are those that differ from a quick one's; `disk` opens DATA_DIR."""

    def __init__(self, clock: Clock, central_url: str, data_dir: Path, **settings: Any) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.disk: Callable[[Path], LocalDirectory | FaultyDirectory] = LocalDirectory
        self._clock = clock
        self._settings: dict[str, Any] = {"central_api_url": central_url} | QUICK | settings
        self._stack = AsyncExitStack()
        self._transport = CuttableTransport()
        self._parts: StoreParts | None = None
        self._server: ApiServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None, "it is not running"
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def parts(self) -> StoreParts:
        assert self._parts is not None
        return self._parts

    async def start(self, **settings: Any) -> None:
        """Start from what is in DATA_DIR. `settings` stay changed."""
        self._settings |= settings
        given = settings_of(data_dir=self.data_dir, **self._settings)
        self._transport = CuttableTransport()
        async with AsyncExitStack() as stack:
            directory = self.disk(self.data_dir)
            stack.push_async_callback(directory.close)
            world = Environment(directory, now=self._clock.now, transport=self._transport)
            self._parts = await stack.enter_async_context(running(given, world))
            self._server = await stack.enter_async_context(served(self._parts, given))
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        self._server = None
        await self._stack.aclose()

    async def kill(self) -> None:
        """End as by `kill -9`: the next start finds what is in DATA_DIR at this moment, and what
        was not sent to Central by now never is."""
        left = self.data_dir.with_name(f"{self.data_dir.name}-left")
        shutil.copytree(self.data_dir, left)
        self._transport.is_cut = True
        self.data_dir = left
        server, self._server = self._server, None
        assert server is not None
        await self.close_client()  # a stop answers tills, a kill does not
        await server.stop(0.0)
        await self._stack.aclose()

    async def close(self) -> None:
        await self.close_client()
        await self.stop()


QUICK: dict[str, Any] = {
    "sync_interval_seconds": 1,
    "event_wait_timeout_seconds": 1,
    "hole_grace_seconds": 0.3,
    "write_timeout_seconds": 2,
    "sync_interval_minutes": 1,
}
