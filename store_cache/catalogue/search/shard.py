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

    `held`: the mask of all products. `in_stock`: of those with `available` > 0. `text_changes`
    counts how often products were added, removed or got other terms.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.held = 0
        self.in_stock = 0
        self.text_changes = 0
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
        mask = _mask_of(slots)
        if len(slots) >= _FEW_SLOTS:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[prefix] = mask
        return mask

    def up_to(self, product_id: str) -> int:
        """Return the mask of the products that are not behind `product_id`."""
        return _mask_of(self._slots[: bisect_right(self.ids, product_id)])

    def ids_of(self, mask: int) -> list[str]:
        """Return the ids of a mask, sorted."""
        return sorted(map(self._ids_by_slot.__getitem__, _slots_in(mask)))

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
                    if (posting := postings.get(term)) is None:
                        postings[term] = [slot]
                    else:
                        posting.append(slot)
            yield
        yield from self._postings.fill(postings)
        self.ids, self._ids_by_slot, self._rows = list(ids), list(ids), list(rows)
        self._slots = array("H", range(len(ids)))
        self.held = (1 << len(ids)) - 1
        for letter in self._postings.first_letters():
            self.having(letter)  # the longest to make, and the first that a till asks for

    def put(self, product_id: str, row: bytes) -> None:
        """Add a product, or set its row."""
        place = bisect_left(self.ids, product_id)
        if place == len(self.ids) or self.ids[place] != product_id:
            self._add(place, product_id, row)
            return
        slot = self._slots[place]
        old, self._rows[slot] = self._rows[slot], row
        available = _available_if_only_sold(old, row)
        if available is None:
            product = orjson.loads(row)
            available = product["available"]
            self._set_text(slot, orjson.loads(old), product)
        self._set_in_stock(1 << slot, available > 0)

    def remove(self, product_id: str) -> None:
        """Remove a product, if it is held."""
        place = bisect_left(self.ids, product_id)
        if place == len(self.ids) or self.ids[place] != product_id:
            return
        slot = self._slots[place]
        self._set_terms(slot, terms_of(orjson.loads(self._rows[slot])), set())
        del self.ids[place], self._slots[place]
        self._rows[slot], self._ids_by_slot[slot] = b"", ""
        self._free_slots.append(slot)
        self.held &= ~(1 << slot)
        self.in_stock &= ~(1 << slot)

    def split(self) -> Shard:
        """Move the later half of the products into another shard, and return that."""
        other, half = Shard(), len(self.ids) // 2
        other.ids, other._slots = self.ids[half:], self._slots[half:]
        other._rows, other._ids_by_slot = list(self._rows), list(self._ids_by_slot)
        other.held = _mask_of(other._slots)
        other.in_stock = self.in_stock & other.held
        other._postings = self._postings.move(set(other._slots))
        del self.ids[half:], self._slots[half:]
        self.held &= ~other.held
        self.in_stock &= self.held
        self._kept.clear()
        for shard in (self, other):
            shard._free_slots = sorted(set(range(len(self._rows))) - set(shard._slots))
            for slot in shard._free_slots:
                shard._rows[slot], shard._ids_by_slot[slot] = b"", ""
        return other

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

    def _set_text(self, slot: int, old: dict[str, object], new: dict[str, object]) -> None:
        if _indexed(old) != _indexed(new):
            self._set_terms(slot, terms_of(old), terms_of(new))

    def _set_terms(self, slot: int, old: set[bytes], new: set[bytes]) -> None:
        self.text_changes += 1
        for term in old - new:
            self._postings.remove(term, slot)
        for term in new - old:
            self._postings.add(term, slot)
        bit, kept = 1 << slot, self._kept
        for prefix in kept.keys() & set(_prefixes(old)):
            kept[prefix] &= ~bit
        for prefix in kept.keys() & set(_prefixes(new)):
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


def _prefixes(terms: Iterable[bytes]) -> Iterator[bytes]:
    for term in terms:
        for end in range(1, len(term) + 1):
            yield term[:end]


def _slots_in(mask: int) -> Iterator[int]:
    while mask:
        last = mask & -mask
        yield last.bit_length() - 1
        mask ^= last


def _mask_of(slots: Sequence[int]) -> int:
    """Return the mask of slots that may repeat."""
    if len(slots) < _FEW_SLOTS:
        mask = 0
        for slot in slots:
            mask |= 1 << slot
        return mask
    digits = bytearray([_ZERO]) * (max(slots) + 1)
    for slot in set(slots):
        digits[slot] = _ONE
    digits.reverse()
    return int(digits, 2)
