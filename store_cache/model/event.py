"""One event of Central's feed, read at the border.

Knows: the shapes of events in the field (`central-api.md`), their fingerprint.
Refuses to know: whether an event applies; that is `rules`.
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


class UnreadableEvent(ValueError):
    """Not even the event's offset can be read: the whole page is worthless."""


class WriteName(NamedTuple):
    """The write that caused an event, where Central says so: store and key as sent to Central."""

    store_id: str
    key: str


class Event(NamedTuple):
    """A change of one product. `body` is the product's row after it; None for a deletion. `raw`:
    the event as Central told it, whole: that is what it is known by again."""

    offset: int
    kind: Kind
    product_id: str
    version: int
    body: bytes | None
    raw: object

    @property
    def fingerprint(self) -> str:
        """Made when asked for: of a whole batch just the last event's is kept."""
        return fingerprint(self.raw)

    @property
    def write(self) -> WriteName | None:
        """The write that caused it, if it names one: of interest only while one is under way."""
        return _write(self.raw)


@dataclass(frozen=True, slots=True)
class QuarantinedEvent:
    """An event that cannot be applied as it came (E5): unknown type, or unreadable data.

    Its product is read from Central instead; without a `product_id` that is not possible, and
    only a full sync can tell what changed.
    """

    offset: int
    product_id: str | None
    reason: str
    fingerprint: str


AnyEvent = Event | QuarantinedEvent


def read_event(value: object) -> AnyEvent:
    """Take one entry of a feed page. Raises UnreadableEvent when it names no offset."""
    event = _regular_event(value)
    if event is not None:
        return event
    if not isinstance(value, dict):
        raise UnreadableEvent("an event must be an object with an offset")
    offset = value.get("offset")
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= MAX_WHOLE:
        raise UnreadableEvent(f"an event's offset must be a whole number, not {offset!r}")
    try:
        return _event(value, offset)
    except UnreadableProduct as problem:
        product_id = value.get("productId")
        named = product_id if isinstance(product_id, str) and product_id else None
        return QuarantinedEvent(offset, named, str(problem), fingerprint(value))


def read_events(values: Sequence[Any]) -> list[AnyEvent]:
    """Take all entries of a feed page. Raises UnreadableEvent when one names no offset."""
    return _regular_events(values) or [read_event(value) for value in values]


def _regular_events(values: Sequence[Any]) -> list[AnyEvent] | None:
    """The events of a page of nothing but complete updates and creations, by columns; None for
    any other page."""
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
"""An event of its six parts in a tuple, without a call in Python for each."""


def _regular_event(value: Any) -> Event | None:
    """A complete update or creation, as nearly all events are, in the fewest steps; None: to be
    read the long way. All ways agree; the long one takes three times as long."""
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


def _write(value: object) -> WriteName | None:
    if not isinstance(value, dict):
        return None
    store_id, key = value.get("storeId"), value.get("idempotencyKey")
    if isinstance(store_id, str) and isinstance(key, str) and key:
        return WriteName(store_id, key)
    return None


def fingerprint(value: object) -> str:
    """What tells this event from another one at the same offset of a replaced feed (E4).

    Over the whole event with sorted keys, so that a Central that orders its fields otherwise
    after an upgrade is still the same Central. What is nested too deep to be encoded is left out.
    """
    try:
        canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        canonical = orjson.dumps(_flat(value), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=12).hexdigest()


def _flat(value: object) -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(item, str | int)}
