"""Each safeguard is missed when it is gone: a part of `make removals`, which runs them all."""

from __future__ import annotations

import pytest

from store_cache.writes import circuit_breaker as breaker
from tests.removals import outcomes
from tests.removals.named_tests import run_tests
from tests.removals.page import PAGE, page
from tests.removals.removal import Patch, Removal, Stale
from tests.removals.search import is_clean, left_out, run_trial, seeds_for
from tests.removals.table import TABLE

KNOWN = outcomes.read()
RUNS_AT_MOST = 3
"""Removals that took more runs are left to `make removals`: every change of the product moves the
seeds that fail."""

RUNS_TRIED = 24
SLICE = 3
NAMED_SLICE = 12
"""The test suite runs each third one of those removals, and each twelfth of the named tests; `make
removals` runs all of both."""


def often_noticed() -> list[str]:
    told = (KNOWN[name] for name in TABLE if name in KNOWN)
    return [one.name for one in told if one.seed is not None and one.runs <= RUNS_AT_MOST]


def noticed(removal: Removal) -> int | None:
    """Return a seed that fails, at or soon after the one that failed last."""
    began = KNOWN[removal.name].seed or 0
    following = seeds_for(removal, range(began, began + 1000))
    for _, seed in zip(range(RUNS_TRIED), following, strict=False):
        if run_trial(removal, seed).found and is_clean(seed, left_out(removal)):
            return seed
    return None


@pytest.mark.parametrize("name", often_noticed()[::SLICE])
def test_the_simulation_notices_that_a_safeguard_is_missing(name: str) -> None:
    """With the safeguard the seed passes; without it, it fails."""
    assert noticed(TABLE[name]) is not None, "python -m tests.removals runs them all"


@pytest.mark.timeout(180)
def test_named_tests_notice_that_a_safeguard_is_missing() -> None:
    """The tests that the table names can fail."""
    named = [removal for removal in TABLE.values() if removal.test]
    found = run_tests(named[::NAMED_SLICE])

    assert {removal.name for removal in named[::NAMED_SLICE]} == {
        name for name in found if found[name]
    }


def test_every_safeguard_is_missed_or_has_another_behind_it() -> None:
    """By the last run of all: if nothing fails, there is a reason, which is on the page."""
    unmissed = [n for n, removal in TABLE.items() if not (KNOWN[n].is_noticed or removal.why)]

    assert [] == unmissed
    assert len(TABLE) >= 40


def test_the_page_shows_what_came_of_it() -> None:
    """docs/evidence/removals.md is the last run's; nobody has typed it in."""
    assert page(TABLE, KNOWN) == PAGE.read_text(), "make removals writes it"


def test_the_product_is_whole_again_afterwards() -> None:
    """Its own functions are back in their places."""
    before = breaker.wait_seconds
    with TABLE["probes"].applied():
        assert breaker.wait_seconds is not before

    assert before is breaker.wait_seconds


def test_a_removal_of_what_is_not_there_fails() -> None:
    """It would prove nothing, since the product has changed."""
    with pytest.raises(Stale, match="circuit_breaker has no closed any more"):
        Patch().replace(breaker, "closed", None)


def test_a_removal_that_made_no_difference_was_not_noticed() -> None:
    """Whatever fails then."""

    def nothing(_: Patch) -> None: ...

    idle = Removal("idle", "", "", "", nothing)

    assert "" == run_trial(idle, 0).found
