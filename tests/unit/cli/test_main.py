"""The command line: what is printed, and how each command ends."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from store_cache.app.reload import ReloadSignal
from store_cache.app.settings import Settings
from store_cache.cli import main as cli
from store_cache.cli.main import main
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.framing import frame
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY
from tests.harness.store import RunningStore, a_store

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder without `.env`; restore the logging and the signal handler that
    `serve` sets."""
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "DATA_DIR", "API_KEYS", "ADMIN_API_KEYS", "HOST"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    on_hang_up = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, on_hang_up)
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@asynccontextmanager
async def live_store() -> AsyncIterator[tuple[RunningStore, str]]:
    """A store that follows its Central, and its address."""
    async with a_store() as store, store.served() as url:
        await store.until("live")
        yield store, url


async def ran(*arguments: str) -> int:
    """Run a command in a thread, while the loop serves, and return its exit status."""
    return await asyncio.to_thread(main, arguments)


# -- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ([], ["serve", "demo", "status", "sync", ".env.example", "--version"]),
        (["serve"], ["SIGTERM", ".env"]),
        (["demo"], ["--port", "8083", "--central-port", "8081", "Ctrl-C", "Nothing is kept"]),
        (["status"], ["--url", "--key", "--env-file", "--json", "--watch", "Exits with 1"]),
        (["completion"], ["bash", "zsh", "fish"]),
        (["keys"], ["new", "list", "revoke", "KEYS_FILE", "SIGHUP"]),
        (["keys", "new"], ["--scope", "--expires", "90d", "--file", "cannot be shown again"]),
        (["keys", "revoke"], ["--old", "--file"]),
        (["dump"], ["FILE", "standard output", "completely or not at all", "--url"]),
        (["writes"], ["--url", "--json", "settle", "does not know"]),
        (["writes", "settle"], ["applied", "not_applied", "--reason", "never sent again"]),
        (["sync"], ["--url", "--key", "--accept", "--json", "admin key", "does not stop the sync"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_each_command_explains_itself(
    command: list[str], parts: list[str], capsys: Captured
) -> None:
    """`--help` names every option, says what to know before using the command, and exits with 0."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())

    assert 0 == ended.value.code
    assert [] == [text for text in parts if text not in printed]


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nothing"], ["status", "--nothing"]),
        *(["demo", "--port=x"], ["demo", "--port", "99999"], ["demo", "--central-port=-1"]),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: Captured) -> None:
    """The usage is printed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert 2 == ended.value.code
    assert "usage: store-cache" in capsys.readouterr().err


def test_module_is_the_same_program() -> None:
    """`python -m store_cache` runs what `store-cache` does."""
    program = [sys.executable, "-m", "store_cache", "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert (0, "0.1.0\n") == (done.returncode, done.stdout)


# -- status ------------------------------------------------------------------------------------


async def test_status_in_words(capsys: Captured) -> None:
    """[B4] A till's key is enough; the exit status 0 says that the store is in sync."""
    async with live_store() as (_store, url):
        status = await ran("status", "--url", url, "--key", TILL_KEY)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    assert 0 == status
    assert lines["state"].startswith("live since 20")
    assert lines["products"] == "3"
    assert lines["feed"] == "g-1, offset 3, Central's head 3"
    assert lines["writes"] == "breaker closed, 0 under way, 0 of unknown outcome"
    assert "problem" not in lines


async def test_status_as_the_api_gives_it(capsys: Captured) -> None:
    """`--json` prints the API's document, for scripts."""
    async with live_store() as (store, url):
        address = url.removeprefix("http://")
        status = await ran("status", "--json", "--url", address, "--key", TILL_KEY)
        document = orjson.loads(capsys.readouterr().out)

        assert 0 == status
        assert set(store.status) == set(document)
        assert "live" == document["state"]["name"]


async def test_store_that_is_not_in_sync_exits_with_1(capsys: Captured) -> None:
    """[B2] A script sees the exit status; a person reads the cause and which setting to fix."""
    async with a_store(central_api_key="wrong") as store, store.served() as url:
        async with asyncio.timeout(10):
            while not store.status["fullSyncs"]:
                await store.parts.runner.changed.wait()
        status = await ran("status", "--url", url, "--key", TILL_KEY)
    printed = capsys.readouterr().out

    assert 1 == status
    assert "in sync         never" in printed
    assert "set CENTRAL_API_KEY to one that it knows" in printed


async def test_failing_disk_is_printed(capsys: Captured) -> None:
    """[D5] A line names the problem and what a restart would lose."""
    async with live_store() as (store, url):
        store.disk.room = 0
        store.central.sell("P-1")
        await store.until("degraded")
        status = await ran("status", "--url", url, "--key", TILL_KEY)
    printed = capsys.readouterr().out

    assert 1 == status
    assert "state           degraded" in printed
    assert "No space left" in printed
    assert "lost if the store restarts" in printed


# -- sync --------------------------------------------------------------------------------------


async def test_forced_sync_prints_its_result(capsys: Captured) -> None:
    """[F1] The store's message, then its status with the reason of the full sync; exit status 0."""
    async with live_store() as (_store, url):
        status = await ran("sync", "--url", url, "--key", STORE_ADMIN_KEY)
    printed = capsys.readouterr().out

    assert 0 == status
    assert printed.startswith("Force sync completed successfully\n")
    assert "3 products; on demand" in printed


async def test_result_of_a_forced_sync_as_json(capsys: Captured) -> None:
    """The answer as the API gives it."""
    async with live_store() as (_store, url):
        status = await ran("sync", "--json", "--url", url, "--key", STORE_ADMIN_KEY)
    document = orjson.loads(capsys.readouterr().out)

    assert 0 == status
    assert {"message", "status"} == set(document)


async def test_status_on_a_terminal(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """In colour, and within the columns that there are; without colours if NO_COLOR says so."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    async with a_store(central_api_key="wrong") as store, store.served() as url:
        async with asyncio.timeout(10):
            while not store.status["fullSyncs"]:
                await store.parts.runner.changed.wait()
        await ran("status", "--url", url, "--key", TILL_KEY)
        coloured = capsys.readouterr().out
        monkeypatch.setenv("NO_COLOR", "1")
        await ran("status", "--url", url, "--key", TILL_KEY)
        plain = capsys.readouterr().out
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in plain.splitlines()]

    assert "\x1b[1;31mThere is no catalogue yet" in coloured
    assert "31m" not in plain
    assert max(map(len, lines)) <= 60
    assert "set CENTRAL_API_KEY to one that it knows" in " ".join(" ".join(lines).split())


def test_reader_that_has_enough_is_no_error() -> None:
    """`store-cache … | head -1` prints no traceback."""
    program = f"{sys.executable} -m store_cache completion bash | head -1"
    done = subprocess.run(program, shell=True, capture_output=True, text=True, check=False)

    assert ("_store_cache() {\n", "") == (done.stdout, done.stderr)


async def test_progress_is_shown_while_it_runs(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step goes to standard error, so that standard output holds only the result."""
    monkeypatch.setattr("store_cache.cli.report.POLL_SECONDS", 0.01)
    monkeypatch.setattr("store_cache.cli.display.SHOWN_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    async with live_store() as (store, url):
        store.central.may_answer.clear()
        syncing = asyncio.ensure_future(ran("sync", "--url", url, "--key", STORE_ADMIN_KEY))
        shown = ""
        async with asyncio.timeout(10):
            while "first page" not in shown:
                shown += capsys.readouterr().err
                await asyncio.sleep(0.005)
        store.central.may_answer.set()

        assert 0 == await syncing


async def test_small_catalogue_needs_accept(capsys: Captured) -> None:
    """[F5] It is refused with the reason and status 1, and installed with `--accept`."""
    async with live_store() as (store, url):
        for product_id in ("P-2", "P-3"):
            store.central.ledger.lie(product_id, None)
        address = ("--url", url, "--key", STORE_ADMIN_KEY)
        refused = await ran("sync", *address)
        printed = capsys.readouterr().err
        accepted = await ran("sync", "--accept", *address)

    assert (1, 0) == (refused, accepted)
    assert "1 products where 3 are held" in printed
    assert "sync_failed" in printed


async def test_sync_without_central_fails(capsys: Captured) -> None:
    """[F1] Exit status 1 and the reason."""
    async with live_store() as (store, url):
        store.central.cut()
        status = await ran("sync", "--url", url, "--key", STORE_ADMIN_KEY)

    assert 1 == status
    assert "store-cache: Force sync failed: Central (central.test) cannot be reached" in (
        capsys.readouterr().err
    )


# -- calls that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "key", "code"),
    [("status", "nobody's", "unauthorized"), ("sync", TILL_KEY, "forbidden")],
)
async def test_refused_key_is_reported(command: str, key: str, code: str, capsys: Captured) -> None:
    """With 1, the store's error code and the option to use; the key itself is not printed."""
    async with a_store() as store, store.served() as url:
        status = await ran(command, "--url", url, "--key", key)
    printed = capsys.readouterr().err

    assert 1 == status
    assert f"{code}); give another key with --key" in printed
    assert key not in printed


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--url", "http://127.0.0.1:1"], "no store answers at http://127.0.0.1:1 ("),
        (["--url", "127.0.0.1:1"], "no store answers at http://127.0.0.1:1 ("),
        (["--url", "http://localhost:port"], "http://localhost:port is no address ("),
        (["--key", "schlüssel"], "the key holds other than ASCII characters: see --key"),
        (["--key", "two\nlines"], "no store answers at http://127.0.0.1:1 ("),
    ],
)
def test_unusable_address_or_key_is_reported(
    arguments: list[str], printed: str, capsys: Captured
) -> None:
    """In one line, without a traceback; exit status 1."""
    usual = ["--url", "http://127.0.0.1:1", "--key", "x"]
    status = main(["status", *usual, *arguments])
    [line] = capsys.readouterr().err.splitlines()

    assert 1 == status
    assert line.startswith(f"store-cache: {printed}")


@pytest.mark.parametrize(
    ("status", "body", "printed"),
    [
        (200, "<html>Welcome</html>", "is not a store cache"),
        (200, '{"hello": "world"}', "is not a store cache"),
        (200, "[]", "is not a store cache"),
        (404, '{"code": "not_found"}', "the store answered 404; is --url right?"),
        (502, "<html>Bad gateway</html>", "is not a store cache"),
    ],
)
@pytest.mark.parametrize("command", ["status", "sync"])
async def test_another_program_at_the_address_is_reported(
    command: str, status: int, body: str, printed: str, capsys: Captured
) -> None:
    """It is not taken for a store; exit status 1."""

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
    assert printed in capsys.readouterr().err


async def test_address_and_key_come_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """On the store's machine no option is needed: PORT and the first plain key are used."""
    async with live_store() as (_store, url):
        hashed = "sha256:" + hashlib.sha256(b"x").hexdigest()
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        monkeypatch.setenv("API_KEYS", f"{hashed},{TILL_KEY}")
        with_keys = await ran("status")
        monkeypatch.setenv("API_KEYS", hashed)
        without = await ran("status")

    assert (0, 1) == (with_keys, without)
    assert (
        "the settings hold no key in plain text, and data/admin-token cannot be read; run this as "
        "the user of the store, or give a key with --key"
    ) in capsys.readouterr().err


def test_ctrl_c_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that waits for a sync must not continue as if it were done."""

    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "force_with_progress", interrupted)

    assert 130 == main(["sync", "--url", "http://127.0.0.1:1", "--key", "x"])


# -- serve that cannot start -------------------------------------------------------------------


def test_bad_settings_exit_with_2_and_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """All mistakes are reported at once, in the order of the documentation."""
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
    """`--url` and `--key` together reach a store from any machine, whatever its settings."""
    monkeypatch.setenv("PORT", "many")

    assert 2 == main(["status"])
    assert 1 == main(["status", "--url", "http://127.0.0.1:1", "--key", "x"])
    assert "PORT was 'many'" in capsys.readouterr().err


def _last_line(capsys: Captured) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_port_in_use_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The one line names the port and what to do; no folder is made, and Central is not asked."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("HOST", "127.0.0.1")
        monkeypatch.setenv("PORT", str(port))
        monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
        status = main(["serve"])

    assert 1 == status
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"store-cache: cannot listen on 127.0.0.1 port {port}: ")
    assert line.endswith("in use; stop the other process, or set PORT to another port")
    assert not (tmp_path / "data").exists()


def test_folder_in_use_exits_with_1(
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


def test_files_of_a_newer_version_exit_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """[D6] They are refused and stay unchanged."""
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


def test_files_of_another_store_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """[D6] A changed STORE_ID is a wrong setting: the message says what to do and what it costs."""
    header = orjson.dumps({"file": "journal", "format": 1, "number": 7, "store": "store-s2"})
    journal = tmp_path / "journal-7.jsonl"
    journal.write_bytes(frame("header", header))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    status = main(["serve"])

    assert 2 == status
    assert "set STORE_ID=store-s2 again, or begin with an empty DATA_DIR" in _last_line(capsys)
    assert frame("header", header) == journal.read_bytes()


def test_a_folder_of_everybody_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """[D1] T21: a restart does not help; the message says what does."""
    tmp_path.chmod(0o1777)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    status = main(["serve"])

    assert 2 == status
    assert "set it to a folder below, which the store creates" in _last_line(capsys)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("is_all_on_disk", "expected"), [(True, 0), (False, 3)])
def test_a_stop_while_the_disk_fails_exits_with_3(
    is_all_on_disk: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[D5] A supervisor can tell a stop that lost something from a clean one."""

    async def serve(_: Settings, _reloads: ReloadSignal, **_options: object) -> bool:
        return is_all_on_disk

    monkeypatch.setattr(cli, "serve_until_signal", serve)

    assert expected == main(["serve"])
