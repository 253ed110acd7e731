"""A real server of a small store, on a free loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from store_cache.api.app import build_api
from store_cache.api.auth import Caller, KeyRing
from store_cache.api.limits import ConnectionLimits
from store_cache.api.proxies import TrustedProxies
from store_cache.api.request_rates import RequestRates
from store_cache.api.server import ApiServer, serve
from store_cache.api.tls import ServerTls
from tests.harness.clients import TILL_KEY
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import DEADLINE_SECONDS, Connection, Headers, Reply, head_of

TILL = {"X-API-Key": TILL_KEY}
ADMIN = {"X-API-Key": "office-secret"}


@dataclass
class Store:
    """A store whose API is served."""

    fake: FakeStore
    app: web.Application
    running: ApiServer
    lines: list[Connection] = field(default_factory=list)

    async def line(self, **options: Any) -> Connection:
        self.lines.append(await Connection.open(self.running.port, **options))
        return self.lines[-1]

    async def send(
        self, method: str, target: str, *, headers: Headers = (), body: bytes = b""
    ) -> Reply:
        """Send one request, exactly as given, on a new connection."""
        line = await self.line()
        reply = await line.send(method, target, headers=headers, body=body)
        line.close()
        return reply

    async def get(self, target: str, **headers: str) -> Reply:
        """Read as a till; `if_none_match=…` becomes the header If-None-Match."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("GET", target, headers=TILL | named)

    async def post(
        self, target: str, value: Any, headers: Mapping[str, str] = TILL, method: str = "POST"
    ) -> Reply:
        """Send a JSON body as a till."""
        sent = {"Content-Type": "application/json"} | dict(headers)
        return await self.send(method, target, headers=sent, body=orjson.dumps(value))

    async def begin_post(self, headers: Mapping[str, str], body: bytes = b"") -> Connection:
        """Send the head of an update and these bytes of its body on a new connection."""
        line = await self.line()
        sent = {"Content-Type": "application/json"} | dict(headers)
        line.writer.write(head_of("POST", "/v1/store/inventory/updates", sent, b"") + body)
        return line

    async def begin_write(self) -> Connection:
        """Send a write on a new connection, and wait until the store has it."""
        body = b'{"productId":"PROD-001","delta":-2,"version":6,"idempotencyKey":"k"}'
        line = await self.begin_post(TILL | {"Content-Length": str(len(body))}, body)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.fake.arrived.wait()
        return line


def api_of(
    fake: FakeStore,
    *,
    keys: Sequence[str] = (TILL_KEY,),
    admin_keys: Sequence[str] = ("office-secret",),
    named: Sequence[Caller] | None = None,
    reads_per_second: int = 0,
    writes_per_second: int = 0,
    proxies: Sequence[str] = (),
    **settings: Any,
) -> web.Application:
    """The API of a fake store, with these keys, limits and proxies, and these settings of
    `build_api` instead of the usual ones."""
    ring = KeyRing(keys=keys, admin_keys=admin_keys, named=named)
    usual: dict[str, Any] = {
        "store_id": "store-s1",
        "keys": ring,
        "cors_origins": [],
        "rates": RequestRates(reads=reads_per_second, writes=writes_per_second),
        "proxies": TrustedProxies.parse(proxies),
    }
    return build_api(fake.parts, **(usual | settings))


Opened = Callable[..., Awaitable[Store]]


@asynccontextmanager
async def stores() -> AsyncIterator[Opened]:
    """Start stores with settings of the test; all are stopped afterwards."""
    opened: list[Store] = []

    async def opening(
        fake: FakeStore | None = None,
        *,
        limits: ConnectionLimits | None = None,
        tls: ServerTls | None = None,
        **settings: Any,
    ) -> Store:
        stocked = fake or FakeStore([product("PROD-001"), product("PROD-002"), product("PROD-003")])
        app = api_of(stocked, **settings)
        running = await serve(app, host="127.0.0.1", port=0, limits=limits, tls=tls)
        opened.append(Store(stocked, app, running))
        return opened[-1]

    yield opening
    for store in opened:
        for line in store.lines:
            line.close()
        await store.running.stop(grace_seconds=1.0)


@pytest.fixture
async def open_store() -> AsyncIterator[Opened]:
    async with stores() as opening:
        yield opening


@pytest.fixture
async def store(open_store: Opened) -> Store:
    """Three products, a till's key and an admin's."""
    return await open_store()
