"""Programs as processes of their own, on a core of their own.

Knows: how to start one, wait until it answers, and end it, whatever happens in between.
Refuses to know: what is measured.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.harness.machine import LOAD_CORE, ROOT, SERVER_CORE
from benchmarks.harness.rows import row

KEY = "key-of-the-benchmarks"
ADMIN_KEY = "admin-demo"
CENTRAL_KEY = "demo"
START_SECONDS = 120.0
STOP_SECONDS = 20.0
LOAD_ROWS = 1_000

Environment = Mapping[str, str]


class DidNotStart(Exception):
    """A program ended or did not answer; the message has the end of what it said."""


@dataclass(frozen=True)
class Server:
    """A program that answers at `url`."""

    url: str
    process_id: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def client(base_url: str, key: str = KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=base_url, headers={"X-API-Key": key}, trust_env=False, timeout=60
    )


@asynccontextmanager
async def started(
    command: Iterable[str],
    *,
    log: Path,
    core: int = SERVER_CORE,
    environment: Environment | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, pinned to the core; ended at the end, and killed if it does not end."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *on_core(core),
            *command,
            env={**os.environ, **(environment or {})},
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the harness, which then ends this in order
        )
    try:
        yield process
    finally:
        await end(process)


def on_core(core: int) -> tuple[str, ...]:
    """What to put before a command: it stays on that core, and ends when the harness is killed."""
    return ("setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core))


async def end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
    except asyncio.CancelledError:  # stopped a second time: no more patience
        process.kill()
        raise


@asynccontextmanager
async def serving(
    command: Iterable[str],
    *,
    port: int,
    path: str,
    log: Path,
    core: int = SERVER_CORE,
    environment: Environment | None = None,
) -> AsyncIterator[Server]:
    """The same, once it answers `path` with success. Raises DidNotStart."""
    async with started(command, log=log, core=core, environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        await until_served(process, url + path, log)
        yield Server(url, process.pid)


async def until_served(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with client("") as asking:
        while time.monotonic() < deadline and process.returncode is None:
            with suppress(httpx.TransportError):
                if (await asking.get(url)).is_success:
                    return
            await asyncio.sleep(0.02)
    said = await asyncio.to_thread(log.read_text, errors="replace")
    raise DidNotStart(f"{url} was not served: {said[-2000:]}")


# -- the two programs of this project ----------------------------------------------------------


@asynccontextmanager
async def central(folder: Path, products: int, *, name: str = "central") -> AsyncIterator[Server]:
    """`central-stub` in memory, on the load's core, with the catalogue of `rows`."""
    port = free_port()
    environment = {"CENTRAL_STUB_PORT": str(port), "CENTRAL_STUB_EVENT_LIMIT": "1000000"}
    async with serving(
        (sys.executable, "-m", "central_stub", "serve"),
        port=port,
        path="/health",
        log=folder / f"{name}.log",
        core=LOAD_CORE,
        environment=environment,
    ) as server:
        await fill(server.url, products)
        yield server


async def fill(url: str, products: int) -> None:
    """Create the catalogue of `rows` at a Central."""
    async with client(url, ADMIN_KEY) as asking:
        for first in range(0, products, LOAD_ROWS):
            rows = [row(number) for number in range(first, min(products, first + LOAD_ROWS))]
            body = {"products": rows}
            (await asking.post("/v1/admin/products/create", json=body)).raise_for_status()


@asynccontextmanager
async def store(
    folder: Path, central_url: str, *, name: str = "store", settings: Environment | None = None
) -> AsyncIterator[Server]:
    """`store-cache serve` with its default settings, in step with that Central."""
    port = free_port()
    environment = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "API_KEYS": KEY,
        "CENTRAL_API_URL": central_url,
        "CENTRAL_API_KEY": CENTRAL_KEY,
        "DATA_DIR": str(folder / name),
        **(settings or {}),
    }
    async with serving(
        (sys.executable, "-m", "store_cache", "serve"),
        port=port,
        path="/ready",
        log=folder / f"{name}.log",
        environment=environment,
    ) as server:
        yield server
