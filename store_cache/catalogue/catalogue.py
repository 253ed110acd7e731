"""The products in memory, and what is known about them besides their rows.

Each read and each change is one call without a pause, so a reader sees all of a batch or nothing of
it (promise 1). Whether a change is right is decided before (`apply.py`), and the writer puts it on
disk first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from store_cache.catalogue.sorted_rows import BLOCK_ROWS, SortedRows
from store_cache.model.change import Change, Override, PendingRefetch, Tombstone
from store_cache.model.position import Position

UNFOLLOWED = "the feed could not be followed during the full sync"
"""Why another full sync has to follow pages that were installed without the feed (F2). Their rows
are of no one moment, so no events can be applied to them."""

PART_ROWS = 5_000
"""Rows that `dismantle` frees at once, which takes about a millisecond."""


class PointInTimeView:
    """The catalogue as it was at one moment, read in parts while changes go on (D3).

    It keeps the old row of every product that has changed since and was not read before that.
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
        self.follow_up_reason = catalogue.follow_up_reason
        self._catalogue = catalogue
        self._old_rows: dict[str, bytes | None] = {}
        self._removed: set[str] = set()  # of these the ones that were removed since
        self._last_id = ""
        self._is_read = False

    def save_old(self, old: Mapping[str, bytes | None], new: Mapping[str, bytes | None]) -> None:
        """Save rows that are about to be replaced by `new`; None where there is none."""
        if self._is_read:
            return
        for product_id, row in old.items():
            if product_id > self._last_id:
                self._old_rows.setdefault(product_id, row)
                if new[product_id] is None:
                    self._removed.add(product_id)

    def next_rows(self, limit: int) -> list[bytes]:
        """Return about `limit` further rows in the order of their ids; none at the end."""
        while not self._is_read:
            ids, rows = self._catalogue.after(self._last_id, limit)
            end = ids[-1] if len(ids) == limit else None
            changed = self._old_rows.keys() & ids
            changed |= {i for i in self._removed if end is None or i <= end}
            self._removed -= changed
            old_rows = {i: self._old_rows.pop(i) for i in changed}
            self._is_read = end is None
            self._last_id = end or self._last_id
            if rows and not old_rows:
                return rows
            merged = dict(zip(ids, rows, strict=True)) | old_rows
            if found := [row for _, row in sorted(merged.items()) if row is not None]:
                return found
        return []


class Catalogue:
    """All products that the store holds, at one position of the feed.

    `rows`: by product id; for reading only, since their order is kept beside them.
    `tombstones`, `overrides`, `pending_refetches`: by product id; see `apply.py`.
    `incarnations`: when an incarnation of a product began or ended lately (unix seconds).
    `position`: None until a catalogue was installed.
    `sequence`: the number of the last change (P3).
    `in_sync_at`: when the store was last in sync with Central, in unix seconds of the wall clock,
    unlike `State.in_sync_at`.
    `follow_up_reason`: why another full sync has to follow, or empty.
    """

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.overrides: dict[str, Override] = {}
        self.pending_refetches: dict[str, PendingRefetch] = {}
        self.incarnations: dict[str, float] = {}
        self.position: Position | None = None
        self.in_sync_at: float | None = None
        self.follow_up_reason = ""
        self.sequence = 0
        self._order = SortedRows(self.rows)
        self._views: list[PointInTimeView] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bytes_held(self) -> int:
        """Length of all rows' JSON in bytes."""
        return self._bytes

    @property
    def is_unfollowed(self) -> bool:
        """Whether it was installed without the feed, which cannot be followed from it."""
        return self.follow_up_reason == UNFOLLOWED

    # -- reads -----------------------------------------------------------------------------

    def get(self, product_id: str) -> bytes | None:
        return self.rows.get(product_id)

    def page(self, offset: int, limit: int) -> list[bytes]:
        """Return rows `offset` to `offset + limit` in code point order of their ids."""
        return self._order.page(offset, limit)

    def page_after(self, product_id: str, limit: int) -> tuple[int, list[bytes]]:
        """Return the offset of the first row after `product_id`, and the rows from there.

        `product_id` need not be held.
        """
        return self._order.page_after(product_id, limit)

    def after(self, product_id: str, limit: int) -> tuple[list[str], list[bytes]]:
        """Return the ids after `product_id`, and their rows."""
        return self._order.after(product_id, limit)

    def ids(self) -> Iterator[str]:
        return self._order.ids()

    def among(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that are held. Sorted ids need no lookup of each."""
        found = self._order.among(ids)
        return set(filter(self.rows.__contains__, ids)) if found is None else found

    def reuse_ids(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the ids, reusing the string objects already held, to save memory."""
        return self._order.reuse_ids(ids) if self.rows else ids

    # -- changes ---------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Apply a change. It holds absolute states, so that applying it twice changes nothing."""
        self._set(change.rows)
        _merge(self.tombstones, change.tombstones)
        _merge(self.overrides, change.overrides)
        _merge(self.pending_refetches, change.pending_refetches)
        _merge(self.incarnations, change.incarnations)
        if change.position is not None:
            self.position = change.position
        if change.in_sync_at is not None:
            self.in_sync_at = change.in_sync_at
        self.follow_up_reason = change.follow_up_reason or self.follow_up_reason
        self.sequence = max(self.sequence, change.sequence)

    def load(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        """Set many rows. If they are sorted and follow all that are held, as those of a snapshot
        do, none is looked at by itself."""
        if not self._views and self._order.is_behind(ids):
            self._add(ids, rows)
        else:
            self.fill(zip(ids, rows, strict=True))

    def fill(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Set many rows; of two of one product the later one counts."""
        self._set(dict(rows))

    def add(self, rows: Mapping[str, bytes]) -> None:
        """Add products that are not held."""
        for view in self._views:
            view.save_old(dict.fromkeys(rows), rows)
        ids = sorted(rows)
        self._add(ids, list(map(rows.__getitem__, ids)))

    def index(self) -> None:
        """Count offsets now, after `fill`, instead of in the first read."""
        self._order.count()

    def dismantle(self) -> Iterator[None]:
        """Free the rows in parts. All at once, a million would block the loop for 40 ms and more.

        The catalogue must not be read any more: a read raises an error.
        """
        rows, order = self.rows, self._order
        del self.rows, self._order
        while rows:
            order.shorten(PART_ROWS // BLOCK_ROWS)
            for _ in range(min(PART_ROWS, len(rows))):
                rows.popitem()
            yield

    def forget(self, *, before: float, at_most: int) -> None:
        """Drop tombstones and incarnations from before `before` (unix seconds), or beyond
        `at_most`. They matter no more, so this is not written to disk."""
        _forget(self.tombstones, lambda tombstone: tombstone.at < before, at_most)
        _forget(self.incarnations, lambda at: at < before, at_most)

    def _set(self, rows: Mapping[str, bytes | None]) -> None:
        """Set or, where a row is None, remove products."""
        old = list(map(self.rows.get, rows))
        for view in self._views:
            view.save_old(dict(zip(rows, old, strict=True)), rows)
        if all(old) and all(rows.values()):  # nearly all changes
            self._replace(cast("Mapping[str, bytes]", rows), cast("list[bytes]", old))
            return
        present = {i: row for i, row in rows.items() if row is not None and i in self.rows}
        self._replace(present, list(map(self.rows.__getitem__, present)))
        for product_id in [i for i, row in rows.items() if row is None and i in self.rows]:
            self._bytes -= len(self.rows.pop(product_id))
            self._order.remove(product_id)
        new = {i: row for i, row in rows.items() if row is not None and i not in self.rows}
        ids = sorted(new)
        self._add(ids, list(map(new.__getitem__, ids)))

    def _replace(self, rows: Mapping[str, bytes], old: Sequence[bytes]) -> None:
        """Set the rows of products that are held, instead of the `old` ones."""
        self._bytes += sum(map(len, rows.values())) - sum(map(len, old))
        self.rows.update(rows)
        self._order.replace(rows)

    def _add(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        """Add products that are not held, sorted."""
        self._bytes += sum(map(len, rows))
        self.rows.update(zip(ids, rows, strict=True))
        self._order.add(ids, rows)

    # -- views -----------------------------------------------------------------------------

    @property
    def is_viewed(self) -> bool:
        """Whether a view is still being read."""
        return bool(self._views)

    def begin_view(self) -> PointInTimeView:
        """Return a view of the catalogue as it is now. Each one keeps old rows until `end_view`."""
        view = PointInTimeView(self)
        self._views.append(view)
        return view

    def end_view(self, view: PointInTimeView) -> None:
        self._views.remove(view)


def _merge(held: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, item in new.items():
        held.pop(key, None)  # a renewed entry moves to the end: `_forget` drops the oldest first
        if item is not None:
            held[key] = item


def _forget(held: dict[str, Any], is_old: Callable[[Any], bool], at_most: int) -> None:
    while held and (len(held) > at_most or is_old(next(iter(held.values())))):
        del held[next(iter(held))]
