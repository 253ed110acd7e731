"""A plugin of pytest that runs each test without the safeguard that the table names it for."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.removals.table import TABLE

REMOVED = "REMOVED_SAFEGUARDS"
"""The environment's name for a JSON object: removals by the test that has to notice."""

REPORT = "REMOVALS_REPORT"
"""The environment's name for the file that takes what was found, by removal."""

_found: dict[str, dict[str, Any]] = {}


def _removal(item: pytest.Item) -> str:
    removals: dict[str, str] = orjson.loads(os.environ[REMOVED])
    return removals[item.nodeid.partition("[")[0]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    name = _removal(item)
    outcome = _found.setdefault(name, {"found": "", "acted": 0})
    with TABLE[name].applied() as patch:
        try:
            return (yield)
        finally:
            outcome["acted"] += patch.acted


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _found[_removal(item)]["found"]:
        pytest.skip("another case of it has noticed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        _found[_removal(item)]["found"] = str(crash.message if crash else report.longrepr)
    return report


def pytest_sessionfinish() -> None:
    Path(os.environ[REPORT]).write_bytes(orjson.dumps(_found))
