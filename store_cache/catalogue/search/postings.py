"""Which products have which terms, sorted by term, in blocks.

A *slot* is the number of a product, a *posting* the slots of a term, in no order. A block holds
some dozens of terms as three strings of bytes: the terms one after the other, the length of each
posting, and the postings. A term then takes little more than its own bytes; with an object for each
it would take five times as much.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from sys import byteorder
from typing import Final

from store_cache.catalogue.search.terms import AFTER_ALL, SEPARATOR

BLOCK_TERMS = 64
"""Terms of a block as it is filled. It is split at more than twice as many."""

PART_TERMS = 2_000
"""Terms that are filled in at once, which takes about a millisecond."""

_ASCII_END = 0x80
_TWO_BYTES: Final = "H"  # of a slot, and of the length of a posting
_ONE = (1).to_bytes(2, byteorder)


class _Block:
    """Terms and their postings; `lengths` and `slots` are arrays of two-byte numbers."""

    __slots__ = ("lengths", "slots", "terms")

    def __init__(
        self, terms: Iterable[bytes], lengths: Iterable[int], slots: Iterable[int]
    ) -> None:
        self.terms = SEPARATOR.join(terms)
        self.lengths = array(_TWO_BYTES, lengths).tobytes()
        self.slots = array(_TWO_BYTES, slots).tobytes()

    def slots_of(self, prefix: bytes) -> bytes:
        """Return the postings of all terms that begin with `prefix`, one behind the other."""
        if prefix not in self.terms:
            return b""  # most often, and in a fraction of the time
        terms = self.terms.split(SEPARATOR)
        begin, end = bisect_left(terms, prefix), bisect_left(terms, prefix + AFTER_ALL)
        first, last = self._place(begin, end)
        return self.slots[2 * first : 2 * last]

    def add(self, term: bytes, slot: int) -> int:
        """Add a slot to a term. Return the number of terms."""
        terms = self.terms.split(SEPARATOR)
        number = bisect_left(terms, term)
        first, _ = self._place(number, number)
        if number < len(terms) and terms[number] == term:
            self._set_length(number, 1)
        else:
            terms.insert(number, term)
            self.terms = SEPARATOR.join(terms)
            self.lengths = self.lengths[: 2 * number] + _ONE + self.lengths[2 * number :]
        added = slot.to_bytes(2, byteorder)
        self.slots = self.slots[: 2 * first] + added + self.slots[2 * first :]
        return len(terms)

    def remove(self, term: bytes, slot: int) -> int:
        """Remove a slot from a term that has it. Return the number of terms."""
        terms = self.terms.split(SEPARATOR)
        number = bisect_left(terms, term)
        first, last = self._place(number, number + 1)
        posting = memoryview(self.slots).cast(_TWO_BYTES)[first:last].tolist()
        at = first + posting.index(slot)
        self.slots = self.slots[: 2 * at] + self.slots[2 * at + 2 :]
        if len(posting) > 1:
            self._set_length(number, -1)
        else:
            del terms[number]
            self.terms = SEPARATOR.join(terms)
            self.lengths = self.lengths[: 2 * number] + self.lengths[2 * number + 2 :]
        return len(terms)

    def _place(self, begin: int, end: int) -> tuple[int, int]:
        """Return where the postings of terms `begin` to `end` are among the slots."""
        if len(self.slots) == len(self.lengths):  # every term has a single product
            return begin, end
        lengths = memoryview(self.lengths).cast(_TWO_BYTES)
        first = sum(lengths[:begin])
        return first, first + sum(lengths[begin:end])

    def _set_length(self, number: int, more: int) -> None:
        lengths = bytearray(self.lengths)
        memoryview(lengths).cast(_TWO_BYTES)[number] += more
        self.lengths = bytes(lengths)

    def unpacked(self) -> tuple[list[bytes], list[int], list[int]]:
        """Return the terms, the lengths of their postings, and the slots."""
        lengths = memoryview(self.lengths).cast(_TWO_BYTES).tolist()
        slots = memoryview(self.slots).cast(_TWO_BYTES).tolist()
        return self.terms.split(SEPARATOR), lengths, slots


class Postings:
    """The postings of all terms."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        # No term of a block sorts before its entry here, and none of the block before does after.
        self._begins: list[bytes] = []

    def slots_of(self, prefix: bytes) -> memoryview:
        """Return the slots of all terms that begin with `prefix`, some more than once."""
        end = bisect_left(self._begins, prefix + AFTER_ALL)
        begin = max(bisect_right(self._begins, prefix, 0, end) - 1, 0)
        blocks = self._blocks[begin:end]
        if len(blocks) == 1:
            found = blocks[0].slots_of(prefix)
        elif blocks:
            inner = [block.slots for block in blocks[1:-1]]
            found = b"".join([blocks[0].slots_of(prefix), *inner, blocks[-1].slots_of(prefix)])
        else:
            found = b""
        return memoryview(found).cast(_TWO_BYTES)

    def first_letters(self) -> set[bytes]:
        """Return the characters that words begin with."""
        letters: set[bytes] = set()
        for block in self._blocks:
            terms = block.terms.split(SEPARATOR)
            is_single = terms[0][0] == terms[-1][0] < _ASCII_END
            letters.update(map(_first_letter, terms[:1] if is_single else terms))
        letters.discard(b"")
        return letters

    # -- changes ---------------------------------------------------------------------------

    def fill(self, postings: Mapping[bytes, Sequence[int]]) -> Iterator[None]:
        """Fill in postings by term, in parts, where there are none yet."""
        terms = sorted(postings)
        yield
        for number, begin in enumerate(range(0, len(terms), BLOCK_TERMS), 1):
            part = terms[begin : begin + BLOCK_TERMS]
            found = list(map(postings.__getitem__, part))
            self._append(part, map(len, found), chain.from_iterable(found))
            if number % (PART_TERMS // BLOCK_TERMS) == 0:
                yield

    def add(self, term: bytes, slot: int) -> None:
        """Add a product to a term that does not have it."""
        number = bisect_right(self._begins, term) - 1
        if number < 0 and self._begins:
            number, self._begins[0] = 0, term
        if number < 0:
            self._append([term], [1], [slot])
        elif self._blocks[number].add(term, slot) > 2 * BLOCK_TERMS:
            self._split(number)

    def remove(self, term: bytes, slot: int) -> None:
        """Remove a product from a term that has it."""
        number = bisect_right(self._begins, term) - 1
        if self._blocks[number].remove(term, slot) == 0:
            del self._blocks[number], self._begins[number]

    def _split(self, number: int) -> None:
        terms, lengths, slots = self._blocks[number].unpacked()
        half = len(terms) // 2
        first = sum(lengths[:half])
        self._blocks[number : number + 1] = [
            _Block(terms[:half], lengths[:half], slots[:first]),
            _Block(terms[half:], lengths[half:], slots[first:]),
        ]
        self._begins.insert(number + 1, terms[half])

    def _append(self, terms: list[bytes], lengths: Iterable[int], slots: Iterable[int]) -> None:
        self._blocks.append(_Block(terms, lengths, slots))
        self._begins.append(terms[0])


def _first_letter(term: bytes) -> bytes:
    """Return the first character in UTF-8, where the first byte tells how many follow; nothing for
    a term that is no word."""
    first = term[0]
    if first < _ASCII_END:
        return term[:1]
    return term[: 2 if first < 0xE0 else 3 if first < 0xF0 else 4 if first < 0xF8 else 0]
