"""Older Centrals, each imitated by switches, with the real catalogue and writers at work.

    python -m tests.campaigns.older --data ../shared/data

One switch after the other, and all together: no generation, no `eventOffset`, no 410 but silent
truncation, pages capped at 50, polls not held, zeros left out, offsets and versions out of order,
100 requests a minute for everything, keys forgotten after seconds, errors in HTML. The store must
get its first sync through, be right at the end, and have run no other full sync. Exits with 1 where
anything is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.processes import Central, Store, until_equal
from tests.campaigns.sales import read_catalogue
from tests.campaigns.watch import reading, selling

FIRST_SYNC_SECONDS = 300.0
SELLING_SECONDS = 15.0
EQUAL_SECONDS = 90.0


@dataclass(frozen=True)
class Older:
    """A Central that is older in one way: what it lacks, and its other switches."""

    name: str
    without: tuple[str, ...] = ()
    switches: dict[str, Any] = field(default_factory=dict)


CASES = [
    Older("an honest one"),
    Older("no generation", ("generation",)),
    Older("no eventOffset", ("event-offset",)),
    Older("silent truncation", ("gone",), {"eventLimit": 500}),
    Older("pages of 50", (), {"pageLimit": 50}),
    Older("polls not held", ("hold",)),
    Older("zeros left out", ("zeros",)),
    Older("out of order", ("order",)),
    Older("100 requests a minute", (), {"rateLimit": 100}),
    Older("keys forgotten after 2 s", (), {"keyMemorySeconds": 2}),
    Older("errors in HTML", (), {"htmlErrors": True}),
    Older("eventOffset is the next", (), {"eventOffsetMeans": "next"}),
    Older("items and cursors", (), {"pageShape": "items"}),
    Older("one bare list", (), {"pageShape": "list"}),
]

ALL = Older(
    "all together",
    tuple(sorted({name for case in CASES for name in case.without})),
    {
        "pageLimit": 50,
        "rateLimit": 100,
        "keyMemorySeconds": 2,
        "htmlErrors": True,
        "rateLimitHint": "none",
        "refusalStatus": "varied",
        "oldEventNames": True,
        "unnamedWrites": True,
        "slashesUnreachable": True,
        "holdBeyondHead": True,
        "nullEvents": True,
    },
)


async def run(case: Older, folder: Path, catalogue: list[dict[str, object]]) -> list[str]:
    central = Central(folder / "central")
    store = Store(folder / "store", central.url, SYNC_INTERVAL_SECONDS="5")
    try:
        await central.start()
        await central.load(catalogue)
        switches = {"without": list(case.without), **case.switches}
        await central.admin("PUT", "/v1/admin/switches", switches)
        began = time.monotonic()
        await store.start("/health")
        ids = [str(row["productId"]) for row in catalogue]
        async with selling(store, central, ids) as sales:
            await until_ready(store, began)
            first_sync = time.monotonic() - began
            async with reading(store, ids) as reads:
                await asyncio.sleep(SELLING_SECONDS)
        await central.admin("PUT", "/v1/admin/switches", {"pageShape": "products"})
        took = await until_equal(store, central, EQUAL_SECONDS)
        status = await store.status()
    finally:
        await store.kill()
        await central.kill()
    runs = status["fullSyncs"]
    print(
        f"{case.name:26} first sync {first_sync:5.1f} s, equal after {took:4.1f} s, full syncs "
        f"{len(runs)}, sales {sales.applied}, conflicts {sales.conflicts}, others {sales.other}, "
        f"reads {reads.answered}, slowest {reads.slowest_seconds * 1000:.0f} ms",
        flush=True,
    )
    problems = list(reads.problems)
    if len(runs) != 1:
        problems.append(f"full syncs: {[run['reasons'] + [run['problem']] for run in runs]}")
    if not sales.applied:
        problems.append("nothing was sold")
    return problems


async def until_ready(store: Store, began: float) -> None:
    async with store.client() as client:
        while not (await client.get("/ready")).is_success:
            if time.monotonic() - began > FIRST_SYNC_SECONDS:
                raise AssertionError(f"no first sync: {await store.status()}")
            await asyncio.sleep(0.1)


async def run_all(data: Path, only: str) -> int:
    catalogue = read_catalogue(data / "catalogue.jsonl.gz")
    failed = 0
    for case in [*CASES, ALL]:
        if only not in case.name:
            continue
        folder = Path(tempfile.mkdtemp(prefix="older-"))
        try:
            problems = await run(case, folder, catalogue)
        except AssertionError as wrong:
            problems = [f"{case.name}: {wrong}"]
        failed += bool(problems)
        for problem in problems[:10]:
            print(f"  NOT as it must be: {problem}; logs in {folder}", flush=True)
        if not problems:
            shutil.rmtree(folder)
    print("all as it must be" if not failed else f"{failed} not as they must be")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the catalogue")
    parser.add_argument("--only", default="", help="Centrals whose name has this")
    options = parser.parse_args()
    return asyncio.run(run_all(options.data, options.only))


if __name__ == "__main__":
    sys.exit(main())
