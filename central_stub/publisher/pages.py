"""Read a page of Central's feed, keeping each event as the bytes that Central sent.

Decoding and encoding an event again would change numbers that no double holds, and with them the
event's fingerprint in the stores.

Pure: text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Any

_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = JSONDecoder()


class UnreadablePage(ValueError):
    """The answer is no page of a feed; the message says why."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of the feed.

    `events`: the bytes of each event by its offset; those without one are left out. `leads_to`:
    the next offset as Central says, or None. `has_more`: whether Central says that more follow.
    """

    events: dict[int, bytes] = field(default_factory=dict)
    leads_to: int | None = None
    has_more: bool | None = None
    generation: str | None = None


def read_page(body: bytes, generation: str | None) -> FeedPage:
    """Read a page; `generation` is the one in the header. Raises UnreadablePage."""
    try:
        text = body.decode()
        members = dict(_members(text))
    except (UnicodeDecodeError, JSONDecodeError, RecursionError) as error:
        raise UnreadablePage(f"the page of events is not JSON: {error}") from error
    events = members.get("events") or {}
    if not isinstance(events, dict):
        raise UnreadablePage("the page of events holds no list of events")
    named = generation or members.get("generation")
    return FeedPage(
        events,
        _whole(members.get("nextOffset", members.get("next_offset"))),
        _flag(members.get("hasMore", members.get("has_more"))),
        str(named) if named else None,
    )


def _members(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of an object; a list named `events` as a dict of slices by offset."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise UnreadablePage("the page of events is no object")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        _expect(text, at, ":")
        at = _skip(text, at + 1)
        value: Any
        if name == "events" and text[at : at + 1] == "[":
            value, at = _slices(text, at)
        else:
            value, at = _DECODER.raw_decode(text, at)
        yield name, value
        at = _after(text, at, "}")


def _slices(text: str, at: int) -> tuple[dict[int, bytes], int]:
    """Return the events of the list that begins at `at`, and where it ends."""
    slices: dict[int, bytes] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        value, end = _DECODER.raw_decode(text, at)
        offset = _whole(value.get("offset")) if isinstance(value, dict) else None
        if offset is not None:
            slices[offset] = text[at:end].encode()
        at = _after(text, end, "]")
    return slices, at + 1


def _after(text: str, at: int, closing: str) -> int:
    """Return where the next value begins, or the closing bracket is."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        return at
    _expect(text, at, ",")
    return _skip(text, at + 1)


def _expect(text: str, at: int, character: str) -> None:
    if text[at : at + 1] != character:
        raise JSONDecodeError(f"expected {character!r}", text, at)


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
