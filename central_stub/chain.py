"""`central-stub chain`: a whole chain on this machine, to look at and to break.

PostgreSQL, two processes of Central over it, NATS with a publisher, three stores, and live sales.
Everything is in one temporary folder. Each program runs in a process of its own, started by the
command that a user would type; at the end all of them are ended, and the folder is removed. What is
not installed is left out: without NATS every store asks Central.

Errors:
    ChainFailed         a program is missing, did not start, or ended by itself
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from central_stub.postgres.temporary import DidNotStart, NoPostgres, TemporaryServer
from central_stub.postgres.upkeep import migrate
from central_stub.replay import Movement, replay, store_target

PRODUCTS = 200
STOCK = 500
SALES_A_SECOND = 4.0
START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOG_LINES = 12
KEY = "demo"
ADMIN_KEY = "admin-demo"
KEPT = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH"})
"""Variables that programs get; no settings of a real store or Central."""


class ChainFailed(Exception):
    """The message says what is missing, or has the end of a log."""


@dataclass(frozen=True)
class Ports:
    """Where the programs of a chain listen."""

    centrals: Sequence[int]
    stores: Sequence[int]
    nats: int


@dataclass
class Program:
    """A process of the chain, and where it writes its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def end_of_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES:])


class Chain:
    """The programs that run, in the order in which they were started."""

    def __init__(self, folder: Path, stack: AsyncExitStack, stopped: asyncio.Event) -> None:
        self.folder = folder
        self.stopped = stopped
        self.programs: list[Program] = []
        self._stack = stack

    async def start(
        self, name: str, *command: str, url: str | None = None, **settings: str
    ) -> None:
        """Start a program, and wait until `url`, if any, answers; do nothing if the chain is
        stopped. ChainFailed."""
        if self.stopped.is_set():
            return
        print(f"Starting {name} ...", flush=True)
        program = await self._stack.enter_async_context(
            _running(name, command, self.folder, settings)
        )
        self.programs.append(program)
        if url is not None:
            await self._until_answers(program, url)

    async def until_one_ends(self) -> None:
        """Return when the chain is stopped. ChainFailed if a program ends by itself."""
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.stopped.wait())]
        waiting += [asyncio.ensure_future(each.process.wait()) for each in self.programs]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        ended = [each for each in self.programs if each.process.returncode is not None]
        if ended and not self.stopped.is_set():
            raise ChainFailed(f"{ended[0].name} ended by itself:\n{ended[0].end_of_log()}")

    async def _until_answers(self, program: Program, url: str) -> None:
        ends_at = asyncio.get_running_loop().time() + START_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            while not self.stopped.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(url)).is_success:
                        return
                late = asyncio.get_running_loop().time() > ends_at
                if late or program.process.returncode is not None:
                    raise ChainFailed(f"{program.name} does not answer:\n{program.end_of_log()}")
                await asyncio.sleep(0.1)


async def run(*, central_port: int = 8081, store_port: int = 8083) -> None:
    """Run a chain until SIGINT or SIGTERM, with stores from `store_port` on. ChainFailed."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    ports = Ports(
        centrals=[_free(central_port), _free(central_port + 1)],
        stores=[_free(store_port + number) for number in range(3)],
        nats=_free(4222),
    )
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_a_folder())
        await _run(Chain(folder, stack, stopped), stack, ports)
        print("Stopping ...", flush=True)


@contextlib.contextmanager
def _a_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="store-cache-chain-"))
    try:
        folder.chmod(0o711)  # PostgreSQL may run as another user in a folder below
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _run(chain: Chain, stack: AsyncExitStack, ports: Ports) -> None:
    print("Starting PostgreSQL ...", flush=True)
    server = await _postgres(chain.folder / "postgres", stack)
    database = server.url("central")
    await migrate(database)
    centrals = [f"http://localhost:{port}" for port in ports.centrals]
    for name, url, port in zip("ab", centrals, ports.centrals, strict=True):
        serve = ("-m", "central_stub", "serve", "--port", str(port))
        await chain.start(
            f"Central {name}", *serve, url=f"{url}/health", CENTRAL_STUB_DATABASE=database
        )
    if not chain.stopped.is_set():
        await _load(centrals[0])
    nats = await _nats(chain, ports.nats, centrals[0])
    stores = [f"http://localhost:{port}" for port in ports.stores]
    for number, (url, port) in enumerate(zip(stores, ports.stores, strict=True), start=1):
        feed = nats if number == len(stores) else {}
        await chain.start(
            f"store-{number}",
            *("-m", "store_cache", "serve"),
            url=f"{url}/ready",
            HOST="127.0.0.1",
            PORT=str(port),
            STORE_ID=f"store-{number}",
            CENTRAL_API_URL=centrals[number % 2],
            CENTRAL_API_KEY=KEY,
            DATA_DIR=str(chain.folder / f"store-{number}"),
            **feed,
        )
    if chain.stopped.is_set():
        return
    print(_what_to_try(centrals, stores, server, is_on_nats=bool(nats)), flush=True)
    selling = asyncio.create_task(_sell(stores))
    try:
        await chain.until_one_ends()
    finally:
        selling.cancel()
        await asyncio.wait((selling,))


# The programs


async def _postgres(folder: Path, stack: AsyncExitStack) -> TemporaryServer:
    try:
        server = TemporaryServer(folder=folder)
        stack.callback(server.remove)
        await asyncio.to_thread(server.create)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.query, "CREATE DATABASE central")
    except (NoPostgres, DidNotStart) as problem:
        raise ChainFailed(str(problem)) from problem
    return server


async def _nats(chain: Chain, port: int, central: str) -> Mapping[str, str]:
    """Start NATS and a publisher if they are installed; return the settings of a store for it."""
    program = _nats_server()
    if program is None or find_spec("nats") is None:
        print("Without NATS, which is not installed: every store asks Central.", flush=True)
        return {}
    url, files = f"nats://127.0.0.1:{port}", str(chain.folder / "nats")
    listening = ("--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", files)
    await chain.start("NATS", program, *listening)
    publish = ("-m", "central_stub", "publish-feed", "--central", central, "--nats", url)
    await chain.start("the publisher", *publish)
    return {"FEED_SOURCE": "nats", "NATS_URL": url}


def _nats_server() -> str | None:
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


@asynccontextmanager
async def _running(
    name: str, command: Sequence[str], folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[Program]:
    """Run a program until the block ends; without a path it is one of Python's.

    It runs in a session of its own, so that Ctrl-C reaches the chain alone, which then ends the
    programs in order; and in the temporary folder, where no `.env` of a real store is found.
    """
    arguments = (sys.executable, *command) if command[0] == "-m" else tuple(command)
    log = folder / f"{name.replace(' ', '-')}.log"
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env={**kept, **settings},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Program(name, process, log)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


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


# What is sold


def product_id(number: int) -> str:
    return f"PROD-{number:03}"


async def _load(central: str) -> None:
    kinds = ("Tea", "Coffee", "Jam", "Mug", "Lamp", "Soap", "Bread", "Honey")
    products = [
        {
            "productId": product_id(number),
            "name": f"{kinds[number % len(kinds)]} {number:03}",
            "available": STOCK,
            "price": round(1.5 + number * 0.37 % 20, 2),
        }
        for number in range(1, PRODUCTS + 1)
    ]
    headers = {"X-API-Key": ADMIN_KEY}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30.0) as client:
        url = f"{central}/v1/admin/products/create"
        (await client.post(url, json={"products": products})).raise_for_status()


async def _sell(stores: Sequence[str]) -> None:
    """Sell through every store until cancelled."""
    targets = [store_target(url, KEY) for url in stores]
    await replay(
        _sales(random.Random()),
        targets,
        tills=len(targets),
        events_per_second=SALES_A_SECOND,
        answered=_tell,
    )


def _sales(chance: random.Random) -> Iterator[Movement]:
    """Yield sales, and now and then a delivery; each start has numbers of its own."""
    line = chance.randrange(1, 1_000_000) * 1_000_000
    while True:
        line += 1
        delta = 40 if chance.random() < 0.05 else -chance.randint(1, 3)
        yield Movement(line, product_id(chance.randint(1, PRODUCTS)), delta)


def _tell(movement: Movement) -> None:
    print(f"  {movement.product_id} {movement.delta:+d}", flush=True)


def _what_to_try(
    centrals: Sequence[str], stores: Sequence[str], server: TemporaryServer, *, is_on_nats: bool
) -> str:
    call = f"curl -s -H 'X-API-Key: {KEY}'"
    admin = f"curl -s -H 'X-API-Key: {ADMIN_KEY}'"
    where = f"psql -h {server.folder} -U postgres central"
    last = ", which follows NATS" if is_on_nats else ""
    return f"""
A chain is running: two processes of Central over one PostgreSQL, and three stores.

  stores     {stores[0]}/   {stores[1]}/   {stores[2]}/{last}
             (consoles; the key is "{KEY}")
  Central    {centrals[0]}   {centrals[1]}
  the fleet  {centrals[0]}/fleet   (with an admin key: "{ADMIN_KEY}")
  database   {where}

Or try:

  {call} '{stores[0]}/v1/store/inventory?limit=3'
  {call} {stores[2]}/v1/store/sync/status
  {call} '{centrals[1]}/v1/inventory?limit=1'      # the position, at either process
  {where} -c 'SELECT generation, head, floor FROM central.feed'

Sell at one store, and see it at another:

  {call} -X PATCH -H 'Idempotency-Key: my-first' -H 'Content-Type: application/json' \\
      -d '{{"quantityChange": -1}}' {stores[0]}/v1/store/inventory/PROD-001/inventory
  {call} -i {stores[1]}/v1/store/inventory/PROD-001

Break something (docs/chain.md): a fault at either process is one of both,

  {admin} -X POST {centrals[0]}/v1/admin/faults \\
      -d '{{"kind": "status", "status": 503, "routes": ["updates"], "times": 20}}'

and a new generation, as after a restored backup, sends every store into a full sync:

  {sys.executable} -m central_stub restored --database '{server.url("central")}'

Ctrl-C stops everything. Sales, as they happen:
"""
