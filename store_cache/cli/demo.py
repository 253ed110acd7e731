"""`store-cache demo`: a Central stub, a store cache and live changes, for looking around.

Knows: the two other commands, the demo's catalogue and keys, and what to print.
Refuses to know: how either program works; it starts them as anybody would.
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
START_SECONDS = 20.0
STOP_SECONDS = 10.0
SALE_SECONDS = 1.0
"""About one sale a second: to be seen, not to be measured."""


class DemoFailed(Exception):
    """A part of the demo did not start or ended by itself."""


async def run_demo(*, port: int, central_port: int) -> int:
    """Run stub, store and sales until SIGINT or SIGTERM. Raises DemoFailed."""
    port, central_port = _free(port), _free(central_port)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with tempfile.TemporaryDirectory(prefix="store-cache-demo-") as folder:
        await _run(port, central_port, folder, stopped)
    print("Stopped.")
    return 0


async def _run(port: int, central_port: int, folder: str, stopped: asyncio.Event) -> None:
    central, store = f"http://localhost:{central_port}", f"http://localhost:{port}"
    plain = _plain_environment()
    serve = ("serve", "--port", str(central_port))
    async with _process("central_stub", *serve, environment=plain, folder=folder) as stub_process:
        if not await _answers(central, "/health", stub_process, stopped):
            return
        await _load(central, plain, folder)
        settings = plain | _store_settings(port, central, folder)
        async with _process(
            "store_cache", "serve", environment=settings, folder=folder
        ) as store_process:
            if await _answers(store, "/ready", store_process, stopped):
                print(_addresses(store, central), flush=True)
                await _sell_until(stopped, store, central, (stub_process, store_process))


async def _load(central: str, environment: dict[str, str], folder: str) -> None:
    load = ("load", str(CATALOGUE), "--url", central, "--admin-key", ADMIN_KEY)
    async with _process("central_stub", *load, environment=environment, folder=folder) as loader:
        if await loader.wait():
            raise DemoFailed("the demo's catalogue could not be loaded; see above")


# -- the two programs --------------------------------------------------------------------------


@asynccontextmanager
async def _process(
    module: str, *arguments: str, environment: dict[str, str], folder: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a session of its own, so that Ctrl-C reaches the demo alone, which then ends
    the parts in order; and in a folder without an `.env` that is meant for a real store."""
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
    """The environment without settings that are meant for a real store or stub."""
    named = set(Settings.variables().values())
    return {
        name: value
        for name, value in os.environ.items()
        if name not in named and not name.startswith("CENTRAL_STUB_")
    }


def _store_settings(port: int, central: str, folder: str) -> dict[str, str]:
    return {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CENTRAL_API_URL": central,
        "CENTRAL_API_KEY": "demo",
        "API_KEYS": STORE_KEY,
        "DATA_DIR": folder,
        "LOG_LEVEL": "warn",
    }


def _free(port: int) -> int:
    """The port, or another one where somebody has it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            print(f"Port {port} is in use; using {probe.getsockname()[1]} instead.")
        found: int = probe.getsockname()[1]
        return found


async def _answers(
    url: str, path: str, process: asyncio.subprocess.Process, stopped: asyncio.Event
) -> bool:
    """Wait until the program answers; False where the demo is stopped before."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
        while not stopped.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{url}{path}")).is_success:
                    return True
            late = asyncio.get_running_loop().time() > deadline
            if process.returncode is not None or late:
                raise DemoFailed(f"what should answer at {url} did not start; see above")
            await asyncio.sleep(0.1)
    return False


# -- live changes ------------------------------------------------------------------------------


async def _sell_until(
    stopped: asyncio.Event,
    store: str,
    central: str,
    processes: tuple[asyncio.subprocess.Process, ...],
) -> None:
    chance = random.Random()
    keys = {"X-API-Key": STORE_KEY}
    async with httpx.AsyncClient(headers=keys, trust_env=False, timeout=10.0) as client:
        number = 0
        while not stopped.is_set():
            number += 1
            with contextlib.suppress(httpx.HTTPError):
                await _sell(client, store, central, chance, f"demo-{os.getpid()}-{number}")
            if any(process.returncode is not None for process in processes):
                raise DemoFailed("a part of the demo ended by itself; see above")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), SALE_SECONDS)


async def _sell(
    client: httpx.AsyncClient, store: str, central: str, chance: random.Random, key: str
) -> None:
    """One sale or delivery of one product: through the store, or at Central by somebody else."""
    page = (await client.get(f"{store}/v1/store/inventory?limit=200")).json()
    product = chance.choice(page["products"])
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
        who = "this store"
    else:
        elsewhere = write | {"storeId": "elsewhere"}
        answer = await client.post(f"{central}/v1/inventory/updates", json=elsewhere)
        who = "another shop"
    if answer.is_success:
        left = answer.json()["newQuantity"]
        print(f"{who:>12}: {product['name']} {delta:+d}, {left} left", flush=True)


def _addresses(store: str, central: str) -> str:
    call = f"curl -s -H 'X-API-Key: {STORE_KEY}'"
    return f"""
A shop with its Central is running. Try:

  {call} '{store}/v1/store/inventory?limit=3'
  {call} -i {store}/v1/store/inventory/TEA-001
  {call} {store}/v1/store/sync/status
  {call} -X PATCH -H 'Idempotency-Key: my-first' -H 'Content-Type: application/json' \\
      -d '{{"quantityChange": -1}}' {store}/v1/store/inventory/TEA-001/inventory
  curl -s {store}/health
  .venv/bin/store-cache status --url {store} --key {STORE_KEY}
  .venv/bin/store-cache sync --url {store} --key {STORE_KEY}

Make Central slow, wrong or gone, and see the store go on (docs/central-stub.md):

  curl -s -X POST -H 'X-API-Key: {ADMIN_KEY}' -H 'Content-Type: application/json' \\
      -d '{{"kind": "status", "status": 503}}' {central}/v1/admin/faults

Ctrl-C stops everything. Sales, as they happen:
"""
