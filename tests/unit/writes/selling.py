"""A store's forwarder between a real ledger of Central and a writer in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

import orjson

from central_stub.rules import Update
from central_stub.switches import Switches
from central_stub.wire import answer_body, answer_status
from store_cache.central.client import WriteReply
from store_cache.central.failures import (
    AccessDenied,
    CentralError,
    Unsent,
    WriteUnknown,
    WriteUnsent,
)
from store_cache.model.event import Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import Row, read_product
from store_cache.model.stock import StockAnswer
from store_cache.writes.admission import Admission
from store_cache.writes.forwarder import Forwarder
from store_cache.writes.idempotency import KeyTable, StoredKeys
from store_cache.writes.write import Write
from tests.harness.central import LedgerClient, as_json
from tests.harness.clock import NOON, Clock
from tests.harness.hold import Hold

WRITE_TIMEOUT_SECONDS = 8.0


class Trouble(Enum):
    """What happens to one request for a write: the client raises this, or does what is said."""

    NONE = "it is answered"
    UNREACHABLE = WriteUnsent("no connection", cause=Unsent.REFUSED)
    LIMITED = WriteUnsent("Central limits requests", cause=Unsent.LIMITED, retry_after_seconds=7.0)
    HELD_BACK = WriteUnsent(
        "the store keeps to a limit", cause=Unsent.HELD_BACK, retry_after_seconds=7.0
    )
    WRONG_KEY = AccessDenied("Central refuses the key: see CENTRAL_API_KEY")
    REQUEST_LOST = WriteUnknown("the connection broke")
    DEFECT = RuntimeError("a defect")
    SILENCE = "it is not answered in time"
    ANSWER_LOST = "it is applied, and the connection breaks"
    TRIED_TWICE = "a first try is lost, the second one is answered"


class Central(LedgerClient):
    """Each write meets the next of `troubles`, and waits for `may_answer`."""

    def __init__(self) -> None:
        super().__init__(Clock(), "P-1", "P-2")
        self.troubles: deque[Trouble] = deque()
        self.sent: list[Mapping[str, Any]] = []
        self.deadlines: list[float] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.answers_after = 0.0
        self.tells_stock = True
        self.arrived = asyncio.Event()
        self.on_sent: Callable[[], None] = lambda: None

    @property
    def keys(self) -> list[str]:
        return [payload["idempotencyKey"] for payload in self.sent]

    def apply(self, write: Write) -> None:
        """Apply a write of the store, before its request arrives."""
        key = f"store-s1-{write.key}"
        update = Update(write.product_id, write.delta, write.version, key, "store-s1")
        assert self.ledger.update(update, NOON)["applied"]

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply:
        self.sent.append(payload)
        self.deadlines.append(deadline_seconds)
        self.on_sent()
        self.arrived.set()
        trouble = self.troubles.popleft() if self.troubles else Trouble.NONE
        await self.may_answer.wait()
        if self.answers_after > deadline_seconds:
            trouble = Trouble.SILENCE
        elif self.answers_after:
            await asyncio.sleep(self.answers_after)
        if isinstance(trouble.value, Exception):
            raise trouble.value
        if trouble is Trouble.SILENCE:
            await asyncio.sleep(deadline_seconds)
            raise WriteUnknown(trouble.value)
        status, value = self._answer(payload)
        if trouble is Trouble.ANSWER_LOST:
            raise WriteUnknown(trouble.value)
        return WriteReply(status, value, certain=trouble is not Trouble.TRIED_TWICE)

    def _answer(self, payload: Mapping[str, Any]) -> tuple[int, Any]:
        store_id, switches = payload["storeId"], self.ledger.switches
        updates = [
            Update(u["productId"], u["delta"], u["version"], u["idempotencyKey"], store_id)
            for u in payload.get("updates", [payload])
        ]
        answers = [self.ledger.update(update, NOON) for update in updates]
        bodies = [answer_body(answer, switches) for answer in answers]
        if not self.tells_stock:
            for body in bodies:
                body.pop("newQuantity"), body.pop("newVersion")
        if "updates" in payload:
            return 200, as_json({"results": bodies, "totalCount": len(bodies)})
        return answer_status(answers[0], switches), as_json(bodies[0])


class Writer:
    """What the store holds, and the records on its disk."""

    def __init__(self) -> None:
        self.versions = {"P-1": 1, "P-2": 1}
        self.quantities = {"P-1": 10, "P-2": 10}
        self.records: list[dict[str, Any]] = []
        self.answers: list[StockAnswer] = []
        self.position: Position | None = Position("g-1", 3)
        self._held: Hold | None = None

    def hold_settlements(self) -> Hold:
        """Hold up the record of the next outcome."""
        self._held = Hold("settle")
        return self._held

    def forget_everything(self) -> None:
        """Be without a catalogue, as before the first full sync."""
        self.versions.clear()
        self.quantities.clear()
        self.position = None

    def held_version(self, product_id: str) -> int | None:
        return self.versions.get(product_id)

    def held_row(self, product_id: str) -> Row | None:
        if product_id not in self.versions:
            return None
        quantity, version = self.quantities[product_id], self.versions[product_id]
        value = {"productId": product_id, "name": "", "available": quantity, "version": version}
        return read_product(value)

    async def record_write(self, *key_entries: bytes) -> None:
        await self._append(*key_entries)

    async def settle_write(
        self, key_entry: bytes, answer: StockAnswer | None, *, shown: Callable[[], None]
    ) -> None:
        if self._held is not None:
            await self._held.wait()
        await self._append(key_entry)
        shown()
        if answer is not None:
            self.answers.append(answer)
        if self.position is None:
            return
        if answer is not None and self.versions.get(answer.product_id, 0) < answer.new_version:
            self.versions[answer.product_id] = answer.new_version
            self.quantities[answer.product_id] = answer.new_quantity

    def show(self, event: Event) -> None:
        if event.body is not None and event.version > self.versions.get(event.product_id, 0):
            self.versions[event.product_id] = event.version
            self.quantities[event.product_id] = orjson.loads(event.body)["available"]
        if event.kind is Kind.DELETED:
            self.versions.pop(event.product_id, None)
        self.position = Position("g-1", event.offset + 1)

    async def _append(self, *key_entries: bytes) -> None:
        await asyncio.sleep(0)
        self.records += map(orjson.loads, key_entries)


class Refetches:
    """Fetches single products from Central, unless there is a `failure`. `outdated` has those whose
    rows may be out of date, `reads` those that were read."""

    def __init__(self, central: Central, writer: Writer) -> None:
        self._central = central
        self._writer = writer
        self.outdated: list[tuple[str, int | None]] = []
        self.reads: list[str] = []
        self.failure: CentralError | None = None

    async def refresh_outdated(self, product_id: str, version: int | None) -> None:
        self.outdated.append((product_id, version))
        with suppress(CentralError):
            await self.read(product_id, seconds=1.0)

    async def read(self, product_id: str, *, seconds: float) -> Row | None:
        self.reads.append(product_id)
        if self.failure is not None:
            raise self.failure
        row = self._central.ledger.read(product_id)
        if row is not None and self._writer.position is not None:
            self._writer.versions[product_id] = row["version"]
            self._writer.quantities[product_id] = row["available"]
        return None if row is None else read_product(row)


class Store:
    """One process of the store. `answers` counts what the sync was told of Central's answers; a
    test may set `now`, in unix seconds."""

    def __init__(
        self,
        central: Central,
        writer: Writer | None = None,
        *,
        capacity: int = 1000,
        now: float = NOON,
    ) -> None:
        self.now = now
        self.central = central
        self.writer = writer or Writer()
        self.refetches = Refetches(central, self.writer)
        self.answers = 0
        self.keys = KeyTable(retention_seconds=86_400.0, capacity=capacity)
        stored = StoredKeys(self.keys.clients)
        stored.load(b"\n".join(map(orjson.dumps, self.writer.records)))
        self.keys.add_stored(stored, now)
        self.admission = Admission(
            central=central,
            random=lambda: 1.0,
            on_answer=self._answered,
            write_timeout_seconds=WRITE_TIMEOUT_SECONDS,
        )
        self.forwarder = Forwarder(
            store_id="store-s1",
            admission=self.admission,
            store=self.writer,
            refetches=self.refetches,
            events=central,
            keys=self.keys,
            now=lambda: self.now,
            write_timeout_seconds=WRITE_TIMEOUT_SECONDS,
        )
        self.forwarder.start()

    def restarted(self) -> Store:
        """Return the next process, which finds what this one left on disk."""
        return Store(self.central, self.writer)

    async def follow(self) -> None:
        """Take everything that is on the feed, from the position on."""
        assert self.writer.position is not None
        offset = self.writer.position.offset
        page = await self.central.events(offset=offset, limit=1000, wait_seconds=0)
        for event in page.events:
            assert isinstance(event, Event)
            self.writer.show(event)
        self.forwarder.observe_events(page.events)

    def stock_up(self, product_id: str, available: int) -> str:
        """Create a product at Central that the store knows."""
        row = {"productId": product_id, "name": "Hot", "available": available}
        self.central.ledger.create(row, NOON)
        self.writer.versions[product_id], self.writer.quantities[product_id] = 1, available
        return product_id

    def switch(self, **switches: Any) -> None:
        self.central.ledger.switch(Switches(**switches))

    def _answered(self) -> None:
        self.answers += 1


def sale(key: str = "sale", *, product_id: str = "P-1", version: int = 1, delta: int = -2) -> Write:
    return Write(product_id, delta, version, key)
