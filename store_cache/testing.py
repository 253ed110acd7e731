"""A store in this process, served on a free port by an event loop in a thread of its own.

    with TestCentral(products=[{"productId": "TEA-001", "available": 40}]) as central:
        with TestStore(central) as store:
            requests.get(f"{store.url}/v1/store/inventory/TEA-001", headers=store.headers)

A till under test may block, and may run in any event loop or none. Every method is an ordinary
call; only `wait_until_in_sync`, `start`, `stop`, `restart` and `reset` take more than a millisecond
or two. `async with` is the same as `with`.

It is the whole store with quick settings. What it keeps is in memory, unless it is given a folder.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import anyio
import orjson
from anyio.from_thread import BlockingPortal, start_blocking_portal

from store_cache.api.parts import StoreParts
from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.serve import api_of, serving_rpc
from store_cache.app.settings import Settings, load_settings
from store_cache.app.tls import server_tls
from store_cache.storage.memory_directory import MemoryDirectory
from store_cache.sync.states import FullSyncRecord

Row = dict[str, Any]

KEY = "till-key"
ADMIN_KEY = "admin-key"

QUICK = {
    "HOST": "127.0.0.1",
    "PORT": "0",
    "STORE_ID": "store-test",
    "API_KEYS": KEY,
    "ADMIN_API_KEYS": ADMIN_KEY,
    "HOLE_GRACE_SECONDS": "0.1",
    "WRITE_TIMEOUT_SECONDS": "2",
    "VERIFY_INTERVAL_MINUTES": "0",  # its requests would meet the faults that a test sets
}

STOP_SECONDS = 1.0
LOOK_SECONDS = 0.01


class AnyCentral(Protocol):
    """A Central of a test, such as `central_stub.testing.TestCentral`."""

    @property
    def url(self) -> str: ...

    @property
    def key(self) -> str:
        """The key that the store sends to it."""

    def products(self) -> dict[str, Row]:
        """Return all products by id."""


class TestStore:
    """A store that follows `central`.

    `folder` is its DATA_DIR. `settings` are those of docs/configuration.md in lower case:
    `write_timeout_seconds=1`. Raises ValueError for wrong ones. The block begins when the store is
    in sync, or raises TimeoutError after `in_sync_within_seconds`; None: it begins at once.
    """

    __test__ = False  # for pytest: no class of tests

    def __init__(
        self,
        central: AnyCentral,
        *,
        folder: Path | None = None,
        in_sync_within_seconds: float | None = 5.0,
        **settings: Any,
    ) -> None:
        self._central = central
        self._ready_seconds = in_sync_within_seconds
        self._folder = folder
        self._given = settings
        self._settings = self._settings_with(settings)
        self._memory = MemoryDirectory()
        self._port = self._settings.port
        self._grpc_port: int | None = None
        self._thread = ExitStack()
        self._portal: BlockingPortal | None = None
        self._serving: AbstractContextManager[StoreParts] | None = None
        self._parts: StoreParts | None = None
        self._forced: Future[FullSyncRecord] | None = None

    # -- its life --------------------------------------------------------------------------

    def __enter__(self) -> TestStore:
        self._portal = self._thread.enter_context(start_blocking_portal())
        try:
            self.start()
            if self._ready_seconds is not None:
                self.wait_until_in_sync(within_seconds=self._ready_seconds)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.close()
        self._portal = None

    async def __aenter__(self) -> TestStore:
        return await anyio.to_thread.run_sync(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await anyio.to_thread.run_sync(self.__exit__, kind, error, at)

    @property
    def url(self) -> str:
        """Its address, the same after every restart."""
        scheme = "http" if self._settings.tls_cert_file is None else "https"
        return f"{scheme}://127.0.0.1:{self._port}"

    @property
    def grpc_address(self) -> str:
        """Where it serves gRPC, if it has the setting `grpc_port=0`; another port after a restart.
        A call takes `store.headers` as metadata, in lower case."""
        if self._grpc_port is None:
            raise RuntimeError("it serves no gRPC: give TestStore the setting grpc_port=0")
        return f"127.0.0.1:{self._grpc_port}"

    @property
    def headers(self) -> dict[str, str]:
        """The key of a till, as a header."""
        return {"X-API-Key": KEY}

    @property
    def admin_headers(self) -> dict[str, str]:
        """The key of an operator, as a header."""
        return {"X-API-Key": ADMIN_KEY}

    def start(self) -> None:
        """Serve what it kept; follow Central. It may not be in sync yet."""
        if self._portal is None:
            raise RuntimeError("use it in a `with` or `async with` block")
        if self._serving is None:
            serving = self._portal.wrap_async_context_manager(self._served())
            self._parts = serving.__enter__()
            self._serving = serving

    def stop(self) -> None:
        """Give requests in flight a second to end, and refuse connections until `start`."""
        if self._forced is not None:
            self._forced.cancel()
        serving, self._serving, self._parts = self._serving, None, None
        if serving is not None:
            serving.__exit__(None, None, None)

    def restart(self) -> None:
        """Stop and start with what it kept: catalogue, position and idempotency keys."""
        self.stop()
        self.start()

    def reset(self, **settings: Any) -> None:
        """Begin anew between two tests: nothing kept, the settings of the beginning but for these,
        and in sync with Central. Raises ValueError for wrong settings; it is as before then."""
        self._settings = self._settings_with(self._given | settings)
        self.stop()
        if self._folder is not None:
            for left in self._folder.iterdir():
                left.unlink()
        self._memory = MemoryDirectory()
        self.start()
        self.wait_until_in_sync()

    # -- what it holds ---------------------------------------------------------------------

    def products(self) -> dict[str, Row]:
        """Return all products by id, as the catalogue has them: without what reads add of queued
        writes, such as `pendingDelta`. Empty before the first full sync."""
        catalogue = self._running.writer.catalogue
        if catalogue is None:
            return {}
        rows = self._call(lambda: catalogue.page(0, len(catalogue)))
        return {row["productId"]: row for row in map(orjson.loads, rows)}

    def product(self, product_id: str) -> Row | None:
        return self.products().get(product_id)

    def status(self) -> dict[str, Any]:
        """Return what `GET /v1/store/sync/status` shows."""
        return dict(self._call(self._running.status.sync_status))

    def is_in_sync(self) -> bool:
        """Whether it is live and holds what Central holds."""
        if self.status()["state"]["name"] != "live":
            return False
        return _essence(self.products()) == _essence(self._central.products())

    def wait_until_in_sync(self, *, within_seconds: float = 5.0) -> None:
        """Wait until it shows every change of Central so far. Raises TimeoutError, which says what
        differs.

        Whatever a store waits for is cut short: a poll that Central holds, the pause before it asks
        a Central that was away again, and the time between two full syncs.
        """
        ends_at = time.monotonic() + within_seconds
        if not self.is_in_sync():
            self._call(self._running.runner.ask_anew)
        while not self.is_in_sync():
            if time.monotonic() > ends_at:
                raise TimeoutError(f"not in sync within {within_seconds:g} s: {self._difference()}")
            self._hasten()
            time.sleep(LOOK_SECONDS)

    # -- how -------------------------------------------------------------------------------

    @property
    def _running(self) -> StoreParts:
        if self._parts is None:
            raise RuntimeError("the store is not running: call start() first")
        return self._parts

    def _settings_with(self, given: Mapping[str, Any]) -> Settings:
        unknown = sorted(given.keys() - Settings.variables().keys())
        if unknown:
            raise ValueError(f"no such setting: {', '.join(unknown)}; see docs/configuration.md")
        files = {} if self._folder is None else {"DATA_DIR": str(self._folder)}
        central = {"CENTRAL_API_URL": self._central.url, "CENTRAL_API_KEY": self._central.key}
        named = {name.upper(): str(value) for name, value in given.items()}
        return load_settings(QUICK | central | files | named, env_file=None)

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[StoreParts]:
        settings = self._settings
        environment = Environment(self._memory) if self._folder is None else None
        async with running(settings, environment) as parts:
            app = api_of(parts, settings)
            server = await serve(app, host=settings.host, port=self._port, tls=server_tls(settings))
            self._port = server.port
            try:
                async with serving_rpc(parts, settings, app) as self._grpc_port:
                    yield parts
            finally:
                await server.stop(STOP_SECONDS)

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call a function in the thread of its event loop."""
        assert self._portal is not None
        return self._portal.call(function, *arguments)

    def _hasten(self) -> None:
        runner = self._running.runner
        self._call(runner.wake_after_failure)
        is_forced = self._forced is not None and not self._forced.done()
        if not is_forced and "wanted" in (self.status()["fullSync"] or {}):
            assert self._portal is not None
            force = partial(runner.force_full_sync, accept=False)
            self._forced = self._portal.start_task_soon(force)

    def _difference(self) -> str:
        ours, theirs = _essence(self.products()), _essence(self._central.products())
        ids = sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
        state = self.status()["state"]
        shown = ", ".join(ids[:5]) + (" …" if len(ids) > 5 else "")
        return f"it is {state['name']}; {len(ids)} products differ ({shown or 'none'})"


def _essence(products: Mapping[str, Row]) -> dict[str, Row]:
    """Return the products without zeros and empty values, which some Centrals leave out."""
    return {i: {name: v for name, v in row.items() if v} for i, row in products.items()}
