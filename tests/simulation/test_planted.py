"""The simulation sees what an earlier one could not: `planted` says what."""

from __future__ import annotations

from itertools import count, islice

import pytest

from tests.removals.removal import Removal
from tests.removals.search import search, seeds_for
from tests.simulation.plan import Plan
from tests.simulation.planted import planted

MOST_SCHEDULES = 40
BEGINS_AT = {"attributes-of-events": 4, "endless-waits": 145}
"""Seeds that have failed soon after; without them these two take dozens of schedules."""

LARGE = {"chunks-of-snapshots"}
"""Defects that no catalogue of one chunk can have."""


@pytest.mark.parametrize("defect", planted.all, ids=lambda defect: defect.name)
def test_a_planted_defect_is_found(defect: Removal) -> None:
    """A schedule fails with the defect that passes without it."""
    following = count(BEGINS_AT.get(defect.name, 0))
    seeds = (seed for seed in following if defect.name not in LARGE or Plan(seed).is_large)

    assert search(defect, islice(seeds_for(defect, seeds), MOST_SCHEDULES)).found
