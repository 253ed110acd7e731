"""Check that a seed is the same run in every process, whatever its hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

HASH_SEEDS = ("1", "2")


def differing(seeds: Sequence[int]) -> list[int]:
    """The seeds whose traces differ between two processes with different hash seeds."""
    asked = [_asks(hash_seed, seeds) for hash_seed in HASH_SEEDS]
    first, second = (_traces(process) for process in asked)
    return [seed for seed, *two in zip(seeds, first, second, strict=True) if two[0] != two[1]]


def _asks(hash_seed: str, seeds: Sequence[int]) -> subprocess.Popen[str]:
    code = (
        "from tests.simulation.simulation import simulate\n"
        f"for seed in {list(seeds)}:\n"
        "    report = simulate(seed)\n"
        "    print(report.trace, sorted(report.counters.items()), report.findings)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _traces(process: subprocess.Popen[str]) -> list[str]:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the process that replays ended with an error; see above")
    return said.splitlines()
