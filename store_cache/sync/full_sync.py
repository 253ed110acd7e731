"""A full sync (F1, F2): the half of `machine.advance` that runs while a replica is built.

    Step           asks for                              then
    -------------  ------------------------------------  ------------------------------------------
    FirstPage      the first page, which names the head  ReadingPages; LearningHead if it names none
    LearningHead   the feed's end                        ReadingPages, from the first page again
    ReadingPages   pages, and the feed alongside         CatchingUp
    CatchingUp     the event before the position (E4),   Installing
                   and the feed, until nothing is left
    Installing     that the replica is installed         the full sync has ended

If the feed cannot be followed from where the replica stands (410, a new generation, backwards), the
replica is begun again, three times at the most; likewise if the connection failed before anything
of the feed was seen. A page that fails is asked for again: the reading resumes where it was. Five
failures in a row end the full sync, or one if the store had fallen back already, so that the feed
can be resumed. Without a position to resume from it goes on until Central is back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from store_cache.catalogue.apply import NAMELESS
from store_cache.catalogue.catalogue import UNFOLLOWED
from store_cache.catalogue.replica import Installation
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position, succeeding_generation
from store_cache.sync.backoff import (
    FIRST_SPACING_SECONDS,
    count_failure,
    pause_after,
    reached,
    request_for_nameless,
    spaced,
)
from store_cache.sync.cursor import (
    BACKWARDS,
    Answer,
    AtEnd,
    Cursor,
    Lost,
    Ready,
    Wait,
    new_generation,
    read_page,
)
from store_cache.sync.follow import nameless
from store_cache.sync.reading import (
    CatchingUp,
    FirstPage,
    Following,
    Installing,
    LearningHead,
    PagesAlone,
    Reading,
    ReadingPages,
)
from store_cache.sync.states import (
    COUNTED,
    FAILURES_TO_FALL_BACK,
    FALLBACK_TIMER,
    ON_DEMAND,
    ApplyEvents,
    Command,
    ConnectionHealth,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    FullSync,
    FullSyncFailed,
    FullSyncing,
    FullSyncRecord,
    InstallReplica,
    Interrupted,
    Next,
    Outcome,
    OutOfTurn,
    PageApplied,
    RefusedReplica,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Slept,
    State,
    request_full_sync,
    sleep,
    without_command,
)

FULL_SYNCS_REMEMBERED = 10
SECOND_READING_SECONDS = 600.0
"""A refused catalogue is believed if a full sync this much later agrees (F5)."""

FOLLOW_SECONDS = 1.0
"""How often the feed is read alongside the pages: often enough that a log cannot outrun it."""

HEAD_SLACK = 20
"""How many events before the head the replica is followed from: what two writers may publish out of
order, and an event to take the fingerprint from."""

FOLLOWED_UP_GRACE_SECONDS = 0.25
"""The grace of a gap if another full sync has to follow anyway: twice the longest that an event was
seen late. A feed with a gap every two seconds would keep the replica from ever being installed."""

LIVE_BACKLOG = 5000
"""Up to so many events behind the head, the catalogue is fed alongside the replica."""

FAR_OFFSET = 2_000_000_000
"""An offset beyond every feed's end that a 32-bit Central can still read."""

RESTARTS_AT_MOST = 3
FEED_FAILURES_FOR_NONE = 2
"""So often must the feed of a first full sync fail until it is given up, if all pages come. If not,
Central may refuse most of whatever it is asked, and pages without the feed may outlive no outage.
"""

OUTRUN = "the log of events was shorter than the full sync"
MISSED = "events were missing from Central's feed during the full sync"
FORCED_FAILURES = 2
"""An operator who waits for a forced full sync hears of a failing connection after so many."""


def begin_full_sync(state: State, now: float) -> Next:
    """Start the full sync that is requested."""
    request = state.requested
    assert request is not None
    reading = Reading(state.lost is None or not state.lost.is_replaced)
    sync = FullSync(state.full_syncs_begun + 1, now, request, reading)
    state = replace(
        state,
        cursor=state.cursor and state.cursor.interrupted(),
        requested=None,
        full_syncs_begun=sync.number,
        poll_began_at=None,
    )
    return _begin_replica(state, sync)


def advance_full_sync(state: State, sync: FullSync, outcome: Outcome, now: float) -> Next:
    """Return what follows from `outcome` during a full sync. Raises OutOfTurn."""
    match sync.in_flight, outcome:
        case FetchPage(), PageApplied():
            return _page_applied(state, sync, outcome, now)
        case FetchEvents(), EventsArrived():
            return _events_arrived(reached(state), sync, outcome, now)
        case ApplyEvents() as applied, EventsApplied():
            return _events_applied(state, sync, applied, now)
        case Sleep(), (Slept() | Interrupted()):
            return _proceed(state, sync, now)
        case InstallReplica(), ReplicaInstalled(products):
            return _installed(state, sync, products, now)
        case InstallReplica(), ReplicaRefused(problem, products):
            return _refused(state, sync, problem, products, now)
        case ((FetchPage() | FetchEvents()), ExchangeFailed()):
            return _exchange_failed(state, sync, outcome, now)
        case FetchPage(), FullSyncFailed(problem):
            return _broken(state, sync, problem, now)
    raise OutOfTurn(f"{type(outcome).__name__} cannot end {sync.in_flight!r} of a full sync")


def _do(state: State, sync: FullSync, command: Command) -> Next:
    return replace(state, phase=FullSyncing(replace(sync, in_flight=command))), command


def _noted(sync: FullSync, **read: Any) -> FullSync:
    """Return the full sync with other values in its reading."""
    return replace(sync, reading=replace(sync.reading, **read))


def _fed(sync: FullSync, **of_feed: Any) -> FullSync:
    """Return the full sync with other values of the feed alongside."""
    return _noted(sync, feed=replace(_following(sync), **of_feed))


def _following(sync: FullSync) -> Following:
    feed = sync.reading.feed
    if not isinstance(feed, Following):
        raise OutOfTurn(f"a full sync of pages alone asked for the feed in step {sync.step}")
    return feed


def _cursor(sync: FullSync) -> Cursor:
    cursor = _following(sync).cursor
    if cursor is None:
        raise OutOfTurn(f"the replica of a full sync in step {sync.step} stands nowhere")
    return cursor


# -- what to ask for next ----------------------------------------------------------------------


def _begin_replica(state: State, sync: FullSync) -> Next:
    """Ask for the first page."""
    sync = replace(_noted(sync, head=None, must_reread_pages=False), step=FirstPage())
    return _do(state, sync, _first_page(sync))


def _begin_pages(state: State, sync: FullSync) -> Next:
    """Ask for the first page once more, since the head was learned after it."""
    sync = replace(_noted(sync, must_reread_pages=False), step=ReadingPages(None))
    return _do(state, sync, _first_page(sync))


def _first_page(sync: FullSync) -> FetchPage:
    return FetchPage(None, True, sync.reading.same_generation)


def _proceed(state: State, sync: FullSync, now: float) -> Next:
    """Ask for what the step needs next."""
    feed = sync.reading.feed
    match sync.step:
        case FirstPage():
            return _begin_replica(state, sync)
        case LearningHead():
            fetch = FetchEvents(_head_guess(sync), state.settings.batch_limit, 0)
            return _do(state, sync, fetch)
        case ReadingPages() as step:
            return _page_or_events(state, sync, step, now)
        case CatchingUp() if isinstance(feed, Following):
            return _fetch_events(state, sync, now)
    return _install(state, sync, now)


def _head_guess(sync: FullSync) -> int:
    head = sync.reading.head
    return FAR_OFFSET if head is None else head


def _page_or_events(state: State, sync: FullSync, step: ReadingPages, now: float) -> Next:
    """Ask for the next page, or for the feed if that is due."""
    begins = step.next_page is None
    fetch = FetchPage(step.next_page, begins, sync.reading.same_generation)
    page_seconds = step.not_before - now
    feed = sync.reading.feed
    if isinstance(feed, PagesAlone):
        return _do(state, sync, Sleep(page_seconds) if page_seconds > 0 else fetch)
    if feed.asked_at is not None and now - feed.asked_at >= FOLLOW_SECONDS:
        feed = replace(feed.paused(), has_more=True)
        sync = _noted(sync, feed=feed)
    is_due = feed.asked_at is None or feed.has_more
    feed_seconds = max(0.0, feed.not_before - now)
    if is_due and not begins and not feed_seconds:
        return _fetch_events(state, sync, now)
    if page_seconds > 0:
        return _do(state, sync, Sleep(min(page_seconds, max(feed_seconds, FOLLOW_SECONDS))))
    return _do(state, sync, fetch)


def _fetch_events(state: State, sync: FullSync, now: float) -> Next:
    """Ask for the events from where the replica stands. If the one before must be verified, it is
    asked for together with them (E4)."""
    feed, cursor = _following(sync), _cursor(sync)
    if now < feed.not_before:
        return _do(state, sync, Sleep(feed.not_before - now))
    offset = cursor.position.offset - cursor.must_verify
    fetch = FetchEvents(offset, state.settings.batch_limit, 0)
    return _do(state, sync, fetch)


# -- pages -------------------------------------------------------------------------------------


def _page_applied(state: State, sync: FullSync, page: PageApplied, now: float) -> Next:
    if state.health.fallback_due is None:  # only the feed or an installation ends the fallback
        state = replace(state, health=ConnectionHealth())
    if page.generation not in (None, _known_generation(state, sync) or page.generation):
        return _restart(state, sync, new_generation(page.generation), now)
    head, reading = page.event_offset, sync.reading
    sync = _noted(
        sync,
        page_failures=0,
        generation=page.generation or reading.generation,
    )
    if not isinstance(sync.step, FirstPage):
        return _after_page(state, sync, page.next_page, now)

    # Decide where the replica is followed from (F2). If the catalogue stands before the head, and
    # not too far, both follow the feed together from there.
    sync = _noted(sync, head=head)
    held = state.followed if reading.same_generation else None
    seen = _following(sync)
    if held is not None and _is_near(held, head):
        sync = _noted(sync, feed=Following(held, is_open=False))
    elif seen.cursor is not None and _is_near(seen.cursor, head):
        # It is seen again, and compared, before anything is applied.
        sync = _fed(sync, cursor=seen.cursor.unverified(), is_open=False, has_more=True)
    elif head is None:
        sync = replace(_noted(sync, feed=Following()), step=LearningHead(page.next_page))
        return _proceed(state, sync, now)
    else:
        start = Cursor(_position_at(state, sync, max(0, head - HEAD_SLACK)))
        sync = _noted(sync, feed=Following(start))
    return _after_page(state, sync, page.next_page, now)


def _is_near(cursor: Cursor, head: int | None) -> bool:
    """Whether a cursor stands before the head, as far as that is known, and not too far."""
    return head is None or head - LIVE_BACKLOG <= cursor.position.offset <= head + 1


def _after_page(state: State, sync: FullSync, next_page: PageRequest | None, now: float) -> Next:
    """Read the next page; or catch up, and compare the event before the position once more."""
    if next_page is not None:
        return _proceed(state, replace(sync, step=ReadingPages(next_page)), now)
    if isinstance(sync.reading.feed, Following):
        sync = _noted(sync, feed=sync.reading.feed.paused())
    return _proceed(state, replace(sync, step=CatchingUp()), now)


def _known_generation(state: State, sync: FullSync) -> str | None:
    """Return the name of the feed that the pages must belong to; None before one is known."""
    reading = sync.reading
    if reading.generation is None and reading.same_generation and state.position is not None:
        return state.position.named
    return reading.generation


def _position_at(state: State, sync: FullSync, offset: int) -> Position:
    """Return a position in the feed that the pages belong to."""
    held, named = state.position, sync.reading.generation
    if held is None or not sync.reading.same_generation:
        before = None if held is None else held.generation
        return Position(succeeding_generation(before, named), offset)
    if named is None or named == held.named:
        return Position(held.generation, offset)
    return Position(named, offset)


def _restart(state: State, sync: FullSync, lost: Lost, now: float) -> Next:
    """Begin the replica again: its position is worth nothing any more."""
    restarts = sync.reading.restarts + 1
    if restarts > RESTARTS_AT_MOST:
        return _broken(state, sync, f"{lost.reason}, {restarts} times in one full sync", now)
    if lost.is_replaced or _feeds_catalogue(state, sync):
        state = replace(state, lost=lost)
    reading = Reading(sync.reading.same_generation and not lost.is_replaced, restarts)
    return _begin_replica(state, replace(_with_reason(sync, lost.reason), reading=reading))


def _with_reason(sync: FullSync, reason: str) -> FullSync:
    reasons = tuple(dict.fromkeys((*sync.reasons, reason)))
    return replace(sync, request=replace(sync.request, reasons=reasons))


# -- the feed alongside ------------------------------------------------------------------------


def _feeds_catalogue(state: State, sync: FullSync) -> bool:
    """Whether events go into the catalogue, too: it stands where the replica stands."""
    feed, held = sync.reading.feed, state.followed
    if not isinstance(feed, Following) or feed.cursor is None or held is None:
        return False
    at, held_at = feed.cursor.position, held.position
    is_same = (at.offset, at.fingerprint) == (held_at.offset, held_at.fingerprint)
    return sync.reading.same_generation and is_same


def _events_arrived(state: State, sync: FullSync, outcome: EventsArrived, now: float) -> Next:
    page, asked_at = outcome.page, now - outcome.took_seconds
    sync = _noted(_fed(sync, asked_at=asked_at), feed_failures=0)
    if isinstance(sync.step, LearningHead):
        return _head_arrived(state, sync, page, now)
    grace_seconds = state.settings.grace_seconds
    if sync.reading.follow_up_reason:
        grace_seconds = min(grace_seconds, FOLLOWED_UP_GRACE_SECONDS)
    answer = Answer(page, asked_at, now, grace_seconds)
    sync = _fed(sync, cursor=_opened(sync, page))
    read = read_page(_cursor(sync), answer, limit=state.settings.batch_limit)
    match read:
        case Lost():
            return _lost(state, sync, read, now)
        case _ if sync.reading.must_reread_pages:
            return _reread_pages(state, sync, read)
        case Wait(cursor, seconds):
            sync = _fed(sync, cursor=cursor, has_more=True)
            return _do(state, sync, Sleep(seconds)) if seconds else _proceed(state, sync, now)
        case AtEnd(cursor):
            return _caught_up(state, _fed(sync, cursor=cursor), now)
        case Ready():
            return _apply(state, sync, read)


def _reread_pages(state: State, sync: FullSync, read: Ready | Wait | AtEnd) -> Next:
    """The connection failed after the pages, and the feed is seen for the first time since.

    The pages are read again, and followed from where the feed was seen to: they reflect what came
    before. From now on, failures are followed by a comparison with it and not by further readings,
    which a Central that refuses most requests would have begin for ever.
    """
    feed = Following()
    if isinstance(read, Ready | AtEnd):
        feed = Following(read.cursor, asked_at=_following(sync).asked_at)
    reading = Reading(sync.reading.same_generation, sync.reading.restarts, feed=feed)
    return _begin_replica(state, replace(sync, reading=reading))


def _apply(state: State, sync: FullSync, ready: Ready) -> Next:
    head = sync.reading.head
    if unread := nameless(ready.events):
        # If this full sync fails, another one still has to follow.
        sync = _with_reason(sync, NAMELESS)
        # Pages show what was changed before the head that they name.
        if head is None or unread[-1].offset >= head:
            sync = _followed_up(sync, NAMELESS)
    in_catalogue = _feeds_catalogue(state, sync)
    sync = _fed(sync, next_cursor=ready.cursor, has_more=ready.has_more, is_open=False)
    apply = ApplyEvents(ready.events, ready.cursor.position, in_catalogue, in_replica=True)
    return _do(state, sync, apply)


def _opened(sync: FullSync, page: EventPage) -> Cursor:
    """Return where the replica is followed from. The first answer may begin later than asked, up to
    the head: the replica was to be followed from a little before it, where the log may not reach
    back to (F2). An event at the head itself may still be published late; feeds begin at 0 or 1."""
    cursor, head = _cursor(sync), sync.reading.head
    if _following(sync).is_open and head is not None:
        offsets = [event.offset for event in page.events]
        first = min(offsets) if offsets else page.next_offset
        if first is not None and cursor.position.offset < first <= max(head, 1):
            return Cursor(Position(cursor.position.generation, first))
    return cursor


def _followed_up(sync: FullSync, reason: str) -> FullSync:
    """Have another full sync follow. One for lost events is not spaced as one for NAMELESS is."""
    if sync.reading.follow_up_reason not in ("", NAMELESS):
        return sync
    return _noted(sync, follow_up_reason=reason)


def _lost(state: State, sync: FullSync, lost: Lost, now: float) -> Next:
    """The feed cannot be followed from where the replica stands."""
    if lost.is_replaced:
        return _restart(state, sync, lost, now)
    # The head may be the last event (P2), and the log begin behind it.
    if _following(sync).is_open and lost.resumes_at > (sync.reading.head or 0) + 1:
        return _restart(state, sync, Lost(OUTRUN), now)
    # A gap that stays does not begin the replica again: it is installed, and another full sync
    # follows (F2). Only the replica steps over the gap.
    position = Position(_cursor(sync).position.generation, lost.resumes_at)
    sync = _fed(_followed_up(sync, MISSED), next_cursor=Cursor(position), has_more=True)
    apply = ApplyEvents((), position, in_catalogue=False, in_replica=True)
    return _do(state, sync, apply)


def _events_applied(state: State, sync: FullSync, applied: ApplyEvents, now: float) -> Next:
    feed = _following(sync)
    sync = _fed(sync, cursor=feed.next_cursor, next_cursor=None)
    if applied.in_catalogue and state.cursor is not None:
        state = replace(state, cursor=replace(state.cursor, position=_cursor(sync).position))
    if feed.has_more or not isinstance(sync.step, CatchingUp):
        return _proceed(state, sync, now)
    return _caught_up(state, sync, now)


def _caught_up(state: State, sync: FullSync, now: float) -> Next:
    """The replica stands at the feed's end, for now."""
    caught_up_at = _following(sync).asked_at
    sync = _fed(sync, has_more=False, is_open=False, caught_up_at=caught_up_at)
    if _feeds_catalogue(state, sync):
        state = replace(state, in_sync_at=caught_up_at)
    if not isinstance(sync.step, CatchingUp):
        return _proceed(state, sync, now)
    held = state.position if sync.reading.same_generation else None
    position = _cursor(sync).position
    is_same = held is not None and held.generation == position.generation
    if held is not None and is_same and position.offset < held.offset:
        return _restart(state, sync, Lost(BACKWARDS, is_replaced=True), now)
    return _install(state, sync, now)


def _head_arrived(state: State, sync: FullSync, page: EventPage, now: float) -> Next:
    """Learn the head from the feed itself: an offset beyond it is answered with the true next one.
    If Central only echoes the offset, the feed is walked from its start."""
    asked = _head_guess(sync)
    ends = max((event.offset + 1 for event in page.events), default=0)
    if ends > asked or (page.events and asked == FAR_OFFSET):
        return _proceed(state, _noted(sync, head=ends), now)
    if asked == FAR_OFFSET and page.next_offset in (None, FAR_OFFSET):
        return _proceed(state, _noted(sync, head=0), now)
    head = asked if page.next_offset is None else page.next_offset
    start = Cursor(_position_at(state, sync, max(0, head - HEAD_SLACK)))
    return _begin_pages(state, _fed(_noted(sync, head=head), cursor=start))


# -- failures ----------------------------------------------------------------------------------


def _exchange_failed(state: State, sync: FullSync, failed: ExchangeFailed, now: float) -> Next:
    of_feed = isinstance(sync.in_flight, FetchEvents)
    is_learning = isinstance(sync.step, LearningHead)
    match failed.failure:
        case Failure.LIMITED:
            return _limited(state, sync, failed.retry_after_seconds or 1.0, now)
        case Failure.GONE if of_feed:
            return _gone(state, sync, now)
        case Failure.GONE:
            problem = f"Central's catalogue cannot be read: {failed.problem}"
            return _broken(state, sync, problem, now)
        case Failure.REFUSED if is_learning and sync.reading.head is None:
            return _proceed(state, _noted(sync, head=0), now)  # an offset too far for it: walk
    reading = sync.reading
    sync = _noted(
        sync,
        page_failures=reading.page_failures + (not of_feed),
        has_page_failed=reading.has_page_failed or not of_feed,
        # If pages fail too it is the connection, and says nothing about the feed.
        feed_failures=reading.feed_failures + 1 if of_feed else 0,
        must_reread_pages=reading.must_reread_pages or _rests_on_pages_alone(sync),
    )
    feed = sync.reading.feed
    if isinstance(feed, Following) and feed.cursor is not None:
        sync = _fed(sync, cursor=feed.cursor.interrupted())
    had_fallen_back = state.health.fallback_due is not None
    state = count_failure(state, failed, now)
    goes_on = _goes_on(state, sync)
    if of_feed and (
        (had_fallen_back and not goes_on) or _may_do_without_feed(state, sync, failed, goes_on)
    ):
        return _without_feed(state, sync, now)
    if failed.failure not in COUNTED or not (goes_on or _may_retry(state, sync, had_fallen_back)):
        return _end_failed(state, sync, failed, now)
    pause = pause_after(state.health, failed, now)
    if of_feed and isinstance(sync.step, ReadingPages) and goes_on:
        longest = pause.at_least_seconds + pause.spread_seconds
        sync = _fed(sync, not_before=now + longest + FOLLOW_SECONDS)  # a page first
    return _do(state, sync, pause)


def _rests_on_pages_alone(sync: FullSync) -> bool:
    """Whether pages were read, and nothing of the feed: no event that is as young as the pages
    would show a replaced feed."""
    feed = sync.reading.feed
    if isinstance(feed, PagesAlone) or not (feed.is_open or feed.asked_at is None):
        return False
    match sync.step:
        case ReadingPages(next_page) | LearningHead(next_page):
            return next_page is not None
    return isinstance(sync.step, CatchingUp)


def _limited(state: State, sync: FullSync, seconds: float, now: float) -> Next:
    """Central's limit, or the store's own share of it, says not now (F6). Pages and feed do not
    wait for each other."""
    if isinstance(sync.in_flight, FetchEvents):
        feed = replace(_following(sync).paused(), not_before=now + seconds)
        sync = _noted(sync, feed=feed)
    elif isinstance(sync.step, ReadingPages):
        sync = replace(sync, step=replace(sync.step, not_before=now + seconds))
    if isinstance(sync.step, ReadingPages):
        return _proceed(state, sync, now)
    return _do(state, sync, Sleep(seconds))


def _gone(state: State, sync: FullSync, now: float) -> Next:
    """410: the log does not reach back to where the replica stands. The slack before the head may
    be too much for it; anything else means that it has outrun the reading."""
    if isinstance(sync.step, LearningHead):
        return _without_feed(state, sync, now)  # nothing says where it ends
    cursor, head = _cursor(sync), sync.reading.head
    if cursor.must_verify:
        return _fetch_events(state, _fed(sync, cursor=cursor.at_log_start()), now)
    position = cursor.position
    if not _following(sync).is_open or head is None or position.offset > head:
        return _restart(state, sync, Lost(OUTRUN), now)
    # The head may be the last event, long forgotten, or the one after it.
    nearer = Cursor(Position(position.generation, max(head, position.offset + 1)))
    return _fetch_events(state, _fed(sync, cursor=nearer), now)


def _goes_on(state: State, sync: FullSync) -> bool:
    """Whether no failing connection ends the full sync: with no position to resume from, what was
    read counts. Not if a person waits; nor without the feed, because only the feed could show, once
    Central answers again, that it is still the one that the pages belong to."""
    next_forced = state.requested is not None and state.requested.forced
    is_without_feed = isinstance(sync.reading.feed, PagesAlone)
    has_position = state.followed is not None
    return not (sync.request.forced or next_forced or has_position or is_without_feed)


def _may_retry(state: State, sync: FullSync, had_fallen_back: bool) -> bool:
    """Whether a full sync that a failing connection can end may go on this time."""
    if had_fallen_back or state.health.fell_back:
        return False
    at_most = FORCED_FAILURES if sync.request.forced else FAILURES_TO_FALL_BACK
    return max(sync.reading.page_failures, sync.reading.feed_failures) < at_most


def _may_do_without_feed(
    state: State, sync: FullSync, failed: ExchangeFailed, goes_on: bool
) -> bool:
    """Whether pages alone are better than nothing: the feed cannot be read at all, and there is
    nothing to serve soon (F2)."""
    if failed.failure is Failure.REFUSED:
        return state.position is None or state.is_unfollowed
    is_feed_alone = state.position is None and not sync.reading.has_page_failed
    enough = FEED_FAILURES_FOR_NONE if is_feed_alone else FAILURES_TO_FALL_BACK
    return goes_on and sync.reading.feed_failures >= enough


def _without_feed(state: State, sync: FullSync, now: float) -> Next:
    """Go on with the pages alone. The replica stands at the first page's `eventOffset`, or where it
    was followed to beyond that. The feed is not followed from there: once it can be read, another
    full sync follows."""
    feed, head = _following(sync), sync.reading.head or 0
    position = _position_at(state, sync, head) if feed.cursor is None else feed.cursor.position
    if position.offset < head:
        position = Position(position.generation, head)
    sync = _noted(sync, feed=PagesAlone(position))
    if not isinstance(sync.step, LearningHead):
        return _proceed(state, sync, now)
    if head:
        return _begin_pages(state, sync)  # it was learned after its page was read
    return _after_page(state, sync, sync.step.next_page, now)


# -- the end -----------------------------------------------------------------------------------


def _install(state: State, sync: FullSync, now: float) -> Next:
    refused, agreed_products = state.refused, None
    if refused is not None and now - refused.at >= SECOND_READING_SECONDS:
        agreed_products = refused.products
    is_alone = isinstance(sync.reading.feed, PagesAlone)
    installation = Installation(
        position=_stands_at(sync),
        age_seconds=now - _in_sync_at(sync),
        accept=sync.request.accept,
        agreed_products=agreed_products,
        follow_up_reason=UNFOLLOWED if is_alone else sync.reading.follow_up_reason,
    )
    sync = replace(sync, step=Installing())
    return _do(state, sync, InstallReplica(installation))


def _stands_at(sync: FullSync) -> Position:
    """Return where the replica stands in the feed."""
    feed = sync.reading.feed
    return feed.position if isinstance(feed, PagesAlone) else _cursor(sync).position


def _in_sync_at(sync: FullSync) -> float:
    """Return when Central is known to have been in the replica's state."""
    feed = sync.reading.feed
    if isinstance(feed, PagesAlone) or feed.caught_up_at is None:
        return sync.began_at
    return feed.caught_up_at


def _installed(state: State, sync: FullSync, products: int, now: float) -> Next:
    # Only full syncs that the store starts by itself are spaced (F6).
    if sync.request.forced or set(sync.reasons) <= {FALLBACK_TIMER, NAMELESS}:
        spacing = replace(state.spacing, installed_at=now)
    else:
        spacing = spaced(state.spacing, now, now)
    nameless_spacing = state.nameless_spacing
    if NAMELESS in sync.reasons:
        nameless_spacing = spaced(nameless_spacing, now, now)
    is_alone = isinstance(sync.reading.feed, PagesAlone)
    state = replace(
        _recorded(state, sync, now, products=products),
        cursor=Cursor(_stands_at(sync)),
        lost=None,
        health=ConnectionHealth(),
        spacing=spacing,
        nameless_spacing=nameless_spacing,
        refused=None,
        in_sync_at=_in_sync_at(sync),
        is_proven=not is_alone,
        is_unfollowed=is_alone,
    )
    follow_up_reason = "" if is_alone else sync.reading.follow_up_reason
    if follow_up_reason == NAMELESS:
        state = request_for_nameless(state, now)
    elif follow_up_reason:
        state = request_full_sync(state, follow_up_reason)
    return without_command(state)


def _refused(state: State, sync: FullSync, problem: str, products: int, now: float) -> Next:
    """The replica is too small to be believed (F5): a second reading decides."""
    state = _recorded(state, sync, now, problem=problem, products=products)
    refused = state.refused
    if refused is None or now - refused.at >= SECOND_READING_SECONDS:
        refused = RefusedReplica(products, now)
    spacing = spaced(state.spacing, now, None)
    state = replace(state, refused=refused, spacing=spacing, health=ConnectionHealth())
    for reason in sync.reasons:
        not_before = refused.at + SECOND_READING_SECONDS
        state = request_full_sync(state, reason, not_before=not_before)
    return without_command(state)


def _end_failed(state: State, sync: FullSync, failed: ExchangeFailed, now: float) -> Next:
    """The connection ended the full sync; the next attempt is a probe like any other."""
    state = _recorded(state, sync, now, problem=failed.problem, failure=failed.failure)
    state = _requested_again(state, sync, now)
    if state.requested is not None and state.requested.forced:
        return without_command(state)  # a person waits for it
    return sleep(state, pause_after(state.health, failed, now))


def _broken(state: State, sync: FullSync, problem: str, now: float) -> Next:
    """Central answers, but the full sync makes no sense: the next one is spaced."""
    state = _recorded(state, sync, now, problem=problem)
    state = _requested_again(state, sync, now)
    return without_command(replace(state, spacing=spaced(state.spacing, now, None)))


def give_up(state: State, now: float) -> State:
    """End a full sync that a defect of the store has stopped."""
    if not isinstance(state.phase, FullSyncing):
        return state
    problem = "stopped by a defect of the store; see its log"
    return _broken(state, state.phase.full_sync, problem, now)[0]


def _requested_again(state: State, sync: FullSync, now: float) -> State:
    """What the store needs stays requested. A person who asked gets the outcome, and the timer
    comes again. If nothing but a nameless event needs it, the feed is followed first."""
    for reason in sync.reasons:
        if reason == NAMELESS:
            state = request_for_nameless(state, now, not_before=now + FIRST_SPACING_SECONDS)
        elif reason not in (ON_DEMAND, FALLBACK_TIMER):
            state = request_full_sync(state, reason)
    return state


def _recorded(
    state: State,
    sync: FullSync,
    now: float,
    *,
    products: int = 0,
    problem: str = "",
    failure: Failure | None = None,
) -> State:
    record = FullSyncRecord(
        sync.number, sync.reasons, sync.began_at, now, products, problem, failure
    )
    return replace(state, full_syncs=(*state.full_syncs, record)[-FULL_SYNCS_REMEMBERED:])
