"""`store-cache demo`: a Central stub, a store cache and live changes, for looking around.

Each program runs in a process of its own, started by the command that a user would type.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from store_cache.app.settings import Settings

CATALOGUE = Path(__file__).with_name("demo_catalogue.jsonl")
STORE_KEY = "demo"
ADMIN_KEY = "admin-demo"
LEFT_ALONE = frozenset({"COF-001", "COF-002", "TEA-001", "TEA-002"})
"""Products that nobody sells, so that the commands of the README and of the demo itself work at any
time."""

START_SECONDS = 20.0
STOP_SECONDS = 10.0
SALE_SECONDS = 1.0


class DemoFailed(Exception):
    """A program of the demo did not start, or ended by itself."""


async def run_demo(*, port: int, central_port: int, outage_seconds: int = 0) -> int:
    """Run the stub, the store and sales until SIGINT or SIGTERM, and return the exit status.

    `outage_seconds`: the store queues sales, and Central is away and back for so long in turn; 0:
    Central stays.

    Raises:
        DemoFailed: a program did not start, or ended by itself.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port, central_port = _free(port), _free(central_port)
    with tempfile.TemporaryDirectory(prefix="store-cache-demo-") as folder:
        await _run(port, central_port, folder, stopped, outage_seconds)
    print("Stopped.")
    return 0


async def _run(
    port: int, central_port: int, folder: str, stopped: asyncio.Event, outage_seconds: int
) -> None:
    central, store = f"http://localhost:{central_port}", f"http://localhost:{port}"
    environment = _plain_environment()
    load = ("load", str(CATALOGUE), "--url", central, "--admin-key", ADMIN_KEY)
    store_environment = environment | {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CENTRAL_API_URL": central,
        "CENTRAL_API_KEY": "demo",
        "DATA_DIR": folder,
        "LOG_LEVEL": "error" if outage_seconds else "warn",
        "OFFLINE_WRITES": "queue" if outage_seconds else "refuse",
    }
    print("Starting Central (a stub) ...", flush=True)
    async with _central(central, central_port, environment, folder) as stub:
        if not await stub.start(stopped):
            return
        print("Loading its catalogue ...", flush=True)
        async with _process(
            "central_stub", *load, environment=environment, folder=folder
        ) as loader:
            if await loader.wait():
                raise DemoFailed("the demo's catalogue could not be loaded; see above")
        print("Starting the store ...", flush=True)
        async with _process(
            "store_cache", "serve", environment=store_environment, folder=folder
        ) as server:
            if await _answers(f"{store}/ready", server, stopped):
                print(_addresses(store, central), flush=True)
                outages = Outages(stub, outage_seconds) if outage_seconds else None
                await _sell(store, stub, server, stopped, outages)


# -- the programs ------------------------------------------------------------------------------


@asynccontextmanager
async def _process(
    module: str, *arguments: str, environment: dict[str, str], folder: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until the block ends.

    It runs in `folder`, where no `.env` of a real store is found.
    """
    process = await _start(module, *arguments, environment=environment, folder=folder)
    try:
        yield process
    finally:
        await _stop(process)


async def _start(
    module: str, *arguments: str, environment: dict[str, str], folder: str
) -> asyncio.subprocess.Process:
    """Start a program in a session of its own, so that Ctrl-C reaches the demo alone, which then
    stops the programs in order."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


@dataclass
class Central:
    """The stub, which can go away and come back with what it had."""

    url: str
    port: int
    environment: dict[str, str]
    folder: str
    process: asyncio.subprocess.Process | None = None

    async def start(self, stopped: asyncio.Event) -> bool:
        """Return whether it answers; False: the demo is stopped. Raises DemoFailed."""
        self.process = await _start(
            "central_stub",
            *("serve", "--port", str(self.port)),
            environment=self.environment | {"CENTRAL_STUB_DATA_DIR": f"{self.folder}/central"},
            folder=self.folder,
        )
        return await _answers(f"{self.url}/health", self.process, stopped)

    async def stop(self) -> None:
        if self.process is not None:
            await _stop(self.process)
            self.process = None


@asynccontextmanager
async def _central(
    url: str, port: int, environment: dict[str, str], folder: str
) -> AsyncIterator[Central]:
    """A Central that is not started yet, and is stopped when the block ends."""
    central = Central(url, port, environment, folder)
    try:
        yield central
    finally:
        await central.stop()


def _plain_environment() -> dict[str, str]:
    """Return the environment without settings of a real store or stub."""
    named = set(Settings.variables().values())
    return {
        name: value
        for name, value in os.environ.items()
        if name not in named and not name.startswith("CENTRAL_STUB_")
    }


def _free(port: int) -> int:
    """Return `port`, or a free one if another program uses it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            print(f"Port {port} is in use; using {probe.getsockname()[1]} instead.")
        found: int = probe.getsockname()[1]
        return found


async def _answers(url: str, process: asyncio.subprocess.Process, stopped: asyncio.Event) -> bool:
    """Wait until the program answers at `url`; return False if the demo is stopped first.

    Raises:
        DemoFailed: the program ended, or did not answer within `START_SECONDS`.
    """
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
        while not stopped.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).is_success:
                    return True
            late = asyncio.get_running_loop().time() > deadline
            if process.returncode is not None or late:
                raise DemoFailed(f"no program answers at {url}; see above")
            await asyncio.sleep(0.1)
    return False


# -- live changes ------------------------------------------------------------------------------


async def _sell(
    store: str,
    central: Central,
    server: asyncio.subprocess.Process,
    stopped: asyncio.Event,
    outages: Outages | None,
) -> None:
    """Sell about once in `SALE_SECONDS` until `stopped`.

    Raises:
        DemoFailed: a program ended by itself.
    """
    chance = random.Random()
    keys = {"X-API-Key": STORE_KEY}
    async with httpx.AsyncClient(headers=keys, trust_env=False, timeout=10.0) as client:
        number = 0
        while not stopped.is_set():
            number += 1
            with contextlib.suppress(httpx.HTTPError):
                key = f"demo-{os.getpid()}-{number}"
                queued = await sell_once(client, store, central.url, chance, key)
                if outages is not None and queued:
                    outages.told[queued] = "queued"
            if outages is not None:
                await outages.pass_time(stopped)
                with contextlib.suppress(httpx.HTTPError):
                    await outages.tell_outcomes(client, store)
            if any(p is not None and p.returncode is not None for p in (central.process, server)):
                raise DemoFailed("a program of the demo ended by itself; see above")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), SALE_SECONDS)


async def sell_once(
    client: httpx.AsyncClient, store: str, central: str, chance: random.Random, key: str
) -> str:
    """Sell or deliver one product: through the store, or at Central in the name of another shop.
    Return the id in the outbox if it is queued."""
    page = (await client.get(f"{store}/v1/store/inventory?limit=200")).json()
    product = chance.choice([row for row in page["products"] if row["productId"] not in LEFT_ALONE])
    sold = -chance.randint(1, 3)
    left = product.get("expectedAvailable", product["available"])
    delta = sold if left + sold >= 0 else 40
    write = {
        "productId": product["productId"],
        "delta": delta,
        "version": product["version"],
        "idempotencyKey": key,
    }
    if chance.random() < 0.5:
        answer = await client.post(f"{store}/v1/store/inventory/updates", json=write)
        seller = "this store"
    else:
        elsewhere = write | {"storeId": "elsewhere"}
        answer = await client.post(f"{central}/v1/inventory/updates", json=elsewhere)
        seller = "another shop"
    if answer.status_code == httpx.codes.ACCEPTED:
        expected = answer.json()["expectedAvailable"]
        _tell(seller, f"{product['name']} {delta:+d}, queued; {expected} expected")
        return str(answer.json()["outboxId"])
    if answer.is_success:
        _tell(seller, f"{product['name']} {delta:+d}, {answer.json()['newQuantity']} left")
    return ""


def _tell(who: str, what: str) -> None:
    print(f"{who:>12}: {what}", flush=True)


# -- outages -----------------------------------------------------------------------------------


@dataclass
class Outages:
    """Central is there and away for `seconds` in turn; what becomes of queued sales is told."""

    central: Central
    seconds: int
    told: dict[str, str] = field(default_factory=dict)  # outbox id -> the state told last
    turns_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.turns_at = asyncio.get_running_loop().time() + self.seconds

    async def pass_time(self, stopped: asyncio.Event) -> None:
        """Let Central go or come back if it is time. Raises DemoFailed."""
        if asyncio.get_running_loop().time() < self.turns_at:
            return
        if self.central.process is not None:
            _tell("Central", f"goes away for {self.seconds} s; sales are queued meanwhile")
            await self.central.stop()
        elif await self.central.start(stopped):
            _tell("Central", "is back")
        self.turns_at = asyncio.get_running_loop().time() + self.seconds

    async def tell_outcomes(self, client: httpx.AsyncClient, store: str) -> None:
        """Tell which sales of the outbox have been applied or parked since the last time."""
        outbox = f"{store}/v1/store/outbox"
        waiting = {
            entry["outboxId"]: entry
            for entry in (await client.get(f"{outbox}?limit=200")).json()["entries"]
        }
        for outbox_id in self.told.keys() - waiting.keys():
            self._tell_outcome((await client.get(f"{outbox}/{outbox_id}")).json())
            del self.told[outbox_id]
        for outbox_id, entry in waiting.items():
            if entry["state"] == "parked" and self.told.get(outbox_id) != "parked":
                self._tell_outcome(entry)
            self.told[outbox_id] = entry["state"]

    def _tell_outcome(self, entry: dict[str, Any]) -> None:
        because = f" ({entry['problem']})" if entry["state"] == "parked" else ""
        result = entry["result"] or {}
        left = f", {result['newQuantity']} left" if result.get("newQuantity") is not None else ""
        sale = f"{entry['productId']} {entry['delta']:+d} of the outbox"
        _tell("this store", f"{sale} is {entry['state']}{because}{left}")


def _addresses(store: str, central: str) -> str:
    call = f"curl -s -H 'X-API-Key: {STORE_KEY}'"
    return f"""
A shop with its Central is running. Open the console in a browser, with the key "{STORE_KEY}":

  {store}/

Or try:

  {call} '{store}/v1/store/inventory?limit=3'
  {call} -i {store}/v1/store/inventory/TEA-001
  {call} '{store}/v1/store/inventory?search=tea&inStock=true'
  {call} '{store}/v1/store/inventory?barcode=4006381333931'
  {call} {store}/v1/store/inventory/TEA-002/history
  {call} -N {store}/v1/store/inventory/stream    # changes as they come
  {call} {store}/v1/store/sync/status
  {call} -X PATCH -H 'Idempotency-Key: my-first' -H 'Content-Type: application/json' \\
      -d '{{"quantityChange": -1}}' {store}/v1/store/inventory/TEA-002/inventory
  curl -s {store}/health
  .venv/bin/store-cache status --url {store} --key {STORE_KEY}
  .venv/bin/store-cache status --watch --url {store} --key {STORE_KEY}
  .venv/bin/store-cache sync --url {store} --key {STORE_KEY}

Make Central slow, wrong or gone, and see the store go on (docs/central-stub.md):

  curl -s -X POST -H 'X-API-Key: {ADMIN_KEY}' -H 'Content-Type: application/json' \\
      -d '{{"kind": "status", "status": 503}}' {central}/v1/admin/faults

Ctrl-C stops everything. Sales, as they happen:
"""
