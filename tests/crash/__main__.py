"""Kill the real store on a real disk, again and again, and look for missing data.

    python -m tests.crash [--kills 500] [--calls 40] [--workers 2] [--seed 1] [--folder DIR]

On each folder many processes of the store run, one after the other. They follow a busy Central over
HTTP, while tills sell, full syncs run and journals are compacted. First `--kills` of them are
killed at random moments of a random activity. Then some are killed at each system call of the disk,
one name and one number at a time, up to `--calls` of a name; that needs strace, and is skipped
without it. Exits with 1, and keeps the folder, if anything acknowledged is missing or a start
fails: `store.log` there has the store's output, `told.jsonl` what it showed and acknowledged.

`--without` takes a safeguard out of the product first; the command must then exit with 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.forking import warm_up
from tests.crash.judge import DataLost
from tests.crash.kills import has_strace, kill_at_calls, kill_by_workers
from tests.crash.tally import Tally
from tests.removals.removal import Patch
from tests.removals.table import TABLE


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(title: str, tally: Tally, seconds: float) -> None:
    say(f"{title}, {seconds:.0f} s")
    for line in tally.lines():
        say(line)
    say("lost: 0")


def run(folder: Path, options: argparse.Namespace) -> None:
    began = time.monotonic()
    if options.kills:
        tally = kill_by_workers(folder, options.seed, options.kills, options.workers)
        report("at random moments", tally, time.monotonic() - began)
    began = time.monotonic()
    if options.calls and has_strace():
        tally = kill_at_calls(folder, options.seed, options.calls)
        report("at system calls", tally, time.monotonic() - began)
    elif options.calls:
        say("at system calls: skipped, strace is not installed (apt-get install strace)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500, help="at random moments")
    parser.add_argument("--calls", type=int, default=40, help="at most, of each system call")
    parser.add_argument("--workers", type=int, default=2, help="processes that kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--without",
        choices=TABLE,
        metavar="NAME",
        help="a safeguard to take out, by its name in tests/removals",
    )
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary one")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    if options.without:
        TABLE[options.without].take_out(Patch())
    warm_up()
    try:
        run(folder, options)
    except DataLost as lost:
        say(f"LOST: {lost}\nseed {options.seed}, files and logs in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
