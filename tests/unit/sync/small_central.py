"""A Central of plain values, and a store's sync that runs against it in virtual time.

It has offsets, feeds (each with its own events), pages by number and faults, but no products. Of
the catalogue that the store would hold it checks that all of it is of a single moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent, Event
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position
from store_cache.sync.states import (
    ApplyEvents,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    InstallReplica,
    Outcome,
    PageApplied,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Slept,
    SyncSettings,
)
from tests.unit.sync.driven_sync import LOCAL, DrivenSync, at, event

EXCHANGE_SECONDS = 0.01
PAGE_SIZE = 200


@dataclass
class SmallCentral:
    """`first`..`head` are the offsets that the log has; `missing` are not published (yet)."""

    feed: str = "feed"
    generation: str | None = None
    first: int = 0
    head: int = 50
    pages: int = 3
    missing: set[int] = field(default_factory=set)
    says_head: bool = True
    head_is_last: bool = False
    holds: bool = True
    echoes: bool = False
    says_gone: bool = True
    feed_fails: bool = False
    fault: Callable[[], ExchangeFailed | None] = lambda: None

    def publish(self, count: int = 1) -> None:
        self.head += count

    def replace(self, feed: str, *, head: int, generation: str | None = None) -> None:
        """Another Central takes its place: restored, wiped or moved."""
        self.feed, self.head, self.first, self.generation = feed, head, 0, generation
        self.missing = set()

    def page(self, request: PageRequest) -> PageApplied:
        number = request.offset // PAGE_SIZE + 1
        next_page = PageRequest(number * PAGE_SIZE, PAGE_SIZE) if number < self.pages else None
        head = max(0, self.head - 1) if self.head_is_last else self.head
        return PageApplied(next_page, head if self.says_head else None, self.generation)

    def events(self, asked: FetchEvents) -> EventPage | ExchangeFailed:
        if self.feed_fails:
            return ExchangeFailed(Failure.BROKEN, "500")
        if asked.offset < self.first and self.says_gone:
            return ExchangeFailed(Failure.GONE, f"the log begins at {self.first}")
        begin = max(asked.offset, self.first)
        there = [n for n in range(begin, self.head) if n not in self.missing][: asked.limit]
        if there:
            last = there[-1] + 1
            found = tuple(event(n, self.feed) for n in there)
            return EventPage(found, last, last < self.head, self.generation)
        leads_to = max(asked.offset, self.head) if self.echoes else self.head
        return EventPage((), leads_to, False, self.generation)


def feed_of(each: AnyEvent) -> str:
    """The feed that an event made by `driven_sync.event` belongs to."""
    assert isinstance(each, Event)
    return str(each.raw).split("-", maxsplit=1)[0]


def feed_at(position: Position | None, *feeds: str) -> str:
    """The one of these feeds that the event before the position belongs to."""
    if position is None or position.fingerprint is None:
        return ""
    prints = {at(position.offset, feed=feed).fingerprint: feed for feed in feeds}
    return prints[position.fingerprint]


@dataclass
class Replica:
    """What a replica under construction reflects: pages with feed and head as they were read."""

    read: list[tuple[str, int]] = field(default_factory=list)
    followed_from: int | None = None


class SmallStore(DrivenSync):
    """A store's sync that runs by itself against a `SmallCentral`."""

    def __init__(
        self,
        central: SmallCentral,
        position: Position | None = None,
        settings: SyncSettings | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.central = central
        self.random = Random(seed)
        self.commands = 0
        self.products = 0
        self.of_feed = feed_at(position, "feed", central.feed)
        self.happenings: list[tuple[float, Callable[[], None]]] = []
        self._replica = Replica()
        super().__init__(position, settings)

    # -- running ---------------------------------------------------------------------------

    def later(self, seconds: float, happening: Callable[[], None]) -> None:
        self.happenings.append((self.now + seconds, happening))
        self.happenings.sort(key=lambda each: each[0])

    def runs(self, until: Callable[[], bool], *, commands: int = 1000) -> None:
        """Perform commands until it is so. Fails after so many of them."""
        for _ in range(commands):
            if until():
                return
            self.step()
        assert until(), f"not after {commands} commands: {self.state.phase}, {self.command}"

    def step(self) -> None:
        self.commands += 1
        self.tell(self._perform())

    def is_in_sync(self) -> bool:
        """It follows Central's present feed, at its head, with nothing requested."""
        state, central = self.state, self.central
        at_head = state.position is not None and state.position.offset == central.head
        followed = self.of_feed == central.feed and not state.lost and state.requested is None
        return at_head and followed and not state.health.failures

    # -- performing ------------------------------------------------------------------------

    def _perform(self) -> Outcome:
        command = self.command
        match command:
            case Sleep():
                share = self.random.random()
                self._pass(command.at_least_seconds + share * command.spread_seconds)
                return Slept()
            case ApplyEvents():
                return self._apply(command)
            case InstallReplica(installation):
                return self._install(installation)
        self._pass(EXCHANGE_SECONDS)
        failed = self.central.fault()
        if failed is not None:
            return failed
        match command:
            case FetchEvents():
                return self._fetch(command)
            case FetchPage():
                if command.begins:
                    self._replica = Replica()
                self._replica.read.append((self.central.feed, self.central.head))
                return self.central.page(command.request or PageRequest(0, PAGE_SIZE))
        raise AssertionError(command)

    def _pass(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> float:
        """Let time pass, with what happens in it, until it is enough. Returns how long it was."""
        began_at, end = self.now, self.now + seconds
        while self.happenings and self.happenings[0][0] <= end and not enough():
            due_at, happening = self.happenings.pop(0)
            self.now = max(self.now, due_at)
            happening()
        if not enough():
            self.now = max(self.now, end)
        return self.now - began_at

    def _fetch(self, command: FetchEvents) -> Outcome:
        held = 0.0
        answer = self.central.events(command)
        if self.central.holds and isinstance(answer, EventPage) and not answer.events:
            held = self._pass(command.wait_seconds, lambda: self._has_events(command))
            answer = self.central.events(command)
        return answer if isinstance(answer, ExchangeFailed) else EventsArrived(answer, held)

    def _has_events(self, command: FetchEvents) -> bool:
        answer = self.central.events(command)
        return isinstance(answer, EventPage) and bool(answer.events)

    def _apply(self, command: ApplyEvents) -> Outcome:
        feeds = {feed_of(each) for each in command.events}
        if command.in_catalogue and feeds:
            assert {self.of_feed} == feeds, "events of another feed in the catalogue (E4)"
        if command.in_replica and feeds:
            assert {feed for feed, _ in self._replica.read} == feeds, "a replica of two feeds (E4)"
        if command.in_replica and self._replica.followed_from is None:
            assert self.replica_position is not None
            self._replica.followed_from = self.replica_position.offset
        return EventsApplied()

    def _install(self, installation: Installation) -> Outcome:
        products = self.central.pages * PAGE_SIZE
        agrees = installation.agreed_products == products
        if products * 2 < self.products and not (installation.accept or agrees):
            return ReplicaRefused(f"{products} where {self.products} were held", products)
        # Each page reflects the position, or the feed was followed from before it (F2).
        assert len({feed for feed, _ in self._replica.read}) == 1, "a replica of two feeds (E4)"
        followed_from = self._replica.followed_from
        if followed_from is None:
            followed_from = installation.position.offset
        self.of_feed, first_head = self._replica.read[0]
        assert followed_from <= first_head, "a replica followed from too late (F2)"
        self.products = products
        return ReplicaInstalled(products)


def following(central: SmallCentral, settings: SyncSettings | None = None) -> SmallStore:
    """A store that stands at Central's head."""
    position = at(central.head, central.generation or LOCAL, central.feed)
    store = SmallStore(central, position, settings)
    store.runs(lambda: store.state.in_sync_at is not None)
    return store
