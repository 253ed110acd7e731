"""Whether aiohttp has unanswered bytes on a connection, so that no answer overtakes another.

The guard follows plain requests, each sent after the answer to the one before. Once it loses count,
the connection stays aiohttp's until it closes; that costs speed and nothing else.
"""

from __future__ import annotations

import re

_HEAD = re.compile(
    rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) [!-~]+ HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ -~]*\r\n)+)\r\n"
)
# Fields that end a request in another way than by a content length.
_OTHER_FRAMING = re.compile(
    rb"(?im)^(?:transfer-encoding|upgrade|trailer|te):|^connection:.*upgrade"
)
_LENGTH = re.compile(rb"(?im)^content-length:(.*)\r$")
_PLAIN_NUMBER = re.compile(rb" ?[0-9]{1,7}")


class PipeliningGuard:
    """`is_clear`: aiohttp has no request of this connection to answer, nor a part of one."""

    __slots__ = ("_missing", "is_clear")

    def __init__(self) -> None:
        self.is_clear = True
        self._missing: int | None = 0  # bytes of aiohttp's request still to come; None: unknown

    def hand_over(self, data: bytes) -> None:
        """Note that aiohttp is given these bytes."""
        if self.is_clear:
            self.is_clear = False
            self._missing = _missing_after(data)
        elif self._missing is not None:
            missing = self._missing - len(data)
            self._missing = missing if missing >= 0 else None

    def note_answer(self, *, is_kept: bool) -> None:
        """Note that aiohttp has answered one request, and whether it keeps the connection."""
        self.is_clear = is_kept and self._missing == 0

    def close(self) -> None:
        """Note that aiohttp closes the connection: nothing more is to be answered."""
        self.is_clear = False
        self._missing = None


def _missing_after(data: bytes) -> int | None:
    """Return how many bytes are missing of the one request that `data` begins.

    None if that is not certain, or if there is more than one request.
    """
    head = _HEAD.match(data)
    if head is None or _OTHER_FRAMING.search(head[1]):
        return None
    lengths = _LENGTH.findall(head[1])
    if not lengths:
        length = 0
    elif len(lengths) == 1 and _PLAIN_NUMBER.fullmatch(lengths[0]):
        length = int(lengths[0])
    else:
        return None
    missing = length - (len(data) - head.end())
    return missing if missing >= 0 else None
