"""The last changes of the visible catalogue, encoded once for all readers."""

from __future__ import annotations

from collections.abc import Iterator

Entry = tuple[str, bytes]
"""A product's id and the event that tells its newest state, or that of a write to it."""


class ChangeRing:
    """Changes numbered one by one; the last `size` of them are kept.

    Only a subject's newest change is an event: an older one is dropped and leaves its number empty.
    Subjects are products, and writes to products.
    `head` is the number of the last change.
    """

    def __init__(self, size: int) -> None:
        self.head = 0
        self._size = size
        self._entries: list[tuple[str, bytes, str] | None] = [None] * size
        self._newest: dict[str, int] = {}
        self._first = 1  # the oldest number that is kept

    def holds_all_after(self, number: int) -> bool:
        """Return whether every change after `number` is here."""
        return self._first - 1 <= number <= self.head

    def add(self, product_id: str, event: bytes, *, subject: str | None = None) -> None:
        """Keep the event of change `head + 1`. Its subject is the product, or a write to it that
        `subject` names."""
        number, subject = self.head + 1, product_id if subject is None else f"write {subject}"
        place = number % self._size
        if (oldest := self._entries[place]) is not None:
            del self._newest[oldest[2]]
        if (before := self._newest.get(subject)) is not None:
            self._entries[before % self._size] = None
        self._entries[place] = (product_id, event, subject)
        self._newest[subject] = self.head = number
        self._first = max(self._first, number - self._size + 1)

    def forget(self) -> None:
        """Drop all changes; the numbers go on."""
        self._entries = [None] * self._size
        self._newest.clear()
        self._first = self.head + 1

    def after(self, number: int) -> Iterator[tuple[int, Entry]]:
        """Return the events after `number`, which has to be `held`, with their own numbers."""
        for later in range(number + 1, self.head + 1):
            if (entry := self._entries[later % self._size]) is not None:
                yield later, entry[:2]
