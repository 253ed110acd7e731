"""Following the feed from the position of the catalogue (P4, E1 to E4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from store_cache.catalogue.catalogue import UNFOLLOWED
from store_cache.model.event import AnyEvent, QuarantinedEvent
from store_cache.sync.backoff import request_for_nameless, settle_spacing
from store_cache.sync.cursor import (
    Answer,
    AtEnd,
    Cursor,
    Lost,
    Ready,
    Wait,
    read_page,
)
from store_cache.sync.states import (
    ApplyEvents,
    Applying,
    Checking,
    EventsArrived,
    FetchEvents,
    Next,
    Polling,
    Sleep,
    State,
    full_sync_due_at,
    request_full_sync,
    sleep,
    without_command,
)

HOLD_TOLERANCE = 0.01
"""A held poll may end this fraction of `wait` early: clocks of two machines differ."""

QUICK_ANSWER_SECONDS = 1.0
"""An empty answer sooner than this, and than half of `wait`, was not held (E1)."""


def cursor_of(state: State) -> Cursor:
    assert state.cursor is not None
    return state.cursor


def ask(state: State, now: float) -> Next:
    """Ask the feed for the events from the position on, together with the one before if that must
    be verified: Central's limit may put a long pause after each request, and after such a pause
    that must be verified again."""
    cursor, limit = cursor_of(state), state.settings.batch_limit
    if cursor.must_verify:
        return replace(state, phase=Checking()), FetchEvents(cursor.position.offset - 1, limit, 0)
    wait_seconds = _wait_seconds(state, cursor, now)
    fetch = FetchEvents(cursor.position.offset, limit, wait_seconds)
    began_at = now if state.poll_began_at is None else state.poll_began_at
    return replace(state, phase=Polling(wait_seconds), poll_began_at=began_at), fetch


def _wait_seconds(state: State, cursor: Cursor, now: float) -> int:
    """How long Central may hold the poll: not at all if events are missing or may be, and not a
    second longer than until a full sync is due."""
    settings = state.settings
    is_draining = not settings.continuous and state.poll_began_at is not None
    if cursor.gap is not None or not state.is_proven or is_draining:
        return 0
    due = full_sync_due_at(state)
    if due is None:
        return settings.wait_seconds
    return max(1, min(settings.wait_seconds, ceil(due - now)))


def arrived(state: State, outcome: EventsArrived, now: float) -> Next:
    """Events have arrived. To pages that were installed without the feed none can be applied; now
    that it can be read, they are read anew."""
    if state.is_unfollowed:
        return lose(state, Lost(UNFOLLOWED), now)
    settings, asked_at = state.settings, now - outcome.took_seconds
    answer = Answer(outcome.page, asked_at, now, settings.grace_seconds)
    read = read_page(cursor_of(state), answer, limit=settings.batch_limit)
    match read:
        case Lost():
            return lose(state, read, now)
        case Wait(cursor, seconds):
            state = replace(state, cursor=cursor)
            return sleep(state, Sleep(seconds)) if seconds else without_command(state)
        case Ready(events, cursor, has_more):
            if nameless(events):
                state = request_for_nameless(state, now)
            phase = Applying(cursor, has_more, asked_at)
            return replace(state, phase=phase), ApplyEvents(events, cursor.position)
        case AtEnd(cursor) if isinstance(state.phase, Checking):
            return ask(_in_sync(replace(state, cursor=cursor), asked_at), now)
        case AtEnd(cursor):
            wait_seconds = state.phase.wait_seconds if isinstance(state.phase, Polling) else 0
            if outcome.page.relayed_at is not None:
                # Nobody held it, and who relays answers when there is something to say.
                wait_seconds, cursor = 0, replace(cursor, unheld=0)
            return _at_end(state, cursor, wait_seconds, outcome.took_seconds, now)


def nameless(events: Sequence[AnyEvent]) -> list[QuarantinedEvent]:
    """Return the events of which only a full sync can tell what they changed (E5)."""
    return [e for e in events if isinstance(e, QuarantinedEvent) and e.needs_full_sync]


def applied(state: State, applying: Applying, now: float) -> Next:
    """A batch is on disk and visible."""
    state = replace(state, cursor=applying.cursor)
    if applying.has_more:
        return without_command(state)
    # In interval mode the polls go on until an empty answer.
    began_at = None if state.settings.continuous else state.poll_began_at
    return without_command(replace(_in_sync(state, applying.asked_at), poll_began_at=began_at))


def lose(state: State, lost: Lost, now: float) -> Next:
    """The position is worth nothing any more: request a full sync, which may have to be spaced."""
    state = settle_spacing(state, now)
    cursor = Cursor(cursor_of(state).position)
    state = replace(state, lost=lost, cursor=cursor, poll_began_at=None)
    return without_command(request_full_sync(state, lost.reason))


def _at_end(
    state: State, cursor: Cursor, wait_seconds: int, took_seconds: float, now: float
) -> Next:
    """Nothing was left behind: poll again at once if Central holds polls, else after the interval
    (E1)."""
    settings = state.settings
    began_at = now if state.poll_began_at is None else state.poll_began_at
    # An empty answer after `wait` was sent when that was over, unless Central does not hold polls:
    # then it was sent as soon as it was asked for, and has been on its way since.
    at_least_seconds = wait_seconds * (1 - HOLD_TOLERANCE)
    polls_end_early = state.polls_end_early or took_seconds < at_least_seconds
    held_seconds = 0 if polls_end_early or took_seconds < wait_seconds else wait_seconds
    state = _in_sync(state, now - took_seconds + held_seconds)
    state = replace(state, polls_end_early=polls_end_early, poll_began_at=None)
    seconds = max(0.0, began_at + settings.interval_seconds - now)
    if settings.continuous:
        if wait_seconds > 0:  # else the answer says nothing about holding
            was_held = took_seconds >= min(QUICK_ANSWER_SECONDS, wait_seconds / 2)
            cursor = replace(cursor, unheld=0 if was_held else cursor.unheld + 1)
        if cursor.unheld < 2:
            return without_command(replace(state, cursor=cursor))
        seconds = settings.interval_seconds
    due = full_sync_due_at(state)
    if due is not None:
        seconds = max(0.0, min(seconds, due - now))
    return sleep(replace(state, cursor=cursor.unverified()), Sleep(seconds))


def _in_sync(state: State, at: float) -> State:
    """Nothing was left behind `at` that time, but events that were applied since. What was relayed
    may be older than what is known."""
    at = at if state.in_sync_at is None else max(at, state.in_sync_at)
    return replace(state, in_sync_at=at, is_proven=True, returned=False)
