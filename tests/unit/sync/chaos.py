"""What a store is put through: answers as odd as they may be, and a Central in trouble."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from store_cache.model.event import AnyEvent
from store_cache.model.pages import EventPage, PageRequest
from store_cache.sync.states import (
    ApplyEvents,
    Command,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    FullSyncFailed,
    InstallReplica,
    Interrupted,
    Outcome,
    PageApplied,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Slept,
)
from tests.unit.sync.driven_sync import DrivenSync, at, event, may_be_interrupted, nameless
from tests.unit.sync.small_central import SmallStore

FEEDS = ("feed", "other")
NAMES = (None, None, None, "g-1", "g-2")
FAULTS = [failure for failure in Failure if failure is not Failure.GONE]
"""Without 410, which says that the log is too short: `SmallCentral` answers so by itself."""


class Chaos:
    """Outcomes that fit the command in flight, and are otherwise as odd as they may be."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.named = self.random.choice(NAMES)

    def passes_time(self, sync: DrivenSync) -> None:
        """Let the wait in flight pass, or an exchange; now and then a full sync is requested."""
        seconds = 0.01
        if isinstance(sync.command, Sleep):
            spread_seconds = self.random.random() * sync.command.spread_seconds
            seconds = sync.command.at_least_seconds + spread_seconds
        sync.waits(seconds)
        if self.random.random() < 0.01:
            sync.requests("on demand", forced=True, accept=self.random.random() < 0.5)
        if self.random.random() < 0.01:
            sync.requests("a repair failed")

    def outcome(self, sync: DrivenSync) -> Outcome:
        if self.random.random() < 0.02:
            self.named = self.random.choice(NAMES)
        if may_be_interrupted(sync.state) and self.random.random() < 0.05:
            return Interrupted()
        exchanged = isinstance(sync.command, FetchEvents | FetchPage)
        if exchanged and self.random.random() < 0.15:
            return self._failure()
        return self._success(sync.command)

    def _failure(self) -> ExchangeFailed:
        floor = self.random.choice([None, None, 0.0, 3.0])
        return ExchangeFailed(self.random.choice(list(Failure)), "chaos", floor)

    def _success(self, command: Command) -> Outcome:
        match command:
            case Sleep():
                return Slept()
            case FetchEvents():
                return EventsArrived(self._events(command), self.random.choice([0.0, 0.7, 20.0]))
            case ApplyEvents():
                return EventsApplied()
            case FetchPage():
                return self._page()
            case InstallReplica():
                if self.random.random() < 0.3:
                    return ReplicaRefused("small", 1)
                return ReplicaInstalled(9)

    def _page(self) -> Outcome:
        head = self.random.choice([None, 0, 7, 40, 60])
        next_page = self.random.choice([None, PageRequest(200, 200)])
        if self.random.random() < 0.05:
            return FullSyncFailed("chaos")
        return PageApplied(next_page, head, self.named)

    def _events(self, command: FetchEvents) -> EventPage:
        offset = min(command.offset, 60)
        feed = self.random.choice((*FEEDS, *FEEDS[:1] * 8))
        numbers = [offset + self.random.randint(-2, 8) for _ in range(self.random.randint(0, 9))]
        whole = list(range(offset, offset + self.random.randint(0, 5)))
        chosen = self.random.choice([numbers, whole, whole, whole, []])
        arrived: list[AnyEvent] = [event(n, feed) for n in chosen if n >= 0]
        if self.random.random() < 0.02:
            arrived.append(nameless(offset))
        after = max([offset, *(n + 1 for n in chosen)])
        hint = self.random.choice([None, after, after, after, after + 2, max(0, offset - 3)])
        more = self.random.choice([None, False, False, True])
        return EventPage(tuple(arrived), hint, more, self.named)


def walk(seed: int, steps: int) -> Iterator[DrivenSync]:
    """Yield a sync after each step of an odd life."""
    chaos = Chaos(seed)
    sync = DrivenSync(chaos.random.choice([None, at(0), at(10), at(10, "g-1")]))
    for _ in range(steps):
        chaos.passes_time(sync)
        sync.tell(chaos.outcome(sync))
        yield sync


class Trouble:
    """What may go wrong with Central, one thing after another, until it `heals`."""

    def __init__(self, store: SmallStore) -> None:
        self.store = store
        self.central = store.central
        self.random = store.random
        self.failures = 0
        self.rate = 0.0
        self.kinds = FAULTS
        self.was_replaced = False
        self.central.fault = self.fault
        self.feeds = 0

    def fault(self) -> ExchangeFailed | None:
        if self.was_replaced:
            self.was_replaced = False
            return ExchangeFailed(Failure.UNREACHABLE, "another Central starts")
        if self.failures > 0 or self.random.random() < self.rate:
            self.failures -= 1
            floor = self.random.choice([None, None, 5.0])
            return ExchangeFailed(self.random.choice(self.kinds), "trouble", floor)
        return None

    def strikes(self) -> None:
        self.random.choice(
            [
                self.flaps,
                self.falls_silent,
                self.publishes,
                self.publishes,
                self.skips,
                self.forgets,
                self.is_replaced,
                self.shrinks,
                self.is_asked,
            ]
        )()

    def flaps(self) -> None:
        self.rate = self.random.choice([0.0, 0.1, 0.5])
        self.kinds = self.random.choice([FAULTS, [Failure.UNREACHABLE], [Failure.LIMITED]])

    def falls_silent(self) -> None:
        self.kinds = [self.random.choice([Failure.UNREACHABLE, Failure.BROKEN, Failure.DENIED])]
        self.failures = self.random.choice([1, 3, 8, 30])

    def publishes(self) -> None:
        self.central.publish(self.random.choice([1, 3, 150]))

    def skips(self) -> None:
        """An event is published late, or never."""
        offset = self.central.head + self.random.randint(0, 2)
        self.central.missing.add(offset)
        self.central.publish(self.random.randint(1, 4))
        if self.random.random() < 0.8:
            seconds = self.random.choice([0.1, 1.0])
            self.store.later(seconds, lambda: self.central.missing.discard(offset))

    def forgets(self) -> None:
        self.central.first = max(self.central.first, self.central.head - 30)

    def is_replaced(self) -> None:
        """Only where the store can notice it: both name their feeds, or the next exchange fails,
        after which the fingerprint of an event tells them apart."""
        self.feeds += 1
        name = self.random.choice([None, f"g-{self.feeds}"])
        if name is None or self.central.generation is None:
            if not self.has_fingerprint():
                return
            self.was_replaced = True
        head = self.random.choice([60, 500])
        self.central.replace(f"feed{self.feeds}", head=head, generation=name)

    def has_fingerprint(self) -> bool:
        position = self.store.state.position
        known = position is not None and position.fingerprint is not None
        return known and not self.store.is_full_syncing()

    def shrinks(self) -> None:
        self.central.pages = self.random.choice([1, 3, 5])

    def is_asked(self) -> None:
        self.store.requests(
            "on demand", forced=self.random.random() < 0.5, accept=self.random.random() < 0.5
        )

    def heals(self) -> None:
        self.rate, self.failures, self.central.missing = 0.0, 0, set()
