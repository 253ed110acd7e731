"""NATS and Central in turn: never two histories as one (E4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from store_cache.nats.report import SILENT_SECONDS
from store_cache.sync.cursor import ANOTHER_EVENT, BACKWARDS
from tests.harness.virtual_time import in_virtual_time
from tests.unit.nats.small_nats import (
    INTERVAL_SECONDS,
    SmallCentral,
    SmallNats,
    SmallStore,
    at,
    now,
)

REPORT_SECONDS = 5.0


@asynccontextmanager
async def following(
    central: SmallCentral, server: SmallNats, offset: int
) -> AsyncIterator[SmallStore]:
    """A store that follows from `offset` on."""
    store = SmallStore(central, server, at(offset))
    running = asyncio.create_task(store.run())
    yield store
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def published(server: SmallNats, seconds: float) -> None:
    """Let time pass in which the publisher copies what Central has, and reports it."""
    ends_at = now() + seconds
    while now() < ends_at:
        server.publish()
        await asyncio.sleep(min(REPORT_SECONDS, ends_at - now()))


def sold(count: int) -> tuple[SmallCentral, SmallNats]:
    central = SmallCentral()
    central.sell(count)
    return central, SmallNats(central)


@in_virtual_time
async def test_nats_alone_is_read() -> None:
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 1)
        central.sell(3)
        await published(server, 60)
        assert (store.applied, store.lost) == ([5, 6, 7, 8, 9, 10, 11, 12], "")
        assert now() - store.in_sync_at < 2 * REPORT_SECONDS
        assert central.asked == []
        assert server.consumers_created == 1


@in_virtual_time
async def test_the_other_history_of_a_stream_that_was_made_anew_is_not_applied() -> None:
    """[E4] Central was restored under its own name and has passed the position. The store has not
    looked yet what the stream is."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 7)
        central.restore(7, sold=20)
        server.make_anew(is_noticed=False)
        await published(server, 7)
        assert store.lost == ANOTHER_EVENT
        assert store.applied == [5, 6, 7, 8, 9]


@in_virtual_time
async def test_the_same_history_of_a_stream_that_was_made_anew_goes_on() -> None:
    """NATS lost its storage: Central is not asked, and nothing has failed."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 7)
        server.make_anew()
        central.sell()
        await published(server, 7)
        assert (store.applied, store.lost) == ([5, 6, 7, 8, 9, 10], "")
        assert central.asked == []
        assert store.state.health.failures == 0


@in_virtual_time
async def test_a_feed_that_ends_before_the_position_is_no_freshness() -> None:
    """[B5, E3] A newer report says that the feed ends earlier, while the reader is open."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 12)
        central.restore(7, sold=1)
        restored_at = now()
        for _ in range(8):
            await asyncio.sleep(REPORT_SECONDS)
            server.say(7)
            assert store.in_sync_at <= restored_at
        assert store.lost == BACKWARDS


@in_virtual_time
async def test_the_first_answer_of_central_after_nats_is_compared() -> None:
    """[E4] While NATS served, nobody noticed that Central came back from a backup."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 7)
        central.restore(7, sold=20)
        await asyncio.sleep(SILENT_SECONDS + INTERVAL_SECONDS)
        assert store.lost == ANOTHER_EVENT
        assert store.applied == [5, 6, 7, 8, 9]
        assert central.asked == [9]


@in_virtual_time
async def test_central_goes_on_where_nats_ends() -> None:
    """[E4] It is the same feed, so one request is enough. Central is asked within the interval."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 7)
        central.sell(2)
        await asyncio.sleep(SILENT_SECONDS + INTERVAL_SECONDS)
        assert (store.applied, store.lost) == ([5, 6, 7, 8, 9, 10, 11], "")
        assert central.asked[:2] == [9, 12]


@in_virtual_time
async def test_a_log_that_begins_at_the_position_proves_nothing() -> None:
    """[E4] Central holds no event before it any more, and the feed goes on."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 7)
        central.sell(2)
        central.first = 10
        await asyncio.sleep(SILENT_SECONDS + INTERVAL_SECONDS)
        assert (store.applied, store.lost) == ([5, 6, 7, 8, 9, 10, 11], "")


@in_virtual_time
async def test_nats_is_compared_after_a_full_sync() -> None:
    """[E4] The position is what Central says; the stream is of before Central was restored."""
    central, server = sold(20)
    async with following(central, server, 20) as store:
        await published(server, 7)
        assert store.source.is_from_nats
    central.restore(7, sold=3)
    server.say(19)
    store.source.note_read_at_central()
    page = await store.source.events(offset=10, limit=100, wait_seconds=0)
    assert page.events[0].offset == 9
    assert page.events[0].fingerprint != at(10, "b").fingerprint


@in_virtual_time
async def test_nats_serves_again_once_it_has_the_event_before() -> None:
    """A gap has no event to compare: the store stays with Central until the position moves on."""
    central, server = sold(10)
    async with following(central, server, 5) as store:
        await published(server, 7)
        central.sell()
        server.publish(gaps=(10,))
        await published(server, 2 * INTERVAL_SECONDS)
        assert store.applied == [5, 6, 7, 8, 9, 10]
        assert not store.source.is_from_nats
        assert len(central.asked) < 10
        central.sell()
        await published(server, 2 * INTERVAL_SECONDS)
        assert (store.applied, store.lost) == ([5, 6, 7, 8, 9, 10, 11], "")
        assert store.source.is_from_nats


@in_virtual_time
async def test_nats_is_polled_without_a_pause_after_quick_answers_of_central() -> None:
    """NATS seemed to be back, and could not give: Central is then asked in intervals, and NATS,
    once it serves, is followed continuously."""
    central, server = sold(10)
    async with following(central, server, 10) as store:
        await asyncio.sleep(2 * INTERVAL_SECONDS)
        server.create_seconds = 1000.0
        asked = len(central.asked)
        for _ in range(30):
            server.publish()
            await asyncio.sleep(SILENT_SECONDS + 1)
        assert len(central.asked) - asked <= 60
        server.create_seconds = 0.01
        await published(server, 2 * INTERVAL_SECONDS)
        for _ in range(5):
            central.sell()
            server.publish()
            await asyncio.sleep(0.1)
            assert store.offset == len(central.log)
            await published(server, 7)


@in_virtual_time
async def test_the_end_of_reports_is_a_break() -> None:
    """A verification follows it, as it does after a failure of the line: once, and not when all
    stores hear nothing, but as each of them asks Central."""
    central, server = sold(10)
    breaks: list[float] = []
    async with following(central, server, 5) as store:
        store.source.on_break = lambda: breaks.append(now())
        await published(server, 7)
        silent_at = now()
        await asyncio.sleep(SILENT_SECONDS + 3 * INTERVAL_SECONDS)
        assert len(breaks) == 1
        assert breaks[0] > silent_at + SILENT_SECONDS
        await published(server, INTERVAL_SECONDS)
        assert store.source.is_from_nats
        assert len(breaks) == 1
