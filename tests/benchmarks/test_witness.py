"""Witnesses see a change once, and as late as it was."""

from typing import Any

import pytest

from benchmarks import witness
from benchmarks.witness import read_newer


class SlowShelf:
    """A store in which a product's later moments appear after so many reads of it."""

    def __init__(self, *stamps: float) -> None:
        self.stamps = list(stamps)
        self.paths: list[str] = []

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        self.paths.append(f"{method} {path}")
        stamp = self.stamps.pop(0)
        return {witness.STAMP: stamp} if stamp else {}


def test_a_product_is_read_until_it_carries_a_later_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a row without one nor that of the round before ends the waiting."""
    monkeypatch.setattr(witness, "READ_PAUSE_SECONDS", 0)
    shelf = SlowShelf(0.0, 10.0, 10.0, 12.5)

    assert 12.5 == read_newer(shelf, 3, than=10.0)
    assert ["GET /v1/store/inventory/PROD-0000003"] * 4 == shelf.paths
