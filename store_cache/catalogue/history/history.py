"""Follows the visible catalogue and keeps what happened to its products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import orjson

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.history.entries import Entries, Entry
from store_cache.catalogue.observer import ChangeSource, Origin, VisibleChange
from store_cache.model.event import Event, Kind
from store_cache.model.product import Row, read_row

_MOST_UNTOLD = 8
"""How many of a product's entries may wait for the event that tells them."""


@dataclass(frozen=True, slots=True)
class ProductHistory:
    """`changes`: newest first. `is_complete`: they are all that happened since the history began:
    none was forgotten or left out, and none happened unseen."""

    changes: Sequence[Entry]
    is_complete: bool


class ChangeHistory:
    """Keeps the last `limit` changes of all products. `since`: when it began, in unix seconds.

    `now` gives unix seconds. `store_id`: writes of this store carry their keys.
    """

    def __init__(self, limit: int, *, store_id: str, now: Callable[[], float]) -> None:
        self._entries = Entries(limit)
        self._store_id = store_id
        self._now = now
        self.since = self._now()

    def of(self, product_id: str, limit: int) -> ProductHistory:
        """Return the last `limit` changes of a product."""
        found = [entry for _, entry in islice(self._entries.newest_first(product_id), limit + 1)]
        changes = found[:limit]
        has_gap = any(entry.is_gap for entry in changes)
        is_complete = len(found) <= limit and not has_gap and self._entries.is_whole(product_id)
        return ProductHistory(changes, is_complete)

    # -- what the announcer tells ----------------------------------------------------------

    def changed(self, _catalogue: Catalogue, change: VisibleChange) -> None:
        at, origin = self._now(), change.origin
        events = _by_product(origin)
        for product_id, body in change.rows.items():
            old = change.old_rows[product_id]
            old_row = None if old is None else read_row(old)
            told = events.pop(product_id, ())
            if body is None:
                self._add_deletion(product_id, told, at, origin.source)
                continue
            row = read_row(body)
            if old_row is not None and _figures(old_row) == _figures(row):
                # Version and stock stay: an event that completes the row of an answer.
                self._note_offsets(product_id, told)
            elif not self._add_each(product_id, told, at, old_row, row):
                event = next((one for one in reversed(told) if one.body == body), None)
                self._add_row(product_id, event, at, old_row, row, origin)
        for product_id, told in events.items():
            self._note_offsets(product_id, told)

    def replaced(self, _old: Catalogue | None, _new: Catalogue) -> None:
        """The differences follow; the first catalogue is no change."""

    def reset(self) -> None:
        self._entries.clear()
        self.since = self._now()

    # -- entries ---------------------------------------------------------------------------

    def _add_each(
        self, product_id: str, told: Sequence[Event], at: float, old: Row | None, new: Row
    ) -> bool:
        """Add an entry for each of several events of one batch, if each led on from the one before.

        Readers saw them as one change. Return False, adding nothing, if they were something else.
        """
        if len(told) < 2 or old is None or told[-1].body != new.body:
            return False
        steps = [event for event in told if event.version > old.version]
        versions = list(range(old.version + 1, new.version + 1))
        if not versions or [event.version for event in steps] != versions:
            return False
        if any(event.kind is not Kind.UPDATED for event in steps):
            return False
        before = old
        for event in steps:
            assert event.body is not None
            row = read_row(event.body)
            self._add_row(product_id, event, at, before, row, Origin(ChangeSource.EVENT))
            before = row
        return True

    def _add_row(
        self,
        product_id: str,
        event: Event | None,
        at: float,
        old: Row | None,
        new: Row,
        origin: Origin,
    ) -> None:
        """Add an entry for a row; `event` is the one that told it."""
        key = self._key_of(event) if event is not None else _key_in(origin.key_entry)
        source = origin.source if key is None else ChangeSource.WRITE
        is_step = old is not None and new.version == old.version + 1
        is_creation = old is None and event is not None and event.kind is Kind.CREATED
        entry = Entry(
            new.version,
            new.available,
            new.available - old.available if is_step and old is not None else None,
            at,
            source,
            None if event is None else event.offset,
            is_gap=not (is_step or is_creation),
            key=key,
        )
        self._entries.add(product_id, entry)

    def _add_deletion(
        self, product_id: str, told: Sequence[Event], at: float, source: ChangeSource
    ) -> None:
        event = next((one for one in reversed(told) if one.body is None), None)
        version = event.version or None if event is not None else None
        offset = None if event is None else event.offset
        self._entries.add(product_id, Entry(version, None, None, at, source, offset))

    def _note_offsets(self, product_id: str, told: Sequence[Event]) -> None:
        """Complete entries that were seen before their event, as answers to writes are."""
        offsets = {event.version: event.offset for event in told if event.body is not None}
        newest = islice(self._entries.newest_first(product_id), _MOST_UNTOLD)
        for number, entry in newest:
            if not offsets:
                return
            is_untold = entry.offset is None and entry.available is not None
            if is_untold and entry.version in offsets:
                completed = replace(entry, offset=offsets.pop(entry.version))
                self._entries.replace(number, completed)

    def _key_of(self, event: Event) -> str | None:
        """Return the key of this store's write that caused an event, as the till sent it."""
        write = event.write
        if write is None or write.store_id != self._store_id:
            return None
        # Central has it behind the store's id, with the number of a further attempt.
        return write.key.removeprefix(f"{self._store_id}-").partition("~")[0] or None


def _figures(row: Row) -> tuple[int, int]:
    return row.version, row.available


def _by_product(origin: Origin) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = {}
    for event in origin.events:
        if isinstance(event, Event):
            events.setdefault(event.product_id, []).append(event)
    return events


def _key_in(key_entry: bytes | None) -> str | None:
    """Return the key in a record of the key table."""
    return None if key_entry is None else orjson.loads(key_entry)["key"]
