"""The values of the sync state machine: outcomes go in, commands come out, `State` is between them.

All are frozen. What follows from what is decided in `machine`, `follow` and `full_sync`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position
from store_cache.sync.cursor import Cursor, Lost
from store_cache.sync.reading import STEP_NAMES, FirstPage, FullSyncStep, Reading, Step

FAILURES_TO_FALL_BACK = 5
ON_DEMAND = "on demand"
FALLBACK_TIMER = "fallback timer"


class OutOfTurn(Exception):
    """An outcome that the phase cannot end with: a defect of the runner. Nothing changed."""


# -- outcomes ----------------------------------------------------------------------------------


class Failure(StrEnum):
    """How an exchange with Central failed. The first three are counted; a limit is a pause, a
    refusal names a cause (B1, B2), `GONE` is about the position (410)."""

    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    LIMITED = "limited"
    DENIED = "denied"
    REFUSED = "refused"
    GONE = "gone"


COUNTED = (Failure.UNREACHABLE, Failure.BROKEN, Failure.UNREADABLE)


@dataclass(frozen=True, slots=True)
class EventsArrived:
    """`took_seconds`: how long the exchange took, from the request to the whole answer; of a page
    that was relayed, how old it is."""

    page: EventPage
    took_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EventsApplied:
    pass


@dataclass(frozen=True, slots=True)
class PageApplied:
    """A page was applied to the replica. `next_page`: the request for the next one, None at the
    end."""

    next_page: PageRequest | None
    event_offset: int | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaInstalled:
    products: int


@dataclass(frozen=True, slots=True)
class ReplicaRefused:
    problem: str
    products: int


@dataclass(frozen=True, slots=True)
class FullSyncFailed:
    """Central's pages make no sense; the next attempt is spaced."""

    problem: str


@dataclass(frozen=True, slots=True)
class Slept:
    pass


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A wait or a held poll was ended early: a full sync is requested, or Central seems back. Also
    the outcome that the run begins with."""


@dataclass(frozen=True, slots=True)
class ExchangeFailed:
    failure: Failure
    problem: str
    retry_after_seconds: float | None = None
    is_held_back: bool = False  # by the store's own rate limit: the usual pace


Outcome = (
    EventsArrived
    | EventsApplied
    | PageApplied
    | ReplicaInstalled
    | ReplicaRefused
    | FullSyncFailed
    | Slept
    | Interrupted
    | ExchangeFailed
)


# -- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait `at_least_seconds`, and a random part of `spread_seconds` more. May be interrupted."""

    at_least_seconds: float
    spread_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FetchEvents:
    """May be interrupted while Central holds it (`wait_seconds` > 0)."""

    offset: int
    limit: int
    wait_seconds: int


@dataclass(frozen=True, slots=True)
class ApplyEvents:
    """Apply a batch to the catalogue, on disk first, to the replica, or to both."""

    events: tuple[AnyEvent, ...]
    position: Position
    in_catalogue: bool = True
    in_replica: bool = False


@dataclass(frozen=True, slots=True)
class FetchPage:
    """`begins`: start a new replica with it. `same_generation`: versions held still count (V3)."""

    request: PageRequest | None
    begins: bool = False
    same_generation: bool = True


@dataclass(frozen=True, slots=True)
class InstallReplica:
    """Judge the replica, write it as the new snapshot, show it to readers."""

    installation: Installation


Command = Sleep | FetchEvents | ApplyEvents | FetchPage | InstallReplica


# -- state -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """The settings that the decisions need, as plain numbers (seconds, events).

    `grace_seconds`: how late an event may appear on the feed (HOLE_GRACE_SECONDS).
    """

    continuous: bool = True
    interval_seconds: float = 30.0
    wait_seconds: int = 20
    batch_limit: int = 100
    grace_seconds: float = 2.0
    fallback_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class ConnectionHealth:
    """Failures in a row of the connection to Central, and refusals with their cause."""

    failures: int = 0
    refusals: int = 0
    failure: Failure | None = None
    problem: str = ""
    since: float | None = None
    fallback_due: float | None = None

    @property
    def fell_back(self) -> bool:
        return self.failures >= FAILURES_TO_FALL_BACK


@dataclass(frozen=True, slots=True)
class FullSyncSpacing:
    """When the store may start another full sync by itself (F6)."""

    next_at: float = 0.0
    delay_seconds: float = 0.0
    installed_at: float | None = None


@dataclass(frozen=True, slots=True)
class FullSyncRequest:
    """A full sync that was requested and has not begun (F1)."""

    reasons: tuple[str, ...]
    forced: bool = False
    accept: bool = False
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class FullSyncRecord:
    """One full sync that has ended. `problem`: why no replica was installed, or empty. `failure`:
    what ended it, if that was the connection. Times are those of `now`."""

    number: int
    reasons: tuple[str, ...]
    began_at: float
    ended_at: float
    products: int = 0
    problem: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RefusedReplica:
    """A replica that was refused because it was too small (F5)."""

    products: int
    at: float


@dataclass(frozen=True, slots=True)
class Starting:
    pass


@dataclass(frozen=True, slots=True)
class Sleeping:
    pass


@dataclass(frozen=True, slots=True)
class Checking:
    pass


@dataclass(frozen=True, slots=True)
class Polling:
    """`wait_seconds`: how long Central may hold the poll."""

    wait_seconds: int


@dataclass(frozen=True, slots=True)
class Applying:
    """`cursor`: where the catalogue stands afterwards. `has_more`: ask again at once. `asked_at`:
    when Central was asked for the events."""

    cursor: Cursor
    has_more: bool
    asked_at: float


@dataclass(frozen=True, slots=True)
class FullSync:
    """One full sync under way.

    `request`: why it runs and how; reasons may be added. `reading`: made anew each time the replica
    is begun. `step`: with what only this step needs.
    """

    number: int
    began_at: float
    request: FullSyncRequest
    reading: Reading = field(default_factory=Reading)
    step: Step = field(default_factory=FirstPage)
    in_flight: Command = FetchPage(None, begins=True)

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.request.reasons

    @property
    def step_name(self) -> FullSyncStep:
        return STEP_NAMES[type(self.step)]


@dataclass(frozen=True, slots=True)
class FullSyncing:
    full_sync: FullSync


Phase = Starting | Sleeping | Checking | Polling | Applying | FullSyncing


@dataclass(frozen=True, slots=True)
class State:
    """All that the decisions rest on.

    `cursor`: where the catalogue that readers see stands in the feed; None while there is none.
    `lost`: why it cannot be followed from there. `in_sync_at`: when the store was last known to be
    in sync (B5), by the clock of `now`, unlike `Catalogue.in_sync_at`. `is_proven`: that was since
    the start and the last failure, so the next poll may be held. `polls_end_early`: since then,
    Central has sent an empty answer sooner than `wait`, so it may not hold polls. `poll_began_at`:
    of the first poll since the store was in sync. `is_unfollowed`: the catalogue is of pages alone,
    and the feed cannot be followed from there.
    `returned`: Central has just come back from an outage that many stores may have seen (F6).
    `nameless_spacing`: see `backoff.request_for_nameless`.
    """

    settings: SyncSettings
    phase: Phase = field(default_factory=Starting)
    cursor: Cursor | None = None
    lost: Lost | None = None
    health: ConnectionHealth = field(default_factory=ConnectionHealth)
    spacing: FullSyncSpacing = field(default_factory=FullSyncSpacing)
    nameless_spacing: FullSyncSpacing = field(default_factory=FullSyncSpacing)
    requested: FullSyncRequest | None = None
    refused: RefusedReplica | None = None
    in_sync_at: float | None = None
    is_proven: bool = False
    polls_end_early: bool = False
    poll_began_at: float | None = None
    is_unfollowed: bool = False
    returned: bool = False
    full_syncs: tuple[FullSyncRecord, ...] = ()
    full_syncs_begun: int = 0

    @property
    def position(self) -> Position | None:
        return None if self.cursor is None else self.cursor.position

    @property
    def followed(self) -> Cursor | None:
        """Where the feed can be followed from; None if it cannot."""
        return None if self.lost is not None or self.is_unfollowed else self.cursor


Next = tuple[State, Command | None]
"""A decision: the next state, and what to perform in it. None: `machine._choose` decides that."""


def renamed(state: State, generation: str) -> State:
    """Return the state with another label of the generation, wherever it names a position."""
    if state.cursor is None:
        return state
    state = replace(state, cursor=state.cursor.renamed(generation))
    if isinstance(state.phase, Applying):
        phase = replace(state.phase, cursor=state.phase.cursor.renamed(generation))
        return replace(state, phase=phase)
    return state


def without_command(state: State) -> Next:
    """Leave the command to `machine._choose`."""
    return state, None


def sleep(state: State, command: Sleep) -> Next:
    return replace(state, phase=Sleeping()), command


def request_full_sync(
    state: State,
    reason: str,
    *,
    forced: bool = False,
    accept: bool = False,
    not_before: float = 0.0,
) -> State:
    """Ask for a full sync that begins after now; several requests share one (F1)."""
    earlier = state.requested or FullSyncRequest((), not_before=not_before)
    request = FullSyncRequest(
        tuple(dict.fromkeys((*earlier.reasons, reason))),
        earlier.forced or forced,
        earlier.accept or accept,
        min(earlier.not_before, not_before),
    )
    return replace(state, requested=request)


def full_sync_due_at(state: State) -> float | None:
    """When the requested full sync may begin; None if none is requested."""
    request = state.requested
    if request is None:
        return None
    if request.forced:
        return 0.0
    if request.reasons == (FALLBACK_TIMER,):
        return request.not_before
    return max(request.not_before, state.spacing.next_at)
