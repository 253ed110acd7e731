"""Fixtures of other folders, for commands that call a store."""

from tests.unit.api.conftest import open_store

__all__ = ["open_store"]
