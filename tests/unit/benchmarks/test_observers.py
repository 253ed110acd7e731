"""Observers see each change once, with its true latency."""

from typing import Any

import pytest

from benchmarks.harness import observers
from benchmarks.harness.observers import read_newer


class SlowShelf:
    """A store whose pages show, read by read, these moments."""

    def __init__(self, *pages: list[float]) -> None:
        self.pages = list(pages)
        self.paths: list[str] = []

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        self.paths.append(f"{method} {path}")
        stamps = self.pages.pop(0)
        return {"products": [{observers.STAMP: stamp} if stamp else {} for stamp in stamps]}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "READ_PAUSE_SECONDS", 0)


def test_a_page_is_read_until_its_first_product_carries_a_later_moment() -> None:
    """Neither a row without one nor that of an earlier change ends the waiting."""
    shelf = SlowShelf([0.0, 0.0], [10.0, 0.0], [12.5, 0.0])

    assert [12.5] == read_newer(shelf, 3, than=10.0)
    assert ["GET /v1/store/inventory?offset=3&limit=20"] * 3 == shelf.paths


def test_changes_that_are_seen_at_once_count_each() -> None:
    """Up to the first product that has not changed since: its change is still to come."""
    shelf = SlowShelf([12.0, 12.5, 11.0, 13.0])

    assert [12.0, 12.5] == read_newer(shelf, 0, than=10.0)


def test_the_last_products_are_followed_by_the_first() -> None:
    """A page ends where the changed products end."""
    shelf = SlowShelf([12.0])

    assert [12.0] == read_newer(shelf, observers.PRODUCTS - 1, than=10.0)
    assert [f"GET /v1/store/inventory?offset={observers.PRODUCTS - 1}&limit=1"] == shelf.paths
