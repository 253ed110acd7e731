"""Many chains of lives, and what they add up to.

Knows: how many chains, of what, in how many processes at once. Refuses to know: what a chain does.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import orjson

from tests.crash.judge import Lost
from tests.crash.killing import Chain
from tests.crash.processes import fork
from tests.crash.records import Activity
from tests.crash.tally import Tally

LIVES = 24
"""On one folder, the last one to the end."""
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
    """Chains until there were that many kills. Raises Lost; the folder is then kept."""
    tally = Tally()
    while tally.kills < kills:
        place = folder / f"f{seed}-{tally.folders}"
        chain = Chain(place, seed * 1_000_003 + tally.folders)
        chance = random.Random(f"{seed}-{tally.folders}")
        with chain.following():
            for _ in range(min(LIVES, kills - tally.kills - 1)):
                chain.kill_once(chance.choice(list(Activity)))
        tally.add(chain.tally)
        shutil.rmtree(place)
    return tally


def kill_at_calls(folder: Path, seed: int, most: int) -> Tally:
    """At each system call of a life, one name and one number at a time, up to `most` of a name.
    Raises Lost."""
    tally = Tally()
    for name in SYSTEM_CALLS:
        chain = Chain(folder / name, seed)
        with chain.following():
            for number in range(1, most + 1):
                if not chain.kill_at_call(name, number):
                    break
        tally.add(chain.tally)
        shutil.rmtree(folder / name)
    return tally


def strace_is_there() -> bool:
    return shutil.which("strace") is not None


def kill_by_workers(folder: Path, seed: int, kills: int, workers: int) -> Tally:
    """`kill_at_random` in some processes at once. Raises Lost when all of them have ended."""
    seeds = [seed * 1000 + number for number in range(workers)]
    processes = [_work(folder, each, -(-kills // workers)) for each in seeds]
    statuses = [os.waitpid(process, 0)[1] for process in processes]
    tally = Tally()
    for each, status in zip(seeds, statuses, strict=True):
        if status:
            raise Lost(_log(folder, each).read_text())
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
