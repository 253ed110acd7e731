"""Crashes of a Central that saves its log and its stock apart, with real processes.

    python -m tests.campaigns.crashes --data ../shared/data

Central sells, is killed (`kill -9`), and comes back without the last entries of its log, whose
stock it has, or without the last stock, whose events it has. In half of the crashes the store has
seen the events, in half it has not. Within 10 s of Central's return the store must equal it, and
what differed must be named in its log, or a full sync have a reason. Crashes are a minute apart,
since the store compares once a minute at most because of failures; several shops crash meanwhile.
Exits with 1 where anything is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from central_stub.switches import Switches
from tests.campaigns.command import read_catalogue
from tests.harness.clients import Row
from tests.harness.commands import run_to_end
from tests.scenarios.crashes import LOSSES, SPACING_SECONDS, Crashed, crash
from tests.scenarios.shop import a_shop_of_processes, product

PRODUCTS = 1000
"""Of the catalogue: the crashes are about single ones."""


async def shop_of_crashes(
    folder: Path, products: list[Row], loses: str, *, seed: int, crashes: int
) -> list[Crashed]:
    """Play crashes of one kind in one shop, one after the other."""
    source, played = random.Random(seed), list[Crashed]()
    async with a_shop_of_processes(folder, products, Switches()) as shop:
        await shop.store.start("/ready")
        await shop.until_live()
        await asyncio.sleep(SPACING_SECONDS * (1 + source.random()))
        for number in range(crashes):
            is_seen = number % 2 == 0
            one = await crash(shop, loses, source, is_seen=is_seen, is_killed=True)
            played.append(one)
            print(_line(folder.name, number, one), flush=True)
            await asyncio.sleep(SPACING_SECONDS)
        log = shop.store.log.read_text(errors="replace")
    for one in played:
        assert all(repr(product_id) in log for product_id in one.named), "not in the log"
    return played


def _line(shop: str, number: int, one: Crashed) -> str:
    how = "full sync: " + "; ".join(one.reasons) if one.reasons else f"{len(one.named)} named"
    seen = "seen" if one.is_seen else "not seen"
    problems = "".join(f" NOT as it must be: {problem}" for problem in one.problems)
    return (
        f"{shop} {number:3}: lost {one.loses:6} ({seen:8}), equal "
        f" after {one.equal_after_seconds:4.1f} s, {how}{problems}"
    )


async def campaign(folder: Path, catalogue: list[Row], *, crashes: int, shops: int) -> int:
    """Play `crashes` of each kind in `shops` shops of each; return how many had problems."""
    products = [*map(product, range(20)), *catalogue[:PRODUCTS]]
    each = -(-crashes // shops)
    async with asyncio.TaskGroup() as tasks:
        shops_of = {
            loses: [
                tasks.create_task(
                    shop_of_crashes(
                        folder / f"{loses}-{number}", products, loses, seed=number, crashes=each
                    )
                )
                for number in range(shops)
            ]
            for loses in LOSSES
        }
    failed = 0
    for loses, tasks_of in shops_of.items():
        played = [one for task in tasks_of for one in task.result()]
        failed += sum(bool(one.problems) for one in played)
        print(
            f"{loses}: {len(played)} crashes, "
            f"{sum(bool(one.reasons) for one in played)} with a full sync, equal "
            f"after at most {max(one.equal_after_seconds for one in played):.1f} s"
        )
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the catalogue")
    parser.add_argument("--crashes", type=int, default=30, help="of each kind (default: 30)")
    parser.add_argument("--shops", type=int, default=3, help="at once, of each kind (default: 3)")
    options = parser.parse_args()
    catalogue = read_catalogue(options.data)
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))
    failed = run_to_end(campaign(folder, catalogue, crashes=options.crashes, shops=options.shops))
    if failed:
        print(f"{failed} not as they must be; logs in {folder}")
        return 1
    shutil.rmtree(folder)
    print("all as it must be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
