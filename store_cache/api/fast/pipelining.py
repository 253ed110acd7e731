"""Whether aiohttp has unanswered bytes on a connection, so that no answer overtakes another.

The guard follows plain requests, each sent after the answer to the one before. Once it loses count,
the connection stays aiohttp's until it closes; that costs speed and nothing else.
"""

from __future__ import annotations

import re

_HEAD = re.compile(
    rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) [!-~]+ HTTP/1\.1\r\n"
    rb"(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n"
)
# Fields that say where a request ends, or what follows it.
_FRAMING = re.compile(
    rb"\n((?i:content-length|transfer-encoding|trailer|te|connection|upgrade)):([^\r]*)"
)
_PLAIN_NUMBER = re.compile(rb" ?[0-9]{1,7}")


class PipeliningGuard:
    """`is_clear`: aiohttp has no request of this connection to answer, nor a part of one."""

    __slots__ = ("_asks_upgrade", "_missing", "is_clear")

    def __init__(self) -> None:
        self.is_clear = True
        self._missing: int | None = 0  # bytes of aiohttp's request still to come; None: unknown
        self._asks_upgrade = False

    @property
    def is_certain(self) -> bool:
        """Whether aiohttp was given exactly one request, which is the one to answer next."""
        return self._missing == 0

    def hand_over(self, data: bytes) -> int:
        """Note that aiohttp is given these bytes; return how many of them it may have now.

        aiohttp drops what it is given together with the end of a request for an upgrade that it
        does not support. What follows such a request has to wait for its answer.
        """
        if self.is_clear:
            self.is_clear = False
            self._missing, self._asks_upgrade = _missing_after(data)
        elif self._missing is not None:
            self._missing -= len(data)
        if self._missing is None or self._missing >= 0:
            return len(data)
        own = len(data) + self._missing
        self._missing = 0 if self._asks_upgrade else None
        return own if self._asks_upgrade else len(data)

    def note_answer(self, *, is_kept: bool) -> None:
        """Note that aiohttp has answered one request, and whether it keeps the connection."""
        self.is_clear = is_kept and self._missing == 0
        if self._missing:  # it was answered before it had arrived whole
            self._missing = None

    def close(self) -> None:
        """Note that aiohttp closes the connection: nothing more is to be answered."""
        self.is_clear = False
        self._missing = None


def _missing_after(data: bytes) -> tuple[int | None, bool]:
    """Return how many bytes are missing of the request that `data` begins, and whether it asks for
    an upgrade.

    The number is negative if other bytes follow, and None if it is not certain.
    """
    head = _HEAD.match(data)
    if head is None:
        return None, False
    lengths: list[bytes] = []
    asks_upgrade = False
    for name, value in _FRAMING.findall(head[0]):
        match name.lower():
            case b"content-length":
                lengths.append(value)
            case b"upgrade":
                asks_upgrade = True
            case b"connection":
                asks_upgrade |= b"upgrade" in value.lower()
            case _:
                return None, False
    if len(lengths) > 1 or not all(map(_PLAIN_NUMBER.fullmatch, lengths)):
        return None, False
    missing = sum(map(int, lengths)) - (len(data) - head.end())
    return missing, asks_upgrade
