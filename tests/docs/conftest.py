"""Fixtures of other folders, for the examples of the pages."""

from tests.unit.api.conftest import open_store
from tests.unit.central_stub.conftest import asker

__all__ = ["asker", "open_store"]
