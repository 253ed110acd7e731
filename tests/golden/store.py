"""The whole store in virtual time, with its port, and calls to it as bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson

from store_cache.app.build import Environment, running
from store_cache.storage.directory import Directory
from tests.golden.central import ScriptedCentral
from tests.harness.clients import INVENTORY, STORE_ADMIN_KEY, TILL_KEY, path_of
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.http import HEAD_END, Connection, Reply, head_of
from tests.harness.store import served, settings_of

NOON = 1_772_366_400.0
"""2026-03-01T12:00:00Z"""

STATUS = "/v1/store/sync/status"
STATS = "/v1/store/cache/stats"
FORCE = "/v1/store/sync/force"
REQUEST_ID = "golden"
PATIENCE_SECONDS = 30.0

Headers = Sequence[tuple[str, str]]


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
    return Call("POST", FORCE, b"", [("X-API-Key", STORE_ADMIN_KEY)])


def settlement(key: str) -> Call:
    """A person says that a write in doubt was not applied."""
    body = {"outcome": "not_applied", "reason": "counted"}
    call = post(f"/v1/store/writes/{key}/settle", body)
    return call._replace(headers=[("X-API-Key", STORE_ADMIN_KEY), *call.headers[1:]])


def decision(path: str, method: str = "POST", **body: str) -> Call:
    """What a person decides about an entry of the outbox."""
    call = post(f"/v1/store/outbox/{path}", body, method=method)
    return call._replace(headers=[("X-API-Key", STORE_ADMIN_KEY), *call.headers[1:]])


class Store:
    """A store that runs. `directory` is its DATA_DIR, in memory."""

    def __init__(self, directory: FaultyDirectory, clock: BreakableClock, port: int) -> None:
        self.directory = directory
        self.clock = clock
        self._port = port

    async def call(self, call: Call) -> Reply:
        """Send a request on a connection of its own; return the answer."""
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

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[None]:
        """Have an answer that goes on until the block ends."""
        connection = await Connection.open(self._port)
        connection.writer.write(head_of(call.method, call.target, call.headers, call.body))
        await connection.reader.readuntil(HEAD_END)
        try:
            yield
        finally:
            connection.close()

    async def answers(self, calls: Mapping[str, Call]) -> dict[str, Any]:
        """Make these calls one after the other; return what is recorded of the answers."""
        return {name: recorded(await self.call(call)) for name, call in calls.items()}


class BreakableClock(Clock):
    """`is_broken`: it cannot be read."""

    is_broken = False

    def now(self) -> float:
        if self.is_broken:
            raise RuntimeError("the clock is broken")
        return super().now()


@asynccontextmanager
async def a_store(
    central: ScriptedCentral,
    files: Mapping[str, bytes] | None = None,
    *,
    began: float = NOON,
    **settings: Any,
) -> AsyncIterator[Store]:
    """Run a store that follows `central` from what `files` hold, until the block ends."""
    directory, clock = FaultyDirectory(dict(files or {})), BreakableClock(began)
    async with a_served_store(central, directory, clock, **settings) as port:
        yield Store(directory, clock, port)


@asynccontextmanager
async def a_served_store(
    central: ScriptedCentral, directory: Directory, clock: Clock, **settings: Any
) -> AsyncIterator[int]:
    """Run a store, and serve its API; the port."""
    given = settings_of(central_api_key="central-secret", **settings)
    world = Environment(directory, now=clock.now, random=lambda: 0.5, transport=central)
    async with running(given, world) as parts, served(parts, given) as server:
        yield server.port


# -- what is recorded of an answer -------------------------------------------------------------

VARYING = "*"
WEAK_TAG = re.compile(r'W/"[0-9a-f]{16}"')


def recorded(answer: Reply) -> dict[str, Any]:
    """Return status, headers and body, as they are compared."""
    return normalised(
        answer.status,
        {name.lower(): text for name, text in answer.headers.items()},
        _body(answer.body),
    )


def normalised(status: int, headers: dict[str, str], body: Any) -> dict[str, Any]:
    """Replace what varies: the true date, new request ids, the tags of pages, which each start
    makes anew, the memory of this process, the version of this program, and the next poll in the
    answer to a forced sync, which may come before or after it is set. Other times are virtual, and
    do not vary. The length is that of the body."""
    left = {name: headers[name] for name in sorted(headers.keys() - {"date", "content-length"})}
    if left.get("x-request-id") != REQUEST_ID:
        left["x-request-id"] = VARYING
    if "etag" in left:
        left["etag"] = WEAK_TAG.sub(f'W/"{VARYING}"', left["etag"])
    if isinstance(body, dict):
        normalise_document(body)
    return {"status": status, "headers": left, "body": body}


def normalise_document(body: dict[str, Any]) -> None:
    if "memoryUsage" in body:
        body["memoryUsage"]["allocated"] = VARYING
    if "service" in body:
        body["version"] = VARYING
    told = body.get("error", body).get("details", body)
    if isinstance(told.get("status"), dict):
        told["status"]["eventSync"]["nextPollTime"] = VARYING


def _body(content: bytes) -> Any:
    """Return the JSON if it encodes to these very bytes; else the text."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode()
    return value if orjson.dumps(value) == content else content.decode()
