"""What a failing line to Central means (B1, B2), and how full syncs are spaced (F6).

Knows: back-off, the breaker of the feed, refusals, spacing.
Refuses to know: what was being asked for.
"""

from __future__ import annotations

from dataclasses import replace

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
    rest,
)

FIRST_BACKOFF_SECONDS = 0.5
PROBE_FLOOR_SECONDS = 2.0
PROBE_SPREAD_SECONDS = 3.0
PROBE_LONGEST_SECONDS = 30.0
OUTAGE_SHARE = 20
"""Probes of an outage are a twentieth of its length apart, between 2-5 and 30 seconds: a short
outage ends for the store within seconds, and after a long one Central is not run down."""

LONG_PAUSE_SECONDS = 30.0
"""In so long a pause a Central that was restored, under its own name, may grow past the position:
the event before it is compared then (E4). Were it so after shorter ones, the returning stores of a
whole chain would ask a Central twice that has just said that it is asked too much."""

REFUSED_FLOOR_SECONDS = 30.0
REFUSED_SPREAD_SECONDS = 30.0
FIRST_SPACING_SECONDS = 30.0
LONGEST_SPACING_SECONDS = 600.0
HELD_SECONDS = 1.0
"""A full sync has held if no loss was seen for so long, and the grace, after its placing (F6)."""


def reached(state: State) -> State:
    """An exchange of the feed succeeded: this closes the breaker."""
    if state.health == ConnectionHealth():
        return state
    return replace(
        state, health=ConnectionHealth(), returned=state.returned or state.health.fell_back
    )


def count_failure(state: State, outcome: ExchangeFailed, now: float) -> State:
    """Note a failure or refusal on the line; after five failures the breaker is open."""
    line = state.health
    failures = line.failures + (outcome.failure in COUNTED)
    refusals = line.refusals + (outcome.failure in (Failure.DENIED, Failure.REFUSED))
    due = line.fallback_due
    if due is None and max(failures, refusals) >= FAILURES_TO_FALL_BACK:
        due = now + state.settings.fallback_seconds
    since = now if line.since is None else line.since
    line = ConnectionHealth(failures, refusals, outcome.failure, outcome.problem, since, due)
    feed = replace(state.feed.doubted(), gap=None)
    return replace(state, health=line, feed=feed, is_proven=False, poll_began_at=None)


def failed(state: State, outcome: ExchangeFailed, now: float) -> Next:
    """A feed exchange failed: wait, and ask again."""
    if outcome.failure is Failure.LIMITED:
        seconds = outcome.retry_after_seconds or 1.0
        if seconds >= LONG_PAUSE_SECONDS:
            state = replace(state, feed=state.feed.doubted())
        return rest(state, Sleep(seconds))
    state = count_failure(state, outcome, now)
    return rest(state, pause_after(state.health, outcome, now))


def pause_after(line: ConnectionHealth, outcome: ExchangeFailed, now: float) -> Sleep:
    """How long to leave Central alone (B1): full jitter, `Retry-After` as the floor."""
    floor = outcome.retry_after_seconds or 0.0
    if outcome.failure in (Failure.DENIED, Failure.REFUSED):
        return Sleep(max(floor, REFUSED_FLOOR_SECONDS), REFUSED_SPREAD_SECONDS)
    if line.fell_back:
        share = 0.0 if line.since is None else (now - line.since) / OUTAGE_SHARE
        spread = min(max(share, PROBE_SPREAD_SECONDS), PROBE_LONGEST_SECONDS - PROBE_FLOOR_SECONDS)
        return Sleep(max(floor, PROBE_FLOOR_SECONDS), spread)
    ceiling = FIRST_BACKOFF_SECONDS * 2 ** max(0, line.failures - 1)
    return Sleep(floor, ceiling)


def settle_spacing(state: State, now: float) -> State:
    """A full sync that has held gives the next one its first attempt at once back (F6). A loss
    takes the grace to be seen: what was missing when the copy was placed did not hold."""
    placed_at, least_seconds = state.spacing.placed_at, state.settings.grace_seconds + HELD_SECONDS
    if placed_at is None or now - placed_at < least_seconds or state.requested is not None:
        return state
    return replace(state, spacing=FullSyncSpacing(placed_at=None))


def spaced(spacing: FullSyncSpacing, now: float, placed_at: float | None) -> FullSyncSpacing:
    """The first run at once, the second after 30 s, doubling to ten minutes (F6)."""
    delay = min(max(FIRST_SPACING_SECONDS, spacing.delay_seconds * 2), LONGEST_SPACING_SECONDS)
    return FullSyncSpacing(now + delay, delay, placed_at)
