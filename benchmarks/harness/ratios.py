"""What may be claimed from the runs of two candidates.

Knows: medians, spreads, ratios taken round by round, and when a difference is too small for the
spread of its runs. Refuses to know: what was measured, and how it is shown.

The spread of some runs is the distance between their quartiles as a share of their median. It
stands for the noise of the machine: a ratio that differs from 1 by less is not printed. A bound is
another matter: a goal that each single round met is met, however far apart the rounds lie.
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
"""So many rounds on the same side of a bound are no chance: once in sixteen by the sign test, and
once in sixty-four for the usual seven."""


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles as a share of the median; infinite for too few values."""
    if len(values) < FEWEST_ROUNDS:
        return math.inf
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return 0.0 if low == high else (high - low) / abs(middle) if middle else math.inf


@dataclass(frozen=True)
class Estimate:
    """A median and the spread it comes with, of a figure or of a ratio, and its rounds."""

    median: float
    spread: float
    rounds: tuple[float, ...] = ()

    def differs_from(self, value: float) -> bool:
        """Whether the difference is larger than the spread."""
        return bool(value) and abs(self.median / value - 1) > self.spread

    def is_all_beside(self, value: float) -> bool:
        """Whether each round lies on the same side of the value."""
        enough = len(self.rounds) >= ROUNDS_THAT_AGREE
        return enough and not min(self.rounds) <= value <= max(self.rounds)


def estimate(values: Sequence[float]) -> Estimate:
    return Estimate(statistics.median(values), spread(values), tuple(values))


def ratio(mine: Sequence[float], peers: Sequence[float]) -> Estimate:
    """The ratio, taken in each round by itself, so that what slows a round slows both.

    Its spread is the largest of three: the ratios' own and both candidates'.
    """
    ratios = [own / peer for own, peer in zip(mine, peers, strict=True)]
    widest = max(spread(ratios), spread(mine), spread(peers))
    return Estimate(statistics.median(ratios), widest, tuple(ratios))


class Verdict(Enum):
    """What a goal came to."""

    MET = "met"
    NOT_MET = "not met"
    UNTOLD = "cannot be told"


def judge(found: Estimate, *, at_least: float | None, at_most: float | None) -> Verdict:
    """Hold a figure or ratio to one bound; nearer to it than the spread, with rounds on both sides
    of it, it cannot be told."""
    bound = at_least if at_least is not None else at_most
    assert bound is not None, "a goal needs a bound"
    if not found.differs_from(bound) and not found.is_all_beside(bound):
        return Verdict.UNTOLD
    return Verdict.MET if (found.median > bound) == (at_least is not None) else Verdict.NOT_MET


def ratio_text(found: Estimate) -> str:
    """The ratio, or that there is none to be told."""
    told = f"{found.median:.2f} " if found.differs_from(1.0) else "no difference can be told "
    return f"{told}({spread_text(found.spread)})"


def spread_text(value: float) -> str:
    return f"spread {value * 100:.0f} %" if math.isfinite(value) else "too few rounds"
