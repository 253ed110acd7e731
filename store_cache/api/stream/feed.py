"""Follows the visible catalogue and fills the ring of changes.

An id is `<epoch>:<number>`. An epoch ends when what readers hold can no longer be led on by
changes: with the process, when Central was replaced, or after a defect.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

from store_cache.api.stream import blocks
from store_cache.api.stream.ring import ChangeRing
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, VisibleChange
from store_cache.writer import CacheWriter
from store_cache.writes.outbox.entry import Entry
from store_cache.writes.outbox.pending import PendingStock

PART_BYTES = 32 * 1024
"""About how much is written to a reader at once."""

_ID = re.compile(r"([0-9a-f]{8}):([0-9]{1,18})")

_EPOCHS = 2**32

_NO_PART = (-1, -1, b"", -1)
"""In place of the last part that was made: head, number, events, and what they lead to."""

_MOST_EPOCHS = 100
"""Epochs of this process that are remembered, to say why they ended."""


class ResetReason(StrEnum):
    RESTARTED = "restarted"  # the store
    EXPIRED = "expired"  # changes that the reader lacks are no longer kept
    REPLACED = "replaced"  # Central, so versions begin anew


class ChangeFeed:
    """`size`: how many changes are kept. `on_news` is called after each change. `pending`: what is
    queued of each product, if there is an outbox."""

    def __init__(
        self,
        writer: CacheWriter,
        *,
        size: int,
        random: Callable[[], float],
        pending: PendingStock | None = None,
    ) -> None:
        self.ring = ChangeRing(size)
        self.on_news: Callable[[], None] = lambda: None
        self._writer = writer
        self._pending = pending
        self._ended: dict[str, ResetReason] = {}
        self._generation = self._named_generation()
        self._needs_no_differences = False
        self.epoch = f"{int(random() * _EPOCHS):08x}"
        self._part = _NO_PART
        self.resets = 0
        """How often a reader had to begin again."""

    @property
    def catalogue(self) -> Catalogue | None:
        return self._writer.catalogue

    @property
    def is_complete(self) -> bool:
        """Whether the ring leads to the visible catalogue: it does not while the differences of a
        full sync are still being found."""
        return self._needs_no_differences or not self._writer.announcer.is_telling

    @property
    def end_of_last_epoch(self) -> ResetReason:
        return next(reversed(self._ended.values()), ResetReason.RESTARTED)

    def event_id(self, number: int) -> bytes:
        return f"{self.epoch}:{number}".encode()

    def find(self, event_id: str) -> int | ResetReason:
        """Return the number of the change that an id names, or why nothing goes on from there."""
        parsed = _ID.fullmatch(event_id)
        if parsed is None:
            return ResetReason.RESTARTED
        epoch, number = parsed[1], int(parsed[2])
        if epoch != self.epoch:
            return self._ended.get(epoch, ResetReason.RESTARTED)
        if number > self.ring.head:
            return ResetReason.RESTARTED
        return number if self.ring.holds_all_after(number) else ResetReason.EXPIRED

    def part_after(self, number: int) -> tuple[bytes, int]:
        """Return the next events after `number` and the number that they lead to.

        Most readers are at the same place: the last part is kept for the next one who asks.
        """
        head, after, part, until = self._part
        if after != number or head != self.ring.head:
            part, until = self._join_after(number)
            self._part = (self.ring.head, number, part, until)
        return part, until

    def _join_after(self, number: int) -> tuple[bytes, int]:
        events: list[bytes] = []
        size = 0
        for later, (_, event) in self.ring.after(number):
            events.append(event)
            size += len(event)
            if size > PART_BYTES:
                return b"".join(events), later
        return b"".join(events), self.ring.head

    # -- what the announcer tells ----------------------------------------------------------

    def changed(self, _catalogue: Catalogue, change: VisibleChange) -> None:
        if self._named_generation() != self._generation:
            self._end_epoch(ResetReason.REPLACED)
        if change.origin.source is ChangeSource.FULL_SYNC and self._needs_no_differences:
            return
        ring, epoch = self.ring, self.epoch
        for product_id, row in change.rows.items():
            event_id = f"{epoch}:{ring.head + 1}".encode()
            if row is None:
                event = blocks.deleted(product_id, event_id)
            else:
                event = blocks.product(self.shown(row), event_id)
            ring.add(product_id, event)
        self.on_news()

    def shown(self, row: bytes) -> bytes:
        """Return the row as reads show it."""
        return row if self._pending is None else self._pending.show(row)

    def entry_changed(self, entry: Entry) -> None:
        """Tell the new state of an entry of the outbox, and its product with what is pending."""
        ring, epoch = self.ring, self.epoch
        told = {
            "outboxId": entry.id,
            "idempotencyKey": entry.key,
            "state": entry.state.value,
            "productId": entry.product_id,
        }
        event_id = f"{epoch}:{ring.head + 1}".encode()
        ring.add(entry.product_id, blocks.document("write", told, event_id), subject=entry.id)
        row = None if self.catalogue is None else self.catalogue.get(entry.product_id)
        if row is not None:
            event_id = f"{epoch}:{ring.head + 1}".encode()
            ring.add(entry.product_id, blocks.product(self.shown(row), event_id))
        self.on_news()

    def replaced(self, _old: Catalogue | None, _new: Catalogue) -> None:
        self._needs_no_differences = self._named_generation() != self._generation
        if self._needs_no_differences:
            # Every reader begins again, with the new catalogue: it needs no differences.
            self._end_epoch(ResetReason.REPLACED)
        self.on_news()

    def reset(self) -> None:
        self._end_epoch(ResetReason.RESTARTED)
        self.on_news()

    def _end_epoch(self, reason: ResetReason) -> None:
        self._ended[self.epoch] = reason
        if len(self._ended) > _MOST_EPOCHS:
            del self._ended[next(iter(self._ended))]
        self.epoch = f"{(int(self.epoch, 16) + 1) % _EPOCHS:08x}"
        self._generation = self._named_generation()
        self.ring.forget()
        self._part = _NO_PART

    def _named_generation(self) -> str | None:
        position = self._writer.position
        return None if position is None else position.generation
