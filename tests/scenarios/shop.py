"""A shop for scenarios: a real Central, real stores that follow it, all in one loop.

Knows: how a store is built, served, stopped and killed in process, and how a till calls it.
Refuses to know: what any scenario proves.
"""

from __future__ import annotations

import asyncio
import inspect
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import httpx
import orjson
from multidict import CIMultiDictProxy
from yarl import URL

from central_stub.switches import Switches
from store_cache.api.app import build_api
from store_cache.api.parts import StoreParts
from store_cache.api.server import ApiServer, serve
from store_cache.app.build import Environment, running
from store_cache.app.settings import Settings
from store_cache.central.connection import CONNECTIONS, IDLE_SECONDS
from store_cache.storage.directory import LocalDirectory
from tests.scenarios.chain import Central, Row, product
from tests.scenarios.clock import Clock

KEYS = {"X-API-Key": "till-secret"}
INVENTORY = "/v1/store/inventory"
STOP_SECONDS = 1.0
HELD_SECONDS = 6.0
"""A full sync has held after five seconds: the next one may then run at once (F6)."""

HURRY_SECONDS = 0.4
T = TypeVar("T")
PATIENCE = aiohttp.ClientTimeout(total=600.0)
"""Of the loop's clock, which may jump; what hangs is ended by the test's own limit."""

Condition = Callable[[], bool | Awaitable[bool]]


async def until(condition: Condition, *, within_seconds: float = 10.0) -> None:
    """Wait for what has no event to wait for, with a deadline in true time."""
    ends_at = time.monotonic() + within_seconds
    while not await _holds(condition):
        assert time.monotonic() < ends_at, f"not so within {within_seconds} s: {condition}"
        await asyncio.sleep(0.005)


async def _holds(condition: Condition) -> bool:
    held = condition()
    return await held if inspect.isawaitable(held) else held


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


class Line(httpx.AsyncHTTPTransport):
    """A process's way to Central; cut when the process is killed."""

    is_cut = False

    def __init__(self) -> None:
        limits = httpx.Limits(
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
        )
        super().__init__(verify=False, trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_cut:
            raise httpx.ConnectError("this process was killed")
        return await super().handle_async_request(request)


class Store:
    """One store; `settings` are those that differ from a quick one's."""

    def __init__(self, clock: Clock, central_url: str, data_dir: Path, **settings: Any) -> None:
        self.data_dir = data_dir
        self.disk: Callable[[Path], LocalDirectory] = LocalDirectory
        self._clock = clock
        self._settings: dict[str, Any] = {"central_api_url": central_url} | settings
        self._http = aiohttp.ClientSession(headers=KEYS, timeout=PATIENCE)
        self._life = AsyncExitStack()
        self._line = Line()
        self._parts: StoreParts | None = None
        self._server: ApiServer | None = None

    # -- its life --------------------------------------------------------------------------

    async def start(self, **settings: Any) -> None:
        """Start from what is in DATA_DIR. `settings` stay changed."""
        self._settings |= settings
        quick = quick_settings(data_dir=self.data_dir, **self._settings)
        async with AsyncExitStack() as life:
            folder = self.disk(self.data_dir)
            life.push_async_callback(folder.close)
            self._line = Line()
            world = Environment(folder, now=self._clock.now, transport=self._line)
            self._parts = await life.enter_async_context(running(quick, world))
            self._server = await _served(self._parts, quick)
            self._life = life.pop_all()

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(STOP_SECONDS)
        await self._life.aclose()

    async def kill(self) -> None:
        """As `kill -9` does: what is in the folder at this moment is all that the next start
        finds, and what was not sent to Central by now never is."""
        left = self.data_dir.with_name(f"{self.data_dir.name}-left")
        shutil.copytree(self.data_dir, left)
        self._line.is_cut = True
        self.data_dir = left
        server, self._server = self._server, None
        assert server is not None
        await server.stop(0.0)
        await self._life.aclose()

    async def close(self) -> None:
        await self.stop()
        await self._http.close()

    @property
    def is_ready(self) -> bool:
        """Whether there is a catalogue to read."""
        return self.parts.writer.catalogue is not None

    @property
    def parts(self) -> StoreParts:
        assert self._parts is not None
        return self._parts

    # -- calls of tills and of people ------------------------------------------------------

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        assert self._server is not None
        url = URL(f"http://127.0.0.1:{self._server.port}{path}", encoded=True)
        async with self._http.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, product_id: str, **headers: str) -> Answer:
        return await self.call("GET", path_of(product_id), headers=headers)

    async def row(self, product_id: str) -> Row | None:
        response = await self.get(product_id)
        return None if response.status == 404 else dict(checked(response))

    async def rows(self) -> dict[str, Row]:
        """Everything, walked page by page."""
        held: dict[str, Row] = {}
        place: dict[str, str] = {}
        while True:
            page = checked(await self.call("GET", INVENTORY, params={"limit": "200"} | place))
            held |= {row["productId"]: row for row in page["products"]}
            if not page["pagination"]["hasMore"]:
                return held
            place = {"after": page["products"][-1]["productId"]}

    async def update(self, product_id: str, delta: int, version: int, key: str) -> Answer:
        body = {"productId": product_id, "delta": delta, "version": version, "idempotencyKey": key}
        return await self.call("POST", f"{INVENTORY}/updates", json=body)

    async def adjust(self, product_id: str, delta: int, key: str) -> Answer:
        path = f"{path_of(product_id)}/inventory"
        headers = {"Idempotency-Key": key}
        return await self.call("PATCH", path, json={"quantityChange": delta}, headers=headers)

    async def force(self, **params: str) -> Answer:
        return await self.call("POST", "/v1/store/sync/force", params=params)

    async def status(self) -> dict[str, Any]:
        return dict(checked(await self.call("GET", "/v1/store/sync/status")))

    async def state(self) -> str:
        return str((await self.status())["state"]["name"])

    async def health(self) -> dict[str, Any]:
        return dict(checked(await self.call("GET", "/health")))

    async def reasons(self) -> list[str]:
        """Why each full sync of this process ran, the first one first."""
        runs = (await self.status())["fullSyncs"]
        return ["; ".join(run["reasons"]) for run in reversed(runs)]


@dataclass
class Shop:
    """A Central and the stores that follow it."""

    clock: Clock
    central: Central
    stores: list[Store]

    @property
    def store(self) -> Store:
        return self.stores[0]

    async def passes(self, seconds: float) -> None:
        """Let time pass, much faster than it does."""
        await self.clock.passes(seconds, self.store.health)

    async def hurried(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, done while time flies: whoever waits does not wait long."""
        task = asyncio.ensure_future(work)

        async def is_done() -> bool:
            await self.passes(HURRY_SECONDS)
            return task.done()

        await until(is_done, within_seconds=30)
        return task.result()

    async def is_in_step(self) -> bool:
        expected = essence(self.central.rows())
        return all(
            [store.is_ready and essence(await store.rows()) == expected for store in self.stores]
        )

    async def until_in_step(self, within_seconds: float = 10.0) -> None:
        """Wait until every store holds what Central holds, attribute by attribute."""
        try:
            await until(self.is_in_step, within_seconds=within_seconds)
        except AssertionError:
            expected = essence(self.central.rows())
            for store in self.stores:
                assert essence(await store.rows()) == expected, await store.status()
            raise

    async def until_live(self, state: str = "live") -> None:
        """Wait until every store follows the feed, and holds what Central holds."""
        await self.until_in_step()
        await until(lambda: self._are(state))

    async def _are(self, state: str) -> bool:
        return {state} == {await store.state() for store in self.stores}

    async def until_held(self) -> None:
        """Let the last full sync become old enough to be followed by another one at once."""
        await self.until_live()
        await self.passes(HELD_SECONDS)
        await self.until_live()


@asynccontextmanager
async def a_shop(
    folder: Path,
    *,
    products: Sequence[Row] = tuple(product(number) for number in range(20)),
    switches: Switches | None = None,
    store_ids: Sequence[str] = ("store-s1",),
    state: str = "live",
    seed: int = 7,
    **settings: Any,
) -> AsyncIterator[Shop]:
    """A Central that holds `products`, and a store for each id, in `state` and in step with it.
    Everything stops when the block ends."""
    async with AsyncExitStack() as life:
        clock = Clock()
        central = Central(folder / "central", switches or Switches(), clock, seed=seed)
        life.push_async_callback(central.close)
        await central.start()
        await central.create(*products)
        shop = Shop(clock, central, [])
        for store_id in store_ids:
            store = Store(clock, central.url, folder / store_id, store_id=store_id, **settings)
            life.push_async_callback(store.close)
            await store.start()
            shop.stores.append(store)
        await shop.until_live(state)
        yield shop


def quick_settings(**settings: Any) -> Settings:
    quick: dict[str, Any] = {
        "environment": "development",
        "host": "127.0.0.1",
        "port": 0,
        "api_keys": "till-secret",
        "sync_interval_seconds": 1,
        "event_wait_timeout_seconds": 1,
        "hole_grace_seconds": 0.3,
        "write_timeout_seconds": 2,
        "sync_interval_minutes": 1,
    }
    return Settings(_env_file=None, **(quick | settings))


async def _served(parts: StoreParts, settings: Settings) -> ApiServer:
    api = build_api(
        parts,
        store_id=settings.store_id,
        keys=[key.get_secret_value() for key in settings.api_keys],
        admin_keys=[],
        cors_origins=(),
    )
    return await serve(api, host=settings.host, port=settings.port)


def path_of(product_id: str) -> str:
    return f"{INVENTORY}/{quote(product_id, safe='')}"


def checked(response: Answer) -> Any:
    assert response.status < 300, (response.status, response.body)
    return response.json


def essence(rows: dict[str, Row]) -> dict[str, Row]:
    """Rows without their zeros and falses, which some Centrals leave out."""
    return {i: {n: v for n, v in row.items() if v or v == ""} for i, row in rows.items()}
