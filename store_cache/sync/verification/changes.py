"""Which products changed lately, and which change while they are judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, VisibleChange

RECENT_SECONDS = 300.0
"""How long before a break a change may be that Central has lost with it."""

MOST_RECENT = 500
"""So many products, those that changed last, are told of."""


class RecentChanges:
    """An observer of the visible catalogue. `time` gives seconds of one clock."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.on_replaced: Callable[[], None] = _ignore
        """Called when readers see another catalogue."""
        self._time = time
        self._recent: deque[tuple[float, tuple[str, ...]]] = deque()  # the last change at the end
        self._count = 0
        self._watched: frozenset[str] = frozenset()
        self._touched: set[str] = set()

    # -- as an observer --------------------------------------------------------------------

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        if self._watched:
            self._touched.update(self._watched.intersection(change.rows))
            named = (event.product_id for event in change.origin.events)
            self._touched.update(i for i in named if i in self._watched)
        if not change.rows or change.origin.source is ChangeSource.FULL_SYNC:
            return
        self._recent.append((self._time(), tuple(change.rows)))
        self._count += len(change.rows)
        while self._count - len(self._recent[0][1]) >= MOST_RECENT:
            self._count -= len(self._recent.popleft()[1])

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None:
        self._touched.update(self._watched)
        self._recent.clear()  # a full sync has read everything anew
        self._count = 0
        self.on_replaced()

    def reset(self) -> None:
        self._touched.update(self._watched)

    # -- for verification ------------------------------------------------------------------

    def lately(self) -> list[str]:
        """Return the products that changed in the last minutes, the latest first."""
        since = self._time() - RECENT_SECONDS
        found: dict[str, None] = {}
        for at, product_ids in reversed(self._recent):
            if at >= since:
                found |= dict.fromkeys(product_ids)
        return list(found)[:MOST_RECENT]

    def watch(self, product_ids: Iterable[str]) -> None:
        """Note from now on which of these products change, or are named by an event."""
        self._watched, self._touched = frozenset(product_ids), set()

    def is_touched(self, product_id: str) -> bool:
        """Return whether something was seen of a watched product since `watch`."""
        return product_id in self._touched


def _ignore() -> None:
    """The callback if none is set."""
