"""Reading Central's feed: what a page of events means to a reader that stands at a cursor.

Following the feed and the full sync both read it with `read_page`. Who calls it decides what
`Lost` means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from store_cache.model.event import AnyEvent, Event
from store_cache.model.pages import EventPage
from store_cache.model.position import Position

GAP_BACKOFF_SECONDS = 0.05
GAP_LONGEST_BACKOFF_SECONDS = 0.4
EARLY_AT_MOST = 5000
EARLY_BYTES_AT_MOST = 8 * 2**20
"""Events remembered beyond a gap, and the bytes of their rows (E2)."""

ANOTHER_EVENT = "Central's feed holds another event at the position"
BACKWARDS = "the feed went backwards"
MISSING = "events are missing from Central's feed"


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets missing at the position since `since`, asked for again `tries` times (E3)."""

    since: float
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands in the feed, and what it remembers from its last answers.

    `gap`: what is missing at the position. `early`: events from beyond the gap (E2). `unheld`: how
    many empty answers in a row Central did not hold (E1). `is_unverified`: the feed may have been
    replaced since it was read last, so the event before the position must be compared (E4).
    `log_starts_here`: Central's log does not reach back to that event, so it cannot be compared.
    """

    position: Position
    gap: Gap | None = None
    early: tuple[AnyEvent, ...] = ()
    unheld: int = 0
    is_unverified: bool = False
    log_starts_here: bool = False

    @property
    def must_verify(self) -> bool:
        """Whether to compare the event before the position, and whether there is one."""
        return self.is_unverified and can_verify(self.position)

    def unverified(self) -> Cursor:
        """Return a cursor that must be verified again; drops buffered events."""
        return replace(self, early=(), is_unverified=True, log_starts_here=False)

    def paused(self) -> Cursor:
        """Return the cursor after a pause, in which a Central that was restored under its own name
        may have grown past the position: unverified, unless the log does not reach back so far;
        without buffered events in any case."""
        return replace(self, early=()) if self.log_starts_here else self.unverified()

    def interrupted(self) -> Cursor:
        """Return an unverified cursor without a gap: the grace of a gap is time in which Central
        could be asked (E3)."""
        return replace(self.unverified(), gap=None)

    def renamed(self, generation: str) -> Cursor:
        """Return the cursor with another label of the same feed."""
        return replace(self, position=self.position.renamed(generation))

    def at_log_start(self) -> Cursor:
        """Return a cursor for a log that does not reach back further: that proves nothing."""
        return replace(self, is_unverified=False, log_starts_here=True)


# -- what a page means -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A page that was asked for at `asked_at` and arrived `now`. Missing events may still appear
    for `grace_seconds`."""

    page: EventPage
    asked_at: float
    now: float
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """Apply `events`, then stand at `cursor`. `has_more`: ask again at once."""

    events: tuple[AnyEvent, ...]
    cursor: Cursor
    has_more: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be applied yet: ask from `cursor` again after `seconds`."""

    cursor: Cursor
    seconds: float


@dataclass(frozen=True, slots=True)
class AtEnd:
    """Nothing was left behind."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Lost:
    """The feed cannot be followed from the position any more.

    `is_replaced`: Central itself was replaced, so versions held do not count. `resumes_at`: where
    events are missing, the offset of the next one.
    """

    reason: str
    is_replaced: bool = False
    resumes_at: int = 0


def read_page(cursor: Cursor, answer: Answer, *, limit: int) -> Ready | Wait | AtEnd | Lost:
    """Say what a page means to a reader at `cursor`. `limit`: how many events were asked for."""
    has_verified = cursor.must_verify
    if has_verified:
        verified = _verify(cursor, answer)
        if not isinstance(verified, Cursor):
            return verified
        cursor = verified
    page, position = answer.page, cursor.position
    has_more = len(page.events) >= limit if page.has_more is None else page.has_more
    if generation_changed(position, page.generation):
        return new_generation(page.generation)
    is_new_name = page.generation is not None and position.is_local
    if is_new_name and can_verify(position) and not cursor.log_starts_here:
        return Wait(cursor.unverified(), 0.0)  # either the same feed has a name now, or another has
    if holds_another_event(position, page):
        return Lost(ANOTHER_EVENT, is_replaced=True)

    ready, early = arrange(position.offset, cursor.early, page.events)
    if ready:
        generation = page.generation if is_new_name else None
        last = ready[-1]
        position = Position(generation or position.generation, last.offset + 1, last.fingerprint)
        has_gap = bool(early) or leads_to(page, position) > position.offset
        unheld = min(cursor.unheld, 1)
        following = Cursor(position, Gap(answer.now) if has_gap else None, early, unheld)
        return Ready(ready, following, has_gap or has_more)

    cursor, end = replace(cursor, early=early), leads_to(page, position)
    if end < position.offset:
        return _wait_or_lose(cursor, Lost(BACKWARDS, is_replaced=True), answer)
    if early or end > position.offset:
        resumes_at = early[0].offset if early else end
        result = _wait_or_lose(cursor, Lost(MISSING, resumes_at=resumes_at), answer)
        if isinstance(result, Lost) and (position.offset, resumes_at) == (0, 1):
            # Feeds begin at 0 or at 1, and nothing says which.
            return Ready((), Cursor(Position(position.generation, 1), early=early), True)
        return result
    if has_verified and page.events and has_more:
        return Wait(cursor, 0.0)  # the event before the position came alone
    return AtEnd(replace(cursor, gap=None))


# -- the same feed (P1, E4) --------------------------------------------------------------------


def _verify(cursor: Cursor, answer: Answer) -> Cursor | Wait | Lost:
    """Compare the event before the position with the one on the page; return the verified cursor.

    A log that does not reach back so far proves nothing, and passes. The position takes over the
    name of a feed that Central did not name before.
    """
    page, position = answer.page, cursor.position
    if generation_changed(position, page.generation):
        return new_generation(page.generation)
    if holds_another_event(position, page):
        return Lost(ANOTHER_EVENT, is_replaced=True)
    is_shorter = all(event.offset < position.offset - 1 for event in page.events)
    if is_shorter and leads_to(page, position) < position.offset:
        return _wait_or_lose(cursor, Lost(BACKWARDS, is_replaced=True), answer)
    if page.generation is not None and position.is_local:
        position = position.renamed(page.generation)
    return replace(cursor, position=position, is_unverified=False)


def can_verify(position: Position) -> bool:
    """Whether the event before the position is known."""
    return position.fingerprint is not None and position.offset > 0


def generation_changed(position: Position, named: str | None) -> bool:
    return named is not None and not position.is_local and named != position.named


def new_generation(named: str | None) -> Lost:
    return Lost(f"Central has a new generation {named}", is_replaced=True)


def holds_another_event(position: Position, page: EventPage) -> bool:
    """Whether the page shows an event before the position that is not the one known."""
    before = position.offset - 1
    return can_verify(position) and any(
        e.offset == before and e.fingerprint != position.fingerprint for e in page.events
    )


# -- order and gaps (P4, E2, E3) ---------------------------------------------------------------


def arrange(
    offset: int, early: Sequence[AnyEvent], arrived: Sequence[AnyEvent]
) -> tuple[tuple[AnyEvent, ...], tuple[AnyEvent, ...]]:
    """Sort events by offset into those contiguous from `offset` and the rest."""
    if not early and [e.offset for e in arrived] == [*range(offset, offset + len(arrived))]:
        return tuple(arrived), ()
    by_offset = {event.offset: event for event in (*early, *arrived) if event.offset >= offset}
    ready: list[AnyEvent] = []
    while (event := by_offset.pop(offset + len(ready), None)) is not None:
        ready.append(event)
    early, size = [], 0
    for at in sorted(by_offset)[:EARLY_AT_MOST]:
        event = by_offset[at]
        if isinstance(event, Event):
            event = event.digested()
            size += len(event.body or b"")
        if size > EARLY_BYTES_AT_MOST:
            break
        early.append(event)
    return tuple(ready), tuple(early)


def leads_to(page: EventPage, position: Position) -> int:
    """Where Central says that the page leads; the position itself if it says nothing. A hint: it
    never moves the position."""
    return position.offset if page.next_offset is None else page.next_offset


def _wait_or_lose(cursor: Cursor, lost: Lost, answer: Answer) -> Wait | Lost:
    """Ask again after a short back-off; if the page was asked for after the grace, it is loss. A
    feed that went backwards may grow past the position meanwhile, so it is verified then (E4)."""
    gap = cursor.gap or Gap(answer.now)
    if answer.asked_at - gap.since >= answer.grace_seconds:
        return lost
    if lost.reason == BACKWARDS:
        cursor = cursor.unverified()
    seconds = min(GAP_BACKOFF_SECONDS * 2**gap.tries, GAP_LONGEST_BACKOFF_SECONDS)
    return Wait(replace(cursor, gap=Gap(gap.since, gap.tries + 1)), seconds)
