"""Which products changed lately, and which change while they are judged."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, VisibleChange

RECENT_SECONDS = 300.0
"""How long before a break a change may be that Central has lost with it."""

MOST_RECENT = 500
"""So many products, those that changed last, are remembered."""


class RecentChanges:
    """An observer of the visible catalogue. `time` gives seconds of one clock."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.on_replaced: Callable[[], None] = _ignore
        """Called when readers see another catalogue."""
        self._time = time
        self._recent: OrderedDict[str, float] = OrderedDict()  # when, the last change at the end
        self._watched: frozenset[str] = frozenset()
        self._touched: set[str] = set()

    # -- as an observer --------------------------------------------------------------------

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        if self._watched:
            self._touched.update(self._watched.intersection(change.rows))
            named = (event.product_id for event in change.origin.events)
            self._touched.update(i for i in named if i in self._watched)
        if change.origin.source is ChangeSource.FULL_SYNC:
            return
        now = self._time()
        for product_id in change.rows:
            self._recent[product_id] = now
            self._recent.move_to_end(product_id)
        while len(self._recent) > MOST_RECENT:
            self._recent.popitem(last=False)

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None:
        self._touched.update(self._watched)
        self._recent.clear()  # a full sync has read everything anew
        self.on_replaced()

    def reset(self) -> None:
        self._touched.update(self._watched)

    # -- for verification ------------------------------------------------------------------

    def lately(self) -> list[str]:
        """Return the products that changed in the last minutes, the latest first."""
        since = self._time() - RECENT_SECONDS
        return [product_id for product_id, at in reversed(self._recent.items()) if at >= since]

    def watch(self, product_ids: Iterable[str]) -> None:
        """Note from now on which of these products change, or are named by an event."""
        self._watched, self._touched = frozenset(product_ids), set()

    def is_touched(self, product_id: str) -> bool:
        """Return whether something was seen of a watched product since `watch`."""
        return product_id in self._touched


def _ignore() -> None:
    """The callback if none is set."""
