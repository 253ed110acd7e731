"""The circuit breaker of writes (W4): while Central is known to be away, writes fail at once.

    closed   every write goes
    open     no write goes until `retry_at`; then the next one is the probe
    probing  the probe is on its way; no other write goes

One lost answer does not open the breaker: two writes in a row must fail, or a connection must be
impossible, whatever it was for (B4). Only an answer to a write closes it, since a Central may
answer its feed while its writes fail. An answer to the sync permits one probe at once. `now` is
monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FAILURES_TO_OPEN = 2
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
FIRST_PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Closed:
    since: float
    failures: int = 0
    name = "closed"


@dataclass(frozen=True, slots=True)
class Open:
    """`is_reached`: Central answered the sync since it last refused a connection. `is_unanswered`:
    a write that was sent got no answer, so more than the connection is in question."""

    since: float
    retry_at: float
    pause_seconds: float
    is_reached: bool = False
    is_unanswered: bool = False
    name = "open"


@dataclass(frozen=True, slots=True)
class Probing:
    since: float
    pause_seconds: float
    is_reached: bool = False
    is_unanswered: bool = False
    name = "probing"


BreakerState = Closed | Open | Probing


def wait_seconds(state: BreakerState, now: float) -> float:
    """Return how long no write may go: 0.0 if one may go now."""
    if isinstance(state, Closed):
        return 0.0
    return state.pause_seconds if isinstance(state, Probing) else max(state.retry_at - now, 0.0)


def probe_seconds(state: Probing) -> float:
    """Return how long the probe may take: longer after each that Central took and did not answer,
    since it may be slow."""
    if not state.is_unanswered:
        return FIRST_PROBE_SECONDS
    return FIRST_PROBE_SECONDS * state.pause_seconds / FIRST_PAUSE_SECONDS


def is_away(state: BreakerState) -> bool:
    """Return whether writes are known to fail. They are not if only connections were refused, and
    Central answers the sync again: there may have been no write since to close the breaker."""
    return not isinstance(state, Closed) and (state.is_unanswered or not state.is_reached)


def admitted(state: BreakerState) -> BreakerState:
    """Return the state once a write goes. If the breaker is open, the write is the probe."""
    if not isinstance(state, Open):
        return state
    return Probing(state.since, state.pause_seconds, state.is_reached, state.is_unanswered)


def answered(state: BreakerState, now: float) -> BreakerState:
    """Return the state after Central answered a write."""
    if isinstance(state, Closed):
        return Closed(state.since) if state.failures else state
    return Closed(now)


def sync_answered(state: BreakerState, now: float) -> BreakerState:
    """Return the state after Central answered the sync: one probe may go at once, and no more."""
    if isinstance(state, Closed) or state.is_reached:
        return state
    return Open(state.since, now, state.pause_seconds, True, state.is_unanswered)


def failed(
    state: BreakerState,
    now: float,
    *,
    refused: bool,
    is_probe: bool,
    jitter: float,
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
) -> BreakerState:
    """Return the state after a write failed.

    `refused`: no connection was possible. `is_probe`: it is the write that went through the open
    breaker; a late failure of any other changes nothing then. `jitter` is a random number of 0..1.
    """
    if isinstance(state, Probing) and is_probe:
        longer = min(state.pause_seconds * 2, longest_pause_seconds)
        is_reached = state.is_reached and not refused
        is_unanswered = state.is_unanswered or not refused
        return Open(state.since, _resumed(now, longer, jitter), longer, is_reached, is_unanswered)
    if not isinstance(state, Closed):
        return state
    if not refused and state.failures + 1 < FAILURES_TO_OPEN:
        return Closed(state.since, state.failures + 1)
    retry_at = _resumed(now, FIRST_PAUSE_SECONDS, jitter)
    return Open(now, retry_at, FIRST_PAUSE_SECONDS, is_unanswered=not refused)


def refused(state: BreakerState, now: float, *, jitter: float) -> BreakerState:
    """Return the state after another exchange than a write was refused a connection. A probe on its
    way still counts."""
    if isinstance(state, Closed):
        return failed(state, now, refused=True, is_probe=False, jitter=jitter)
    return replace(state, is_reached=False)


def held_back(state: BreakerState, now: float, *, is_probe: bool) -> BreakerState:
    """Return the state after the store itself did not send a write, which says nothing of Central:
    if the write was the probe, the next one is."""
    if isinstance(state, Probing) and is_probe:
        return Open(state.since, now, state.pause_seconds, state.is_reached, state.is_unanswered)
    return state


def _resumed(now: float, pause_seconds: float, jitter: float) -> float:
    """Return when a pause ends: after half of it to all of it, so that stores do not probe together
    (B3)."""
    return now + pause_seconds * (0.5 + jitter / 2)
