"""Staying in step with Central: one function, `advance(state, outcome, now)`.

Knows: when to ask for events, what a gap, a refusal, a failure or a replaced Central means, when
a full sync is due (rules P, E, F1, F6, B1, B2). The steps within a full sync are in `resync`.
Refuses to know: how a command is performed, and what time or chance is: `now` comes as an
argument (seconds of a clock that never goes back), and a `Sleep` names its spread, not its length.

    State.phase    what is being done                    ends with
    -------------  ------------------------------------  ----------------------------------------
    Beginning      nothing yet                           Interrupted
    Resting        a wait                                Rested, Interrupted
    Checking       asking for the event before the       EventsArrived, ExchangeFailed
                   position (E4)
    Polling        asking for events from the position   EventsArrived, ExchangeFailed, Interrupted
    Keeping        putting events on disk and in place   EventsApplied
    Running        a full sync, see `resync`             what its step ends with

Anything else is out of turn: an error that changes nothing. State moves on facts: the position on
`EventsApplied` and `ReplicaInstalled`, never on an answer alone.
"""

from __future__ import annotations

from dataclasses import replace

from store_cache.model.position import Position
from store_cache.sync.backoff import failed, reached
from store_cache.sync.follow import arrived, ask, checked, kept, lose, poll, skip_check
from store_cache.sync.full_sync import advance_run, begin_run, give_up
from store_cache.sync.states import (
    FALLBACK_TIMER,
    Applying,
    Checking,
    Command,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    Feed,
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
    decide,
    full_sync_due_at,
    request_full_sync,
    rest,
)

RETURN_SPREAD_SECONDS = 2.0
"""Jitter before a full sync after an outage (F6)."""


def begin(settings: SyncSettings, position: Position | None) -> State:
    """The state at start; `position` as it was found on disk. End it with `Interrupted`."""
    state = State(settings, position=position, feed=Feed(unchecked=True))
    return state if position is not None else request_full_sync(state, "first start")


def begin_again(state: State, position: Position | None, now: float) -> State:
    """The state after a defect of the store: what was learned and wanted stays, what was under way
    is begun afresh. End it with `Interrupted`."""
    state = give_up(state, now)
    if position is None and state.requested is None:
        state = request_full_sync(state, "first start")
    return replace(
        state,
        phase=Starting(),
        position=position,
        feed=Feed(unchecked=True),
        is_proven=False,
        poll_began_at=None,
    )


def advance(state: State, outcome: Outcome, now: float) -> tuple[State, Command]:
    """What follows from `outcome`: the next state, and the command to perform in it.

    Raises OutOfTurn where the phase cannot end so; the state given is then still the right one.
    """
    state, command = _step(state, outcome, now)
    while command is None:
        state, command = _decided(state, now)
    return state, command


def _step(state: State, outcome: Outcome, now: float) -> Next:
    match state.phase, outcome:
        case FullSyncing(run), _:
            return advance_run(state, run, outcome, now)
        case ((Starting() | Sleeping() | Polling()), Interrupted()):
            return decide(state)
        case Sleeping(), Slept():
            return decide(state)
        case Checking(), EventsArrived(page):
            return checked(reached(state), page, now - outcome.held_seconds, now)
        case Checking(), ExchangeFailed(Failure.GONE):
            return poll(reached(skip_check(state)), now)
        case Polling() as polling, EventsArrived():
            return arrived(reached(state), polling, outcome, now)
        case Polling(), ExchangeFailed(Failure.GONE, problem):
            return lose(reached(state), f"the position is gone (410): {problem}", now)
        case ((Checking() | Polling()), ExchangeFailed()):
            return _fall_back_on_time(*failed(state, outcome, now), now)
        case Applying() as keeping, EventsApplied():
            return kept(state, keeping, now)
    raise OutOfTurn(f"{type(outcome).__name__} cannot end {state.phase!r}")


def _decided(state: State, now: float) -> Next:
    """A full sync if one is wanted and may begin, else the feed."""
    due = full_sync_due_at(state)
    if due is not None and due <= now:
        if state.returned and not (state.requested and state.requested.forced):
            return rest(replace(state, returned=False), Sleep(0.0, RETURN_SPREAD_SECONDS))
        return begin_run(replace(state, returned=False), now)
    if state.position is None or state.lost:
        return rest(state, Sleep(max(0.0, (due or now) - now)))
    return ask(state, now)


def _fall_back_on_time(state: State, command: Command | None, now: float) -> Next:
    """The timer's full sync follows on a probe that has failed, in place of the wait: a Central
    that is back, with the position, is asked for no catalogue (B1)."""
    due = state.health.fallback_due
    if due is None or now < due:
        return state, command
    line = replace(state.health, fallback_due=now + state.settings.fallback_seconds)
    return decide(request_full_sync(replace(state, health=line), FALLBACK_TIMER))
