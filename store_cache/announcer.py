"""The one place where a change of the visible catalogue is announced.

The writer hands every change to the announcer, which applies it and tells the observers. Without
observers it only applies it. A defect of an observer never harms the writer: it is logged, and the
observer begins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.differences import Difference, Differences
from store_cache.catalogue.observer import (
    CatalogueObserver,
    ChangeSource,
    Origin,
    VisibleChange,
)
from store_cache.model.change import Change

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.01
"""How long to wait after a part of a full sync's differences: observers need time for them too."""

_FULL_SYNC = Origin(ChangeSource.FULL_SYNC)


class Announcer:
    """Applies changes and tells the observers."""

    def __init__(self) -> None:
        self.observers: tuple[CatalogueObserver, ...] = ()
        self._catalogue: Catalogue | None = None
        self._differences: Differences | None = None  # of the last full sync, not all told yet

    @property
    def is_telling(self) -> bool:
        """Whether some of what the last full sync has changed was not told yet."""
        return self._differences is not None

    def apply(self, catalogue: Catalogue, change: Change, origin: Origin | None) -> None:
        """Apply a change to the visible catalogue. `origin` is None if it shows nothing new."""
        if not self.observers or origin is None:
            catalogue.apply(change)
            return
        if self._differences is not None:
            self._tell_differences(catalogue, self._differences.take(change.rows))
        before = {product_id: catalogue.rows.get(product_id) for product_id in change.rows}
        catalogue.apply(change)
        rows = {i: row for i, row in change.rows.items() if row != before[i]}
        if rows or origin.events:
            old_rows = {i: before[i] for i in rows}
            self._tell_changed(catalogue, VisibleChange(origin, rows, old_rows))

    def announce_first(self, catalogue: Catalogue) -> None:
        """Tell that readers see a catalogue where there was none."""
        self._tell(lambda observer: observer.replaced(None, catalogue))

    def announce_replaced(self, old: Catalogue, new: Catalogue) -> None:
        """Tell that readers see the catalogue of a full sync. `tell_differences` has to follow."""
        if self.observers:
            self._differences = Differences(old, new)
            self._catalogue = new
            self._tell(lambda observer: observer.replaced(old, new))

    async def tell_differences(self) -> None:
        """Tell in parts what the last full sync has changed."""
        while True:
            differ = self.tell_part()
            if self._differences is None:
                return
            await asyncio.sleep(PAUSE_SECONDS if differ else 0.0)

    def tell_part(self) -> bool:
        """Tell the next part of it; return whether anything in it differs."""
        differences, catalogue = self._differences, self._catalogue
        if differences is None or catalogue is None:
            return False
        part = differences.next_part()
        if differences.is_done:
            self._differences = self._catalogue = None
        self._tell_differences(catalogue, part)
        return bool(part)

    def _tell_differences(self, catalogue: Catalogue, found: dict[str, Difference]) -> None:
        if found:
            old_rows = {product_id: before for product_id, (before, _) in found.items()}
            rows = {product_id: now for product_id, (_, now) in found.items()}
            self._tell_changed(catalogue, VisibleChange(_FULL_SYNC, rows, old_rows))

    def _tell_changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        self._tell(lambda observer: observer.changed(catalogue, change))

    def _tell(self, message: Callable[[CatalogueObserver], None]) -> None:
        for observer in self.observers:
            try:
                message(observer)
            except Exception:
                log.exception("a defect of the store; please report it. %r begins again", observer)
                self._reset(observer)

    def _reset(self, observer: CatalogueObserver) -> None:
        try:
            observer.reset()
        except Exception:
            log.exception("a defect of the store; please report it. %r is left out", observer)
            self.observers = tuple(one for one in self.observers if one is not observer)
