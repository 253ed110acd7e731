"""Run schedules of the simulation until one fails: `python -m tests.mutants.schedules 40`.

Verification is off in all of them, since it would repair what a mutant breaks.
"""

from __future__ import annotations

import sys
from itertools import count, islice

from tests.simulation.plan import Plan
from tests.simulation.simulation import simulate

FIRST = 71_000_000


def main() -> int:
    seeds = (seed for seed in count(FIRST) if not Plan(seed).verify_seconds)
    for seed in islice(seeds, int(sys.argv[1])):
        if findings := simulate(seed).findings:
            print(f"FAILED {seed}: {findings[0]}")  # noqa: T201 - a command prints
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
