"""The steps of a full sync (F1, F2): the half of `sync.advance` that runs while a copy is built.

    Step           asks for                              then
    -------------  ------------------------------------  ------------------------------------------
    FIRST_PAGE     the first page, which names the head  PAGES; HEAD where it names none
    HEAD           the feed's end                        PAGES, from the first page again
    PAGES          pages, and the feed alongside         CATCHING_UP
    CATCHING_UP    the feed, until nothing is left       SETTLING if products are doubted, VERIFYING
    SETTLING       doubted products by themselves        CATCHING_UP
    VERIFYING      the event before the position (E4)    PLACING
    PLACING        that the copy is put in place         the run has ended

A feed that cannot be followed from where the copy stands (410, a new generation, backwards) starts
the copy afresh, three times at the most; so does one of which nothing was seen before the line
failed. A failing page is asked for again: the reading goes on where it was. Five failures in a row
end the run, one where the breaker was open already, so that the feed can be resumed; with no
position to resume from, it goes on until Central is back.
"""

from __future__ import annotations

from dataclasses import replace

from store_cache.catalogue.replica import Installation
from store_cache.model.pages import EventPage
from store_cache.model.position import Position, succeeding_generation
from store_cache.sync.backoff import (
    count_failure,
    pause_after,
    reached,
    spaced,
)
from store_cache.sync.follow import (
    ANOTHER_EVENT,
    BACKWARDS,
    Match,
    after,
    arrange,
    begins_at_one,
    can_check,
    compare,
    gap_rest,
    generation_changed,
    hint,
    leaves_more,
    nameless,
)
from store_cache.sync.states import (
    COUNTED,
    FAILURES_TO_FALL_BACK,
    FALLBACK_TIMER,
    ON_DEMAND,
    REPLACED,
    ApplyEvents,
    Command,
    ConnectionHealth,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    Feed,
    FetchEvents,
    FetchPage,
    FullSync,
    FullSyncFailed,
    FullSyncing,
    FullSyncRecord,
    FullSyncSpacing,
    FullSyncStep,
    Gap,
    InFlight,
    InstallReplica,
    Interrupted,
    Next,
    Outcome,
    OutOfTurn,
    PageApplied,
    ProductsRefetched,
    RefetchProducts,
    RefusedReplica,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Slept,
    State,
    decide,
    request_full_sync,
    rest,
)

FULL_SYNCS_REMEMBERED = 10
SECOND_READING_SECONDS = 600.0
"""A refused catalogue is believed if a reading this much later agrees (F5)."""

FOLLOW_SECONDS = 1.0
"""How often the feed is read alongside the pages: often enough that a log cannot outrun it."""

HEAD_SLACK = 20
"""How many events before the head the copy is followed from: what two writers may publish out of
order, and an event to take the fingerprint from."""

FLAWED_GRACE_SECONDS = 0.25
"""The grace of a hole where another run has to follow anyway: twice the longest that an event was
seen late. A feed with a hole every two seconds would keep the copy from ever being put in place."""

LIVE_BACKLOG = 5000
"""Up to so many events behind the head, the catalogue in place is fed alongside the copy."""

FAR_OFFSET = 2_000_000_000
"""An offset beyond every feed's end that a 32-bit Central can still read."""

RESTARTS_AT_MOST = 3
FEED_FAILURES_FOR_NONE = 2
HEAD_GONE = "the log of events did not reach back to the head of the full sync's first page"
"""Either that head is the last event, long forgotten, or one was missed: nothing tells which."""
OUTRUN = "the log of events was shorter than the full sync"
TOO_SHORT = "Central's feed ended before the events that its catalogue named"
FORCED_FAILURES = 2
"""An operator who waits for a forced run hears of a failing line after so many failures."""


def begin_run(state: State, now: float) -> Next:
    """Start the full sync that is wanted."""
    requested = state.requested
    assert requested is not None
    run = FullSync(
        number=state.full_syncs_begun + 1,
        reasons=requested.reasons,
        began_at=now,
        forced=requested.forced,
        accept=requested.accept,
        same_generation=not state.lost.startswith(REPLACED),
    )
    feed = replace(state.feed.doubted(), gap=None)  # nobody asks from its position meanwhile
    state = replace(
        state, requested=None, full_syncs_begun=run.number, poll_began_at=None, feed=feed
    )
    return _afresh(state, run, head=None)


def advance_run(state: State, run: FullSync, outcome: Outcome, now: float) -> Next:
    """What follows from `outcome` while a full sync runs. Raises OutOfTurn."""
    match run.in_flight, outcome:
        case InFlight.PAGE, PageApplied():
            return _page_taken(_page_works(state), replace(run, failures=0), outcome, now)
        case InFlight.EVENTS, EventsArrived(page, held_seconds):
            run = replace(run, feed_failures=0, polled_at=now - held_seconds)
            return _events_arrived(reached(state), run, page, now)
        case InFlight.APPLYING, EventsApplied():
            return _events_kept(state, run, now)
        case InFlight.SLEEPING, (Slept() | Interrupted()):
            return _proceed(state, run, now)
        case InFlight.REFETCHING, ProductsRefetched():
            return _settled(state, replace(run, failures=0), outcome, now)
        case InFlight.INSTALLING, ReplicaInstalled(products):
            return _placed(state, run, products, now)
        case InFlight.INSTALLING, ReplicaRefused(problem, products):
            return _refused(state, run, problem, products, now)
        case ((InFlight.PAGE | InFlight.EVENTS | InFlight.REFETCHING), ExchangeFailed()):
            return _exchange_failed(state, run, outcome, now)
        case ((InFlight.PAGE | InFlight.REFETCHING), FullSyncFailed(problem)):
            return _broken(state, run, problem, now)
    raise OutOfTurn(f"{type(outcome).__name__} cannot end a run {run.in_flight} in step {run.step}")


def _do(state: State, run: FullSync, in_flight: InFlight, command: Command) -> Next:
    return replace(state, phase=FullSyncing(replace(run, in_flight=in_flight))), command


def _page_works(state: State) -> State:
    """A page arrived. It resets the count of failures, but an open breaker is closed only by the
    feed itself or by a run that ends well (B1)."""
    return (
        state
        if state.health.fallback_due is not None
        else replace(state, health=ConnectionHealth())
    )


# -- what to ask for next ----------------------------------------------------------------------


def _afresh(state: State, run: FullSync, *, head: int | None) -> Next:
    """Begin the copy with the first page; `head` if it is known already."""
    run = replace(
        run, step=FullSyncStep.FIRST_PAGE if head is None else FullSyncStep.PAGES, head=head
    )
    run = replace(run, request=None, feed=Feed(), are_pages_doubted=False)
    return _do(state, run, InFlight.PAGE, FetchPage(None, True, run.same_generation))


def _proceed(state: State, run: FullSync, now: float) -> Next:
    match run.step:
        case FullSyncStep.FIRST_PAGE:
            return _afresh(state, run, head=None)
        case FullSyncStep.HEAD:
            fetch = FetchEvents(_head_guess(run), state.settings.batch_limit, 0)
            return _do(state, run, InFlight.EVENTS, fetch)
        case FullSyncStep.PAGES:
            return _page_or_events(state, run, now)
        case FullSyncStep.CATCHING_UP if not run.feedless:
            return _follow(state, run, now)
        case FullSyncStep.CATCHING_UP | FullSyncStep.REFETCHING:
            settle = RefetchProducts(_known_generation(state, run))
            return _do(
                state, replace(run, step=FullSyncStep.REFETCHING), InFlight.REFETCHING, settle
            )
        case FullSyncStep.VERIFYING if not run.feedless and can_check(_follows(run)):
            return _do(state, run, InFlight.EVENTS, FetchEvents(_follows(run).offset - 1, 1, 0))
    return _place(state, run, now)


def _head_guess(run: FullSync) -> int:
    return FAR_OFFSET if run.head is None else run.head


def _follows(run: FullSync) -> Position:
    if run.follow is None:
        raise OutOfTurn(f"the copy of a run in step {run.step} stands nowhere in the feed")
    return run.follow


def _page_or_events(state: State, run: FullSync, now: float) -> Next:
    begins = run.request is None
    if run.polled_at is not None and now - run.polled_at >= FOLLOW_SECONDS:
        run = replace(_unproved(run), kept_more=True)
    due = run.polled_at is None or run.kept_more
    feed_waits = max(0.0, run.feed_not_before - now)
    if due and not begins and not run.feedless and not feed_waits:
        return _follow(state, run, now)
    if now < run.pages_not_before:
        pages_wait = run.pages_not_before - now
        alongside = pages_wait if run.feedless else max(feed_waits, FOLLOW_SECONDS)
        return _do(state, run, InFlight.SLEEPING, Sleep(min(pages_wait, alongside)))
    return _do(state, run, InFlight.PAGE, FetchPage(run.request, begins, run.same_generation))


def _follow(state: State, run: FullSync, now: float) -> Next:
    if now < run.feed_not_before:
        return _do(state, run, InFlight.SLEEPING, Sleep(run.feed_not_before - now))
    offset = _follows(run).offset - _is_unproved(run)
    fetch = FetchEvents(offset, state.settings.batch_limit, 0)
    return _do(state, run, InFlight.EVENTS, fetch)


def _unproved(run: FullSync) -> FullSync:
    """Time has passed: a Central that was restored meanwhile, under its own name, may have grown
    past the copy's position. Not where the log has just been found not to reach back so far."""
    return run if run.check_is_gone else replace(run, feed=run.feed.doubted())


def _is_unproved(run: FullSync) -> bool:
    """Whether the feed may be another one since it was read last: the event before the copy's
    position is then asked for with those after it (E4)."""
    return run.feed.unchecked and can_check(_follows(run))


def _settled(state: State, run: FullSync, settled: ProductsRefetched, now: float) -> Next:
    """Readings took time: catch up once more after them; with none, the copy is complete."""
    if settled.generation is not None:
        return _restart(state, run, _renewed(settled.generation), now, True)
    step = FullSyncStep.CATCHING_UP if settled.read and not run.feedless else FullSyncStep.VERIFYING
    return _proceed(state, replace(run, step=step), now)


def _place(state: State, run: FullSync, now: float) -> Next:
    refused = state.refused
    agreed = None
    if refused is not None and now - refused.at >= SECOND_READING_SECONDS:
        agreed = refused.products
    run = replace(run, step=FullSyncStep.INSTALLING)
    installation = Installation(
        position=_follows(run),
        accept=run.accept,
        agreed_products=agreed,
        unfollowed_until=run.horizon if run.feedless else 0,
        follow_up_reason=run.follow_up_reason,
    )
    return _do(state, run, InFlight.INSTALLING, InstallReplica(installation))


# -- pages -------------------------------------------------------------------------------------


def _page_taken(state: State, run: FullSync, taken: PageApplied, now: float) -> Next:
    if taken.generation not in (None, _known_generation(state, run) or taken.generation):
        return _restart(state, run, _renewed(taken.generation or ""), now, True)
    run = replace(
        run,
        generation=taken.generation or run.generation,
        request=taken.following,
        horizon=max(run.horizon, _newest_on(taken)),
        named=max(run.named, taken.event_offset or 0),
    )
    if run.step is FullSyncStep.FIRST_PAGE:
        return _head_known(state, run, taken, now)
    return _pages_on(state, run, now)


def _newest_on(taken: PageApplied) -> int:
    """The offset up to which the page's rows may reflect the feed."""
    return FAR_OFFSET if taken.event_offset is None else taken.event_offset + HEAD_SLACK + 1


def _known_generation(state: State, run: FullSync) -> str | None:
    """The name of the feed that the run's pages have to be of; None before there is one."""
    if run.generation is None and run.same_generation and state.position is not None:
        return state.position.named
    return run.generation


def _pages_on(state: State, run: FullSync, now: float) -> Next:
    step = FullSyncStep.PAGES if run.request is not None else FullSyncStep.CATCHING_UP
    return _proceed(state, replace(run, step=step), now)


def _head_known(state: State, run: FullSync, taken: PageApplied, now: float) -> Next:
    """The first page was taken: decide where the copy is followed from (F2)."""
    live = _live_position(state, run, taken.event_offset)
    if live is not None:
        feed = Feed(unchecked=state.feed.unchecked)
        run = replace(run, follow=live, head=taken.event_offset, feed=feed)
        return _pages_on(state, replace(run, in_catalogue=True, is_open=False), now)
    if taken.event_offset is None:
        return _proceed(state, replace(run, step=FullSyncStep.HEAD, head=None), now)
    start = _stand(state, run, max(0, taken.event_offset - HEAD_SLACK))
    run = replace(run, follow=start, head=taken.event_offset, is_open=True, in_catalogue=False)
    return _pages_on(state, run, now)


def _live_position(state: State, run: FullSync, head: int | None) -> Position | None:
    """The position of the catalogue in place, where copy and catalogue can follow the feed
    together from there: it lies before the head, and not too far."""
    position = state.position
    if position is None or state.lost or not run.same_generation:
        return None
    if head is not None and not head - LIVE_BACKLOG <= position.offset <= head + 1:
        return None
    return position


def _stand(state: State, run: FullSync, offset: int) -> Position:
    return Position(_generation(state, run), offset)


def _generation(state: State, run: FullSync) -> str:
    position = state.position
    if position is None or not run.same_generation:
        held = position.generation if position is not None else None
        return succeeding_generation(held, run.generation)
    return position.generation if run.generation in (None, position.named) else run.generation


def _renewed(generation: str) -> str:
    return f"Central has a new generation {generation}"


def _restart(state: State, run: FullSync, problem: str, now: float, replaced: bool) -> Next:
    """The copy's position is worth nothing: begin the copy again."""
    if run.restarts >= RESTARTS_AT_MOST:
        return _broken(state, run, f"{problem}, {run.restarts + 1} times in one full sync", now)
    if replaced or run.in_catalogue:
        marker = f"{REPLACED}{problem}" if replaced else problem
        state = replace(state, lost=marker)
    fresh = replace(
        _begun_again(run),
        reasons=(*run.reasons, problem) if problem not in run.reasons else run.reasons,
        same_generation=run.same_generation and not replaced,
        restarts=run.restarts + 1,
    )
    return _afresh(state, fresh, head=None)


def _begun_again(run: FullSync) -> FullSync:
    """The same run before it has read anything."""
    return FullSync(
        number=run.number,
        reasons=run.reasons,
        began_at=run.began_at,
        forced=run.forced,
        accept=run.accept,
        same_generation=run.same_generation,
        restarts=run.restarts,
        is_second_reading=run.is_second_reading,
    )


# -- the feed alongside ------------------------------------------------------------------------


def _events_arrived(state: State, run: FullSync, page: EventPage, now: float) -> Next:
    if run.step is FullSyncStep.HEAD:
        return _head_arrived(state, run, page, now)
    if generation_changed(_follows(run), page.generation):
        return _restart(state, run, _renewed(page.generation or ""), now, True)
    if run.step is FullSyncStep.VERIFYING:
        return _verified(state, run, page, now)
    if _is_unproved(run) and compare(_follows(run), page) is Match.ANOTHER:
        return _restart(state, run, ANOTHER_EVENT, now, True)
    if run.are_pages_doubted:
        return _afresh(state, _begun_again(run), head=None)
    run = _opened(replace(run, feed=replace(run.feed, unchecked=False)), page)
    follow = _follows(run)
    ready, early = arrange(follow.offset, run.feed.early, page.events)
    if nameless(ready):
        follow_up_reason = "an event that names no product cannot be applied"
        run = replace(run, follow_up_reason=follow_up_reason, in_catalogue=False)
    if ready:
        new = after(follow, ready, page.generation)
        more = leaves_more(new.offset, page, state.settings.batch_limit) or bool(early)
        feed = Feed(gap=Gap(now) if early else None, early=early)
        run = replace(run, kept=new, kept_more=more, feed=feed, is_open=False, has_events=True)
        keep = ApplyEvents(ready, new, run.in_catalogue, True)
        return _do(state, run, InFlight.APPLYING, keep)
    return _nothing_ready(state, replace(run, feed=replace(run.feed, early=early)), page, now)


def _opened(run: FullSync, page: EventPage) -> FullSync:
    """The first answer of the feed may begin later than asked, up to the head: the copy was asked
    to follow from a little before it, further back than the log may reach (F2)."""
    if not run.is_open or run.follow is None or run.head is None:
        return run
    offsets = [event.offset for event in page.events]
    first = min(offsets) if offsets else page.next_offset
    if first is not None and run.follow.offset < first <= run.head + 1:
        return replace(run, follow=Position(run.follow.generation, first))
    return run


def _nothing_ready(state: State, run: FullSync, page: EventPage, now: float) -> Next:
    follow = _follows(run)
    ahead = bool(run.feed.early) or hint(page, follow) > follow.offset
    behind = hint(page, follow) < follow.offset
    if not ahead and not behind and not _ends_short(run):
        return _caught_up(state, replace(run, kept_more=False, is_open=False), now)
    gap, asked_at = run.feed.gap or Gap(now), now if run.polled_at is None else run.polled_at
    grace_seconds = state.settings.grace_seconds
    if run.follow_up_reason:
        grace_seconds = min(grace_seconds, FLAWED_GRACE_SECONDS)
    if asked_at - gap.since < grace_seconds:
        feed = run.feed.doubted() if behind else run.feed
        feed = replace(feed, gap=Gap(gap.since, gap.tries + 1))
        return _do(state, replace(run, feed=feed, kept_more=True), InFlight.SLEEPING, gap_rest(gap))
    if ahead and run.is_open and not begins_at_one(follow, run.feed.early, page):
        return _restart(state, run, OUTRUN, now, False)
    if ahead:
        return _step_over(state, run, page)
    if behind:
        return _restart(state, run, BACKWARDS, now, True)
    return _too_short(state, run, now)


def _ends_short(run: FullSync) -> bool:
    """Whether the feed ends before an event that a page named."""
    catches_up = run.step is FullSyncStep.CATCHING_UP and not run.is_open
    return catches_up and _follows(run).offset < run.named


def _too_short(state: State, run: FullSync, now: float) -> Next:
    """Central was restored under its own name behind the pages' back, or its last events were lost,
    or its feed lags behind its catalogue: another reading tells the first. One more run looks after
    the others, and no third."""
    if not run.is_second_reading:
        again = replace(_begun_again(run), is_second_reading=True)
        return _afresh(state, again, head=None)
    follow_up_reason = run.follow_up_reason or ("" if TOO_SHORT in run.reasons else TOO_SHORT)
    run = replace(run, kept_more=False, named=0, follow_up_reason=follow_up_reason)
    return _caught_up(state, run, now)


def _step_over(state: State, run: FullSync, page: EventPage) -> Next:
    """A hole that stays during the run does not restart it: the copy goes in place, and another
    run follows (F2). Only the copy steps over it."""
    follow = _follows(run)
    first = run.feed.early[0].offset if run.feed.early else hint(page, follow)
    follow_up_reason = (
        run.follow_up_reason or "events were missing from Central's feed during the full sync"
    )
    if begins_at_one(follow, run.feed.early, page):
        follow_up_reason = run.follow_up_reason
    new = Position(follow.generation, first)
    feed = Feed(early=run.feed.early)
    run = replace(
        run,
        kept=new,
        kept_more=True,
        feed=feed,
        follow_up_reason=follow_up_reason,
        in_catalogue=False,
    )
    return _do(state, run, InFlight.APPLYING, ApplyEvents((), new, False, True))


def _events_kept(state: State, run: FullSync, now: float) -> Next:
    run = replace(run, follow=run.kept, kept=None, check_is_gone=False)
    if run.in_catalogue:
        state = replace(state, position=run.follow)
    if run.kept_more or run.step is not FullSyncStep.CATCHING_UP or _ends_short(run):
        return _proceed(state, run, now)
    return _caught_up(state, run, now)


def _caught_up(state: State, run: FullSync, now: float) -> Next:
    """The copy stands at the feed's end, for now."""
    run = replace(run, feed=Feed())
    if run.in_catalogue:
        state = replace(state, in_sync_at=now)
    if run.step is not FullSyncStep.CATCHING_UP:
        return _proceed(state, run, now)
    if _ends_before(state.position, run):
        return _restart(state, run, BACKWARDS, now, True)
    return _proceed(state, replace(run, step=FullSyncStep.REFETCHING), now)


def _ends_before(held: Position | None, run: FullSync) -> bool:
    """Whether the feed's end lies before what the catalogue in place has seen of it (E3)."""
    follow = _follows(run)
    same = held is not None and run.same_generation and held.generation == follow.generation
    return same and held is not None and follow.offset < held.offset


def _head_arrived(state: State, run: FullSync, page: EventPage, now: float) -> Next:
    """The head from the feed itself: an offset beyond it is answered with the true next one; a
    Central that only echoes is walked from the start."""
    asked = _head_guess(run)
    ends = max((event.offset + 1 for event in page.events), default=0)
    if ends > asked or (page.events and asked == FAR_OFFSET):
        return _proceed(state, replace(run, head=ends), now)
    if asked == FAR_OFFSET and page.next_offset in (None, FAR_OFFSET):
        return _proceed(state, replace(run, head=0), now)
    head = asked if page.next_offset is None else page.next_offset
    start = _stand(state, run, max(0, head - HEAD_SLACK))
    return _afresh(state, replace(run, follow=start, is_open=True), head=head)


def _verified(state: State, run: FullSync, page: EventPage, now: float) -> Next:
    match compare(_follows(run), page):
        case Match.SAME:
            return _place(state, run, now)
        case Match.BEHIND:
            return _nothing_ready(state, run, page, now)
    return _restart(state, run, ANOTHER_EVENT, now, True)


# -- failures ----------------------------------------------------------------------------------


def _exchange_failed(state: State, run: FullSync, outcome: ExchangeFailed, now: float) -> Next:
    if outcome.failure is Failure.LIMITED:
        return _limited(state, run, outcome.retry_after_seconds or 1.0, now)
    if outcome.failure is Failure.GONE:
        return _gone(state, run, outcome, now)
    if outcome.failure is Failure.REFUSED and run.step is FullSyncStep.HEAD and run.head is None:
        return _proceed(state, replace(run, head=0), now)  # an offset too far for it: walk
    of_feed = run.in_flight is InFlight.EVENTS
    run = replace(
        run,
        failures=run.failures + (not of_feed),
        # Where pages fail too it is the line, and says nothing of the feed.
        feed_failures=run.feed_failures + 1 if of_feed else 0,
        feed=replace(run.feed.doubted(), gap=None),
        are_pages_doubted=run.are_pages_doubted or run.rests_on_pages_alone,
    )
    already_fell_back = state.health.fallback_due is not None
    state = count_failure(state, outcome, now)
    if of_feed and (
        (already_fell_back and not _goes_on(state, run))
        or _may_do_without_feed(state, run, outcome)
    ):
        return _without_feed(state, run, now)
    if _gives_up(state, run, outcome, already_fell_back):
        return _failed(state, run, outcome, now)
    pause = pause_after(state.health, outcome, now)
    if of_feed and run.step is FullSyncStep.PAGES and _goes_on(state, run):
        longest = pause.at_least_seconds + pause.spread_seconds
        run = replace(run, feed_not_before=now + longest + FOLLOW_SECONDS)  # a page first
    return _do(state, run, InFlight.SLEEPING, pause)


def _limited(state: State, run: FullSync, seconds: float, now: float) -> Next:
    """Central's limit, or the store's own share of it, says not now (F6)."""
    if run.in_flight is InFlight.EVENTS:
        run = replace(_unproved(run), feed_not_before=now + seconds)
        return _proceed_later(state, run, now, seconds)
    if run.step is FullSyncStep.PAGES:
        return _proceed(state, replace(run, pages_not_before=now + seconds), now)
    return _do(state, run, InFlight.SLEEPING, Sleep(seconds))


def _proceed_later(state: State, run: FullSync, now: float, seconds: float) -> Next:
    if run.step is FullSyncStep.PAGES:
        return _proceed(state, run, now)
    return _do(state, run, InFlight.SLEEPING, Sleep(seconds))


def _gone(state: State, run: FullSync, outcome: ExchangeFailed, now: float) -> Next:
    """410: the log does not reach back to where the copy stands. The slack before the head may be
    too much for it; anything else means that it has outrun the reading."""
    if run.in_flight is not InFlight.EVENTS:
        return _broken(state, run, f"Central's catalogue cannot be read: {outcome.problem}", now)
    if run.step is FullSyncStep.HEAD:
        return _without_feed(state, run, now)  # nothing says where it ends
    if run.step is FullSyncStep.VERIFYING:
        return _place(state, run, now)  # the log has no memory of it: that proves nothing
    if _is_unproved(run):
        passed = replace(run, feed=replace(run.feed, unchecked=False), check_is_gone=True)
        return _follow(state, passed, now)
    if run.is_open and run.head is not None and _follows(run).offset <= run.head:
        follow = _follows(run)
        if follow.offset < run.head:
            nearer = Position(follow.generation, run.head)
            return _follow(state, replace(run, follow=nearer), now)
        nearer = Position(follow.generation, run.head + 1)
        return _follow(
            state,
            replace(run, follow=nearer, follow_up_reason=run.follow_up_reason or HEAD_GONE),
            now,
        )
    return _restart(state, run, OUTRUN, now, False)


def _may_do_without_feed(state: State, run: FullSync, outcome: ExchangeFailed) -> bool:
    """With the feed unreadable altogether pages alone are better, with nothing to serve soon
    (F2)."""
    if outcome.failure is Failure.REFUSED:
        return state.position is None
    enough = FEED_FAILURES_FOR_NONE if state.position is None else FAILURES_TO_FALL_BACK
    return _goes_on(state, run) and run.feed_failures >= enough


def _without_feed(state: State, run: FullSync, now: float) -> Next:
    """Go on with the pages alone, to be placed at the first one's `eventOffset`; or, where events
    went into the copy, behind the last of these: what follows it was never laid over the copy."""
    follow = _stand(state, run, run.head or 0) if run.follow is None else run.follow
    if not run.has_events and run.head is not None and follow.offset < run.head:
        follow = Position(follow.generation, run.head)
    run = replace(run, feedless=True, follow=follow, in_catalogue=False)
    if run.step is FullSyncStep.HEAD and run.head:
        return _afresh(state, run, head=run.head)  # that was learned after its page was read
    if run.step is FullSyncStep.HEAD:
        return _pages_on(state, run, now)
    return _proceed(state, run, now)


def _gives_up(
    state: State, run: FullSync, outcome: ExchangeFailed, already_fell_back: bool
) -> bool:
    if outcome.failure not in COUNTED:
        return True
    if _goes_on(state, run):
        return False
    if already_fell_back:
        return True
    most = FORCED_FAILURES if run.forced else FAILURES_TO_FALL_BACK
    return max(run.failures, run.feed_failures) >= most or state.health.fell_back


def _goes_on(state: State, run: FullSync) -> bool:
    """Whether a failing line ends the run at no time: with no position to resume from, what was
    read counts. Not where a person waits; nor without the feed, which alone could tell, once
    Central answers again, that it is still the one that the pages are of."""
    is_waited_for = run.forced or (state.requested is not None and state.requested.forced)
    has_position = state.position is not None and not state.lost
    return not (is_waited_for or has_position or run.feedless)


def _failed(state: State, run: FullSync, outcome: ExchangeFailed, now: float) -> Next:
    """The line ended the run; the next attempt is a probe like any other."""
    state = _recorded(state, run, now, problem=outcome.problem, failure=outcome.failure)
    state = _want_again(state, run)
    if state.requested is not None and state.requested.forced:
        return decide(state)  # somebody waits for it
    return rest(state, pause_after(state.health, outcome, now))


def _want_again(state: State, run: FullSync) -> State:
    """What the store needs stays wanted; a person who asked is told, and the timer comes again."""
    for reason in run.reasons:
        if reason not in (ON_DEMAND, FALLBACK_TIMER):
            state = request_full_sync(state, reason)
    return state


def give_up(state: State, now: float) -> State:
    """End a full sync that a defect of the store has stopped."""
    if not isinstance(state.phase, FullSyncing):
        return state
    run = state.phase.full_sync
    state = _recorded(state, run, now, problem="stopped by a defect of the store; see its log")
    return replace(_want_again(state, run), spacing=spaced(state.spacing, now, None))


def _broken(state: State, run: FullSync, problem: str, now: float) -> Next:
    """Central answers, but the run makes no sense: the next one is spaced."""
    state = _recorded(state, run, now, problem=problem)
    state = replace(_want_again(state, run), spacing=spaced(state.spacing, now, None))
    return decide(state)


# -- the end -----------------------------------------------------------------------------------


def _placed(state: State, run: FullSync, products: int, now: float) -> Next:
    state = _recorded(state, run, now, products=products)
    state = replace(
        state,
        position=run.follow,
        lost="",
        health=ConnectionHealth(),
        feed=Feed(),
        spacing=_spacing_after(state, run, now),
        refused=None,
        in_sync_at=run.began_at if run.feedless else now,
        is_proven=not run.feedless,
    )
    if run.follow_up_reason:
        state = request_full_sync(state, run.follow_up_reason)
    return decide(state)


def _spacing_after(state: State, run: FullSync, now: float) -> FullSyncSpacing:
    """Only runs that the store starts by itself are spaced (F6)."""
    if run.forced or run.reasons == (FALLBACK_TIMER,):
        return replace(state.spacing, placed_at=now)
    return spaced(state.spacing, now, now)


def _refused(state: State, run: FullSync, problem: str, products: int, now: float) -> Next:
    """The copy is too small to be believed (F5): a second reading decides."""
    state = _recorded(state, run, now, problem=problem, products=products)
    refused = state.refused
    if refused is None or now - refused.at >= SECOND_READING_SECONDS:
        refused = RefusedReplica(products, now)
    state = replace(
        state, refused=refused, spacing=spaced(state.spacing, now, None), health=ConnectionHealth()
    )
    again = refused.at + SECOND_READING_SECONDS
    for reason in run.reasons:
        state = request_full_sync(state, reason, not_before=again)
    return decide(state)


def _recorded(
    state: State,
    run: FullSync,
    now: float,
    *,
    products: int = 0,
    problem: str = "",
    failure: Failure | None = None,
) -> State:
    record = FullSyncRecord(run.number, run.reasons, run.began_at, now, products, problem, failure)
    return replace(state, full_syncs=(*state.full_syncs, record)[-FULL_SYNCS_REMEMBERED:])
