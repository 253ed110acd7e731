"""The log messages that operators search for stay as they are."""

from __future__ import annotations

import pytest

from tests.golden import compare
from tests.golden.log_lines import RECORDINGS

EVENTS = (
    "full sync: begins",
    "products in place after",
    "full sync: failed",
    "event sync: Central",
    "falling back",
    "Central is back",
    "was set aside",
    "sync status: ",
)
"""The main ones of docs/operations.md."""


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_lines_of_an_outage_are_as_recorded(name: str) -> None:
    """[B6] Each with its level, in order."""
    compare.check(name, RECORDINGS[name]())


def test_every_main_event_is_in_the_recording() -> None:
    """[B6] None of them is missing."""
    lines = [line for step in compare.recorded("log_lines.json").values() for line in step]

    assert [] == [event for event in EVENTS if not any(event in line for line in lines)]
