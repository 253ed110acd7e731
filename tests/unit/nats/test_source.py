"""Who answers a poll: NATS while it can, else Central in intervals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from store_cache.model.pages import EventPage
from store_cache.nats import source
from store_cache.nats.connection import FeedConnection
from store_cache.nats.report import SILENT_SECONDS
from store_cache.nats.source import (
    DELIVERY_SECONDS,
    FRESH_SECONDS,
    LOOK_SECONDS,
    START_SECONDS,
    NatsSource,
)
from tests.harness.nats_stream import REPLY_SECONDS, MemoryConnection, MemoryStream
from tests.harness.virtual_time import in_virtual_time

INTERVAL_SECONDS = 30.0
CHANCE = 0.5
"""What the source draws: so it asks Central after half an interval."""

WAIT_SECONDS = 20


@dataclass
class MemoryCentral:
    """Answers that nothing is new. `asked`: when, for which offset, and how long it may wait."""

    asked: list[tuple[float, int, int]] = field(default_factory=list)

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        self.asked.append((now(), offset, wait_seconds))
        assert limit == 100
        return EventPage((), offset, False, "g-1")


@dataclass
class Feed:
    connection: MemoryConnection
    stream: MemoryStream
    central: MemoryCentral
    source: NatsSource
    modes: list[bool]
    """What the sync was told: whether to follow continuously."""

    async def poll(self, offset: int, limit: int = 100) -> EventPage:
        return await self.source.events(offset=offset, limit=limit, wait_seconds=WAIT_SECONDS)


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def feed() -> AsyncIterator[Feed]:
    """A feed over a connection of which nothing is known yet."""
    connection, central = MemoryConnection(now), MemoryCentral()
    source = NatsSource(
        central,
        cast("FeedConnection", connection),
        interval_seconds=INTERVAL_SECONDS,
        uptime=now,
        random=lambda: CHANCE,
    )
    modes: list[bool] = []
    source.on_mode = modes.append
    stream: MemoryStream = connection.client
    try:
        yield Feed(connection, stream, central, source, modes)
    finally:
        await stream.end()


@asynccontextmanager
async def reporting(feed: Feed, head: int) -> AsyncIterator[None]:
    """The publisher reports every five seconds that the feed ends there."""

    async def report() -> None:
        while True:
            feed.connection.tell(head)
            await asyncio.sleep(5)

    task = asyncio.get_running_loop().create_task(report())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def offsets(page: EventPage) -> list[int]:
    return [event.offset for event in page.events]


# -- what NATS can give ------------------------------------------------------------------------


@in_virtual_time
async def test_events_come_from_nats() -> None:
    async with feed() as it:
        it.stream.publish_events(0, 1, 2)
        it.connection.tell(2)
        page = await it.poll(0)
        assert (offsets(page), page.has_more, page.generation) == ([0, 1, 2], False, "g-1")
        assert (it.central.asked, it.modes) == ([], [True])
        assert it.source.is_from_nats
        assert it.source.problem == ""


@in_virtual_time
async def test_a_page_that_does_not_reach_the_head_leaves_something_behind() -> None:
    """[F3] The store is not in sync by it."""
    async with feed() as it:
        it.stream.publish_events(0, 1, 2)
        it.connection.tell(2)
        page = await it.poll(0, limit=2)
        assert (offsets(page), page.has_more) == ([0, 1], True)
        assert it.source.behind(page.next_offset or 0) == 1
        page = await it.poll(2, limit=2)
        assert (offsets(page), page.has_more) == ([2], False)
        assert it.stream.consumers == 2  # two names for one reader: its own and its inbox


@in_virtual_time
async def test_a_page_is_as_old_as_the_report() -> None:
    """[B5] Not as new as its arrival."""
    async with feed() as it:
        await asyncio.sleep(100)
        it.stream.publish_events(0)
        it.connection.tell(0, age=7)
        page = await it.poll(0)
        assert page.relayed_at == 93


@in_virtual_time
async def test_nothing_new_is_said_by_a_newer_report_only() -> None:
    """A poll with nothing to give is held until a report comes that was made meanwhile."""
    async with feed() as it:
        await asyncio.sleep(100)
        it.connection.tell(4, age=2, first=5)
        poll = asyncio.get_running_loop().create_task(it.poll(5))
        await asyncio.sleep(FRESH_SECONDS + 3)
        assert not poll.done()
        it.connection.tell(4, age=0.5, first=5)
        page = await poll
        assert (page.events, page.has_more, page.relayed_at) == ((), False, now() - 0.5)


@in_virtual_time
async def test_a_poll_ends_with_an_event_at_once() -> None:
    async with feed() as it, reporting(it, 0):
        poll = asyncio.get_running_loop().create_task(it.poll(0))
        await asyncio.sleep(2)
        it.stream.publish_events(0)
        assert offsets(await poll) == [0]
        assert now() == 2


@in_virtual_time
async def test_a_cancelled_poll_loses_nothing() -> None:
    async with feed() as it, reporting(it, 0):
        for seconds in (REPLY_SECONDS / 2, 1):  # while the reader begins, and after that
            poll = asyncio.get_running_loop().create_task(it.poll(0))
            await asyncio.sleep(seconds)
            poll.cancel()
            await asyncio.sleep(0.1)
        it.stream.publish_events(0)
        assert offsets(await it.poll(0)) == [0]
        assert it.stream.consumers == 2  # the reader is the same


# -- silence -----------------------------------------------------------------------------------


@in_virtual_time
async def test_silence_is_not_freshness() -> None:
    """15 s after the last report NATS is not believed: Central is asked, after a random part of
    the interval, and is not made to wait."""
    async with feed() as it:
        it.stream.publish_events(4)
        it.connection.tell(4, first=4)
        page = await it.poll(4)
        while not it.central.asked:
            assert page.relayed_at == 0  # `Age` counts from the last report all the time
            assert not page.has_more
            page = await it.poll(5)
        ((asked_at, offset, wait_seconds),) = it.central.asked
        due_at = SILENT_SECONDS + CHANCE * INTERVAL_SECONDS
        assert due_at <= asked_at <= due_at + 2 * LOOK_SECONDS
        assert (offset, wait_seconds) == (4, 0)  # the event before is compared
        assert page.relayed_at is None
        assert it.modes == [True, False]
        assert "the publisher or Central is away" in it.source.problem


@in_virtual_time
async def test_silence_during_the_first_poll_is_met_as_any_other() -> None:
    """All stores of a chain may have started a moment ago."""
    async with feed() as it:
        it.connection.tell(4, first=5)
        while not it.central.asked:
            await it.poll(5)
        ((asked_at, _, _),) = it.central.asked
        assert asked_at >= SILENT_SECONDS + CHANCE * INTERVAL_SECONDS


@in_virtual_time
async def test_a_store_that_is_behind_is_not_told_that_nothing_is_new() -> None:
    """However long NATS is silent."""
    async with feed() as it:
        it.connection.tell(3)
        assert it.source.behind(2) == 2
        it.stream.is_silent = True
        page = await it.poll(2)
        assert page.relayed_at is None  # Central's
        assert len(it.central.asked) == 1


@in_virtual_time
async def test_central_is_asked_in_intervals_meanwhile() -> None:
    """The random wait comes once; how long to wait between polls is the sync's to decide."""
    async with feed() as it:
        await it.poll(0)
        began_at = now()
        await it.poll(0)
        assert now() == began_at
        assert len(it.central.asked) == 2
        assert it.modes == [False]


@in_virtual_time
async def test_a_start_does_not_wait_long_for_nats() -> None:
    async with feed() as it:
        await it.poll(0)
        ((asked_at, _, _),) = it.central.asked
        assert START_SECONDS <= asked_at <= START_SECONDS + LOOK_SECONDS


@in_virtual_time
async def test_a_start_waits_a_moment_for_nats() -> None:
    async with feed() as it:
        poll = asyncio.get_running_loop().create_task(it.poll(0))
        await asyncio.sleep(START_SECONDS / 2)
        it.stream.publish_events(0)
        it.connection.tell(0)
        assert offsets(await poll) == [0]
        assert it.central.asked == []


@in_virtual_time
async def test_the_sync_goes_back_to_nats_at_once() -> None:
    """A fresh report ends the wait for the next interval."""
    async with feed() as it:
        await it.poll(0)
        it.stream.publish_events(0)
        it.connection.tell(0)
        assert it.modes == [False, True]
        assert offsets(await it.poll(0)) == [0]
        assert it.source.is_from_nats


@in_virtual_time
async def test_the_connection_is_lost() -> None:
    """What was received before is not given as the newest."""
    async with feed() as it, reporting(it, 9):
        it.stream.publish_events(0)
        assert offsets(await it.poll(0)) == [0]
        it.connection.problem = "NATS: connection refused"
        it.connection.lose()
        assert it.source.problem == "NATS: connection refused"
        await it.poll(1)
        ((asked_at, _, _),) = it.central.asked
        due_at = CHANCE * INTERVAL_SECONDS
        assert due_at <= asked_at <= due_at + 2 * LOOK_SECONDS


@in_virtual_time
async def test_the_connection_is_back() -> None:
    """The server has forgotten what was asked of it: another reader begins at once."""
    async with feed() as it:
        it.stream.publish_events(0)
        it.connection.tell(1)
        assert offsets(await it.poll(0)) == [0]
        it.connection.lose()
        it.stream.forget_requests()
        it.connection.client = it.stream
        it.stream.publish_events(1)
        it.connection.tell(1)
        assert offsets(await it.poll(1)) == [0, 1]  # it begins with the event before (E4)
        assert now() < LOOK_SECONDS
        assert it.central.asked == []


# -- what NATS cannot give ---------------------------------------------------------------------


@in_virtual_time
async def test_central_is_asked_about_a_gap() -> None:
    """[E1] Events before it are given; it is passed over by nobody but Central."""
    async with feed() as it, reporting(it, 3):
        it.stream.publish_events(0, 1)
        it.stream.put(2, b"")
        it.stream.publish_events(3)
        assert offsets(await it.poll(0)) == [0, 1]
        await it.poll(2)
        assert [offset for _, offset, _ in it.central.asked] == [1]  # the event before is compared
        assert "gap in the stream at event 2" in it.source.problem
        await it.poll(3)  # nothing can be compared with a gap
        assert [offset for _, offset, _ in it.central.asked] == [1, 3]
        it.stream.publish_events(4)
        assert offsets(await it.poll(4)) == [3, 4]
        assert it.source.problem == ""


@pytest.mark.parametrize("offset", [9, 22])
def test_central_is_asked_for_what_the_stream_has_not(offset: int) -> None:
    """Before its first event (10), or beyond what follows the last one (20)."""

    @in_virtual_time
    async def play() -> None:
        async with feed() as it:
            it.stream.publish_events(*range(10, 21))
            it.connection.tell(20, first=10)
            poll = asyncio.get_running_loop().create_task(it.poll(offset))
            while not poll.done():
                await asyncio.sleep(5)
                it.connection.tell(20, first=10)
            assert [asked for _, asked, _ in it.central.asked] == [offset - 1]
            assert f"no event {offset}" in it.source.problem
            assert it.stream.consumers == 0

    play()


@in_virtual_time
async def test_central_is_asked_if_the_stream_is_gone() -> None:
    async with feed() as it, reporting(it, 4):
        it.stream.is_gone = True
        await it.poll(0)
        assert len(it.central.asked) == 1
        assert "stream not found" in it.source.problem
        assert it.connection.looks


@in_virtual_time
async def test_an_event_that_does_not_come_is_asked_for() -> None:
    """A mirror that is behind: the report tells of an event that the stream has not."""
    async with feed() as it, reporting(it, 1):
        it.stream.publish_events(0)
        await it.poll(0)
        await it.poll(1)
        ((asked_at, offset, _),) = it.central.asked
        due_at = DELIVERY_SECONDS + CHANCE * INTERVAL_SECONDS
        assert offset == 0  # the event before is compared
        assert due_at <= asked_at <= due_at + DELIVERY_SECONDS  # it was given another chance
        assert it.source.problem == "event 1 does not come"


@in_virtual_time
async def test_an_event_may_take_a_moment_to_come() -> None:
    async with feed() as it, reporting(it, 0):
        poll = asyncio.get_running_loop().create_task(it.poll(0))
        await asyncio.sleep(DELIVERY_SECONDS - 1)
        it.stream.publish_events(0)
        assert offsets(await poll) == [0]


@in_virtual_time
async def test_an_event_has_its_moment_from_when_it_was_named() -> None:
    """However long the poll has lasted then."""
    async with feed() as it:
        it.stream.publish_events(0)
        it.connection.tell(0)
        await it.poll(0)
        poll = asyncio.get_running_loop().create_task(it.poll(1))
        await asyncio.sleep(DELIVERY_SECONDS - 0.1)
        it.connection.tell(1)
        await asyncio.sleep(DELIVERY_SECONDS - 1)
        it.stream.publish_events(1)
        assert offsets(await poll) == [1]
        assert it.central.asked == []


@in_virtual_time
async def test_a_left_out_message_is_read_again() -> None:
    """[E1] The reader is thrown away; another one begins at the position."""
    async with feed() as it, reporting(it, 3):
        it.stream.publish_events(0)
        assert offsets(await it.poll(0)) == [0]
        it.stream.publish_events(2, 3)
        await asyncio.sleep(0.1)
        it.stream.messages[2] = it.stream.messages[1].replace(b'"offset":0', b'"offset":1')
        page = await it.poll(1)
        if page.relayed_at is None:
            page = await it.poll(1)
        assert offsets(page) == [0, 1, 2, 3]


@in_virtual_time
async def test_a_message_that_is_another_event_is_refused() -> None:
    """[E1] Someone else has written into the stream."""
    async with feed() as it, reporting(it, 0):
        it.stream.publish_events(7)
        it.stream.put(0, it.stream.messages.pop(8))
        await it.poll(0)
        assert len(it.central.asked) == 1
        assert "not the event of its offset" in it.source.problem


# -- a Central that failed for a moment --------------------------------------------------------


@in_virtual_time
async def test_a_moment_without_central_is_a_break() -> None:
    """The publisher says since when Central has not failed. Nothing else of it can be seen: NATS
    has everything, and a Central that lost stock when it crashed is to be compared with."""
    async with feed() as it:
        it.stream.publish_events(0)
        breaks: list[float] = []
        it.source.on_break = lambda: breaks.append(now())
        it.connection.tell(0, since=5.0)
        await it.poll(0)
        for since in (5.0, 3.0, None, 5.0):  # of two publishers, and of one that does not say so
            it.connection.tell(0, since=since)
        assert breaks == []
        it.connection.tell(0, since=9.0)
        assert len(breaks) == 1
        it.connection.tell(0, since=9.0)
        assert len(breaks) == 1
        assert it.central.asked == []


@in_virtual_time
async def test_a_moment_without_central_is_told_once() -> None:
    """While the store asks Central itself, it has noticed."""
    async with feed() as it:
        it.connection.tell(0, since=5.0)
        await it.source.events(offset=7, limit=100, wait_seconds=0)
        assert len(it.central.asked) == 1
        breaks: list[float] = []
        it.source.on_break = lambda: breaks.append(now())
        it.connection.tell(0, since=9.0)
        assert breaks == []


# -- another stream ----------------------------------------------------------------------------


@in_virtual_time
async def test_a_stream_that_was_made_anew_is_compared() -> None:
    """[E4] Its first page begins with the event before the position, and only that one."""
    async with feed() as it:
        it.stream.publish_events(0, 1)
        it.connection.tell(1)
        await it.poll(0)
        it.connection.tell(1, created="tomorrow")
        assert offsets(await it.poll(2)) == [1]
        it.stream.publish_events(2)
        it.connection.tell(2, created="tomorrow")
        assert offsets(await it.poll(2)) == [2]


@in_virtual_time
async def test_a_new_generation_is_named() -> None:
    """[E3] By a page with its events, or, if the position lies beyond its end, by an empty one."""
    async with feed() as it:
        it.stream.publish_events(*range(6))
        it.connection.tell(5)
        await it.poll(0)
        it.connection.tell(2, generation="g-2", created="tomorrow")
        page = await it.poll(6)
        assert (page.events, page.generation, page.next_offset) == ((), "g-2", 6)


@in_virtual_time
async def test_a_report_that_comes_while_messages_are_taken_is_about_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[E3] Else events of one generation would be taken for another's."""
    async with feed() as it:
        it.stream.publish_events(0, 1)
        it.connection.tell(1)

        async def take(*given: Any) -> list[bytes]:
            messages = await taking(*given)
            it.connection.tell(5, generation="g-2", created="tomorrow")
            return messages

        taking = source._take
        monkeypatch.setattr(source, "_take", take)
        page = await it.poll(0)
        assert (page.generation, page.has_more) == ("g-1", False)
