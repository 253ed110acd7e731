"""The real store and a real Central with a bad line between them, one fault after the other.

    python -m tests.crash.proxy [--seconds 10] [--only NAME]

While the line is bad, tills sell and readers read at the store, and other shops sell at Central.
Then it heals: the store must be equal to Central within the bound, each write that was answered as
applied must have been applied exactly once, every other one at most once, and no read may have
failed or gone back. Exits with 1, and keeps files and logs, where it is not so.
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
from typing import Any

import httpx

from tests.campaigns.processes import CENTRAL_KEY, Central, Store, client_from, until_equal
from tests.campaigns.watch import reading
from tests.crash.toxics import Proxy, Toxic

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
    """What tills asked, by key: the body, and the final answer (`applied` or not) if there is
    one."""

    asked: dict[str, tuple[str, int]] = field(default_factory=dict)
    applied: dict[str, bool] = field(default_factory=dict)
    unanswered: int = 0

    @property
    def open(self) -> list[str]:
        return [key for key in self.asked if key not in self.applied]

    async def ask(self, client: httpx.AsyncClient, key: str) -> None:
        product_id, delta = self.asked[key]
        path = f"/v1/store/inventory/{product_id}/inventory"
        headers = {"Idempotency-Key": key}
        answer = await client.patch(path, json={"quantityChange": delta}, headers=headers)
        if "applied" in answer.json():
            self.applied[key] = answer.json()["applied"]
        else:
            self.unanswered += 1


class Line:
    """Store, proxy and Central, each on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.central = Central(folder / "central", CENTRAL_STUB_EVENT_LIMIT="1000000")
        self.proxy = Proxy(self.central.port)
        self._folder = folder

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        products = [{"productId": i, "name": f"Product {i}", "available": 100_000} for i in IDS]
        await self.proxy.start()
        self.store = Store(
            self._folder / "store",
            self.proxy.url,
            STORE_ID=STORE_ID,
            WRITE_TIMEOUT_SECONDS=str(WRITE_SECONDS),
        )
        try:
            await self.central.start()
            await self.central.load(products)
            await self.store.start("/ready")
            yield
        finally:
            await self.store.kill()
            await self.proxy.stop()
            await self.central.kill()


async def suffer(line: Line, toxic: Toxic, seconds: float) -> str:
    """Let the fault strike for `seconds`, heal, and judge; what happened, in a line. Raises
    AssertionError."""
    sales = Sales()
    async with reading(line.store, IDS) as reads, _selling(line, sales, toxic):
        await line.proxy.strike(toxic)
        await asyncio.sleep(seconds)
        await asyncio.wait_for(line.proxy.until_struck(), STRIKES_SECONDS)
        struck = line.proxy.struck
        await line.proxy.heal()
    began = time.monotonic()
    await until_equal(line.store, line.central, WITHIN_SECONDS)
    took = time.monotonic() - began
    await _ask_again(line.store, sales)
    applied = await _applied(line.central)
    _judge(sales, applied)

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


async def _applied(central: Central) -> Counter[str]:
    """How often each key of a till was applied, all of its attempts together."""
    state = await central.admin("GET", "/v1/admin/backup")
    return Counter(
        event["idempotencyKey"].removeprefix(f"{STORE_ID}-").partition("~")[0]
        for event in state["events"]
        if event.get("storeId") == STORE_ID
    )


# -- tills -------------------------------------------------------------------------------------


@asynccontextmanager
async def _selling(line: Line, sales: Sales, toxic: Toxic) -> AsyncIterator[None]:
    """Tills at the store and one at Central sell until the block ends; a write on its way is
    waited for."""
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(TILLS):
            group.create_task(_sell(line.store, sales, f"{toxic}-{number}", ended))
        group.create_task(_sell_elsewhere(line.central, f"{toxic}", ended))
        yield
        ended.set()


async def _sell(store: Store, sales: Sales, till: str, ended: asyncio.Event) -> None:
    chance = random.Random(till)
    async with store.client() as client:
        for number in itertools.count():
            if await _is_set(ended):
                return
            key = f"{till}-{number}"
            sales.asked[key] = chance.choice(IDS), chance.choice((-2, -1, 1))
            await sales.ask(client, key)


async def _sell_elsewhere(central: Central, till: str, ended: asyncio.Event) -> None:
    chance = random.Random(till)
    async with client_from("127.0.0.10", CENTRAL_KEY) as client:
        client.base_url = httpx.URL(central.url)
        for number in itertools.count():
            if await _is_set(ended):
                return
            row = (await client.get(f"/v1/inventory/{chance.choice(IDS)}")).json()
            write: dict[str, Any] = {
                "storeId": "elsewhere",
                "productId": row["productId"],
                "delta": -1,
                "version": row["version"],
                "idempotencyKey": f"{till}-{number}",
            }
            await client.post("/v1/inventory/updates", json=write)


async def _is_set(ended: asyncio.Event) -> bool:
    """Whether it is time to end; a till pauses between two sales."""
    with suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), PAUSE_SECONDS)
    return ended.is_set()


async def _ask_again(store: Store, sales: Sales) -> None:
    """Tills repeat what they have no final answer to. What another shop's sale overtook before it
    was sent may stay unknown (W3), so not for ever."""
    async with store.client() as client:
        for _ in range(3):
            for key in sales.open:
                await sales.ask(client, key)


# -- the command -------------------------------------------------------------------------------


async def run(toxics: Sequence[Toxic], folder: Path, seconds: float) -> list[str]:
    """All of them, one after the other, on one line; a line of text for each."""
    line = Line(folder)
    async with line.working():
        return [await suffer(line, toxic, seconds) for toxic in toxics]


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
