"""The demo, run as a new user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.docs.pages import README, Call, call_of, calls, split_command

STOP_SECONDS = 10.0
OF_A_REAL_STORE = "ENVIRONMENT=production\nAPI_KEYS=secret\nCENTRAL_STUB_API_KEYS=secret\nPORT=1\n"


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    ports = ("--port", "0", "--central-port", "0")
    command = [sys.executable, "-m", "store_cache", "demo", *ports, *options]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def children_of(parent: int) -> list[int]:
    stats = [(path, _stat(path)) for path in Path("/proc").glob("[0-9]*/stat")]
    return [int(path.parent.name) for path, stat in stats if stat and int(stat[1]) == parent]


def _stat(path: Path) -> list[str]:
    """Return the process's state, parent and so on; an empty list if it has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def status_of(store: str, call: Call) -> int:
    """The status of an answer, of which nothing more is read: one of the calls never ends."""
    url = store + call.target
    with httpx.stream(call.method, url, headers=call.headers, content=call.body) as answer:
        return answer.status_code


def test_demo_shows_sales_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """One command runs everything on free ports, whatever `.env` says, and prints commands to try
    and live sales. They and those of the README work. Ctrl-C ends it within 10 s with status 0."""
    (tmp_path / ".env").write_text(OF_A_REAL_STORE)
    with demo(tmp_path) as process:
        assert process.stdout is not None
        printed = ""
        while not re.search(r"(this store|another shop): .* left\n", printed):
            line = process.stdout.readline()
            assert line, printed
            printed += line
        [store] = re.findall(r"curl -s (http://localhost:\d+)/health", printed)
        shown = re.split(
            r"^  (?=curl)", printed.partition("Make Central slow")[0], flags=re.MULTILINE
        )[1:]
        to_try = [call_of(split_command(text)[0]) for text in shown]
        statuses = [status_of(store, each) for each in (*to_try, *(c for c, _ in calls(README)))]
        parts = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=STOP_SECONDS)

    assert 0 == process.returncode
    assert (9, [200] * 12) == (len(to_try), statuses)
    assert 2 == len(parts)
    assert [] == [part for part in parts if Path(f"/proc/{part}").exists()]
    assert rest.endswith("Stopped.\n")
    assert "Traceback" not in printed + rest
    assert [".env"] == os.listdir(tmp_path)  # noqa: PTH208 - names alone


def test_demo_that_is_interrupted_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C before the store starts ends the programs that run already, with status 0."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        while "central-stub serves" not in (line := process.stdout.readline()):
            assert line
        parts = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=STOP_SECONDS)

    assert (0, "Stopped.") == (process.returncode, printed.splitlines()[-1])
    assert "Traceback" not in printed
    assert 1 == len(parts)
    assert [] == [part for part in parts if Path(f"/proc/{part}").exists()]


def test_demo_with_outages_queues_sales_and_replays_them(tmp_path: Path) -> None:
    """Central goes away, a sale is queued, Central is back, and the sale is applied: each is told.
    Ctrl-C ends it as ever, wherever it stands."""
    stages = iter(("Central: goes away for 2 s", ", queued; ", "Central: is back", "is applied"))
    with demo(tmp_path, "--outages", "2") as process:
        assert process.stdout is not None
        printed, stage = "", next(stages, None)
        while stage is not None:
            line = process.stdout.readline()
            assert line, printed
            printed += line
            if stage in line:
                stage = next(stages, None)
        parts = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=STOP_SECONDS)

    assert 0 == process.returncode
    assert [] == [part for part in parts if Path(f"/proc/{part}").exists()]
    assert rest.endswith("Stopped.\n")
    assert "Traceback" not in printed + rest
    assert [] == os.listdir(tmp_path)  # noqa: PTH208 - names alone
