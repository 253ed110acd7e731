"""Many series of kills, and their sum."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import orjson

from tests.crash.forking import fork
from tests.crash.judge import DataLost
from tests.crash.reports import Activity
from tests.crash.series import KillSeries
from tests.crash.tally import Tally

VICTIMS = 24
"""On one folder. The last one is not killed before it has finished."""
SYSTEM_CALLS = (
    "write",
    "pwrite64",
    "fdatasync",
    "fsync",
    "renameat",
    "openat",
    "unlinkat",
    "ftruncate",
    "flock",
    "close",
)


def kill_at_random(folder: Path, seed: int, kills: int) -> Tally:
    """Kill so many victims at random moments. Raises DataLost; the folder is then kept."""
    tally = Tally()
    while tally.kills < kills:
        place = folder / f"f{seed}-{tally.folders}"
        series = KillSeries(place, seed * 1_000_003 + tally.folders)
        chance = random.Random(f"{seed}-{tally.folders}")
        with series.following():
            for _ in range(min(VICTIMS, kills - tally.kills - 1)):
                series.kill_once(chance.choice(list(Activity)))
        tally.add(series.tally)
        shutil.rmtree(place)
    return tally


def kill_at_calls(folder: Path, seed: int, most: int) -> Tally:
    """Kill victims at each system call, one name and one number at a time, up to `most` of a name.
    Raises DataLost."""
    tally = Tally()
    for name in SYSTEM_CALLS:
        series = KillSeries(folder / name, seed)
        with series.following():
            for number in range(1, most + 1):
                if not series.kill_at_call(name, number):
                    break
        tally.add(series.tally)
        shutil.rmtree(folder / name)
    return tally


def has_strace() -> bool:
    return shutil.which("strace") is not None


def kill_by_workers(folder: Path, seed: int, kills: int, workers: int) -> Tally:
    """Run `kill_at_random` in several processes. Raises DataLost when all of them have ended."""
    seeds = [seed * 1000 + number for number in range(workers)]
    processes = [_work(folder, each, -(-kills // workers)) for each in seeds]
    statuses = [os.waitpid(process, 0)[1] for process in processes]
    tally = Tally()
    for each, status in zip(seeds, statuses, strict=True):
        if status:
            raise DataLost(_log(folder, each).read_text())
        tally.add(Tally.from_json(orjson.loads(_result(folder, each).read_bytes())))
    return tally


def _work(folder: Path, seed: int, kills: int) -> int:
    def work() -> None:
        tally = kill_at_random(folder, seed, kills)
        _result(folder, seed).write_bytes(
            orjson.dumps(tally.to_json(), option=orjson.OPT_NON_STR_KEYS)
        )

    return fork(work, _log(folder, seed))


def _log(folder: Path, seed: int) -> Path:
    return folder / f"worker-{seed}.log"


def _result(folder: Path, seed: int) -> Path:
    return folder / f"worker-{seed}.json"
