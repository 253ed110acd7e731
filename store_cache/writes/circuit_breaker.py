"""The breaker of writes (W4): once Central is known to be away, nobody waits to find it out again.

Knows: when a write may go to Central, and when the next one may try whether it is back.
Refuses to know: clocks, randomness, what a write is. `now` is monotonic seconds.

    closed   every write goes
    open     no write goes until `retry_at`; then the next one is the probe
    probing  the probe is on its way; no other write goes

One lost answer does not close the shop: two exchanges in a row must fail, or one find that there
is nobody to connect to. The sync, which talks to Central all the time, may know first (B4).
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
    """How long a write has to stay away: 0.0 where it may go now."""
    if isinstance(state, Closed):
        return 0.0
    return state.pause_seconds if isinstance(state, Probing) else max(state.retry_at - now, 0.0)


def admitted(state: BreakerState) -> BreakerState:
    """A write goes, where `wait_seconds` was 0.0: through an open breaker it is the probe."""
    return Probing(state.since, state.pause_seconds) if isinstance(state, Open) else state


def answered(state: BreakerState, now: float) -> BreakerState:
    """Central gave an answer, to a write or to the sync."""
    if isinstance(state, Closed):
        return Closed(state.since) if state.failures else state
    return Closed(now)


def failed(
    state: BreakerState, now: float, *, refused: bool, is_probe: bool, jitter: float
) -> BreakerState:
    """A write got no answer from Central; `refused`: there was nobody to connect to.

    `is_probe`: this is the write that went through the open breaker; a late failure of another
    one says nothing new. `jitter` is a random number of 0..1.
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
    """Central is away for certain. A probe on its way is waited for all the same."""
    if isinstance(state, Closed):
        return _paused(now, now, FIRST_PAUSE_SECONDS, jitter)
    return state


def _paused(since: float, now: float, pause_seconds: float, jitter: float) -> Open:
    """Between half of the pause and all of it, so that stores do not probe in step (B3)."""
    return Open(since, now + pause_seconds * (0.5 + jitter / 2), pause_seconds)
