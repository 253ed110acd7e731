"""The state machine as a whole: its table, random walks through it, and a defect of the store."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_cache.catalogue.replica import Installation
from store_cache.model.pages import EventPage, PageRequest
from store_cache.sync.cursor import Cursor, Lost
from store_cache.sync.machine import advance, begin_again
from store_cache.sync.reading import (
    STEP_NAMES,
    CatchingUp,
    FirstPage,
    Following,
    FullSyncStep,
    Installing,
    LearningHead,
    Reading,
    ReadingPages,
    Step,
)
from store_cache.sync.states import (
    ApplyEvents,
    Applying,
    Checking,
    Command,
    EventsApplied,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    FullSync,
    FullSyncFailed,
    FullSyncing,
    FullSyncRequest,
    InstallReplica,
    Interrupted,
    Outcome,
    OutOfTurn,
    PageApplied,
    Phase,
    Polling,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Sleeping,
    Slept,
    Starting,
    State,
    SyncSettings,
    renamed,
)
from tests.unit.sync.chaos import Trouble, walk
from tests.unit.sync.driven_sync import START, DrivenSync, at, events, fits
from tests.unit.sync.small_central import SmallCentral, SmallStore

# -- the table ---------------------------------------------------------------------------------

OUTCOMES: dict[str, Outcome] = {
    "arr": EventsArrived(EventPage(events(100), 101, has_more=False)),
    "app": EventsApplied(),
    "pag": PageApplied(PageRequest(400, 200), 100),
    "ins": ReplicaInstalled(400),
    "rej": ReplicaRefused("too small", 3),
    "bad": FullSyncFailed("pages without end"),
    "sle": Slept(),
    "int": Interrupted(),
    "UNR": ExchangeFailed(Failure.UNREACHABLE, "no answer"),
    "BRO": ExchangeFailed(Failure.BROKEN, "cut short"),
    "UNA": ExchangeFailed(Failure.UNREADABLE, "a proxy's page"),
    "LIM": ExchangeFailed(Failure.LIMITED, "429"),
    "DEN": ExchangeFailed(Failure.DENIED, "401"),
    "REF": ExchangeFailed(Failure.REFUSED, "400"),
    "GON": ExchangeFailed(Failure.GONE, "410"),
}
PHASES: dict[str, Phase] = {
    "ST": Starting(),
    "SL": Sleeping(),
    "CH": Checking(),
    "PO": Polling(20),
    "AP": Applying(Cursor(at(101)), has_more=False, asked_at=START),
}
STEPS: dict[str, Step] = {
    "f": FirstPage(),
    "h": LearningHead(None),
    "p": ReadingPages(PageRequest(200, 200)),
    "c": CatchingUp(),
    "i": Installing(),
}
IN_FLIGHT: dict[str, Command] = {
    "p": FetchPage(None),
    "e": FetchEvents(100, 100, 0),
    "a": ApplyEvents((), at(101)),
    "s": Sleep(1.0),
    "i": InstallReplica(Installation(at(101))),
}

TABLE = """
      arr app pag ins rej bad sle int  UNR BRO UNA LIM DEN REF GON
ST     -   -   -   -   -   -   -  PO    -   -   -   -   -   -   -
SL     -   -   -   -   -   -  PO  PO    -   -   -   -   -   -   -
CH    AP   -   -   -   -   -   -   -   SL  SL  SL  SL  SL  SL  PO
PO    AP   -   -   -   -   -   -  PO   SL  SL  SL  SL  SL  SL  fp
AP     -  PO   -   -   -   -   -   -    -   -   -   -   -   -   -

fp     -   -  pe   -   -  PO   -   -   fs  fs  fs  fs  SL  SL  PO
fs     -   -   -   -   -   -  fp  fp    -   -   -   -   -   -   -
he    he   -   -   -   -   -   -   -   hs  hs  hs  hs  SL  he  ii
hs     -   -   -   -   -   -  he  he    -   -   -   -   -   -   -
pp     -   -  pp   -   -  PO   -   -   ps  ps  ps  ps  SL  SL  PO
pe    pa   -   -   -   -   -   -   -   ps  ps  ps  pp  SL  SL  fp
pa     -  pp   -   -   -   -   -   -    -   -   -   -   -   -   -
ps     -   -   -   -   -   -  pp  pp    -   -   -   -   -   -   -
ce    ca   -   -   -   -   -   -   -   cs  cs  cs  cs  SL  SL  fp
ca     -  ii   -   -   -   -   -   -    -   -   -   -   -   -   -
cs     -   -   -   -   -   -  ce  ce    -   -   -   -   -   -   -
ii     -   -   -  PO  PO   -   -   -    -   -   -   -   -   -   -
"""
"""Every phase by every outcome: the phase that follows, or `-` if it is out of turn.

Rows are phases in capitals, and for a full sync its step and its command in flight: `pe` is the
step PAGES that has asked for events. Columns are outcomes, and in capitals the kinds of failure.
"""

LINES = [line.split() for line in TABLE.splitlines() if line.strip()]
COLUMNS = LINES[0]
ROWS = [row for row, *_ in LINES[1:]]
CELLS = {
    (row, column): cell
    for row, *cells in LINES[1:]
    for column, cell in zip(COLUMNS, cells, strict=True)
}


def phase_of(row: str) -> Phase:
    """A phase of a store that stands at 100, and whose replica has a page already."""
    if row in PHASES:
        return PHASES[row]
    step, in_flight = STEPS[row[0]], IN_FLIGHT[row[1]]
    sync = FullSync(1, START, FullSyncRequest(("on demand",)), step=step, in_flight=in_flight)
    if isinstance(step, FirstPage | LearningHead):
        return FullSyncing(sync)
    feed = Following(Cursor(at(100)), Cursor(at(101)), is_open=False, asked_at=START)
    return FullSyncing(replace(sync, reading=Reading(head=100, feed=feed)))


def state_of(row: str) -> State:
    cursor = Cursor(at(100), is_unverified=row == "CH")
    return State(SyncSettings(), phase_of(row), cursor=cursor, full_syncs_begun=1)


def row_of(phase: Phase) -> str:
    if not isinstance(phase, FullSyncing):
        return type(phase).__name__[:2].upper()
    step, kind = phase.full_sync.step, type(phase.full_sync.in_flight)
    first = next(letter for letter, each in STEPS.items() if type(each) is type(step))
    return first + next(letter for letter, each in IN_FLIGHT.items() if type(each) is kind)


def test_every_outcome_has_a_column() -> None:
    """[P4] A new outcome or kind of failure needs a column."""
    kinds = {type(outcome) for outcome in OUTCOMES.values()}
    failures = {o.failure for o in OUTCOMES.values() if isinstance(o, ExchangeFailed)}

    assert set(get_args(Outcome)) == kinds
    assert set(Failure) == failures
    assert list(OUTCOMES) == COLUMNS


def test_every_phase_has_a_row() -> None:
    """[P4] A new phase, step or command of a full sync needs a row."""
    assert set(get_args(Phase)) == {type(phase) for phase in PHASES.values()} | {FullSyncing}
    assert set(get_args(Step)) == {type(STEPS[row[0]]) for row in ROWS if row.islower()}
    assert set(get_args(Step)) == set(STEP_NAMES)
    assert set(FullSyncStep) == set(STEP_NAMES.values())
    assert set(get_args(Command)) == {type(IN_FLIGHT[row[1]]) for row in ROWS if row.islower()}
    assert set(PHASES) == {row for row in ROWS if row.isupper()}


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_what_follows_is_what_the_table_says(row: str, column: str) -> None:
    """[P4] An outcome out of turn is an error that changes nothing. Any other is followed by the
    phase of its cell, with a command that this phase waits for."""
    state, outcome = state_of(row), OUTCOMES[column]
    if CELLS[row, column] == "-":
        with pytest.raises(OutOfTurn, match=type(outcome).__name__):
            advance(state, outcome, START)
        assert state_of(row) == state
        return
    after, command = advance(state, outcome, START)

    assert CELLS[row, column] == row_of(after.phase)
    assert fits(after, command)


def test_phases_without_a_row_cannot_be_reached() -> None:
    """[F1] The table has all that happens in random walks."""
    unreachable = {a + b for a, b in product(STEPS, IN_FLIGHT)} - set(ROWS)
    reached = {row_of(sync.state.phase) for seed in range(8) for sync in walk(seed, 1500)}

    assert set() == reached & unreachable
    assert {"ST"} == set(ROWS) - reached


# -- random walks ------------------------------------------------------------------------------

STEPS_OF_WALK = 1000
WALKS = 40
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=WALKS, derandomize=True, deadline=None)
@given(SEEDS)
def test_no_sequence_of_answers_brings_the_sync_out_of_turn(seed: int) -> None:
    """[P4] Whatever fits the command in flight, the sync goes on, does not spin, and the position
    moves over contiguous offsets alone, when events are applied or a replica is installed."""
    for sync in walk(seed, STEPS_OF_WALK):
        assert sync.now >= START


@settings(max_examples=3 * WALKS, derandomize=True, deadline=None)
@given(SEEDS)
def test_the_store_gets_in_sync_once_central_answers_well(seed: int) -> None:
    """[F1] After faults of every kind, every requested full sync begins, and the store follows
    Central's present feed to its head within a bounded number of commands and of minutes."""
    random = Random(seed)
    central = SmallCentral(
        says_head=random.random() < 0.7,
        head_is_last=random.random() < 0.3,
        holds=random.random() < 0.8,
        says_gone=random.random() < 0.7,
        generation=random.choice([None, "g-0"]),
        first=random.choice([0, 1]),
    )
    continuous = random.random() < 0.8
    store = SmallStore(central, settings=SyncSettings(continuous=continuous), seed=seed)
    trouble = Trouble(store)
    for _ in range(random.randint(1, 25)):
        trouble.strikes()
        for _ in range(random.choice([1, 5, 40])):
            store.step()
    trouble.heals()
    healed_at, healed_commands = store.now, store.commands
    store.runs(store.is_in_sync, commands=3000)

    assert store.now - healed_at < 1300  # ten minutes' spacing, or a second reading
    assert store.commands - healed_commands < 600


# -- after a defect of the store ---------------------------------------------------------------


def test_a_full_sync_that_a_defect_stopped_has_a_record() -> None:
    """[F1] It says so to those who wait; what the store needs is requested again, later."""
    stopped = DrivenSync().state
    state = begin_again(stopped, None, START + 2)

    assert (1, True) == (state.full_syncs[-1].number, "defect" in state.full_syncs[-1].problem)
    assert state.requested is not None
    assert ("first start",) == state.requested.reasons
    assert state.spacing.next_at > START + 2


def test_what_was_lost_stays_lost() -> None:
    """[P1] A position that is worth nothing is not followed because the sync begins again."""
    stopped = replace(DrivenSync(at(42)).state, lost=Lost("the position is gone (410)"))
    state = begin_again(stopped, at(42), START + 2)

    assert isinstance(state.phase, Starting)
    assert Cursor(at(42), is_unverified=True) == state.cursor
    assert state.lost


def test_a_sync_that_begins_again_has_to_prove_itself() -> None:
    """[E1] [B5] Its first poll is not held, as after a start: an empty answer is known at once."""
    state = replace(DrivenSync(at(42)).state, is_proven=True)
    state, command = advance(begin_again(state, at(42), START + 2), Interrupted(), START + 2)

    assert not state.is_proven
    assert FetchEvents(41, 100, 0) == command


@pytest.mark.parametrize("row", PHASES)
def test_another_label_of_the_generation_is_the_same_feed(row: str) -> None:
    """[P1] A repair gives it one, whatever the sync is doing, and the sync goes on with it."""
    before = replace(DrivenSync(at(101)).state, phase=PHASES[row])
    state = renamed(before, "g-1 2")

    assert at(101, "g-1 2") == state.position
    if isinstance(state.phase, Applying):
        assert at(101, "g-1 2") == state.phase.cursor.position
    else:
        assert before.phase == state.phase
