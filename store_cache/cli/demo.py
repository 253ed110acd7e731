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
from pathlib import Path

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


async def run_demo(*, port: int, central_port: int) -> int:
    """Run the stub, the store and sales until SIGINT or SIGTERM, and return the exit status.

    Raises:
        DemoFailed: a program did not start, or ended by itself.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port, central_port = _free(port), _free(central_port)
    with tempfile.TemporaryDirectory(prefix="store-cache-demo-") as folder:
        await _run(port, central_port, folder, stopped)
    print("Stopped.")
    return 0


async def _run(port: int, central_port: int, folder: str, stopped: asyncio.Event) -> None:
    central, store = f"http://localhost:{central_port}", f"http://localhost:{port}"
    environment = _plain_environment()
    serve = ("serve", "--port", str(central_port))
    load = ("load", str(CATALOGUE), "--url", central, "--admin-key", ADMIN_KEY)
    store_environment = environment | {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CENTRAL_API_URL": central,
        "CENTRAL_API_KEY": "demo",
        "DATA_DIR": folder,
        "LOG_LEVEL": "warn",
    }
    print("Starting Central (a stub) ...", flush=True)
    async with _process("central_stub", *serve, environment=environment, folder=folder) as stub:
        if not await _answers(f"{central}/health", stub, stopped):
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
                await _sell(store, central, (stub, server), stopped)


# -- the programs ------------------------------------------------------------------------------


@asynccontextmanager
async def _process(
    module: str, *arguments: str, environment: dict[str, str], folder: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until the block ends.

    It has a session of its own, so that Ctrl-C reaches the demo alone, which then stops the
    programs in order. It runs in `folder`, where no `.env` of a real store is found.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


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
    central: str,
    processes: tuple[asyncio.subprocess.Process, ...],
    stopped: asyncio.Event,
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
                await sell_once(client, store, central, chance, f"demo-{os.getpid()}-{number}")
            if any(process.returncode is not None for process in processes):
                raise DemoFailed("a program of the demo ended by itself; see above")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), SALE_SECONDS)


async def sell_once(
    client: httpx.AsyncClient, store: str, central: str, chance: random.Random, key: str
) -> None:
    """Sell or deliver one product: through the store, or at Central in the name of another shop."""
    page = (await client.get(f"{store}/v1/store/inventory?limit=200")).json()
    product = chance.choice([row for row in page["products"] if row["productId"] not in LEFT_ALONE])
    sold = -chance.randint(1, 3)
    delta = sold if product["available"] + sold >= 0 else 40
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
    if answer.is_success:
        left = answer.json()["newQuantity"]
        print(f"{seller:>12}: {product['name']} {delta:+d}, {left} left", flush=True)


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
