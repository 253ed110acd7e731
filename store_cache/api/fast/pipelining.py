"""Whose turn it is on a connection: whether all that aiohttp was given is answered.

Knows: where a plain request ends. Refuses to know: what it asks.
A connection on which it lost count stays aiohttp's to its end; that costs speed and nothing else.
"""

from __future__ import annotations

import re

_HEAD = re.compile(
    rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) [!-~]+ HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ -~]*\r\n)+)\r\n"
)
# These say where a request ends in other ways than by a plain number.
_STRANGE = re.compile(rb"(?im)^(?:transfer-encoding|upgrade|trailer|te):|^connection:.*upgrade")
_LENGTH = re.compile(rb"(?im)^content-length:(.*)\r$")
_PLAIN_NUMBER = re.compile(rb" ?[0-9]{1,7}")


class Turns:
    """`is_ours`: aiohttp has no request of this connection in hand, nor any part of one."""

    __slots__ = ("_left", "is_ours")

    def __init__(self) -> None:
        self.is_ours = True
        self._left: int | None = 0  # bytes still to come of what aiohttp has; None: lost count

    def hand_over(self, data: bytes) -> None:
        """Aiohttp is given these bytes."""
        if self.is_ours:
            self.is_ours = False
            self._left = _left_of(data)
        elif self._left is not None:
            more = self._left - len(data)
            self._left = more if more >= 0 else None

    def note_answer(self, *, is_kept: bool) -> None:
        """Aiohttp has written the answer to one request, and keeps the connection or not."""
        self.is_ours = is_kept and self._left == 0

    def close(self) -> None:
        """Nothing that comes now is to be answered."""
        self.is_ours = False
        self._left = None


def _left_of(data: bytes) -> int | None:
    """How much of a body is missing of the one request that this begins; None if that is not
    certain, or if there is more than one."""
    head = _HEAD.match(data)
    if head is None or _STRANGE.search(head[1]):
        return None
    lengths = _LENGTH.findall(head[1])
    if not lengths:
        length = 0
    elif len(lengths) == 1 and _PLAIN_NUMBER.fullmatch(lengths[0]):
        length = int(lengths[0])
    else:
        return None
    left = length - (len(data) - head.end())
    return left if left >= 0 else None
