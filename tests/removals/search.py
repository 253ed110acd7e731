"""Runs the simulation without a safeguard, until somebody notices.

Knows: seeds, and that a seed counts only if the whole product passes it.
Refuses to know: what is removed, and where outcomes are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tests.removals.outcomes import Outcome, shortened
from tests.removals.removal import Removal
from tests.simulation.plan import Plan
from tests.simulation.simulation import simulate

MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Run:
    """A run without a safeguard: the first finding, or an empty text; how often the safeguard
    would have acted."""

    found: str
    acted: int


def run(removal: Removal, seed: int) -> Run:
    """Run a seed without the safeguard. Raises Stale."""
    with removal.applied() as patch:
        found = first_finding(seed)
    return Run(found if patch.acted else "", patch.acted)


def first_finding(seed: int) -> str:
    """What the simulation says first; a program that ends by itself is a finding as well."""
    try:
        findings = simulate(seed).findings
    except Exception as problem:  # noqa: BLE001 - whatever ends the store's process
        return f"the store ended: {type(problem).__name__}: {problem}"
    return findings[0] if findings else ""


@cache
def is_clean(seed: int) -> bool:
    """Whether the whole product passes this seed."""
    return not first_finding(seed)


def seeds_for(removal: Removal, seeds: Iterable[int]) -> Iterator[int]:
    """Those of the seeds that have the classes of faults that the removal needs."""
    return (seed for seed in seeds if set(removal.needs) <= Plan(seed).rates.keys())


def search(removal: Removal, seeds: Iterable[int]) -> Outcome:
    """Run these seeds until one notices, though the whole product passes it."""
    runs = acted = 0
    for seed in seeds_for(removal, seeds):
        done = run(removal, seed)
        runs, acted = runs + 1, acted + done.acted
        if done.found and is_clean(seed):
            return Outcome(removal.name, seed, runs, acted, shortened(done.found))
    return Outcome(removal.name, None, runs, acted, "")
