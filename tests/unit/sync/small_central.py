"""A Central of plain values and a store's sync that runs against it, in virtual time.

Knows: offsets, feeds (each with its own events), pages by number, what is on when; whether the
catalogue that the store would hold is one of a single moment. Refuses to know: products.
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
    Interrupted,
    Outcome,
    PageApplied,
    ProductsRefetched,
    RefetchProducts,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Slept,
    SyncSettings,
)
from tests.unit.sync.told_sync import Told, at, event, may_be_interrupted

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
    """The feed that an event made by `told_sync.event` is of."""
    assert isinstance(each, Event)
    return str(each.raw).split("-", maxsplit=1)[0]


def feed_at(position: Position | None, *feeds: str) -> str:
    """Which of these feeds the event before the position is of."""
    if position is None or position.fingerprint is None:
        return ""
    prints = {at(position.offset, feed=feed).fingerprint: feed for feed in feeds}
    return prints[position.fingerprint]


@dataclass
class Copy:
    """What a copy under construction reflects: pages with feed and head as they were read."""

    read: list[tuple[str, int]] = field(default_factory=list)
    kept_from: int | None = None


class SmallStore(Told):
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
        self.doubts = 0
        self.products = 0
        self.of_feed = feed_at(position, "feed", central.feed)
        self.happenings: list[tuple[float, Callable[[], None]]] = []
        self.rang = False
        self._copy = Copy()
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

    def is_in_step(self) -> bool:
        """It follows Central's present feed, at its head, with nothing wanted."""
        state, central = self.state, self.central
        at_head = state.position is not None and state.position.offset == central.head
        followed = self.of_feed == central.feed and not state.lost and state.requested is None
        return at_head and followed and not state.health.failures

    # -- performing ------------------------------------------------------------------------

    def _perform(self) -> Outcome:
        command = self.command
        match command:
            case Sleep():
                return self._rest(command)
            case ApplyEvents():
                return self._keep(command)
            case InstallReplica(installation):
                return self._place(installation)
        self._passes(EXCHANGE_SECONDS)
        failed = self.central.fault()
        if failed is not None:
            return failed
        match command:
            case FetchEvents():
                return self._fetch(command)
            case FetchPage():
                return self._page(command)
            case RefetchProducts():
                read, self.doubts = self.doubts, 0
                return ProductsRefetched(read)
        raise AssertionError(command)

    def _passes(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> float:
        """Time passes, and what was to happen happens; how long it was until enough had."""
        began_at, end = self.now, self.now + seconds
        while self.happenings and self.happenings[0][0] <= end and not enough():
            at, happening = self.happenings.pop(0)
            self.now = max(self.now, at)
            happening()
        if not enough():
            self.now = max(self.now, end)
        return self.now - began_at

    def _rest(self, command: Sleep) -> Outcome:
        share = self.random.random()
        self.rang = False
        self._passes(command.at_least_seconds + share * command.spread_seconds, lambda: self.rang)
        return Interrupted() if self.rang and may_be_interrupted(self.state) else Slept()

    def ring(self) -> None:
        self.rang = True

    def _fetch(self, command: FetchEvents) -> Outcome:
        held = 0.0
        answer = self.central.events(command)
        if self.central.holds and isinstance(answer, EventPage) and not answer.events:
            self.rang = False
            held = self._passes(command.wait_seconds, lambda: self.rang or self._has(command))
            if self.rang and may_be_interrupted(self.state):
                return Interrupted()
            answer = self.central.events(command)
        if isinstance(answer, ExchangeFailed):
            return answer
        return EventsArrived(answer, held)

    def _has(self, command: FetchEvents) -> bool:
        answer = self.central.events(command)
        return isinstance(answer, EventPage) and bool(answer.events)

    def _page(self, command: FetchPage) -> Outcome:
        if command.begins:
            self._copy = Copy()
        taken = self.central.page(command.request or PageRequest(0, PAGE_SIZE))
        self._copy.read.append((self.central.feed, self.central.head))
        return taken

    def _keep(self, command: ApplyEvents) -> Outcome:
        feeds = {feed_of(each) for each in command.events}
        if command.in_catalogue and feeds:
            assert {self.of_feed} == feeds, "events of another feed in the catalogue (E4)"
        if command.in_replica and feeds:
            assert {feed for feed, _ in self._copy.read} == feeds, "a copy of two feeds (E4)"
        if command.in_replica and self._copy.kept_from is None:
            assert self.full_sync.cursor is not None
            self._copy.kept_from = self.full_sync.cursor.position.offset
        return EventsApplied()

    def _place(self, installation: Installation) -> Outcome:
        products = self.central.pages * PAGE_SIZE
        agrees = installation.agreed_products == products
        if products * 2 < self.products and not (installation.accept or agrees):
            return ReplicaRefused(f"{products} where {self.products} were held", products)
        self._check_copy(installation.position)
        self.products = products
        self.of_feed = self._copy.read[0][0]
        return ReplicaInstalled(products)

    def _check_copy(self, position: Position) -> None:
        """F2: each page reflects the position at least, or the feed was followed from before it."""
        feeds = {feed for feed, _ in self._copy.read}
        assert len(feeds) == 1, "a copy of two feeds (E4)"
        follows_from = self._copy.kept_from
        if follows_from is None:
            follows_from = position.offset
        assert follows_from <= self._copy.read[0][1], "a copy followed from too late (F2)"
