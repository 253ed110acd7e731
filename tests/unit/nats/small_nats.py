"""NATS and Central of plain values, and a store that follows them in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import orjson

from store_cache.central.failures import CentralError, PositionGone
from store_cache.model.event import fingerprint
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.nats.connection import REPLY_SECONDS, FeedConnection, StreamInfo
from store_cache.nats.messages import page_of
from store_cache.nats.report import Report
from store_cache.nats.source import Central, NatsSource
from store_cache.sync.machine import advance, begin
from store_cache.sync.runner import as_outcome
from store_cache.sync.states import (
    ApplyEvents,
    Command,
    EventsApplied,
    EventsArrived,
    FetchEvents,
    FullSyncing,
    Interrupted,
    Outcome,
    Sleep,
    Slept,
    SyncSettings,
)

GENERATION = "g-1"
INTERVAL_SECONDS = 30.0


def now() -> float:
    return asyncio.get_running_loop().time()


def message(offset: int, history: str = "a") -> bytes:
    """The event at an offset, as Central sent it; `history` tells those of a restored Central."""
    return orjson.dumps(
        {
            "offset": offset,
            "eventType": "inventory_updated",
            "productId": "P-1",
            "version": offset + 1,
            "available": offset,
            "lastUpdated": f"2026-11-30T10:00:00.{history}",
        }
    )


def at(offset: int, history: str = "a") -> Position:
    before = fingerprint(orjson.loads(message(offset - 1, history))) if offset else None
    return Position(GENERATION, offset, before)


class SmallCentral:
    """`log` is what it holds, from the offset `first` on."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.first = 0
        self.asked: list[int] = []
        self.failure: CentralError | None = None

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        self.asked.append(offset)
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        if offset < self.first:
            raise PositionGone(f"the log begins at {self.first}")
        there = self.log[offset : offset + limit]
        page = await page_of(there, offset=offset, generation=GENERATION, relayed_at=0.0)
        return replace(page, next_offset=min(offset + len(there), len(self.log)), relayed_at=None)

    def sell(self, count: int = 1, history: str = "a") -> None:
        self.log += [message(len(self.log) + n, history) for n in range(count)]

    def restore(self, head: int, *, sold: int) -> None:
        """Come back from a backup that ends before `head`, and sell."""
        del self.log[head:]
        self.sell(sold, "b")


@dataclass
class Consumer:
    next_sequence: int
    inbox: str = ""
    wanted: int = 0


@dataclass
class Stream:
    """`messages` by sequence; `first` is a sequence."""

    created: str
    first: int
    messages: list[bytes] = field(default_factory=list)
    consumers: dict[str, Consumer] = field(default_factory=dict)


class SmallNats:
    """A server with one stream; stands for the client and the connection, too.

    `create_seconds`: how long the server takes to create a consumer.
    """

    def __init__(self, central: SmallCentral) -> None:
        self._central = central
        self._inboxes: dict[str, Callable[[Any], Any]] = {}
        self._streams = 0
        self.create_seconds = 0.01
        self.is_closed = False
        self.consumers_created = 0
        self.looks = 0
        self.current = self._new(0)
        # as the connection
        self.api_prefix = "$JS.API"
        self.server = "nats"
        self.problem = ""
        self.client: SmallNats | None = self
        self.report: Report | None = None
        self.stream: StreamInfo | None = None
        self.on_news: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.look_again()

    def _new(self, first: int) -> Stream:
        self._streams += 1
        return Stream(f"day {self._streams}", first + 1)

    # -- the publisher ---------------------------------------------------------------------

    def publish(self, *, gaps: tuple[int, ...] = ()) -> None:
        """Copy what Central has, and report it."""
        stream = self.current
        for offset in range(stream.first - 1 + len(stream.messages), len(self._central.log)):
            stream.messages.append(b"" if offset in gaps else self._central.log[offset])
        for consumer in stream.consumers.values():
            self._deliver(stream, consumer)
        self.say(len(self._central.log) - 1)

    def say(self, head: int) -> None:
        self.report = Report("FEED_1", GENERATION, self.current.created, head, now(), None, now())
        for consumer in self.current.consumers.values():
            self._tell(consumer.inbox, {"Status": "100", "Description": "Idle Heartbeat"})
        self.on_news()

    def make_anew(self, *, is_noticed: bool = True) -> None:
        """Delete the stream and create it again. The store looks at once what it is, or later."""
        gone, self.current = self.current, self._new(self._central.first)
        for consumer in gone.consumers.values():
            self._tell(consumer.inbox, {"Status": "409", "Description": "Consumer Deleted"})
        if is_noticed:
            self.look_again()

    # -- the connection --------------------------------------------------------------------

    @property
    def true_at(self) -> float | None:
        return None if self.report is None else self.report.at

    @property
    def age(self) -> float | None:
        return None if self.report is None else now() - self.report.at

    def look_again(self) -> None:
        self.looks += 1
        self.stream = StreamInfo("FEED_1", self.current.created, self.current.first - 1)

    # -- the client ------------------------------------------------------------------------

    def new_inbox(self) -> str:
        return f"_INBOX.store.{len(self._inboxes)}-{self.consumers_created}"

    def jetstream(self, **_: Any) -> SmallNats:
        return self

    async def add_consumer(self, _: str, config: Any) -> SimpleNamespace:
        async with asyncio.timeout(REPLY_SECONDS):
            await asyncio.sleep(self.create_seconds)
        self.consumers_created += 1
        sequence = max(config.opt_start_seq, self.current.first)
        self.current.consumers[config.name] = Consumer(sequence)
        return SimpleNamespace(name=config.name)

    async def subscribe(self, inbox: str, cb: Callable[[Any], Any]) -> SimpleNamespace:
        await asyncio.sleep(0.001)
        self._inboxes[inbox] = cb

        async def unsubscribe() -> None:
            del self._inboxes[inbox]

        return SimpleNamespace(unsubscribe=unsubscribe)

    @property
    def subscriptions(self) -> int:
        return len(self._inboxes)

    async def publish_request(self, subject: str, data: bytes, reply: str) -> None:
        consumer = self.current.consumers.get(subject.rpartition(".")[2])
        if consumer is not None:
            consumer.inbox = reply
            consumer.wanted += orjson.loads(data)["batch"]
            self._deliver(self.current, consumer)

    def _deliver(self, stream: Stream, consumer: Consumer) -> None:
        while consumer.wanted and consumer.next_sequence - stream.first < len(stream.messages):
            data = stream.messages[consumer.next_sequence - stream.first]
            self._tell(consumer.inbox, None, data, consumer.next_sequence)
            consumer.next_sequence += 1
            consumer.wanted -= 1

    def _tell(
        self, inbox: str, headers: dict[str, str] | None, data: bytes = b"", sequence: int = 0
    ) -> None:
        metadata = SimpleNamespace(sequence=SimpleNamespace(stream=sequence))
        receive = self._inboxes.get(inbox)
        if receive is not None:
            message = SimpleNamespace(headers=headers, data=data, metadata=metadata)
            asyncio.get_running_loop().create_task(receive(message))


class Client:
    """nats-py's `publish` has the name of the publisher's."""

    def __init__(self, server: SmallNats) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def publish(self, subject: str, data: bytes, *, reply: str) -> None:
        await self._server.publish_request(subject, data, reply)


class SmallStore:
    """The sync at `position`, until it needs a full sync (`lost` says why)."""

    def __init__(self, central: SmallCentral, server: SmallNats, position: Position) -> None:
        server.client = cast("Any", Client(server))
        self.source = NatsSource(
            cast("Central", central),
            cast("FeedConnection", server),
            interval_seconds=INTERVAL_SECONDS,
            uptime=now,
            random=lambda: 0.5,
        )
        self.source.on_mode = self._follow
        self.state = begin(SyncSettings(interval_seconds=INTERVAL_SECONDS), position)
        self.applied: list[int] = []
        self._wake = asyncio.Event()

    @property
    def offset(self) -> int:
        assert self.state.position is not None
        return self.state.position.offset

    @property
    def lost(self) -> str:
        return "" if self.state.lost is None else self.state.lost.reason

    @property
    def in_sync_at(self) -> float:
        assert self.state.in_sync_at is not None
        return self.state.in_sync_at

    def _follow(self, continuously: bool) -> None:
        settings = replace(self.state.settings, continuous=continuously)
        self.state = replace(self.state, settings=settings)
        if continuously:
            self._wake.set()

    async def run(self) -> None:
        outcome: Outcome = Interrupted()
        while True:
            self.state, command = advance(self.state, outcome, now())
            if isinstance(self.state.phase, FullSyncing) or self.state.lost is not None:
                return
            outcome = await self._perform(command)

    async def _perform(self, command: Command) -> Outcome:
        match command:
            case Sleep(at_least, spread):
                self._wake.clear()
                try:
                    async with asyncio.timeout(at_least + spread / 2):
                        await self._wake.wait()
                except TimeoutError:
                    return Slept()
                return Interrupted()
            case FetchEvents(offset, limit, wait_seconds):
                asked_at = now()
                try:
                    page = await self.source.events(
                        offset=offset, limit=limit, wait_seconds=wait_seconds
                    )
                except CentralError as problem:
                    return as_outcome(problem)
                true_at = asked_at if page.relayed_at is None else page.relayed_at
                return EventsArrived(page, now() - true_at)
            case ApplyEvents(events):
                self.applied += [event.offset for event in events]
                return EventsApplied()
        raise AssertionError(command)
