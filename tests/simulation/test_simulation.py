"""A slice of the simulation's campaigns: `python -m tests.simulation --schedules 10000` is one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.campaign import known_failures
from tests.simulation.plan import CLASSES, Plan
from tests.simulation.simulation import simulate

SEEDS = range(1_000_000, 1_000_040)
REPLAYED = 3


@pytest.mark.parametrize("seeds", [SEEDS[n : n + 10] for n in range(0, len(SEEDS), 10)], ids=str)
def test_nothing_is_lost_shown_wrong_or_left_behind(seeds: range) -> None:
    """All promises, under chance's choice of faults."""
    findings = {seed: report.findings for seed in seeds if (report := simulate(seed)).findings}

    assert {} == findings, "python -m tests.simulation --seed N replays one"


@pytest.mark.parametrize("seed", known_failures()[:8])
def test_a_seed_that_once_failed_passes(seed: int) -> None:
    """What was found stays cured."""
    assert [] == simulate(seed).findings


def test_a_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    """A failure can be replayed: the trace does not depend on the process that made it."""
    traces = {_traces(hash_seed) for hash_seed in ("1", "2")}

    assert 1 == len(traces)


def _traces(hash_seed: str) -> str:
    code = (
        "from tests.simulation.simulation import simulate\n"
        f"print([simulate(seed).trace for seed in range({REPLAYED})])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_class_that_is_switched_off_changes_no_other() -> None:
    """Shrinking compares like with like."""
    whole = Plan(7)
    name = next(iter(whole.rates))
    less = Plan(7, off=[name])

    assert whole.rates == less.rates | {name: whole.rates[name]}
    assert whole.chaos_seconds == less.chaos_seconds
    assert set(whole.rates) <= CLASSES.keys()
