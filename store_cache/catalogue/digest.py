"""The digest of the visible catalogue, kept up to date as it changes.

A change only marks its products. Their rows are hashed when a digest is wanted, in slices, so that
following costs next to nothing. A catalogue that is new is walked for that in the order of its ids.
While a comparison is under way every change is kept, so that the digest can be wound back to the
offset of Central's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import add

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, VisibleChange
from store_cache.catalogue.row_hash import (
    MODULUS,
    MOST_BUCKETS,
    bucket_count,
    bucket_of,
    row_hash,
)
from store_cache.model.digest import Digest

_HASH_BITS = 128

SHARDS = 64
"""One dict of a million products would take 30 ms to grow."""

ROOM_TO_GROW = 2
"""Sums are kept for so many times the buckets of the catalogue, and so it may grow that much."""


class CatalogueDigest:
    """An observer of the visible catalogue.

    Sums are kept for more buckets than the catalogue has now, and added up for its own number: that
    is a power of two, so a small bucket is the union of large ones. A catalogue that outgrows them
    is hashed anew.
    """

    def __init__(self) -> None:
        self.catalogue: Catalogue | None = None
        self._held = _shards()
        self._rows: list[int] = []
        self._sums: list[int] = []
        self._changed: dict[str, None] = {}  # products to hash, in the order of their changes
        self._walked_to: str | None = None  # ids behind it are to be hashed; None: all are
        self._kept: list[VisibleChange] | None = None

    # -- as an observer --------------------------------------------------------------------

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        self._changed.update(dict.fromkeys(change.rows))
        if self._kept is not None:
            self._kept.append(change)

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None:
        self.catalogue = new
        if old is None:
            self.begin(new)

    def reset(self) -> None:
        if self.catalogue is not None:
            self.begin(self.catalogue)

    def begin(self, catalogue: Catalogue) -> None:
        """Forget what was hashed, and hash every product of this catalogue when it is wanted."""
        self.catalogue = catalogue
        self._kept = None
        self._hash_anew(catalogue)

    def _hash_anew(self, catalogue: Catalogue) -> None:
        buckets = min(ROOM_TO_GROW * bucket_count(len(catalogue)), MOST_BUCKETS)
        self._held = _shards()
        self._rows, self._sums = [0] * buckets, [0] * buckets
        self._changed = {}
        self._walked_to = ""

    # -- for comparisons -------------------------------------------------------------------

    @property
    def is_hashed(self) -> bool:
        """Whether every product is hashed as it is now."""
        return not self._changed and self._walked_to is None and not self._is_outgrown

    @property
    def _is_outgrown(self) -> bool:
        return self.catalogue is not None and bucket_count(len(self.catalogue)) > len(self._rows)

    def hash_some(self, products: int) -> None:
        """Hash up to `products` rows that are not hashed yet."""
        if self.catalogue is not None and self._is_outgrown:
            self._hash_anew(self.catalogue)
        if self._walked_to is not None and self.catalogue is not None:
            ids, _ = self.catalogue.after(self._walked_to, products)
            self._walked_to = ids[-1] if len(ids) == products else None
        else:
            ids = list(islice(self._changed, products))
        for product_id in ids:
            self._changed.pop(product_id, None)
            self._hash(product_id)

    def _hash(self, product_id: str) -> None:
        row = None if self.catalogue is None else self.catalogue.get(product_id)
        held = self._held[hash(product_id) % SHARDS]
        before = held.pop(product_id, None)
        if before is None:
            bucket = bucket_of(product_id, len(self._rows))
        else:
            bucket = before >> _HASH_BITS
            self._rows[bucket] -= 1
            self._sums[bucket] = (self._sums[bucket] - before) % MODULUS
        if row is not None:
            hashed = row_hash(row)
            held[product_id] = (bucket << _HASH_BITS) | hashed
            self._rows[bucket] += 1
            self._sums[bucket] = (self._sums[bucket] + hashed) % MODULUS

    def keep_changes(self) -> None:
        """Keep every change from now on, for `at`."""
        self._kept = []

    def drop_changes(self) -> None:
        self._kept = None

    def at(self, offset: int, buckets: int) -> tuple[Digest, set[int]]:
        """Return the digest as it was after the events below `offset`, and the buckets of which
        that cannot be told.

        Only for an offset that the catalogue has reached since `keep_changes`, while all
        `is_hashed`, and for the buckets of the catalogue or fewer.
        """
        rows, sums = _folded(self._rows, buckets), _folded(self._sums, buckets)
        unclear: set[int] = set()
        for change in self._kept or ():
            offsets = [event.offset for event in change.origin.events]
            if change.origin.source is ChangeSource.EVENT and offsets:
                if max(offsets) < offset:
                    continue
                if min(offsets) >= offset:
                    _take_back(change, rows, sums)
                    continue
            unclear.update(bucket_of(product_id, buckets) for product_id in change.rows)
        return Digest(offset, rows, [each % MODULUS for each in sums]), unclear

    def buckets_of(self, ids: Iterable[str], buckets: int) -> set[int]:
        return {bucket_of(product_id, buckets) for product_id in ids}

    def placed(self, ids: Iterable[str], buckets: int) -> Iterator[tuple[str, int]]:
        """Yield those of `ids` that are hashed, with their buckets, which costs no hashing."""
        for product_id in ids:
            held = self._held[hash(product_id) % SHARDS].get(product_id)
            if held is not None:
                yield product_id, (held >> _HASH_BITS) % buckets


def _shards() -> list[dict[str, int]]:
    """Return dicts from product id to its bucket, and then the 128 bits of its row's hash."""
    return [{} for _ in range(SHARDS)]


def _folded(numbers: list[int], buckets: int) -> list[int]:
    """Add the numbers up for fewer buckets, by halves: a number's bucket is its place modulo that.
    Each step runs in C, since there may be 65,536 numbers."""
    numbers = list(numbers)
    while (half := len(numbers) // 2) >= buckets:
        numbers = list(map(add, numbers[:half], numbers[half:]))
    return numbers


def _take_back(change: VisibleChange, rows: list[int], sums: list[int]) -> None:
    for product_id, row in change.rows.items():
        before = change.old_rows[product_id]
        bucket = bucket_of(product_id, len(rows))
        rows[bucket] += (before is not None) - (row is not None)
        sums[bucket] += 0 if before is None else row_hash(before)
        sums[bucket] -= 0 if row is None else row_hash(row)
