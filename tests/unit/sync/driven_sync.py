"""The sync state machine driven by hand, in virtual time, and checked at every step.

`SmallStore` of `small_central` is one that a Central answers by itself.
"""

from __future__ import annotations

from dataclasses import replace

from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent, Event, Kind, QuarantinedEvent, fingerprint
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position, next_local_generation
from store_cache.sync.machine import advance, begin
from store_cache.sync.reading import Following, PagesAlone
from store_cache.sync.states import (
    ApplyEvents,
    Applying,
    Checking,
    Command,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    FullSync,
    FullSyncing,
    InstallReplica,
    Interrupted,
    Outcome,
    PageApplied,
    Polling,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Sleeping,
    Slept,
    Starting,
    State,
    SyncSettings,
    request_full_sync,
)

START = 1000.0
LOCAL = next_local_generation(None)
"""What the store calls the first feed of a Central that names none."""

IDLE_AT_MOST = 4
"""Waits of no time in a row: more would be a sync that spins."""

COMMANDS: dict[type, type] = {
    Sleeping: Sleep,
    Checking: FetchEvents,
    Polling: FetchEvents,
    Applying: ApplyEvents,
}


def event(offset: int, feed: str = "feed") -> Event:
    """An event of one product; `feed` tells the events of a replaced Central from the first's."""
    return Event(offset, Kind.UPDATED, "P-1", offset + 1, None, f"{feed}-{offset}")


def events(*offsets: int, feed: str = "feed") -> tuple[Event, ...]:
    return tuple(event(offset, feed) for offset in offsets)


def at(offset: int, generation: str = LOCAL, feed: str = "feed") -> Position:
    """A position with the fingerprint of the event before it."""
    return Position(generation, offset, fingerprint(f"{feed}-{offset - 1}") if offset else None)


def nameless(offset: int) -> QuarantinedEvent:
    return QuarantinedEvent(offset, None, "productId is missing", fingerprint(f"feed-{offset}"))


class DrivenSync:
    """A store's sync: `state`, the `command` in flight, and the time."""

    def __init__(
        self,
        position: Position | None = None,
        settings: SyncSettings | None = None,
        *,
        is_unfollowed: bool = False,
    ) -> None:
        self.now = START
        self.state = begin(settings or SyncSettings(), position, is_unfollowed=is_unfollowed)
        self.command: Command = Sleep(0.0)
        self._idle = 0
        self.tell(Interrupted())

    # -- outcomes --------------------------------------------------------------------------

    def tell(self, outcome: Outcome) -> None:
        """End the command in flight."""
        before, ended = self.state, self.command
        self.state, self.command = advance(before, outcome, self.now)
        check_step(before, ended, outcome, self.state, self.command)
        self._idle = self._idle + 1 if self.command == Sleep(0.0) else 0
        assert self._idle <= IDLE_AT_MOST, "it sleeps for no time, again and again"

    def answers(
        self,
        *arrived: AnyEvent | int,
        next_offset: int | None = None,
        has_more: bool | None = None,
        generation: str | None = None,
        held: float = 0.0,
    ) -> None:
        """Central answers the events asked for; a number stands for that offset's event."""
        page = tuple(event(one) if isinstance(one, int) else one for one in arrived)
        self.now += held
        self.tell(EventsArrived(EventPage(page, next_offset, has_more, generation), held))

    def repeats(
        self, *arrived: int, next_offset: int | None = None, has_more: bool | None = None
    ) -> list[float]:
        """Central answers so, again after every back-off, until none follows. Returns these."""
        seconds = []
        self.answers(*arrived, next_offset=next_offset, has_more=has_more)
        while self.is_sleeping():
            seconds.append(self.sleeps())
            self.answers(*arrived, next_offset=next_offset, has_more=has_more)
        return seconds

    def applies(self) -> None:
        self.tell(EventsApplied())

    def receives(self, *offsets: int) -> None:
        """Events arrive and are applied, and nothing is left behind."""
        self.answers(*offsets, next_offset=offsets[-1] + 1, has_more=False)
        self.applies()

    def sleeps(self, share: float = 1.0) -> float:
        """The wait passes, with `share` of its random part. Returns how long it was."""
        assert isinstance(self.command, Sleep), self.command
        seconds = self.command.at_least_seconds + share * self.command.spread_seconds
        self.now += seconds
        self.tell(Slept())
        return seconds

    def fails(
        self, failure: Failure = Failure.UNREACHABLE, retry_after: float | None = None
    ) -> None:
        self.tell(ExchangeFailed(failure, f"it was {failure}", retry_after))

    def page(
        self, *, last: bool = False, head: int | None = None, generation: str | None = None
    ) -> None:
        """A page is applied to the replica; `last`: none follows it; `head`: its `eventOffset`."""
        self.tell(PageApplied(None if last else PageRequest(200, 200), head, generation))

    def installs(self, products: int = 400) -> None:
        self.tell(ReplicaInstalled(products))

    def refuses(self, products: int = 3) -> None:
        self.tell(ReplicaRefused("too small", products))

    def goes_well(self, *, head: int = 100, feed: str = "feed") -> None:
        """Central answers well, until the replica is to be installed."""
        while not isinstance(self.command, InstallReplica):
            match self.command:
                case FetchPage():
                    self.page(last=True, head=head)
                case FetchEvents(offset):
                    self.answers(*events(*range(offset, head), feed=feed), next_offset=head)
                case ApplyEvents():
                    self.applies()
                case Sleep():
                    self.sleeps()

    def ends_well(self, *, head: int = 100, feed: str = "feed") -> None:
        """Central answers well until the full sync has ended."""
        self.goes_well(head=head, feed=feed)
        self.installs()

    def waits(self, seconds: float) -> None:
        """Time passes while the command in flight goes on."""
        self.now += seconds

    def requests(self, reason: str, *, forced: bool = False, accept: bool = False) -> None:
        """Request a full sync as the runner does: a wait or a held poll ends early."""
        self.state = request_full_sync(self.state, reason, forced=forced, accept=accept)
        if may_be_interrupted(self.state):
            self.tell(Interrupted())

    # -- questions -------------------------------------------------------------------------

    def is_sleeping(self) -> bool:
        return isinstance(self.command, Sleep)

    def is_full_syncing(self) -> bool:
        return isinstance(self.state.phase, FullSyncing)

    def is_central_replaced(self) -> bool:
        """Whether the feed was lost because Central is another one."""
        return self.state.lost is not None and self.state.lost.is_replaced

    @property
    def full_sync(self) -> FullSync:
        assert isinstance(self.state.phase, FullSyncing), self.state.phase
        return self.state.phase.full_sync

    @property
    def requested(self) -> tuple[str, ...]:
        """Why a full sync is requested."""
        return self.state.requested.reasons if self.state.requested else ()

    @property
    def fetch(self) -> FetchEvents:
        """The events that are being asked for."""
        assert isinstance(self.command, FetchEvents), self.command
        return self.command

    @property
    def replica_position(self) -> Position | None:
        feed = self.full_sync.reading.feed
        if isinstance(feed, PagesAlone):
            return feed.position
        return None if feed.cursor is None else feed.cursor.position

    @property
    def installation(self) -> Installation:
        """How the replica is to be installed."""
        assert isinstance(self.command, InstallReplica), self.command
        return self.command.installation


def followed(
    offset: int = 100, generation: str = LOCAL, settings: SyncSettings | None = None
) -> DrivenSync:
    """A store that has verified its feed, is in sync, and polls it from `offset`."""
    sync = DrivenSync(at(offset, generation), settings)
    if isinstance(sync.state.phase, Checking):
        sync.answers(offset - 1)
    sync.state = replace(sync.state, is_proven=True)
    sync.tell(Interrupted())
    return sync


def may_be_interrupted(state: State) -> bool:
    match state.phase:
        case Sleeping() | Polling():
            return True
        case FullSyncing(full_sync):
            return isinstance(full_sync.in_flight, Sleep)
    return False


# -- what always holds -------------------------------------------------------------------------


def fits(state: State, command: Command) -> bool:
    """Whether the phase waits for the command."""
    if isinstance(state.phase, FullSyncing):
        return command is state.phase.full_sync.in_flight
    return not isinstance(state.phase, Starting) and type(command) is COMMANDS[type(state.phase)]


def check_step(
    before: State, ended: Command, outcome: Outcome, after: State, command: Command
) -> None:
    """P4 and what the runner relies on: no step may break it."""
    assert fits(after, command), f"{command} in {after.phase}"
    check_position(before, ended, outcome, after)
    if isinstance(command, ApplyEvents):
        check_contiguous(after, command)
    if isinstance(command, Sleep):
        assert command.at_least_seconds >= 0
        assert command.spread_seconds >= 0
    if isinstance(command, FetchEvents):
        assert command.offset >= 0
        assert command.wait_seconds >= 0


def check_position(before: State, ended: Command, outcome: Outcome, after: State) -> None:
    """The position moves when events are applied or a replica is installed, to where the command
    said. A feed that gets a name keeps its place."""
    held = before.position
    match outcome, ended:
        case EventsApplied(), ApplyEvents(position=position, in_catalogue=True):
            assert position == after.position
        case ReplicaInstalled(), InstallReplica(installation):
            assert installation.position == after.position
        case _ if held is not None and held.is_local and after.position is not None:
            assert held == replace(after.position, generation=held.generation)
        case _:
            assert held == after.position


def check_contiguous(state: State, command: ApplyEvents) -> None:
    """Events follow on the offset held, without a gap (P4). The replica of a full sync may step
    over a gap that stays, and a feed may begin at 1."""
    cursor = state.cursor
    if isinstance(state.phase, FullSyncing):
        feed = state.phase.full_sync.reading.feed
        assert isinstance(feed, Following)
        cursor = feed.cursor
    assert cursor is not None
    start = cursor.position.offset
    offsets = [each.offset for each in command.events]
    assert offsets == list(range(start, start + len(offsets)))
    if offsets:
        assert command.position.offset == offsets[-1] + 1
        assert command.position.fingerprint == command.events[-1].fingerprint
    else:
        assert not command.in_catalogue or (start, command.position.offset) == (0, 1)
