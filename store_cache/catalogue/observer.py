"""What a feature that follows the visible catalogue is told (a stream, an index, a history).

The announcer (`announcer.py`) tells it, in the order in which readers see it. An observer does
little in each call: the writer waits for it. It keeps what it needs; rows are shared and never
change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.event import AnyEvent


class ChangeSource(StrEnum):
    """How the store learned of a change."""

    EVENT = "event"
    WRITE = "write"  # Central's answer to a write of this shop
    FULL_SYNC = "full sync"
    REFETCH = "refetch"  # a product was read by itself
    REPAIR = "repair"  # a comparison with Central found a difference


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a change comes from. `events`: those of the batch (source event). `key_entry`: the
    record of the write in the key table (source write)."""

    source: ChangeSource
    events: Sequence[AnyEvent] = ()
    key_entry: bytes | None = None


@dataclass(frozen=True, slots=True)
class VisibleChange:
    """What readers see differently from now on.

    `rows`: the new row by product id, None if the product is gone. `old_rows`: what readers saw
    before, None if there was no such product; the same ids. Only products that differ are named:
    `rows` is empty if events only moved the position.
    """

    origin: Origin
    rows: Mapping[str, bytes | None]
    old_rows: Mapping[str, bytes | None]


class CatalogueObserver(Protocol):
    """A feature that follows the visible catalogue.

    For each product the changes form a chain: `old_rows` is what the change before showed.
    """

    def changed(self, catalogue: Catalogue, change: VisibleChange) -> None:
        """The visible catalogue has just changed. Called before any reader runs."""

    def replaced(self, old: Catalogue | None, new: Catalogue) -> None:
        """Readers see another catalogue: of a full sync or, if `old` is None, the first one.

        The products that differ are not in hand yet. They follow in parts, as changes whose source
        is a full sync; those of the first catalogue do not. The next catalogue comes after that.
        `old` is emptied later: it must not be kept.
        """

    def reset(self) -> None:
        """Forget everything and begin again from the visible catalogue: a defect of the store has
        left a gap in what was told."""
