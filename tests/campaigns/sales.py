"""Real sales through a store that is killed, and straight at Central, at the same time.

    python -m tests.campaigns.sales --data ../shared/data

Loads the catalogue into a Central stub, starts a store on it, and sells the first lines of the
sales file: odd lines by tills at the store, even ones at Central, so that the store's shelf can
only be right if the feed works. The store is killed with `kill -9` on the way; tills repeat what
was not answered. At the end the store's reads must give the checksum that belongs to the line, and
so must its files, after a start with Central down. `--central-faults` has Central stopped, killed,
and its log forgotten on the way as well.

Exits with 1, and says what differs, where anything is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orjson

from central_stub.replay import (
    Movement,
    Summary,
    central_target,
    read_movements,
    replay,
    store_target,
)
from tests.campaigns.processes import (
    CENTRAL_KEY,
    TILL_KEY,
    Central,
    Store,
    checksum,
    until_equal,
)

CHECKSUMS = {
    1_000: "68d25ee90e38ae7eb6b56264d0783db890e6794abb11d1f05746679dc1e1f12c",
    10_000: "b0a08b554efac5b5cd01d67205aa8403faa1fd296ca21cd9c915c9b41ec002f7",
    42_481: "6516c368d0131340269347777281cb258c1ce364ec6bb79e9b1460f2d24853f9",
    100_000: "48b08f64626a8b1eba7181425c74229a961c35dd9f643dc91527b9e22abada35",
}
"""Of the stock after so many lines, from the data's own README."""

STORE_TILLS = 8
CENTRAL_TILLS = 4


@dataclass
class Reads:
    """A till that only reads, all the time: how many reads, how many failed while the store was
    up, the slowest, and each product's version going back (must not)."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    went_back: list[str] = field(default_factory=list)


@dataclass
class Campaign:
    central: Central
    store: Store
    lines: int
    kills: int
    central_faults: bool
    seed: int
    answered: int = 0
    store_is_up: bool = True
    reads: Reads = field(default_factory=Reads)
    log: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.log.append(text)
        print(text, flush=True)


async def run(campaign: Campaign, catalogue: list[dict[str, object]], sales: Path) -> bool:
    central, store = campaign.central, campaign.store
    await central.start()
    await central.load(catalogue)
    began = time.monotonic()
    await store.start("/ready")
    campaign.say(f"first sync of {len(catalogue)} products: {time.monotonic() - began:.2f} s")
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read_all_the_time(campaign, catalogue, done))
        killer = group.create_task(kill_on_the_way(campaign))
        faults = group.create_task(break_central_on_the_way(campaign))
        summaries = await sell(campaign, sales)
        await killer
        await faults
        done.set()
        await reader
    return await judge(campaign, summaries)


async def sell(campaign: Campaign, sales: Path) -> tuple[Summary, Summary]:
    def count(_: Movement) -> None:
        campaign.answered += 1

    def half(odd: bool) -> Iterator[Movement]:
        with gzip.open(sales, "rt", encoding="utf-8", newline="") as text:
            for movement in read_movements(text, lines=campaign.lines):
                if movement.line % 2 == odd:
                    yield movement

    at_store = replay(
        half(True),
        [store_target(campaign.store.url, TILL_KEY)],
        tills=STORE_TILLS,
        seed=campaign.seed,
        answered=count,
    )
    at_central = replay(
        half(False),
        [central_target(campaign.central.url, CENTRAL_KEY, "elsewhere")],
        tills=CENTRAL_TILLS,
        seed=campaign.seed + 1,
        answered=count,
    )
    return await asyncio.gather(at_store, at_central)


async def kill_on_the_way(campaign: Campaign) -> None:
    chance = random.Random(campaign.seed)
    for number in range(1, campaign.kills + 1):
        share = (number - chance.random()) / (campaign.kills + 1)
        await until_answered(campaign, share)
        campaign.store_is_up = False
        await campaign.store.kill()
        began = time.monotonic()
        await campaign.store.start("/ready")
        campaign.store_is_up = True
        took = time.monotonic() - began
        campaign.say(f"store killed at line {campaign.answered}, serving again after {took:.2f} s")


async def break_central_on_the_way(campaign: Campaign) -> None:
    if not campaign.central_faults:
        return
    central = campaign.central
    await until_answered(campaign, 0.2)
    await central.stop()
    await asyncio.sleep(2.0)
    await central.start()
    campaign.say(f"Central stopped and started at line {campaign.answered}")
    await until_answered(campaign, 0.45)
    await central.kill()
    await asyncio.sleep(8.0)
    await central.start()
    campaign.say(f"Central killed and started at line {campaign.answered}")
    await until_answered(campaign, 0.7)
    await central.kill()
    await central.start(CENTRAL_STUB_EVENT_LIMIT="50")
    campaign.say(f"Central restarted with a log of 50 events at line {campaign.answered}")


async def until_answered(campaign: Campaign, share: float) -> None:
    while campaign.answered < campaign.lines * share:
        await asyncio.sleep(0.02)


async def read_all_the_time(
    campaign: Campaign, catalogue: list[dict[str, object]], done: asyncio.Event
) -> None:
    chance = random.Random(campaign.seed + 2)
    ids = [str(row["productId"]) for row in catalogue]
    seen: dict[str, int] = {}
    async with campaign.store.client() as client:
        while not done.is_set():
            await read_once(campaign, client, chance.sample(ids, 20), seen)
            await asyncio.sleep(0.02)


async def read_once(
    campaign: Campaign, client: httpx.AsyncClient, ids: list[str], seen: dict[str, int]
) -> None:
    was_up, began = campaign.store_is_up, time.monotonic()
    try:
        response = await client.post("/v1/store/inventory/lookup", json={"productIds": ids})
        response.raise_for_status()
    except httpx.HTTPError as problem:
        if was_up and campaign.store_is_up:
            campaign.reads.failed.append(repr(problem))
        return
    campaign.reads.answered += 1
    took = time.monotonic() - began
    campaign.reads.slowest_seconds = max(campaign.reads.slowest_seconds, took)
    for row in response.json()["products"]:
        product_id, version = row["productId"], row["version"]
        if version < seen.get(product_id, 0):
            campaign.reads.went_back.append(f"{product_id}: {seen[product_id]} -> {version}")
        seen[product_id] = max(version, seen.get(product_id, 0))


async def judge(campaign: Campaign, summaries: tuple[Summary, Summary]) -> bool:
    central, store, say = campaign.central, campaign.store, campaign.say
    for where, summary in zip(("store", "Central"), summaries, strict=True):
        say(
            f"at the {where}: {summary.sold} lines in {summary.duration_seconds:.1f} s "
            f"({summary.rate:.0f} a second), {summary.conflicts} conflicts, "
            f"{summary.repeats} repeats, {len(summary.refused)} refused, "
            f"{len(summary.doubtful)} doubtful"
        )
        for line, reason in summary.refused[:5]:
            say(f"  line {line}: {reason}")
    took = await until_equal(store, central, 30.0)
    say(f"the store's reads equal Central's {took:.2f} s after the last sale")
    status = await store.status()
    for item in status["fullSyncs"]:
        say(f"full sync since the last start: {item['reasons']} {item['problem']}")
    reads = campaign.reads
    say(
        f"reads meanwhile: {reads.answered}, {len(reads.failed)} failed while the store was up, "
        f"slowest {reads.slowest_seconds * 1000:.0f} ms, {len(reads.went_back)} went back"
    )
    from_reads = checksum(await store.stock())
    await store.stop()
    await central.stop()
    await store.start("/ready")
    from_files = checksum(await store.stock())
    say(f"checksum of the reads: {from_reads}")
    say(f"checksum of the files, Central down: {from_files}")
    await store.stop()
    wanted = CHECKSUMS[campaign.lines]
    well = from_reads == from_files == wanted and not reads.failed and not reads.went_back
    say("as it must be" if well else f"NOT as it must be: {wanted} {reads.failed[:3]}")
    return well


def read_catalogue(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rb") as lines:
        return [orjson.loads(line) for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="catalogue and sales")
    parser.add_argument("--lines", type=int, default=42_481, choices=sorted(CHECKSUMS))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--central-faults", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave files and logs")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sales-"))
    central = Central(folder / "central")
    store = Store(folder / "store", central.url)
    campaign = Campaign(
        central, store, options.lines, options.kills, options.central_faults, options.seed
    )
    campaign.say(f"seed {options.seed}, files in {folder}")
    began = time.monotonic()
    catalogue = read_catalogue(options.data / "catalogue.jsonl.gz")
    try:
        well = asyncio.run(run(campaign, catalogue, options.data / "sales.csv.gz"))
    finally:
        asyncio.run(_end(central, store))
    campaign.say(f"took {time.monotonic() - began:.1f} s")
    if well and not options.keep:
        shutil.rmtree(folder)
    return 0 if well else 1


async def _end(*programs: Central | Store) -> None:
    for program in programs:
        await program.kill()


if __name__ == "__main__":
    sys.exit(main())
