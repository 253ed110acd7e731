"""What importing the kit costs those who do not use it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from central_stub.testing import TestCentral
from store_cache.testing import TestStore


@pytest.mark.parametrize(
    ("module", "not_needed"),
    [
        ("store_cache.pytest_plugin", "aiohttp"),
        ("store_cache.pytest_plugin", "central_stub"),
        ("store_cache.testing", "pytest"),
        ("store_cache.testing", "central_stub"),
        ("central_stub.testing", "pytest"),
        ("central_stub.testing", "store_cache"),
    ],
)
def test_a_module_needs_no_more_than_it_says(module: str, not_needed: str) -> None:
    """The plugin costs other test runs nothing; the two classes work without pytest."""
    script = f"import sys, {module}; sys.exit({not_needed!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


@pytest.mark.parametrize("kit", [TestCentral, TestStore])
def test_pytest_collects_neither_class(kit: type[Any]) -> None:
    assert kit.__test__ is False
