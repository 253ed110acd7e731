"""Every phase by every outcome: what follows, or that it is out of turn and changes nothing.

Rows are phases in capitals, and for a full sync its step and what it is doing: `pe` is the step of
the pages, doing events. Columns are outcomes, and in capitals the kinds of failure. Both are
counted from the module: a new one without a cell here fails. A cell is the phase that follows; `-`
is out of turn.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from store_cache.catalogue.replica import Installation
from store_cache.model.pages import EventPage, PageRequest
from store_cache.sync.cursor import Cursor
from store_cache.sync.machine import advance
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
    FullSyncStep,
    InstallReplica,
    Interrupted,
    Outcome,
    OutOfTurn,
    PageApplied,
    Phase,
    Polling,
    ProductsRefetched,
    RefetchProducts,
    ReplicaInstalled,
    ReplicaRefused,
    Sleep,
    Sleeping,
    Slept,
    Starting,
    State,
    SyncSettings,
)
from tests.unit.sync.chaos import walk
from tests.unit.sync.told_sync import START, at, events, fits

OUTCOMES: dict[str, Outcome] = {
    "arr": EventsArrived(EventPage(events(100), 101, has_more=False)),
    "kep": EventsApplied(),
    "pag": PageApplied(PageRequest(400, 200), 100),
    "set": ProductsRefetched(0),
    "pla": ReplicaInstalled(400),
    "ref": ReplicaRefused("too small", 3),
    "bro": FullSyncFailed("pages without end"),
    "res": Slept(),
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
    "AP": Applying(Cursor(at(101)), has_more=False),
}
STEPS = {
    "f": FullSyncStep.FIRST_PAGE,
    "h": FullSyncStep.HEAD,
    "p": FullSyncStep.PAGES,
    "c": FullSyncStep.CATCHING_UP,
    "s": FullSyncStep.REFETCHING,
    "v": FullSyncStep.VERIFYING,
    "l": FullSyncStep.INSTALLING,
}
IN_FLIGHT: dict[str, Command] = {
    "p": FetchPage(None),
    "e": FetchEvents(100, 100, 0),
    "k": ApplyEvents((), at(101)),
    "r": Sleep(1.0),
    "s": RefetchProducts(),
    "l": InstallReplica(Installation(at(101))),
}

TABLE = """
      arr kep pag set pla ref bro res int  UNR BRO UNA LIM DEN REF GON
ST     -   -   -   -   -   -   -   -  PO    -   -   -   -   -   -   -
SL     -   -   -   -   -   -   -  PO  PO    -   -   -   -   -   -   -
CH    PO   -   -   -   -   -   -   -   -   SL  SL  SL  SL  SL  SL  PO
PO    AP   -   -   -   -   -   -   -  PO   SL  SL  SL  SL  SL  SL  fp
AP     -  PO   -   -   -   -   -   -   -    -   -   -   -   -   -   -

fp     -   -  pe   -   -   -  PO   -   -   fr  fr  fr  fr  SL  SL  PO
fr     -   -   -   -   -   -   -  fp  fp    -   -   -   -   -   -   -
he    he   -   -   -   -   -   -   -   -   hr  hr  hr  hr  SL  he  ss
hr     -   -   -   -   -   -   -  he  he    -   -   -   -   -   -   -
pp     -   -  pp   -   -   -  PO   -   -   pr  pr  pr  pr  SL  SL  PO
pe    pk   -   -   -   -   -   -   -   -   pr  pr  pr  pp  SL  SL  fp
pk     -  pp   -   -   -   -   -   -   -    -   -   -   -   -   -   -
pr     -   -   -   -   -   -   -  pp  pp    -   -   -   -   -   -   -
ce    ck   -   -   -   -   -   -   -   -   cr  cr  cr  cr  SL  SL  fp
ck     -  ss   -   -   -   -   -   -   -    -   -   -   -   -   -   -
cr     -   -   -   -   -   -   -  ce  ce    -   -   -   -   -   -   -
ss     -   -   -  ve   -   -  PO   -   -   sr  sr  sr  sr  SL  SL  PO
sr     -   -   -   -   -   -   -  ss  ss    -   -   -   -   -   -   -
ve    ll   -   -   -   -   -   -   -   -   vr  vr  vr  vr  SL  SL  ll
vr     -   -   -   -   -   -   -  ve  ve    -   -   -   -   -   -   -
ll     -   -   -   -  PO  PO   -   -   -    -   -   -   -   -   -   -
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
    """A phase as it is met in a store that stands at 100, whose copy has a page already."""
    if row in PHASES:
        return PHASES[row]
    step, in_flight = STEPS[row[0]], IN_FLIGHT[row[1]]
    run = FullSync(1, ("on demand",), START, step=step, in_flight=in_flight)
    if step in (FullSyncStep.FIRST_PAGE, FullSyncStep.HEAD):
        return FullSyncing(run)
    run = replace(
        run,
        cursor=Cursor(at(100)),
        next_cursor=Cursor(at(101)),
        next_page=PageRequest(200, 200) if step is FullSyncStep.PAGES else None,
        head=100,
        in_catalogue=True,
        is_open=False,
        feed_asked_at=START,
    )
    return FullSyncing(run)


def state_of(row: str) -> State:
    cursor = Cursor(at(100), is_unverified=row == "CH")
    return State(SyncSettings(), phase_of(row), cursor=cursor, full_syncs_begun=1)


def row_of(phase: Phase) -> str:
    if not isinstance(phase, FullSyncing):
        return type(phase).__name__[:2].upper()
    step, kind = phase.full_sync.step, type(phase.full_sync.in_flight)
    first = next(letter for letter, each in STEPS.items() if each is step)
    return first + next(letter for letter, each in IN_FLIGHT.items() if type(each) is kind)


def test_every_outcome_has_a_column() -> None:
    """[P4] What the module knows of, and no more."""
    kinds = {type(outcome) for outcome in OUTCOMES.values()}
    failures = {o.failure for o in OUTCOMES.values() if isinstance(o, ExchangeFailed)}

    assert set(get_args(Outcome)) == kinds
    assert set(Failure) == failures
    assert list(OUTCOMES) == COLUMNS


def test_every_phase_has_a_row() -> None:
    """[P4] Each step of a full sync, and each thing that one may be doing."""
    assert set(get_args(Phase)) == {type(phase) for phase in PHASES.values()} | {FullSyncing}
    assert set(FullSyncStep) == {STEPS[row[0]] for row in ROWS if row.islower()}
    assert set(get_args(Command)) == {type(IN_FLIGHT[row[1]]) for row in ROWS if row.islower()}
    assert set(PHASES) == {row for row in ROWS if row.isupper()}


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_what_follows_is_what_the_table_says(row: str, column: str) -> None:
    """[P4] An outcome out of turn is an error that changes nothing; any other one is followed by
    the phase of its cell, with a command that this phase waits for."""
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
    """[F1] A full sync does in each step what the table has, whatever happens."""
    unreachable = {a + b for a, b in product(STEPS, IN_FLIGHT)} - set(ROWS)
    reached = {row_of(told.state.phase) for seed in range(8) for told in walk(seed, 1500)}

    assert set() == reached & unreachable
    assert {"ST"} == set(ROWS) - reached
