"""The command, run as a user runs it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from central_stub.cli import main

COMMAND = [sys.executable, "-m", "central_stub"]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`central-stub serve` on a free port, and its address."""
    command = [*COMMAND, "serve", "--port", "0", "--data-dir", str(folder / "data"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def health(url: str) -> int:
    products: int = httpx.get(f"{url}/health").json()["products"]
    return products


def test_serve_load_replay_and_a_clean_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three commands together; after SIGTERM the status is 0 and the folder has everything."""
    (tmp_path / "c.csv").write_text("productId,available\nA,9\nB,9\n")
    (tmp_path / "s.csv").write_text("productId,delta\nA,-1\nB,-2\nA,-1\n")
    with serving(tmp_path) as (process, url):
        assert 0 == main(["load", str(tmp_path / "c.csv"), "--url", url])
        assert 0 == main(["replay", str(tmp_path / "s.csv"), "--central", url, "--skip", "1"])
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(10)

    said = capsys.readouterr().out
    assert "2 created, 0 set, 0 bad lines" in said
    assert "2 lines sold, " in said
    with serving(tmp_path) as (_, url):
        assert 2 == health(url)


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """The products are there at the next start."""
    (tmp_path / "c.csv").write_text("productId,available\nA,9\n")
    with serving(tmp_path) as (process, url):
        main(["load", str(tmp_path / "c.csv"), "--url", url])
        process.kill()

    with serving(tmp_path) as (_, url):
        assert 1 == health(url)


def test_switches_are_options_too(tmp_path: Path) -> None:
    """Those of the settings and those that are not."""
    with serving(tmp_path, "--without", "hold", "--switch", "eventOffsetMeans=next") as (_, url):
        page = httpx.get(f"{url}/v1/inventory", headers={"X-API-Key": "demo"}).json()

    assert 1 == page["eventOffset"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "x"], "central-stub: CENTRAL_STUB_PORT was 'x'; it may be"),
        (["serve", "--switch", "air=1"], "central-stub: --switch air was '1': "),
        (["load", "nowhere.csv"], "central-stub: nowhere.csv cannot be read: "),
        (["replay", "nowhere.csv"], "central-stub: nowhere.csv cannot be read: "),
    ],
)
def test_mistake_is_one_line_and_status_1(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On standard error, without a traceback."""
    monkeypatch.chdir(tmp_path)

    code = main(arguments)

    error = capsys.readouterr().err
    assert (1, 1) == (code, error.count("\n"))
    assert error.startswith(said)


@pytest.mark.parametrize("command", [[], ["serve"], ["load"], ["replay"]])
def test_each_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """For the command and each of its parts."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])

    assert 0 == ended.value.code
    assert "usage: central-stub" in capsys.readouterr().out
