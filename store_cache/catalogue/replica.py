"""The copy that a full sync builds, page by page, with the feed alongside (F2, F3, F4, F5, V3).

Knows: whether a page joins the one before it, what to ask for next, which products have to be
read by themselves, and whether the outcome may be believed.
Refuses to know: how pages are fetched, when, and where the copy is put; that is `sync` and the
keeper.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence, Set
from dataclasses import dataclass

from store_cache.catalogue.apply import (
    NEAR_EVENTS,
    ChangeSet,
    KnownState,
    apply_answer,
    apply_answer_figures,
    apply_events,
    apply_refetch,
    version_of,
)
from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import Change, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind
from store_cache.model.pages import CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, is_same_state
from store_cache.model.stock import StockAnswer

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
class Installation:
    """How a finished replica takes the place of the catalogue that readers see.

    `position`: where the replica stands in the feed. `accept`: an operator takes it, however small
    it is. `agreed_products`: how many products a refused full sync found long enough ago to be
    confirmed by this one (F5). `unfollowed_until`: where the feed was not followed to its end, the
    offset up to which rows may be newer than the position; else 0. `follow_up_reason`: why another
    full sync has to follow, or empty.
    """

    position: Position
    accept: bool = False
    agreed_products: int | None = None
    unfollowed_until: int = 0
    follow_up_reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What F5 says of a finished copy. `problem` is empty where it may go in place."""

    problem: str = ""

    @property
    def accepted(self) -> bool:
        return not self.problem


class Replica:
    """One full sync's copy under construction.

    `held` is the catalogue that readers see meanwhile (None at the first start); rows that did
    not change are shared with it. `same_generation` says whether its versions still count (V3).
    """

    def __init__(
        self, *, held: Catalogue | None, same_generation: bool, now: float, grace_seconds: float
    ) -> None:
        self.catalogue = Catalogue()
        self.began_at = now
        self.answers: list[StockAnswer] = []
        """Answers to writes since it began, in order; `finish` applies them (F4)."""
        self.pages = 0
        self._held = held
        self._same_generation = same_generation
        self._grace_seconds = grace_seconds
        self._lowered: set[str] = set()
        self._doubts: dict[str, str] = {}
        self._doubtful: dict[str, str] = {}
        self._limit = FIRST_LIMIT
        self._has_paged = False
        self._gone: set[str] = set()  # paged, and not in the copy; or were not once
        self._untold: set[str] = set()  # in the copy, and not paged
        self._deleted: set[str] = set()
        self._unpaged: set[str] = set()
        self._head: int | None = None  # every page reflects the events before it
        self._come: dict[str, bytes] = {}  # what was ahead of the feed when the feed brought it
        self._step_back = 1
        self._apart_at: int | None = None
        self._nothing_at: int | None = None
        self._fruitless = 0

    # -- pages -----------------------------------------------------------------------------

    def first_request(self) -> PageRequest:
        return PageRequest(0, self._limit)

    def take_page(self, request: PageRequest, page: CataloguePage) -> PageRequest | None:
        """Lay a page over the copy and say which one to ask for next; None at the end.

        Raises PagingBroken.
        """
        self.pages += 1
        if self.pages == 1:
            self._head = page.event_offset
        by_offset = request.cursor is None and page.next_cursor is None and not page.is_whole
        ids = _ids_on(page)
        known = self.catalogue.among(page.rows.ids) | self.catalogue.among(_bad_ids_on(page))
        fresh = self._fresh(ids, known)
        joins = not by_offset or self._joins(request, ids, fresh)
        is_new = joins and bool(fresh)
        self._count_fruitless(is_new)
        if not joins:
            return self._backwards(request, page)
        new = self._lay_rows(page, known)
        self._step_back = 1
        self._note_paged(ids, ids - known - new)
        if page.next_cursor is not None:
            return PageRequest(request.offset + len(page.rows), self._limit, page.next_cursor)
        if page.is_whole or request.cursor is not None:
            return None
        return self._onwards(request, page, is_new)

    def _fresh(self, ids: set[str], known: set[str]) -> set[str]:
        """Those that no page has shown; `known` are in the copy. Nearly all that pages showed are
        the copy's ids, so only what differs is kept: over a set of them all the collector would
        walk again and again."""
        fresh = ids - known
        fresh |= ids & self._untold
        fresh -= self._gone
        return fresh

    def _note_paged(self, ids: set[str], gone: set[str]) -> None:
        self._has_paged |= bool(ids)
        self._gone |= gone
        self._untold -= ids

    def _make(self, change: Change) -> None:
        """Change the copy by something else than a page."""
        for product_id, body in change.rows.items():
            if body is not None:
                known = {product_id} & self.catalogue.rows.keys()
                self._untold |= self._fresh({product_id}, known)
            elif product_id in self._untold:
                self._untold.remove(product_id)
            elif product_id in self.catalogue.rows:
                self._gone.add(product_id)
        self.catalogue.apply(change)

    def _count_fruitless(self, is_new: bool) -> None:
        self._fruitless = 0 if is_new else self._fruitless + 1
        if self._fruitless > FRUITLESS_PAGES:
            raise PagingBroken(
                f"Central's catalogue pages bring nothing new after {self.pages} pages and "
                f"{len(self.catalogue)} products, and do not end; check its paging"
            )

    def _joins(self, request: PageRequest, ids: Set[str], fresh: Set[str]) -> bool:
        """Whether no product can lie unread between this page and those before (F3): it shows one
        that they showed. Pages of a single product cannot overlap; there the order is believed."""
        if request.offset == 0 or not self._has_paged or len(fresh) < len(ids):
            return True
        return bool(ids) and request.offset == self._apart_at

    def _backwards(self, request: PageRequest, page: CataloguePage) -> PageRequest:
        if not page.rows and not page.bad_rows:
            self._nothing_at = request.offset
        offset = max(0, request.offset - self._step_back)
        self._step_back *= 2
        return PageRequest(offset, self._limit)

    def _onwards(
        self, request: PageRequest, page: CataloguePage, is_new: bool
    ) -> PageRequest | None:
        size = len(page.rows) + len(page.bad_rows)
        end = request.offset + size
        more = page.has_more if page.has_more is not None else size > 0
        if page.total is not None:
            more = more or end < page.total
        if not more or size == 0 or (not is_new and self._is_last(request, page, end)):
            return None
        self._adapt_limit(size)
        self._apart_at = end if size == 1 else None
        return PageRequest(end if size == 1 else end - 1, self._limit)

    def _is_last(self, request: PageRequest, page: CataloguePage, end: int) -> bool:
        """Whether a page without a new product is the last one, whatever Central says of more: it
        is just the overlap, or nothing was found behind it."""
        if self._nothing_at is not None and end >= self._nothing_at:
            return True
        is_silent = page.has_more is None and page.total is None
        return is_silent and request.offset > 0 and end == request.offset + 1

    def _adapt_limit(self, size: int) -> None:
        if self._limit == FIRST_LIMIT and size < MODEST_LIMIT:
            self._limit = MODEST_LIMIT

    def _lay_rows(self, page: CataloguePage, known: Set[str]) -> Set[str]:
        """Gives the ids that the copy did not have before."""
        new = self._kept(page.rows, known)
        self.catalogue.fill([(i, new.pop(i)) for i in known if i in new])
        self.catalogue.add(new)
        for bad in page.bad_rows:
            if bad.product_id is None:
                nameless = f"(a row without an id, page {self.pages})"
                self._doubtful[nameless] = bad.reason
            else:
                self._doubts[bad.product_id] = bad.reason
        return new.keys()

    def _kept(self, rows: Rows, known: Set[str]) -> dict[str, bytes]:
        """What of a page goes into the copy, in the page's order. Only what the copy, a deletion
        or the catalogue in place has something else to say of is looked at one by one."""
        ids = rows.ids if self._held is None else self._held.own(rows.ids)
        kept = dict(zip(ids, rows.bodies, strict=True))
        looked_at = (
            self._share(kept) | (known & kept.keys()) | (self.catalogue.tombstones.keys() & kept)
        )
        for product_id in sorted(looked_at):
            if not self._is_news(product_id, kept[product_id]):
                del kept[product_id]
        return kept

    def _share(self, rows: dict[str, bytes]) -> set[str]:
        """Have rows that did not change be those of the catalogue in place; gives the others of
        its products."""
        if self._held is None:
            return set()
        held = {i: row for i in rows if (row := self._held.rows.get(i)) is not None}
        same = {i: row for i, row in held.items() if row == rows[i]}
        rows |= same
        return held.keys() - same.keys()

    def _is_news(self, product_id: str, body: bytes) -> bool:
        """Whether the copy takes the row of a product that may have been read, or changed by an
        event, before: the newer one counts (V3); what looks older is read again by itself."""
        earlier = self.catalogue.rows.get(product_id)
        tombstone = self.catalogue.tombstones.get(product_id)
        if tombstone is not None and version_of(body) <= tombstone.version:
            self._doubts[product_id] = "the page shows a product that the feed says is deleted"
            return False
        if earlier is not None and version_of(earlier) > version_of(body):
            self._doubts[product_id] = "a later page shows an older version"
            return False
        if self._would_lower(product_id, body):
            self._lowered.add(product_id)
        return earlier != body

    def _would_lower(self, product_id: str, body: bytes) -> bool:
        held = self._held.get(product_id) if self._held is not None else None
        return held is not None and self._same_generation and version_of(held) > version_of(body)

    # -- the feed alongside ----------------------------------------------------------------

    def take_events(self, events: Sequence[AnyEvent], *, position: Position, now: float) -> None:
        """Apply events to the copy; nobody sees it yet, so they are made at once."""
        self._note(events)
        self._note_come(events)
        change_set = self._change_set(now)
        apply_events(change_set, events)
        self._make(change_set.to_change("events", position=position))

    def _note(self, events: Sequence[AnyEvent]) -> None:
        of_kind: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        if not events:
            return
        if self._head is None:
            self._head = events[0].offset + NEAR_EVENTS
        should_be_paged = self._head + NEAR_EVENTS
        late: set[str] = set()
        for event in events:
            if isinstance(event, Event):
                of_kind[event.kind].add(event.product_id)
                if event.kind is Kind.CREATED and event.offset <= should_be_paged:
                    late.add(event.product_id)
        self._deleted |= of_kind[Kind.DELETED]
        self._unpaged.update(
            i for i in of_kind[Kind.UPDATED] | late if i not in self.catalogue.rows
        )
        self._unpaged -= of_kind[Kind.CREATED] - late

    def _note_come(self, events: Sequence[AnyEvent]) -> None:
        held = self._held
        if held is None or not held.overrides:
            return
        for event in events:
            if isinstance(event, Event) and event.body and event.product_id in held.overrides:
                shown = held.rows.get(event.product_id)
                if shown is not None and is_same_state(event.body, shown):
                    self._come[event.product_id] = shown

    def _change_set(self, now: float) -> ChangeSet:
        """A product that is held, and that no page has shown yet, begins no life with an event of
        the feed alongside, however unknown it is to the copy."""
        existing: Container[str] = frozenset()
        if self._held is not None and self._same_generation:
            existing = self._held.rows
        return ChangeSet(
            self.catalogue,
            now=now,
            grace_seconds=self._grace_seconds,
            is_partial=True,
            existing=existing,
        )

    # -- doubts ----------------------------------------------------------------------------

    def products_to_refetch(self) -> list[str]:
        """Products to be read by themselves before the copy may go in place: what no page told
        for sure, and what would go back to an older version (V3)."""
        lowered = {i for i in self._lowered if self._is_lower(i)}
        doubted = lowered | self._never_paged() | self._doubts.keys()
        return sorted(doubted - self._doubtful.keys())

    def _never_paged(self) -> set[str]:
        """What only updates told of, or a creation that the pages should have shown: it may have
        been deleted before its page was read, and an event that came late told of it again."""
        return self._unpaged & self._untold

    def _is_lower(self, product_id: str) -> bool:
        """Whether the copy shows an older version than the catalogue in place; versions of another
        generation count for nothing."""
        mine = self.catalogue.rows.get(product_id)
        return mine is not None and self._would_lower(product_id, mine)

    def known_state(self, product_id: str) -> KnownState:
        return KnownState.of(self.catalogue, product_id)

    def apply_refetch(
        self, product_id: str, row: Row | None, *, known: KnownState, now: float
    ) -> None:
        """What Central says of one doubted product holds, unless an event overtook it."""
        change_set = self._change_set(now)
        if not apply_refetch(change_set, product_id, row, known=known, reason=RefetchReason.ORDER):
            return
        self._doubts.pop(product_id, None)
        self._lowered.discard(product_id)
        self._unpaged.discard(product_id)
        if row is not None and self._would_lower(product_id, row.body):
            change_set.begin_incarnation(product_id)  # events of the one before may still come late
        self._make(change_set.to_change("reading"))

    def give_up(self, product_id: str, problem: str, *, now: float) -> None:
        """The product could not be read: keep the fresher row that is held, and list it as
        doubtful; its reading stays owed (F5), for the reason that it had."""
        self._doubtful[product_id] = problem
        held = self._held.get(product_id) if self._held is not None else None
        mine = self.catalogue.rows.get(product_id)
        if held is not None and (mine is None or self._is_lower(product_id)):
            self._make(Change("given up", rows={product_id: held}))
        reason = RefetchReason.ORDER if self._is_in_doubt(product_id) else RefetchReason.UNREADABLE
        self.catalogue.pending_refetches[product_id] = PendingRefetch(reason, now, now, 1, problem)

    @property
    def doubtful(self) -> Mapping[str, str]:
        return self._doubtful

    # -- the end ---------------------------------------------------------------------------

    def finish(
        self,
        *,
        pending_refetches: Mapping[str, PendingRefetch],
        tombstones: Mapping[str, Tombstone],
        now: float,
    ) -> Catalogue:
        """Lay over the copy what the catalogue in place has learned since the run
        began: answers to writes (F4), readings done and owed, and what deletions left."""
        change_set = self._change_set(now)
        self._lay_what_is_ahead(change_set)
        self._leave_out_what_is_gone(change_set, tombstones)
        self._keep_fresher(change_set)
        for answer in self.answers:
            if not apply_answer(change_set, answer):
                apply_answer_figures(change_set, answer)
        self.catalogue.apply(change_set.to_change("answers"))
        for product_id, owed in pending_refetches.items():
            self.catalogue.pending_refetches.setdefault(product_id, owed)
        if self._same_generation:
            for product_id, tombstone in tombstones.items():
                if product_id not in self.catalogue.rows:
                    self.catalogue.tombstones.setdefault(product_id, tombstone)
            if self._held is not None:
                self.catalogue.incarnations = self._held.incarnations | self.catalogue.incarnations
        return self.catalogue

    def _lay_what_is_ahead(self, change_set: ChangeSet) -> None:
        """A reader may have been shown what an answer or a reading said after the copy last
        followed the feed, or of what the feed had lost: it is shown on until Central was asked."""
        held = self._held
        if held is None or not self._same_generation:
            return
        for product_id, entry in held.overrides.items():
            shown = held.rows.get(product_id)
            is_new = entry.since >= self.began_at
            if shown is not None and is_new and not self._is_passed(product_id, shown):
                change_set.put(product_id, shown)
                change_set.add_override(product_id, entry.version)
                change_set.request_refetch(product_id, RefetchReason.CROSSED)

    def _leave_out_what_is_gone(
        self, change_set: ChangeSet, tombstones: Mapping[str, Tombstone]
    ) -> None:
        """The copy may hold a product in an older version than the last that readers saw before
        a reading said that it is gone, or before it went at all, where the copy is in doubt: it
        stays so until Central was asked once more."""
        for product_id, tombstone in tombstones.items() if self._same_generation else ():
            if product_id not in self.catalogue.rows:
                continue
            is_news = tombstone.is_of_refetch and tombstone.at >= self.began_at
            if is_news or (self._is_in_doubt(product_id) and self._lacks(product_id)):
                change_set.delete(product_id, offset=tombstone.offset, version=tombstone.version)
                change_set.request_refetch(product_id, RefetchReason.CROSSED)

    def _is_in_doubt(self, product_id: str) -> bool:
        """Whether it is open of which life the copy's state is."""
        owed = self.catalogue.pending_refetches.get(product_id)
        return owed is not None and owed.reason is RefetchReason.ORDER

    def _lacks(self, product_id: str) -> bool:
        """Whether readers see no such product."""
        return self._held is not None and self._held.get(product_id) is None

    def _is_passed(self, product_id: str, shown: bytes) -> bool:
        """Whether the copy has what readers are shown of a product, or what came after it. That its
        version is higher proves nothing: it may be of the life before."""
        mine = self.catalogue.rows.get(product_id)
        if mine is None or self._is_lower(product_id):
            return False
        return self._come.get(product_id) == shown or is_same_state(mine, shown)

    def _keep_fresher(self, change_set: ChangeSet) -> None:
        """The catalogue in place may have followed the feed past a state that is in doubt in the
        copy, and into another life, which versions do not tell: what readers were shown stays
        until the product was read (V3)."""
        held = self._held
        if held is None or not self._same_generation:
            return
        for product_id in self.catalogue.pending_refetches:
            shown = held.rows.get(product_id)
            if shown is None or shown == self.catalogue.rows.get(product_id):
                continue
            if self._is_in_doubt(product_id) or self._is_lower(product_id):
                change_set.put(product_id, shown)
                change_set.add_override(product_id, version_of(shown))
                change_set.request_refetch(product_id, RefetchReason.CROSSED)

    def judge(self, *, least_percent: int, accept: bool, agreed_products: int | None) -> Verdict:
        """Whether the copy may replace what is held (F5). `agreed_products`: how many an earlier
        reading found that was refused, and may be confirmed by this one within a hundredth."""
        held = 0 if self._held is None else len(self._held)
        expected = held - self._explained()
        found = len(self.catalogue)
        agreed = agreed_products is not None and abs(found - agreed_products) * 100 <= found
        if accept or agreed or held == 0 or found * 100 >= expected * least_percent:
            return Verdict()
        return Verdict(
            f"Central's catalogue has {found} products where {held} are held, fewer than "
            f"SNAPSHOT_MIN_PERCENT={least_percent} allows; the old catalogue is served on. "
            "If Central is right, run a force-sync with ?accept=true"
        )

    def _explained(self) -> int:
        """How many products are missing because the feed says that they were deleted."""
        rows = {} if self._held is None else self._held.rows
        return sum(i in rows and i not in self.catalogue.rows for i in self._deleted)


def _ids_on(page: CataloguePage) -> set[str]:
    return {*page.rows.ids, *_bad_ids_on(page)}


def _bad_ids_on(page: CataloguePage) -> list[str]:
    return [bad.product_id for bad in page.bad_rows if bad.product_id is not None]
