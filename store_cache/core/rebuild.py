"""The copy that a full sync builds, page by page, with the feed alongside (F2, F3, F4, F5, V3).

Knows: whether a page joins the one before it, what to ask for next, which products have to be
read by themselves, and whether the outcome may be believed.
Refuses to know: how pages are fetched, when, and where the copy is put; that is `sync` and the
keeper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from store_cache.core.catalogue import Catalogue
from store_cache.core.change import Doubt, Mark, Owed
from store_cache.core.event import AnyEvent, Event, Kind
from store_cache.core.feed import CataloguePage, PageRequest
from store_cache.core.position import Position
from store_cache.core.product import Row
from store_cache.core.rules import (
    Draft,
    Seen,
    lay_answer,
    lay_answer_anyway,
    lay_events,
    lay_reading,
    version_of,
)
from store_cache.core.writing import StockAnswer

FIRST_LIMIT = 1000
"""Products asked for in a page. A Central that gives fewer is believed."""

MODEST_LIMIT = 200
"""What the contract's examples ask for: tried where the first limit gave a smaller page, since
some Centrals replace a limit they do not like by a small default."""

FRUITLESS_PAGES = 60
"""Pages in a row without a new product, after which Central's paging is given up as broken."""


class PagingBroken(Exception):
    """Central's pages do not come to an end; the message says after what."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What F5 says of a finished copy. `problem` is empty where it may go in place."""

    problem: str = ""

    @property
    def accepted(self) -> bool:
        return not self.problem


class Rebuild:
    """One full sync's copy under construction.

    `held` is the catalogue that readers see meanwhile (None at the first start); rows that did
    not change are shared with it. `same_generation` says whether its versions still count (V3).
    """

    def __init__(
        self, *, held: Catalogue | None, same_generation: bool, now: float, grace_seconds: float
    ) -> None:
        self.copy = Catalogue()
        self.copy.fill(())
        self.began_at = now
        self.pages = 0
        self.deletions = 0
        self._held = held
        self._same_generation = same_generation
        self._grace_seconds = grace_seconds
        self._lowered: set[str] = set()
        self._doubts: dict[str, str] = {}
        self._doubtful: dict[str, str] = {}
        self._limit = FIRST_LIMIT
        self._tail: frozenset[str] = frozenset()
        self._step_back = 1
        self._fruitless = 0

    # -- pages -----------------------------------------------------------------------------

    def first_request(self) -> PageRequest:
        return PageRequest(0, self._limit)

    def take_page(self, request: PageRequest, page: CataloguePage) -> PageRequest | None:
        """Lay a page over the copy and say which one to ask for next; None at the end.

        Raises PagingBroken.
        """
        self.pages += 1
        self._count_fruitless(page)
        by_offset = request.cursor is None and page.next_cursor is None and not page.is_whole
        if by_offset and not self._joins(request, page):
            return self._backwards(request)
        self._lay_rows(page)
        self._step_back = 1
        self._tail = frozenset(row.product_id for row in page.rows)
        if page.next_cursor is not None:
            return PageRequest(request.offset + len(page.rows), self._limit, page.next_cursor)
        if page.is_whole or request.cursor is not None:
            return None
        return self._onwards(request, page)

    def _count_fruitless(self, page: CataloguePage) -> None:
        fresh = any(row.product_id not in self.copy.rows for row in page.rows)
        self._fruitless = 0 if fresh else self._fruitless + 1
        if self._fruitless > FRUITLESS_PAGES:
            raise PagingBroken(
                f"Central's catalogue pages bring nothing new after {self.pages} pages and "
                f"{len(self.copy)} products, and do not end; check its paging"
            )

    def _joins(self, request: PageRequest, page: CataloguePage) -> bool:
        """Whether no product can lie unread between this page and the one before (F3)."""
        if request.offset == 0 or not self._tail:
            return True
        return any(row.product_id in self._tail for row in page.rows)

    def _backwards(self, request: PageRequest) -> PageRequest:
        offset = max(0, request.offset - self._step_back)
        self._step_back *= 2
        return PageRequest(offset, self._limit)

    def _onwards(self, request: PageRequest, page: CataloguePage) -> PageRequest | None:
        size = len(page.rows) + len(page.bad_rows)
        end = request.offset + size
        more = page.has_more if page.has_more is not None else size > 0
        if page.total is not None:
            more = more or end < page.total
        if not more or size == 0 or (page.has_more is None and size == 1 and request.offset):
            return None
        self._adapt_limit(size)
        return PageRequest(max(end - 1, request.offset + 1 if size == 1 else 0), self._limit)

    def _adapt_limit(self, size: int) -> None:
        if self._limit == FIRST_LIMIT and size < MODEST_LIMIT:
            self._limit = MODEST_LIMIT

    def _lay_rows(self, page: CataloguePage) -> None:
        self.copy.fill((row.product_id, row.body) for row in map(self._merged, page.rows) if row)
        for bad in page.bad_rows:
            if bad.product_id is None:
                nameless = f"(a row without an id, page {self.pages})"
                self._doubtful[nameless] = bad.reason
            else:
                self._doubts[bad.product_id] = bad.reason

    def _merged(self, row: Row) -> Row | None:
        """The row to keep of a product that may have been read, or changed by an event, before:
        the newer one counts (V3); what looks older is read again by itself."""
        product_id = row.product_id
        earlier = self.copy.rows.get(product_id)
        mark = self.copy.marks.get(product_id)
        if mark is not None and row.version <= mark.version:
            self._doubts[product_id] = "the page shows a product that the feed says is deleted"
            return None
        if earlier is not None and version_of(earlier) > row.version:
            self._doubts[product_id] = "a later page shows an older version"
            return None
        return self._shared(row)

    def _shared(self, row: Row) -> Row:
        held = self._held.get(row.product_id) if self._held is not None else None
        if held is None:
            return row
        if held == row.body:
            return Row(row.product_id, row.version, row.available, held)
        if self._same_generation and version_of(held) > row.version:
            self._lowered.add(row.product_id)
        return row

    # -- the feed alongside ----------------------------------------------------------------

    def take_events(self, events: Sequence[AnyEvent], *, position: Position, now: float) -> None:
        """Apply events to the copy; nobody sees it yet, so they are made at once."""
        draft = Draft(self.copy, now=now, grace_seconds=self._grace_seconds)
        lay_events(draft, events)
        self.copy.make(draft.change("events", position=position))
        self.deletions += sum(isinstance(e, Event) and e.kind is Kind.DELETED for e in events)

    def stand_at(self, position: Position) -> None:
        self.copy.position = position

    # -- doubts ----------------------------------------------------------------------------

    def unsettled(self) -> list[str]:
        """Products to be read by themselves before the copy may go in place: what no page told
        for sure, and what would go back to an older version (V3)."""
        doubted = [i for i in self._doubts if i not in self._doubtful]
        lowered = [i for i in self._lowered if i not in self._doubtful and self._is_lower(i)]
        return doubted + lowered

    def _is_lower(self, product_id: str) -> bool:
        mine = self.copy.rows.get(product_id)
        held = self._held.get(product_id) if self._held is not None else None
        return mine is not None and held is not None and version_of(mine) < version_of(held)

    def seen(self, product_id: str) -> Seen:
        return Seen.of(self.copy, product_id)

    def take_reading(self, product_id: str, row: Row | None, *, seen: Seen, now: float) -> None:
        """What Central says of one doubted product holds, unless an event overtook it."""
        draft = Draft(self.copy, now=now, grace_seconds=self._grace_seconds)
        if not lay_reading(draft, product_id, row, seen=seen, doubt=Doubt.ORDER):
            return
        self._doubts.pop(product_id, None)
        self._lowered.discard(product_id)
        self.copy.make(draft.change("reading"))

    def give_up(self, product_id: str, problem: str, *, now: float) -> None:
        """The product could not be read: keep the fresher row that is held, and list it as
        doubtful; its reading stays owed (F5)."""
        self._doubtful[product_id] = problem
        held = self._held.get(product_id) if self._held is not None else None
        mine = self.copy.rows.get(product_id)
        if held is not None and (mine is None or version_of(mine) < version_of(held)):
            self.copy.fill([(product_id, held)])
        self.copy.owed[product_id] = Owed(Doubt.UNREADABLE, now, now, 1, problem)

    @property
    def doubtful(self) -> Mapping[str, str]:
        return self._doubtful

    # -- the end ---------------------------------------------------------------------------

    def finish(
        self,
        *,
        answers: Iterable[StockAnswer],
        touched: Mapping[str, Owed],
        marks: Mapping[str, Mark],
        now: float,
    ) -> Catalogue:
        """Order the copy, and lay over it what the catalogue in place has learned since the run
        began: answers to writes (F4), readings still owed, and marks of deletions."""
        self.copy.index()
        draft = Draft(self.copy, now=now, grace_seconds=self._grace_seconds)
        for answer in answers:
            if not lay_answer(draft, answer):
                lay_answer_anyway(draft, answer)
        self.copy.make(draft.change("answers"))
        for product_id, owed in touched.items():
            self.copy.owed.setdefault(product_id, owed)
        if self._same_generation:
            for product_id, mark in marks.items():
                if product_id not in self.copy.rows:
                    self.copy.marks.setdefault(product_id, mark)
        return self.copy

    def judge(self, *, least_percent: int, accept: bool, agreed_products: int | None) -> Verdict:
        """Whether the copy may replace what is held (F5). `agreed_products`: how many an earlier
        reading found that was refused, and may be confirmed by this one within a hundredth."""
        held = 0 if self._held is None else len(self._held)
        expected = max(0, held - self.deletions)
        found = len(self.copy)
        agreed = agreed_products is not None and abs(found - agreed_products) * 100 <= found
        if accept or agreed or held == 0 or found * 100 >= expected * least_percent:
            return Verdict()
        return Verdict(
            f"Central's catalogue has {found} products where {held} are held, fewer than "
            f"SNAPSHOT_MIN_PERCENT={least_percent} allows; the old catalogue is served on. "
            "If Central is right, run a force-sync with ?accept=true"
        )
