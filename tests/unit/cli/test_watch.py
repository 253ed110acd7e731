"""`store-cache status --watch`: what it shows, and that it goes on through a restart."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from rich.console import Console

from central_stub.switches import Switches
from store_cache.app.admin_token import read_token
from store_cache.app.settings import SettingsError
from store_cache.cli.client import StoreClient
from store_cache.cli.main import main
from store_cache.cli.watch import Watch, screen
from tests.harness.clients import TILL_KEY
from tests.harness.processes import CentralProcess
from tests.harness.store import RunningStore, a_store
from tests.scenarios.shop import a_shop_of_processes, product

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


@pytest.mark.slow
async def test_restart_is_told_and_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is away the screen says so, with what was last known. The next one, which has
    another token, is followed like the one before."""
    monkeypatch.setattr("store_cache.cli.watch.TICK_SECONDS", 0.05)
    rows = [product(number) for number in range(3)]
    async with a_shop_of_processes(tmp_path, rows, Switches()) as shop:
        store = shop.store

        def client() -> StoreClient:
            return StoreClient(store.url, [read_token(tmp_path / "store" / "data") or "no-token"])

        await store.start("/ready")
        with following(client) as watch:
            await until(watch, lambda: watch.status is not None)
            before = watch.verdict().sentence
            await store.stop()
            await until(watch, lambda: bool(watch.problem))
            away, screen_then = watch.verdict(), shown(watch)
            await store.start("/ready")
            await until(watch, lambda: not watch.problem)
            after = watch.verdict().sentence
            await until_told(watch, shop.central, "P-001")

    assert before.startswith("In sync with Central")
    assert away.sentence.startswith("The store has not answered for")
    assert f"no store answers at {store.url}" in away.advice
    assert "products" in screen_then
    assert after.startswith("In sync with Central")


async def until_told(watch: Watch, central: CentralProcess, product_id: str) -> None:
    """Change a product until the stream tells it: it is opened again only after a pause."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        for available in itertools.count():
            await central.set(product_id, available=available)
            await asyncio.to_thread(watch.refresh)
            if product_id in {change["productId"] for change in watch.changes}:
                return


async def test_stream_is_read_with_the_key_that_the_store_takes() -> None:
    """The first one may be a token that a store before has left."""
    async with shop() as (_, url):
        with StoreClient(url, ["old-token", TILL_KEY]) as client:

            def first() -> str:
                with client.changes() as events:
                    return next(events)[0]

            assert "state" == await asyncio.to_thread(first)


async def test_wrong_settings_are_told_and_outlived() -> None:
    """As while somebody edits `.env`: the watch says what is wrong, and goes on when it is
    mended."""
    problems = [SettingsError("PORT was 'x'")] * 2  # one for the stream, one for the status
    seen: list[str] = []

    async with shop() as (store, url):

        def client() -> StoreClient:
            if problems:
                raise problems.pop()
            return StoreClient(url, [TILL_KEY])

        with following(client) as watch:

            def is_read() -> bool:
                seen.append(watch.problem)
                return watch.status is not None

            await until(watch, is_read)
            store.central.sell("P-1")
            await until(watch, lambda: bool(watch.changes))

    assert "PORT was 'x'" in seen


@asynccontextmanager
async def odd_store(*events: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server whose streams are these events and then end, and whose status is none: its address,
    and the paths that it was asked for."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        is_stream = request.path.endswith("/stream")
        return web.Response(body=b"".join(events) if is_stream else b'{"eventSync": {}}')

    async with RawTestServer(answer) as server:
        yield str(server.make_url("")), asked


STREAM_PATH = "/v1/store/inventory/stream"


@pytest.mark.parametrize("event", ["", "event: a\ndata: {broken\n\n", "event: a\ndata: 1\n\n"])
async def test_stream_that_ends_is_opened_again(
    event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it ends well, or with what is no event."""
    monkeypatch.setattr("store_cache.cli.watch.RETRY_SECONDS", 0.01)
    async with odd_store(event.encode()) as (url, asked):
        with following(lambda: StoreClient(url, [TILL_KEY])) as watch:
            await until(watch, lambda: asked.count(STREAM_PATH) >= 3)


async def test_stream_that_ends_is_not_opened_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A store that stops would be asked over and over again."""
    monkeypatch.setattr("store_cache.cli.watch.RETRY_SECONDS", 3600.0)
    for name in ("READ_SECONDS", "QUIET_SECONDS", "TICK_SECONDS"):
        monkeypatch.setattr(f"store_cache.cli.watch.{name}", 0.01)
    async with odd_store() as (url, asked):
        with following(lambda: StoreClient(url, [TILL_KEY])) as watch:
            await until(watch, lambda: STREAM_PATH in asked)
            asked.clear()
            await until(watch, lambda: len(asked) >= 20)

    assert STREAM_PATH not in asked


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
