"""Decides what events of the feed prove of a write whose outcome is unknown (W3).

An applied write raises the version it was sent with by exactly one and puts exactly one event on
the feed, which may name it. So an event that names the attempt proves *applied*. A refusal of a
repeat is proof if the product is still at the version sent, or another write made the version that
the attempt would have made: an event says so, or the store held that version before the attempt was
first sent.

Versions of two incarnations prove nothing of each other, and a refusal may be of a later one than
the store knows. So a refusal counts only once the feed was read from where the attempt began to its
end, after the refusal and without a gap, and if that brought no creation or deletion.

What was seen is kept, too, for a person who has to judge a write that nothing proves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from store_cache.model.event import AnyEvent, Event, Kind, WriteName
from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import Attempt
from store_cache.writes.write import Applied, Refused, SeenEvent

EVENTS_SHOWN = 10
"""How many events a person is shown: the first ones, among which the write's own would be."""


class InDoubtWrite:
    """The evidence about one attempt: events of its product, and a refusal of a repeat.

    `read_to`: the feed was read from where the attempt began to before this offset, without a gap.
    """

    __slots__ = (
        "_applied",
        "_is_made_by_other",
        "_is_void",
        "_name",
        "_refusal",
        "_seen",
        "attempt",
        "read_to",
    )

    def __init__(self, attempt: Attempt, *, store_id: str) -> None:
        self.attempt = attempt
        self.read_to = attempt.offset
        self._name = WriteName(store_id, attempt.central_key(store_id))
        # Another write made the version that the attempt would have made.
        self._is_made_by_other = (attempt.held_version or 0) > attempt.version
        self._is_void = False  # a refusal can prove nothing any more
        self._applied: Applied | None = None
        self._refusal: Refused | None = None
        self._seen: dict[int, SeenEvent] = {}  # by offset

    @property
    def seen(self) -> tuple[SeenEvent, ...]:
        """The first events about the product since the attempt began."""
        return tuple(self._seen[offset] for offset in sorted(self._seen))

    def observe(self, event: Event) -> None:
        """Take one event of the feed. Taking it twice changes nothing."""
        if event.product_id != self.attempt.product_id:
            return
        self._note(event)
        if event.write == self._name:
            self._observe_own(event)
        elif event.kind is not Kind.UPDATED:
            self._is_void = True
        elif event.version == self.attempt.version + 1:
            self._is_void |= event.write is None
            self._is_made_by_other = True

    def observe_refusal(self, refusal: Refused) -> None:
        """Take Central's refusal of a repeat, which by itself proves nothing. Call it once the feed
        was read to its end after that."""
        self._refusal = refusal

    @property
    def verdict(self) -> Applied | Refused | None:
        """The attempt's outcome, or None while nothing proves one."""
        if self._applied is not None:
            return self._applied
        if self._refusal is None or self._is_void:
            return None
        return self._refusal if self._excludes(self._refusal.new_version) else None

    def _observe_own(self, event: Event) -> None:
        attempt = self.attempt
        if event.body is None or event.version != attempt.version + 1:
            self._is_void = True
            return
        row = orjson.loads(event.body)
        updated = row.get("lastUpdated")
        stock = StockAnswer(
            attempt.product_id,
            attempt.version,
            event.version,
            row["available"],
            updated if isinstance(updated, str) else None,
        )
        self._applied = Applied(stock)

    def _note(self, event: Event) -> None:
        if len(self._seen) >= EVENTS_SHOWN and event.offset > max(self._seen):
            return
        available = None if event.body is None else orjson.loads(event.body)["available"]
        store_id = None if event.write is None else event.write.store_id
        self._seen[event.offset] = SeenEvent(event.offset, event.version, available, store_id)
        if len(self._seen) > EVENTS_SHOWN:
            del self._seen[max(self._seen)]

    def _excludes(self, version: int | None) -> bool:
        """Return whether the attempt cannot have been applied if Central refused a repeat at this
        version of the product. A lower one than was known is that of another incarnation."""
        sent = self.attempt.version
        if version is None or version < max(sent, self.attempt.held_version or 0):
            return False
        return version == sent or self._is_made_by_other


class InDoubtWrites:
    """The evidence about every attempt that is under way or unknown."""

    def __init__(self, *, store_id: str) -> None:
        self._store_id = store_id
        self._by_product: dict[str, dict[str, InDoubtWrite]] = {}

    def add(self, attempt: Attempt) -> None:
        """Collect evidence about this attempt, in place of any other under its key."""
        keys = self._by_product.setdefault(attempt.product_id, {})
        keys[attempt.key] = InDoubtWrite(attempt, store_id=self._store_id)

    def get(self, attempt: Attempt) -> InDoubtWrite | None:
        return self._by_product.get(attempt.product_id, {}).get(attempt.key)

    def verdict(self, attempt: Attempt) -> Applied | Refused | None:
        """Return what the feed, which may be faster than an answer, has proved already."""
        found = self.get(attempt)
        return None if found is None else found.verdict

    def drop(self, attempt: Attempt) -> None:
        keys = self._by_product.get(attempt.product_id, {})
        keys.pop(attempt.key, None)
        if not keys:
            self._by_product.pop(attempt.product_id, None)

    def observe(self, events: Sequence[AnyEvent]) -> Iterator[tuple[str, Applied | Refused]]:
        """Take events of the feed, without a gap between them; yield each key that one of them
        settles, and its outcome."""
        if not self._by_product or not events:
            return
        self._read_on(events)
        for event in events:
            if not isinstance(event, Event):
                continue
            for key, in_doubt in [*self._by_product.get(event.product_id, {}).items()]:
                in_doubt.observe(event)
                if (verdict := in_doubt.verdict) is not None:
                    yield key, verdict

    def _read_on(self, events: Sequence[AnyEvent]) -> None:
        """Advance `read_to` by what the store has followed. An event that cannot be read counts as
        missing if it may be of the product."""
        first, following = events[0].offset, events[-1].offset + 1
        unreadable = {event.product_id for event in events if not isinstance(event, Event)}
        if None in unreadable:
            return
        for product_id, in_doubts in self._by_product.items():
            if product_id in unreadable:
                continue
            for each in in_doubts.values():
                if each.read_to is not None and first <= each.read_to:
                    each.read_to = max(each.read_to, following)
