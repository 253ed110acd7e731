"""A model of a Central of limited capacity, for ten thousand stores in one process.

It has a queue that is served in order, refuses requests when overloaded, holds polls, has a feed of
numbered events, and may stand behind a proxy that sends identical polls once. There is no HTTP and
no JSON.

The queue is one number, the time until which Central is busy. A request whose store has given up is
served all the same: that is how an overloaded server gets nothing done.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from store_cache.central.failures import ExchangeBroken, PositionGone, Unreachable
from store_cache.model.event import AnyEvent, read_event
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.product import Rows

ROUND_TRIP_SECONDS = 0.02
GENERATION = "g-1"
MOST_EVENTS = 1000
MOST_ROWS = 1000

PAGE_COST = 20.0
"""A page of 1,000 products compared with a poll, roughly as `central_stub` needs."""

HELD_COST = 0.5
"""Of a held poll: to take it, and again to answer it."""

REFUSAL_COST = 0.1
"""A 429 or 503 is cheap, not free."""


class Overload(StrEnum):
    """What Central does with a request that would wait too long."""

    QUEUE = "queues everything"
    UNAVAILABLE = "503"
    LIMIT = "429"
    LIMIT_NAMED = "429, Retry-After: 5"


@dataclass(frozen=True, slots=True)
class Capacity:
    """`requests_per_second` of the cheapest kind; a request that would wait longer than
    `longest_queue_seconds` is refused as `overload` says."""

    requests_per_second: float
    longest_queue_seconds: float = 2.0
    overload: Overload = Overload.UNAVAILABLE


@dataclass
class Tally:
    """Requests at Central, by tenths of a second of the loop's clock."""

    arrived: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    longest_queue_seconds: float = 0.0


class CentralModel:
    """Must be created in a running loop. `products` and `head` may be changed at any time."""

    def __init__(
        self, capacity: Capacity, *, products: int = 100_000, collapses: bool = False
    ) -> None:
        self.capacity = capacity
        self.products = products
        self.head = 1000
        self.oldest = 1
        self.is_up = True
        self.held_polls = 0
        self.tally = Tally()
        self._collapses = collapses
        self._shared: dict[tuple[int, int, int], asyncio.Future[EventPage]] = {}
        self._busy_until = 0.0
        self._starts = 0
        self._news = asyncio.Event()

    # -- what happens to it ----------------------------------------------------------------

    def go_down(self) -> None:
        """Break every connection."""
        self.is_up = False
        self._starts += 1
        self._wake()

    def come_back(self) -> None:
        """Serve again, with an empty queue and an empty tally."""
        self.is_up = True
        self._busy_until = _now()
        self.tally = Tally()

    def lose_log(self) -> None:
        """Restart with an empty log: every position is gone (410)."""
        self.head += 1000
        self.oldest = self.head

    def publish(self, events: int = 1) -> None:
        self.head += events
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # -- requests --------------------------------------------------------------------------

    async def events(self, offset: int, limit: int, wait_seconds: float) -> EventPage:
        """Raises Unreachable, ExchangeBroken, TooMany, PositionGone."""
        if not self._collapses or not self.is_up:
            return await self._poll(offset, limit, wait_seconds)
        key = (offset, limit, round(wait_seconds))
        shared = self._shared.get(key)
        if shared is None:
            shared = asyncio.ensure_future(self._poll(offset, limit, wait_seconds))
            self._shared[key] = shared
            shared.add_done_callback(lambda _: self._shared.pop(key))
        return await asyncio.shield(shared)

    async def page(self, request: PageRequest) -> CataloguePage:
        """Rows are counted, not made. Raises Unreachable, ExchangeBroken, TooMany."""
        await self._serve("page", PAGE_COST * min(request.limit, MOST_ROWS) / MOST_ROWS)
        more = request.offset + min(request.limit, MOST_ROWS) < self.products
        return CataloguePage(
            Rows.of(()),
            total=self.products,
            has_more=more,
            event_offset=self.head,
            generation=GENERATION,
        )

    async def write(self) -> None:
        """Apply a write, which adds one event. Raises Unreachable, ExchangeBroken, TooMany."""
        await self._serve("write", 1.0)
        self.publish()

    async def _poll(self, offset: int, limit: int, wait_seconds: float) -> EventPage:
        await self._serve("poll" if wait_seconds else "feed", HELD_COST if wait_seconds else 1.0)
        if offset < self.oldest:
            raise PositionGone("410")
        if offset > self.head and wait_seconds:
            await self._hold(wait_seconds)
        last = min(self.head, offset + min(limit, MOST_EVENTS) - 1)
        events = tuple(map(_event, range(offset, last + 1)))
        return EventPage(events, last + 1, last < self.head, GENERATION)

    async def _hold(self, wait_seconds: float) -> None:
        starts = self._starts
        self.held_polls += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._news.wait()
        finally:
            self.held_polls -= 1
        if starts != self._starts:
            raise ExchangeBroken("the connection broke")
        await self._work(HELD_COST, starts)

    # -- the queue -------------------------------------------------------------------------

    async def _serve(self, kind: str, cost: float) -> None:
        if not self.is_up:
            await asyncio.sleep(ROUND_TRIP_SECONDS / 2)
            raise Unreachable("refused")
        self.tally.arrived[tenth(_now())] += 1
        self.tally.kinds[kind] += 1
        queue_seconds = max(0.0, self._busy_until - _now())
        self.tally.longest_queue_seconds = max(self.tally.longest_queue_seconds, queue_seconds)
        full = queue_seconds > self.capacity.longest_queue_seconds
        if full and self.capacity.overload is not Overload.QUEUE:
            await self._refuse()
        await self._work(cost, self._starts)

    async def _work(self, cost: float, starts: int) -> None:
        seconds = cost / self.capacity.requests_per_second
        self._busy_until = max(self._busy_until, _now()) + seconds
        await asyncio.sleep(self._busy_until - _now() + ROUND_TRIP_SECONDS)
        if starts != self._starts:
            raise ExchangeBroken("the connection broke")

    async def _refuse(self) -> None:
        self.tally.refused[tenth(_now())] += 1
        self._busy_until += REFUSAL_COST / self.capacity.requests_per_second
        await asyncio.sleep(ROUND_TRIP_SECONDS)
        if self.capacity.overload is Overload.UNAVAILABLE:
            raise ExchangeBroken("503", status=503)
        named = 5.0 if self.capacity.overload is Overload.LIMIT_NAMED else None
        raise TooMany(named)


class TooMany(Exception):
    """429, with the seconds that `Retry-After` named, if any."""

    def __init__(self, retry_after_seconds: float | None) -> None:
        super().__init__("429")
        self.retry_after_seconds = retry_after_seconds


@lru_cache(maxsize=20_000)
def _event(offset: int) -> AnyEvent:
    row = {"productId": "P-1", "name": "Tea", "available": offset, "version": offset}
    kind = {"eventType": "inventory_updated", "productId": "P-1", "version": offset}
    return read_event({"offset": offset, **kind, "data": row})


@lru_cache(maxsize=100)
def fingerprint_of(offset: int) -> str:
    """The fingerprint of this event."""
    return _event(offset).fingerprint


def tenth(seconds: float) -> int:
    return math.floor(seconds * 10 + 1e-6)


def _now() -> float:
    return asyncio.get_running_loop().time()
