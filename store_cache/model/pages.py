"""What Central's reading endpoints answer, as plain values.

Knows: the parts of a page of events and of a page of the catalogue, whatever shape they came in.
Refuses to know: the wire (`edges.wire` makes these) and what follows from them (`sync`).
"""

from __future__ import annotations

from dataclasses import dataclass

from store_cache.model.event import AnyEvent
from store_cache.model.product import Rows


@dataclass(frozen=True, slots=True)
class EventPage:
    """`next_offset` and `has_more` are hints (P4); None where Central left them out.
    `events` are in the order sent, which need not be that of their offsets."""

    events: tuple[AnyEvent, ...]
    next_offset: int | None = None
    has_more: bool | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The next page to ask for: by `cursor` where Central gave one, else by `offset`."""

    offset: int
    limit: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read (F5): read singly where its id is known."""

    product_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class CataloguePage:
    """`event_offset`: the head of the feed when the page was read, or None. `is_whole`: the bare
    list, everything at once. `total` and `has_more` are None where Central left them out."""

    rows: Rows
    bad_rows: tuple[BadRow, ...] = ()
    total: int | None = None
    has_more: bool | None = None
    next_cursor: str | None = None
    event_offset: int | None = None
    generation: str | None = None
    is_whole: bool = False
