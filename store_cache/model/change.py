"""One change of the catalogue: what the journal keeps and what a reader sees afterwards (P3).

Knows: the record's parts and its JSON form, which is what lies on disk.
Refuses to know: why the change is right; `rules` plans it, `catalogue` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from store_cache.model.position import Position


class RefetchReason(StrEnum):
    """Why a product has to be read again by itself. All but a refresh win over what is held, if
    nothing about the product changed since the reading was sent (V2, E4, E5, W7): what it says
    is the truth, absence included."""

    ORDER = "order"  # V2: creation, deletion and others too close to be told apart
    UNREADABLE = "unreadable"  # E5
    CONFLICT = "conflict"  # E4: Central named a lower version than the one held
    CROSSED = "crossed"  # W6: a creation or deletion crossed a write's answer, or a jump
    REFRESH = "refresh"  # W6: a conflict's answer
    AHEAD = "ahead"  # W7: still ahead after 60 s

    @property
    def wins(self) -> bool:
        return self is not RefetchReason.REFRESH


@dataclass(frozen=True, slots=True)
class PendingRefetch:
    """A reading of one product that is still to be done. `due` and `since` are unix seconds."""

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
    """What a deletion leaves for at least ten minutes (V2). `version` 0: not known."""

    offset: int
    version: int
    at: float

    @property
    def is_of_refetch(self) -> bool:
        """Whether a reading, not the feed, said that the product is gone: the feed may be behind
        it, and tell of lives that had ended by then."""
        return self.offset == 0

    def to_json(self) -> list[float]:
        return [self.offset, self.version, self.at]

    @classmethod
    def from_json(cls, value: list[Any]) -> Tombstone:
        return cls(int(value[0]), int(value[1]), float(value[2]))


@dataclass(frozen=True, slots=True)
class Override:
    """A product that an answer or a reading has put ahead of the feed (W7). `version` 0: a reading
    said that it is gone."""

    version: int
    since: float

    def to_json(self) -> list[float]:
        return [self.version, self.since]

    @classmethod
    def from_json(cls, value: list[Any]) -> Override:
        return cls(int(value[0]), float(value[1]))


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Change:
    """Absolute states by product id, so that making it twice changes nothing.

    `rows`: the row's bytes, or None where the product is gone. `tombstones`, `overrides` and
    `pending_refetches`: the new entry, or None where it ends. `incarnations`: when a product was
    created or deleted (unix seconds). `position`: the new one, or None where it does not move.
    `in_sync_at`: when the store was in step with Central (B5, unix seconds), or None where that
    says nothing new.
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

    def numbered(self, sequence: int) -> Change:
        return replace(self, sequence=sequence)

    @property
    def is_empty(self) -> bool:
        return not (
            self.position
            or self.in_sync_at
            or self.rows
            or self.tombstones
            or self.overrides
            or self.pending_refetches
            or self.incarnations
        )


def encode_change(change: Change) -> bytes:
    """The change as one JSON object; rows go in as the bytes they are."""
    value: dict[str, Any] = {"cause": change.cause, "sequence": change.sequence}
    if change.position is not None:
        value["position"] = change.position.to_json()
    if change.in_sync_at is not None:
        value["inStepAt"] = change.in_sync_at
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
    """The inverse of `encode_change`, from the parsed object. Raises KeyError, TypeError or
    ValueError where it is none."""
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
    )


def _body(item: dict[str, Any] | None) -> bytes | None:
    if item is None:
        return None
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)[:-1]


def _entries(value: object, kind: Any) -> dict[str, Any]:
    items = _mapping(value).items()
    return {key: None if item is None else kind.from_json(item) for key, item in items}


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise TypeError(f"an object was expected, not {type(value).__name__}")
    return value or {}
