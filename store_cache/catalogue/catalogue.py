"""The catalogue in memory: rows, their order, marks, what is ahead and what is owed.

Knows: how to make a change, and how to answer a read, each in one call without a pause, so that
a reader sees all of a batch or nothing of it (promise 1).
Refuses to know: whether a change is right, and whether it is on disk; `rules` and the keeper do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from store_cache.catalogue.sorted_rows import BLOCK_ROWS, SortedRows
from store_cache.model.change import Change, Override, PendingRefetch, Tombstone
from store_cache.model.position import Position

PART_ROWS = 5_000
"""As many rows are let go at once: about a millisecond."""


class PointInTimeView:
    """The catalogue as it was at one moment, read in parts while changes go on (D3).

    Holds the old row of every product that changed since, and that was not yet read.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.position = catalogue.position
        self.sequence = catalogue.sequence
        self.count = len(catalogue)
        self.tombstones = dict(catalogue.tombstones)
        self.overrides = dict(catalogue.overrides)
        self.pending_refetches = dict(catalogue.pending_refetches)
        self.incarnations = dict(catalogue.incarnations)
        self.in_sync_at = catalogue.in_sync_at
        self.unfollowed_until = catalogue.unfollowed_until
        self.follow_up_reason = catalogue.follow_up_reason
        self._catalogue = catalogue
        self._before: dict[str, bytes | None] = {}
        self._last = ""
        self._is_read = False

    def keep(self, rows: Mapping[str, bytes | None]) -> None:
        """Remember what is about to be overwritten."""
        if self._is_read:
            return
        for product_id, body in rows.items():
            if product_id > self._last:
                self._before.setdefault(product_id, body)

    def next_rows(self, limit: int) -> list[bytes]:
        """The next rows in order of id, some `limit` of them; empty at the end."""
        while not self._is_read:
            ids, rows = self._catalogue.after(self._last, limit)
            end = ids[-1] if len(ids) == limit else None
            old = self._take_before(end)
            self._is_read = end is None
            self._last = end or self._last
            if rows and not old:
                return rows
            merged = dict(zip(ids, rows, strict=True)) | old
            if kept := [body for _, body in sorted(merged.items()) if body is not None]:
                return kept
        return []

    def _take_before(self, end: str | None) -> dict[str, bytes | None]:
        taken = {i: b for i, b in self._before.items() if end is None or i <= end}
        for product_id in taken:
            del self._before[product_id]
        return taken


class Catalogue:
    """All products that the store holds, at one position of the feed.

    `position` is None until a catalogue was installed. `sequence` counts changes (P3).
    `incarnations` says when products were created or deleted lately, `in_sync_at` when the store
    was last in sync with Central (both unix seconds). `unfollowed_until`: it was installed without
    the feed having been followed to its end (F2), so that rows may be newer than events below this
    offset, until the store was in step once; else 0. `follow_up_reason`: why another full sync has
    to follow; or empty. `rows` is for reading: each row is in order besides.
    """

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.overrides: dict[str, Override] = {}
        self.pending_refetches: dict[str, PendingRefetch] = {}
        self.incarnations: dict[str, float] = {}
        self.position: Position | None = None
        self.in_sync_at: float | None = None
        self.unfollowed_until = 0
        self.follow_up_reason = ""
        self.sequence = 0
        self._order = SortedRows(self.rows)
        self._cut: PointInTimeView | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bytes_held(self) -> int:
        """Length of all rows' JSON in bytes."""
        return self._bytes

    # -- reads -----------------------------------------------------------------------------

    def get(self, product_id: str) -> bytes | None:
        return self.rows.get(product_id)

    def page(self, offset: int, limit: int) -> list[bytes]:
        """Rows `offset` to `offset + limit` in code point order of their ids."""
        return self._order.page(offset, limit)

    def page_after(self, product_id: str, limit: int) -> tuple[int, list[bytes]]:
        """The rows behind `product_id` (which need not be held), and the first one's offset."""
        return self._order.page_after(product_id, limit)

    def after(self, product_id: str, limit: int) -> tuple[list[str], list[bytes]]:
        """The ids behind `product_id`, and their rows."""
        return self._order.after(product_id, limit)

    def ids(self) -> Iterator[str]:
        return self._order.ids()

    # -- changes ---------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Make a planned change. It holds absolute states: making it twice changes nothing."""
        self._set(change.rows)
        _merge(self.tombstones, change.tombstones)
        _merge(self.overrides, change.overrides)
        _merge(self.pending_refetches, change.pending_refetches)
        _merge(self.incarnations, change.incarnations)
        if change.position is not None:
            self.position = change.position
        if change.in_sync_at is not None:
            self.in_sync_at = change.in_sync_at
            self.unfollowed_until = 0
        self.sequence = max(self.sequence, change.sequence)

    def load(self, ids: Sequence[str], bodies: Sequence[bytes]) -> None:
        """Take many rows at once. Nothing of them is looked at one by one where they are in order
        and behind all that are held, as a snapshot's are."""
        if self._cut is None and self._order.is_behind(ids):
            self._add(ids, bodies)
        else:
            self.fill(zip(ids, bodies, strict=True))

    def fill(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Take many rows; the later one of a product counts."""
        self._set(dict(rows))

    def among(self, ids: Sequence[str]) -> set[str]:
        """Those that are held; of a page that is in order without a look-up for each."""
        there = self._order.among(ids)
        return set(filter(self.rows.__contains__, ids)) if there is None else there

    def own(self, ids: Sequence[str]) -> Sequence[str]:
        """The same ids, as the objects that are held where they are, so that whoever keeps them
        keeps no second one of each."""
        return self._order.own(ids)

    def add(self, rows: Mapping[str, bytes]) -> None:
        """Take products that are not held."""
        if self._cut is not None:
            self._cut.keep(dict.fromkeys(rows))
        ids = sorted(rows)
        self._add(ids, list(map(rows.__getitem__, ids)))

    def index(self) -> None:
        """Count the places after `fill`, which else the first read does."""
        self._order.count()

    def dismantle(self) -> Iterator[None]:
        """Let go of the rows part by part; all at once, a million would hold the loop for 40 ms
        and more. Nobody may read the catalogue from now on; who does so meets an error."""
        rows, order = self.rows, self._order
        del self.rows, self._order
        while rows:
            order.shorten(PART_ROWS // BLOCK_ROWS)
            for _ in range(min(PART_ROWS, len(rows))):
                rows.popitem()
            yield

    def _set(self, rows: Mapping[str, bytes | None]) -> None:
        """Set, take or, where a row is None, let go of products."""
        old = list(map(self.rows.get, rows))
        if self._cut is not None:
            self._cut.keep(dict(zip(rows, old, strict=True)))
        if all(old) and all(rows.values()):  # as nearly all changes are
            self._replace(cast("Mapping[str, bytes]", rows), cast("list[bytes]", old))
        else:
            self._come_and_go(rows)

    def _come_and_go(self, rows: Mapping[str, bytes | None]) -> None:
        held = {i: body for i, body in rows.items() if body is not None and i in self.rows}
        self._replace(held, list(map(self.rows.__getitem__, held)))
        self._remove(i for i, body in rows.items() if body is None and i in self.rows)
        new = {i: body for i, body in rows.items() if body is not None and i not in self.rows}
        ids = sorted(new)
        self._add(ids, list(map(new.__getitem__, ids)))

    def _replace(self, rows: Mapping[str, bytes], old: Sequence[bytes]) -> None:
        """Set the rows of products that are held, and have the `old` ones."""
        self._bytes += _length(rows.values()) - _length(old)
        self.rows.update(rows)
        self._order.replace(rows)

    def _add(self, ids: Sequence[str], bodies: Sequence[bytes]) -> None:
        """Take products that are not held, in order."""
        self._bytes += _length(bodies)
        self.rows.update(zip(ids, bodies, strict=True))
        self._order.add(ids, bodies)

    def _remove(self, product_ids: Iterable[str]) -> None:
        """Let go of products that are held."""
        for product_id in list(product_ids):
            self._bytes -= len(self.rows.pop(product_id))
            self._order.remove(product_id)

    def forget(self, *, before: float, at_most: int) -> None:
        """Drop marks and lives that are older than `before` (unix seconds) or too many; they
        matter no more, so their going needs no record."""
        _forget(self.tombstones, lambda mark: mark.at < before, at_most)
        _forget(self.incarnations, lambda at: at < before, at_most)

    # -- cuts ------------------------------------------------------------------------------

    def begin_view(self) -> PointInTimeView:
        """Start reading the catalogue as it is now; one cut at a time."""
        if self._cut is not None:
            raise RuntimeError("a cut is being read already")
        self._cut = PointInTimeView(self)
        return self._cut

    def end_view(self) -> None:
        self._cut = None


def _length(bodies: Iterable[bytes]) -> int:
    return sum(map(len, bodies))


def _merge(held: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, item in wanted.items():
        held.pop(key, None)  # what is renewed goes to the end: `_forget` takes the oldest first
        if item is not None:
            held[key] = item


def _forget(held: dict[str, Any], is_old: Callable[[Any], bool], at_most: int) -> None:
    while held and (len(held) > at_most or is_old(next(iter(held.values())))):
        del held[next(iter(held))]
