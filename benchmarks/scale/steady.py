"""What one store requests from Central while all is well, by its real sync in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random

from benchmarks.scale.central import Capacity, CentralModel
from benchmarks.scale.store import StoreModel
from store_cache.model.pages import EventPage
from store_cache.sync.states import SyncSettings
from tests.harness.background import in_background
from tests.harness.virtual_time import run

WARM_UP_SECONDS = 60.0
MOST_EVENTS = 20_000
ENOUGH_SECONDS = 600.0


@dataclass(frozen=True)
class Habit:
    """Requests and events per second of one store; `empty`: answers without an event."""

    requests: float
    empty: float
    events: float


def habit(pace: SyncSettings, events_per_second: float) -> Habit:
    return run(_watched(pace, events_per_second))


async def _watched(pace: SyncSettings, events_per_second: float) -> Habit:
    central = CountingCentral(Capacity(1e9))
    store = StoreModel(central, pace, random=Random(1).random)
    seconds = min(ENOUGH_SECONDS, MOST_EVENTS / events_per_second if events_per_second else 1e9)
    async with in_background(store.runner.run(), _publish(central, events_per_second)):
        await asyncio.sleep(WARM_UP_SECONDS)
        before = Counter(central.seen)
        await asyncio.sleep(seconds)
        seen = central.seen - before
    rates = (seen[what] / seconds for what in ("requests", "empty", "events"))
    return Habit(*rates)


async def _publish(central: CentralModel, per_second: float) -> None:
    chance = Random(2)
    while per_second:
        await asyncio.sleep(chance.expovariate(per_second))
        central.publish()


class CountingCentral(CentralModel):
    """Counts the answers of its feed."""

    def __init__(self, capacity: Capacity) -> None:
        super().__init__(capacity)
        self.seen: Counter[str] = Counter()

    async def events(self, offset: int, limit: int, wait_seconds: float) -> EventPage:
        page = await super().events(offset, limit, wait_seconds)
        self.seen["requests"] += 1
        self.seen["events"] += len(page.events)
        self.seen["empty"] += not page.events
        return page
