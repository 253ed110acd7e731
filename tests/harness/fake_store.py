"""A small store behind the API: a real catalogue, and the rules of stock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from store_cache.announcer import Announcer
from store_cache.api.content.clock import Clock
from store_cache.api.content.freshness import Freshness
from store_cache.api.parts import StoreParts
from store_cache.api.problems import IndexNotReady
from store_cache.api.stream.feed import ChangeFeed
from store_cache.api.stream.state import StreamState
from store_cache.api.stream.streams import Streams
from store_cache.catalogue.catalogue import Catalogue, PointInTimeView
from store_cache.catalogue.history.history import ChangeHistory
from store_cache.catalogue.observer import ChangeSource, Origin
from store_cache.catalogue.search.index import SearchIndex
from store_cache.model.change import Change
from store_cache.model.position import Position
from store_cache.model.product import Row, read_product, read_row, with_stock
from store_cache.model.stock import StockAnswer
from store_cache.sync.states import Failure, FullSyncRecord
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.outbox.entry import Entry
from store_cache.writes.outbox.outbox import Outbox, OutboxSettings
from store_cache.writes.write import (
    Adjustment,
    Answer,
    BatchAnswer,
    Doubt,
    SettledByPerson,
    Write,
    WriteError,
    answer_to,
)

FRESH = Freshness(
    last_offset=1045,
    generation="g-1",
    age_seconds=2.2,
    is_stale=False,
    is_durable=True,
    last_sync_time="2024-01-15T10:29:45Z",
)
MOMENT = "2024-01-15T10:30:00Z"
EVENT = Origin(ChangeSource.EVENT)
CHANCE = 0x7F3A52C1 / 2**32
MOMENT_SECONDS = 1_705_314_600.0


def product(product_id: str, **attributes: Any) -> dict[str, Any]:
    """Return a product as Central sends it."""
    usual = {"name": f"Name of {product_id}", "available": 10, "version": 6, "price": 99.99}
    return {"productId": product_id, "lastUpdated": MOMENT} | usual | attributes


class Live:
    """A state of the store that nothing changes."""

    name, since = "live", 0.0

    def update(self) -> None: ...


class FakeStore:
    """Answers writes from its own catalogue, as a store does with Central behind it.

    `elsewhere`: products that Central holds and this store does not yet; a refresh brings them in.
    `doubts`: writes of unknown outcome. `failure`: what every write fails with while it is set.
    Writes wait for `admission`, and set `arrived` and `applied`. `search`: whether it can search.
    """

    def __init__(self, products: Iterable[Mapping[str, Any]] = (), *, search: bool = True) -> None:
        self.catalogue: Catalogue | None = Catalogue()
        self.position = Position("g-1", 1046)
        self.announcer = Announcer()
        self.fresh = FRESH
        self.search = FakeSearch(self) if search else None
        self.elsewhere: dict[str, Row | None] = {}
        self.failure: Exception | None = None
        self.sync_failure: tuple[str, Failure | None] | None = None
        self.admission = asyncio.Event()
        self.admission.set()
        self.arrived = asyncio.Event()
        self.applied = asyncio.Event()
        self.refreshed: list[str] = []
        self.writes: list[Write | Adjustment] = []
        self.doubts: dict[str, Doubt] = {}
        self.outbox = self._outbox()
        self.syncs: list[bool] = []
        for one in products:
            self.put(one)

    def _outbox(self) -> Outbox:
        """An outbox whose log is this store, and which nothing sends."""
        log: Any = self
        return Outbox(
            OutboxSettings("store-s1", limit=10, is_accepting=True, retention_seconds=86_400.0),
            keys=KeyTable(retention_seconds=86_400.0),
            store=log,
            now=lambda: MOMENT_SECONDS,
            random=lambda: CHANCE,
        )

    @property
    def parts(self) -> StoreParts:
        """What the API uses: this stands for each of the parts."""
        part: Any = self
        pending = self.outbox.pending
        feed = ChangeFeed(part, size=1_000, random=lambda: CHANCE, pending=pending)
        self.outbox.on_changed = feed.entry_changed
        history = ChangeHistory(1_000, store_id="store-s1", now=lambda: MOMENT_SECONDS)
        self.announcer.observers = (feed, history)
        clock = Clock(lambda: MOMENT_SECONDS, lambda: 0.0)
        live: Any = Live()
        streams = Streams(feed, StreamState(live, part, clock), most=100, random=lambda: CHANCE)
        search: Any = self.search
        features: Any = {"streams": streams, "history": history, "search": search}
        features["outbox"] = self.outbox
        return StoreParts(part, part, part, part, part, part, **features)

    @property
    def held(self) -> Catalogue:
        assert self.catalogue is not None
        return self.catalogue

    @contextmanager
    def view(self) -> Iterator[PointInTimeView]:
        held = self.held
        view = held.begin_view()
        try:
            yield view
        finally:
            held.end_view(view)

    def put(self, value: Mapping[str, Any]) -> None:
        self._set(read_product(dict(value)))

    def remove(self, product_id: str) -> None:
        self._show(Change("a test", rows={product_id: None}))

    def measure(self) -> Freshness:
        return self.fresh

    async def refresh(self, product_id: str) -> None:
        self.refreshed.append(product_id)
        row = self.elsewhere.get(product_id)
        if row is not None:
            self._set(row)

    async def update(self, write: Write) -> Answer:
        self.writes.append(write)
        self.arrived.set()
        await self.admission.wait()
        if self.failure is not None:
            raise self.failure
        body = self.held.get(write.product_id)
        if body is None:
            return Answer(404, _refused(write.product_id, "product_not_found"))
        row = read_row(body)
        if row.version != write.version:
            return Answer(409, _refused(write.product_id, "version_conflict", row))
        if row.available + write.delta < 0:
            return Answer(409, _refused(write.product_id, "insufficient_inventory", row))
        return Answer(200, self._apply(row, write.delta, write.key))

    async def update_batch(self, writes: tuple[Write, ...]) -> BatchAnswer:
        return BatchAnswer(tuple([(await self.update(write)).body for write in writes]))

    async def adjust(self, adjustment: Adjustment) -> Answer:
        self.writes.append(adjustment)
        body = self.held.get(adjustment.product_id)
        if body is None:
            raise WriteError("product_not_found", "Product not found in local cache")
        return Answer(200, self._apply(read_row(body), adjustment.delta, adjustment.key))

    is_durable = True

    def held_row(self, product_id: str) -> Row | None:
        body = self.held.get(product_id)
        return None if body is None else read_row(body)

    async def keep_write(self, key_entry: bytes) -> None: ...

    async def record_write(self, key_entry: bytes) -> None: ...

    async def settle_write(
        self, key_entry: bytes, answer: StockAnswer | None, *, shown: Callable[[], None]
    ) -> None:
        shown()

    async def settle_entry(self, entry: Entry, *, is_applied: bool, by: str, reason: str) -> None:
        self.outbox.check_doubtful(entry.id)
        row = self.held_row(entry.product_id)
        await self.outbox.settle_by_person(
            entry.id,
            is_applied=is_applied,
            by=by,
            reason=reason,
            stock=None if row is None else (row.available, row.version),
        )

    def in_doubt(self) -> list[Doubt]:
        return [*self.doubts.values()]

    async def settle(self, key: str, *, is_applied: bool, by: str, reason: str) -> Answer:
        doubt = self.doubts.pop(key, None)
        if doubt is None:
            raise WriteError("write_not_found", "The store knows no write with this key")
        row = read_row(self.held.rows[doubt.product_id])
        settled = SettledByPerson(is_applied, by, reason, row.available, row.version)
        return answer_to(settled, doubt.product_id)

    async def force_full_sync(self, *, accept: bool) -> FullSyncRecord:
        self.syncs.append(accept)
        problem, failure = self.sync_failure or ("", None)
        return FullSyncRecord(1, ("on demand",), 0.0, 1.0, problem=problem, failure=failure)

    def sync_status(self) -> dict[str, Any]:
        return {"inProgress": False, "productCount": len(self.held)}

    def cache_stats(self) -> dict[str, Any]:
        return {"totalProducts": len(self.held)}

    def why_no_catalogue(self) -> str:
        return "its first full sync begins"

    def health(self) -> dict[str, Any]:
        return {"status": "degraded" if self.catalogue is None else "healthy", "checks": {}}

    def _apply(self, row: Row, delta: int, key: str) -> dict[str, Any]:
        new = with_stock(
            row.body, available=row.available + delta, version=row.version + 1, last_updated=MOMENT
        )
        entry = orjson.dumps({"key": key})
        change = Change("a test", rows={new.product_id: new.body})
        self._show(change, Origin(ChangeSource.WRITE, key_entry=entry))
        self.applied.set()
        return {
            "productId": new.product_id,
            "newQuantity": new.available,
            "newVersion": new.version,
            "applied": True,
            "lastUpdated": MOMENT,
        }

    def _set(self, row: Row) -> None:
        self._show(Change("a test", rows={row.product_id: row.body}))

    def _show(self, change: Change, origin: Origin = EVENT) -> None:
        self.announcer.apply(self.held, change, origin)


class FakeSearch:
    """A search index made anew for each search, unless it `is_ready` no more."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.is_ready = True

    async def current(self) -> SearchIndex:
        if not self.is_ready:
            raise IndexNotReady
        index, held = SearchIndex(), self._store.held
        for _ in index.load(*held.after("", len(held) + 1)):
            pass
        return index


def _refused(product_id: str, error_type: str, row: Row | None = None) -> dict[str, Any]:
    state = {} if row is None else {"newQuantity": row.available, "newVersion": row.version}
    said = {"errorType": error_type, "errorMessage": error_type.replace("_", " ")}
    return {"productId": product_id, "applied": False} | state | said
