"""Schedules of the simulation, each as a test that may notice a mutant.

pytest runs this file where it is named. In most schedules verification is off, since it would
repair what a mutant breaks; in some it is on, since it may be what is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import pytest

from tests.simulation.plan import Plan
from tests.simulation.simulation import simulate

FIRST = 71_000_000
WITHOUT_VERIFICATION = 18
WITH_VERIFICATION = 8


def seeds(*, is_verified: bool) -> Iterator[int]:
    plans = (Plan(seed) for seed in count(FIRST))
    fitting = (plan for plan in plans if bool(plan.verify_seconds) is is_verified)
    return (plan.seed for plan in fitting if not plan.is_large)


@pytest.mark.parametrize(
    "seed",
    [
        *islice(seeds(is_verified=False), WITHOUT_VERIFICATION),
        *islice(seeds(is_verified=True), WITH_VERIFICATION),
    ],
)
def test_a_schedule_finds_nothing(seed: int) -> None:
    assert simulate(seed).findings == []
