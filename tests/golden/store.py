"""The whole store in virtual time, with its port: no process, no socket, no wait.

Knows: how the store is put together for a recording, and how a till calls it, in bytes.
Refuses to know: what is recorded.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import orjson
from aiohttp import web

from store_cache.api.app import build_api
from store_cache.api.parts import StoreParts
from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.settings import Settings
from store_cache.storage.directory import Directory
from tests.golden.central import Central
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.http import Connection, Reply

NOON = 1_772_366_400.0
"""2026-03-01T12:00:00Z"""

TILL_KEY = "till-secret"
ADMIN_KEY = "office-secret"
INVENTORY = "/v1/store/inventory"
STATUS = "/v1/store/sync/status"
STATS = "/v1/store/cache/stats"
FORCE = "/v1/store/sync/force"
REQUEST_ID = "golden"
PATIENCE_SECONDS = 30.0

Headers = Sequence[tuple[str, str]]
T = TypeVar("T")


class Call(NamedTuple):
    """A request as a till sends it."""

    method: str
    target: str
    body: bytes = b""
    headers: Headers = ()


def get(target: str, key: str = TILL_KEY, **headers: str) -> Call:
    named = [(name.replace("_", "-"), text) for name, text in headers.items()]
    return Call("GET", target, b"", [("X-API-Key", key), *named])


def post(target: str, value: Any, *headers: tuple[str, str], method: str = "POST") -> Call:
    usual = [("X-API-Key", TILL_KEY), ("Content-Type", "application/json")]
    return Call(method, target, orjson.dumps(value), [*usual, *headers])


def sale(product_id: str, delta: int, version: int, key: str, **more: str) -> Call:
    """A write that names its version."""
    body = {"productId": product_id, "delta": delta, "version": version, "idempotencyKey": key}
    return post(f"{INVENTORY}/updates", body | more)


def adjustment(product_id: str, delta: int, key: str) -> Call:
    """A write that names none."""
    target = f"{path_of(product_id)}/inventory"
    return post(target, {"quantityChange": delta}, ("Idempotency-Key", key), method="PATCH")


def batch(*updates: tuple[str, int, int, str]) -> Call:
    names = ("productId", "delta", "version", "idempotencyKey")
    values = [dict(zip(names, update, strict=True)) for update in updates]
    return post(f"{INVENTORY}/batch-updates", {"updates": values})


def force() -> Call:
    return Call("POST", FORCE, b"", [("X-API-Key", ADMIN_KEY)])


def path_of(product_id: str) -> str:
    return f"{INVENTORY}/{quote(product_id, safe='')}"


class Store:
    """A store that runs. `folder` is its DATA_DIR, in memory."""

    def __init__(self, folder: FaultyDirectory, clock: Clock, port: int) -> None:
        self.folder = folder
        self.clock = clock
        self._port = port

    async def call(self, call: Call) -> Reply:
        """The answer to a request on a connection of its own."""
        connection = await Connection.open(self._port)
        headers = [*call.headers, ("X-Request-ID", REQUEST_ID)]
        try:
            return await connection.send(
                call.method,
                call.target,
                headers=headers,
                body=call.body,
                within_seconds=PATIENCE_SECONDS,
            )
        finally:
            connection.close()

    async def said(self, calls: Mapping[str, Call]) -> dict[str, Any]:
        """What is kept of the answers to these calls, made one after the other."""
        return {name: kept(await self.call(call)) for name, call in calls.items()}


class Clock:
    """The shop's clock: `began` unix seconds, and the loop's. `is_broken`: it cannot be read."""

    def __init__(self, began: float) -> None:
        self.is_broken = False
        self._began = began

    def now(self) -> float:
        if self.is_broken:
            raise RuntimeError("the clock is broken")
        return self._began + asyncio.get_running_loop().time()


@asynccontextmanager
async def a_store(
    central: Central,
    files: Mapping[str, bytes] | None = None,
    *,
    began: float = NOON,
    **settings: Any,
) -> AsyncIterator[Store]:
    """A store that follows `central` from what `files` hold, until the block ends."""
    folder = FaultyDirectory(dict(files or {}))
    clock = Clock(began)
    told = settings_of(**settings)
    async with served(told, folder, clock, central) as port:
        yield Store(folder, clock, port)


@asynccontextmanager
async def served(
    settings: Settings, folder: Directory, clock: Clock, central: Central
) -> AsyncIterator[int]:
    world = Environment(folder, now=clock.now, random=lambda: 0.5, transport=central)
    async with running(settings, world) as parts:
        server = await serve(api_of(parts), host="127.0.0.1", port=0)
        yield server.port
        await server.stop(1.0)


def api_of(parts: StoreParts) -> web.Application:
    return build_api(
        parts,
        store_id="store-s1",
        keys=[TILL_KEY],
        admin_keys=[ADMIN_KEY],
        cors_origins=(),
    )


def settings_of(**settings: Any) -> Settings:
    usual: dict[str, Any] = {
        "central_api_url": "http://central.test",
        "central_api_key": "central-secret",
        "api_keys": TILL_KEY,
        "admin_api_keys": ADMIN_KEY,
    }
    return Settings(_env_file=None, **(usual | settings))


# -- what is kept of an answer -----------------------------------------------------------------

VARYING = "*"
WEAK_TAG = re.compile(r'W/"[0-9a-f]{16}"')


def kept(answer: Reply) -> dict[str, Any]:
    """Status, headers and body, as they are compared."""
    return normalised(
        answer.status,
        {name.lower(): text for name, text in answer.headers.items()},
        _body(answer.body),
    )


def normalised(status: int, headers: dict[str, str], body: Any) -> dict[str, Any]:
    """Without what varies by nature: the true date, new request ids, the tags of pages, which
    each start makes anew, the memory of this process, the version of this program, and the next
    poll in the answer to a forced sync, which may come before or after it is set. Other times do
    not vary, since they are virtual; the length is the body's."""
    left = {name: headers[name] for name in sorted(headers.keys() - {"date", "content-length"})}
    if left.get("x-request-id") != REQUEST_ID:
        left["x-request-id"] = VARYING
    if "etag" in left:
        left["etag"] = WEAK_TAG.sub(f'W/"{VARYING}"', left["etag"])
    if isinstance(body, dict):
        _normalise_document(body)
    return {"status": status, "headers": left, "body": body}


def _normalise_document(body: dict[str, Any]) -> None:
    if "memoryUsage" in body:
        body["memoryUsage"]["allocated"] = VARYING
    if "service" in body:
        body["version"] = VARYING
    told = body.get("error", body).get("details", body)
    if isinstance(told.get("status"), dict):
        told["status"]["eventSync"]["nextPollTime"] = VARYING


def _body(content: bytes) -> Any:
    """The JSON, where it stands for the very bytes; else the text."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode()
    return value if orjson.dumps(value) == content else content.decode()
