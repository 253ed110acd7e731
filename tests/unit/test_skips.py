"""Tests that continuous integration would skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_without_a_program():
    pytest.skip("fish is not installed")

@pytest.mark.skipif(True, reason="no promtool")
def test_marked():
    pass

def test_without_data():
    pytest.skip("the real data is not there: x.jsonl")
"""


@pytest.mark.parametrize(
    ("is_ci", "told"), [(True, "1 failed, 1 skipped, 1 error"), (False, "3 skipped")]
)
def test_what_ci_skips_fails(is_ci: bool, told: str, project_root: Path, tmp_path: Path) -> None:
    """With the reason, and where to mend it; the real data may be missing there too."""
    (tmp_path / "test_some.py").write_text(TESTS)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "tests.harness.skips", "-o", "addopts=")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path / "test_some.py"],
        cwd=project_root,
        env=environment | ({"CI": "true"} if is_ci else {}),
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"{told} in" in done.stdout
    assert (
        "fish is not installed; under CI nothing is skipped: see .ci/run" in done.stdout
    ) == is_ci
