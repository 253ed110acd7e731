"""Central's JSON, in every shape that deployed Centrals use, as plain values.

Knows: the names and shapes of `central-api.md` for what is read, and how strict to be: hints that
are left out are None, what is there must be right, so that nothing wrong is taken for a fact.
Refuses to know: HTTP, and what follows from the values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from store_cache.model.event import (
    AnyEvent,
    QuarantinedEvent,
    UnreadableEvent,
    fingerprint,
    read_event,
    read_events,
)
from store_cache.model.pages import BadRow, CataloguePage, EventPage
from store_cache.model.product import (
    MAX_WHOLE,
    Row,
    Rows,
    UnreadableProduct,
    read_product,
    regular_rows,
)

LONGEST_CURSOR = 4096
_GENERATION = re.compile(r"[!-~]{1,200}")
_TOO_DEEP = "it is nested too deep"
_TOO_DEEP_TO_ENCODE = (orjson.JSONEncodeError, RecursionError)
_REASON_CHARACTERS = 200
_ERROR_NAMES = frozenset(
    {"code", "message", "details", "error", "errorType", "errorMessage", "productId"}
)


class InvalidShape(ValueError):
    """An answer that Central's contract does not know; the message says in what."""


def read_json(body: bytes | bytearray) -> Any:
    """Raises Misshapen."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidShape("it is not JSON") from exc


# -- the feed ----------------------------------------------------------------------------------


def read_event_page(value: Any, generation: str | None) -> EventPage:
    """A page of the feed; `generation` is what the header says. Raises Misshapen."""
    if not isinstance(value, dict):
        raise InvalidShape("a page of events must be an object")
    next_offset = _whole(value, "nextOffset", "next_offset")
    events = value.get("events")
    if events is None and "events" not in value and next_offset is None:
        raise InvalidShape("it holds neither events nor nextOffset")
    return EventPage(
        _events(_listed(events, "events")),
        next_offset,
        _flag(value, "hasMore", "has_more"),
        read_generation(generation, value),
    )


def _events(values: list[Any]) -> tuple[AnyEvent, ...]:
    try:
        try:
            return tuple(read_events(values))
        except _TOO_DEEP_TO_ENCODE:
            return tuple(map(_read_or_set_aside, values))
    except UnreadableEvent as exc:
        raise InvalidShape(str(exc)[:_REASON_CHARACTERS]) from exc


def _read_or_set_aside(value: Any) -> AnyEvent:
    """One event that is nested too deep must not hold up the feed for ever."""
    try:
        return read_event(value)
    except _TOO_DEEP_TO_ENCODE:
        flat = {name: item for name, item in value.items() if isinstance(item, str | int)}
        offset = read_event(flat).offset
        return QuarantinedEvent(offset, _id_of(value), _TOO_DEEP, fingerprint(flat))


def read_generation(header: str | None, value: Any) -> str | None:
    """The feed's generation by the header, else by the body; None where Central names none.

    It goes into headers of the store's own: 1 to 200 visible ASCII characters. Raises Misshapen.
    """
    named = header or (value.get("generation") if isinstance(value, dict) else None)
    if named is None or named == "":
        return None
    if isinstance(named, int) and not isinstance(named, bool):
        return str(named)
    if not isinstance(named, str) or not _GENERATION.fullmatch(named):
        raise InvalidShape("its generation is not a text of 1 to 200 visible ASCII characters")
    return named


# -- the catalogue -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PageOutline:
    """A catalogue page whose rows are yet to be read. `values` are as Central sent them; the
    other fields are those of `CataloguePage`."""

    values: list[Any]
    total: int | None = None
    has_more: bool | None = None
    next_cursor: str | None = None
    event_offset: int | None = None
    generation: str | None = None
    is_whole: bool = False


def read_page_outline(value: Any, generation: str | None) -> PageOutline:
    """A page of the catalogue in one of its three shapes; `generation` is what the header says.

    Raises Misshapen.
    """
    if isinstance(value, list):
        return PageOutline(value, generation=read_generation(generation, None), is_whole=True)
    if not isinstance(value, dict) or not ("products" in value or "items" in value):
        raise InvalidShape("a page of products must be a list, or hold products or items")
    hints = value.get("pagination")
    if hints is None:
        hints = value
    elif not isinstance(hints, dict):
        raise InvalidShape("pagination must be an object")
    cursor = _cursor(value)
    total = _whole(hints, "total_count", "total", "totalCount")
    has_more = _flag(hints, "has_more", "hasMore")
    if "products" not in value and cursor is None and total is None and has_more is None:
        has_more = False  # walked by cursor, and this is the last page
    name = "products" if "products" in value else "items"
    return PageOutline(
        _listed(value[name], name),
        total,
        has_more,
        cursor,
        _whole(value, "eventOffset", "event_offset"),
        read_generation(generation, value),
    )


def _cursor(value: dict[str, Any]) -> str | None:
    cursor = _first(value, "nextCursor", "next_cursor")
    if cursor is None or cursor == "":
        return None
    if not isinstance(cursor, str) or len(cursor) > LONGEST_CURSOR:
        raise InvalidShape(f"nextCursor must be a text of at most {LONGEST_CURSOR} characters")
    return cursor


class PageRows:
    """The rows of one page, read in parts so that a large page need not stop everything else."""

    def __init__(self) -> None:
        self._rows = Rows.of(())
        self._bad_rows: list[BadRow] = []
        self._ids: set[str] = set()

    def take(self, values: Sequence[Any]) -> None:
        """Raises Misshapen where a product is there twice: the page is no state of anything."""
        if not self._take_regular(values):
            self._take_singly(values)

    def _take_regular(self, values: Sequence[Any]) -> bool:
        try:
            rows = regular_rows(values) if values else Rows.of(())
        except _TOO_DEEP_TO_ENCODE:
            return False
        if rows is None:
            return False
        ids = set(rows.ids)
        if len(ids) < len(rows) or not self._ids.isdisjoint(ids):
            return False
        self._rows.extend(rows)
        self._ids |= ids
        return True

    def _take_singly(self, values: Sequence[Any]) -> None:
        for value in values:
            try:
                row = read_product(value)
            except UnreadableProduct as problem:
                self._set_aside(value, str(problem)[:_REASON_CHARACTERS])
            except _TOO_DEEP_TO_ENCODE:
                self._set_aside(value, _TOO_DEEP)
            else:
                self._note(row.product_id)
                self._rows.append(row)

    def page(self, outline: PageOutline) -> CataloguePage:
        return CataloguePage(
            self._rows,
            tuple(self._bad_rows),
            outline.total,
            outline.has_more,
            outline.next_cursor,
            outline.event_offset,
            outline.generation,
            outline.is_whole,
        )

    def _set_aside(self, value: Any, reason: str) -> None:
        product_id = _id_of(value)
        if product_id is not None:
            self._note(product_id)
        self._bad_rows.append(BadRow(product_id, reason))

    def _note(self, product_id: str) -> None:
        if product_id in self._ids:
            raise InvalidShape(f"product {product_id[:80]!a} is on the page twice")
        self._ids.add(product_id)


# -- one product -------------------------------------------------------------------------------


def read_single(value: Any, product_id: str) -> Row:
    """Raises Misshapen."""
    try:
        return read_product(value, product_id=product_id)
    except UnreadableProduct as problem:
        raise InvalidShape(str(problem)[:_REASON_CHARACTERS]) from problem
    except _TOO_DEEP_TO_ENCODE as exc:
        raise InvalidShape(_TOO_DEEP) from exc


def is_own_error(value: Any) -> bool:
    """Whether this is an error in Central's own shape, `{"code", "message", "details"}` or
    `{"error"}`: frameworks and gateways that know no such route add names of their own."""
    if not isinstance(value, dict) or not value.keys() <= _ERROR_NAMES:
        return False
    reason = _first(value, "code", "error", "errorType")
    return isinstance(reason, str) and reason != ""


# -- parts -------------------------------------------------------------------------------------


def _first(value: dict[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _listed(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidShape(f"{name} must be a list")
    return value


def _whole(value: dict[str, Any], *names: str) -> int | None:
    number = _first(value, *names)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_WHOLE:
        raise InvalidShape(f"{names[0]} must be a whole number from 0 to {MAX_WHOLE}")
    return number


def _flag(value: dict[str, Any], *names: str) -> bool | None:
    flag = _first(value, *names)
    if flag is not None and not isinstance(flag, bool):
        raise InvalidShape(f"{names[0]} must be true or false")
    return flag


def _id_of(value: Any) -> str | None:
    """The product that an unreadable row or event is about, where it says so."""
    product_id = value.get("productId") if isinstance(value, dict) else None
    return product_id if isinstance(product_id, str) and product_id else None
