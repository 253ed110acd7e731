"""Which pages to request so that no product is skipped, and which products pages have shown (F3).

Central numbers products by offset, so a deletion while the catalogue is read moves those behind it
forward, perhaps over the edge between two pages. Therefore each page overlaps the one before by a
row. If a page shows no product that an earlier page showed, products may lie unread in between, and
the request steps back, twice as far each time, until one does. Where Central gives a cursor, the
cursor is followed instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from store_cache.model.pages import CataloguePage, PageRequest

FIRST_LIMIT = 1000
"""Products to request in a page. A Central that sends fewer is believed."""

MODEST_LIMIT = 200
"""The limit of the contract's examples. It is tried if the first limit gave a smaller page, since
some Centrals replace a limit that they refuse by a small default."""

FRUITLESS_PAGES = 60
"""Pages in a row without a new product, after which Central's paging counts as broken."""


class PagingBroken(Exception):
    """Central's pages do not come to an end; the message says after what."""


class Paging:
    """The requests of one full sync."""

    def __init__(self) -> None:
        self.pages = 0
        self._limit = FIRST_LIMIT
        self._has_ids = False  # whether any page so far named a product
        self._step_back = 1
        self._fruitless = 0
        self._end_of_single: int | None = None  # where a page of just one product ended
        self._empty_at: int | None = None  # where a page was empty

    def first_request(self) -> PageRequest:
        return PageRequest(0, self._limit)

    def count(self, *, is_new: bool, products: int) -> None:
        """Count a page; `is_new`: it showed a new product. `products`: how many are held.

        Raises PagingBroken.
        """
        self.pages += 1
        self._fruitless = 0 if is_new else self._fruitless + 1
        if self._fruitless > FRUITLESS_PAGES:
            raise PagingBroken(
                f"Central's catalogue pages bring nothing new after {self.pages} pages and "
                f"{products} products, and do not end; check its paging"
            )

    def joins(self, request: PageRequest, page: CataloguePage, *, shown: int, unseen: int) -> bool:
        """Return whether no product can lie unread between this page and those before.

        `shown`: how many products the page shows; `unseen`: how many of these no page showed
        before. Pages of a single product cannot overlap, so they are believed to follow each other.
        """
        by_cursor = request.cursor is not None or page.next_cursor is not None or page.is_whole
        if by_cursor or request.offset == 0 or not self._has_ids or unseen < shown:
            self._has_ids |= shown > 0
            return True
        return shown > 0 and request.offset == self._end_of_single

    def step_back(self, request: PageRequest, page: CataloguePage) -> PageRequest:
        """Return the request after a page that does not join."""
        if not page.rows and not page.bad_rows:
            self._empty_at = request.offset
        offset = max(0, request.offset - self._step_back)
        self._step_back *= 2
        return PageRequest(offset, self._limit)

    def following(
        self, request: PageRequest, page: CataloguePage, *, is_new: bool
    ) -> PageRequest | None:
        """Return the request after a page that joins; None at the end.

        `is_new`: the page showed a new product.
        """
        self._step_back = 1
        if page.next_cursor is not None:
            return PageRequest(request.offset + len(page.rows), self._limit, page.next_cursor)
        size = len(page.rows) + len(page.bad_rows)
        if page.is_whole or request.cursor is not None or size == 0:
            return None
        end = request.offset + size
        has_more = page.has_more is not False or (page.total is not None and end < page.total)
        if not has_more or (not is_new and self._is_last(request, page, end)):
            return None
        if self._limit == FIRST_LIMIT and size < MODEST_LIMIT:
            self._limit = MODEST_LIMIT
        self._end_of_single = end if size == 1 else None
        return PageRequest(end if size == 1 else end - 1, self._limit)

    def _is_last(self, request: PageRequest, page: CataloguePage, end: int) -> bool:
        """Return whether a page without a new product is the last, whatever Central says of more:
        a page behind it was empty, or it is just the overlap and Central says nothing."""
        if self._empty_at is not None and end >= self._empty_at:
            return True
        is_silent = page.has_more is None and page.total is None
        return is_silent and request.offset > 0 and end == request.offset + 1


class PagedIds:
    """Track which products pages have shown, without a set of all of them.

    Nearly all of these have a row in the replica, so only the differences are kept: the garbage
    collector would walk a set of a million strings again and again.
    """

    def __init__(self) -> None:
        self.unseen_rows: set[str] = set()
        """Products that have a row, although no page has shown them."""
        self._without_row: set[str] = set()
        """Products that a page has shown, and that had no row at some time since."""

    def unseen(self, ids: Set[str], with_row: Set[str]) -> Set[str]:
        """Return those of `ids` that no page has shown. `with_row`: those that have a row."""
        return ((ids - with_row) | (ids & self.unseen_rows)) - self._without_row

    def note_page(self, ids: Set[str], *, without_row: Set[str]) -> None:
        """Note a page that showed `ids`, of which some were left without a row."""
        self.unseen_rows -= ids
        self._without_row |= without_row

    def note_change(self, new: Mapping[str, bytes | None], held: Mapping[str, bytes]) -> None:
        """Note that `new` rows, None for deletions, are about to replace those `held`."""
        gone = {product_id for product_id, row in new.items() if row is None}
        kept = new.keys() - gone
        self.unseen_rows |= self.unseen(kept, kept & held.keys())
        self._without_row |= (gone - self.unseen_rows) & held.keys()
        self.unseen_rows -= gone
