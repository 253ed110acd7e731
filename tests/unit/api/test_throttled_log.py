"""Warnings that come at most once a minute."""

import asyncio
import logging

import pytest

from store_cache.api.throttled_log import ThrottledWarning
from tests.harness.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_minute_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The first event is logged at once; the next line counts all events since then."""
    warning = ThrottledWarning(logging.getLogger("store_cache"), "too loud", counted_as="times")
    for second in range(62):
        warning.note(second=second)
        await asyncio.sleep(1.0)

    assert [("too loud", 0, 1), ("too loud", 60, 60)] == [
        (line.message, line.__dict__["second"], line.__dict__["times"]) for line in caplog.records
    ]
