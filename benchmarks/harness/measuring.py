"""What a benchmark is, and how its candidates take turns."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.progress import track

from benchmarks.harness.results import Part, Rounds

Sample = Mapping[str, float]
"""The figures of one candidate in one round, by metric. The name of a metric ends with its unit."""

Candidate = Callable[[], Awaitable[Sample]]
"""Measures itself once."""


@dataclass(frozen=True)
class Effort:
    """How long to measure, and where temporary files may be.

    `folder` is empty, on a disk, and removed afterwards. If one measurement takes many seconds, a
    benchmark may reduce `rounds` to five; if `quick`, it should also take smaller catalogues. A
    round of reads has several `turns` of a second, since processors of shared machines change
    their speed within seconds, by up to half.
    """

    folder: Path
    rounds: int = 7
    turns: int = 4
    quick: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A module's `BENCHMARK`. `name` is the module's; `about` opens its page (Markdown)."""

    name: str
    title: str
    about: str
    measure: Callable[[Effort], Awaitable[Sequence[Part]]]


async def interleave(
    rounds: int, candidates: Mapping[str, Candidate], *, warm_ups: int = 1, turns: int = 1
) -> Rounds:
    """Measure A B C A B C ...; the first `warm_ups` rounds do not count.

    Candidates are interleaved because a shared machine changes its speed by the minute. If it does
    so by the second, each takes several `turns` in a round, of which the mean counts.
    """
    found: Rounds = {name: {} for name in candidates}
    console = Console(stderr=True)
    for number in track(
        range(-warm_ups, rounds),
        "rounds",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        taken: dict[str, list[Sample]] = {name: [] for name in candidates}
        for name, measure in [*candidates.items()] * turns:
            gc.collect()  # so that one candidate's garbage does not slow the next one
            taken[name].append(await measure())
        if number >= 0:
            for name, samples in taken.items():
                _note(found[name], samples)
    return found


def _note(found: dict[str, list[float]], samples: Sequence[Sample]) -> None:
    for metric in samples[0]:
        found.setdefault(metric, []).append(fmean(sample[metric] for sample in samples))
