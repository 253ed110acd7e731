"""Call a store at random for longer than a test may: `python -m tests.random_calls`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.random_calls.shop import call_at_random

PHASES = "examples,coverage,fuzzing,stateful"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.random_calls", description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="for each operation and phase")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        status, said = asyncio.run(
            call_at_random(
                Path(folder), examples=options.examples, seed=options.seed, phases=PHASES
            )
        )
    sys.stdout.write(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
