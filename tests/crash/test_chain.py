"""`make chain` as a user runs it: all of it starts, works together, and ends without a trace."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from central_stub.postgres.temporary import NoPostgres, programs
from tests.harness.nats_server import SERVER
from tests.harness.processes import ROOT, free_port

pytestmark = pytest.mark.timeout(300)

READY = "Ctrl-C stops everything"
STARTED = re.compile(r"^Starting (.+) \.\.\.$", re.MULTILINE)
ADDRESS = re.compile(r"http://localhost:(\d+)")
STORES = ("store-1", "store-2", "store-3")
TILL = {"X-API-Key": "demo"}
ADMIN = {"X-API-Key": "admin-demo"}


@pytest.fixture(autouse=True)
def _postgres_is_installed() -> None:
    try:
        programs()
    except NoPostgres as problem:
        pytest.skip(str(problem))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the chain makes its temporary folder. PostgreSQL, as another user, must pass it."""
    path = Path(tempfile.mkdtemp(prefix="chain-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


class RunningChain:
    """The command; `said` is its output so far. `others` are the processes that it has started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self.others: set[int] = set()

    async def until_said(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.said:
            line = await self.process.stdout.readline()
            assert line, f"ended before it said {text!r}:\n{self.said}"
            self.said += line.decode()
        self.others |= descendants_of(self.process.pid)

    async def ended(self) -> None:
        assert self.process.stdout is not None
        self.said += (await self.process.stdout.read()).decode()
        await self.process.wait()


@asynccontextmanager
async def running_chain(folder: Path) -> AsyncIterator[RunningChain]:
    """`central-stub chain`, killed with all that it started if the test fails."""
    ports = ("--central-port", str(free_port()), "--store-port", str(free_port()))
    chain = RunningChain(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "central_stub", "chain", *ports),
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    try:
        yield chain
    finally:
        left = chain.others | descendants_of(chain.process.pid)
        if chain.process.returncode is None:
            chain.process.kill()
            await chain.process.wait()
        for each in filter(is_alive, left):
            os.kill(each, signal.SIGKILL)


def descendants_of(process_id: int) -> set[int]:
    children: set[int] = set()
    for told in Path(f"/proc/{process_id}/task").glob("*/children"):
        with suppress(FileNotFoundError):
            children.update(map(int, told.read_text().split()))
    return children.union(*map(descendants_of, children))


def is_alive(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()


def files_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_chain_sells_through_all_its_programs_and_leaves_nothing_behind(
    folder: Path,
) -> None:
    """A sale at one store is seen at all three, the last of which follows NATS if that is
    installed, and Central knows all three. Ctrl-C, and again while it stops, ends everything."""
    async with running_chain(folder) as chain:
        await chain.until_said(READY)
        ports = list(map(int, dict.fromkeys(ADDRESS.findall(chain.said))))
        stores, central = [f"http://localhost:{port}" for port in ports[:3]], ports[3]
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            sold = await ask(
                session,
                *("PATCH", f"{stores[0]}/v1/store/inventory/PROD-001/inventory"),
                headers={**TILL, "Idempotency-Key": "a-sale"},
                json={"quantityChange": -1},
            )
            shown = [await seen(session, url, sold["newVersion"]) for url in stores]
            fleet = await known(session, f"http://localhost:{central}/v1/admin/stores")
            status = await ask(session, "GET", f"{stores[2]}/v1/store/sync/status", headers=TILL)
        chain.others |= descendants_of(chain.process.pid)
        started = STARTED.findall(chain.said)
        chain.process.send_signal(signal.SIGINT)
        await chain.until_said("Stopping ...")
        chain.process.send_signal(signal.SIGINT)
        await chain.ended()

        assert all(shown)
        assert set(STORES) == fleet
        assert {"PostgreSQL", "Central a", "Central b", *STORES} <= set(started)
        if SERVER.exists():
            assert {"NATS", "the publisher"} <= set(started)
            assert "nats" == status["feed"]["source"]
        assert chain.said.endswith("Stopped; nothing is left behind.\n")
        assert 0 == chain.process.returncode
        assert len(chain.others) >= len(started)
        assert [] == [each for each in chain.others if is_alive(each)]
        assert [] == files_in(folder)
        assert len(ports) == 5
        assert all(map(is_free, ports))


async def test_a_chain_that_is_ended_while_it_starts_leaves_nothing_behind(folder: Path) -> None:
    """SIGTERM, when PostgreSQL runs and the first Central is on its way."""
    async with running_chain(folder) as chain:
        await chain.until_said("Starting Central a ...")
        chain.process.send_signal(signal.SIGTERM)
        await chain.ended()

        assert chain.said.endswith("Stopped; nothing is left behind.\n")
        assert 0 == chain.process.returncode
        assert len(chain.others) > 1
        assert [] == [each for each in chain.others if is_alive(each)]
        assert [] == files_in(folder)


async def ask(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Any:
    async with session.request(method, url, **options) as answer:
        assert answer.ok, await answer.text()
        return await answer.json()


async def seen(session: aiohttp.ClientSession, store: str, version: int) -> bool:
    """Wait until the store shows the product as it was after a sale, or a later one."""
    url = f"{store}/v1/store/inventory/PROD-001"
    while (await ask(session, "GET", url, headers=TILL))["version"] < version:
        await asyncio.sleep(0.05)
    return True


async def known(session: aiohttp.ClientSession, url: str) -> set[str]:
    """Wait until Central knows all stores; return their ids."""
    while True:
        fleet = await ask(session, "GET", url, headers=ADMIN)
        if fleet["storeIds"] >= len(STORES):
            return {each["storeId"] for each in fleet["stores"]}
        await asyncio.sleep(0.1)
