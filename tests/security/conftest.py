"""One real store for all attacks of a module: a process of its own, on a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness import proc
from tests.harness.http import Connection, Headers, Reply
from tests.harness.processes import StoreProcess
from tests.security.watched_central import WatchedCentral

TILL = "canary-of-a-till-5b1f60c2"
OFFICE = "canary-of-the-office-77e0"
CENTRALS = "canary-of-central-9d41aa07"
READS, OLD, NEW, ENDED = (
    "key-that-reads-01",
    "old-key-of-till-3",
    "new-key-of-till-3",
    "ended-key-02",
)
NOWHERE = "http://127.0.0.1:9"
ORIGIN = "https://till.example.com"

# Wall clock time is what it is, plus the seconds that a file holds.
_SITE = """
import pathlib, time
_real, _file = time.time, pathlib.Path(__file__).with_name("ahead")
time.time = lambda: _real() + float(_file.read_text())
"""


class AttackedStore(StoreProcess):
    """A store, its Central, and all answers that were received over `send`."""

    def __init__(self, folder: Path, central: WatchedCentral) -> None:
        self.folder, self.central = folder, central
        self.keys_file = folder / "keys.jsonl"
        self.data = folder / "data"
        self.outside = folder / "outside"
        self.replies: list[Reply] = []
        self.write_keys(
            ("display", "read", READS), ("till-3", "write", OLD), ("till-3", "write", NEW)
        )
        self._plant()
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITE)
        self.ahead = site / "ahead"
        self.ahead.write_text("0")
        super().__init__(
            folder,
            f"{central.url}/chain",
            API_KEYS=TILL,
            ADMIN_API_KEYS=OFFICE,
            CENTRAL_API_KEY=CENTRALS,
            KEYS_FILE=str(self.keys_file),
            CORS_ORIGINS=ORIGIN,
            LOG_LEVEL="debug",
            EVENT_WAIT_TIMEOUT_SECONDS="20",
            PYTHONPATH=str(site),
            HTTP_PROXY=NOWHERE,
            HTTPS_PROXY=NOWHERE,
            ALL_PROXY=NOWHERE,
            http_proxy=NOWHERE,
        )
        self.key = TILL

    def _plant(self) -> None:
        """A folder that others may write to, with a link where the store keeps its files."""
        self.outside.write_text("not the store's")
        self.data.mkdir()
        self.data.chmod(0o777)
        (self.data / "snapshot-1.jsonl").symlink_to(self.outside)

    def write_keys(self, *keys: tuple[str, str, str]) -> None:
        """Name, scope and key of each line; a key that has ended is always there."""
        yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines: list[dict[str, Any]] = [
            {"name": name, "scope": scope, "sha256": sha256(key.encode()).hexdigest()}
            for name, scope, key in keys
        ]
        ended = {"name": "ended", "scope": "admin", "sha256": sha256(ENDED.encode()).hexdigest()}
        lines.append(ended | {"expires": yesterday})
        self.keys_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.keys_file.chmod(0o600)

    async def line(self, address: str = "127.0.0.1") -> Connection:
        """A connection from this address of this machine."""
        return await Connection.open(self.port, local_addr=(address, 0))

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Headers | None = None,
        body: bytes = b"",
        address: str = "127.0.0.1",
    ) -> Reply:
        """Send a request on a connection of its own, with a till's key unless `headers` are
        given."""
        line = await self.line(address)
        try:
            sent = {"X-API-Key": TILL} if headers is None else headers
            reply = await line.send(method, target, headers=sent, body=body)
        finally:
            line.close()
        self.replies.append(reply)
        return reply

    async def send_raw(self, request: bytes) -> bytes:
        """Send these bytes, and return all that is answered until the store closes."""
        line = await self.line()
        line.writer.write(request)
        try:
            return await line.ended()
        finally:
            line.close()

    def logged(self) -> list[dict[str, Any]]:
        """The lines of the log. Raises ValueError if one is not JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def memory_bytes(self) -> int:
        return proc.resident_bytes(self.process_id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedStore]:
    async with WatchedCentral().serving() as central:
        assert isinstance(central, WatchedCentral)
        store = AttackedStore(tmp_path_factory.mktemp("attacked"), central)
        try:
            await store.start("/ready")
            yield store
        finally:
            await store.close()
