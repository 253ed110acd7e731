"""Whether a client holds an answer already, by its `If-None-Match` (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST_LIST = 8_000  # characters: some three hundred tags

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\U0010ffff]*")')
_LIST = re.compile(rf"[\s,]*{_TAG.pattern}(?:\s*,[\s,]*{_TAG.pattern})*[\s,]*")


def matches(values: Sequence[str], tag: str) -> bool:
    """Return whether the `If-None-Match` lines name the tag, by the weak comparison.

    A malformed header counts as absent, and so does a very long one, since sending the whole answer
    is never wrong.
    """
    if not values:
        return False
    joined = ",".join(values)
    if len(joined) > _LONGEST_LIST:
        return False
    if joined.strip() == "*":
        return True
    if not _LIST.fullmatch(joined):
        return False
    return tag.removeprefix("W/") in _TAG.findall(joined)
