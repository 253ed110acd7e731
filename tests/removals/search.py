"""Run the simulation without a safeguard, until a seed fails that the whole product passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tests.removals.outcomes import Outcome, shortened
from tests.removals.removal import Removal
from tests.simulation.plan import NODES, TENANTS, VERIFIED, Plan
from tests.simulation.simulation import simulate

MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Trial:
    """A run without a safeguard. `found`: the first finding, empty if there is none. `acted`: how
    often the safeguard would have acted."""

    found: str
    acted: int


def run_trial(removal: Removal, seed: int) -> Trial:
    """Run a seed without the safeguard. Raises Stale."""
    with removal.applied() as patch:
        found = first_finding(seed, left_out(removal))
    return Trial(found if patch.acted else "", patch.acted)


def first_finding(seed: int, off: tuple[str, ...] = ()) -> str:
    """Return the simulation's first finding; a program that ends by itself is one, too."""
    try:
        findings = simulate(seed, off).findings
    except Exception as problem:  # noqa: BLE001 - whatever ends the store's process
        return f"the store ended: {type(problem).__name__}: {problem}"
    return findings[0] if findings else ""


@cache
def is_clean(seed: int, off: tuple[str, ...] = ()) -> bool:
    """Return whether the whole product passes this seed."""
    return not first_finding(seed, off)


def left_out(removal: Removal) -> tuple[str, ...]:
    """Return the classes of schedules with a second chain, or a second node, that the removal does
    not need: they take twice the time."""
    return tuple(name for name in (TENANTS, NODES) if name not in removal.needs)


def seeds_for(removal: Removal, seeds: Iterable[int]) -> Iterator[int]:
    """Return the seeds that have the classes of faults that the removal needs, and verification
    only if one of them does: it would repair what the removal breaks."""
    return (seed for seed in seeds if _fits(removal, Plan(seed)))


def _fits(removal: Removal, plan: Plan) -> bool:
    needs = set(removal.needs)
    return needs <= plan.rates.keys() and bool(plan.verify_seconds) == bool(needs & VERIFIED)


def search(removal: Removal, seeds: Iterable[int]) -> Outcome:
    """Run these seeds until one fails that the whole product passes."""
    runs = acted = 0
    for seed in seeds_for(removal, seeds):
        trial = run_trial(removal, seed)
        runs, acted = runs + 1, acted + trial.acted
        if trial.found and is_clean(seed, left_out(removal)):
            return Outcome(removal.name, seed, runs, acted, shortened(trial.found))
    return Outcome(removal.name, None, runs, acted, "")
