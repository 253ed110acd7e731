"""What the feed proves of a write whose outcome is unknown (W3).

Knows: which events of a product settle one attempt.
Refuses to know: how events are fetched, and what a settled attempt leads to.

An applied write raises the version it was sent with by exactly one and puts exactly one event on
the feed, which may name it. So an event that names the attempt proves *applied*; and a refusal
is proof once events that name other writes cover every version up to the one it speaks of.
Versions that the store held before the attempt was first sent need no event: what came before
it cannot be it. A creation or deletion of the product ends what versions can prove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from store_cache.model.event import Event, Kind, WriteName
from store_cache.model.stock import StockAnswer
from store_cache.writes.write import Applied, Refused

_VERSIONS_KEPT = 1_000


class InDoubtWrite:
    """The events of one attempt's product, as far as they prove something about it."""

    __slots__ = (
        "_applied",
        "_beyond",
        "_covered",
        "_first",
        "_is_void",
        "_refusal",
        "name",
        "product_id",
        "sent_version",
    )

    def __init__(
        self, *, name: WriteName, product_id: str, sent_version: int, held_version: int | None
    ) -> None:
        """`name`: store and key as Central knows them. `held_version`: what the store held of
        the product before the attempt was first sent."""
        self.name = name
        self.product_id = product_id
        self.sent_version = sent_version
        self._first = self._covered = max(sent_version, held_version or 0)
        self._beyond: set[int] = set()  # seen, above `_covered` + 1
        self._is_void = False
        self._applied: Applied | None = None
        self._refusal: Refused | None = None

    def see(self, event: Event) -> None:
        """Take one event of the feed; seeing it twice changes nothing."""
        if event.product_id != self.product_id:
            return
        if event.write == self.name:
            self._see_own(event)
        elif event.kind is not Kind.UPDATED:
            self._is_void = True
        elif event.version > self._first:
            self._cover(event)

    def refused(self, refusal: Refused) -> None:
        """A repeat of the attempt was refused; by itself that proves nothing."""
        self._refusal = refusal

    @property
    def verdict(self) -> Applied | Refused | None:
        """The attempt's outcome, or None while nothing proves one."""
        if self._applied is not None:
            return self._applied
        if self._refusal is None or self._is_void:
            return None
        return self._refusal if self._covers(self._refusal.new_version) else None

    def _see_own(self, event: Event) -> None:
        if event.body is None or event.version != self.sent_version + 1:
            self._is_void = True
            return
        row = orjson.loads(event.body)
        updated = _text(row.get("lastUpdated"))
        stock = StockAnswer(
            self.product_id, self.sent_version, event.version, row["available"], updated
        )
        self._applied = Applied(stock)

    def _cover(self, event: Event) -> None:
        self._is_void |= event.write is None or len(self._beyond) >= _VERSIONS_KEPT
        if self._is_void:
            return
        if event.version > self._covered:
            self._beyond.add(event.version)
        while self._covered + 1 in self._beyond:
            self._covered += 1
            self._beyond.remove(self._covered)

    def _covers(self, version: int | None) -> bool:
        return version is not None and self._first <= version <= self._covered


class InDoubtWrites:
    """The watches of all attempts under way or unknown, by the caller's key."""

    def __init__(self) -> None:
        self._by_product: dict[str, dict[str, InDoubtWrite]] = {}

    def put(self, key: str, watch: InDoubtWrite) -> None:
        self._by_product.setdefault(watch.product_id, {})[key] = watch

    def get(self, key: str, product_id: str) -> InDoubtWrite | None:
        return self._by_product.get(product_id, {}).get(key)

    def drop(self, key: str, product_id: str) -> None:
        watches = self._by_product.get(product_id, {})
        watches.pop(key, None)
        if not watches:
            self._by_product.pop(product_id, None)

    def see(self, events: Iterable[Event]) -> Iterator[tuple[str, Applied | Refused]]:
        """Show each event to its product's watches; gives the keys whose attempt it settles."""
        if not self._by_product:
            return
        for event in events:
            for key, watch in [*self._by_product.get(event.product_id, {}).items()]:
                watch.see(event)
                if (verdict := watch.verdict) is not None:
                    yield key, verdict


def _text(item: Any) -> str | None:
    return item if isinstance(item, str) else None
