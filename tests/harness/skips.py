"""Where nothing may be skipped: under continuous integration (`CI=true`).

A test that needs a program is skipped on a machine without it. `.ci/run` installs these programs,
so there a skipped test is a mistake in that script, and fails. Only the real data is nowhere but
beside the project.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.harness.real_data import MISSING


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A hook of pytest: turn a skip into a failure."""
    report = yield
    if os.environ.get("CI") and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if MISSING not in reason:
            report.outcome = "failed"
            report.longrepr = f"{reason}; under CI nothing is skipped: see .ci/run"
    return report
