"""Scenarios run in virtual time, on real files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from store_cache.storage import directory
from tests.harness.store import ExecutorFileThread
from tests.harness.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], VirtualLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def _files_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread of a file may be at work while time jumps."""
    monkeypatch.setattr(directory, "FileThread", ExecutorFileThread)
