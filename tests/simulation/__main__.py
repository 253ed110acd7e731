"""`python -m tests.simulation --seed N` replays one schedule; `--schedules N` runs a campaign.

Knows: processes, the summary, how a failing seed is made smaller.
Refuses to know: what a schedule is.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.campaign import SOMETIMES, fails, known_failures, remember, shrunk
from tests.simulation.simulation import Report, simulate

PROCESSES = 2
CHUNK = 10


def main() -> int:
    told = _parser().parse_args()
    off = tuple(told.off.split(",")) if told.off else ()
    if told.seed is not None:
        return _replay(told.seed, off, shrink=told.shrink)
    seeds: Iterable[int] = range(told.first, told.first + told.schedules)
    if told.known:
        seeds = known_failures()
    return _campaign(list(seeds), off, processes=told.processes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one, and say what went wrong")
    parser.add_argument("--off", default="", help="classes of faults to leave out, by commas")
    parser.add_argument("--shrink", action="store_true", help="find the fewest classes that fail")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--known", action="store_true", help="the seeds that once failed")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    return parser


def _replay(seed: int, off: Collection[str], *, shrink: bool) -> int:
    report = simulate(seed, off)
    print(f"seed {seed}, trace {report.trace:016x}, {report.seconds:.1f} virtual seconds")
    print("classes:", ", ".join(report.classes))
    for name, count in sorted(report.counters.items()):
        print(f"  {name:32} {count}")
    for finding in report.findings:
        print("FOUND", finding)
    if report.findings and shrink:
        needed = shrunk(seed, off)
        print("fails with no other classes than:", ", ".join(needed) or "none at all")
    return 1 if report.findings else 0


def _campaign(seeds: list[int], off: Collection[str], *, processes: int) -> int:
    began = time.monotonic()
    total = Report(seed=-1)
    failed: list[int] = []
    run = partial(simulate, off=off)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for report in pool.map(run, seeds, chunksize=CHUNK):
            total.counters += report.counters
            total.seconds += report.seconds
            total.healed_within = max(total.healed_within, report.healed_within)
            if fails(report):
                failed.append(report.seed)
                print(f"FAILED: python -m tests.simulation --seed {report.seed}", flush=True)
                print(f"  {report.findings[0][:400]}", flush=True)
    remember(failed)
    _summarise(total, len(seeds), failed, time.monotonic() - began)
    return 1 if failed else 0


def _summarise(total: Report, schedules: int, failed: list[int], seconds: float) -> None:
    counters = total.counters
    print(f"{schedules} schedules in {seconds:.0f} s, {len(failed)} failed: {sorted(failed)}")
    print(f"{total.seconds / 3600:.1f} virtual hours; slowest healing {total.healed_within:.1f} s")
    for name, count in sorted(counters.items()):
        print(f"  {name:32} {count}")
    if missing := [name for name in SOMETIMES if not counters[name]]:
        print("never reached:", ", ".join(missing))


if __name__ == "__main__":
    sys.exit(main())
