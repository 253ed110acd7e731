"""Split a long answer into the items of its list while it arrives.

An answer of Central is parsed at once if that takes a few milliseconds at most. A longer one is a
list of products or events, or an object that holds one: its items are parsed some at a time. So
neither the bytes nor the values of the whole are ever in memory, and other tasks run in between.

Pure: bytes in, values out. Nothing is awaited here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import orjson

from store_cache.central.failures import InvalidShape
from store_cache.model import exact_json
from store_cache.model.event import LargeItem

WHOLE_BYTES = 512 * 1024
"""The longest list that is parsed at once: a page of 1,000 products has 170 kB."""

MOST_EXACT_BYTES = 128 * 1024
MOST_CONTAINERS = 20_000
MOST_VALUES = 60_000
"""More objects and lists, or values, take long to make, and many times the memory of their text.
Numbers that need the slow parser (`exact_json`) do so in a shorter text."""

ITEM_BYTES = 96 * 1024
"""A longer item is not parsed. A row has at most 64 KiB; the rest is for what surrounds it."""

ITEMS_AT_ONCE = 500
"""Items handed on before other tasks may run: about a millisecond."""

OUTLINE_BYTES = 64 * 1024
"""The most that may stand beside the list."""

_SCAN_BYTES = 32 * 1024
_SCAN_STEPS = 2000
"""What is scanned of a large item before other tasks may run: some milliseconds at most."""

_MOST_LEVELS = 1024
"""The parser refuses what is nested deeper."""

_SHORT_TEXT_BYTES = 4096
"""A text in a large item that is kept, so that the item can be named."""

_KEPT_BYTES = 64 * 1024

_NOTHING: tuple[list[Any], int] = ([], 0)
_QUOTE = ord('"')

_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'(?:[^"{}\[\]]++|%s)*+' % _TEXT


def _nested(levels: int) -> bytes:
    """Return the pattern of an object or list of at most so many levels. It never goes back, so it
    takes time in proportion to the text. What is no JSON may match; the parser refuses it."""
    inside = b"" if levels == 1 else rb"(?:%s%s)*+" % (_nested(levels - 1), _FLAT)
    return rb"[{\[]%s%s[}\]]" % (_FLAT, inside)


_NESTED = _nested(8)
_VALUE = rb'\s*+(?:%s|%s|[^"{}\[\],\s]++)\s*+' % (_NESTED, _TEXT)

_ITEMS = re.compile(rb"(?:%s,){1,%d}+" % (_VALUE, ITEMS_AT_ONCE), re.DOTALL)
_LAST = re.compile(rb"(?:(%s)|\s*+)\]" % _VALUE, re.DOTALL)
_SHALLOW = re.compile(rb'(?:[^"{}\[\],]++|%s)*+' % _TEXT, re.DOTALL)
_MEMBERS = re.compile(_FLAT, re.DOTALL)
_INSIDE = re.compile(rb'(?:[^"{}\[\]]++|%s|%s)*+' % (_TEXT, _NESTED), re.DOTALL)
_RUNS = (_SHALLOW, _MEMBERS, _INSIDE)
"""What holds no end of a large item, by how deep inside it is."""

_REST_OF_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def is_parsed_at_once(
    body: bytes | bytearray, most_values: int = MOST_VALUES, *, keeps_digits: bool = True
) -> bool:
    """Return whether parsing this takes little time and memory, whatever it holds. `keeps_digits`:
    numbers beyond 64 bits are to keep them."""
    if body.count(b"{") + body.count(b"[") > MOST_CONTAINERS or body.count(b",") > most_values:
        return False
    if not keeps_digits or len(body) <= MOST_EXACT_BYTES:
        return True
    return not exact_json.has_long_run(body)


class ListSplitter:
    """Split an answer whose list has one of `names`, or which is a list itself.

    `feed` what arrives, and `take` values until it returns None. After the last byte call `end`,
    and take what is left; `outline` is then the answer with an empty list.

    Every call takes some milliseconds at most. Raises InvalidShape.
    """

    def __init__(self, names: Collection[str]) -> None:
        named = b"|".join(re.escape(name.encode()) for name in names)
        list_begins = rb'\s*+"(?:%s)"\s*+:\s*+\[' % named
        before = rb"(?:(?!%s)\s*+%s\s*+:%s,)*+" % (list_begins, _TEXT, _VALUE)
        self._head = re.compile(rb"\s*+(?:\[|\{%s%s)" % (before, list_begins), re.DOTALL)
        self._buffer = bytearray()
        self._outline = bytearray()
        self._has_begun = False
        self._has_items = False
        self._list_ended = False
        self._answer_ended = False
        self._large: _LargeItemScan | None = None

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer += data

    def end(self) -> None:
        """All of the answer has been fed."""
        self._answer_ended = True

    @property
    def outline(self) -> bytes:
        """The answer with an empty list."""
        if not self._list_ended:
            raise InvalidShape("it is not JSON")
        return bytes(self._outline + self._buffer)

    def take(self) -> tuple[list[Any], int] | None:
        """Return the next items, of which there may be none, and the bytes of their text; None if
        more of the answer must be fed."""
        buffer = self._buffer
        if self._list_ended:
            if len(self._outline) + len(buffer) > OUTLINE_BYTES:
                raise InvalidShape(f"it holds more than {OUTLINE_BYTES} bytes beside its list")
            return None
        if not self._has_begun:
            return self._begin() if len(buffer) >= OUTLINE_BYTES or self._answer_ended else None
        if self._large is not None:
            return self._scan(self._large)
        # Only once there is enough: what arrives byte by byte would be looked at again and again.
        if len(buffer) < ITEM_BYTES and not self._answer_ended:
            return None
        if (items := _ITEMS.match(buffer, 0, ITEM_BYTES)) is not None:
            self._has_items = True
            return self._parsed(items.end(), items.end() - 1)
        if (last := _LAST.match(buffer, 0, ITEM_BYTES)) is not None:
            if last[1] is None and self._has_items:
                raise InvalidShape("it is not JSON")  # nothing follows a comma
            return self._end_list(last.end(), b"" if last[1] is None else last[1])
        self._large = _LargeItemScan()
        return _NOTHING

    def _begin(self) -> tuple[list[Any], int]:
        head = self._head.match(self._buffer, 0, OUTLINE_BYTES)
        if head is None:
            raise InvalidShape(f"no list begins in its first {OUTLINE_BYTES} bytes")
        self._outline += head[0]
        self._has_begun = True
        self._drop(head.end())
        return _NOTHING

    def _parsed(self, end: int, until: int) -> tuple[list[Any], int]:
        """Parse the items before `until`, and drop what is before `end`."""
        text = b"[" + self._buffer[:until] + b"]"
        self._drop(end)
        return _parse(text), until

    def _end_list(self, end: int, last: bytes) -> tuple[list[Any], int]:
        self._drop(end)
        self._list_ended = True
        self._outline += b"]"
        return _parse(b"[" + last + b"]"), len(last)

    def _scan(self, large: _LargeItemScan) -> tuple[list[Any], int] | None:
        """Go on with an item that is large, or nested deep."""
        used = large.step(self._buffer)
        self._drop(used)
        if not large.has_ended:
            if used:
                return _NOTHING
            if self._answer_ended:
                raise InvalidShape("it is not JSON")
            return None
        self._large = None
        self._has_items = True
        if self._buffer[:1] == b"]":
            self._end_list(1, b"")
        else:
            self._drop(1)
        return [large.value()], large.size

    def _drop(self, count: int) -> None:
        del self._buffer[:count]


class _LargeItemScan:
    """Find the end of one item, however long and deep it is.

    It is kept as long as it may be parsed; of a longer one the short members of the object itself.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self.size = 0
        """The bytes of the text so far."""
        self._depth = 0
        self._in_text = False
        self._whole: bytearray | None = bytearray()
        self._kept = bytearray()

    def step(self, data: bytearray) -> int:
        """Scan from the beginning of `data`; return how many bytes are done with.

        `has_ended` tells whether the comma or bracket after the item comes next. Nothing is done
        with if more data is needed.
        """
        position, end = 0, min(len(data), _SCAN_BYTES)
        for _ in range(_SCAN_STEPS):
            passed = self._pass(data, position, end)
            if passed == position:
                break
            self._keep(data[position:passed])
            position = passed
        return position

    def value(self) -> Any:
        """Return the parsed item, or a LargeItem."""
        if self._whole is not None:
            values = _parse(b"[" + self._whole + b"]")
            if len(values) != 1:
                raise InvalidShape("it is not JSON")
            return values[0]
        try:
            members = orjson.loads(self._kept)
        except orjson.JSONDecodeError:
            members = None
        return LargeItem(members if isinstance(members, dict) else {})

    def _pass(self, data: bytearray, position: int, end: int) -> int:
        """Pass what is one run, bracket or text; return where it ends. Nothing is passed at the end
        of the data, and of the item."""
        if self._in_text:
            return self._pass_text(data, position, end)
        if (run := _match_end(_RUNS[min(self._depth, 2)], data, position, end)) > position:
            if self._depth <= 1:
                self._note(data[position:run])
            return run
        if position == end:
            return position
        if data[position] != _QUOTE:
            return self._pass_bracket(data, position)
        # A text that does not end here. A short one is looked at again, with what follows.
        if end - position < _SHORT_TEXT_BYTES:
            return position
        if self._depth <= 1:
            self._note(b"null")
        self._in_text = True
        return position + 1

    def _pass_bracket(self, data: bytearray, position: int) -> int:
        bracket = bytes(data[position : position + 1])
        if bracket in b"{[":
            self._depth += 1
            if self._depth > _MOST_LEVELS:
                raise InvalidShape("it is nested too deep")
            if self._depth <= 2:
                self._note(bracket if self._depth == 1 else b"null")
        elif self._depth == 0:
            self.has_ended = True
            return position
        else:
            self._depth -= 1
            if self._depth == 0:
                self._note(bracket)
        return position + 1

    def _pass_text(self, data: bytearray, position: int, end: int) -> int:
        stop = _match_end(_REST_OF_TEXT, data, position, end)
        if stop < end and data[stop] == _QUOTE:
            self._in_text = False
            stop += 1
        return stop

    def _keep(self, passed: bytearray) -> None:
        self.size += len(passed)
        if self._whole is not None:
            self._whole += passed
            if len(self._whole) > ITEM_BYTES:
                self._whole = None

    def _note(self, some: bytes | bytearray) -> None:
        if len(self._kept) <= _KEPT_BYTES:  # beyond, it cannot be parsed, and the item has no name
            self._kept += some


def _match_end(pattern: re.Pattern[bytes], data: bytearray, position: int, end: int) -> int:
    """Return where the match ends of a pattern that may match nothing."""
    match = pattern.match(data, position, end)
    assert match is not None
    return match.end()


def _parse(text: bytes | bytearray) -> list[Any]:
    try:
        values: list[Any] = exact_json.loads(text)
    except ValueError as error:
        raise InvalidShape("it is not JSON") from error
    return values
