"""The replica of Central's catalogue that a full sync builds (F2, F3, F4, F5, V3).

A full sync reads Central's catalogue page by page while products change, so pages alone show a
mixture of moments. The feed is therefore followed alongside, from a little before the first page,
and each event is applied to the replica as to the catalogue that readers see, the *held* one.

A page may be older than an event or than another page. Within one generation the higher version
counts. Meanwhile readers are shown the held catalogue, which answers and refetches change. Where
the two disagree about a product that was touched since the full sync began, or a page cannot be
trusted, `finish` keeps what readers saw and has the product refetched. So the installation takes no
reader a step back.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Mapping, Sequence, Set
from dataclasses import dataclass

from store_cache.catalogue.apply import NEAR_EVENTS, apply_answers, apply_events
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet
from store_cache.catalogue.paging import PagedIds, Paging
from store_cache.model.change import Change, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind
from store_cache.model.pages import CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Rows, version_of
from store_cache.model.stock import StockAnswer

ROWS_AT_ONCE = 2000
"""Rows taken of a page before other tasks may run: some five milliseconds."""


@dataclass(frozen=True, slots=True)
class Installation:
    """How a finished replica takes the place of the catalogue that readers see.

    `position`: where the replica stands in the feed. `age_seconds`: how long ago Central is known
    to have been in the replica's state. `accept`: an operator takes it, however small it is.
    `agreed_products`: how many products a refused full sync found long enough ago to be confirmed
    by this one (F5). `follow_up_reason`: why another full sync has to follow, or empty.
    """

    position: Position
    age_seconds: float = 0.0
    accept: bool = False
    agreed_products: int | None = None
    follow_up_reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a finished replica may be installed (F5); if not, `problem` says why. `found`: how
    many products it has, with those in doubt that stay."""

    found: int
    problem: str = ""

    @property
    def accepted(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class _Part:
    """Some products of a page. `with_row`: those of which the replica had a row before the page."""

    rows: Rows
    ids: set[str]
    with_row: set[str]


class Replica:
    """The replica of one full sync, under construction in `catalogue`.

    `held`: the catalogue that readers see meanwhile; None if there is none yet. Rows that did not
    change are shared with it. `same_generation`: its versions can be compared with Central's (V3).
    `now`: unix seconds. `grace_seconds`: see `ChangeSet`.
    """

    def __init__(
        self, *, held: Catalogue | None, same_generation: bool, now: float, grace_seconds: float
    ) -> None:
        self.catalogue = Catalogue()
        self.began_at = now
        self.answers: list[StockAnswer] = []
        """Answers to writes since it began, in order; `finish` applies them (F4)."""
        self.paged = PagedIds()
        self._paging = Paging()
        self._held = Catalogue() if held is None else held
        self._same_generation = same_generation
        self._grace_seconds = grace_seconds
        self._head: int | None = None
        """Every page reflects the events before this offset."""
        self._untrusted: set[str] = set()
        """Products of which a page had an unreadable row, or one that an event contradicts."""
        self._lowered: set[str] = set()
        """Products of which a page showed an older version than the held one."""
        self._expected: set[str] = set()
        """Products that events told of, and that pages should show."""
        self._deleted: set[str] = set()
        """Products that the feed deleted."""

    # -- pages -----------------------------------------------------------------------------

    def first_request(self) -> PageRequest:
        return self._paging.first_request()

    def take_page(self, request: PageRequest, page: CataloguePage) -> PageRequest | None:
        """Apply a page and return the request for the next one; None at the end.

        Raises PagingBroken.
        """
        steps = self.take_page_in_parts(request, page)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                following: PageRequest | None = end.value
                return following

    def take_page_in_parts(
        self, request: PageRequest, page: CataloguePage
    ) -> Generator[None, None, PageRequest | None]:
        """Apply a page, and pause between every `ROWS_AT_ONCE` rows: some Centrals send all they
        have at once. Return the request for the next page; None at the end.

        Raises PagingBroken.
        """
        if self._paging.pages == 0:
            self._head = page.event_offset
        bad_ids = [bad.product_id for bad in page.bad_rows if bad.product_id is not None]
        parts = [_Part(Rows.of(()), {*bad_ids}, self.catalogue.among(bad_ids))]
        for rows in page.rows.parts(ROWS_AT_ONCE):
            if len(parts) > 1:
                yield
            parts.append(_Part(rows, {*rows.ids}, self.catalogue.among(rows.ids)))
        shown = sum(len(part.ids) for part in parts)
        unseen = sum(len(self.paged.unseen(part.ids, part.with_row)) for part in parts)
        joins = self._paging.joins(request, page, shown=shown, unseen=unseen)
        is_new = joins and unseen > 0
        self._paging.count(is_new=is_new, products=len(self.catalogue))
        if not joins:
            return self._paging.step_back(request, page)
        for number, part in enumerate(parts):
            if number > 1:
                yield
            added = self._store_rows(part.rows, part.with_row)
            self.paged.note_page(part.ids, without_row=part.ids - part.with_row - added)
        self._untrusted.update(bad_ids)
        return self._paging.following(request, page, is_new=is_new)

    def _store_rows(self, page_rows: Rows, with_row: Set[str]) -> Set[str]:
        """Store the rows of a page that the replica accepts; return the ids that it had no row of.

        Works by columns: a row is only looked at by itself if a row, a tombstone or the held
        catalogue says something else about the product.
        """
        held = self._held
        rows = dict(zip(held.reuse_ids(page_rows.ids), page_rows.bodies, strict=True))
        contested = (with_row & rows.keys()) | (self.catalogue.tombstones.keys() & rows.keys())
        if held.rows:
            held_rows = {i: row for i in rows if (row := held.rows.get(i)) is not None}
            unchanged = {i: row for i, row in held_rows.items() if row == rows[i]}
            rows |= unchanged  # shares the held bytes
            contested |= held_rows.keys() - unchanged.keys()
        for product_id in contested:
            if not self._accepts(product_id, rows[product_id]):
                del rows[product_id]
        self.catalogue.fill([(i, rows.pop(i)) for i in with_row if i in rows])
        self.catalogue.add(rows)
        return rows.keys()

    def _accepts(self, product_id: str, row: bytes) -> bool:
        """Return whether the replica takes a page's row of a product about which more is known.

        The newer version counts (V3). A product whose row looks too old is refetched.
        """
        current = self.catalogue.rows.get(product_id)
        tombstone = self.catalogue.tombstones.get(product_id)
        is_deleted = tombstone is not None and version_of(row) <= tombstone.version
        if is_deleted or (current is not None and version_of(row) < version_of(current)):
            self._untrusted.add(product_id)
            return False
        if self._is_older_than_held(product_id, row):
            self._lowered.add(product_id)
        return current != row

    def _is_older_than_held(self, product_id: str, row: bytes | None) -> bool:
        """Return whether a row would lower the held version, if the two can be compared."""
        held = self._held.get(product_id)
        if row is None or held is None or not self._same_generation:
            return False
        return version_of(held) > version_of(row)

    def _lowers(self, product_id: str) -> bool:
        """Return whether the replica's own row would lower the held version."""
        return self._is_older_than_held(product_id, self.catalogue.get(product_id))

    # -- the feed alongside ----------------------------------------------------------------

    def take_events(self, events: Sequence[AnyEvent], *, position: Position, now: float) -> int:
        """Apply events, at once, since readers do not see the replica yet. Return how many of them
        set a row."""
        self._note_events(events)
        change_set = self._change_set(now)
        apply_events(change_set, events)
        self._apply(change_set.to_change("events", position=position))
        return change_set.rows_set

    def _note_events(self, events: Sequence[AnyEvent]) -> None:
        """Note which products pages should show, and which were deleted.

        A product that only updates tell of was created before the feed was followed, so that its
        page shows it, unless it was deleted before and the updates were published late. The same
        holds for a creation near or before the head that the pages reflect.
        """
        if events and self._head is None:
            self._head = events[0].offset + NEAR_EVENTS
        paged_until = (self._head or 0) + NEAR_EVENTS
        updated: set[str] = set()
        created: set[str] = set()
        created_late: set[str] = set()
        for event in events:
            if not isinstance(event, Event):
                continue
            product_id = event.product_id
            if event.kind is Kind.DELETED:
                self._deleted.add(product_id)
            elif event.kind is Kind.UPDATED:
                updated.add(product_id)
            else:
                (created if event.offset > paged_until else created_late).add(product_id)
        rows = self.catalogue.rows
        self._expected.update(i for i in updated | created_late if i not in rows)
        self._expected -= created - created_late

    def _change_set(self, now: float) -> ChangeSet:
        """Return a change set over the replica.

        A held product whose page is still to come exists, so its first event begins no incarnation.
        """
        existing: Container[str] = self._held.rows if self._same_generation else frozenset()
        return ChangeSet(
            self.catalogue,
            now=now,
            grace_seconds=self._grace_seconds,
            is_partial=True,
            existing=existing,
        )

    def _apply(self, change: Change) -> None:
        self.paged.note_change(change.rows, self.catalogue.rows)
        self.catalogue.apply(change)

    # -- doubts ----------------------------------------------------------------------------

    def in_doubt(self) -> set[str]:
        """Return the products of which no page told for sure (F5), that would go back to an older
        version (V3), or that no page showed although events told of them."""
        lowered = {product_id for product_id in self._lowered if self._lowers(product_id)}
        return self._untrusted | lowered | self._not_shown()

    def _not_shown(self) -> set[str]:
        return self._expected & self.paged.unseen_rows

    def _touched(self) -> set[str]:
        """Return the products of which the replica may know less than readers saw.

        Answers and refetches have changed them since the full sync began, or it is not known of
        which incarnation the replica's state is.
        """
        overrides, pending = self._held.overrides.items(), self.catalogue.pending_refetches.items()
        touched = {i for i, override in overrides if override.since >= self.began_at}
        touched |= {i for i, refetch in pending if refetch.reason is RefetchReason.ORDER}
        return touched | self._not_shown()

    # -- the end ---------------------------------------------------------------------------

    def finish(
        self,
        *,
        pending_refetches: Mapping[str, PendingRefetch],
        tombstones: Mapping[str, Tombstone],
        now: float,
    ) -> Catalogue:
        """Carry over what the held catalogue has learned since the full sync began (F4).

        `pending_refetches`: requested since then. `tombstones`: all that are held. Return the
        catalogue to install.
        """
        change_set = self._change_set(now)
        if self._same_generation:
            for product_id in sorted(self._touched()):
                self._keep(change_set, product_id, tombstones.get(product_id))
        for product_id in sorted(self.in_doubt()):
            shown = self._held.get(product_id)
            is_fresher = change_set.row(product_id) is None or self._lowers(product_id)
            if shown is not None and is_fresher:
                change_set.set_row(product_id, shown)
            if change_set.pending_refetch(product_id) is None:
                change_set.request_refetch(product_id, RefetchReason.UNREADABLE)
        apply_answers(change_set, self.answers)
        catalogue = self.catalogue
        catalogue.apply(change_set.to_change("answers"))
        for product_id, pending in pending_refetches.items():
            catalogue.pending_refetches.setdefault(product_id, pending)
        if self._same_generation:
            for product_id, tombstone in tombstones.items():
                if product_id not in catalogue.rows:
                    catalogue.tombstones.setdefault(product_id, tombstone)
            catalogue.incarnations = self._held.incarnations | catalogue.incarnations
        return catalogue

    def _keep(self, change_set: ChangeSet, product_id: str, tombstone: Tombstone | None) -> None:
        """Keep showing what readers saw, where the replica has something else, until Central is
        asked once more, at once."""
        shown, row = self._held.get(product_id), self.catalogue.get(product_id)
        if shown == row or (shown is None and tombstone is None):
            return
        if shown is not None:
            change_set.set_row(product_id, shown)
            change_set.add_override(product_id, version_of(shown))
        elif tombstone is not None:
            change_set.delete(product_id, offset=tombstone.offset, version=tombstone.version)
        change_set.request_refetch(product_id, RefetchReason.CROSSED)

    def judge(self, installation: Installation, *, least_percent: int) -> Verdict:
        """Decide whether the replica may be installed (F5).

        Fewer than `least_percent` of the held products are refused, unless deletions on the feed,
        an operator, or an earlier full sync within one hundredth of as many explain it.
        """
        held, agreed = len(self._held), installation.agreed_products
        rows = self.catalogue.rows
        kept = sum(i in self._held.rows and i not in rows for i in self.in_doubt())
        found = len(self.catalogue) + kept
        deleted = sum(i in self._held.rows and i not in rows for i in self._deleted)
        is_confirmed = agreed is not None and abs(found - agreed) * 100 <= found
        is_large = found * 100 >= (held - deleted) * least_percent
        if installation.accept or is_confirmed or is_large:
            return Verdict(found)
        return Verdict(
            found,
            f"Central's catalogue has {found} products where {held} are held, fewer than "
            f"SNAPSHOT_MIN_PERCENT={least_percent} allows; the old catalogue is served on. "
            "If Central is right, run a force-sync with ?accept=true",
        )
