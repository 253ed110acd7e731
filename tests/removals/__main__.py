"""Take every safeguard out in turn, and write docs/evidence/removals.md: `make removals`.

Each removal is tried at the seed that failed last. If that passes now, the search begins at the
first seed; `--search` does so for all. Names of removals run only these.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from tests.removals import outcomes as kept
from tests.removals.named_tests import run_tests
from tests.removals.outcomes import Outcome
from tests.removals.page import PAGE, page
from tests.removals.search import MOST_SEEDS, search
from tests.removals.table import TABLE


def main() -> int:
    told = _parser().parse_args()
    began = time.monotonic()
    outcomes = kept.read()
    names = told.names or list(TABLE)
    known = {} if told.search else outcomes.copy()
    by_test = run_tests(TABLE[name] for name in names if TABLE[name].test)
    for found in _simulated(names, known, told.seeds, told.processes):
        outcome = replace(found, by_test=by_test.get(found.name, ""))
        outcomes[outcome.name] = outcome
        kept.write(outcomes, list(TABLE))
        print(_line(outcome), flush=True)
    if outcomes.keys() >= TABLE.keys():
        PAGE.write_text(page(TABLE, outcomes))
    missed = [n for n in names if not outcomes[n].is_noticed and not TABLE[n].why]
    print(f"{len(names)} removals in {time.monotonic() - began:.0f} s, missed: {missed}")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.removals", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *TABLE], metavar="name")
    parser.add_argument("--search", action="store_true", help="begin at the first seed again")
    parser.add_argument("--seeds", type=int, default=MOST_SEEDS, help="up to which seed")
    parser.add_argument("--processes", type=int, default=2)
    return parser


def _simulated(
    names: list[str], known: dict[str, Outcome], seeds: int, processes: int
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(partial(find, known=known, seeds=seeds), names)


def find(name: str, known: dict[str, Outcome], seeds: int) -> Outcome:
    """The first seed that notices; the one that did last is tried first."""
    removal, before = TABLE[name], known.get(name, Outcome(name))
    if not removal.is_simulated:
        return Outcome(name)
    if before.seed is not None and (again := search(removal, [before.seed])).found:
        return replace(again, runs=before.runs)
    return search(removal, range(seeds))


def _line(outcome: Outcome) -> str:
    by = f"seed {outcome.seed}" if outcome.found else "by a test"
    said = outcome.found or outcome.by_test
    noticed = f"{by}: {said[:120]}" if said else "NOBODY NOTICED"
    return f"{outcome.name:34} {outcome.runs:4} runs, acted {outcome.acted:6}; {noticed}"


if __name__ == "__main__":
    sys.exit(main())
