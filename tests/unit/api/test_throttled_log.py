"""Warnings that come at most once a minute."""

import asyncio
import logging

import pytest

from store_cache.api.throttled_log import MOST_LINES, SampledLog, ThrottledWarning
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


@in_virtual_time
async def test_the_first_lines_of_each_kind_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The others are counted, and their number is logged at the end of the minute."""
    caplog.set_level(logging.INFO)
    sampled = SampledLog(logging.getLogger("store_cache"), "refused")
    for number in range(1000):
        sampled.note(logging.INFO, {"number": number}, status=401)
    sampled.note(logging.INFO, {"number": 0}, status=404)
    lines = len(caplog.records)
    await asyncio.sleep(61.0)
    left_out = caplog.records[lines:]
    sampled.note(logging.INFO, {"number": 7}, status=401)

    assert MOST_LINES + 1 == lines
    assert [(401, 1000 - MOST_LINES)] == [
        (line.__dict__["status"], line.__dict__["leftOut"]) for line in left_out
    ]
    assert "refused" == caplog.records[-1].message
