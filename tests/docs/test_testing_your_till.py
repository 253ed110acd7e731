"""docs/testing-your-till.md: its blocks run as they are, pasted one after the other, and its suite
passes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks
from tests.harness.processes import free_port

SECONDS = 60.0
SHOWN_PORTS = ("8081", "8083")


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="no bash or curl")
def test_every_block_can_be_pasted(tmp_path: Path) -> None:
    """In one shell, in the folder of the project: each sale is applied once, and both programs
    end. Only ports and the timeout of writes differ, so that the test disturbs nobody."""
    programs = Path(sys.executable).parent
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(programs)
    (tmp_path / "store_cache").symlink_to(ROOT / "store_cache")
    script = "".join(blocks(DOCS / "testing-your-till.md", "sh"))
    central, store = str(free_port()), str(free_port())
    for shown, port in zip(SHOWN_PORTS, (central, store), strict=True):
        script = script.replace(f"localhost:{shown}", f"127.0.0.1:{port}")
    script = script.replace(" load ", f" load --url http://127.0.0.1:{central} ")
    settings = {
        "CENTRAL_STUB_PORT": central,
        "PORT": store,
        "HOST": "127.0.0.1",
        "CENTRAL_API_URL": f"http://127.0.0.1:{central}",
        "WRITE_TIMEOUT_SECONDS": "1",
        "no_proxy": "*",
    }
    ran = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    assert ["39", "38", "37"] == re.findall(r'"newQuantity":(\d+)', ran.stdout)
    assert re.findall(r'"code":"central_(?:timeout|unavailable)"', ran.stdout)
    assert 37 == int(re.findall(r'"available": ?(\d+)', ran.stdout)[-1])


def test_the_suite_of_the_page_passes(tmp_path: Path) -> None:
    """In a folder of its own, with nothing but the plugin that the entry point names."""
    suite, script = blocks(DOCS / "testing-your-till.md", "python")
    (tmp_path / "test_till.py").write_text(suite)
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": "", "no_proxy": "*"}
    for command in (
        [*["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_till.py"]],
        ["script.py"],
    ):
        ran = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert 0 == ran.returncode, ran.stdout + ran.stderr
