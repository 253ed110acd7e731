"""Serving until a signal: what a stop waits for, and what is on disk afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from central_stub.server import Running
from central_stub.settings import Settings as StubSettings
from store_cache.app import build
from store_cache.app import serve as serve_module
from store_cache.app.build import WRITES_GRACE_SECONDS
from store_cache.app.serve import REQUESTS_GRACE_SECONDS, serve_until_signal
from store_cache.app.settings import Settings
from store_cache.cli.main import main
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.files import CacheFiles
from store_cache.storage.recovery import Loaded
from tests.harness.clients import TILL_KEY
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.processes import free_port
from tests.scenarios.shop import until
from tests.unit.storage.small_store import records_of

CONTAINER_SECONDS = 10.0
"""How long a container has between SIGTERM and SIGKILL."""

CLOSING_SECONDS = 1.5
"""How long cancelling late requests and closing files and connections takes."""

TILL = {"X-API-Key": TILL_KEY}
ADMIN = {"X-API-Key": "admin-demo"}


@dataclass
class Served:
    """A store that `store-cache serve` runs in this process."""

    central: Running
    data_dir: Path
    task: asyncio.Task[bool]
    till: httpx.AsyncClient

    async def is_ready(self) -> bool:
        try:
            return (await self.till.get("/ready")).is_success
        except httpx.TransportError:
            return False

    async def has_struck(self) -> bool:
        """Return whether the fault has affected its request."""
        async with httpx.AsyncClient(headers=ADMIN, trust_env=False) as client:
            answer = await client.get(f"{self.central.url}/v1/admin/faults")
        return any(fault["struck"] for fault in answer.json()["faults"])

    async def fault(self, **fault: Any) -> None:
        url = f"{self.central.url}/v1/admin/faults"
        async with httpx.AsyncClient(headers=ADMIN, trust_env=False) as client:
            (await client.post(url, json=fault)).raise_for_status()

    def sale(self) -> asyncio.Task[httpx.Response]:
        body = {"productId": "P-1", "delta": -1, "version": 1, "idempotencyKey": "sale"}
        return asyncio.ensure_future(self._post("/v1/store/inventory/updates", body))

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return await self.till.post(path, json=body)

    async def stopped_by(self, number: signal.Signals) -> float:
        """Send the signal; return how many seconds the store takes to end."""
        began_at = asyncio.get_running_loop().time()
        os.kill(os.getpid(), number)
        await self.task
        return asyncio.get_running_loop().time() - began_at

    async def left(self) -> Loaded:
        """Return what the next process loads."""
        folder = LocalDirectory(self.data_dir)
        loaded = await CacheFiles(folder, store_id="store-s1", now=lambda: 0.0).load()
        await folder.close()
        return loaded


@asynccontextmanager
async def serving(tmp_path: Path, **settings: Any) -> AsyncIterator[Served]:
    """Start a Central with one product, and a store that is in sync and has a poll held."""
    central = Running(StubSettings(_env_file=None, port=0))
    await central.start()
    central.ledger.create({"productId": "P-1", "available": 10}, 0.0)
    port = free_port()
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "api_keys": TILL_KEY,
        "central_api_url": central.url,
        "data_dir": tmp_path / "data",
        "write_timeout_seconds": 60,
    }
    till = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=TILL, trust_env=False, timeout=30.0
    )
    task = asyncio.ensure_future(serve_until_signal(Settings(_env_file=None, **(given | settings))))
    served = Served(central, tmp_path / "data", task, till)
    try:
        await until(served.is_ready)
        await until(lambda: central.held_polls > 0)
        yield served
    finally:
        task.cancel()
        await asyncio.wait([task])
        await till.aclose()
        await central.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_held_poll_does_not_delay_a_stop(
    tmp_path: Path, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """[D7] Either signal ends an idle store at once, since giving up a poll loses nothing."""
    caplog.set_level("INFO", logger="store_cache")
    async with serving(tmp_path) as store:
        seconds = await store.stopped_by(number)
        loaded = await store.left()

    assert seconds < 1.0
    assert loaded.catalogue is not None
    assert (1, (), False) == (len(loaded.catalogue), loaded.findings, loaded.damaged)
    messages = [each.message for each in caplog.records if each.name == "store_cache.app.serve"]
    assert messages[0].startswith("serving on 127.0.0.1:")
    assert ["stopping: no new requests; those in flight may end"] == messages[1:2]
    assert "stopped; everything acknowledged is on disk" == messages[-1]


async def test_a_write_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    """[W5] [D2] After SIGTERM during a write, the till gets its answer, and both the stock and the
    key are on disk."""
    async with serving(tmp_path) as store:
        await store.fault(kind="delay", seconds=0.5, routes=["updates"])
        sale = store.sale()
        await until(store.has_struck)
        seconds = await store.stopped_by(signal.SIGTERM)
        answer = await sale
        loaded = await store.left()

    assert seconds < CONTAINER_SECONDS
    assert (200, True) == (answer.status_code, answer.json()["applied"])
    assert loaded.catalogue is not None
    assert 2 == orjson.loads(loaded.catalogue.get("P-1") or b"{}")["version"]
    last = records_of(loaded)[-1]
    assert "sale" == last["key"]
    assert "applied" in last


async def test_a_stop_waits_for_a_write_no_longer_than_its_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[W1] [W3] [W5] A stop does not wait longer for Central. The attempt is on disk without an
    answer, so its outcome is unknown to the next process, and to the till, which gets a 504."""
    monkeypatch.setattr(serve_module, "REQUESTS_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(build, "WRITES_GRACE_SECONDS", 0.3)
    async with serving(tmp_path) as store:
        await store.fault(kind="delay", seconds=2.0, routes=["updates"])
        sale = store.sale()
        await until(store.has_struck)
        seconds = await store.stopped_by(signal.SIGTERM)
        answer = await sale
        loaded = await store.left()

    assert seconds < 0.2 + 0.3 + CLOSING_SECONDS
    assert (504, "central_timeout") == (answer.status_code, answer.json()["error"]["code"])
    assert [("sale", False)] == [(write["key"], "applied" in write) for write in records_of(loaded)]


async def test_a_stop_while_the_disk_fails_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[D5] How much is not on disk, since when and why; the caller of `serve` is told, too."""
    disk = FaultyDirectory()
    monkeypatch.setattr(build, "LocalDirectory", lambda _: disk)
    async with serving(tmp_path) as store:
        disk.room = 0
        sold = await store.sale()
        await store.stopped_by(signal.SIGTERM)
        last = [each for each in caplog.records if each.name == "store_cache.app.serve"][-1]

    assert 200 == sold.status_code
    assert not store.task.result()
    assert "ERROR" == last.levelname
    assert last.message.startswith("stopped while the disk fails ([Errno 28] No space left")
    assert re.search(r": [1-9]\d* changes of .* and 2 entries of .* since 20", last.message)


def test_the_graces_together_are_shorter_than_a_containers() -> None:
    """[W5] A stop ends by itself before the container is killed."""
    assert REQUESTS_GRACE_SECONDS + WRITES_GRACE_SECONDS + CLOSING_SECONDS < CONTAINER_SECONDS


async def test_command_line_works_with_hashed_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store leaves a token in DATA_DIR: its user can ask for the status and force a full sync,
    also by the settings of the service, and after a reload. It is gone after the stop."""
    hashed = "sha256:" + hashlib.sha256(b"till-secret").hexdigest()
    async with serving(tmp_path, admin_api_keys=hashed, api_keys="sha256:" + "0" * 64) as store:
        written = tmp_path / "store-cache.env"
        written.write_text(
            f"PORT={store.till.base_url.port}\nDATA_DIR={store.data_dir}\n"
            f"API_KEYS={hashed}\nHOST=127.0.0.1\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("store_cache.cli.connect.SERVICE_FILE", written)
        status = await asyncio.to_thread(main, ["status"])
        synced = await asyncio.to_thread(main, ["sync", "--env-file", str(written)])
        token = (store.data_dir / "admin-token").read_text().strip()
        printed = capsys.readouterr()
        await store.stopped_by(signal.SIGTERM)

    assert (0, 0) == (status, synced)
    assert "trust           In sync with Central" in printed.out
    assert token not in printed.out + printed.err
    assert not (store.data_dir / "admin-token").exists()


async def test_token_of_a_store_before_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next key of the settings is tried."""
    async with serving(tmp_path) as store:
        (tmp_path / "old").mkdir()
        (tmp_path / "old/admin-token").write_text("of-a-store-before\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PORT", str(store.till.base_url.port))
        monkeypatch.setenv("DATA_DIR", str(tmp_path / "old"))
        monkeypatch.setenv("API_KEYS", TILL_KEY)

        assert 0 == await asyncio.to_thread(main, ["status"])
