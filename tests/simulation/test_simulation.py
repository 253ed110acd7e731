"""A slice of the simulation's campaigns: `python -m tests.simulation --schedules 10000` is one."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.simulation.campaign import (
    ENOUGH_SCHEDULES,
    SOMETIMES,
    Summary,
    seeds_named,
)
from tests.simulation.central import SimulatedCentral
from tests.simulation.checks import has_stale_files
from tests.simulation.history import History
from tests.simulation.plan import CLASSES, Plan
from tests.simulation.replays import differing
from tests.simulation.simulation import simulate

SEEDS = range(1_000_000, 1_000_080)
REPLAYED = 4


@pytest.mark.parametrize("seeds", [SEEDS[n : n + 10] for n in range(0, len(SEEDS), 10)], ids=str)
def test_nothing_is_lost_shown_wrong_or_left_behind(seeds: range) -> None:
    """All promises, under chance's choice of faults."""
    findings = {seed: report.findings for seed in seeds if (report := simulate(seed)).findings}

    assert {} == findings, "python -m tests.simulation --seeds N replays one"


def test_a_restore_that_nothing_would_tell_of_takes_another_name() -> None:
    """The store rests for a moment because a limit asks it to, and no connection is there that
    could break: what is known not to hold is not looked for."""

    async def story() -> set[str]:
        central = SimulatedCentral(Plan(0), lambda: 0.0, lambda _: None)
        central.leaves_a_sign = lambda: False
        deeds = [(central.back_up_or_restore(), central.ledger.generation) for _ in range(20)]
        return {name for deed, name in deeds if deed == "restore"}

    assert 10 == len(asyncio.run(story()))


def test_a_log_that_alone_tells_of_a_restore_is_kept() -> None:
    """Another thing that is known not to hold, and not looked for."""

    async def story(*, would_hide: bool) -> tuple[str, bool]:
        central = SimulatedCentral(Plan(0), lambda: 0.0, lambda _: None)
        central.would_hide_one = lambda: would_hide
        return central.forget_log(), central.ledger.oldest > 1

    assert ("log kept", False) == asyncio.run(story(would_hide=True))
    assert ("retention", True) == asyncio.run(story(would_hide=False))


def test_a_key_that_central_forgot_may_be_applied_to_another_life() -> None:
    """Then only the version keeps a repeat from being applied, and that life came to the same
    one; within Central's memory, or the same life, it is one too many."""
    history = History(lambda: 0.0)

    def applied(life: int) -> int:
        data = {"life": life, "version": 2, "available": 5}
        event = {"productId": "P", "eventType": "inventory_updated", "data": data}
        history.record({"op": "write", "offset": 1, "event": event | {"idempotencyKey": "k"}})
        return history.ever_applied["k"]

    assert 1 == applied(life=1)
    history.forgotten()
    assert 1 == applied(life=2)
    assert 2 == applied(life=2)
    history.forgotten()
    assert 3 == applied(life=1)


def test_files_stay_only_where_the_status_says_why() -> None:
    """The last sweep met a disk that failed: what it left goes with the next one."""
    pairs = [f"{kind}-{number}.jsonl" for kind in ("journal", "snapshot") for number in (7, 8, 9)]

    assert not has_stale_files([*pairs[1:3], *pairs[4:], "journal-2.jsonl.damaged-1"], "", 0)
    assert has_stale_files(pairs, "", 0)
    assert not has_stale_files(pairs, "", 1)
    assert has_stale_files(["snapshot-9.jsonl.new"], "", 1)
    assert not has_stale_files(pairs, "old files could not be removed from DATA_DIR", 0)


def test_a_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    """A failure can be replayed: the trace does not depend on the process that made it."""
    assert [] == differing(range(REPLAYED))


def test_a_campaign_names_what_it_never_reached() -> None:
    """Ten thousand schedules in which no breaker ever opened would prove nothing about breakers."""
    total = Summary(schedules=ENOUGH_SCHEDULES, counters=Counter(SOMETIMES))
    del total.counters["410"]

    assert ["410"] == total.missing


def test_seeds_are_named_one_by_one_or_from_to() -> None:
    """One command replays what a campaign printed."""
    assert [17, 20, 21, 22] == seeds_named("17,20-22")


def test_a_class_that_is_switched_off_changes_no_other() -> None:
    """Shrinking compares like with like."""
    whole = Plan(7)
    name = next(iter(whole.rates))
    less = Plan(7, off=[name])

    assert whole.rates == less.rates | {name: whole.rates[name]}
    assert whole.chaos_seconds == less.chaos_seconds
    assert set(whole.rates) <= CLASSES.keys()
