"""The last changes of all products, a chain for each product, in little memory.

An entry is packed bytes, about a hundred of them, with the number of the entry before of the same
product. The oldest entries are overwritten, which ends the chains that lead to them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from store_cache.catalogue.observer import ChangeSource

_SOURCES = tuple(ChangeSource)
_ENTRY = struct.Struct("<QqqqqdBB")
_NONE = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One change as it was seen.

    `version` and `available` are None if the product was deleted; its version may be known.
    `delta`: by how much this one change moved the stock; None if that is not known. `at`: unix
    seconds. `offset`: of the event that told it, None if none did so far. `is_gap`: there were
    changes before it that were not seen. `key`: the idempotency key if this shop's write caused it.
    """

    version: int | None
    available: int | None
    delta: int | None
    at: float
    source: ChangeSource
    offset: int | None = None
    is_gap: bool = False
    key: str | None = None


class Entries:
    """At most `limit` entries, numbered from 1 on."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        self._packed: list[bytes] = []
        self._ids: list[str] = []  # of the products, by place
        self._last: dict[str, int] = {}  # the number of each product's newest entry
        self._count = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._packed)

    @property
    def has_forgotten(self) -> bool:
        """Whether entries were overwritten."""
        return self._count > self._limit

    def add(self, product_id: str, entry: Entry) -> None:
        self._count += 1
        number, place = self._count, self._place(self._count)
        before = self._last.get(product_id, 0)
        packed = _pack(before, entry)
        if place == len(self._packed):
            self._packed.append(packed)
            self._ids.append(product_id)
        else:
            forgotten = self._ids[place]
            if self._last.get(forgotten) == number - self._limit:
                del self._last[forgotten]
            self._packed[place], self._ids[place] = packed, product_id
        self._last[product_id] = number

    def newest_first(self, product_id: str) -> Iterator[tuple[int, Entry]]:
        """Return the product's entries that are kept, with their numbers."""
        number = self._last.get(product_id, 0)
        while number > max(0, self._count - self._limit):
            before, entry = _unpack(self._packed[self._place(number)])
            yield number, entry
            number = before

    def is_whole(self, product_id: str) -> bool:
        """Return whether no entry of the product can have been overwritten."""
        if not self.has_forgotten:
            return True
        number, before = self._last.get(product_id, 0), 0
        while number > self._count - self._limit:
            before, _ = _unpack(self._packed[self._place(number)])
            if before == 0:
                return number <= self._limit
            number = before
        return False

    def replace(self, number: int, entry: Entry) -> None:
        """Put an entry in place of the one with this number, which is kept."""
        place = self._place(number)
        before, _ = _unpack(self._packed[place])
        self._packed[place] = _pack(before, entry)

    def _place(self, number: int) -> int:
        return (number - 1) % self._limit


def _pack(before: int, entry: Entry) -> bytes:
    numbers = (entry.version, entry.available, entry.offset)
    version, available, offset = (_NONE if number is None else number for number in numbers)
    source = _SOURCES.index(entry.source)
    # Bit 0: a gap; bit 1: the delta is known.
    flags = entry.is_gap | (entry.delta is not None) << 1
    delta = entry.delta or 0
    head = _ENTRY.pack(before, version, available, delta, offset, entry.at, source, flags)
    return head if entry.key is None else head + entry.key.encode()


def _unpack(packed: bytes) -> tuple[int, Entry]:
    before, version, available, delta, offset, at, source, flags = _ENTRY.unpack_from(packed)
    key = packed[_ENTRY.size :].decode()
    return before, Entry(
        None if version == _NONE else version,
        None if available == _NONE else available,
        delta if flags & 2 else None,
        at,
        _SOURCES[source],
        None if offset == _NONE else offset,
        bool(flags & 1),
        key or None,
    )
