"""What a write does to a product, or why it is refused: the same for every ledger.

Rules
- An applied write raises the product's version by one and puts exactly one event on the feed.
- A deletion carries the next version; a product created again starts at version 1.

Pure: no file, no clock, no randomness. `now` is unix seconds. Who remembers idempotency keys asks
here only for a write whose key is new.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from central_stub.catalogue import Row
from central_stub.feed import Event
from central_stub.keys import Answer
from central_stub.switches import Switches

RESERVED = frozenset({"productId", "version", "lastUpdated"})
"""Attributes of a row that only Central sets."""


@dataclass(frozen=True, slots=True)
class Update:
    """One write of a store: add `delta` to the stock if the product is at `version`."""

    product_id: str
    delta: int
    version: int
    idempotency_key: str
    store_id: str = ""


@dataclass(frozen=True, slots=True)
class Creation:
    """A product to create. `attributes` has `productId`, and `available` if not 0."""

    attributes: Row

    @property
    def product_id(self) -> str:
        return str(self.attributes["productId"])


@dataclass(frozen=True, slots=True)
class Setting:
    """Attributes to change of one product; the others stay."""

    attributes: Row

    @property
    def product_id(self) -> str:
        return str(self.attributes["productId"])


@dataclass(frozen=True, slots=True)
class Deletion:
    """A product to delete."""

    product_id: str


Operation = Update | Creation | Setting | Deletion


@dataclass(frozen=True, slots=True)
class Write:
    """What an applied operation does: its event, without an offset, and the product after it, None
    if it is deleted."""

    event: Event
    row: Row | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, with all fields, and the write; None if the operation is refused."""

    answer: Answer
    write: Write | None = None


def decide(operation: Operation, row: Row | None, switches: Switches, now: float) -> Decision:
    """Apply an operation to a product as it is, None if there is none, or refuse it."""
    match operation:
        case Update():
            return decide_update(operation, row, switches, now)
        case Creation(attributes):
            return _decide_creation(attributes, row, now)
        case Setting(attributes):
            return _decide_setting(attributes, row, switches, now)
        case Deletion(product_id):
            return _decide_deletion(product_id, row, now)


def decide_update(update: Update, row: Row | None, switches: Switches, now: float) -> Decision:
    """Add the delta, or refuse the update."""
    product_id = update.product_id
    if switches.refuse_positive and update.delta > 0:
        message = "positive deltas are not taken"
        return Decision(refusal(product_id, "invalid_request", message))
    if row is None:
        return Decision(refusal(product_id, "product_not_found", "no such product"))
    if row["version"] != update.version:
        message = f"version conflict: expected {row['version']}, got {update.version}"
        return Decision(refusal(product_id, "version_conflict", message, row))
    if row["available"] + update.delta < 0:
        message = f"insufficient inventory: {row['available']} available, {-update.delta} asked for"
        return Decision(refusal(product_id, "insufficient_inventory", message, row))
    after = row | {
        "available": row["available"] + update.delta,
        "version": row["version"] + 1,
        "lastUpdated": timestamp(now),
    }
    answer = {
        "productId": product_id,
        "newQuantity": after["available"],
        "newVersion": after["version"],
        "applied": True,
        "lastUpdated": after["lastUpdated"],
    }
    named = {"storeId": update.store_id, "idempotencyKey": update.idempotency_key}
    return Decision(answer, Write(_event("inventory_updated", after, after) | named, after))


def repeated(answer: Answer, update: Update) -> Answer:
    """Return the answer to a key that is known: the first one, whatever it was for."""
    return {**answer, "productId": update.product_id}


def lied(product_id: str, held: Row | None, attributes: Row) -> Row:
    """Return a product with these attributes, without a new version or time of its own."""
    new = {"productId": product_id, "available": 0, "version": 1}
    return {**(held or new), **attributes, "productId": product_id}


def refusal(product_id: str, error_type: str, message: str, row: Row | None = None) -> Answer:
    """Return the answer to a write that was not applied, with the current state if there is one."""
    answer: Answer = {"productId": product_id, "applied": False}
    if row is not None:
        answer |= {"newQuantity": row["available"], "newVersion": row["version"]}
    return answer | {"errorType": error_type, "errorMessage": message}


@lru_cache(maxsize=16)  # changes of one moment have the same timestamp
def timestamp(now: float) -> str:
    """Return `now` in RFC 3339, UTC, to the millisecond."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _decide_creation(attributes: Row, held: Row | None, now: float) -> Decision:
    product_id = attributes["productId"]
    if held is not None:
        message = "the product exists: use set"
        return Decision(_failure(product_id, "product_exists", message, held))
    row = _row({"available": 0}, attributes, version=1, now=now)
    return Decision(_success(row), Write(_event("product_created", row, row), row))


def _decide_setting(attributes: Row, held: Row | None, switches: Switches, now: float) -> Decision:
    product_id = attributes["productId"]
    if held is None:
        message = "no such product: create it first"
        return Decision(_failure(product_id, "product_not_found", message))
    version = held["version"] + (0 if switches.same_version else 1)
    row = _row(held, attributes, version=version, now=now)
    stock_alone = attributes.keys() - RESERVED == {"available"}
    kind = "inventory_updated" if stock_alone else "product_modified"
    return Decision(_success(row), Write(_event(kind, row, row), row))


def _decide_deletion(product_id: str, held: Row | None, now: float) -> Decision:
    if held is None:
        return Decision(_failure(product_id, "product_not_found", "no such product"))
    deleted = {**held, "version": held["version"] + 1, "lastUpdated": timestamp(now)}
    return Decision(_success(deleted), Write(_event("product_deleted", deleted, held), None))


def _event(event_type: str, after: Row, data: Row) -> Event:
    return {
        "timestamp": after["lastUpdated"],
        "eventType": event_type,
        "productId": after["productId"],
        "version": after["version"],
        "data": data,
    }


def _row(held: Row, attributes: Row, *, version: int, now: float) -> Row:
    product_id = (held | attributes)["productId"]
    kept = {name: value for name, value in held.items() if name not in RESERVED}
    given = {name: value for name, value in attributes.items() if name not in RESERVED}
    own = {"version": version, "lastUpdated": timestamp(now)}
    return {"productId": product_id} | kept | given | own


def _success(row: Row) -> Answer:
    own = {"newVersion": row["version"], "lastUpdated": row["lastUpdated"]}
    return {"productId": row["productId"], "success": True} | own


def _failure(product_id: str, error_type: str, message: str, row: Row | None = None) -> Answer:
    result: Answer = {"productId": product_id, "success": False}
    if row is not None:
        result["newVersion"] = row["version"]
    return result | {"errorType": error_type, "errorMessage": message}
