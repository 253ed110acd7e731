"""The sales of one shop through a store with an outbox, while Central comes and goes.

    python -m tests.campaigns.offline --data ../shared/data

Tills sell the lines of one shop of the sales file through its store (`OFFLINE_WRITES=queue`), which
is killed with `kill -9` on the way, with writes in flight. Tills of a second shop sell lines of the
same products straight at Central. Central is killed again and again, so that it is away for a third
of the time, and loses answers to writes it has applied. A line of the shop is done once its till
was answered 200 or 202: then it must be applied exactly once, or be shown as parked with a reason.

Exits with 1, and says what differs, where Central's ledger or the final stock is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from central_stub.replay import Movement, Summary, central_target, replay
from central_stub.switches import Switches
from tests.campaigns.command import read_catalogue
from tests.harness.clients import CENTRAL_KEY, INVENTORY, STORE_ADMIN_KEY, path_of
from tests.harness.commands import run_to_end
from tests.harness.processes import CentralProcess, StoreProcess
from tests.scenarios.shop import ProcessShop, a_shop_of_processes, until

HERE, ELSEWHERE, STORE_ID = "store-02", "elsewhere", "store-s1"
TILLS = 4
CENTRAL_TILLS = 2
UP_SECONDS = 1.0, 6.0
AWAY_SECONDS = 0.0, 2.0
"""And then it takes its time to start."""

LOST_ANSWERS = 3
"""After each return of Central."""

PAUSE_SECONDS = 0.3
DRAIN_SECONDS = 300.0
OUTBOX = "/v1/store/outbox"
ADMIN = {"X-API-Key": STORE_ADMIN_KEY}


def say(text: str) -> None:
    print(text, flush=True)


@dataclass
class Campaign:
    """`here`: the lines that go through the store, `there`: those straight to Central. `opening`
    has the stock before. `told` counts what tills were answered last. `refused`: writes that the
    store refused for their version, which their tills sent again with a new key."""

    shop: ProcessShop
    here: Sequence[Movement]
    there: Sequence[Movement]
    kills: int
    chance: random.Random
    opening: dict[str, int]
    done: int = 0
    away_seconds: float = 0.0
    outages: int = 0
    repeats: int = 0
    told: Counter[int] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)

    @property
    def store(self) -> StoreProcess:
        return self.shop.store

    @property
    def central(self) -> CentralProcess:
        return self.shop.central


# -- what happens at the same time -----------------------------------------------------------------


async def run(campaign: Campaign) -> bool:
    await campaign.store.start("/ready")
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        elsewhere = group.create_task(sell_elsewhere(campaign))
        selling = group.create_task(sell_here(campaign))
        killing = group.create_task(kill_on_the_way(campaign))
        outages = group.create_task(take_central_away(campaign))
        await asyncio.wait([selling, killing])
        took = time.monotonic() - began
        outages.cancel()
    await asyncio.wait([outages])
    say(
        f"{len(campaign.here)} lines in {took:.0f} s, {campaign.repeats} repeats; Central was away "
        f"{campaign.outages} times, {100 * campaign.away_seconds / took:.0f} % of the time; "
        f"the last answers: {dict(sorted(campaign.told.items()))}"
    )
    return await judge(campaign, elsewhere.result())


async def sell_here(campaign: Campaign) -> None:
    lines = iter(campaign.here)
    async with asyncio.TaskGroup() as group:
        for _ in range(TILLS):
            group.create_task(sell_lines(campaign, lines))


async def sell_lines(campaign: Campaign, lines: Iterator[Movement]) -> None:
    """Sell as a till does that repeats whatever gets no answer. One sale in four is from the till's
    screen, with the version that was on it."""
    for line in lines:
        key, status = f"line-{line.line}", 0
        while status not in (200, 202):
            status, answer = await sell(campaign, line, key)
            if answer.get("errorType") == "version_conflict":
                campaign.refused.add(key)
                key = f"line-{line.line}.{len(campaign.refused)}"
            elif status not in (200, 202):
                raise AssertionError(f"{key} is answered {status} {answer}")
        campaign.told[status] += 1
        campaign.done += 1


async def sell(campaign: Campaign, line: Movement, key: str) -> tuple[int, dict[str, Any]]:
    path = path_of(line.product_id)
    version = await version_on_screen(campaign, path) if line.line % 4 == 0 else None
    if version is None:
        body: dict[str, Any] = {"quantityChange": line.delta}
        return await answered(
            campaign, "PATCH", f"{path}/inventory", body, {"Idempotency-Key": key}
        )
    body = {"productId": line.product_id, "delta": line.delta, "version": version}
    body |= {"idempotencyKey": key, "onConflict": "rebase"}
    return await answered(campaign, "POST", f"{INVENTORY}/updates", body, {})


async def version_on_screen(campaign: Campaign, path: str) -> int | None:
    try:
        reply = await campaign.store.call("GET", path)
    except aiohttp.ClientError:
        return None
    return reply.json["version"] if reply.status == 200 else None


async def answered(
    campaign: Campaign, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Repeat a write until it is taken or refused; 503 and 504 are neither."""
    while True:
        try:
            reply = await campaign.store.call(method, path, json=body, headers=headers)
        except aiohttp.ClientError:
            pass  # the store was killed
        else:
            if reply.status not in (503, 504):
                return reply.status, dict(reply.json)
        campaign.repeats += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def sell_elsewhere(campaign: Campaign) -> Summary:
    target = central_target(campaign.central.url, CENTRAL_KEY, ELSEWHERE)
    seed = campaign.chance.getrandbits(32)
    return await replay(iter(campaign.there), [target], tills=CENTRAL_TILLS, seed=seed)


async def kill_on_the_way(campaign: Campaign) -> None:
    for number in range(1, campaign.kills + 1):
        share = (number - campaign.chance.random()) / (campaign.kills + 1)
        while campaign.done < len(campaign.here) * share:
            await asyncio.sleep(0.01)
        await campaign.store.kill()
        await campaign.store.start("/ready")
        say(f"store killed at line {campaign.done} of {len(campaign.here)}, and serving again")


async def take_central_away(campaign: Campaign) -> None:
    """Kill Central and start it again, so that it is there for twice as long as it is away; at the
    end it is there."""
    central, up_seconds = campaign.central, campaign.chance.uniform(*UP_SECONDS)
    try:
        while True:
            await central.fault("drop", when="after", routes=["updates"], times=LOST_ANSWERS)
            await asyncio.sleep(up_seconds)
            await central.kill()
            went_at = time.monotonic()
            campaign.outages += 1
            try:
                await asyncio.sleep(campaign.chance.uniform(*AWAY_SECONDS))
            finally:
                await central.start()
                away_seconds = time.monotonic() - went_at
                campaign.away_seconds += away_seconds
            up_seconds = max(campaign.chance.uniform(*UP_SECONDS), 2 * away_seconds)
    finally:
        await central.clear_faults()


# -- the end -----------------------------------------------------------------------------------


async def judge(campaign: Campaign, elsewhere: Summary) -> bool:
    began = time.monotonic()
    await until(lambda: nothing_is_to_be_sent(campaign), within_seconds=DRAIN_SECONDS)
    say(f"nothing is queued or in doubt {time.monotonic() - began:.1f} s after the last sale")
    parked = await parked_entries(campaign.store)
    backup = await campaign.central.backup()
    applied = times_applied(backup["events"])
    problems = [f"the other shop was refused {one}" for one in elsewhere.refused[:3]]
    problems += [f"{key} is applied, and was refused" for key in campaign.refused if applied[key]]
    sold, shown = by_line(applied), by_line(Counter(dict.fromkeys(parked, 1)))
    for line in campaign.here:
        number, times = str(line.line), sold[str(line.line)]
        if times + shown[number] != 1:
            problems.append(f"line {number}: applied {times} times, parked {shown[number]} times")
    problems += [f"{key} is parked without a reason" for key, why in parked.items() if not why]
    problems += await wrong_stock(campaign, sold)
    say(
        f"through the store: {sold.total()} applied, {len(parked)} parked, {len(campaign.refused)} "
        "sent again for their version; "
        f"straight at Central: {elsewhere.sold} sold, {elsewhere.conflicts} conflicts"
    )
    for reason, count in Counter(parked.values()).most_common():
        say(f"  parked: {count} times {reason}")
    for problem in problems[:20]:
        say(f"  NOT as it must be: {problem}")
    say("as it must be" if not problems else f"{len(problems)} not as they must be")
    return not problems


async def nothing_is_to_be_sent(campaign: Campaign) -> bool:
    reply = await campaign.store.call("GET", f"{OUTBOX}?limit=1", headers=ADMIN)
    counts = reply.json["counts"]
    return not counts["queued"] + counts["sending"] + counts["inDoubt"]


async def parked_entries(store: StoreProcess) -> dict[str, str]:
    """Return why each parked write is parked, by its key."""
    found: dict[str, str] = {}
    after = ""
    while True:
        path = f"{OUTBOX}?state=parked&limit=200&after={after}"
        entries = (await store.call("GET", path, headers=ADMIN)).json["entries"]
        found |= {entry["idempotencyKey"]: entry["errorType"] for entry in entries}
        if not entries:
            return found
        after = entries[-1]["outboxId"]


def times_applied(events: Sequence[dict[str, Any]]) -> Counter[str]:
    """Return how often Central has applied each write of the store, under whatever derived key."""
    prefix = f"{STORE_ID}-"
    keys = [event.get("idempotencyKey", "") for event in events]
    return Counter(
        key.removeprefix(prefix).partition("~")[0] for key in keys if key.startswith(prefix)
    )


def by_line(keys: Counter[str]) -> Counter[str]:
    """Sum up by line; the keys of a line are `line-7`, and `line-7.2` and so on if it was sent
    again."""
    sums: Counter[str] = Counter()
    for key, times in keys.items():
        sums[key.removeprefix("line-").partition(".")[0]] += times
    return sums


async def wrong_stock(campaign: Campaign, sold: Counter[str]) -> list[str]:
    """Compare the stock with the opening one and all that was sold, at Central and at the store."""
    expected = dict(campaign.opening)
    for line in campaign.there:
        expected[line.product_id] += line.delta
    for line in campaign.here:
        expected[line.product_id] += line.delta * sold[str(line.line)]
    await campaign.shop.until_in_sync(60.0)
    rows = await campaign.central.rows()
    found = {product: row.get("available", 0) for product, row in rows.items()}
    wrong = [i for i in expected if expected[i] != found.get(i)]
    return [f"{i} is {found.get(i)}, and must be {expected[i]}" for i in wrong]


# -- the command -------------------------------------------------------------------------------


def lines_of(sales: Path, count: int) -> tuple[list[Movement], list[Movement]]:
    """Return the first lines of the shop, and of other shops as many with the same products."""
    with gzip.open(sales, "rt", encoding="utf-8", newline="") as text:
        rows = [
            (Movement(number, row["productId"], int(row["delta"])), row["store"])
            for number, row in enumerate(csv.DictReader(text), start=1)
        ]
    here = [*islice((line for line, shop in rows if shop == HERE), count)]
    products = {line.product_id for line in here}
    others = (line for line, shop in rows if shop != HERE and line.product_id in products)
    return here, [*islice(others, count)]


async def run_in(folder: Path, options: argparse.Namespace) -> bool:
    catalogue = read_catalogue(options.data)
    here, there = lines_of(options.data / "sales.csv.gz", options.lines)
    opening = {row["productId"]: row["available"] for row in catalogue}
    switches, settings = Switches(event_limit=1_000_000), {"OFFLINE_WRITES": "queue"}
    async with a_shop_of_processes(folder, catalogue, switches, **settings) as shop:
        chance = random.Random(options.seed)
        return await run(Campaign(shop, here, there, options.kills, chance, opening))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="catalogue and sales")
    parser.add_argument("--lines", type=int, default=2_000, help="and as many of others")
    parser.add_argument("--kills", type=int, default=10, help="of the store")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="offline-"))
    say(f"seed {options.seed}, files in {folder}")
    well = run_to_end(run_in(folder, options))
    if well:
        shutil.rmtree(folder)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
