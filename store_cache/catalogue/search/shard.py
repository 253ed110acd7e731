"""The index of some thousand neighbouring products.

Each product has a *slot*, a small number. A set of products is a *mask*, a whole number whose bits
are slots: Python intersects, joins and counts such numbers as fast as C.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

import orjson

from store_cache.catalogue.search.postings import Postings
from store_cache.catalogue.search.terms import INDEXED_FIELDS, terms_of

PART_PRODUCTS = 200
"""Products that are read at once while a shard is filled, which takes about two milliseconds."""

_FEW_SLOTS = 48
"""A mask of fewer slots is made bit by bit. That is quick, so masks of more are kept."""

_MOST_KEPT = 256
"""Masks that are kept, each of some hundred bytes."""

_ZERO, _ONE = b"01"
_FLAGS = bytes(byte & 1 for byte in range(256))  # of the digits 0 and 1

# What of a row changes with every sale. In JSON a quotation mark inside of a text is escaped, so
# this is no part of one.
_SOLD = re.compile(rb',"available":([0-9]+),"version":[0-9]+(?:,"lastUpdated":"[^"\\]*")?')


class Shard:
    """Products in the order of their ids.

    `held`: the mask of all products. `in_stock`: of those with `available` > 0.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.held = 0
        self.in_stock = 0
        self._slots = array("H")  # of `ids`
        self._rows: list[bytes] = []  # by slot
        self._ids_by_slot: list[str] = []
        self._free_slots: list[int] = []
        self._postings = Postings()
        self._kept: dict[bytes, int] = {}  # masks by prefix

    def __len__(self) -> int:
        return len(self.ids)

    # -- reads -----------------------------------------------------------------------------

    def having(self, prefix: bytes) -> int:
        """Return the mask of the products with a term that begins with `prefix`."""
        kept = self._kept.get(prefix)
        if kept is not None:
            return kept
        slots = self._postings.slots_of(prefix)
        mask = _mask_of(slots, len(self._rows))
        if len(slots) >= _FEW_SLOTS:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[prefix] = mask
        return mask

    def up_to(self, product_id: str) -> int:
        """Return the mask of the products that are not behind `product_id`."""
        slots = self._slots[: bisect_right(self.ids, product_id)]
        return _mask_of(slots, len(self._rows))

    def ids_of(self, mask: int) -> list[str]:
        """Return the ids of a mask, sorted."""
        return sorted(map(self._ids_by_slot.__getitem__, _slots_in(mask)))

    def items(self) -> dict[str, bytes]:
        """Return the rows by id, in order."""
        return dict(zip(self.ids, map(self._rows.__getitem__, self._slots), strict=True))

    def rows(self, mask: int) -> list[bytes]:
        """Return the rows of a mask, in the order of their ids."""
        if mask.bit_count() < _FEW_SLOTS:
            slots = sorted(_slots_in(mask), key=self._ids_by_slot.__getitem__)
            return [self._rows[slot] for slot in slots]
        flags = f"{mask:0{len(self._rows)}b}".encode()[::-1].translate(_FLAGS)
        in_order = compress(self._slots, map(flags.__getitem__, self._slots))
        return list(map(self._rows.__getitem__, in_order))

    # -- changes ---------------------------------------------------------------------------

    def fill(self, ids: Sequence[str], rows: Sequence[bytes]) -> Iterator[None]:
        """Fill an empty shard with sorted products, in parts."""
        postings: dict[bytes, list[int]] = {}
        for begin in range(0, len(rows), PART_PRODUCTS):
            for slot, row in enumerate(rows[begin : begin + PART_PRODUCTS], begin):
                product = orjson.loads(row)
                if product["available"] > 0:
                    self.in_stock |= 1 << slot
                for term in terms_of(product):
                    postings.setdefault(term, []).append(slot)
            yield
        yield from self._postings.fill(postings)
        self.ids, self._ids_by_slot, self._rows = list(ids), list(ids), list(rows)
        self._slots = array("H", range(len(ids)))
        self.held = (1 << len(ids)) - 1
        for letter in self._postings.first_letters():
            self.having(letter)  # the longest to make, and the first that a till asks for
            yield

    def put(self, product_id: str, row: bytes) -> bool:
        """Add a product, or set its row. Return whether terms have changed."""
        place = bisect_left(self.ids, product_id)
        if place == len(self.ids) or self.ids[place] != product_id:
            self._add(place, product_id, row)
            return True
        slot = self._slots[place]
        old, self._rows[slot] = self._rows[slot], row
        available, has_other_text = _available_if_only_sold(old, row), False
        if available is None:
            before, after = orjson.loads(old), orjson.loads(row)
            available = after["available"]
            has_other_text = _indexed(before) != _indexed(after)
            if has_other_text:
                self._set_terms(slot, terms_of(before), terms_of(after))
        self._set_in_stock(1 << slot, available > 0)
        return has_other_text

    def remove(self, product_id: str) -> bool:
        """Remove a product. Return whether it was held."""
        place = bisect_left(self.ids, product_id)
        if place == len(self.ids) or self.ids[place] != product_id:
            return False
        slot = self._slots[place]
        self._set_terms(slot, terms_of(orjson.loads(self._rows[slot])), set())
        del self.ids[place], self._slots[place]
        self._rows[slot], self._ids_by_slot[slot] = b"", ""
        self._free_slots.append(slot)
        self.held &= ~(1 << slot)
        self.in_stock &= ~(1 << slot)
        return True

    def _add(self, place: int, product_id: str, row: bytes) -> None:
        if self._free_slots:
            slot = self._free_slots.pop()
            self._rows[slot], self._ids_by_slot[slot] = row, product_id
        else:
            slot = len(self._rows)
            self._rows.append(row)
            self._ids_by_slot.append(product_id)
        self.ids.insert(place, product_id)
        self._slots.insert(place, slot)
        self.held |= 1 << slot
        product = orjson.loads(row)
        self._set_terms(slot, set(), terms_of(product))
        self._set_in_stock(1 << slot, product["available"] > 0)

    def _set_terms(self, slot: int, old: set[bytes], new: set[bytes]) -> None:
        gone, come = old - new, new - old
        for term in gone:
            self._postings.remove(term, slot)
        for term in come:
            self._postings.add(term, slot)
        bit, kept = 1 << slot, self._kept
        longest = max(map(len, kept), default=0)
        for prefix in kept.keys() & set(_prefixes(gone, longest)):
            if not any(term.startswith(prefix) for term in new):
                kept[prefix] &= ~bit
        for prefix in kept.keys() & set(_prefixes(come, longest)):
            kept[prefix] |= bit

    def _set_in_stock(self, bit: int, is_in_stock: bool) -> None:
        if is_in_stock:
            self.in_stock |= bit
        else:
            self.in_stock &= ~bit


def _available_if_only_sold(old: bytes, new: bytes) -> int | None:
    """Return the new quantity if the rows differ in nothing but what a sale changes, else None.

    That takes a third of the time of parsing both.
    """
    before, after = _SOLD.split(old, 1), _SOLD.split(new, 1)
    if len(before) != 3 or before[0] != after[0] or before[2] != after[2]:
        return None
    if before[0].rfind(b"{") != 0:
        return None  # the name holds an object, perhaps with such fields
    return int(after[1])


def _indexed(product: dict[str, object]) -> bytes:
    """Return what is indexed, for a comparison that tells 1 from true."""
    return orjson.dumps([product.get(field) for field in INDEXED_FIELDS])


def _prefixes(terms: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Return the prefixes of up to `longest` bytes: a text may be a word of any length."""
    for term in terms:
        for end in range(1, min(len(term), longest) + 1):
            yield term[:end]


def _slots_in(mask: int) -> Iterator[int]:
    while mask:
        last = mask & -mask
        yield last.bit_length() - 1
        mask ^= last


def _mask_of(slots: Sequence[int], width: int) -> int:
    """Return the mask of slots, which may repeat and are below `width`."""
    if len(slots) < _FEW_SLOTS:
        mask = 0
        for slot in slots:
            mask |= 1 << slot
        return mask
    digits = bytearray([_ZERO]) * width
    for slot in slots:
        digits[slot] = _ONE
    digits.reverse()
    return int(digits, 2)
