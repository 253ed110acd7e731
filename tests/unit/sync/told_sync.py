"""The sync state machine told by hand what happened, in virtual time, and watched at every step.

Knows: which command belongs to which phase, and what must hold from one step to the next whatever
is told. Refuses to know: Central; `small_central` is one that answers by itself.
"""

from __future__ import annotations

from dataclasses import replace

from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent, Event, Kind, QuarantinedEvent, fingerprint
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position, next_local_generation
from store_cache.sync.machine import advance, begin
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
    FullSync,
    FullSyncing,
    InstallReplica,
    Interrupted,
    Outcome,
    PageApplied,
    Polling,
    ProductsRefetched,
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
"""Commands in a row that neither take time nor ask anything of anyone."""

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


class Told:
    """A store's sync: `state`, the `command` in flight, and the time."""

    def __init__(
        self, position: Position | None = None, settings: SyncSettings | None = None
    ) -> None:
        self.now = START
        self.state = begin(settings or SyncSettings(), position)
        self.command: Command = Sleep(0.0)
        self.told: list[tuple[Outcome, Command]] = []
        self._idle = 0
        self.tell(Interrupted())

    # -- telling ---------------------------------------------------------------------------

    def tell(self, outcome: Outcome) -> None:
        before, ended = self.state, self.command
        self.state, self.command = advance(before, outcome, self.now)
        self.told.append((outcome, self.command))
        check_step(before, ended, outcome, self.state, self.command)
        self._count_idle()

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

    def keeps(self) -> None:
        self.tell(EventsApplied())

    def receives(self, *offsets: int) -> None:
        """Events arrive, nothing is left behind, and they are kept."""
        self.answers(*offsets, next_offset=offsets[-1] + 1, has_more=False)
        self.keeps()

    def rests(self, share: float = 1.0) -> float:
        """The wait passes, with `share` of its random part; how long it was."""
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
        """A page is taken; `last`: none follows it; `head`: its `eventOffset`."""
        next_page = None if last else PageRequest(200, 200)
        self.tell(PageApplied(next_page, head, generation))

    def settles(self, read: int = 0) -> None:
        self.tell(ProductsRefetched(read))

    def places(self, products: int = 400) -> None:
        self.tell(ReplicaInstalled(products))

    def refuses(self, products: int = 3) -> None:
        self.tell(ReplicaRefused("too small", products))

    def waits(self, seconds: float) -> None:
        """Time passes while the command in flight goes on."""
        self.now += seconds

    def wants(self, reason: str, *, forced: bool = False, accept: bool = False) -> None:
        """Someone asks for a full sync, as the driver does it: what may be ended early is."""
        self.state = request_full_sync(self.state, reason, forced=forced, accept=accept)
        if may_be_interrupted(self.state):
            self.tell(Interrupted())

    # -- asking ----------------------------------------------------------------------------

    @property
    def full_sync(self) -> FullSync:
        assert isinstance(self.state.phase, FullSyncing), self.state.phase
        return self.state.phase.full_sync

    def is_resting(self) -> bool:
        return isinstance(self.command, Sleep)

    def is_central_replaced(self) -> bool:
        """Whether the feed was lost because Central is another one."""
        return self.state.lost is not None and self.state.lost.is_replaced

    def is_running(self) -> bool:
        return isinstance(self.state.phase, FullSyncing)

    @property
    def fetch(self) -> FetchEvents:
        """The events that are being asked for."""
        assert isinstance(self.command, FetchEvents), self.command
        return self.command

    @property
    def replica_position(self) -> Position | None:
        cursor = self.full_sync.cursor
        return None if cursor is None else cursor.position

    @property
    def installation(self) -> Installation:
        """How the replica is to be installed."""
        assert isinstance(self.command, InstallReplica), self.command
        return self.command.installation

    def _count_idle(self) -> None:
        self._idle = self._idle + 1 if self.command == Sleep(0.0) else 0
        assert self._idle <= IDLE_AT_MOST, "it rests for no time, again and again"


def may_be_interrupted(state: State) -> bool:
    match state.phase:
        case Sleeping() | Polling():
            return True
        case FullSyncing(run):
            return isinstance(run.in_flight, Sleep)
    return False


# -- what always holds -------------------------------------------------------------------------


def fits(state: State, command: Command) -> bool:
    """Whether the command is one that the phase waits for."""
    if isinstance(state.phase, Starting):
        return False
    if isinstance(state.phase, FullSyncing):
        return command is state.phase.full_sync.in_flight
    return type(command) is COMMANDS[type(state.phase)]


def check_step(
    before: State, ended: Command, outcome: Outcome, after: State, command: Command
) -> None:
    """P4 and the driver's side of the contract: what no step may break."""
    assert fits(after, command), f"{command} in {after.phase}"
    check_position(before, ended, outcome, after)
    if isinstance(command, ApplyEvents):
        check_kept(after, command)
    if isinstance(command, Sleep):
        assert command.at_least_seconds >= 0
        assert command.spread_seconds >= 0
    if isinstance(command, FetchEvents):
        assert command.offset >= 0
        assert command.wait_seconds >= 0


def check_position(before: State, ended: Command, outcome: Outcome, after: State) -> None:
    """It moves when events were kept or a copy placed, to where the command said; a feed that
    gets a name keeps its place."""
    held = before.position
    if moved_by(outcome, ended) is not None:
        assert moved_by(outcome, ended) == after.position
    elif held is not None and held.is_local and after.position is not None:
        assert held == replace(after.position, generation=held.generation)
    else:
        assert held == after.position


def moved_by(outcome: Outcome, ended: Command) -> Position | None:
    """Where the command that ended well puts the catalogue; None where it does not move it."""
    match outcome, ended:
        case EventsApplied(), ApplyEvents(position=position, in_catalogue=True):
            return position
        case ReplicaInstalled(), InstallReplica(installation):
            return installation.position
    return None


def check_kept(state: State, command: ApplyEvents) -> None:
    """What is kept follows on the offset held, without a hole (P4); the copy of a run may step
    over one that stays, and a feed may begin at 1."""
    cursor = state.cursor
    if isinstance(state.phase, FullSyncing):
        cursor = state.phase.full_sync.cursor
    assert cursor is not None
    start = cursor.position
    offsets = [each.offset for each in command.events]
    assert offsets == list(range(start.offset, start.offset + len(offsets)))
    if offsets:
        assert command.position.offset == offsets[-1] + 1
        assert command.position.fingerprint == command.events[-1].fingerprint
    else:
        assert not command.in_catalogue or (start.offset, command.position.offset) == (0, 1)
