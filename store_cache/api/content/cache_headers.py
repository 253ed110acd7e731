"""The headers that say how fresh an answer is, and `If-None-Match` (RFC 9110, 9111, 9211).

`Cache-Control: private, no-cache`: a browser may keep an answer and must revalidate it before each
use, because stock is sold meanwhile. Revalidation is cheap: a 304 has no body. `private`, because
the answer was given to the holder of a key: no proxy may give it to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from store_cache.api.content.freshness import Freshness, header_age

EXPOSED = (
    "X-Cache-Offset",
    "X-Cache-Generation",
    "Age",
    "Cache-Status",
    "ETag",
)
"""The headers that scripts of other origins may read too."""

_LONGEST_LIST = 8_000  # characters: some three hundred tags

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\U0010ffff]*")')
_LIST = re.compile(rf"[\s,]*{_TAG.pattern}(?:\s*,[\s,]*{_TAG.pattern})*[\s,]*")


def freshness_headers(freshness: Freshness) -> dict[str, str]:
    headers = {
        "Cache-Control": "private, no-cache",
        "X-Cache-Offset": str(freshness.last_offset),
        "Age": str(header_age(freshness.age_seconds)),
        "Cache-Status": _cache_status(freshness),
    }
    if freshness.generation is not None:
        # Central chooses this text: percent-encode what could end the header line.
        headers["X-Cache-Generation"] = quote(freshness.generation, safe="!#$&'()*+,/:;=?@[]|~^`{}")
    return headers


def matches(values: Iterable[str], tag: str) -> bool:
    """Return whether the `If-None-Match` lines name the tag, by the weak comparison.

    A malformed header counts as absent, and so does a very long one, since sending the whole answer
    is never wrong.
    """
    joined = ",".join(values)
    if len(joined) > _LONGEST_LIST:
        return False
    if joined.strip() == "*":
        return True
    if not _LIST.fullmatch(joined):
        return False
    return tag.removeprefix("W/") in _TAG.findall(joined)


def _cache_status(freshness: Freshness) -> str:
    """`detail` is one token (RFC 9211, 2.8), so two words are joined by a slash."""
    words = []
    if freshness.is_stale:
        words.append("stale")
    if not freshness.is_durable:
        words.append("not-durable")
    return f"store-cache; hit; detail={'/'.join(words)}" if words else "store-cache; hit"
