"""`store-cache status --watch`: what it shows, and that it goes on through a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson
import pytest
from rich.console import Console

from store_cache.cli.client import StoreClient
from store_cache.cli.main import main
from store_cache.cli.watch import Watch, screen
from tests.harness.clients import TILL_KEY
from tests.harness.store import RunningStore, a_store

PATIENCE_SECONDS = 15.0


@asynccontextmanager
async def shop(**settings: Any) -> AsyncIterator[tuple[RunningStore, str]]:
    async with a_store(**settings) as store, store.served() as url:
        await store.until("live")
        yield store, url


@contextmanager
def following(open_client: Callable[[], StoreClient]) -> Iterator[Watch]:
    watch = Watch(open_client)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


async def until(watch: Watch, condition: Callable[[], bool]) -> None:
    """Refresh, in a thread, until it holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.to_thread(watch.refresh)


def shown(watch: Watch) -> str:
    console = Console(width=80, no_color=True, force_terminal=True, legacy_windows=False)
    with console.capture() as captured:
        console.print(screen(watch))
    return captured.get()


async def test_changes_appear_as_they_come() -> None:
    """The stream brings them, and has the status read again."""
    async with shop() as (store, url):
        with following(lambda: StoreClient(url, [TILL_KEY])) as watch:
            await until(watch, lambda: watch.status is not None)
            store.central.sell("P-1", -3)
            await until(watch, lambda: bool(watch.changes))
            await until(watch, lambda: (watch.status or {})["centralHeadOffset"] == 4)
            text = shown(watch)

    assert "In sync with Central" in text
    assert "P-1" in text
    assert "7 left" in text
    assert "Ctrl-C ends" in text
    assert max(map(len, text.splitlines())) <= 80 + len("\x1b[2m\x1b[0m" * 4)


async def test_restart_is_told_and_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away the screen says so, with what was last known; then it goes on. Each
    connection asks for the key anew, since a restarted store has another token."""
    monkeypatch.setattr("store_cache.cli.watch.QUIET_SECONDS", 0.05)
    monkeypatch.setattr("store_cache.cli.watch.TICK_SECONDS", 0.05)
    addresses: list[str] = []
    asked: list[str] = []

    def client() -> StoreClient:
        asked.append(addresses[-1])
        return StoreClient(addresses[-1], [TILL_KEY])

    async with shop() as (_store, url):
        addresses.append(url)
        with following(client) as watch:
            await until(watch, lambda: watch.status is not None)
            before = watch.verdict().sentence
            addresses.append("http://127.0.0.1:1")
            await until(watch, lambda: bool(watch.problem))
            away, screen_then = watch.verdict(), shown(watch)
            addresses.append(url)
            asked.clear()
            await until(watch, lambda: not watch.problem)
            after = watch.verdict().sentence

    assert before.startswith("In sync with Central")
    assert away.sentence.startswith("The store has not answered for")
    assert "no store answers at http://127.0.0.1:1" in away.advice
    assert "products" in screen_then
    assert after.startswith("In sync with Central")
    assert asked


async def test_store_without_a_stream_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds, so that the status is never old."""
    monkeypatch.setattr("store_cache.cli.watch.QUIET_SECONDS", 0.05)
    monkeypatch.setattr("store_cache.cli.watch.TICK_SECONDS", 0.05)
    async with shop(stream_readers=0) as (store, url):
        with following(lambda: StoreClient(url, [TILL_KEY])) as watch:
            await until(watch, lambda: watch.status is not None)
            store.central.sell("P-1")
            await until(watch, lambda: (watch.status or {})["centralHeadOffset"] == 4)


class Enough(KeyboardInterrupt):
    """Ctrl-C, once enough lines were printed."""


@pytest.mark.parametrize("as_json", [False, True])
async def test_off_a_terminal_it_prints_lines(
    as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each change of the verdict; as JSON, the status each time. Ctrl-C ends it with 0."""
    lines: list[str] = []
    first = threading.Event()

    def note(line: str, **_: object) -> None:
        lines.append(line)
        first.set()
        if len(lines) == 2:
            raise Enough

    monkeypatch.setattr("builtins.print", note)
    arguments = ["status", "--watch", *(["--json"] if as_json else [])]
    async with shop() as (store, url):
        call = asyncio.to_thread(main, [*arguments, "--url", url, "--key", TILL_KEY])
        running = asyncio.ensure_future(call)
        await asyncio.to_thread(first.wait, PATIENCE_SECONDS)
        store.central.cut()

        assert 0 == await asyncio.wait_for(running, PATIENCE_SECONDS)

    if as_json:
        assert ["live"] == [orjson.loads(line)["state"]["name"] for line in lines[:1]]
    else:
        assert " live: In sync with Central, " in lines[0]
        assert " stale: Central has been away for " in lines[1]


def test_wrong_address_ends_it_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """It does not wait for a store that never was there."""
    status = main(["status", "--watch", "--url", "http://127.0.0.1:1", "--key", "x"])

    assert 1 == status
    assert "no store answers at http://127.0.0.1:1" in capsys.readouterr().err
