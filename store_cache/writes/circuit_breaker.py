"""The circuit breaker of writes (W4): while Central is known to be away, writes fail at once.

    closed   every write goes
    open     no write goes until `retry_at`; then the next one is the probe
    probing  the probe is on its way; no other write goes

One lost answer does not open the breaker: two exchanges in a row must fail, or a connection must be
impossible. The sync, which talks to Central all the time, may know first (B4). `now` is
monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_OPEN = 2
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Closed:
    since: float
    failures: int = 0
    name = "closed"


@dataclass(frozen=True, slots=True)
class Open:
    since: float
    retry_at: float
    pause_seconds: float
    name = "open"


@dataclass(frozen=True, slots=True)
class Probing:
    since: float
    pause_seconds: float
    name = "probing"


BreakerState = Closed | Open | Probing


def wait_seconds(state: BreakerState, now: float) -> float:
    """Return how long no write may go: 0.0 if one may go now."""
    if isinstance(state, Closed):
        return 0.0
    return state.pause_seconds if isinstance(state, Probing) else max(state.retry_at - now, 0.0)


def admitted(state: BreakerState) -> BreakerState:
    """Return the state once a write goes. If the breaker is open, the write is the probe."""
    return Probing(state.since, state.pause_seconds) if isinstance(state, Open) else state


def answered(state: BreakerState, now: float) -> BreakerState:
    """Return the state after Central answered a write or the sync."""
    if isinstance(state, Closed):
        return Closed(state.since) if state.failures else state
    return Closed(now)


def failed(
    state: BreakerState, now: float, *, refused: bool, is_probe: bool, jitter: float
) -> BreakerState:
    """Return the state after a write failed.

    `refused`: no connection was possible. `is_probe`: it is the write that went through the open
    breaker; a late failure of any other changes nothing then. `jitter` is a random number of 0..1.
    """
    if isinstance(state, Probing) and is_probe:
        longer = min(state.pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        return _paused(state.since, now, longer, jitter)
    if not isinstance(state, Closed):
        return state
    if not refused and state.failures + 1 < FAILURES_TO_OPEN:
        return Closed(state.since, state.failures + 1)
    return lost(state, now, jitter=jitter)


def lost(state: BreakerState, now: float, *, jitter: float) -> BreakerState:
    """Return the state after the sync found Central away. A probe on its way still counts."""
    if isinstance(state, Closed):
        return _paused(now, now, FIRST_PAUSE_SECONDS, jitter)
    return state


def _paused(since: float, now: float, pause_seconds: float, jitter: float) -> Open:
    """Pause for half of `pause_seconds` to all of it, so that stores do not probe together (B3)."""
    return Open(since, now + pause_seconds * (0.5 + jitter / 2), pause_seconds)
