"""How long to leave a failing Central alone (B1, B2), and how full syncs are spaced (F6)."""

from __future__ import annotations

from dataclasses import replace

from store_cache.catalogue.apply import NAMELESS
from store_cache.sync.states import (
    COUNTED,
    FAILURES_TO_FALL_BACK,
    ConnectionHealth,
    ExchangeFailed,
    Failure,
    FullSyncSpacing,
    Next,
    Sleep,
    State,
    request_full_sync,
    sleep,
)

FIRST_BACKOFF_SECONDS = 0.5
PROBE_FLOOR_SECONDS = 2.0
PROBE_SPREAD_SECONDS = 3.0
PROBE_LONGEST_SECONDS = 30.0
OUTAGE_SHARE = 20
"""Probes of an outage are a twentieth of its length apart, between 2-5 and 30 seconds: a short
outage ends for the store within seconds, and a long one does not end with a rush on Central."""

LONG_PAUSE_SECONDS = 30.0
"""In so long a pause a Central that was restored under its own name may grow past the position, so
the event before it is verified then (E4). After shorter pauses that would only be a request more to
a Central that has just refused some."""

REFUSED_FLOOR_SECONDS = 30.0
REFUSED_SPREAD_SECONDS = 30.0
FIRST_SPACING_SECONDS = 30.0
LONGEST_SPACING_SECONDS = 600.0
UNLOST_SECONDS = 1.0
"""A full sync was good if the feed was not lost for so long, and the grace, after it ended (F6)."""


def reached(state: State) -> State:
    """End the fallback: an exchange of the feed succeeded."""
    if state.health == ConnectionHealth():
        return state
    returned = state.returned or state.health.fell_back
    return replace(state, health=ConnectionHealth(), returned=returned)


def count_failure(state: State, outcome: ExchangeFailed, now: float) -> State:
    """Note a failure or refusal; five failures in a row begin the fallback."""
    health = state.health
    failures = health.failures + (outcome.failure in COUNTED)
    refusals = health.refusals + (outcome.failure in (Failure.DENIED, Failure.REFUSED))
    due = health.fallback_due
    if due is None and max(failures, refusals) >= FAILURES_TO_FALL_BACK:
        due = now + state.settings.fallback_seconds
    since = now if health.since is None else health.since
    health = ConnectionHealth(failures, refusals, outcome.failure, outcome.problem, since, due)
    cursor = state.cursor and state.cursor.interrupted()
    return replace(
        state,
        health=health,
        cursor=cursor,
        is_proven=False,
        polls_end_early=False,
        poll_began_at=None,
    )


def failed(state: State, outcome: ExchangeFailed, now: float) -> Next:
    """Wait after a failed exchange of the feed, and ask again."""
    if outcome.failure is Failure.LIMITED:
        seconds = outcome.retry_after_seconds or 1.0
        if seconds >= LONG_PAUSE_SECONDS:
            state = replace(state, cursor=state.cursor and state.cursor.paused())
        return sleep(state, Sleep(seconds))
    state = count_failure(state, outcome, now)
    return sleep(state, pause_after(state.health, outcome, now))


def pause_after(health: ConnectionHealth, outcome: ExchangeFailed, now: float) -> Sleep:
    """Return how long to leave Central alone (B1): full jitter, `Retry-After` as the floor."""
    floor = outcome.retry_after_seconds or 0.0
    if outcome.failure in (Failure.DENIED, Failure.REFUSED):
        return Sleep(max(floor, REFUSED_FLOOR_SECONDS), REFUSED_SPREAD_SECONDS)
    if health.fell_back:
        share = 0.0 if health.since is None else (now - health.since) / OUTAGE_SHARE
        spread = min(max(share, PROBE_SPREAD_SECONDS), PROBE_LONGEST_SECONDS - PROBE_FLOOR_SECONDS)
        return Sleep(max(floor, PROBE_FLOOR_SECONDS), spread)
    return Sleep(floor, FIRST_BACKOFF_SECONDS * 2 ** max(0, health.failures - 1))


def settle_spacing(state: State, now: float) -> State:
    """Reset the spacing if the feed was not lost since the last full sync, so that the next one
    may begin at once (F6). Losing the feed over an event that was missing at its end takes as long
    as the grace, so that less time says nothing."""
    installed_at, requested = state.spacing.installed_at, state.requested
    if installed_at is None or (requested is not None and requested.reasons != (NAMELESS,)):
        return state
    was_good = now - installed_at >= state.settings.grace_seconds + UNLOST_SECONDS
    return replace(state, spacing=FullSyncSpacing()) if was_good else state


def spaced(spacing: FullSyncSpacing, now: float, installed_at: float | None) -> FullSyncSpacing:
    """Space the next full sync: the second begins after 30 s, doubling to ten minutes (F6)."""
    delay = min(max(FIRST_SPACING_SECONDS, spacing.delay_seconds * 2), LONGEST_SPACING_SECONDS)
    return FullSyncSpacing(now + delay, delay, installed_at)


def request_for_nameless(state: State, now: float, *, not_before: float = 0.0) -> State:
    """Request a full sync because of an event that only a full sync can make up for (E5).

    The feed is followed meanwhile. So these full syncs have a spacing of their own, which starts
    over only after ten minutes without such an event, and which never holds back one that the store
    cannot do without.
    """
    spacing, requested = state.nameless_spacing, state.requested
    is_waiting = requested is not None and NAMELESS in requested.reasons
    installed_at = spacing.installed_at
    if installed_at is not None and not is_waiting:
        is_over = now - installed_at >= LONGEST_SPACING_SECONDS
        spacing = FullSyncSpacing() if is_over else spacing
    state = replace(state, nameless_spacing=spacing)
    return request_full_sync(state, NAMELESS, not_before=max(spacing.next_at, not_before))
