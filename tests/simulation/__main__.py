"""`--seeds 17,20-40` replays schedules; `--schedules N` runs a campaign; `--replay N` runs N seeds
twice, under two hash seeds, and compares the traces.

It runs schedules in processes, shows progress and a summary, and makes a failing seed smaller.
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

from tests.simulation.campaign import (
    Summary,
    fails,
    seeds_named,
    shrunk,
)
from tests.simulation.plan import LEAST
from tests.simulation.replays import differing
from tests.simulation.simulation import Report, simulate

PROCESSES = 2
CHUNK = 10
PROGRESS_SECONDS = 10.0
TRACE_BITS = (1 << 64) - 1


def main() -> int:
    told = _parser().parse_args()
    off = tuple(told.off.split(",")) if told.off else ()
    if told.replay:
        return _compare(range(told.first, told.first + told.replay))
    if told.seeds and len(told.seeds) == 1:
        return _replay(told.seeds[0], off, shrink=told.shrink)
    seeds: Iterable[int] = told.seeds or range(told.first, told.first + told.schedules)
    return _campaign(list(seeds), off, processes=told.processes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    names = ("--seeds", "--seed")
    parser.add_argument(*names, type=seeds_named, help="replay these: 17 or 17,20-40")
    parser.add_argument("--off", default="", help="classes of faults to leave out, by commas")
    parser.add_argument("--shrink", action="store_true", help="find the fewest classes that fail")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--replay", type=int, help="compare so many seeds between two processes")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    return parser


# -- one seed ----------------------------------------------------------------------------------


def _replay(seed: int, off: Collection[str], *, shrink: bool) -> int:
    report = simulate(seed, off)
    print(
        f"seed {seed}, trace {report.trace & TRACE_BITS:016x}, {report.seconds:.1f} virtual seconds"
    )
    print(f"healed within {report.healed_within:.1f} s of {report.bound:.1f} s")
    print("classes:", ", ".join(report.classes))
    for name, count in sorted(report.counters.items()):
        print(f"  {name:32} {count}")
    for finding in report.findings:
        print("FOUND", finding)
    if report.findings and shrink:
        needed = shrunk(seed, off)
        print("fails with no other classes than:", ", ".join(needed) or "none at all")
    return 1 if report.findings else 0


def _compare(seeds: range) -> int:
    different = differing(seeds)
    print(f"{len(seeds)} seeds replayed under two hash seeds, {len(different)} differ: {different}")
    return 1 if different else 0


# -- many --------------------------------------------------------------------------------------


def _campaign(seeds: list[int], off: Collection[str], *, processes: int) -> int:
    began = shown = time.monotonic()
    total = Summary()
    run = partial(simulate, off=off)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for report in pool.map(run, seeds, chunksize=CHUNK):
            total.add(report)
            if fails(report):
                _show_failure(report, off)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                _show_progress(total, len(seeds), shown - began)
    _summarise(total, time.monotonic() - began)
    return 1 if total.failed or total.missing else 0


def _show_failure(report: Report, off: Collection[str]) -> None:
    left_out = f" --off {','.join(off)}" if off else ""
    print(f"FAILED: python -m tests.simulation --seeds {report.seed}{left_out}")
    print(f"  {report.findings[0][:400]}", flush=True)


def _show_progress(total: Summary, schedules: int, seconds: float) -> None:
    rate = total.schedules / seconds
    left = (schedules - total.schedules) / rate
    line = f"{total.schedules} of {schedules} schedules, {rate:.1f} a second, {left:.0f} s left"
    print(f"{line}, {len(total.failed)} failed", file=sys.stderr, flush=True)


def _summarise(total: Summary, seconds: float) -> None:
    failed = f"{len(total.failed)} failed: {sorted(total.failed)}"
    print(f"{total.schedules} schedules in {seconds:.0f} s, {failed}")
    ratio, seed = total.ratio
    print(f"{total.seconds / 3600:.1f} virtual hours; slowest healing {total.healed_within:.1f} s")
    print(f"at most {ratio:.0%} of the bound of healing was used, by seed {seed}")
    least = ", ".join(f"{total.least.get(name, 0)} {name}" for name in LEAST)
    print(f"no schedule had fewer than {least}")
    for name, count in sorted(total.counters.items()):
        print(f"  {name:32} {count}")
    if total.missing:
        print("FAILED: never reached:", ", ".join(total.missing))


if __name__ == "__main__":
    sys.exit(main())
