"""How fresh an answer is, in headers: offset, generation, age, cache status; and If-None-Match.

Knows: RFC 9110 (If-None-Match), 9111 (Age, Cache-Control), 9211 (Cache-Status).
Refuses to know: how freshness is measured.

`Cache-Control: private, no-cache`: a browser till may keep an answer, and must ask before using
it again. Stock is sold meanwhile; the question is cheap, since a 304 has no body. `private`,
because the answer was given to a key: no proxy may give it to somebody else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from urllib.parse import quote

from store_cache.api.service import Freshness

EXPOSED = (
    "X-Cache-Offset",
    "X-Cache-Generation",
    "Age",
    "Cache-Status",
    "ETag",
)
"""The headers that scripts of other origins may read too."""

_MAX_AGE = 2**31  # RFC 9111, 1.2.2: what a value too large to tell is sent as
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\U0010ffff]*")')
_LIST = re.compile(rf"[\s,]*{_TAG.pattern}(?:\s*,[\s,]*{_TAG.pattern})*[\s,]*")


def freshness_headers(freshness: Freshness) -> dict[str, str]:
    headers = {
        "Cache-Control": "private, no-cache",
        "X-Cache-Offset": str(freshness.last_offset),
        "Age": str(whole_seconds(freshness.age_seconds)),
        "Cache-Status": _cache_status(freshness),
    }
    if freshness.generation is not None:
        headers["X-Cache-Generation"] = _header_text(freshness.generation)
    return headers


def matches(values: Iterable[str], tag: str) -> bool:
    """Whether `If-None-Match`, of all its lines, names the tag, by the weak comparison.

    A header that is malformed counts as absent: the whole answer is never wrong.
    """
    joined = ",".join(values)
    if joined.strip() == "*":
        return True
    if not _LIST.fullmatch(joined):
        return False
    return tag.removeprefix("W/") in _TAG.findall(joined)


def whole_seconds(age: float) -> int:
    """An age as headers tell it: rounded up, so that an answer is never older than it says (B5)."""
    return min(_MAX_AGE, math.ceil(max(0.0, age))) if math.isfinite(age) else _MAX_AGE


def whole_second(age: float) -> tuple[float, float]:
    """Between which ages, above the first and up to the second, headers tell the same one."""
    whole = whole_seconds(age)
    return (whole - 1.0 if whole else -math.inf), (whole if whole < _MAX_AGE else math.inf)


def _cache_status(freshness: Freshness) -> str:
    """`detail` is one token (RFC 9211, 2.8): where both words apply, staleness comes first."""
    words = [
        word
        for word, applies in (
            ("stale", freshness.is_stale),
            ("not-durable", not freshness.is_durable),
        )
        if applies
    ]
    return f"store-cache; hit; detail={'/'.join(words)}" if words else "store-cache; hit"


def _header_text(text: str) -> str:
    """The generation is Central's text: nothing in it may end the header line."""
    return quote(text, safe="!#$&'()*+,/:;=?@[]|~^`{}")
