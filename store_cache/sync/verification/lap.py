"""One walk through all pages of a Central that has no digests."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from store_cache.model.pages import CataloguePage, PageRequest

LIMIT = 200


class Lap:
    """Which page comes next, and which products the pages have shown.

    Products move between pages while they are read. One that no page has shown is only a suspect:
    it is asked for by itself. `began_at`: seconds of the caller's clock. `differed`: how many
    products of this lap were different.
    """

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.differed = 0
        self._request: PageRequest | None = PageRequest(0, LIMIT)
        self._seen: set[str] = set()

    @property
    def is_over(self) -> bool:
        return self._request is None

    @staticmethod
    def products_due(*, products: int, interval_seconds: float, lap_seconds: float) -> int:
        """Return how many products to read in one interval, so that a lap takes `lap_seconds`."""
        return max(1, ceil(products * min(1.0, interval_seconds / lap_seconds)))

    def request(self) -> PageRequest:
        assert self._request is not None
        return self._request

    def take(self, request: PageRequest, page: CataloguePage) -> int:
        """Note what a page has shown, and return how many products these are."""
        self._seen.update(page.rows.ids)
        self._seen.update(bad.product_id for bad in page.bad_rows if bad.product_id is not None)
        size = len(page.rows) + len(page.bad_rows)
        is_last = page.is_whole or size == 0 or page.has_more is False
        if page.next_cursor is None and request.cursor is not None:
            is_last = True
        following = PageRequest(request.offset + size, LIMIT, page.next_cursor)
        self._request = None if is_last else following
        return size

    def unseen(self, ids: Iterable[str]) -> list[str]:
        return [product_id for product_id in ids if product_id not in self._seen]
