"""Real sales through a store that is killed, and straight at Central, at the same time.

    python -m tests.campaigns.sales --data ../shared/data

Loads the catalogue into a Central stub, starts a store on it, and sells the first lines of the
sales file: odd lines by tills at the store, even ones at Central, so that the store's rows can
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

import aiohttp

from central_stub.replay import (
    Movement,
    Summary,
    central_target,
    read_movements,
    replay,
    store_target,
)
from central_stub.switches import Switches
from tests.campaigns.command import read_catalogue
from tests.harness.clients import CENTRAL_KEY, TILL_KEY
from tests.harness.commands import run_to_end
from tests.harness.processes import checksum
from tests.scenarios.people import LOOKED_UP, READ_PAUSE_SECONDS, Reads
from tests.scenarios.shop import ProcessShop, a_shop_of_processes

CHECKSUMS = {
    1_000: "68d25ee90e38ae7eb6b56264d0783db890e6794abb11d1f05746679dc1e1f12c",
    10_000: "b0a08b554efac5b5cd01d67205aa8403faa1fd296ca21cd9c915c9b41ec002f7",
    42_481: "6516c368d0131340269347777281cb258c1ce364ec6bb79e9b1460f2d24853f9",
    100_000: "48b08f64626a8b1eba7181425c74229a961c35dd9f643dc91527b9e22abada35",
}
"""Of the stock after so many lines, from the data's own README."""

STORE_TILLS = 8
CENTRAL_TILLS = 4
SYNC_SECONDS = 30.0


@dataclass
class Campaign:
    """`answered`: lines so far. `store_is_up`: not killed at this moment."""

    shop: ProcessShop
    sales: Path
    lines: int
    kills: int
    seed: int
    answered: int = 0
    store_is_up: bool = True
    reads: Reads = field(default_factory=Reads)


def say(text: str) -> None:
    print(text, flush=True)


async def run(campaign: Campaign, *, central_faults: bool) -> bool:
    """Sell all lines while the store is killed; whether all is as it must be."""
    shop, began = campaign.shop, time.monotonic()
    await shop.store.start("/ready")
    say(f"first sync of {len(shop.product_ids)} products: {time.monotonic() - began:.2f} s")
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read_all_the_time(campaign))
        others = [group.create_task(kill_on_the_way(campaign))]
        if central_faults:
            others.append(group.create_task(break_central_on_the_way(campaign)))
        summaries = await sell(campaign)
        await asyncio.wait(others)
        reader.cancel()
    return await judge(campaign, summaries)


async def sell(campaign: Campaign) -> tuple[Summary, Summary]:
    def count(_: Movement) -> None:
        campaign.answered += 1

    def half(odd: bool) -> Iterator[Movement]:
        with gzip.open(campaign.sales, "rt", encoding="utf-8", newline="") as text:
            for movement in read_movements(text, lines=campaign.lines):
                if movement.line % 2 == odd:
                    yield movement

    shop = campaign.shop
    at_store = replay(
        half(True),
        [store_target(shop.store.url, TILL_KEY)],
        tills=STORE_TILLS,
        seed=campaign.seed,
        answered=count,
    )
    at_central = replay(
        half(False),
        [central_target(shop.central.url, CENTRAL_KEY, "elsewhere")],
        tills=CENTRAL_TILLS,
        seed=campaign.seed + 1,
        answered=count,
    )
    return await asyncio.gather(at_store, at_central)


async def kill_on_the_way(campaign: Campaign) -> None:
    chance = random.Random(campaign.seed)
    for number in range(1, campaign.kills + 1):
        await until_answered(campaign, (number - chance.random()) / (campaign.kills + 1))
        campaign.store_is_up = False
        await campaign.shop.store.kill()
        began = time.monotonic()
        await campaign.shop.store.start("/ready")
        campaign.store_is_up = True
        took = time.monotonic() - began
        say(f"store killed at line {campaign.answered}, serving again after {took:.2f} s")


async def break_central_on_the_way(campaign: Campaign) -> None:
    central = campaign.shop.central
    await until_answered(campaign, 0.2)
    await central.stop()
    await asyncio.sleep(2.0)
    await central.start()
    say(f"Central stopped and started at line {campaign.answered}")
    await until_answered(campaign, 0.45)
    await central.kill()
    await asyncio.sleep(8.0)
    await central.start()
    say(f"Central killed and started at line {campaign.answered}")
    await until_answered(campaign, 0.7)
    await central.kill()
    central.switches = Switches(event_limit=50)
    await central.start()
    say(f"Central restarted with a log of 50 events at line {campaign.answered}")


async def until_answered(campaign: Campaign, share: float) -> None:
    while campaign.answered < campaign.lines * share:
        await asyncio.sleep(0.02)


async def read_all_the_time(campaign: Campaign) -> None:
    """Look products up; a read may fail only while the store is killed."""
    chance, shop = random.Random(campaign.seed + 2), campaign.shop
    while True:
        was_up, began = campaign.store_is_up, time.monotonic()
        try:
            reply = await shop.store.look_up(*chance.sample(shop.product_ids, LOOKED_UP))
        except aiohttp.ClientError as problem:
            if was_up and campaign.store_is_up:
                campaign.reads.failed.append(repr(problem))
        else:
            campaign.reads.note(reply, time.monotonic() - began)
        await asyncio.sleep(READ_PAUSE_SECONDS)


async def judge(campaign: Campaign, summaries: tuple[Summary, Summary]) -> bool:
    shop, reads = campaign.shop, campaign.reads
    for where, summary in zip(("store", "Central"), summaries, strict=True):
        say(
            f"at the {where}: {summary.sold} lines in {summary.duration_seconds:.1f} s "
            f"({summary.rate:.0f} a second), {summary.conflicts} conflicts, "
            f"{summary.repeats} repeats, {len(summary.refused)} refused, "
            f"{len(summary.doubtful)} doubtful"
        )
        for line, reason in summary.refused[:5]:
            say(f"  line {line}: {reason}")
    began = time.monotonic()
    await shop.until_in_sync(SYNC_SECONDS)
    say(f"the store's reads equal Central's {time.monotonic() - began:.2f} s after the last sale")
    for sync in (await shop.store.status())["fullSyncs"]:
        say(f"full sync since the last start: {sync['reasons']} {sync['problem']}")
    say(
        f"reads meanwhile: {reads.answered}, {len(reads.failed)} failed while the store was up, "
        f"slowest {reads.slowest_seconds * 1000:.0f} ms, {len(reads.went_back)} went back"
    )
    from_reads = checksum(await shop.store.rows())
    await shop.store.stop()
    await shop.central.stop()
    await shop.store.start("/ready")
    from_files = checksum(await shop.store.rows())
    say(f"checksum of the reads: {from_reads}")
    say(f"checksum of the files, Central down: {from_files}")
    wanted = CHECKSUMS[campaign.lines]
    well = from_reads == from_files == wanted and not reads.failed and not reads.went_back
    say("as it must be" if well else f"NOT as it must be: {wanted} {reads.failed[:3]}")
    return well


async def run_in(folder: Path, options: argparse.Namespace) -> bool:
    catalogue = read_catalogue(options.data)
    async with a_shop_of_processes(folder, catalogue, Switches()) as shop:
        sales = options.data / "sales.csv.gz"
        campaign = Campaign(shop, sales, options.lines, options.kills, options.seed)
        return await run(campaign, central_faults=options.central_faults)


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
    say(f"seed {options.seed}, files in {folder}")
    began = time.monotonic()
    well = run_to_end(run_in(folder, options))
    say(f"took {time.monotonic() - began:.1f} s")
    if well and not options.keep:
        shutil.rmtree(folder)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
