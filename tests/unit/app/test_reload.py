"""Reloading at SIGHUP: what changes, what stays, and that it never ends the process."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from store_cache.api.auth import Authenticator
from store_cache.api.key_file import NamedKey, encode_line
from store_cache.api.tls import ServerTls
from store_cache.api.wrong_keys import WrongKeys
from store_cache.app.logging import configure_logging
from store_cache.app.reload import RELOADED, Reloader, ReloadSignal, key_ring
from store_cache.app.settings import Settings, load_settings
from store_cache.cli.main import main
from tests.harness import proc
from tests.harness.clients import TILL_KEY
from tests.harness.http import DEADLINE_SECONDS
from tests.harness.processes import StoreProcess, free_port
from tests.scenarios.shop import until


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Shop:
    """A store's settings in a `.env` file, and what its reloads do to an authenticator and to the
    server, which this stands for."""

    is_tls = False

    def __init__(self, folder: Path) -> None:
        self.env = folder / ".env"
        self.keys = folder / "keys.jsonl"
        self.write(API_KEYS=TILL_KEY)
        settings = self.load()
        self.authenticator = Authenticator(key_ring(settings), WrongKeys())
        self.reloader = Reloader(settings, self.authenticator, self, load=self.load)

    def use_tls(self, tls: ServerTls) -> None:
        raise AssertionError("the server has no TLS")

    def load(self) -> Settings:
        return load_settings({}, self.env)

    def write(self, **variables: str) -> None:
        self.env.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))

    def new_key(self, name: str, capsys: pytest.CaptureFixture[str]) -> str:
        assert 0 == main(["keys", "new", name, "--file", str(self.keys)])
        return capsys.readouterr().out.strip()

    def accepts(self, *keys: str) -> list[bool]:
        return [self.authenticator.find(key) is not None for key in keys]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_keys_of_the_settings_change(shop: Shop) -> None:
    """Those of `.env`: the environment of a process stays as it is."""
    shop.write(API_KEYS="new-secret", ADMIN_API_KEYS="office-secret")
    await shop.reloader.reload()

    assert [False, True, True] == shop.accepts(TILL_KEY, "new-secret", "office-secret")


async def test_keys_of_the_file_change(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that was given out is accepted, one that was revoked is not; so is none of the
    default's, which all know."""
    key = shop.new_key("till-3", capsys)
    shop.write(KEYS_FILE=str(shop.keys))
    await shop.reloader.reload()
    assert [True, False, False] == shop.accepts(key, TILL_KEY, "demo")

    assert 0 == main(["keys", "revoke", "till-3", "--file", str(shop.keys)])
    await shop.reloader.reload()
    assert [False] == shop.accepts(key)


@pytest.mark.parametrize("wrong", ["API_KEYS=\n", "KEYS_FILE=keys.jsonl\n", "PORT=x\n", "\xff"])
async def test_a_wrong_file_changes_nothing(
    shop: Shop, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The keys stay, and the log says what is wrong."""
    shop.env.write_bytes(wrong.encode("latin-1"))
    await shop.reloader.reload()

    assert [True, False] == shop.accepts(TILL_KEY, "demo")
    [line] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert line.getMessage().startswith("reload: refused, all stays as it was: ")


async def test_the_log_level_and_the_masked_secrets_change(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the next line on. An earlier secret stays masked: some till still sends it."""
    configure_logging("info", terminal=True, secrets=[TILL_KEY])
    for key in ("new-secret", "newer-secret"):
        shop.write(API_KEYS=key, LOG_LEVEL="debug")
        await shop.reloader.reload()
    logging.getLogger("store_cache").debug("till-secret, new-secret, newer-secret")

    assert logging.DEBUG == logging.getLogger().level
    assert capsys.readouterr().err.splitlines()[-1].endswith(" ***, ***, ***")


async def test_what_needs_a_restart_is_named(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A changed setting that a reload does not apply."""
    shop.write(API_KEYS=TILL_KEY, PORT="9000", STALE_AFTER_SECONDS="90")
    await shop.reloader.reload()

    [line] = [each for each in caplog.records if each.levelname == "WARNING"]
    assert line.getMessage().endswith("need a restart: PORT, STALE_AFTER_SECONDS")
    assert RELOADED <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("days", "said"),
    [(-1, ["the API key of till-3 has expired"]), (3, ["expires in 3.0 days"]), (30, [])],
)
def test_keys_that_end_soon_are_logged(
    shop: Shop, days: int, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """At the start and at each reload, unless the client has a later one."""
    digest = hashlib.sha256(b"k").digest()
    key = NamedKey("till-3", "write", digest, expires_at=time.time() + days * 86_400.0 + 9)
    shop.keys.write_bytes(encode_line(key))
    shop.write(KEYS_FILE=str(shop.keys))
    key_ring(shop.load())
    lines = [each.getMessage() for each in caplog.records]

    assert len(said) == len(lines)
    assert all(part in line for part, line in zip(said, lines, strict=True))


async def test_signals_before_and_after_the_wait_count() -> None:
    """One that came during the start is not lost; several at once are one."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        wanted = ReloadSignal()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await wanted.wait()
            waiting = asyncio.create_task(wanted.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            os.kill(os.getpid(), signal.SIGHUP)
            await waiting
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_after_the_loop_is_closed_does_no_harm() -> None:
    """The last moments of a process."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        wanted = ReloadSignal()

        async def wait_briefly() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wanted.wait(), 0.01)

        asyncio.run(wait_briefly())
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# -- a real process --------------------------------------------------------------------------------


def _ends_at_a_signal(pid: int) -> bool:
    """Whether SIGHUP would end the process: it neither catches nor ignores it."""
    handled = [int(proc.status_field(pid, name), 16) for name in ("SigIgn", "SigCgt")]
    return not (handled[0] | handled[1]) & 1


async def _send_signals(pid: int) -> None:
    """Send SIGHUP every other millisecond for as long as the process lives."""
    await until(lambda: not _ends_at_a_signal(pid))
    with suppress(ProcessLookupError):
        while True:
            os.kill(pid, signal.SIGHUP)
            await asyncio.sleep(0.002)


async def test_no_signal_ends_a_process_and_no_request_is_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hundreds of SIGHUPs while it starts, answers, and stops: every read of a till is answered,
    keys are exchanged on the way, and the exit status is that of a clean stop."""
    keys = tmp_path / "keys.jsonl"

    def new_key(name: str) -> str:
        assert 0 == main(["keys", "new", name, "--file", str(keys)])
        return capsys.readouterr().out.strip()

    kept, revoked = new_key("till-1"), new_key("till-2")
    store = StoreProcess(
        tmp_path, f"http://127.0.0.1:{free_port()}", API_KEYS="", KEYS_FILE=str(keys)
    )
    statuses: list[int] = []

    async def read(key: str) -> int:
        reply = await store.call("GET", "/v1/store/cache/stats", headers={"X-API-Key": key})
        return reply.status

    async def is_answered(status: int, key: str) -> bool:
        try:
            return await read(key) == status
        except aiohttp.ClientError:
            return False  # it is not up yet

    async def go_on_reading() -> None:
        while True:
            statuses.append(await read(kept))

    await store.start(path=None)
    signals = asyncio.create_task(_send_signals(store.process_id))
    try:
        await until(lambda: is_answered(200, kept))
        till = asyncio.create_task(go_on_reading())
        added = new_key("till-3")
        assert 0 == main(["keys", "revoke", "till-2", "--file", str(keys)])
        await until(lambda: is_answered(200, added))
        await until(lambda: is_answered(401, revoked))
        till.cancel()
        assert 0 == await store.stop()
    finally:
        signals.cancel()
        await store.close()

    assert {200} == set(statuses)
    log = (tmp_path / "store.log").read_text()
    assert "reload: done; 3 API keys" in log
    assert "Traceback" not in log
