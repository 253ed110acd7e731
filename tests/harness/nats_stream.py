"""A stream of JetStream in memory, and what the feed's reader and source use of nats-py, so that
their rules can be tested in virtual time. What a real server does is tested in `tests/nats`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import nats.js.errors
import orjson
from nats.aio.msg import Msg

from store_cache.nats.connection import StreamInfo
from store_cache.nats.report import Report
from tests.harness.hostile_central import event

STREAM = "FEED_1"
REPLY_SECONDS = 0.01
"""How long the server takes to make a consumer."""

_NANOSECONDS = 1_000_000_000

Receive = Callable[[Msg], Awaitable[None]]


@dataclass
class _Pull:
    """`wanted`: messages asked for and not sent yet."""

    receive: Receive
    next_sequence: int
    wanted: int = 0


class MemoryStream:
    """A client of NATS, and the server with one stream. The offset of a message is its sequence
    less one.

    `is_silent`: the server sends nothing. `is_gone`: there is no such stream.
    """

    def __init__(self) -> None:
        self.messages: dict[int, bytes] = {}
        self.is_silent = False
        self.is_gone = False
        self.is_closed = False
        self.consumers = 0
        self.asked: list[int] = []
        """How many messages each request asked for."""
        self._starts: dict[str, int] = {}
        self._receivers: dict[str, Receive] = {}
        self._pulls: dict[str, _Pull] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the server ------------------------------------------------------------------------

    def publish_events(self, *offsets: int) -> None:
        for offset in offsets:
            self.put(offset, orjson.dumps(event(offset)))

    def put(self, offset: int, message: bytes) -> None:
        self.messages[offset + 1] = message
        self._deliver()

    def send_status(self, status: str, description: str = "", **headers: str) -> None:
        """Send this to all that wait for messages."""
        for pull in [*self._pulls.values()]:
            told = {"Status": status, "Description": description} | headers
            self._later(pull.receive, Msg(_client=None, headers=told))  # type: ignore[arg-type]

    def forget_requests(self) -> None:
        """As a server does when the connection breaks."""
        self._pulls.clear()

    def _deliver(self) -> None:
        if self.is_silent:
            return
        for pull in self._pulls.values():
            for sequence in sorted(each for each in self.messages if each >= pull.next_sequence):
                if not pull.wanted:
                    break
                pull.wanted -= 1
                pull.next_sequence = sequence + 1
                reply = f"$JS.ACK.{STREAM}.c.1.{sequence}.1.1.0"
                data = self.messages[sequence]
                self._later(pull.receive, Msg(_client=None, reply=reply, data=data))  # type: ignore[arg-type]

    def _later(self, receive: Receive, message: Msg) -> None:
        async def call() -> None:
            await receive(message)

        task = asyncio.get_running_loop().create_task(call())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def beat(self, inbox: str, seconds: float) -> None:
        while inbox in self._pulls:
            await asyncio.sleep(seconds)
            if not self.is_silent and inbox in self._pulls and self._pulls[inbox].wanted:
                self._later(
                    self._pulls[inbox].receive,
                    Msg(_client=None, headers={"Status": "100"}),  # type: ignore[arg-type]
                )

    # -- what is used of nats-py -----------------------------------------------------------

    def new_inbox(self) -> str:
        self.consumers += 1
        return f"_INBOX.store.{self.consumers}"

    def jetstream(self, **_: Any) -> MemoryStream:
        return self

    async def add_consumer(self, stream: str, config: Any) -> Any:
        await asyncio.sleep(REPLY_SECONDS)
        if self.is_gone or stream != STREAM:
            raise nats.js.errors.NotFoundError(code=404, description="stream not found")
        assert config.ack_policy == "none"
        self._starts[config.name] = config.opt_start_seq
        return SimpleNamespace(name=config.name)

    async def subscribe(self, inbox: str, cb: Receive) -> Any:
        self._receivers[inbox] = cb

        async def unsubscribe() -> None:
            self._pulls.pop(inbox, None)

        return SimpleNamespace(unsubscribe=unsubscribe)

    async def publish(self, subject: str, data: bytes, *, reply: str) -> None:
        request = orjson.loads(data)
        self.asked.append(request["batch"])
        if reply not in self._pulls:
            start = self._starts[subject.rpartition(".")[2]]
            self._pulls[reply] = _Pull(self._receivers[reply], start)
            seconds = request["idle_heartbeat"] / _NANOSECONDS
            task = asyncio.get_running_loop().create_task(self.beat(reply, seconds))
            self._tasks.add(task)
        self._pulls[reply].wanted += request["batch"]
        self._deliver()

    async def end(self) -> None:
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass
class MemoryConnection:
    """`FeedConnection` without a network: a test says what is known."""

    uptime: Callable[[], float]
    client: Any = field(default_factory=MemoryStream)
    report: Report | None = None
    stream: StreamInfo | None = None
    problem: str = ""
    server: str = "nats:4222"
    api_prefix: str = "$JS.API"
    on_news: Callable[[], None] = lambda: None
    on_lost: Callable[[], None] = lambda: None
    looks: int = 0
    """How often it was asked to look again."""

    @property
    def true_at(self) -> float | None:
        return None if self.report is None else self.report.at

    @property
    def age(self) -> float | None:
        return None if self.report is None else self.uptime() - self.report.at

    def look_again(self) -> None:
        self.looks += 1

    async def run(self) -> None:
        await asyncio.Event().wait()

    def tell(
        self,
        head: int,
        *,
        age: float = 0.0,
        generation: str = "g-1",
        created: str = "today",
        first: int = 0,
        since: float | None = None,
    ) -> None:
        """A report comes; the stream is the one that it means."""
        now = self.uptime()
        self.report = Report(STREAM, generation, created, head, now - age, since, now)
        self.stream = StreamInfo(STREAM, created, first)
        self.on_news()

    def lose(self) -> None:
        """The connection breaks."""
        self.client = None
        self.stream = None
        self.on_lost()
