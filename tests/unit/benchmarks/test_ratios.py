"""Which ratios and verdicts the benchmarks state, and when they refuse to."""

import math

import pytest

from benchmarks.harness.ratios import Estimate, Verdict, estimate, judge, ratio, ratio_text, spread

QUIET = [100.0, 101.0, 99.0, 100.0, 100.0]
NOISY = [100.0, 140.0, 60.0, 120.0, 80.0]


def test_the_spread_is_the_quartiles_distance_over_the_median() -> None:
    """Outliers, one at each end of five, do not count."""
    assert 0.4 == spread([80.0, 120.0, 100.0, 1.0, 9_000.0])


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0]])
def test_too_few_rounds_have_no_bounds(values: list[float]) -> None:
    """Two equal runs are no proof of a quiet machine."""
    assert math.inf == spread(values)


def test_rounds_that_are_all_the_same_have_no_spread() -> None:
    """This holds for zeros as well."""
    assert (0.0, 0.0) == (spread([5.0, 5.0, 5.0]), spread([0.0, 0.0, 0.0]))


def test_a_ratio_is_taken_in_each_round() -> None:
    """A slow round of both candidates does not change their ratio."""
    assert 2.0 == ratio([200.0, 100.0, 20.0], [100.0, 50.0, 10.0]).median


def test_a_ratio_has_the_largest_spread_of_the_three() -> None:
    """The three are the two candidates and their ratio."""
    found = ratio([2 * value for value in NOISY], NOISY)

    assert (2.0, spread(NOISY)) == (found.median, found.spread)


def test_candidates_of_different_runs_have_no_ratio() -> None:
    """Every round needs a figure of each candidate."""
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_difference_within_the_spread_is_refused() -> None:
    """Noise alone could have caused it."""
    claimed = [value * 1.2 for value in NOISY]

    assert "no difference can be told (spread 40 %)" == ratio_text(ratio(claimed, NOISY))


def test_a_difference_beyond_the_spread_is_told() -> None:
    """The text shows the ratio with its spread."""
    assert "1.20 (spread 0 %)" == ratio_text(ratio([value * 1.2 for value in QUIET], QUIET))
    assert "3.00 (spread 40 %)" == ratio_text(ratio([value * 3 for value in NOISY], NOISY))


def test_too_few_rounds_are_refused() -> None:
    """This holds for any difference, however large."""
    assert "no difference can be told (too few rounds)" == ratio_text(ratio([9.0], [1.0]))


@pytest.mark.parametrize(
    ("median", "at_least", "at_most", "expected"),
    [
        (1.5, 1.0, None, Verdict.MET),
        (0.5, 1.0, None, Verdict.NOT_MET),
        (1.05, 1.0, None, Verdict.UNTOLD),
        (0.95, 1.0, None, Verdict.UNTOLD),
        (1.5, None, 2.0, Verdict.MET),
        (2.5, None, 2.0, Verdict.NOT_MET),
        (2.1, None, 2.0, Verdict.UNTOLD),
    ],
)
def test_a_goal_is_judged_only_beyond_the_spread(
    median: float, at_least: float | None, at_most: float | None, expected: Verdict
) -> None:
    """With a spread of 10 %, a goal within 10 % of its bound is neither met nor missed."""
    assert expected == judge(Estimate(median, 0.1), at_least=at_least, at_most=at_most)


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        (NOISY, Verdict.MET),
        ([*NOISY[:4], 141.0], Verdict.UNTOLD),
        (NOISY[:4], Verdict.UNTOLD),
    ],
    ids=["each below", "one above", "too few"],
)
def test_a_goal_that_each_round_met_is_met(rounds: list[float], expected: Verdict) -> None:
    """The spread of the rounds does not matter then."""
    assert expected == judge(estimate(rounds), at_least=None, at_most=140.5)


def test_a_goal_that_each_round_missed_is_missed() -> None:
    """The spread of the rounds does not matter then."""
    assert Verdict.NOT_MET is judge(estimate(NOISY), at_least=141.0, at_most=None)


def test_an_estimate_is_the_median_and_its_spread() -> None:
    """The order of the rounds does not matter."""
    assert Estimate(100.0, 0.4, tuple(NOISY)) == estimate(NOISY)
