"""What is common to campaigns and to the test suite's slice of them.

Knows: when a report is a failure, which seeds once failed, what must have happened sometimes.
Refuses to know: processes and printing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from tests.simulation.simulation import Report, simulate

FAILED_SEEDS = Path(__file__).with_name("failed_seeds.txt")

SOMETIMES = (
    "410",
    "applied",
    "breaker open",
    "crash_in_recovery",
    "crash_operation",
    "degraded",
    "disk_full",
    "fallback",
    "fold",
    "full_sync",
    "full_sync_failed",
    "line_lost",
    "refused version_conflict",
    "restarts",
    "torn",
)
"""A campaign that never came here proves little."""


def fails(report: Report) -> bool:
    return bool(report.findings)


def known_failures() -> list[int]:
    """Every seed that ever failed, the oldest first."""
    lines = FAILED_SEEDS.read_text().splitlines() if FAILED_SEEDS.exists() else []
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def remember(seeds: Iterable[int]) -> None:
    """Add seeds to those that once failed."""
    known = known_failures()
    new = sorted(set(seeds) - set(known))
    if new:
        with FAILED_SEEDS.open("a") as file:
            file.writelines(f"{seed}\n" for seed in new)


def shrunk(seed: int, off: Collection[str] = ()) -> tuple[str, ...]:
    """The classes of faults that the seed still fails with after each other one was switched off
    in turn, where that left it failing."""
    left_out = list(off)
    for name in simulate(seed, off).classes:
        if fails(simulate(seed, [*left_out, name])):
            left_out.append(name)
    return simulate(seed, left_out).classes
