"""A part of the campaign of slow and silent clients."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_others_are_served_beside_slow_and_silent_clients(project_root: Path) -> None:
    """Eighty slow and 160 silent ones hold nobody up, and leave no descriptor behind."""
    command = (sys.executable, "-m", "tests.campaigns.slow_clients")
    limits = ("--slow", "80", "--silent", "160", "--seconds", "2", "--limit-ms", "50")
    done = subprocess.run(
        [*command, *limits], cwd=project_root, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
