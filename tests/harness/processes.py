"""The two programs as processes of their own, to be started, stopped and killed.

A program keeps its port however often it is started, and its files in a folder that outlives it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from central_stub.settings import Settings
from central_stub.switches import Switches
from tests.harness.clients import (
    CENTRAL_KEY,
    STORE_ADMIN_KEY,
    TILL_KEY,
    CentralAdmin,
    Row,
    StoreClient,
)

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.02
LIMITED_SECONDS = 1.0
SERVER_PORTS = range(11_000, 32_000)
CHANCE = random.SystemRandom()
"""Tests run in several processes, which may have one seed."""


class DidNotStart(Exception):
    """A program ended or did not answer; the message has the end of its log."""


def free_port() -> int:
    """Return a port that is free at every address of this machine, and below those that the system
    gives to connections: one of them might take it before a server does."""
    while True:
        port = CHANCE.choice(SERVER_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


class Program:
    """A command that serves on `port`; its output is appended to `log`."""

    def __init__(
        self, *command: str, port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.log = log
        self.environment = dict(environment or {})
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def process_id(self) -> int:
        return self.process.pid

    async def start(self, path: str | None = "/health", **headers: str) -> None:
        """Start, and wait until `path`, if any, is answered with success. Raises DidNotStart."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, **self.environment},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the test, which then ends this in order
            )
        if path is not None:
            await self._until_answers(path, headers)

    async def _until_answers(self, path: str, headers: Mapping[str, str]) -> None:
        ends_at = time.monotonic() + START_SECONDS
        async with aiohttp.ClientSession(headers=headers) as session:
            while time.monotonic() < ends_at and self.process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with session.get(self.url + path) as response:
                        if response.ok:
                            return
                await asyncio.sleep(LOOK_SECONDS)
        said = await asyncio.to_thread(self.log.read_text, errors="replace")
        raise DidNotStart(f"{self._command} did not answer {path}: {said[-2000:]}")

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """End it by SIGTERM, and kill it if it does not end; return its exit status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        return 0 if process is None else await end(process, number)


async def end(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGTERM) -> int:
    """Send the signal, and kill the process if it does not end; return its exit status."""
    with suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        return await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        return await process.wait()
    except asyncio.CancelledError:  # stopped a second time
        process.kill()
        raise


class CentralProcess(Program, CentralAdmin):
    """`central-stub serve`. `switches` are those that it starts with. Its ledger is in the folder,
    or in the database at this address."""

    address = "127.0.0.9"

    def __init__(
        self,
        folder: Path,
        switches: Switches | None = None,
        *,
        port: int = 0,
        database: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        CentralAdmin.__init__(self)
        super().__init__(
            *(sys.executable, "-m", "central_stub", "serve"),
            port=port or free_port(),
            log=folder / "central.log",
        )
        self.switches = switches or Switches()
        self._folder = folder
        self._database = database
        self._versions: dict[str, int] = {}
        self._sales = 0

    async def start(self, path: str | None = "/health", **headers: str) -> None:
        self.environment = {
            "CENTRAL_STUB_PORT": str(self.port),
            **(
                {"CENTRAL_STUB_DATA_DIR": str(self._folder / "ledger")}
                if self._database is None
                else {"CENTRAL_STUB_DATABASE": self._database}
            ),
            **_settings_of(self.switches),
        }
        await super().start(path, **headers)
        # Only some switches are settings.
        await self.switch(**self.switches.model_dump(mode="json", by_alias=True))

    async def close(self) -> None:
        await self.close_client()
        await self.kill()

    @asynccontextmanager
    async def out_of_sight(self, switches: Switches | None = None) -> AsyncIterator[CentralProcess]:
        """Stop, and serve the same ledger on another port, which no store knows; at the end start
        again on the old one: to stores, all that was done meanwhile happened at once."""
        await self.stop()
        self.switches = switches or self.switches
        hidden = CentralProcess(self._folder, self.switches)
        await hidden.start()
        try:
            yield hidden
        finally:
            await hidden.stop()
            await hidden.close()
        await self.start()

    async def sell(self, product_id: str, delta: int) -> None:
        """Write as another shop does: from an address, and so with a limit, of its own."""
        headers = {"X-API-Key": CENTRAL_KEY}
        write = {"storeId": "elsewhere", "productId": product_id, "delta": delta}
        while True:
            self._sales += 1
            version = self._versions.get(product_id, 1)
            key = f"elsewhere-{id(self)}-{self._sales}"
            body = write | {"version": version, "idempotencyKey": key}
            reply = await self.call("POST", "/v1/inventory/updates", json=body, headers=headers)
            if reply.status == 429:
                await asyncio.sleep(LIMITED_SECONDS)
                continue
            self._versions[product_id] = reply.json["newVersion"]
            if reply.json.get("applied"):
                return
            assert reply.json["errorType"] == "version_conflict", reply.body


def _settings_of(switches: Switches) -> dict[str, str]:
    """Those switches that are settings, as environment variables."""
    values = switches.model_dump(mode="json", include=set(Settings.model_fields))
    joined = {n: ",".join(v) if isinstance(v, list) else str(v) for n, v in values.items()}
    return {f"CENTRAL_STUB_{name.upper()}": text for name, text in joined.items()}


class StoreProcess(Program, StoreClient):
    """`store-cache serve`. `settings` are environment variables."""

    def __init__(self, folder: Path, central_url: str, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        StoreClient.__init__(self)
        port = free_port()
        usual = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "API_KEYS": TILL_KEY,
            "ADMIN_API_KEYS": STORE_ADMIN_KEY,
            "CENTRAL_API_URL": central_url,
            "CENTRAL_API_KEY": CENTRAL_KEY,
            "DATA_DIR": str(folder / "data"),
            "EVENT_WAIT_TIMEOUT_SECONDS": "5",
        }
        super().__init__(
            *(sys.executable, "-m", "store_cache", "serve"),
            port=port,
            log=folder / "store.log",
            environment=usual | settings,
        )

    async def close(self) -> None:
        await self.close_client()
        await self.kill()


def checksum(rows: Mapping[str, Row]) -> str:
    """sha256 over `productId=available\\n` for all products in code point order."""
    lines = (f"{i}={rows[i].get('available', 0)}\n" for i in sorted(rows))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
