"""The network to Central, as bad as networks are: a transport in front of a Central in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import Context
from typing import Any

import httpx
import orjson

from central_stub.wire import Reply, Request
from tests.simulation.loop import PROCESS, pause
from tests.simulation.plan import Plan

FATES = (
    "refuse",
    "silence",
    "late",
    "drop_answer",
    "reset_before",
    "reset_after",
    "duplicate",
    "drip",
    "cut",
    "garbage",
    "server_error",
    "limited",
    "denied",
)
LATEST_SECONDS = 15.0
SLOWEST_SECONDS = 3.0
LIMITED = 429
"""Says that nothing was done. If a copy of such a request arrived later, that would be wrong, and
nothing could tell (point 7 of the known limits, docs/reliability.md)."""

EVENTS = "/v1/inventory/events"
HOLD_TOLERANCE = 0.01
"""How much of `wait` too soon a held poll may end (docs/sync.md)."""

SYNCING = ("/v1/inventory?", "/v1/inventory/events?")
"""How requests for the catalogue's pages and for the feed begin."""

STATUSES = (500, 502, 503, 504, 404, 302)
GARBAGE = (b"", b"null", b"{", b"<html>\n<h1>Bad gateway</h1>", b'{"ok":true}', b"\xff\x00")

Answering = Callable[[Request, str | None], Awaitable[Reply]]
"""Takes a request, and the tenant that it names."""


class DripBody(httpx.AsyncByteStream):
    """A body that comes byte by byte, one a second."""

    def __init__(self, body: bytes, is_broken: Callable[[], bool]) -> None:
        self._body = body
        self._is_broken = is_broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for place in range(len(self._body)):
            await pause(1.0)
            if self._is_broken():
                raise httpx.ReadError("connection reset")
            yield self._body[place : place + 1]


class WholeBody(httpx.AsyncByteStream):
    """A body that comes in one piece; not a generator, which asyncio would keep track of."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._pieces = [body]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


class CutBody(httpx.AsyncByteStream):
    """A body that ends early, with the connection."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message")


class SimulatedNetwork(httpx.AsyncBaseTransport):
    """`answering` is Central. `is_away`: no connection can be made until one for the feed or the
    catalogue was refused. `told_early`: the processes that got an empty answer to a poll before its
    `wait` was over, since an exchange failed last. Central's side of every exchange runs in the
    context `world`, which outlives the store's processes."""

    def __init__(
        self,
        plan: Plan,
        answering: Answering,
        world: Context,
        note: Callable[[str], None],
    ) -> None:
        self.is_down = False
        self.is_away = False
        self.exchanges = 0
        self.told_early: set[int] = set()
        self._breaks = 0
        self.times_forgotten: Callable[[], int] = lambda: 0
        self._plan = plan
        self._chance = plan.chance("network")
        self._fates = [fate for fate in FATES if plan.has(fate)]
        self._answering = answering
        self._world = world
        self._note = note
        self._waiting: dict[int, asyncio.Future[httpx.Response]] = {}

    # -- the store's side ------------------------------------------------------------------

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fate = self._fate()
        timeouts = request.extensions["timeout"]
        if self.is_down or self.is_away or fate == "refuse":
            await self._refuse(request.url.raw_path.decode(), timeouts["connect"])
        headers = dict(request.headers.raw)
        asked = Request(
            method=request.method,
            target=request.url.raw_path.decode(),
            api_key=headers[b"X-API-Key"].decode(),
            body=await request.aread(),
            address="store",
        )
        named = headers[b"X-Tenant-ID"].decode() if b"X-Tenant-ID" in headers else None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[httpx.Response] = loop.create_future()
        self.exchanges += 1
        number = self.exchanges
        self._waiting[number] = future
        carrying = self._carry(asked, named, fate, future)
        loop.create_task(carrying, context=self._world)  # noqa: RUF006 - the loop keeps all tasks
        timer = loop.call_later(timeouts["read"], _fail, future, httpx.ReadTimeout("silence"))
        sent_at, process = loop.time(), PROCESS.get()
        try:
            response = await future
        except BaseException:
            self.told_early.discard(process)
            raise
        finally:
            timer.cancel()
            self._waiting.pop(number, None)
        match _held(asked, response):
            case None:
                self.told_early.discard(process)
            case wait_seconds if loop.time() - sent_at < wait_seconds * (1 - HOLD_TOLERANCE):
                self.told_early.add(process)
        return response

    async def _refuse(self, target: str, connect_seconds: float) -> None:
        is_noticed = target.startswith(SYNCING) and "bucket=" not in target
        self.is_away = self.is_away and not is_noticed
        if self._chance.random() < 0.3:
            await pause(connect_seconds)
            raise httpx.ConnectTimeout("no answer to SYN")
        await pause(self._latency())
        raise httpx.ConnectError("connection refused")

    def go_away(self) -> None:
        """Break every connection, and make no other until the sync has noticed."""
        self.is_away = True
        self.break_connections()

    def break_connections(self) -> None:
        """Break every connection."""
        self._breaks += 1
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(httpx.ReadError("connection reset"))

    # -- on the way ------------------------------------------------------------------------

    def _fate(self) -> str:
        for fate in self._fates:
            if self._plan.strikes(fate, self._chance):
                self._note(fate)
                return fate
        return ""

    def _latency(self) -> float:
        if self._plan.strikes("slow", self._chance):
            self._note("slow")
            return self._chance.uniform(0.1, SLOWEST_SECONDS)
        return self._chance.choice((0.001, 0.005, 0.02))

    async def _carry(
        self, asked: Request, named: str | None, fate: str, future: asyncio.Future[httpx.Response]
    ) -> None:
        await pause(self._latency())
        if fate == "late":
            await self._arrive_later(asked, named, 0.5)
            return
        if fate == "silence":
            return
        if fate == "reset_before":
            _fail(future, self._reset())
            return
        if fate in ("limited", "denied"):
            _answer(future, self._refusal(fate))
            return
        if fate == "server_error" and self._chance.random() < 0.5:
            _answer(future, self._error())
            return
        reply = await self._answering(asked, named)
        if reply.status in (410, LIMITED):
            self._note(str(reply.status))
        await pause(self._latency())
        self._deliver(reply, fate, future)
        if fate == "duplicate" and reply.status != LIMITED:
            await self._arrive_later(asked, named, 0.0)

    async def _arrive_later(self, asked: Request, named: str | None, least_seconds: float) -> None:
        """Deliver a copy, unless Central has forgotten its keys meanwhile: that takes a day, and no
        network holds a copy so long."""
        forgotten = self.times_forgotten()
        await pause(self._chance.uniform(least_seconds, LATEST_SECONDS))
        if self.times_forgotten() == forgotten:
            await self._answering(asked, named)

    def _deliver(self, reply: Reply, fate: str, future: asyncio.Future[httpx.Response]) -> None:
        if fate == "drop_answer":
            return
        if fate == "reset_after":
            _fail(future, self._reset())
        elif fate == "server_error":
            _answer(future, self._error())
        else:
            _answer(future, self._response(reply, fate))

    def _response(self, reply: Reply, fate: str) -> httpx.Response:
        headers = {**reply.headers, "Content-Type": reply.content_type}
        body = reply.body
        if fate == "garbage":
            body = self._chance.choice((*GARBAGE, body[: len(body) // 2], body + b"}"))
            return _whole(self._chance.choice((200, reply.status)), {}, body)
        if fate == "drip":
            return httpx.Response(reply.status, headers=headers, stream=self._drip(body))
        if fate == "cut":
            kept = body[: self._chance.randint(0, max(len(body) - 1, 0))]
            length = {"Content-Length": str(len(body))}
            return httpx.Response(reply.status, headers=headers | length, stream=CutBody(kept))
        return _whole(reply.status, headers, body)

    def _drip(self, body: bytes) -> DripBody:
        breaks = self._breaks
        return DripBody(body, lambda: self._breaks != breaks)

    def _error(self) -> httpx.Response:
        status = self._chance.choice(STATUSES)
        headers = {"Retry-After": "1"} if self._chance.random() < 0.2 else {}
        bodies = (
            b"",
            b"<html>oops</html>",
            b'{"code":"internal_error","message":"m","details":[]}',
        )
        body = bodies[1] if status in (302, 404) else self._chance.choice(bodies)
        return _whole(status, headers, body)

    def _refusal(self, fate: str) -> httpx.Response:
        body = b'{"code":"refused","message":"m","details":[]}'
        if fate == "denied":
            return _whole(self._chance.choice((401, 403)), {}, body)
        headers = {"Retry-After": str(self._chance.randint(1, 3))}
        named = headers if self._chance.random() < 0.7 else {}
        return _whole(LIMITED, named, body)

    def _reset(self) -> Exception:
        kinds: tuple[Any, ...] = (httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)
        return self._chance.choice(kinds)("connection reset")  # type: ignore[no-any-return]


def _held(asked: Request, response: httpx.Response) -> int | None:
    """Return the `wait` of a poll whose answer says that nothing comes after its offset, 0 for
    another good answer, None for one that the store may count as a failure."""
    if response.status_code != 200 or not isinstance(response.stream, WholeBody):
        return None
    try:
        page = orjson.loads(response.stream.body)
        if asked.raw_path != EVENTS:
            return 0
        is_empty = not page["events"] and page["nextOffset"] == int(asked.query["offset"])
        return int(asked.query["wait"]) if is_empty else 0
    except (ValueError, TypeError, KeyError):
        return None


def _whole(status: int, headers: Mapping[str, str], body: bytes) -> httpx.Response:
    """Return a response with a stream, as a network does: httpx reads a `content` at once."""
    length = {"Content-Length": str(len(body))} if body else {}
    return httpx.Response(status, headers={**headers, **length}, stream=WholeBody(body))


def _answer(future: asyncio.Future[httpx.Response], response: httpx.Response) -> None:
    if not future.done():
        future.set_result(response)


def _fail(future: asyncio.Future[httpx.Response], problem: Exception) -> None:
    if not future.done():
        future.set_exception(problem)
