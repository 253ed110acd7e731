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
from central_stub.switches import LIKE

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


def test_serve_imitates_a_deployed_central(tmp_path: Path) -> None:
    """Its answers have the shapes of that one."""
    with serving(tmp_path, "--like", "older", "--switch", "adminSummary=short") as (_, url):
        key = {"X-API-Key": "admin-demo"}
        page = httpx.get(f"{url}/v1/inventory?limit=-1", headers=key)
        switches = httpx.get(f"{url}/v1/admin/switches", headers=key).json()

    assert {"items": [], "nextCursor": None} == page.json()
    assert "99" == page.headers["X-RateLimit-Remaining"]
    assert switches == LIKE["older"].model_dump(mode="json", by_alias=True) | {
        "adminSummary": "short"
    }


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["serve", "--port", "x"], 2, "central-stub: CENTRAL_STUB_PORT was 'x'; it may be"),
        (["serve", "--switch", "air=1"], 2, "central-stub: --switch air was '1': "),
        (["load", "nowhere.csv"], 1, "central-stub: nowhere.csv cannot be read: "),
        (["replay", "nowhere.csv"], 1, "central-stub: nowhere.csv cannot be read: "),
    ],
)
def test_mistake_is_one_line(
    arguments: list[str],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On standard error, without a traceback; the status is 2 for a bad setting, otherwise 1."""
    monkeypatch.chdir(tmp_path)

    code = main(arguments)

    error = capsys.readouterr().err
    assert (status, 1) == (code, error.count("\n"))
    assert error.startswith(said)


def test_port_in_use_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no bad setting: status 1."""
    with serving(tmp_path) as (_, url):
        code = main(["serve", "--port", url.rpartition(":")[2]])

    assert 1 == code
    assert "cannot listen on 127.0.0.1:" in capsys.readouterr().err


def test_file_of_another_kind_is_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first bad lines, how many more there are, and what was expected; status 1. An address
    may lack its scheme."""
    (tmp_path / "README.md").write_text("no JSON\n" * 2000)
    with serving(tmp_path) as (_, url):
        address = url.removeprefix("http://")
        code = main(["load", str(tmp_path / "README.md"), "--url", address])

    *bad, more, expected = capsys.readouterr().err.splitlines()
    assert (1, 5) == (code, len(bad))
    assert "README.md:1: not JSON: " in bad[0]
    assert "and 1995 more bad lines" == more
    assert expected.startswith("expected is a product a line, as JSON: ")


@pytest.mark.parametrize("command", [[], ["serve"], ["load"], ["replay"]])
def test_each_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """For the command and each of its parts."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])

    assert 0 == ended.value.code
    assert "usage: central-stub" in capsys.readouterr().out
