"""Run the tests that the table names, each without its safeguard."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from tests.removals.outcomes import shortened
from tests.removals.plugin import REMOVED, REPORT
from tests.removals.removal import Removal

ROOT = Path(__file__).parents[2]
LONGEST_TEST_SECONDS = 5


def run_tests(removals: Iterable[Removal]) -> dict[str, str]:
    """Return the failure of each removal's test, empty if it passed. A test in which the safeguard
    would never have acted is left out."""
    found: dict[str, str] = {}
    for together in _rounds(list(removals)):
        found |= _run({removal.test: removal.name for removal in together})
    return found


def _rounds(left: Sequence[Removal]) -> Iterator[list[Removal]]:
    """Yield rounds with each test once: a test that several removals name runs once for each."""
    while left:
        first = {removal.test: removal for removal in reversed(left)}
        yield list(first.values())
        left = [removal for removal in left if removal not in first.values()]


def _run(removals: dict[str, str]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        named = {REMOVED: orjson.dumps(removals).decode(), REPORT: str(report)}
        named["CI"] = ""  # the plugin skips what need not run
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.removals.plugin"]
        options = ["--tb=native", "-o", f"timeout={LONGEST_TEST_SECONDS}"]
        options += ["-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *options, *removals],
            cwd=ROOT,
            env=os.environ | named | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            raise RuntimeError(f"pytest did not come to its end:\n{done.stdout}{done.stderr}")
        found = orjson.loads(report.read_bytes())
    missing = set(removals.values()) - set(found)
    if missing:
        raise RuntimeError(f"there is no such test any more, for {missing}:\n{done.stdout[-2000:]}")
    return {name: shortened(told["found"]) for name, told in found.items() if told["acted"]}
