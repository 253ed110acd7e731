"""Staying in sync with Central: one function, `advance(state, outcome, now)`.

The runner performs the command that it returns and hands the outcome back. `now` counts the seconds
of a clock that never goes back. A `Sleep` names its spread, not its length, so nothing here depends
on chance.

    State.phase    what is being done                     ends with
    -------------  -------------------------------------  -----------------------------------------
    Starting       nothing yet                            Interrupted
    Sleeping       a wait                                 Slept, Interrupted
    Checking       asking for the event before the        EventsArrived, ExchangeFailed
                   position (E4), and those after it
    Polling        asking for events from the position    EventsArrived, ExchangeFailed, Interrupted
    Applying       putting events on disk, then visible   EventsApplied
    FullSyncing    a full sync, see `full_sync`           what its command in flight ends with

Any other outcome is out of turn: an error that changes nothing. State moves on facts: the position
on `EventsApplied` and `ReplicaInstalled`, never on an answer alone.
"""

from __future__ import annotations

from dataclasses import replace

from store_cache.model.position import Position
from store_cache.sync.backoff import failed, reached
from store_cache.sync.cursor import Cursor, Lost
from store_cache.sync.follow import applied, arrived, ask, cursor_of, lose
from store_cache.sync.full_sync import advance_full_sync, begin_full_sync, give_up
from store_cache.sync.states import (
    FALLBACK_TIMER,
    Applying,
    Checking,
    Command,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FullSyncing,
    Interrupted,
    Next,
    Outcome,
    OutOfTurn,
    Polling,
    Sleep,
    Sleeping,
    Slept,
    Starting,
    State,
    SyncSettings,
    full_sync_due_at,
    request_full_sync,
    sleep,
    without_command,
)

RETURN_SPREAD_SECONDS = 2.0
"""Jitter before a full sync after an outage (F6)."""


def begin(
    settings: SyncSettings, position: Position | None, *, is_unfollowed: bool = False
) -> State:
    """Return the state at start; `position` and `is_unfollowed` as they were found on disk. End it
    with `Interrupted`."""
    if position is None:
        return request_full_sync(State(settings), "first start")
    cursor = Cursor(position, is_unverified=True)
    return State(settings, cursor=cursor, is_unfollowed=is_unfollowed)


def begin_again(
    state: State, position: Position | None, now: float, *, is_unfollowed: bool = False
) -> State:
    """Return the state after a defect of the store: what was learned and requested stays, what was
    in flight is begun again. End it with `Interrupted`."""
    state = give_up(state, now)
    if position is None and state.requested is None:
        state = request_full_sync(state, "first start")
    cursor = None if position is None else Cursor(position, is_unverified=True)
    state = replace(state, cursor=cursor, is_unfollowed=is_unfollowed)
    return replace(state, phase=Starting(), is_proven=False, poll_began_at=None)


def advance(state: State, outcome: Outcome, now: float) -> tuple[State, Command]:
    """Return what follows from `outcome`: the next state, and the command to perform in it.

    Raises OutOfTurn where the phase cannot end so; the state given is then still the right one.
    """
    state, command = _end_phase(state, outcome, now)
    while command is None:
        state, command = _choose(state, now)
    return state, command


def _end_phase(state: State, outcome: Outcome, now: float) -> Next:
    match state.phase, outcome:
        case FullSyncing(full_sync), _:
            return advance_full_sync(state, full_sync, outcome, now)
        case ((Starting() | Sleeping() | Polling()), Interrupted()):
            return without_command(state)
        case Sleeping(), Slept():
            return without_command(state)
        case ((Checking() | Polling()), EventsArrived()):
            return arrived(reached(state), outcome, now)
        case Checking(), ExchangeFailed(Failure.GONE):
            return ask(replace(reached(state), cursor=cursor_of(state).at_log_start()), now)
        case Polling(), ExchangeFailed(Failure.GONE, problem):
            lost = Lost(f"the position is gone (410): {problem}")
            return lose(reached(state), lost, now)
        case ((Checking() | Polling()), ExchangeFailed()):
            return _fall_back_on_time(*failed(state, outcome, now), now)
        case Applying() as applying, EventsApplied():
            return applied(state, applying, now)
    raise OutOfTurn(f"{type(outcome).__name__} cannot end {state.phase!r}")


def _choose(state: State, now: float) -> Next:
    """Begin the requested full sync if it is due; else read the feed, or wait without one."""
    due = full_sync_due_at(state)
    if due is not None and due <= now:
        is_waited_for = state.requested is not None and state.requested.forced
        has_returned, state = state.returned, replace(state, returned=False)
        if has_returned and not is_waited_for:
            return sleep(state, Sleep(0.0, RETURN_SPREAD_SECONDS))
        return begin_full_sync(state, now)
    if state.cursor is None or state.lost is not None:
        return sleep(state, Sleep(max(0.0, (due or now) - now)))
    return ask(state, now)


def _fall_back_on_time(state: State, command: Command | None, now: float) -> Next:
    """The timer's full sync follows a probe that has failed, instead of the wait: from a Central
    that is back, with the position, no catalogue is fetched (B1)."""
    due = state.health.fallback_due
    if due is None or now < due:
        return state, command
    health = replace(state.health, fallback_due=now + state.settings.fallback_seconds)
    return without_command(request_full_sync(replace(state, health=health), FALLBACK_TIMER))
