"""The real store and a real Central with a bad connection between them, one fault after the other.

    python -m tests.crash.proxy [--seconds 10] [--only NAME]

During a fault tills sell and readers read at the store, and other shops sell at Central. Then it
ends: the store must be equal to Central within the bound, each write that was answered as applied
must have been applied exactly once, every other one at most once, and no read may have failed or
gone back. If not, exits with 1, and keeps files and logs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from central_stub.switches import Switches
from tests.crash.judge import applied_keys
from tests.crash.toxics import Proxy, Toxic
from tests.harness.clients import Row, StoreClient
from tests.harness.processes import CentralProcess, StoreProcess
from tests.scenarios.shop import ProcessShop, Shop

IDS = [f"P-{number:03}" for number in range(40)]
TILLS = 3
STORE_ID = "store-bad-line"
PAUSE_SECONDS = 0.02
WRITE_SECONDS = 2
STRIKES_SECONDS = 15.0
WITHIN_SECONDS = 70.0
"""The longest wait that may be in force when the line heals is a minute (B1)."""


@dataclass
class Sales:
    """What tills asked for, by key, and each final answer: whether it was applied."""

    asked: dict[str, tuple[str, int]] = field(default_factory=dict)
    applied: dict[str, bool] = field(default_factory=dict)
    unanswered: int = 0

    @property
    def open(self) -> list[str]:
        return [key for key in self.asked if key not in self.applied]

    async def ask(self, store: StoreClient, key: str) -> None:
        answer = (await store.adjust(*self.asked[key], key)).json
        if "applied" in answer:
            self.applied[key] = answer["applied"]
        else:
            self.unanswered += 1


@asynccontextmanager
async def a_proxied_shop(
    folder: Path, products: Sequence[Row], switches: Switches, **settings: str
) -> AsyncIterator[tuple[ProcessShop, Proxy]]:
    """A store, in sync, that reaches Central through a proxy, each on a port of its own."""
    central = CentralProcess(folder / "central", switches)
    proxy = Proxy(central.port)
    await proxy.start()
    store = StoreProcess(folder / "store", proxy.url, **settings)
    try:
        await central.start()
        await central.create(*products)
        await store.start("/ready")
        yield Shop(central, [store], [row["productId"] for row in products]), proxy
    finally:
        await store.close()
        await proxy.stop()
        await central.close()


async def suffer(shop: ProcessShop, proxy: Proxy, toxic: Toxic, seconds: float) -> str:
    """Let the fault strike for `seconds`, heal, and judge; what happened, in a line. Raises
    AssertionError."""
    sales = Sales()
    async with shop.reading() as reads, _selling(shop, sales, toxic):
        await proxy.strike(toxic)
        await asyncio.sleep(seconds)
        await asyncio.wait_for(proxy.until_struck(), STRIKES_SECONDS)
        struck = proxy.struck
        await proxy.heal()
    began = time.monotonic()
    await shop.until_in_sync(WITHIN_SECONDS)
    took = time.monotonic() - began
    await _ask_again(shop.store, sales)
    _judge(sales, applied_keys((await shop.central.backup())["events"], STORE_ID))

    assert not reads.failed + reads.went_back, (reads.failed + reads.went_back)[:5]
    return (
        f"{toxic:12} struck {struck:5}, equal {took:4.1f} s after it healed, "
        f"{len(sales.asked)} writes, {sum(sales.applied.values())} applied, each once, "
        f"{sales.unanswered} answers unknown at first, {len(sales.open)} for good; "
        f"{reads.answered} reads, the slowest {reads.slowest_seconds * 1000:.0f} ms"
    )


def _judge(sales: Sales, applied: Counter[str]) -> None:
    for key, was_applied in sales.applied.items():
        assert applied[key] == was_applied, f"{key}: applied {applied[key]}x, said {was_applied}"
    for key in sales.open:
        assert not applied[key], f"{key} was applied, and its repeats do not say so"


# -- tills -------------------------------------------------------------------------------------


@asynccontextmanager
async def _selling(shop: ProcessShop, sales: Sales, toxic: Toxic) -> AsyncIterator[None]:
    """Tills at the store and one at Central sell until the block ends; a write on its way is
    waited for."""
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(TILLS):
            group.create_task(_sell(shop.store, sales, f"{toxic}-{number}", ended))
        group.create_task(_sell_elsewhere(shop.central, toxic, ended))
        yield
        ended.set()


async def _sell(store: StoreClient, sales: Sales, till: str, ended: asyncio.Event) -> None:
    chance = random.Random(till)
    for number in itertools.count():
        if await _is_set(ended):
            return
        key = f"{till}-{number}"
        sales.asked[key] = chance.choice(IDS), chance.choice((-2, -1, 1))
        await sales.ask(store, key)


async def _sell_elsewhere(central: CentralProcess, seed: str, ended: asyncio.Event) -> None:
    chance = random.Random(seed)
    while not await _is_set(ended):
        await central.sell(chance.choice(IDS), -1)


async def _is_set(ended: asyncio.Event) -> bool:
    """Whether it is time to end; a till pauses between two sales."""
    with suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), PAUSE_SECONDS)
    return ended.is_set()


async def _ask_again(store: StoreClient, sales: Sales) -> None:
    """Tills repeat what they have no final answer to. What another shop's sale overtook before it
    was sent may stay unknown (W3), so not for ever."""
    for _ in range(3):
        for key in sales.open:
            await sales.ask(store, key)


# -- the command -------------------------------------------------------------------------------


async def run(toxics: Sequence[Toxic], folder: Path, seconds: float) -> list[str]:
    """All of them, one after the other, at one shop; a line of text for each."""
    products = [{"productId": i, "name": f"Product {i}", "available": 100_000} for i in IDS]
    switches = Switches(event_limit=1_000_000)
    settings = {"STORE_ID": STORE_ID, "WRITE_TIMEOUT_SECONDS": str(WRITE_SECONDS)}
    async with a_proxied_shop(folder, products, switches, **settings) as (shop, proxy):
        return [await suffer(shop, proxy, toxic, seconds) for toxic in toxics]


async def run_all(only: str, seconds: float) -> int:
    failed = 0
    for toxic in Toxic:
        if only not in toxic:
            continue
        folder = Path(tempfile.mkdtemp(prefix="bad-line-"))
        try:
            [said] = await run([toxic], folder, seconds)
        except AssertionError as problem:
            failed += 1
            sys.stdout.write(f"{toxic:12} NOT as it must be: {problem}; logs in {folder}\n")
        else:
            sys.stdout.write(said + "\n")
            shutil.rmtree(folder)
        sys.stdout.flush()
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each fault lasts")
    parser.add_argument("--only", default="", help="faults whose name has this")
    options = parser.parse_args()
    return asyncio.run(run_all(options.only, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
