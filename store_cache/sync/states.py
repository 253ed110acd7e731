"""The vocabulary of `sync`: outcomes in, commands out, and the state between them.

Knows: what can be told and asked, and what the decisions remember. All values are frozen.
Refuses to know: what follows from what; `following`, `resync` and `sync` decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from store_cache.catalogue.replica import Installation
from store_cache.model.event import AnyEvent
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position

FAILURES_TO_FALL_BACK = 5
ON_DEMAND = "on demand"
FALLBACK_TIMER = "fallback timer"

REPLACED = "replaced: "
"""Prefix of `State.lost` where Central itself was replaced, so that versions held do not count."""


class OutOfTurn(Exception):
    """An outcome that the phase cannot end with: a defect of the driver. Nothing changed."""


# -- outcomes ----------------------------------------------------------------------------------


class Failure(StrEnum):
    """How an exchange with Central failed. The first three are failures that are counted; a limit
    pauses, a refusal names a cause (B1, B2), `GONE` is about the position (410)."""

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
    page: EventPage
    held_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EventsApplied:
    pass


@dataclass(frozen=True, slots=True)
class PageApplied:
    """A page was laid over the copy; `following` is the request for the next, None at the end."""

    following: PageRequest | None
    event_offset: int | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class ProductsRefetched:
    """All doubted products were read, or given up. `read`: how many it were. `generation`: the
    name of the new feed that one of them turned out to be of; the others were not read then."""

    read: int
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
    """Central's pages make no sense; another attempt is spaced."""

    problem: str


@dataclass(frozen=True, slots=True)
class Slept:
    pass


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A wait or a held poll was ended early: something is wanted, or Central seems back."""


@dataclass(frozen=True, slots=True)
class ExchangeFailed:
    failure: Failure
    problem: str
    retry_after_seconds: float | None = None


Outcome = (
    EventsArrived
    | EventsApplied
    | PageApplied
    | ProductsRefetched
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
    """Wait `at_least_seconds` and a random part of `spread_seconds` more. May be interrupted."""

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
    """Plan, journal and make the change; in the catalogue, in the copy, or in both."""

    events: tuple[AnyEvent, ...]
    position: Position
    in_catalogue: bool = True
    in_copy: bool = False


@dataclass(frozen=True, slots=True)
class FetchPage:
    """`begins`: start a new copy with it. `same_generation`: versions held still count (V3)."""

    request: PageRequest | None
    begins: bool = False
    same_generation: bool = True


@dataclass(frozen=True, slots=True)
class RefetchProducts:
    """Read the copy's doubted products by themselves, from the feed of this name; None: of any."""

    generation: str | None = None


@dataclass(frozen=True, slots=True)
class InstallReplica:
    """Judge the replica, write it as the new snapshot, show it to readers."""

    installation: Installation


Command = Sleep | FetchEvents | ApplyEvents | FetchPage | RefetchProducts | InstallReplica


# -- state -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """The settings that the decisions need, as plain numbers (seconds, events)."""

    continuous: bool = True
    interval_seconds: float = 30.0
    wait_seconds: int = 20
    batch_limit: int = 100
    grace_seconds: float = 2.0
    fallback_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets missing at the position since `since`, asked for `tries` times (E3)."""

    since: float
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Feed:
    """How the following of one position goes: what is missing, what came too early (E2), how many
    empty answers in a row were not held, whether the fingerprint is to be checked first (E4)."""

    gap: Gap | None = None
    early: tuple[AnyEvent, ...] = ()
    unheld: int = 0
    unchecked: bool = False

    def doubted(self) -> Feed:
        """What is left of it where the feed may be another one since it was asked last (E4)."""
        return replace(self, unchecked=True, early=())


@dataclass(frozen=True, slots=True)
class ConnectionHealth:
    """How the line to Central is: failures in a row, and refusals with their cause."""

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
    placed_at: float | None = None


@dataclass(frozen=True, slots=True)
class FullSyncRequest:
    """A full sync that was asked for and has not begun (F1)."""

    reasons: tuple[str, ...]
    forced: bool = False
    accept: bool = False
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class FullSyncRecord:
    """One full sync that ended: why it ran and what came of it (`problem` empty: it was placed).
    Times are those of `now`. `failure`: what ended it, where that was the line."""

    number: int
    reasons: tuple[str, ...]
    began_at: float
    ended_at: float
    products: int = 0
    problem: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RefusedReplica:
    """A reading that was refused because it was too small (F5)."""

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
    """`began_at`: of the first poll since the store was in step; `wait_seconds`: as asked."""

    began_at: float
    wait_seconds: int


@dataclass(frozen=True, slots=True)
class Applying:
    position: Position
    feed: Feed
    more: bool


class FullSyncStep(StrEnum):
    """The steps of a full sync; see `resync`."""

    FIRST_PAGE = "first page"
    HEAD = "learning the head"
    PAGES = "pages"
    CATCHING_UP = "catching up"
    REFETCHING = "settling doubts"
    VERIFYING = "verifying the feed"
    INSTALLING = "placing"


class InFlight(StrEnum):
    """What a run's command in flight is; a step may ask for different things in turn."""

    PAGE = "page"
    EVENTS = "events"
    APPLYING = "applying"
    SLEEPING = "sleeping"
    REFETCHING = "refetching"
    INSTALLING = "installing"


@dataclass(frozen=True, slots=True)
class FullSync:
    """One full sync under way.

    `follow` is where its copy stands in the feed; None until the head is learned. `in_catalogue`:
    the events go into the catalogue in place too, whose position is the same one. `is_open`:
    nothing was followed yet, so the log may begin later than asked. `has_events`: some went into
    the copy, which is then right at `follow` and nowhere else. `check_is_gone`: the log does not
    reach back to the event before `follow`. `named`: the highest `eventOffset` of a page.
    `is_second_reading`: a copy was begun again since the feed had ended before that. `polled_at`:
    when the feed answered last. `are_pages_doubted`: the line failed before anything of the feed
    was seen, so a Central that was restored meanwhile, under its own name, could be told by
    nothing. `follow_up_reason`: why another run has to follow this one.
    """

    number: int
    reasons: tuple[str, ...]
    began_at: float
    forced: bool = False
    accept: bool = False
    same_generation: bool = True
    step: FullSyncStep = FullSyncStep.FIRST_PAGE
    in_flight: InFlight = InFlight.PAGE
    follow: Position | None = None
    feed: Feed = field(default_factory=Feed)
    in_catalogue: bool = False
    is_open: bool = True
    has_events: bool = False
    check_is_gone: bool = False
    feedless: bool = False
    request: PageRequest | None = None
    head: int | None = None
    horizon: int = 0
    named: int = 0
    is_second_reading: bool = False
    generation: str | None = None
    polled_at: float | None = None
    pages_not_before: float = 0.0
    feed_not_before: float = 0.0
    failures: int = 0
    feed_failures: int = 0
    restarts: int = 0
    kept: Position | None = None
    kept_more: bool = False
    are_pages_doubted: bool = False
    follow_up_reason: str = ""

    @property
    def rests_on_pages_alone(self) -> bool:
        """Whether pages were read, and nothing of the feed: no event to know it by again that is as
        young as the pages are."""
        has_pages = self.request is not None or self.step is FullSyncStep.CATCHING_UP
        return has_pages and (self.is_open or self.polled_at is None) and not self.feedless


@dataclass(frozen=True, slots=True)
class FullSyncing:
    full_sync: FullSync


Phase = Starting | Sleeping | Checking | Polling | Applying | FullSyncing


@dataclass(frozen=True, slots=True)
class State:
    """All that the decisions rest on. `position` is what the catalogue in place holds; `lost` says
    why it is worth nothing, or is empty. `in_sync_at`: B5, in the time of `now`. `is_proven`: it
    was in step since the start or the last failure, so that the next poll may be held. `returned`:
    Central has just come back from an outage that many stores may have seen (F6)."""

    settings: SyncSettings
    phase: Phase = field(default_factory=Starting)
    position: Position | None = None
    lost: str = ""
    feed: Feed = field(default_factory=Feed)
    health: ConnectionHealth = field(default_factory=ConnectionHealth)
    spacing: FullSyncSpacing = field(default_factory=FullSyncSpacing)
    requested: FullSyncRequest | None = None
    refused: RefusedReplica | None = None
    in_sync_at: float | None = None
    is_proven: bool = False
    poll_began_at: float | None = None
    returned: bool = False
    full_syncs: tuple[FullSyncRecord, ...] = ()
    full_syncs_begun: int = 0


Next = tuple[State, Command | None]
"""A decision: the next state and what to perform in it; None: `sync.advance` decides
afresh."""


def decide(state: State) -> Next:
    return state, None


def rest(state: State, command: Sleep) -> Next:
    return replace(state, phase=Sleeping()), command


def request_full_sync(
    state: State,
    reason: str,
    *,
    forced: bool = False,
    accept: bool = False,
    not_before: float = 0.0,
) -> State:
    """Ask for a full sync that begins after now (F1); several calls share one."""
    held = state.requested or FullSyncRequest(())
    reasons = held.reasons if reason in held.reasons else (*held.reasons, reason)
    earliest = min(held.not_before, not_before) if held.reasons else not_before
    requested = FullSyncRequest(reasons, held.forced or forced, held.accept or accept, earliest)
    return replace(state, requested=requested)


def full_sync_due_at(state: State) -> float | None:
    """When the wanted full sync may begin; None where none is wanted."""
    if state.requested is None:
        return None
    if state.requested.forced:
        return 0.0
    if state.requested.reasons == (FALLBACK_TIMER,):
        return state.requested.not_before
    return max(state.requested.not_before, state.spacing.next_at)
