"""What a benchmark is, and how its candidates take turns.

Knows: rounds. Refuses to know: what is measured.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from benchmarks.harness.results import Part, Rounds

Sample = Mapping[str, float]
"""The figures of one candidate in one round, by metric; a metric's name holds its unit."""

Candidate = Callable[[], Awaitable[Sample]]
"""Measures itself once."""


@dataclass(frozen=True)
class Effort:
    """How long to measure, and where temporary files may be.

    `folder` is empty, on a disk, and removed afterwards. A benchmark that needs many seconds for
    one measurement may take fewer `rounds`, down to five; with `quick` it should also take smaller
    catalogues. `turns` of a second each make a round of reads: the processors of shared machines
    change their speed within seconds, and by half.
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

    Interleaved, since a shared machine gets slower and faster by the minute; where it does so by
    the second, each has several `turns` in a round, of which the mean counts.
    """
    found: Rounds = {name: {} for name in candidates}
    for number in tqdm(range(-warm_ups, rounds), desc="rounds", leave=False, disable=None):
        taken: dict[str, list[Sample]] = {name: [] for name in candidates}
        for name, measure in [*candidates.items()] * turns:
            gc.collect()  # one candidate's garbage is not the next one's pause
            taken[name].append(await measure())
        if number >= 0:
            for name, samples in taken.items():
                _note(found[name], samples)
    return found


def _note(found: dict[str, list[float]], samples: Sequence[Sample]) -> None:
    for metric in samples[0]:
        found.setdefault(metric, []).append(fmean(sample[metric] for sample in samples))
