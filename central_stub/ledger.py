"""Central's whole state: products, versions, the event log, the generation, the keys.

What a write does is decided by `rules`. Beside these,
- A key's first answer, refusals included, is the answer to every repeat while it is remembered.
- Every change is a `Change`, a JSON value, which is passed to `record` before it is applied.
  Applying the same changes again (`replay`) gives the same ledger.

Pure: no file, no clock, no randomness. `now` is unix seconds. `lateness` returns by how much an
event comes late; it is called only without the feature `order`. The caller names generations.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from central_stub.catalogue import Catalogue, Row
from central_stub.digest import Digests
from central_stub.feed import IN_ORDER, Event, EventPage, Feed, Lateness
from central_stub.keys import Answer, KeyMemory, Remembered
from central_stub.rules import (
    Creation,
    Deletion,
    Operation,
    Setting,
    Update,
    Write,
    decide,
    decide_update,
    lied,
    repeated,
)
from central_stub.switches import Feature, Switches

Change = dict[str, Any]
"""One change of the state: `op` and its fields. JSON, to be stored and replayed."""

UNDOABLE = 1000
"""A crash may lose the stock of so many writes, the last ones."""

Part = Literal["events", "stock"]
"""What a Central that saves its log and its stock apart may lose the end of."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes the stock of one write back: the row before it, and its key, if it had one."""

    product_id: str
    row: Row | None
    key: str | None


class PositionGone(Exception):
    """The log no longer holds the requested offset; `first` is the oldest that it holds."""

    def __init__(self, first: int) -> None:
        super().__init__(f"the oldest event still held is {first}")
        self.first = first


def in_order() -> Lateness:
    return IN_ORDER


def discard(_: Change) -> None:
    """Record nothing, for a ledger in memory only."""


class Ledger:
    """Central's state. Returned rows, events and answers are never changed."""

    def __init__(
        self,
        *,
        generation: str,
        switches: Switches | None = None,
        lateness: Callable[[], Lateness] = in_order,
        record: Callable[[Change], None] = discard,
    ) -> None:
        self.generation = generation
        self.switches = switches or Switches()
        self.record = record
        self.revision = 0
        self._lateness = lateness
        self._catalogue = Catalogue()
        self._feed = Feed()
        self._keys = KeyMemory()
        self._digests = Digests(self._catalogue)
        self._sequence = 0
        self._to_lose = 0
        self._undo: deque[Undo] = deque(maxlen=UNDOABLE)

    # Reading

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self._catalogue)

    @property
    def head(self) -> int:
        """The offset of the last event; 0 before the first."""
        return self._feed.next - 1

    @property
    def oldest(self) -> int:
        """The oldest offset still held: `head` + 1 if there is none."""
        return self._feed.first

    @property
    def remembered_keys(self) -> int:
        return len(self._keys)

    @property
    def due_at(self) -> float | None:
        """When `settle` is to be called next; None while no event is late."""
        return self._feed.due_at

    def read(self, product_id: str) -> Row | None:
        return self._catalogue.get(product_id)

    def page(self, offset: int, limit: int) -> list[Row]:
        """Return at most `page_limit` rows from `offset` on, in code point order of their ids."""
        return self._catalogue.page(offset, min(limit, self.switches.page_limit))

    def page_after(self, product_id: str | None, limit: int) -> list[Row]:
        """Return at most `page_limit` rows after that id, or from the first one."""
        return self._catalogue.page_after(product_id, min(limit, self.switches.page_limit))

    def ids(self) -> list[str]:
        """Return the ids of all products, in code point order."""
        return list(self._catalogue.ids())

    def everything(self) -> list[Row]:
        return self._catalogue.page(0, len(self._catalogue))

    def bucket(self, bucket: int, buckets: int) -> list[Row]:
        """Return all rows of one bucket of the digest, in order."""
        return list(self._catalogue.bucket(bucket, buckets))

    def events(self, offset: int, limit: int, now: float) -> EventPage:
        """Return the published events from `offset` on.

        Raises PositionGone if the log no longer holds them. Without the feature `gone` the page
        begins at the oldest event instead.
        """
        self.settle(now)
        if not self._feed.reaches(offset) and self.switches.has(Feature.GONE):
            raise PositionGone(self._feed.first)
        return self._feed.page(offset, limit)

    def unhashed(self) -> list[str]:
        """Return the ids whose rows `digest` would have to hash."""
        return self._digests.unhashed()

    def hash_rows(self, product_ids: Iterable[str]) -> None:
        """Hash some rows ahead, so that a large digest is made in slices."""
        self._digests.hash(product_ids)

    @property
    def next_offset(self) -> int:
        """The offset that the next event gets."""
        return self._feed.next

    def digest(self, buckets: int) -> tuple[list[int], list[str]]:
        """Return the number of rows and the sum of row hashes of every bucket."""
        return self._digests.buckets(buckets)

    # Writing

    def update(self, update: Update, now: float) -> Answer:
        """Apply one update or refuse it, and return the answer with all fields."""
        self.settle(now)
        remembered = self._keys.recall(update.idempotency_key)
        if remembered is not None:
            return repeated(remembered, update)
        row = self._catalogue.get(update.product_id)
        decision = decide_update(update, row, self.switches, now)
        key = Remembered(update.idempotency_key, now, decision.answer)
        if decision.write is None:
            self._do({"op": "refusal", "key": list(key)})
        else:
            self._write(decision.write, now, key)
        return decision.answer

    def create(self, attributes: Row, now: float) -> Answer:
        """Create a product at version 1. `attributes` has `productId`, and `available` if not 0."""
        return self._apply_operation(Creation(attributes), now)

    def set(self, attributes: Row, now: float) -> Answer:
        """Change some attributes of one product, and leave the others."""
        return self._apply_operation(Setting(attributes), now)

    def delete(self, product_id: str, now: float) -> Answer:
        """Delete a product; the event has the next version and the row as it was."""
        return self._apply_operation(Deletion(product_id), now)

    def write(self, operation: Operation, now: float) -> Answer:
        """Apply any operation or refuse it, and return the answer with all fields."""
        if isinstance(operation, Update):
            return self.update(operation, now)
        return self._apply_operation(operation, now)

    # Time

    def settle(self, now: float) -> None:
        """Number and publish late events that are due, and forget old keys."""
        self._keys.forget_before(now - self.switches.key_memory_seconds)
        if self._feed.due_at is None:
            return
        for sequence in self._feed.unnumbered_due(now):
            self._do({"op": "numbered", "sequence": sequence, "offset": self._feed.next})
        if self._feed.reveal(now):
            self.revision += 1

    # Faults and replacement

    def switch(self, switches: Switches) -> None:
        """Change the switches."""
        self.switches = switches
        self._feed.trim(switches.event_limit)
        self.revision += 1

    def forget_log(self) -> None:
        """Lose all events; offsets continue, older ones are gone."""
        self._do({"op": "forget_log"})

    def forget_keys(self) -> None:
        self._do({"op": "forget_keys"})

    def begin_generation(self, name: str) -> None:
        """Begin a new feed at offset 1, with the same products."""
        self._do({"op": "generation", "name": name})

    def lose_next(self, count: int) -> None:
        """Let the next `count` events never appear: their offsets stay gaps."""
        self._to_lose += count

    def crash(self, loses: Part, count: int) -> None:
        """End as a Central does that saves its log and its stock apart, and begin again.

        `loses` events: the last `count` entries of the log are lost, and their stock stays; their
        offsets are used again. Stock: of the last `count` writes the events stay, and the products
        and keys are as before them; at most `UNDOABLE`, and none from before the start.
        """
        if loses == "events":
            self._do({"op": "log_cut", "count": count})
            return
        taken = [self._undo.pop() for _ in range(min(count, len(self._undo)))]
        rows = {undo.product_id: undo.row for undo in taken}  # the oldest of a product is the last
        keys = [undo.key for undo in taken if undo.key is not None]
        self._do({"op": "stock_lost", "rows": rows, "keys": keys})

    def lie(self, product_id: str, attributes: Row | None) -> None:
        """Change a product, or remove it (None), without a new version, time or event.

        `attributes` may set `version`, too.
        """
        held = self._catalogue.get(product_id)
        row = None if attributes is None else lied(product_id, held, attributes)
        self._do({"op": "lie", "productId": product_id, "row": row})

    def backup(self) -> Change:
        """Return the whole state as one JSON value, for `restore`."""
        return {
            "generation": self.generation,
            "first": self._feed.first,
            "next": self._feed.next,
            "products": self._catalogue.rows(),
            "events": self._feed.everything(),
            "unnumbered": self._feed.still_unnumbered(),
            "sequence": self._sequence,
            "keys": [list(remembered) for remembered in self._keys.everything()],
        }

    def restore(self, backup: Change, generation: str) -> None:
        """Replace the state by `backup`, offsets included, with this name of the generation."""
        self._do({"op": "restore", "state": {**backup, "generation": generation}})

    def wipe(self, generation: str) -> None:
        """Remove all products and keys, and begin an empty feed at offset 1."""
        empty: Change = {"first": 1, "next": 1, "products": [], "events": [], "keys": []}
        self.restore(empty | {"unnumbered": [], "sequence": 0}, generation)

    def replay(self, changes: Iterable[Change]) -> None:
        """Apply recorded changes without recording them again; then no event is late."""
        for change in changes:
            self._apply(change)
        for sequence in self._feed.unnumbered_due(math.inf):
            self._apply({"op": "numbered", "sequence": sequence, "offset": self._feed.next})

    # How a write becomes a change

    def _apply_operation(self, operation: Operation, now: float) -> Answer:
        self.settle(now)
        row = self._catalogue.get(operation.product_id)
        decision = decide(operation, row, self.switches, now)
        if decision.write is not None:
            self._write(decision.write, now)
        return decision.answer

    def _write(self, write: Write, now: float, key: Remembered | None = None) -> None:
        self._publish(write.event, key, now)

    def _publish(self, event: Event, key: Remembered | None, now: float) -> None:
        late = IN_ORDER if self.switches.has(Feature.ORDER) else self._lateness()
        offset = None if late.number_after_seconds > 0 else self._feed.next
        self._sequence += 1
        change: Change = {"op": "write", "event": event, "sequence": self._sequence}
        change["offset"] = offset
        if offset is None:
            change["due"] = now + late.number_after_seconds
        if key is not None:
            change["key"] = list(key)
        self._do(change)
        if offset is not None:
            self._disturb(offset, late, now)

    def _disturb(self, offset: int, late: Lateness, now: float) -> None:
        if self._to_lose:
            self._to_lose -= 1
            self._do({"op": "lost", "offset": offset})
        elif late.publish_after_seconds > 0:
            self._feed.hide(offset, now + late.publish_after_seconds)

    # How a change is applied, live and from the journal

    def _do(self, change: Change) -> None:
        self.record(change)
        self._apply(change)

    def _apply(self, change: Change) -> None:
        self.revision += 1
        _APPLY[change["op"]](self, change)

    def _apply_write(self, change: Change) -> None:
        event = change["event"]
        product_id, key = event["productId"], change.get("key")
        self._undo.append(Undo(product_id, self._catalogue.get(product_id), key and key[0]))
        self._digests.forget(product_id)
        if event["eventType"] == "product_deleted":
            self._catalogue.remove(event["productId"])
        else:
            self._catalogue.put(event["data"])
        self._sequence = change["sequence"]
        if change["offset"] is None:
            self._feed.postpone(self._sequence, event, change["due"])
        else:
            self._feed.append(change["offset"], event)
            self._feed.trim(self.switches.event_limit)
        if "key" in change:
            self._apply_remembered(change)

    def _apply_remembered(self, change: Change) -> None:
        self._keys.keep(Remembered(*change["key"]))

    def _apply_numbered(self, change: Change) -> None:
        self._feed.number(change["sequence"], change["offset"])
        self._feed.trim(self.switches.event_limit)

    def _apply_lost(self, change: Change) -> None:
        self._feed.lose(change["offset"])

    def _apply_forgotten_log(self, _: Change) -> None:
        self._feed.forget()

    def _apply_forgotten_keys(self, _: Change) -> None:
        self._keys.forget_all()

    def _apply_generation(self, change: Change) -> None:
        self.generation = change["name"]
        self._feed.clear()

    def _apply_lie(self, change: Change) -> None:
        self._set(change["productId"], change["row"])

    def _apply_cut_log(self, change: Change) -> None:
        self._feed.cut(change["count"])

    def _apply_lost_stock(self, change: Change) -> None:
        for product_id, row in change["rows"].items():
            self._set(product_id, row)
        for key in change["keys"]:
            self._keys.forget(key)

    def _set(self, product_id: str, row: Row | None) -> None:
        """Set a product's row, or remove it (None), and nothing else."""
        self._digests.forget(product_id)
        if row is None:
            self._catalogue.remove(product_id)
        else:
            self._catalogue.put(row)

    def _apply_restored(self, change: Change) -> None:
        state = change["state"]
        self.generation = state["generation"]
        self._digests.forget_all()
        self._catalogue.replace(state["products"])
        self._feed.refill(state["first"], state["next"], state["events"])
        self._feed.trim(self.switches.event_limit)
        self._sequence = max(self._sequence, state["sequence"])
        for sequence, event, due_at in state["unnumbered"]:
            self._feed.postpone(sequence, event, due_at)
        self._undo.clear()
        self._keys.forget_all()
        for key in state["keys"]:
            self._keys.keep(Remembered(*key))


_APPLY: dict[str, Callable[[Ledger, Change], None]] = {
    "write": Ledger._apply_write,
    "refusal": Ledger._apply_remembered,
    "numbered": Ledger._apply_numbered,
    "lost": Ledger._apply_lost,
    "forget_log": Ledger._apply_forgotten_log,
    "forget_keys": Ledger._apply_forgotten_keys,
    "generation": Ledger._apply_generation,
    "lie": Ledger._apply_lie,
    "log_cut": Ledger._apply_cut_log,
    "stock_lost": Ledger._apply_lost_stock,
    "restore": Ledger._apply_restored,
}
