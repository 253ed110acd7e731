"""The results of a benchmark, as plain values that can be written as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.harness.ratios import Estimate, Verdict, estimate, judge, ratio

Rounds = dict[str, dict[str, list[float]]]
"""By candidate, then by metric (its name holds its unit: `p99 ms`): the figure of each round."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Goal(_Value):
    """A bound on a candidate's figure or, with a peer, on the ratio to the peer's."""

    candidate: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    peer: str | None = None

    def found(self, rounds: Rounds) -> Estimate:
        mine = rounds[self.candidate][self.metric]
        return estimate(mine) if self.peer is None else ratio(mine, self._peers(rounds))

    def verdict(self, rounds: Rounds) -> Verdict:
        return judge(self.found(rounds), at_least=self.at_least, at_most=self.at_most)

    def can_be_judged(self, rounds: Rounds) -> bool:
        """Whether candidate and peer were measured: a peer may not be installed."""
        return self.candidate in rounds and (self.peer is None or self.peer in rounds)

    def _peers(self, rounds: Rounds) -> list[float]:
        assert self.peer is not None
        return rounds[self.peer][self.metric]


class Comparison(_Value):
    """Candidates of one run beside each other: a table and bars.

    `metric` is the one whose ratios count, to each of `peers`; those of `also` are shown as
    medians. Names of this project's own candidates begin with `store` or `central-stub`; plots
    colour those. `without`: why candidates are missing (a program is not installed).
    """

    kind: Literal["comparison"] = "comparison"
    title: str
    metric: str
    peers: Sequence[str]
    also: Sequence[str] = ()
    rounds: Rounds
    goals: Sequence[Goal] = ()
    without: Sequence[str] = ()
    note: str = ""


class Growth(_Value):
    """A cost by the size of what is measured: a table and a log-log plot.

    `curves`: by candidate, then by size, the figure of each round. `axis`: what a size counts.
    """

    kind: Literal["growth"] = "growth"
    title: str
    metric: str
    curves: Mapping[str, Mapping[int, list[float]]]
    axis: str = "products"
    note: str = ""

    def sizes(self) -> list[int]:
        return sorted({size for curve in self.curves.values() for size in curve})


class Text(_Value):
    """Markdown, as it is: a profile, what was tried."""

    kind: Literal["text"] = "text"
    text: str


Part = Annotated[Comparison | Growth | Text, Field(discriminator="kind")]


class Result(_Value):
    """One benchmark's run. `seen` is the machine, versions and commit, a line each."""

    name: str
    title: str
    about: str
    seen: Sequence[str]
    parts: Sequence[Part]

    def judged(self) -> list[tuple[Comparison, Goal]]:
        """The goals that could be judged, with the comparison each belongs to."""
        return [
            (part, goal)
            for part in self.parts
            if isinstance(part, Comparison)
            for goal in part.goals
            if goal.can_be_judged(part.rounds)
        ]
