"""One event of Central's feed, parsed from the shapes that deployed Centrals send.

Whether an event applies is decided elsewhere (`catalogue/apply.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import orjson

from store_cache.model.product import (
    MAX_WHOLE,
    UnreadableProduct,
    read_product,
    regular_row,
    regular_rows,
)


class Kind(StrEnum):
    UPDATED = "updated"
    CREATED = "created"
    DELETED = "deleted"


KINDS = {
    "inventory_updated": Kind.UPDATED,
    "product_modified": Kind.UPDATED,
    "product_updated": Kind.UPDATED,  # what older Centrals say for both
    "product_created": Kind.CREATED,
    "product_deleted": Kind.DELETED,
}


_REASON_CHARACTERS = 200
_LONGEST_NAME = 512


class UnreadableEvent(ValueError):
    """The event's offset cannot be read, so that the whole page cannot be used."""


@dataclass(frozen=True, slots=True)
class LargeItem:
    """An event or row too large to be parsed. `members`: its short ones, such as an id."""

    members: dict[str, Any]


class WriteName(NamedTuple):
    """The write that caused an event: store and idempotency key as sent to Central."""

    store_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Digest:
    """What is needed of an event as Central sent it, where that would take too much memory."""

    fingerprint: str
    write: WriteName | None


class Event(NamedTuple):
    """A change of one product.

    `body`: the product's row after it; None for a deletion. `raw`: the event as Central sent it, or
    a Digest of that.
    """

    offset: int
    kind: Kind
    product_id: str
    version: int
    body: bytes | None
    raw: object

    @property
    def fingerprint(self) -> str:
        """See `fingerprint`. Computed when needed: only the last event of a batch needs one."""
        return self.raw.fingerprint if isinstance(self.raw, Digest) else fingerprint(self.raw)

    @property
    def write(self) -> WriteName | None:
        """The write that caused the event, if Central names it."""
        if isinstance(self.raw, Digest):
            return self.raw.write
        if not isinstance(self.raw, dict):
            return None
        store_id, key = self.raw.get("storeId"), self.raw.get("idempotencyKey")
        if isinstance(store_id, str) and isinstance(key, str) and key:
            return WriteName(store_id, key)
        return None

    def digested(self) -> Event:
        """Return the event without what Central sent, which may take thirty times as much memory as
        its text."""
        if not isinstance(self.raw, dict):
            return self
        write = self.write
        if write is not None and len(write.store_id) + len(write.key) > _LONGEST_NAME:
            write = None  # none of a store's own
        return self._replace(raw=Digest(self.fingerprint, write))


@dataclass(frozen=True, slots=True)
class QuarantinedEvent:
    """An event of an unknown type or with unreadable data (E5).

    Its product is refetched. `is_placed`: Central gave no offset, and the event took the first one
    that was missing on its page, which may be another event's.
    """

    offset: int
    product_id: str | None
    reason: str
    fingerprint: str
    is_placed: bool = False

    @property
    def needs_full_sync(self) -> bool:
        """Whether only a full sync can tell what changed."""
        return self.product_id is None or self.is_placed


AnyEvent = Event | QuarantinedEvent


def read_event(value: object) -> AnyEvent:
    """Parse one entry of a feed page. Raises UnreadableEvent if it has no offset."""
    event = _regular_event(value)
    if event is not None:
        return event
    if not isinstance(value, dict):
        raise UnreadableEvent("an event must be an object with an offset")
    offset = offset_of(value)
    if offset is None:
        named = value.get("offset")
        raise UnreadableEvent(f"an event's offset must be a whole number, not {named!r}")
    try:
        return _event(value, offset)
    except UnreadableProduct as problem:
        reason = str(problem)[:_REASON_CHARACTERS]
        return QuarantinedEvent(offset, named_product(value), reason, fingerprint(value))


def named_product(value: dict[str, Any]) -> str | None:
    """Return the product that an unreadable event names, itself or in its data."""
    data = value.get("data")
    for names in (value, data if isinstance(data, dict) else {}):
        product_id = names.get("productId")
        if isinstance(product_id, str) and product_id:
            return product_id
    return None


def offset_of(value: dict[str, Any]) -> int | None:
    """Return the offset that an event names; None if it names none that can be read."""
    offset = value.get("offset")
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= MAX_WHOLE:
        return None
    return offset


def read_events(values: Sequence[Any]) -> list[AnyEvent]:
    """Parse all entries of a feed page. Raises UnreadableEvent if one has no offset."""
    return _regular_events(values) or [read_event(value) for value in values]


def _regular_events(values: Sequence[Any]) -> list[AnyEvent] | None:
    """Fast path: parse a page by columns. Return None unless all of its entries are complete
    updates and creations."""
    try:
        rows = regular_rows([value["data"] for value in values]) if values else None
        offsets = [value["offset"] for value in values]
        versions = [value["version"] for value in values]
        ids = [value["productId"] for value in values]
        kinds = [KINDS[value["eventType"]] for value in values]
    except (KeyError, TypeError):
        return None
    if (
        rows is None
        or Kind.DELETED in kinds
        or {*map(type, offsets), *map(type, versions)} != {int}
    ):
        return None
    if min(offsets) < 0 or max(offsets) > MAX_WHOLE:
        return None
    if ids != rows.ids or versions != rows.versions:
        return None
    columns = zip(offsets, kinds, ids, versions, rows.bodies, values, strict=True)
    return list(map(_event_of, columns))


_event_of = partial(tuple.__new__, Event)
"""Make an event of a tuple of its six fields, without a Python call for each event."""


def _regular_event(value: Any) -> Event | None:
    """Fast path: parse a complete update or creation in a third of the time. Return None for any
    other event, which `_event` parses. All paths give the same result."""
    try:
        offset, kind, version = value["offset"], KINDS[value["eventType"]], value["version"]
        row = regular_row(value["data"])
        if row is None or value["productId"] != row.product_id or version != row.version:
            return None
    except (KeyError, TypeError):
        return None
    if type(offset) is not int or type(version) is not int or not 0 <= offset <= MAX_WHOLE:
        return None
    if kind is Kind.DELETED:
        return None
    return Event(offset, kind, row.product_id, version, row.body, value)


def _event(value: dict[str, Any], offset: int) -> Event:
    kind = KINDS.get(str(value.get("eventType")))
    if kind is None:
        raise UnreadableProduct(f"unknown eventType {str(value.get('eventType'))[:80]!r}")
    product_id = value.get("productId")
    if not isinstance(product_id, str) or not product_id:
        raise UnreadableProduct("productId is missing")
    version = _version(value)
    if kind is Kind.DELETED:
        return Event(offset, kind, product_id, version or 0, None, value)
    row = read_product(value.get("data"), product_id=product_id, version=version)
    return Event(offset, kind, product_id, row.version, row.body, value)


def _version(value: dict[str, Any]) -> int | None:
    version = value.get("version")
    if version is None:
        return None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UnreadableProduct(f"version must be a whole number from 1, not {str(version)[:40]!r}")
    return version


def fingerprint(value: object) -> str:
    """Return a hash that tells an event from another one at its offset in a replaced feed (E4).

    Keys are sorted, so that an upgraded Central may order its fields in another way. Values nested
    too deep to be encoded are left out, and long numbers count as doubles.
    """
    try:
        canonical = orjson.dumps(value, default=float, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        canonical = orjson.dumps(_flat(value), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=12).hexdigest()


def _flat(value: object) -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(item, str | int)}
