"""The tables, pages and the index that are made from results."""

from pathlib import Path

import pytest

from benchmarks.harness.pages import write
from benchmarks.harness.plots import bar, bar_label
from benchmarks.harness.results import Comparison, Goal, Growth, Result, Text
from benchmarks.harness.tables import comparison_text, figure, goal_text, growth_text

ROUNDS = {
    "store": {"req/s": [150.0, 151.0, 149.0], "p99 ms": [1.0, 1.1, 1.2]},
    "nginx": {"req/s": [100.0, 101.0, 99.0], "p99 ms": [1.0, 1.1, 1.0]},
}
GOALS = (
    Goal(candidate="store", metric="req/s", at_least=1.0, peer="nginx"),
    Goal(candidate="store", metric="p99 ms", at_most=1.5, peer="nginx"),
    Goal(candidate="store", metric="p99 ms", at_most=0.5),
    Goal(candidate="store", metric="req/s", at_least=8.0, peer="not installed"),
)
COMPARISON = Comparison(
    title="One product",
    metric="req/s",
    peers=("nginx", "not installed"),
    also=("p99 ms",),
    rounds=ROUNDS,
    goals=GOALS,
    without=("a peer, which is not installed",),
)
GROWTH = Growth(
    title="A batch",
    metric="ms",
    curves={"fold": {1_000: [1.0, 1.0, 1.0], 100_000: [9.0, 9.0, 9.0]}},
)


def a_result(name: str, *parts: Comparison | Growth | Text) -> Result:
    return Result(name=name, title=name.title(), about="Why.", seen=("Commit: abc",), parts=parts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.1234, "0.123"), (1.5, "1.50"), (99.94, "99.9"), (87_412.3, "87,412")],
)
def test_figures_have_three_digits(value: float, expected: str) -> None:
    """A shared machine measures no more precisely than that."""
    assert expected == figure(value)


def test_a_comparison_shows_medians_spreads_ratios_and_verdicts() -> None:
    """A goal whose peer was not measured is not judged. The text says what was left out."""
    expected = """## One product

|  | req/s | spread | x nginx | p99 ms |
| --- | --- | --- | --- | --- |
| store | 150 | 1 % | 1.50 (spread 1 %) | 1.10 |
| nginx | 100 | 1 % | 1 | 1.00 |

Left out: a peer, which is not installed

| goal | found | outcome |
| --- | --- | --- |
| store: req/s ≥ 1 x nginx | 1.50 (spread 1 %) | met |
| store: p99 ms ≤ 1.5 x nginx | no difference can be told (spread 10 %) | met |
| store: p99 ms ≤ 0.5 | 1.10 (spread 9 %) | not met |"""

    assert expected == comparison_text(COMPARISON)


def test_growth_is_shown_by_size_with_its_ratio() -> None:
    """The ratio compares the largest size with the smallest."""
    expected = """## A batch

| ms | 1,000 | 100,000 | largest / smallest |
| --- | --- | --- | --- |
| fold | 1.00 | 9.00 | 9.00 (spread 0 %) |"""

    assert expected == growth_text(GROWTH)


def test_large_goals_are_written_with_separators() -> None:
    """100,000 events a second, not 1e+05."""
    goal = Goal(candidate="store", metric="events/s", at_least=100_000)

    assert "store: events/s ≥ 100,000" == goal_text(goal)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_benchmark_writes_its_own_files_and_the_index_of_all(tmp_path: Path) -> None:
    """It leaves the page of another benchmark as it was. The index lists the goals of both."""
    write(a_result("reads", COMPARISON, Text(text="A profile.")), tmp_path)
    before = (tmp_path / "benchmarks" / "reads.md").read_bytes()
    write(a_result("growth", GROWTH), tmp_path)
    index = (tmp_path / "benchmarks.md").read_text()
    pages = names(tmp_path / "benchmarks")

    assert ["growth-1.png", "growth.md", "reads-1.png", "reads.md"] == pages
    assert ["growth.json", "reads.json"] == names(tmp_path / "evidence" / "benchmarks")
    assert before == (tmp_path / "benchmarks" / "reads.md").read_bytes()
    assert 3 == index.count("[reads](benchmarks/reads.md)")
    assert "[Growth](benchmarks/growth.md) | Commit: abc" in index


def test_a_bar_shows_no_ratio_within_the_spread() -> None:
    """It is as long as the peer's bar, and its label says that no difference can be told."""
    rounds = {"store": {"ms": [1.0, 1.2, 1.4]}, "peer": {"ms": [1.0, 1.3, 1.1]}}
    part = Comparison(title="A batch", metric="ms", peers=("peer",), rounds=rounds)

    assert "1.20 (no difference can be told)" == bar_label(part, "store", "peer")
    assert 1.0 == bar(part, "store", "peer").median
    assert "1.20" == bar_label(part, "store", None)
    assert 1.2 == bar(part, "store", None).median


def test_a_rerun_replaces_its_plots(tmp_path: Path) -> None:
    """The plot of a part that no longer exists is deleted."""
    write(a_result("reads", COMPARISON, GROWTH), tmp_path)
    write(a_result("reads", COMPARISON), tmp_path)

    assert ["reads-1.png"] == [path.name for path in tmp_path.glob("benchmarks/*.png")]


def test_a_result_is_unchanged_after_json() -> None:
    """The index is made from the results that are kept as JSON."""
    text = a_result("reads", COMPARISON, GROWTH, Text(text="A profile.")).model_dump_json()

    assert text == Result.model_validate_json(text).model_dump_json()
