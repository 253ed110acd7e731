"""The real catalogues that lie beside the repository, where they do; nothing of them is copied."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

_ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("REAL_DATA", _ROOT.parent / "shared" / "data"))
MISSING = "the real data is not there"
"""Begins the reason of each test that is skipped for it."""
CATALOGUES = ("catalogue", "products_barcode")


def real_catalogue(name: str) -> list[dict[str, Any]]:
    """Return the products of a catalogue; skip the test if it is not there."""
    path = FOLDER / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{MISSING}: {path.name}; REAL_DATA names its folder")
    with gzip.open(path, "rb") as lines:
        return [orjson.loads(line) for line in lines]
