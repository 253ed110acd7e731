"""Builds the search index beside the running store, and keeps it equal to the catalogue.

    index       built in parts from the catalogue of the moment
    changed     products that have changed since they were indexed; a search indexes them first

A change costs the writer one note of its id. Most of what is noted is indexed while nothing else is
to be done, so that a search finds little left to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count, islice

from store_cache.api.problems import IndexNotReady
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import VisibleChange
from store_cache.catalogue.search.index import SHARD_PRODUCTS, SearchIndex
from store_cache.writer import CacheWriter

WAIT_SECONDS = 1.0
"""How long a search waits for the index. A full sync keeps it busy for less, as a rule."""

AT_ONCE = 200
"""Changed products that are indexed at once. That takes a millisecond, or ten if all their texts
have changed."""

MANY_CHANGES = 50_000
"""With more changed products than this, indexing them does not pause. Each keeps its old row."""

PAUSE_SECONDS = 0.02
"""Between two parts of changes, so that a store that catches up is hardly slowed down."""

BACKLOG_SECONDS = 30.0
"""How long an index waits for a store that catches up. Building it takes as much of the processor
as following does, and what changes meanwhile is indexed twice."""

FROZEN_SHARDS = 8
"""Of a new index, shards after which `on_growth` is called. The garbage collector takes some
milliseconds to traverse so many, and a hundred for the index of a million products."""

_TURN_SECONDS = 0.002


class Indexer:
    """Follows the visible catalogue.

    `caught_up` returns once the store has no backlog of events, or cannot read it. `on_growth` is
    called each time that a part of a new index has been built, and at its end: what was built is
    kept, so that garbage collection may leave it out.
    """

    def __init__(
        self,
        writer: CacheWriter,
        *,
        caught_up: Callable[[], Awaitable[None]],
        on_growth: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._caught_up = caught_up
        self._on_growth = on_growth
        self._index: SearchIndex | None = None
        self._changed: set[str] = set()
        self._begun = 0  # how often an index was begun
        self._wake = asyncio.Event()

    # -- as an observer of the catalogue -----------------------------------------------------

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        """Note what has to be indexed again."""
        self._changed.update(change.rows)
        self._wake.set()

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None:
        """Build an index of the first catalogue. Later ones are told by their differences."""
        self._wake.set()

    def reset(self) -> None:
        """Begin again."""
        self._index = None
        self._begun += 1
        self._wake.set()

    # -- for searches ------------------------------------------------------------------------

    async def current(self) -> SearchIndex:
        """Return the index. Until the caller awaits anything, it is what readers see.

        Raises IndexNotReady.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + WAIT_SECONDS
        while True:
            self._index_changed()
            is_told = not self._writer.announcer.is_telling
            if self._index is not None and is_told and not self._changed:
                return self._index
            if clock() >= until:
                raise IndexNotReady
            await asyncio.sleep(_TURN_SECONDS)

    # -- the work ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Build the index and keep it, until cancelled."""
        self.reset()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._index is None and self._writer.catalogue is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BACKLOG_SECONDS):
                        await self._caught_up()
                await self._build()
            while self._changed and self._index is not None:
                self._index_changed()
                for _ in self._index.split():
                    await asyncio.sleep(0.0)
                is_late = len(self._changed) > MANY_CHANGES
                await asyncio.sleep(0.0 if is_late else PAUSE_SECONDS)

    async def _build(self) -> None:
        """Build an index, product after product in the order of their ids.

        Products that change meanwhile are noted, and indexed again.
        """
        self._changed.clear()
        begun, index, last_id = self._begun, SearchIndex(), ""
        for shards in count(1):
            ids, rows = self._catalogue.after(last_id, SHARD_PRODUCTS)
            for _ in index.load(ids, rows):
                await asyncio.sleep(0.0)
                if begun != self._begun:
                    return
            if len(ids) < SHARD_PRODUCTS:
                break
            last_id = ids[-1]
            if shards % FROZEN_SHARDS == 0:
                self._on_growth()
        self._index = index
        self._on_growth()

    def _index_changed(self) -> None:
        """Index some of the changed products again."""
        index = self._index
        if index is None:
            return
        some = list(islice(self._changed, AT_ONCE))
        rows = self._catalogue.rows
        try:
            for product_id in some:
                row = rows.get(product_id)
                if row is None:
                    index.remove(product_id)
                else:
                    index.put(product_id, row)
        except Exception:  # half of a product may be indexed
            self.reset()
            raise
        self._changed.difference_update(some)

    @property
    def _catalogue(self) -> Catalogue:
        catalogue = self._writer.catalogue
        assert catalogue is not None
        return catalogue
