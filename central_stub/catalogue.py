"""The products: rows by id, in order, in pages and in buckets.

Rows are never changed in place, so a row that was returned stays as it is.
"""

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]
"""One product as Central sends it: `productId`, `version`, `lastUpdated`, and every attribute."""

FEW = 32
"""Up to this many ids, inserting each is faster than sorting the whole list again."""


def bucket_of(product_id: str, buckets: int) -> int:
    """Return the bucket: the first eight bytes of sha256(UTF-8 id), big-endian, modulo."""
    prefix = hashlib.sha256(product_id.encode()).digest()[:8]
    return int.from_bytes(prefix, "big") % buckets


class Catalogue:
    """Rows by id, in code point order of the ids."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._ids: list[str] = []
        self._unsorted: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, product_id: str) -> Row | None:
        return self._rows.get(product_id)

    def rows(self) -> list[Row]:
        """Return a new list of all rows, in no order."""
        return list(self._rows.values())

    def put(self, row: Row) -> None:
        product_id = row["productId"]
        if product_id not in self._rows:
            self._unsorted.append(product_id)
        self._rows[product_id] = row

    def remove(self, product_id: str) -> None:
        if self._rows.pop(product_id, None) is not None:
            ids = self.ids()
            del ids[bisect_left(ids, product_id)]

    def replace(self, rows: Iterable[Row]) -> None:
        self._rows = {row["productId"]: row for row in rows}
        self._ids = sorted(self._rows)
        self._unsorted = []

    def ids(self) -> list[str]:
        """Return all ids in code point order. The caller must not change the list."""
        if self._unsorted:
            self._sort()
        return self._ids

    def page(self, offset: int, limit: int) -> list[Row]:
        return [self._rows[product_id] for product_id in self.ids()[offset : offset + limit]]

    def page_after(self, product_id: str | None, limit: int) -> list[Row]:
        """Return the rows whose ids come after `product_id`, or the first ones."""
        ids = self.ids()
        start = 0 if product_id is None else bisect_right(ids, product_id)
        return self.page(start, limit)

    def bucket(self, bucket: int, buckets: int) -> Iterator[Row]:
        """Yield the rows of one bucket, in order."""
        for product_id in self.ids():
            if bucket_of(product_id, buckets) == bucket:
                yield self._rows[product_id]

    def _sort(self) -> None:
        if len(self._unsorted) > FEW:
            self._ids.extend(self._unsorted)
            self._ids.sort()
        else:
            for product_id in self._unsorted:
                insort(self._ids, product_id)
        self._unsorted = []
