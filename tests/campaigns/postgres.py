"""Real sales through two processes of Central over one PostgreSQL, all of which are killed.

    python -m tests.campaigns.postgres --data ../shared/data

Tills sell the first lines of the sales file at both processes, all at once. Each process is killed
with `kill -9` ten times on the way, and PostgreSQL is stopped once and killed once; tills repeat
what was not answered. At the end the stock must be exact, offsets dense, and each key applied once.
A sample of keys is sent again to both processes, which must answer as at first.

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
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from central_stub.postgres.temporary import TemporaryServer
from central_stub.postgres.upkeep import migrate
from central_stub.replay import Movement, Summary, central_target, read_movements, replay
from central_stub.switches import Switches
from tests.campaigns.command import read_catalogue
from tests.campaigns.sales import CHECKSUMS
from tests.harness.clients import CENTRAL_KEY, Row
from tests.harness.commands import run_to_end
from tests.harness.processes import CentralProcess, checksum

TILLS = 16
REPEATED_KEYS = 50
EVERYTHING = Switches(event_limit=100_000_000, key_memory_seconds=1e6)


def say(text: str) -> None:
    print(text, flush=True)


@dataclass
class Campaign:
    """`answered`: lines so far. `broken`: for each kill or stop, how many answers were awaited."""

    server: TemporaryServer
    centrals: Sequence[CentralProcess]
    movements: Sequence[Movement]
    seed: int
    answered: int = 0
    broken: list[int] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    problems: list[str] = field(default_factory=list)

    async def until_answered(self, share: float) -> None:
        while self.answered < share * len(self.movements):
            await asyncio.sleep(0.01)

    @property
    def in_flight(self) -> int:
        """Each till always waits for an answer, until there is nothing left to sell."""
        return min(TILLS, len(self.movements) - self.answered)


@asynccontextmanager
async def two_centrals(
    folder: Path, server: TemporaryServer, catalogue: Sequence[Row]
) -> AsyncIterator[Sequence[CentralProcess]]:
    """Serve the catalogue by two processes over a database of its own."""
    await asyncio.to_thread(server.query, "CREATE DATABASE central")
    url = server.url("central")
    await migrate(url)
    centrals = [CentralProcess(folder / name, EVERYTHING, database=url) for name in ("a", "b")]
    try:
        for central in centrals:
            await central.start()
        await centrals[0].create(*catalogue)
        yield centrals
    finally:
        for central in centrals:
            await central.close()


async def run(campaign: Campaign, *, kills: int, database_faults: bool = True) -> bool:
    """Sell all while everything is killed; return whether all is as it must be."""
    async with asyncio.TaskGroup() as group:
        for number, central in enumerate(campaign.centrals):
            group.create_task(_kill(campaign, central, kills, number))
        if database_faults:
            group.create_task(_break_database(campaign))
        campaign.summary = await _sell(campaign)
    await _judge(campaign)
    for problem in campaign.problems:
        say(f"NOT as it must be: {problem}")
    return not campaign.problems


async def _sell(campaign: Campaign) -> Summary:
    def count(_: Movement) -> None:
        campaign.answered += 1

    return await replay(
        iter(campaign.movements),
        [central_target(each.url, CENTRAL_KEY, "campaign") for each in campaign.centrals],
        tills=TILLS,
        seed=campaign.seed,
        answered=count,
    )


async def _kill(campaign: Campaign, central: CentralProcess, kills: int, number: int) -> None:
    chance = random.Random(f"{campaign.seed} {number}")
    for kill in range(kills):
        await campaign.until_answered((kill + chance.random()) / (kills + 0.5))
        campaign.broken.append(campaign.in_flight)
        await central.kill()
        await _start_again(central)


async def _start_again(central: CentralProcess) -> None:
    """Start it; where the database is away at this moment, try again."""
    while True:
        try:
            await central.start()
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is said and tried again
            say(f"not started: {str(problem).splitlines()[-1][:120]}")
            await central.kill()
            await asyncio.sleep(0.3)
        else:
            return


async def _break_database(campaign: Campaign) -> None:
    server = campaign.server
    for share, way in ((0.3, server.stop), (0.7, server.kill)):
        await campaign.until_answered(share)
        campaign.broken.append(campaign.in_flight)
        began = time.monotonic()
        await asyncio.to_thread(way)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)
        took = time.monotonic() - began
        say(f"PostgreSQL: {way.__name__} at line {campaign.answered}, back after {took:.2f} s")


async def _judge(campaign: Campaign) -> None:
    summary = campaign.summary
    say(
        f"{summary.sold} sold in {summary.duration_seconds:.1f} s ({summary.rate:.0f} a second), "
        f"{summary.conflicts} conflicts, {summary.repeats} repeats, {len(summary.refused)} refused"
    )
    idle = sum(not each for each in campaign.broken)
    say(f"{len(campaign.broken)} kills and stops, {idle} of them with no write in flight")
    await _check_stock(campaign)
    await _check_feed(campaign)
    await _repeat_keys(campaign)


async def _check_stock(campaign: Campaign) -> None:
    """The stock of both processes is what the sales leave."""
    wanted = CHECKSUMS.get(len(campaign.movements))
    sums = [checksum(await each.rows()) for each in campaign.centrals]
    say(f"checksum of the stock: {sums[0]}")
    if len(set(sums)) > 1:
        campaign.problems.append(f"the two processes differ: {sums}")
    if wanted is not None and sums[0] != wanted:
        campaign.problems.append(f"the stock has checksum {sums[0]}, not {wanted}")
    if campaign.summary.refused:
        campaign.problems.append(f"refused: {campaign.summary.refused[:3]}")


async def _check_feed(campaign: Campaign) -> None:
    """Offsets are dense, versions of a product too, and no key has two events."""

    def sql(statement: str) -> str:
        return campaign.server.query(statement, "central")

    event = "convert_from(body, 'UTF8')::json ->> "
    dense = "SELECT count(*) = max(number) AND min(number) = 1 AND max(number) = "
    checks = {
        "offsets are dense": f"{dense}(SELECT head FROM central.feed) FROM central.events",
        "no key has two events": (
            f"SELECT count(*) = count(DISTINCT {event}'idempotencyKey') FROM central.events "
            f"WHERE {event}'idempotencyKey' IS NOT NULL"
        ),
        "no product has a version twice": (
            f"SELECT count(*) = count(DISTINCT ({event}'productId', {event}'version')) "
            "FROM central.events"
        ),
        "each applied key has its event": (
            "SELECT (SELECT count(*) FROM central.keys WHERE "
            "convert_from(answer, 'UTF8')::json ->> 'applied' = 'true') = "
            f"(SELECT count(*) FROM central.events WHERE {event}'idempotencyKey' IS NOT NULL)"
        ),
        "the products are counted": (
            "SELECT (SELECT products FROM central.feed) = (SELECT count(*) FROM central.products)"
        ),
    }
    for name, statement in checks.items():
        if await asyncio.to_thread(sql, statement) != "t":
            campaign.problems.append(f"not so: {name}")
    count = await asyncio.to_thread(
        sql, f"SELECT count(*) FROM central.events WHERE {event}'idempotencyKey' IS NOT NULL"
    )
    say(f"{count} events of sales")
    if int(count) != campaign.summary.sold:
        campaign.problems.append(f"{count} events of sales, and {campaign.summary.sold} sold")


async def _repeat_keys(campaign: Campaign) -> None:
    """Both processes answer a key as it was answered, and nothing is sold."""
    head = "SELECT head FROM central.feed"
    before = campaign.server.query(head, "central")
    chance = random.Random(campaign.seed)
    for movement in chance.sample(campaign.movements, min(REPEATED_KEYS, len(campaign.movements))):
        update = {"productId": movement.product_id, "delta": movement.delta, "version": 1}
        body = orjson.dumps(update | {"idempotencyKey": f"line-{movement.line}"})
        headers = {"X-API-Key": CENTRAL_KEY}
        one, other = [
            await each.call("POST", "/v1/inventory/updates", data=body, headers=headers)
            for each in campaign.centrals
        ]
        if one.body != other.body:
            campaign.problems.append(f"line {movement.line}: {one.body!r} and {other.body!r}")
    after = campaign.server.query(head, "central")
    if before != after:
        campaign.problems.append(f"keys that were repeated had effect: {before} became {after}")


def movements_of(sales: Path, lines: int) -> list[Movement]:
    with gzip.open(sales, "rt", encoding="utf-8", newline="") as text:
        return list(read_movements(text, lines=lines))


def generated(products: int, lines: int, seed: int) -> Iterator[Movement]:
    """Sales of a few products, so that tills often sell the same one at the same time."""
    chance = random.Random(seed)
    for line in range(1, lines + 1):
        yield Movement(line, f"P-{chance.randrange(products):03}", chance.choice((-3, -2, -1, 2)))


async def _run_in(folder: Path, options: argparse.Namespace) -> bool:
    with TemporaryServer(folder=folder / "postgres") as server:
        async with two_centrals(folder, server, read_catalogue(options.data)) as centrals:
            movements = movements_of(options.data / "sales.csv.gz", options.lines)
            campaign = Campaign(server, centrals, movements, options.seed)
            return await run(campaign, kills=options.kills)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="catalogue and sales")
    parser.add_argument("--lines", type=int, default=10_000, choices=sorted(CHECKSUMS))
    parser.add_argument("--kills", type=int, default=10, help="of each process")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user below it
    well = run_to_end(_run_in(folder, options))
    say("as it must be" if well else f"logs in {folder}")
    if well:
        shutil.rmtree(folder)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
