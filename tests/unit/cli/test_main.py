"""The command line: what is printed, and how each command ends."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from store_cache.cli import main as cli
from store_cache.cli.main import main
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.framing import frame
from tests.harness.whole_store import ADMIN_KEY, TILL_KEY, served, whole_store

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder without `.env`; `serve` configures logging, which is put back."""
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "DATA_DIR", "API_KEYS", "ADMIN_API_KEYS", "HOST"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


async def ran(*arguments: str) -> int:
    """A command's exit status, while the loop goes on serving."""
    return await asyncio.to_thread(main, arguments)


# -- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([], ["serve", "demo", "status", "sync", ".env.example", "--version"]),
        (["serve"], ["SIGTERM", ".env"]),
        (["demo"], ["--port", "8083", "--central-port", "8081", "Ctrl-C", "Nothing is kept"]),
        (["status"], ["--url", "--key", "--json", "Exits with 1"]),
        (["sync"], ["--url", "--key", "--accept", "admin key", "does not stop the sync"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_each_command_explains_itself(
    command: list[str], says: list[str], capsys: Captured
) -> None:
    """`--help` names every option and what to know before using the command, and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    said = " ".join(capsys.readouterr().out.split())

    assert 0 == ended.value.code
    assert [] == [text for text in says if text not in said]


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["status", "--nothing"], ["demo", "--port=x"]]
)
def test_wrong_use_ends_with_2(arguments: list[str], capsys: Captured) -> None:
    """And shows how the command is used."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert 2 == ended.value.code
    assert "usage: store-cache" in capsys.readouterr().err


def test_the_module_is_the_same_program() -> None:
    """`python -m store_cache` runs what `store-cache` does."""
    program = [sys.executable, "-m", "store_cache", "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert (0, "0.1.0\n") == (done.returncode, done.stdout)


# -- status ------------------------------------------------------------------------------------


async def test_the_status_in_words(capsys: Captured) -> None:
    """[B4] A till's key is enough; the exit status says that the store is in step."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        status = await ran("status", "--url", url, "--key", TILL_KEY)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    assert 0 == status
    assert lines["state"].startswith("live since 20")
    assert lines["products"] == "3"
    assert lines["feed"] == "g-1, offset 3, Central's head 3"
    assert lines["writes"] == "breaker closed, 0 under way, 0 of unknown outcome"
    assert "problem" not in lines


async def test_the_status_as_the_api_gives_it(capsys: Captured) -> None:
    """`--json` prints the document itself, for scripts."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        status = await ran("status", "--json", "--url", url, "--key", TILL_KEY)
        document = orjson.loads(capsys.readouterr().out)

        assert 0 == status
        assert set(store.status) == set(document)
        assert "live" == document["state"]["name"]


async def test_a_store_that_is_not_in_step_ends_with_1(capsys: Captured) -> None:
    """[B2] A script can tell; a person reads the cause and what to set."""
    async with whole_store(central_api_key="wrong") as store, served(store) as url:
        async with asyncio.timeout(10):
            while not store.status["fullSyncs"]:
                await store.parts.runner.changed.wait()
        status = await ran("status", "--url", url, "--key", TILL_KEY)
    said = capsys.readouterr().out

    assert 1 == status
    assert "in step         never" in said
    assert "set CENTRAL_API_KEY to one that it knows" in said


async def test_the_worst_news_are_printed(capsys: Captured) -> None:
    """[D5] A disk that fails is a line of its own, with what a restart would lose."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        store.disk.room = 0
        store.line.sell("P-1")
        await store.until("degraded")
        status = await ran("status", "--url", url, "--key", TILL_KEY)
    said = capsys.readouterr().out

    assert 1 == status
    assert "state           degraded" in said
    assert "No space left" in said
    assert "lost if the store restarts" in said


# -- sync --------------------------------------------------------------------------------------


async def test_a_forced_sync_is_watched_to_its_end(capsys: Captured) -> None:
    """[F1] The store's message, then its status with the run's reason; 0."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        status = await ran("sync", "--url", url, "--key", ADMIN_KEY)
    said = capsys.readouterr().out

    assert 0 == status
    assert said.startswith("Force sync completed successfully\n")
    assert "3 products; on demand" in said


async def test_progress_is_shown_while_it_runs(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step, on standard error, so that standard output holds only the outcome."""
    monkeypatch.setattr("store_cache.cli.report.PROGRESS_SECONDS", 0.01)
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        store.line.open.clear()
        syncing = asyncio.ensure_future(ran("sync", "--url", url, "--key", ADMIN_KEY))
        shown = ""
        async with asyncio.timeout(10):
            while "first page" not in shown:
                shown += capsys.readouterr().err
                await asyncio.sleep(0.005)
        store.line.open.set()

        assert 0 == await syncing


async def test_a_small_catalogue_needs_accept(capsys: Captured) -> None:
    """[F5] Refused with the reason and what to do about it: 1; taken with `--accept`: 0."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        for product_id in ("P-2", "P-3"):
            store.line.ledger.lie(product_id, None)
        address = ("--url", url, "--key", ADMIN_KEY)
        refused = await ran("sync", *address)
        said = capsys.readouterr().err
        accepted = await ran("sync", "--accept", *address)

    assert (1, 0) == (refused, accepted)
    assert "1 products where 3 are held" in said
    assert "sync_failed" in said


async def test_a_sync_without_central_fails(capsys: Captured) -> None:
    """[F1] 1, and the reason in Central's or the network's words."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        store.line.cut()
        status = await ran("sync", "--url", url, "--key", ADMIN_KEY)

    assert 1 == status
    assert "store-cache: Force sync failed: Central (localhost:8081) cannot be reached" in (
        capsys.readouterr().err
    )


# -- whoever cannot be asked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "key", "code"),
    [("status", "nobody's", "unauthorized"), ("sync", TILL_KEY, "forbidden")],
)
async def test_a_key_that_may_not_is_told(
    command: str, key: str, code: str, capsys: Captured
) -> None:
    """1, with the store's own code, and which option to use; the key itself is not repeated."""
    async with whole_store() as store, served(store) as url:
        status = await ran(command, "--url", url, "--key", key)
    said = capsys.readouterr().err

    assert 1 == status
    assert f"{code}); give another key with --key" in said
    assert key not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://127.0.0.1:1"], "no store answers at http://127.0.0.1:1 ("),
        (["--url", "localhost:8083"], "no store answers at localhost:8083 ("),
        (["--url", "http://localhost:port"], "http://localhost:port is no address ("),
        (["--key", "schlüssel"], "the key holds other than ASCII characters: see --key"),
        (["--key", "two\nlines"], "no store answers at http://127.0.0.1:1 ("),
    ],
)
def test_an_address_or_key_that_cannot_be_is_told(
    arguments: list[str], said: str, capsys: Captured
) -> None:
    """One line for a person, never a traceback; 1."""
    usual = ["--url", "http://127.0.0.1:1", "--key", "x"]
    status = main(["status", *usual, *arguments])
    [line] = capsys.readouterr().err.splitlines()

    assert 1 == status
    assert line.startswith(f"store-cache: {said}")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html>Welcome</html>", "is not a store cache"),
        (200, '{"hello": "world"}', "is not a store cache"),
        (200, "[]", "is not a store cache"),
        (404, '{"code": "not_found"}', "the store answered 404; is --url right?"),
        (502, "<html>Bad gateway</html>", "is not a store cache"),
    ],
)
@pytest.mark.parametrize("command", ["status", "sync"])
async def test_something_else_at_the_address_is_told(
    command: str, status: int, body: str, said: str, capsys: Captured
) -> None:
    """Another program on that port is not taken for a store; 1."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text=body)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    ended = await ran(command, "--url", f"http://{host}:{port}", "--key", "x")
    await runner.cleanup()

    assert 1 == ended
    assert said in capsys.readouterr().err


async def test_address_and_key_come_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """On the store's own machine no option is needed: PORT, and the first plain key."""
    async with whole_store() as store, served(store) as url:
        await store.until("live")
        hashed = "sha256:" + hashlib.sha256(b"x").hexdigest()
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        monkeypatch.setenv("API_KEYS", f"{hashed},{TILL_KEY}")
        with_keys = await ran("status")
        monkeypatch.setenv("API_KEYS", hashed)
        without = await ran("status")

    assert (0, 1) == (with_keys, without)
    assert "every configured key is a sha256; give the key itself with --key" in (
        capsys.readouterr().err
    )


def test_ctrl_c_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that waits for a sync must not go on as if it were done."""

    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "force_with_progress", interrupted)

    assert 130 == main(["sync", "--url", "http://127.0.0.1:1", "--key", "x"])


# -- serve, where it cannot --------------------------------------------------------------------


def test_bad_settings_end_with_2_and_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Whoever sets up a store sees all mistakes at once, in the order of the documentation."""
    monkeypatch.setenv("PORT", "many")
    monkeypatch.setenv("STORE_ID", "süd")
    monkeypatch.setenv("API_KEYS", "canary canary")
    status = main(["serve"])
    lines = capsys.readouterr().err.splitlines()

    assert 2 == status
    assert ["PORT", "STORE_ID", "API_KEYS"] == [line.split()[0] for line in lines]
    assert "canary" not in "".join(lines)


def test_status_needs_good_settings_only_where_it_uses_them(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """With `--url` and `--key`, a store elsewhere can be asked from any machine."""
    monkeypatch.setenv("PORT", "many")

    assert 2 == main(["status"])
    assert 1 == main(["status", "--url", "http://127.0.0.1:1", "--key", "x"])
    assert "PORT was 'many'" in capsys.readouterr().err


def _last_line(capsys: Captured) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_port_in_use_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The last line says which port, and what to do; the folder is free again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("HOST", "127.0.0.1")
        monkeypatch.setenv("PORT", str(port))
        monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
        status = main(["serve"])

    assert 1 == status
    line = _last_line(capsys)
    assert line.startswith(f"store-cache: cannot listen on 127.0.0.1 port {port}: ")
    assert line.endswith("in use; stop the other process, or set PORT to another port")
    asyncio.run(_opened_and_closed(tmp_path / "data"))


async def _opened_and_closed(path: Path) -> None:
    directory = LocalDirectory(path)
    await directory.names()
    await directory.close()


def test_a_folder_in_use_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """[D6] Two stores never share a folder; the message names the process that has it."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    folder = LocalDirectory(tmp_path)
    asyncio.run(folder.names())
    status = main(["serve"])
    asyncio.run(folder.close())

    assert 1 == status
    assert _last_line(capsys).startswith(f"store-cache: DATA_DIR {tmp_path} is in use by another")


def test_files_of_a_newer_version_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """[D6] They are refused, not destroyed."""
    header = orjson.dumps({"file": "snapshot", "format": 2, "number": 7})
    newer = tmp_path / "snapshot-7.jsonl"
    newer.write_bytes(frame("header", header))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    status = main(["serve"])

    assert 1 == status
    assert "store-cache: snapshot-7.jsonl has format 2, and this version reads up to 1" in (
        _last_line(capsys)
    )
    assert frame("header", header) == newer.read_bytes()
