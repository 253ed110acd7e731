"""What is still to be sold or received of each product, and how reads show it.

A read shows Central's own `available`; beside it come `pendingDelta`, the sum of all unsettled
entries, and `expectedAvailable`. Below zero, `oversold` says so: the goods are in customers' hands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from store_cache.model.product import read_row

_ID_STARTS = b'{"productId":"'


class PendingStock:
    """The sum of the deltas by product, for products that have unsettled entries."""

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}
        self._entries: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._sums)

    def of(self, product_id: str) -> int:
        return self._sums.get(product_id, 0)

    def products(self) -> tuple[str, ...]:
        return tuple(self._sums)

    def add(self, product_id: str, delta: int) -> None:
        self._entries[product_id] += 1
        self._sums[product_id] = self._sums.get(product_id, 0) + delta

    def remove(self, product_id: str, delta: int) -> None:
        self._entries[product_id] -= 1
        self._sums[product_id] -= delta
        if not self._entries[product_id]:
            del self._entries[product_id], self._sums[product_id]

    def show(self, row: bytes) -> bytes:
        """Return the row as readers see it."""
        if not self._sums or (pending := self._sums.get(_id_of(row))) is None:
            return row
        expected = read_row(row).available + pending
        oversold = b',"oversold":true' if expected < 0 else b""
        shown = b',"pendingDelta":%d,"expectedAvailable":%d%b}' % (pending, expected, oversold)
        return row[:-1] + shown

    def show_all(self, rows: Sequence[bytes]) -> Sequence[bytes]:
        return [self.show(row) for row in rows] if self._sums else rows


def _id_of(row: bytes) -> str:
    """Return the id of a row, which is not parsed if it begins with one that escapes nothing."""
    if row.startswith(_ID_STARTS):
        found = row[len(_ID_STARTS) :].partition(b'"')[0]
        if b"\\" not in found:
            return found.decode()
    return read_row(row).product_id
