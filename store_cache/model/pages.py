"""Pages of Central's feed and catalogue, whatever shape they came in (`central/parsing.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from store_cache.model.event import AnyEvent
from store_cache.model.product import Rows


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of the feed.

    `events`: in the order sent, which need not be that of their offsets. `next_offset` and
    `has_more` are hints (P4), None if Central left them out. `relayed_at`: when the page was true,
    in seconds of the store's uptime, if it was passed on (by NATS); None if Central answered.
    """

    events: tuple[AnyEvent, ...]
    next_offset: int | None = None
    has_more: bool | None = None
    generation: str | None = None
    relayed_at: float | None = None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The next page of the catalogue: by `cursor` if Central gave one, else by `offset`."""

    offset: int
    limit: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read (F5). Its product is refetched, if its id is known."""

    product_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class CataloguePage:
    """A page of the catalogue.

    `event_offset`: the head of the feed when Central read the page. `is_whole`: a bare list, which
    is the whole catalogue. What Central left out is None.
    """

    rows: Rows
    bad_rows: tuple[BadRow, ...] = ()
    total: int | None = None
    has_more: bool | None = None
    next_cursor: str | None = None
    event_offset: int | None = None
    generation: str | None = None
    is_whole: bool = False
