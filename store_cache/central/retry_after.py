"""Read from an answer's headers how long Central asks to wait.

`Retry-After` is a number of seconds or a date; `X-RateLimit-Reset` a number of seconds, or a moment
in unix seconds or milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 300.0
"""Longer waits are cut to this: a clock that is wrong by hours must not stop the store."""

_EARLIEST_MOMENT = 1e9
_EARLIEST_MOMENT_IN_MILLISECONDS = 1e12
_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait in seconds, above 0 and at most `LONGEST_SECONDS`, or None.

    Moments are compared with the answer's `Date`, since a shop's clock may be wrong; without
    `Date`, with `now` (unix seconds).
    """
    seconds = _retry_after(headers.get("Retry-After", ""), _reference(headers, now))
    if seconds is None:
        seconds = read_reset(headers, "X-RateLimit-Reset", now)
    return None if seconds is None or seconds <= 0 else min(seconds, LONGEST_SECONDS)


def _retry_after(text: str, reference: float) -> float | None:
    if (number := _number(text)) is not None:
        return number
    moment = _moment(text)
    return None if moment is None else moment - reference


def read_reset(headers: Mapping[str, str], name: str, now: float) -> float | None:
    """Return the seconds until the reset that the header `name` gives, or None."""
    number = _number(headers.get(name, ""))
    if number is None or number < _EARLIEST_MOMENT:
        return number
    moment = number / 1000 if number >= _EARLIEST_MOMENT_IN_MILLISECONDS else number
    return moment - _reference(headers, now)


def _reference(headers: Mapping[str, str], now: float) -> float:
    sent_at = _moment(headers.get("Date", ""))
    return now if sent_at is None else sent_at


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _moment(text: str) -> float | None:
    """Return the unix seconds of an HTTP date, or None if `text` is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
