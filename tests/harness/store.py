"""The store in this process: its parts on a directory, and its API on a port."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from store_cache.api.parts import StoreParts
from store_cache.api.server import ApiServer, serve
from store_cache.app.build import Environment, running
from store_cache.app.serve import api_of
from store_cache.app.settings import Settings
from store_cache.app.tls import server_tls
from store_cache.storage.directory import Directory, FileThread
from tests.harness.central import LedgerTransport
from tests.harness.clients import CENTRAL_KEY, STORE_ADMIN_KEY, TILL_KEY
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory

T = TypeVar("T")

STOP_SECONDS = 1.0


def settings_of(**settings: Any) -> Settings:
    """Settings that no environment changes; keys are those of the harness, the port is any."""
    usual: dict[str, Any] = {
        "environment": "development",
        "host": "127.0.0.1",
        "port": 0,
        "api_keys": TILL_KEY,
        "admin_api_keys": STORE_ADMIN_KEY,
        "central_api_url": "http://central.test",
        "central_api_key": CENTRAL_KEY,
        "fleet_report": False,  # tests count what the store asks Central for
        "verify_interval_minutes": 0,  # what it finds must not hide what rules fail to notice
    }
    return Settings(_env_file=None, **(usual | settings))


@asynccontextmanager
async def served(parts: StoreParts, settings: Settings) -> AsyncIterator[ApiServer]:
    """The API of these parts, served until the block ends."""
    server = await serve(
        api_of(parts, settings), host=settings.host, port=settings.port, tls=server_tls(settings)
    )
    try:
        yield server
    finally:
        await server.stop(STOP_SECONDS)


class RunningStore:
    """The parts of a store that runs, its Central and its directory."""

    def __init__(
        self,
        parts: StoreParts,
        settings: Settings,
        central: LedgerTransport,
        directory: Directory,
    ) -> None:
        self.parts = parts
        self.central = central
        self.clock = central.clock
        self._settings = settings
        self._directory = directory

    @property
    def disk(self) -> FaultyDirectory:
        assert isinstance(self._directory, FaultyDirectory)
        return self._directory

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.parts.status.sync_status())

    @property
    def state(self) -> str:
        return str(self.status["state"]["name"])

    async def until(self, state: str) -> float:
        """Wait for a state, step by step of the sync; return how many seconds that took."""
        began_at = asyncio.get_running_loop().time()
        async with asyncio.timeout(10_000.0):
            while self.state != state:
                await self.parts.runner.changed.wait()
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop().time() - began_at

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve its API on a free port; the address."""
        async with served(self.parts, self._settings) as server:
            yield f"http://127.0.0.1:{server.port}"


@asynccontextmanager
async def a_store(
    directory: Directory | None = None,
    *,
    central: LedgerTransport | None = None,
    chance: Callable[[], float] = lambda: 0.5,
    **settings: Any,
) -> AsyncIterator[RunningStore]:
    """Run a store until the block ends; what its directory holds is left there. Without a directory
    or a Central it has new ones, in memory. `chance` returns its random numbers."""
    central = central or LedgerTransport(Clock())
    directory = directory or FaultyDirectory()
    given = settings_of(**settings)
    clock = central.clock
    world = Environment(
        directory, now=clock.now, random=chance, transport=central, uptime=clock.uptime
    )
    async with running(given, world) as parts:
        yield RunningStore(parts, given, central, directory)


class ExecutorFileThread(FileThread):
    """In place of a thread for each file: the loop's executor, in the same order. A loop in virtual
    time performs its calls itself; one thread's can be counted."""

    def __init__(self) -> None:
        self.is_ended = False

    @property
    def is_alive(self) -> bool:
        return not self.is_ended

    def call(self, perform: Callable[[], T]) -> asyncio.Future[T]:
        if self.is_ended:
            raise OSError(errno.EBADF, "the file is closed already")
        return asyncio.get_running_loop().run_in_executor(None, perform)

    def end(self, perform: Callable[[], T]) -> asyncio.Future[T]:
        done = self.call(perform)
        self.is_ended = True
        return done
