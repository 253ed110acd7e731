"""Fixtures of other folders, for the examples of the pages."""

import pytest

from central_stub.switches import Switches
from tests.unit.api.conftest import open_store
from tests.unit.central_stub.asker import Asker

__all__ = ["asker", "open_store"]


@pytest.fixture
def asker() -> Asker:
    """A Central in memory, without products."""
    return Asker(Switches())
