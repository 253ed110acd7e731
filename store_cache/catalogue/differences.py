"""The products in which two catalogues differ, found in parts while the newer one changes on."""

from __future__ import annotations

from collections.abc import Iterable

from store_cache.catalogue.catalogue import Catalogue

PART_PRODUCTS = 1_000
"""Products that are compared at once. If all of them differ, that takes about a millisecond."""

Difference = tuple[bytes | None, bytes | None]
"""A product's row in the older catalogue and in the newer one; None where there is none."""


class Differences:
    """The differences from `old` to `new`, each found once.

    Nothing changes `old` any more. Before a product of `new` changes, `take` it: its difference is
    what it was until then.
    """

    def __init__(self, old: Catalogue, new: Catalogue) -> None:
        self._old = old
        self._new = new
        self._old_until = ""  # products of `old` were compared up to this id
        self._new_until = ""  # and after those, the products that only `new` has
        self._old_is_done = False
        self._taken: set[str] = set()
        self.is_done = False

    def take(self, ids: Iterable[str]) -> dict[str, Difference]:
        """Return the differences of those products that were not compared yet."""
        found: dict[str, Difference] = {}
        for product_id in ids:
            if not self.is_done and product_id not in self._taken and self._is_ahead(product_id):
                self._taken.add(product_id)
                self._compare(product_id, found)
        return found

    def next_part(self) -> dict[str, Difference]:
        """Return the differences among the next products; sets `is_done` after the last one."""
        found: dict[str, Difference] = {}
        if not self._old_is_done:
            ids, _ = self._old.after(self._old_until, PART_PRODUCTS)
            for product_id in ids:
                if product_id not in self._taken:
                    self._compare(product_id, found)
            self._old_is_done = len(ids) < PART_PRODUCTS
            self._old_until = ids[-1] if ids else self._old_until
        else:
            ids, _ = self._new.after(self._new_until, PART_PRODUCTS)
            old_rows = self._old.rows
            for product_id in ids:
                if product_id not in old_rows and product_id not in self._taken:
                    self._compare(product_id, found)
            self.is_done = len(ids) < PART_PRODUCTS
            self._new_until = ids[-1] if ids else self._new_until
        return found

    def _is_ahead(self, product_id: str) -> bool:
        if product_id in self._old.rows:
            return not self._old_is_done and product_id > self._old_until
        return product_id > self._new_until

    def _compare(self, product_id: str, found: dict[str, Difference]) -> None:
        before, now = self._old.rows.get(product_id), self._new.rows.get(product_id)
        if before is not now and before != now:
            found[product_id] = (before, now)
