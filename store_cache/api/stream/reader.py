"""One reader's place among the changes, and what it gets next.

A reader that begins at the start is led through the products in the order of their ids, a part at a
time, while changes go on. Changes of products behind it are told in between; a product ahead of it
is told when its turn comes, as it is by then. So it never holds an older state than one that it
was told before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from store_cache.api.stream import blocks
from store_cache.api.stream.feed import PART_BYTES, ChangeFeed, ResetReason
from store_cache.api.stream.state import StreamState
from store_cache.catalogue.catalogue import Catalogue

_PART_PRODUCTS = 100


class Reader:
    """`wanted`: the ids of the products that the reader wants; None for every product.

    Call `begin` once. Without a catalogue nothing can be read.
    """

    __slots__ = (
        "_cursor",
        "_epoch",
        "_feed",
        "_ids",
        "_state",
        "_told_state",
        "_walked",
        "_wanted",
    )

    def __init__(
        self, feed: ChangeFeed, state: StreamState, wanted: Iterable[str] | None = None
    ) -> None:
        self._feed = feed
        self._state = state
        self._wanted = None if wanted is None else frozenset(wanted)
        self._ids = [] if self._wanted is None else sorted(self._wanted)
        self._epoch = feed.epoch
        self._cursor = feed.ring.head
        self._walked: str | None = None  # the last product told from the start; None: all were
        self._told_state = 0

    def begin(self, *, last_event_id: str | None, from_start: bool) -> bytes:
        """Return the first events: the state, and a reset if nothing goes on from `last_event_id`.

        Without a last id a reader begins with the next change, or from the start.
        """
        place = None if last_event_id is None else self._feed.find(last_event_id)
        events = []
        if isinstance(place, int):
            self._cursor = place
        elif place is not None:
            events.append(self._begin_again(place))
        elif from_start:
            self._walked = ""
        is_at_head = place is None and not from_start
        event_id = self._feed.event_id(self._cursor) if is_at_head else None
        self._told_state = self._state.number
        return b"".join([self._state.event(event_id), *events])

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to take."""
        feed = self._feed
        return (
            self._cursor == feed.ring.head
            and self._walked is None
            and self._epoch == feed.epoch
            and self._told_state == self._state.number
        )

    def take(self) -> bytes:
        """Return the next events, about `PART_BYTES` of them; empty if there are none."""
        feed = self._feed
        events: list[bytes] = []
        if self._told_state != self._state.number:
            self._told_state = self._state.number
            events.append(self._state.last_event)
        if self._epoch != feed.epoch:
            events.append(self._begin_again(feed.end_of_last_epoch))
        elif not feed.ring.holds_all_after(self._cursor):
            events.append(self._begin_again(ResetReason.EXPIRED))
        if self._cursor != feed.ring.head:
            events += self._next_changes()
        if self._walked is not None and self._cursor == feed.ring.head:
            events += self._next_products()
        return b"".join(events)

    def position(self) -> bytes:
        """Return an event that says how far the reader is; empty if that is not known just now."""
        if not (self.is_current and self._feed.is_complete):
            return b""
        return self._state.position(self._feed.event_id(self._cursor))

    def _begin_again(self, reason: ResetReason) -> bytes:
        self._feed.resets += 1
        self._epoch = self._feed.epoch
        self._cursor = self._feed.ring.head
        self._walked = ""
        return blocks.document("reset", {"reason": reason.value})

    def _next_changes(self) -> list[bytes]:
        if self._wanted is None and self._walked is None:
            part, self._cursor = self._feed.part_after(self._cursor)
            return [part]
        wanted, walked = self._wanted, self._walked
        events: list[bytes] = []
        size = 0
        for number, (product_id, event) in self._feed.ring.after(self._cursor):
            if wanted is not None and product_id not in wanted:
                continue
            if walked is not None and product_id > walked:
                continue
            events.append(event)
            size += len(event)
            if size > PART_BYTES:
                self._cursor = number
                return events
        self._cursor = self._feed.ring.head
        return events

    def _next_products(self) -> list[bytes]:
        catalogue = self._feed.catalogue
        if catalogue is None or self._walked is None:
            return []
        ids, rows, is_last = self._products_after(catalogue, self._walked)
        events: list[bytes] = []
        size = 0
        for product_id, row in zip(ids, rows, strict=True):
            if size > PART_BYTES:
                return events
            self._walked = product_id
            if row is not None:
                events.append(blocks.product(self._feed.shown(row)))
                size += len(row)
        if is_last and self._feed.is_complete:
            self._walked = None
            events.append(self._ready(catalogue))
        return events

    def _products_after(
        self, catalogue: Catalogue, walked: str
    ) -> tuple[list[str], list[bytes | None], bool]:
        """Return ids and rows of the next products, and whether they are the last ones."""
        if self._wanted is None:
            ids, rows = catalogue.after(walked, _PART_PRODUCTS)
            return ids, [*rows], len(ids) < _PART_PRODUCTS
        begin = bisect_right(self._ids, walked)
        ids = self._ids[begin : begin + _PART_PRODUCTS]
        is_last = begin + len(ids) == len(self._ids)
        return ids, [catalogue.get(product_id) for product_id in ids], is_last

    def _ready(self, catalogue: Catalogue) -> bytes:
        if self._wanted is None:
            products = len(catalogue)
        else:
            products = sum(product_id in catalogue.rows for product_id in self._ids)
        return self._state.ready(products, self._feed.event_id(self._cursor))
