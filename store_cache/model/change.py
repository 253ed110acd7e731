"""One change of the catalogue: what the journal stores and what a reader sees afterwards (P3).

A `ChangeSet` plans it, the writer puts it on disk, and `Catalogue.apply` applies it. The names in
its JSON are older than those in the code, and stay: files of earlier versions are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from store_cache.model.position import Position
from store_cache.model.product import encode_exactly


class RefetchReason(StrEnum):
    """Why a product has to be read from Central again by itself (V2, E4, E5, W6, W7)."""

    ORDER = "order"  # V2: a creation or deletion may be out of order with other events
    UNREADABLE = "unreadable"  # E5: an event or row cannot be read
    CONFLICT = "conflict"  # E4: Central named a lower version than the one held
    CROSSED = "crossed"  # W6: a creation, deletion or missed event may have crossed an answer
    REFRESH = "refresh"  # W6: Central refused a write for its version
    AHEAD = "ahead"  # W7: an override has lasted for a minute

    @property
    def wins(self) -> bool:
        """Whether Central's answer replaces even a newer row. All but a refresh win: what is held
        is uncertain, and the answer, which may be that the product is absent, settles it."""
        return self is not RefetchReason.REFRESH


@dataclass(frozen=True, slots=True)
class PendingRefetch:
    """A refetch of one product that is still to be done. `due`, `since`: unix seconds."""

    reason: RefetchReason
    due: float
    since: float
    attempts: int = 0
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "doubt": self.reason.value,
            "due": self.due,
            "since": self.since,
            "attempts": self.attempts,
            "problem": self.problem,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PendingRefetch:
        return cls(
            RefetchReason(value["doubt"]),
            value["due"],
            value["since"],
            value["attempts"],
            value["problem"],
        )


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What a deletion leaves for at least ten minutes (V2).

    `version` 0: not known. `at`: unix seconds.
    """

    offset: int
    version: int
    at: float

    @property
    def from_refetch(self) -> bool:
        """Whether a refetch found the product absent. The feed may be behind that, and still bring
        events of incarnations that had ended by then."""
        return self.offset == 0

    def to_json(self) -> list[float]:
        return [self.offset, self.version, self.at]

    @classmethod
    def from_json(cls, value: list[Any]) -> Tombstone:
        return cls(int(value[0]), int(value[1]), float(value[2]))


@dataclass(frozen=True, slots=True)
class Override:
    """A row that an answer or a refetch has put ahead of the feed (W7).

    `version` 0: a refetch found the product absent. `since`: unix seconds. `passed`: the row of the
    last event that was not applied because of the override, or None.
    """

    version: int
    since: float
    passed: bytes | None = None

    def to_json(self) -> list[Any]:
        passed = [] if self.passed is None else [orjson.Fragment(self.passed)]
        return [self.version, self.since, *passed]

    @classmethod
    def from_json(cls, value: list[Any]) -> Override:
        passed = encode_exactly(value[2]) if len(value) > 2 else None
        return cls(int(value[0]), float(value[1]), passed)


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Change:
    """New states by product id. They are absolute, so applying a change twice changes nothing.

    `rows`: the row, or None if the product is deleted. `tombstones`, `overrides` and
    `pending_refetches`: the new entry, or None if it ends. `incarnations`: when an incarnation of
    the product began or ended (unix seconds). `position`: the new one, or None if it does not move.
    `in_sync_at`: when the store was in sync with Central (B5, unix seconds), or None if the change
    does not say. `follow_up_reason`: why a full sync has to follow, or empty. `cause` is for people
    who read a journal; its values are kept for old files.
    """

    cause: str
    sequence: int = 0
    position: Position | None = None
    rows: Mapping[str, bytes | None] = field(default_factory=_nothing)
    tombstones: Mapping[str, Tombstone | None] = field(default_factory=_nothing)
    overrides: Mapping[str, Override | None] = field(default_factory=_nothing)
    pending_refetches: Mapping[str, PendingRefetch | None] = field(default_factory=_nothing)
    incarnations: Mapping[str, float] = field(default_factory=_nothing)
    in_sync_at: float | None = None
    follow_up_reason: str = ""

    def numbered(self, sequence: int) -> Change:
        return replace(self, sequence=sequence)

    @property
    def is_empty(self) -> bool:
        return not (
            self.position
            or self.in_sync_at
            or self.follow_up_reason
            or self.rows
            or self.tombstones
            or self.overrides
            or self.pending_refetches
            or self.incarnations
        )


def encode_change(change: Change) -> bytes:
    """Return the change as one JSON object, with the bytes of rows as they are."""
    value: dict[str, Any] = {"cause": change.cause, "sequence": change.sequence}
    if change.position is not None:
        value["position"] = change.position.to_json()
    if change.in_sync_at is not None:
        value["inStepAt"] = change.in_sync_at
    if change.follow_up_reason:
        value["flaw"] = change.follow_up_reason
    if change.incarnations:
        value["lives"] = dict(change.incarnations)
    by_product: dict[str, Mapping[str, Any]] = {
        "marks": change.tombstones,
        "ahead": change.overrides,
        "owed": change.pending_refetches,
    }
    for name, entries in by_product.items():
        if entries:
            value[name] = {key: item and item.to_json() for key, item in entries.items()}
    value["rows"] = {key: body and orjson.Fragment(body) for key, body in change.rows.items()}
    return orjson.dumps(value)


def decode_change(value: dict[str, Any]) -> Change:
    """Return the change that `encode_change` encoded, from the parsed object.

    Raises KeyError, TypeError or ValueError if the object is no change.
    """
    position = value.get("position")
    return Change(
        cause=value["cause"],
        sequence=value["sequence"],
        position=None if position is None else Position.from_json(position),
        rows={key: _body(item) for key, item in _mapping(value["rows"]).items()},
        tombstones=_entries(value.get("marks"), Tombstone),
        overrides=_entries(value.get("ahead"), Override),
        pending_refetches=_entries(value.get("owed"), PendingRefetch),
        incarnations={key: float(at) for key, at in _mapping(value.get("lives")).items()},
        in_sync_at=value.get("inStepAt"),
        follow_up_reason=str(value.get("flaw", "")),
    )


def _body(item: dict[str, Any] | None) -> bytes | None:
    if item is None:
        return None
    return encode_exactly(item)


def _entries(value: object, kind: Any) -> dict[str, Any]:
    items = _mapping(value).items()
    return {key: None if item is None else kind.from_json(item) for key, item in items}


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise TypeError(f"an object was expected, not {type(value).__name__}")
    return value or {}
