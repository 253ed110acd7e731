"""Everything that can happen to Central, one after the other, with the real catalogue.

    python -m tests.campaigns.outages --data ../shared/data

Central is stopped, killed, restarted with a log too short, replaced by a new generation, restored
to an earlier state with offsets reused, and wiped and grown past the position; with and without a
named generation. Each time tills sell and readers read; the store must be in step again within 10 s
of Central's return, with one full sync where one was needed and none where not, and its status must
say why. Exits with 1 where anything is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.campaigns.processes import Central, Store, free_port, until_equal
from tests.campaigns.sales import read_catalogue
from tests.campaigns.watch import reading, selling

WITHIN_SECONDS = 10.0

Row = dict[str, object]


@dataclass(frozen=True)
class Shop:
    central: Central
    store: Store
    catalogue: list[Row]


@dataclass(frozen=True)
class Outage:
    """What happens, how many full syncs that needs, and a word that their reason must have."""

    name: str
    happens: Callable[[Shop], Awaitable[None]]
    full_syncs: int
    why: str = ""
    without: str = ""


async def stopped(shop: Shop) -> None:
    await shop.central.stop()
    await asyncio.sleep(3.0)
    await shop.central.start()


async def killed(shop: Shop) -> None:
    await shop.central.kill()
    await asyncio.sleep(15.0)
    await shop.central.start()


async def log_too_short(shop: Shop) -> None:
    """While the store cannot hear it, Central grows beyond what its log holds."""
    await shop.central.stop()
    await elsewhere(shop, changes=200, CENTRAL_STUB_EVENT_LIMIT="100")
    await shop.central.start(CENTRAL_STUB_EVENT_LIMIT="100")


async def new_generation(shop: Shop) -> None:
    await shop.central.admin("POST", "/v1/admin/faults", {"kind": "new_generation"})


async def restored(shop: Shop) -> None:
    """A backup is put back, and new sales reuse its offsets beyond the store's position."""
    await shop.central.stop()
    backup = shop.central.folder.with_name("backup")
    shutil.copytree(shop.central.folder, backup)
    await shop.central.start()
    await change(shop.central, 100)
    await until_in_step(shop.store, time.monotonic())
    await shop.central.kill()
    shutil.rmtree(shop.central.folder)
    backup.rename(shop.central.folder)
    await elsewhere(shop, changes=300)
    await shop.central.start()


async def wiped(shop: Shop) -> None:
    """Everything is loaded anew, and sales go on until the feed is longer than it was."""
    status = await shop.store.status()
    position = status["eventSync"]["lastEventOffset"]
    await shop.central.kill()
    shutil.rmtree(shop.central.folder)
    grown = max(0, position - len(shop.catalogue)) + 200
    await elsewhere(shop, changes=grown, loads=True)
    await shop.central.start()


async def elsewhere(shop: Shop, *, changes: int, loads: bool = False, **environment: str) -> None:
    """Central, at an address that the store does not know, on the same ledger."""
    port = free_port()
    central = shop.central
    known, central.port = central.port, port
    known_url, central.url = central.url, f"http://127.0.0.1:{port}"
    await central.start(CENTRAL_STUB_PORT=str(port), **environment)
    if loads:
        await central.load(shop.catalogue)
    await change(central, changes)
    await central.stop()
    central.port, central.url = known, known_url


async def change(central: Central, times: int) -> None:
    """That many events, each setting a product's quantity."""
    ids = sorted(await central.stock())
    for start in range(0, times, 100):
        products = [
            {"productId": ids[i % len(ids)], "available": i} for i in range(start, start + 100)
        ]
        await central.admin("PUT", "/v1/admin/products/set", {"products": products})


OUTAGES = [
    Outage("stopped for 3 s", stopped, 0),
    Outage("killed for 15 s", killed, 0),
    Outage("its log is too short", log_too_short, 1, "410"),
    Outage("a new generation", new_generation, 1, "new generation"),
    Outage("restored, offsets reused", restored, 1, "another event"),
    Outage("wiped and grown past", wiped, 1, "new generation"),
    Outage("stopped, unnamed", stopped, 0, without="generation"),
    Outage("too short, truncated silently", log_too_short, 1, "missing", without="generation,gone"),
    Outage("restored, unnamed", restored, 1, "another event", without="generation"),
    Outage("wiped and grown, unnamed", wiped, 1, "another event", without="generation"),
]


async def run(outage: Outage, folder: Path, catalogue: list[Row]) -> list[str]:
    central = Central(folder / "central", CENTRAL_STUB_WITHOUT=outage.without)
    store = Store(folder / "store", central.url)
    try:
        await central.start()
        await central.load(catalogue)
        await store.start("/ready")
        return await judge(outage, Shop(central, store, catalogue))
    finally:
        await store.kill()
        await central.kill()


async def judge(outage: Outage, shop: Shop) -> list[str]:
    ids = [str(row["productId"]) for row in shop.catalogue]
    async with reading(shop.store, ids) as reads:
        async with selling(shop.store, shop.central, ids) as sales:
            await asyncio.sleep(4.0)  # a full sync has held once nothing was lost for a while
            before = len((await shop.store.status())["fullSyncs"])
            await outage.happens(shop)
            returned = time.monotonic()
            took = await until_in_step(shop.store, returned)
        await until_equal(shop.store, shop.central, WITHIN_SECONDS)
        status = await shop.store.status()
    runs = status["fullSyncs"][: len(status["fullSyncs"]) - before]
    reasons = [reason for run in runs for reason in run["reasons"]]
    print(
        f"{outage.name:32} in step after {took:4.1f} s, full syncs {len(runs)} "
        f"{reasons or ''}, reads {reads.answered} (slowest {reads.slowest_seconds * 1000:.0f} ms), "
        f"sales {sales.applied}, conflicts {sales.conflicts}, others {sales.other}",
        flush=True,
    )
    problems = list(reads.problems)
    if took > WITHIN_SECONDS:
        problems.append(f"in step only after {took:.1f} s")
    if len(runs) != outage.full_syncs:
        problems.append(f"{len(runs)} full syncs where {outage.full_syncs} were needed")
    if outage.why not in " ".join(reasons):
        problems.append(f"the status does not say {outage.why!r}: {reasons}")
    return problems


async def until_in_step(store: Store, returned: float) -> float:
    """Wait until the store says that it is live and has been in step since Central's return."""
    while time.monotonic() - returned < 6 * WITHIN_SECONDS:
        with suppress(httpx.HTTPError):
            status = await store.status()
            async with store.client() as client:
                page = await client.get("/v1/store/inventory?limit=1")
            fresh = float(page.headers["Age"]) < time.monotonic() - returned
            if status["state"]["name"] == "live" and fresh and not status["lag"]:
                return time.monotonic() - returned
        await asyncio.sleep(0.05)
    return time.monotonic() - returned


async def run_all(data: Path, only: str) -> int:
    catalogue: list[Row] = read_catalogue(data / "catalogue.jsonl.gz")
    failed = 0
    for outage in OUTAGES:
        if only not in outage.name:
            continue
        folder = Path(tempfile.mkdtemp(prefix="outage-"))
        problems = await run(outage, folder, catalogue)
        failed += bool(problems)
        for problem in problems[:10]:
            print(f"  NOT as it must be: {problem}; logs in {folder}")
        if not problems:
            shutil.rmtree(folder)
    print("all as it must be" if not failed else f"{failed} not as they must be")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the catalogue")
    parser.add_argument("--only", default="", help="outages whose name has this")
    options = parser.parse_args()
    return asyncio.run(run_all(options.data, options.only))


if __name__ == "__main__":
    sys.exit(main())
