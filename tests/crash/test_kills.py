"""A part of the real kills. The command is a process of its own, since a fork needs one thread."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.reports import ReportReader
from tests.crash.series import KillSeries, RunningVictim


def crash(root: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash", "--folder", str(folder), *options],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_kills_lose_nothing(project_root: Path, tmp_path: Path) -> None:
    """[promises 2, 4, 7] Killed while events are applied, writes forwarded, journals compacted,
    full syncs installed and starts under way: what was acknowledged is there, no start fails."""
    done = crash(project_root, tmp_path / "kills", "--kills", "26", "--calls", "0")

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "lost: 0" in done.stdout


@pytest.mark.parametrize("defect", ["events-shown-first", "attempts-on-disk"])
def test_kills_notice_a_safeguard_that_is_missing(
    project_root: Path, tmp_path: Path, defect: str
) -> None:
    """Data is then lost, and that is noticed: the test above can fail."""
    options = ("--kills", "300", "--calls", "0", "--workers", "1", "--without", defect)
    done = crash(project_root, tmp_path / "kills", *options)

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "LOST" in done.stdout


def test_a_report_that_arrives_together_with_settled_is_read(tmp_path: Path) -> None:
    """It was dropped once in 600 folders, and the end seemed different from Central's state."""
    ours, theirs = socket.socketpair()
    theirs.sendall(
        b'{"kind":"settled"}\n'
        b'{"kind":"seen","sequence":1,"rows":{"P-001":{"productId":"P-001","version":2}}}\n'
    )
    series = KillSeries(tmp_path, seed=1)

    with ours, theirs:
        assert series._until(RunningVictim(0, ReportReader(ours), ours), None, 1)
    assert {"P-001"} == series.judge.rows.keys()
