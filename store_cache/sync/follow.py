"""Following the feed from a position (P4, E1 to E4).

Knows: what is contiguous, what is missing, whether the feed is still the same one, and when the
store is in step.
Refuses to know: full syncs, but for asking for one; files, Central.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from math import ceil

from store_cache.model.event import AnyEvent, QuarantinedEvent
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.sync.backoff import settle_spacing
from store_cache.sync.states import (
    REPLACED,
    ApplyEvents,
    Applying,
    Checking,
    EventsArrived,
    Feed,
    FetchEvents,
    Gap,
    Next,
    Polling,
    Sleep,
    State,
    decide,
    full_sync_due_at,
    request_full_sync,
    rest,
)

GAP_BACKOFF_SECONDS = 0.05
GAP_LONGEST_BACKOFF_SECONDS = 0.4
EARLY_AT_MOST = 5000
"""Events remembered beyond a gap (E2)."""

ANOTHER_EVENT = "Central's feed holds another event at the position"
BACKWARDS = "the feed went backwards"
QUICK_ANSWER_SECONDS = 1.0
"""An empty answer sooner than this, and than half of `wait`, was not held (E1)."""


# -- asking ------------------------------------------------------------------------------------


def ask(state: State, now: float) -> Next:
    """Ask the feed: for the event before the position where that is to be checked, else for what
    comes after it."""
    assert state.position is not None
    if state.feed.unchecked and can_check(state.position):
        fetch = FetchEvents(state.position.offset - 1, 1, 0)
        return replace(state, phase=Checking()), fetch
    return poll(state, now)


def can_check(position: Position) -> bool:
    return position.fingerprint is not None and position.offset > 0


def poll(state: State, now: float) -> Next:
    assert state.position is not None
    wait_seconds = _wait(state, now)
    fetch = FetchEvents(state.position.offset, state.settings.batch_limit, wait_seconds)
    began_at = now if state.poll_began_at is None else state.poll_began_at
    phase = Polling(began_at, wait_seconds)
    return replace(state, phase=phase, poll_began_at=began_at), fetch


def _wait(state: State, now: float) -> int:
    """How long Central may hold the poll: not at all while something is missing, or before it is
    known again that nothing is; and not a second beyond when a full sync is due."""
    if state.feed.gap is not None or not state.is_proven:
        return 0
    if not state.settings.continuous and state.poll_began_at is not None:
        return 0
    due = full_sync_due_at(state)
    if due is None:
        return state.settings.wait_seconds
    return max(1, min(state.settings.wait_seconds, ceil(due - now)))


# -- the fingerprint (E4) ----------------------------------------------------------------------


class Match(StrEnum):
    SAME = "same"
    ANOTHER = "another"
    BEHIND = "behind"


def compare(position: Position, page: EventPage) -> Match:
    """Whether the feed still holds the event before the position. A log that does not reach back
    so far proves nothing, and passes."""
    if generation_changed(position, page.generation):
        return Match.ANOTHER
    before = position.offset - 1
    for event in page.events:
        if event.offset == before:
            same = event.fingerprint == position.fingerprint
            return Match.SAME if same else Match.ANOTHER
    if not page.events and page.next_offset is not None and page.next_offset <= before:
        return Match.BEHIND
    return Match.SAME


def generation_changed(position: Position, named: str | None) -> bool:
    return named is not None and not position.is_local and named != position.named


def checked(state: State, page: EventPage, asked_at: float, now: float) -> Next:
    position = state.position
    assert position is not None
    match compare(position, page):
        case Match.SAME:
            state = skip_check(state)
            return poll(_renamed(state, page.generation), now)
        case Match.BEHIND:
            return _gap(state, BACKWARDS, asked_at, now)
    if generation_changed(position, page.generation):
        return lose(state, f"Central has a new generation {page.generation}", now, replaced=True)
    return lose(state, ANOTHER_EVENT, now, replaced=True)


def skip_check(state: State) -> State:
    return replace(state, feed=replace(state.feed, unchecked=False))


def _renamed(state: State, named: str | None) -> State:
    """Take over the name of a feed that Central did not name before, once it is proved the same.

    The catalogue's own position takes it with the next batch."""
    if named is None or state.position is None or not state.position.is_local:
        return state
    return replace(state, position=state.position.renamed(named))


# -- events ------------------------------------------------------------------------------------


def arrange(
    offset: int, early: Sequence[AnyEvent], arrived: Sequence[AnyEvent]
) -> tuple[tuple[AnyEvent, ...], tuple[AnyEvent, ...]]:
    """Sort events by offset into those contiguous from `offset` and the rest (P4, E2)."""
    if not early and [e.offset for e in arrived] == [*range(offset, offset + len(arrived))]:
        return tuple(arrived), ()
    by_offset = {event.offset: event for event in (*early, *arrived) if event.offset >= offset}
    ready: list[AnyEvent] = []
    while (event := by_offset.pop(offset + len(ready), None)) is not None:
        ready.append(event)
    rest_ = tuple(by_offset[i] for i in sorted(by_offset)[:EARLY_AT_MOST])
    return tuple(ready), rest_


def nameless(events: Sequence[AnyEvent]) -> QuarantinedEvent | None:
    """An event that does not even name its product: only a full sync can tell what changed."""
    for event in events:
        if isinstance(event, QuarantinedEvent) and event.product_id is None:
            return event
    return None


def after(position: Position, ready: Sequence[AnyEvent], named: str | None) -> Position:
    """The position behind contiguous events."""
    generation = named if named is not None and position.is_local else position.generation
    return Position(generation, ready[-1].offset + 1, ready[-1].fingerprint)


def arrived(state: State, polling: Polling, outcome: EventsArrived, now: float) -> Next:
    page, asked_at = outcome.page, now - outcome.held_seconds
    position = state.position
    assert position is not None
    if generation_changed(position, page.generation):
        return lose(state, f"Central has a new generation {page.generation}", now, replaced=True)
    if page.generation is not None and position.is_local and can_check(position):
        return decide(replace(state, feed=state.feed.doubted()))
    ready, early = arrange(position.offset, state.feed.early, page.events)
    if nameless(ready):
        return lose(state, "an event that names no product cannot be applied", now)
    if ready:
        new = after(position, ready, page.generation)
        more = leaves_more(new.offset, page, state.settings.batch_limit) or bool(early)
        unheld = min(state.feed.unheld, 1)
        gap = Gap(now) if early or hint(page, new) > new.offset else None
        feed = Feed(gap=gap, early=early, unheld=unheld)
        keeping = Applying(new, feed, more)
        return replace(state, phase=keeping), ApplyEvents(ready, new)
    state = replace(state, feed=replace(state.feed, early=early))
    if hint(page, position) < position.offset:
        return _gap(state, BACKWARDS, asked_at, now)
    if early or hint(page, position) > position.offset:
        return _gap(state, "events are missing from Central's feed", asked_at, now, page)
    return _in_step(state, polling, outcome.held_seconds, now)


def hint(page: EventPage, position: Position) -> int:
    """Where Central says that an empty page leads; the position itself if it says nothing."""
    return position.offset if page.next_offset is None else page.next_offset


def leaves_more(offset: int, page: EventPage, limit: int) -> bool:
    """Whether Central seems to have more behind `offset` than it gave: a hint for asking again at
    once, never for moving on. A `nextOffset` beyond what it gave is a hole at the page's end."""
    if page.next_offset is not None and page.next_offset > offset:
        return True
    if page.has_more is not None:
        return page.has_more
    return len(page.events) >= limit


def kept(state: State, keeping: Applying, now: float) -> Next:
    state = replace(state, position=keeping.position, feed=keeping.feed)
    if keeping.more:
        return decide(state)
    state = _mark_in_sync(state, now)
    if state.settings.continuous:
        return decide(replace(state, poll_began_at=None))
    return decide(state)  # an interval poll drains until an empty answer


def _mark_in_sync(state: State, now: float) -> State:
    return replace(state, in_sync_at=now, is_proven=True, returned=False)


def _in_step(state: State, polling: Polling, held_seconds: float, now: float) -> Next:
    state = replace(_mark_in_sync(state, now), poll_began_at=None)
    feed = replace(state.feed, gap=None)
    settings = state.settings
    if not settings.continuous:
        state = replace(state, feed=feed.doubted())
        seconds = max(0.0, polling.began_at + settings.interval_seconds - now)
        return rest(state, _before_run(state, seconds, now))
    unheld = _unheld(feed.unheld, polling.wait_seconds, held_seconds)
    state = replace(state, feed=replace(feed, unheld=unheld))
    if unheld < 2:
        return decide(state)
    state = replace(state, feed=state.feed.doubted())
    return rest(state, _before_run(state, settings.interval_seconds, now))


def _unheld(unheld: int, asked_seconds: int, held_seconds: float) -> int:
    """Empty answers in a row that were not held; one that was not to be held tells nothing."""
    if asked_seconds == 0:
        return unheld
    return 0 if held_seconds >= min(QUICK_ANSWER_SECONDS, asked_seconds / 2) else unheld + 1


def _before_run(state: State, seconds: float, now: float) -> Sleep:
    due = full_sync_due_at(state)
    return Sleep(seconds if due is None else max(0.0, min(seconds, due - now)))


# -- gaps (E3) ---------------------------------------------------------------------------------


def gap_rest(gap: Gap) -> Sleep:
    return Sleep(min(GAP_BACKOFF_SECONDS * 2**gap.tries, GAP_LONGEST_BACKOFF_SECONDS))


def _gap(
    state: State, problem: str, asked_at: float, now: float, page: EventPage | None = None
) -> Next:
    """Ask again after a short back-off; still so when asked after the grace, it is loss (E3).
    A feed that seems to have gone backwards may grow past the position meanwhile (E4)."""
    gap = state.feed.gap or Gap(now)
    if asked_at - gap.since < state.settings.grace_seconds:
        feed = state.feed.doubted() if problem == BACKWARDS else state.feed
        state = replace(state, feed=replace(feed, gap=Gap(gap.since, gap.tries + 1)))
        return rest(state, gap_rest(gap))
    position = state.position
    assert position is not None
    if page is not None and begins_at_one(position, state.feed.early, page):
        new = Position(position.generation, 1)
        keeping = Applying(new, Feed(early=state.feed.early), True)
        return replace(state, phase=keeping), ApplyEvents((), new)
    return lose(state, problem, now, replaced=problem == BACKWARDS)


def begins_at_one(position: Position, early: Sequence[AnyEvent], page: EventPage) -> bool:
    """Whether the only offset missing is 0: feeds start at 0 or at 1, and nothing says which."""
    first = early[0].offset if early else page.next_offset
    return position.offset == 0 and first == 1


# -- losing the position -----------------------------------------------------------------------


def lose(state: State, reason: str, now: float, *, replaced: bool = False) -> Next:
    """The position is worth nothing any more: a full sync, at once unless it must be spaced."""
    lost = f"{REPLACED}{reason}" if replaced else reason
    state = settle_spacing(state, now)
    state = replace(state, lost=lost, feed=Feed(), poll_began_at=None)
    return decide(request_full_sync(state, reason))
