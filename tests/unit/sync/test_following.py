"""How long a comparison waits for the feed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from store_cache.model.position import Position
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import ConnectionHealth, Polling, Sleeping, State, SyncSettings
from store_cache.sync.verification.following import ASK_SECONDS, REACH_SECONDS, Following, Raced
from store_cache.writer import CacheWriter
from tests.harness.virtual_time import in_virtual_time

GRACE_SECONDS = 2.0


class Sync:
    """The sync, and what its writer holds: `reach` moves the position."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.sleeps_until: float | None = None
        self.changed = asyncio.Event()
        self.asked_at: list[float] = []
        self.position = Position("g-1", 5)

    def uptime(self) -> float:
        return asyncio.get_running_loop().time()

    def ask_anew(self) -> bool:
        self.asked_at.append(self.uptime())
        return True

    def reach(self, offset: int) -> None:
        self.position = Position("g-1", offset)
        self.changed.set()
        self.changed = asyncio.Event()

    def followed(self) -> Following:
        return Following(
            cast("CacheWriter", self), cast("SyncRunner", self), grace_seconds=GRACE_SECONDS
        )


async def seconds_until_raced(sync: Sync) -> float:
    with pytest.raises(Raced):
        await sync.followed().to_offset(6)
    return sync.uptime()


@in_virtual_time
async def test_an_offset_that_is_not_reached_by_itself_is_asked_for() -> None:
    """Once: the answer comes as soon as Central has it."""
    sync = Sync(State(SyncSettings(), Polling(20)))
    waiting = asyncio.create_task(sync.followed().to_offset(7))
    await asyncio.sleep(5.0)
    sync.reach(6)
    await asyncio.sleep(1.0)

    assert [ASK_SECONDS] == sync.asked_at
    assert not waiting.done()
    sync.reach(7)
    await waiting


@in_virtual_time
async def test_a_feed_that_stands_still_ends_the_wait() -> None:
    sync = Sync(State(SyncSettings(), Polling(20)))

    assert REACH_SECONDS == await seconds_until_raced(sync)


@in_virtual_time
async def test_a_wait_for_a_limit_of_central_does_not_count() -> None:
    sync = Sync(State(SyncSettings(), Sleeping()))
    sync.sleeps_until = 100.0

    assert 100.0 <= await seconds_until_raced(sync) <= 100.0 + REACH_SECONDS


@in_virtual_time
async def test_a_wait_after_a_failure_counts() -> None:
    failed = replace(ConnectionHealth(), failures=1)
    sync = Sync(State(SyncSettings(), Sleeping(), health=failed))
    sync.sleeps_until = 100.0

    assert REACH_SECONDS == await seconds_until_raced(sync)


@in_virtual_time
async def test_the_end_of_the_feed_is_that_after_the_grace() -> None:
    """What was in sync before does not count, and Central is asked at once."""
    state = State(SyncSettings(), Polling(20), in_sync_at=1.0)
    sync = Sync(state)
    waiting = asyncio.create_task(sync.followed().to_its_end())
    await asyncio.sleep(GRACE_SECONDS + 1.0)
    assert not waiting.done()
    sync.state = replace(state, in_sync_at=GRACE_SECONDS)
    sync.reach(5)
    await waiting

    assert [GRACE_SECONDS] == sync.asked_at
