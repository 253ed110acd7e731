"""Programs as processes of their own, each on one core: servers, and helpers that print figures."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from benchmarks.harness.machine import LOAD_CORE, ROOT, SERVER_CORE
from benchmarks.harness.rows import row
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY
from tests.harness.processes import Program, end, free_port

KEY = "key-of-the-benchmarks"
LOAD_ROWS = 1_000
LONGEST_LINE = 2**24

Environment = Mapping[str, str]


def client(base_url: str, key: str = KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=base_url, headers={"X-API-Key": key}, trust_env=False, timeout=60
    )


def on_core(core: int) -> tuple[str, ...]:
    """What to put before a command, so that it stays on that core and ends with the benchmark, even
    if that is killed."""
    return ("setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core))


@asynccontextmanager
async def serving(
    command: Iterable[str],
    *,
    port: int = 0,
    path: str | None = None,
    log: Path,
    core: int = SERVER_CORE,
    environment: Environment | None = None,
) -> AsyncIterator[Program]:
    """The program, once it answers `path` (None: at once) with success; stopped at the end. Raises
    DidNotStart."""
    program = Program(*on_core(core), *command, port=port, log=log, environment=environment)
    try:
        await program.start(path, **{"X-API-Key": KEY})
        yield program
    finally:
        await program.stop()


# -- helpers -----------------------------------------------------------------------------------


@asynccontextmanager
async def helper(
    module: str, *arguments: object, core: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A module of this package as a program, whose output is a pipe; stopped at the end."""
    process = await asyncio.create_subprocess_exec(
        *(*on_core(core), sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=LONGEST_LINE,
    )
    try:
        yield process
    finally:
        await end(process)


async def next_line(process: asyncio.subprocess.Process) -> bytes:
    """The next line that a helper prints. Raises RuntimeError where it has ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a helper ended without figures; its reason stands above")
    return line


async def figures(module: str, *arguments: object, core: int) -> Any:
    """What a helper prints, as JSON. Raises RuntimeError where it ends without it."""
    async with helper(module, *arguments, core=core) as process:
        return orjson.loads(await next_line(process))


@asynccontextmanager
async def prepared_central(products: int, events: int) -> AsyncIterator[str]:
    """The address of a Central, once all its answers are made."""
    port = free_port()
    arguments = (port, products, events)
    async with helper("harness.prepared_central", *arguments, core=LOAD_CORE) as process:
        await next_line(process)
        yield f"http://127.0.0.1:{port}"


# -- the two programs of this project ----------------------------------------------------------


@asynccontextmanager
async def central(
    folder: Path,
    products: int,
    *,
    name: str = "central",
    settings: Environment | None = None,
) -> AsyncIterator[Program]:
    """`central-stub`, in memory by default, on the load's core, with the catalogue of `rows`."""
    port = free_port()
    environment = {
        "CENTRAL_STUB_PORT": str(port),
        "CENTRAL_STUB_EVENT_LIMIT": "1000000",
        **(settings or {}),
    }
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
    async with client(url, CENTRAL_ADMIN_KEY) as asking:
        for first in range(0, products, LOAD_ROWS):
            rows = [row(number) for number in range(first, min(products, first + LOAD_ROWS))]
            body = {"products": rows}
            (await asking.post("/v1/admin/products/create", json=body)).raise_for_status()


@asynccontextmanager
async def store(
    folder: Path,
    central_url: str,
    *,
    name: str = "store",
    settings: Environment | None = None,
    module: Sequence[str] = ("store_cache", "serve"),
) -> AsyncIterator[Program]:
    """`store-cache serve` with its default settings, in sync with that Central. `module`: what runs
    it, with its arguments."""
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
        (sys.executable, "-m", *module),
        port=port,
        path="/ready",
        log=folder / f"{name}.log",
        environment=environment,
    ) as server:
        yield server
