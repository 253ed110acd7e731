"""Fixtures of other folders, for stores of three products."""

from tests.unit.api.conftest import open_store

__all__ = ["open_store"]
