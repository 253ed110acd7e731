"""What may be claimed from the runs of two candidates.

Ratios are taken round by round. The spread of some runs is the distance between their quartiles as
a share of their median. It stands for the noise of the machine: a ratio that differs from 1 by less
is not printed. A bound is different: a goal that every single round meets is met, however far the
rounds lie apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

FEWEST_ROUNDS = 3
"""Quartiles of fewer runs say nothing."""

ROUNDS_THAT_AGREE = 5
"""So many rounds on the same side of a bound are rarely chance: one time in
sixteen by the sign test, for the usual seven one in sixty-four."""


def spread(values: Sequence[float]) -> float:
    """Return the quartiles' distance as a share of the median, inf for too few values."""
    if len(values) < FEWEST_ROUNDS:
        return math.inf
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return 0.0 if low == high else (high - low) / abs(middle) if middle else math.inf


@dataclass(frozen=True)
class Estimate:
    """The median of a figure or a ratio, its spread, and its rounds."""

    median: float
    spread: float
    rounds: tuple[float, ...] = ()

    def differs_from(self, value: float) -> bool:
        """Whether the difference is larger than the spread."""
        return bool(value) and abs(self.median / value - 1) > self.spread

    def is_all_beside(self, value: float) -> bool:
        """Whether all rounds lie on the same side of the value."""
        enough = len(self.rounds) >= ROUNDS_THAT_AGREE
        return enough and not min(self.rounds) <= value <= max(self.rounds)


def estimate(values: Sequence[float]) -> Estimate:
    return Estimate(statistics.median(values), spread(values), tuple(values))


def ratio(mine: Sequence[float], peers: Sequence[float]) -> Estimate:
    """Return the ratio, taken round by round, so that what slows a round down slows both.

    Its spread is the largest of three: the ratios' own and both candidates'.
    """
    ratios = [own / peer for own, peer in zip(mine, peers, strict=True)]
    widest = max(spread(ratios), spread(mine), spread(peers))
    return Estimate(statistics.median(ratios), widest, tuple(ratios))


class Verdict(Enum):
    """The outcome of a goal."""

    MET = "met"
    NOT_MET = "not met"
    UNTOLD = "cannot be told"


def judge(found: Estimate, *, at_least: float | None, at_most: float | None) -> Verdict:
    """Compare a figure or ratio with its bound. If it is nearer than the spread, with rounds on
    both sides, the outcome cannot be told."""
    bound = at_least if at_least is not None else at_most
    assert bound is not None, "a goal needs a bound"
    if not found.differs_from(bound) and not found.is_all_beside(bound):
        return Verdict.UNTOLD
    return Verdict.MET if (found.median > bound) == (at_least is not None) else Verdict.NOT_MET


def ratio_text(found: Estimate) -> str:
    """Return the ratio, or that no difference can be told."""
    told = f"{found.median:.2f} " if found.differs_from(1.0) else "no difference can be told "
    return f"{told}({spread_text(found.spread)})"


def spread_text(value: float) -> str:
    return f"spread {value * 100:.0f} %" if math.isfinite(value) else "too few rounds"
