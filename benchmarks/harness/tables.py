"""Results as Markdown: figures, ratios, refusals and verdicts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.harness.ratios import Estimate, estimate, ratio, ratio_text, spread_text
from benchmarks.harness.results import Comparison, Goal, Growth, Part, Result, Rounds, Text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure(value: float) -> str:
    """Three significant digits, and whole numbers from 100 on."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def part_text(part: Part) -> str:
    """A part's heading, table and remarks."""
    match part:
        case Comparison():
            return comparison_text(part)
        case Growth():
            return growth_text(part)
        case Text():
            return part.text


# -- comparisons -------------------------------------------------------------------------------


def comparison_text(part: Comparison) -> str:
    head = ("", part.metric, "spread", *(f"x {peer}" for peer in present_peers(part)), *part.also)
    rows = [comparison_row(part, candidate) for candidate in part.rounds]
    remarks = [f"Left out: {reason}" for reason in part.without]
    goals = goal_table((part, goal) for goal in part.goals if goal.can_be_judged(part.rounds))
    return joined(f"## {part.title}", table(head, rows), *remarks, goals, part.note)


def present_peers(part: Comparison) -> list[str]:
    return [peer for peer in part.peers if peer in part.rounds]


def comparison_row(part: Comparison, candidate: str) -> tuple[str, ...]:
    own = part.rounds[candidate]
    found = estimate(own[part.metric])
    noise = spread_text(found.spread).removeprefix("spread ")
    also = (figure(estimate(own[name]).median) if name in own else "" for name in part.also)
    return (candidate, figure(found.median), noise, *ratio_cells(part, candidate), *also)


def ratio_cells(part: Comparison, candidate: str) -> Iterator[str]:
    mine = part.rounds[candidate][part.metric]
    for peer in present_peers(part):
        if peer == candidate:
            yield "1"
        else:
            yield ratio_text(ratio(mine, part.rounds[peer][part.metric]))


# -- goals -------------------------------------------------------------------------------------


def goal_table(judged: Iterable[tuple[Comparison, Goal]]) -> str:
    """A table of goals and what they came to; empty where there are none."""
    rows = [goal_row(goal, part.rounds) for part, goal in judged]
    return table(("goal", "found", "outcome"), rows) if rows else ""


def goal_row(goal: Goal, rounds: Rounds) -> tuple[str, ...]:
    found = goal.found(rounds)
    return goal_text(goal), found_text(found, of_peer=goal.peer), goal.verdict(rounds).value


def goal_text(goal: Goal) -> str:
    sign, bound = ("≥", goal.at_least) if goal.at_least is not None else ("≤", goal.at_most)
    aim = f"{bound:,g}" if goal.peer is None else f"{bound:,g} x {goal.peer}"
    return f"{goal.candidate}: {goal.metric} {sign} {aim}"


def found_text(found: Estimate, *, of_peer: str | None) -> str:
    """The figure with its spread; a ratio that cannot be told from 1 is not shown as one."""
    if of_peer is not None:
        return ratio_text(found)
    return f"{figure(found.median)} ({spread_text(found.spread)})"


# -- growth ------------------------------------------------------------------------------------


def growth_text(part: Growth) -> str:
    sizes = part.sizes()
    head = (part.metric, *(f"{size:,}" for size in sizes), "largest / smallest")
    rows = [growth_row(part, candidate) for candidate in part.curves]
    return joined(f"## {part.title}", table(head, rows), part.note)


def growth_row(part: Growth, candidate: str) -> tuple[str, ...]:
    curve = part.curves[candidate]
    cells = [figure(estimate(curve[size]).median) if size in curve else "" for size in part.sizes()]
    grown = ratio_text(ratio(curve[max(curve)], curve[min(curve)]))
    return (candidate, *cells, grown)


# -- pages -------------------------------------------------------------------------------------


def page_text(result: Result, plots: Sequence[str | None]) -> str:
    """A benchmark's own page; `plots` has the file of each part's plot, where it has one."""
    parts = [
        joined(part_text(part), f"![{plot}]({plot})" if plot else "")
        for part, plot in zip(result.parts, plots, strict=True)
    ]
    seen = "\n".join(f"- {line}" for line in result.seen)
    about = textwrap.fill(result.about, 100, break_long_words=False, break_on_hyphens=False)
    return joined(f"# {result.title}", about, seen, *parts) + "\n"


def joined(*blocks: str) -> str:
    return "\n\n".join(block.strip("\n") for block in blocks if block)
