"""A slice of the real kills: the command runs in a process that has no other thread to fork."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.killing import Chain, Running
from tests.crash.records import Hearing


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
    """Without it something is lost, and seen to be: the test above can fail."""
    options = ("--kills", "300", "--calls", "0", "--workers", "1", "--without", defect)
    done = crash(project_root, tmp_path / "kills", *options)

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "LOST" in done.stdout


def test_what_is_said_in_one_breath_with_being_settled_is_heard(tmp_path: Path) -> None:
    """A state that came just behind was dropped, and the end seemed to be another than Central's:
    once in 600 folders."""
    ours, theirs = socket.socketpair()
    theirs.sendall(
        b'{"kind":"settled"}\n'
        b'{"kind":"seen","sequence":1,"rows":{"P-001":{"productId":"P-001","version":2}}}\n'
    )
    chain = Chain(tmp_path, seed=1)

    with ours, theirs:
        assert chain._until(Running(0, Hearing(ours), ours), None, 1)
    assert {"P-001"} == chain.judge.rows.keys()
