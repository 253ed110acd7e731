"""Central's JSON as plain values, in every shape that deployed Centrals use.

A hint that is left out becomes None. A value that is there must be valid, so that nothing wrong is
taken for a fact; otherwise the functions raise InvalidShape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson

from store_cache.model import exact_json
from store_cache.model.digest import Digest
from store_cache.model.event import (
    AnyEvent,
    QuarantinedEvent,
    UnreadableEvent,
    fingerprint,
    named_product,
    offset_of,
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
_SUM = re.compile(r"[0-9a-f]{32}")
_TOO_DEEP = "it is nested too deep"
_TOO_DEEP_TO_ENCODE = (orjson.JSONEncodeError, RecursionError)
_REASON_CHARACTERS = 200
_ERROR_NAMES = frozenset(
    {"code", "message", "details", "error", "errorType", "errorMessage", "productId"}
)


class InvalidShape(ValueError):
    """The answer has none of Central's shapes; the message says what is wrong with it."""


def read_json(body: bytes | bytearray) -> Any:
    """Parse a body, or raise InvalidShape."""
    try:
        return exact_json.loads(body)
    except ValueError as error:
        raise InvalidShape("it is not JSON") from error


# -- the feed ----------------------------------------------------------------------------------


def read_event_page(value: Any, generation: str | None, *, asked_offset: int) -> EventPage:
    """Return a page of the feed; `generation` is the one in the header.

    An event without an offset takes the first one from `asked_offset` on that is missing on the
    page. If none is missing before the offset that Central names as the next one, it takes none of
    the feed's offsets, and is left out.

    Raises:
        InvalidShape
    """
    if not isinstance(value, dict):
        raise InvalidShape("a page of events must be an object")
    next_offset = _whole(value, "nextOffset", "next_offset")
    events = value.get("events")
    if events is None and "events" not in value and next_offset is None:
        raise InvalidShape("it holds neither events nor nextOffset")
    return EventPage(
        _events(_list(events, "events"), asked_offset, next_offset),
        next_offset,
        _flag(value, "hasMore", "has_more"),
        read_generation(generation, value),
    )


def _events(values: list[Any], asked_offset: int, next_offset: int | None) -> tuple[AnyEvent, ...]:
    try:
        return tuple(read_events(values))
    except (UnreadableEvent, *_TOO_DEEP_TO_ENCODE):
        return tuple(_read_or_quarantine(values, asked_offset, next_offset))


def _read_or_quarantine(
    values: list[Any], asked_offset: int, next_offset: int | None
) -> Iterator[AnyEvent]:
    """Read events one by one. One that is nested too deep or has no offset is quarantined, so that
    it cannot stop the feed."""
    if not all(isinstance(value, dict) for value in values):
        raise InvalidShape("an event must be an object with an offset")
    offsets = {offset for value in values if (offset := offset_of(value)) is not None}
    end = max(next_offset or 0, 1 + max(offsets, default=-1))
    missing = (offset for offset in range(asked_offset, end) if offset not in offsets)
    for value in values:
        offset, product_id = offset_of(value), named_product(value)
        if offset is not None:
            try:
                yield read_event(value)
            except _TOO_DEEP_TO_ENCODE:
                yield QuarantinedEvent(offset, product_id, _TOO_DEEP, fingerprint(value))
        elif (offset := next(missing, None)) is not None:
            reason = "it has no offset that can be read"
            yield QuarantinedEvent(offset, product_id, reason, fingerprint(value), is_placed=True)
        elif next_offset is None:
            raise InvalidShape("an event has no offset, and nothing says which one it takes")


def read_generation(header: str | None, value: Any) -> str | None:
    """Return the feed's generation from the header, or from the body, or None.

    It becomes a header of the store's own answers: 1 to 200 visible ASCII characters.

    Raises:
        InvalidShape
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


def read_page_outline(value: Any, generation: str | None) -> tuple[list[Any], CataloguePage]:
    """Return the products of a page as Central sent them, and the page without its rows.

    `generation` is the one in the header. `PageRows` parses the products.

    Raises:
        InvalidShape
    """
    if isinstance(value, list):
        named = read_generation(generation, None)
        return value, CataloguePage(Rows.of(()), generation=named, is_whole=True)
    if not isinstance(value, dict) or not ("products" in value or "items" in value):
        raise InvalidShape("a page of products must be a list, or hold products or items")
    hints = value.get("pagination")
    if hints is None:
        hints = value
    elif not isinstance(hints, dict):
        raise InvalidShape("pagination must be an object")
    name = "products" if "products" in value else "items"
    cursor = _first(value, "nextCursor", "next_cursor")
    if cursor == "":
        cursor = None
    if cursor is not None and (not isinstance(cursor, str) or len(cursor) > LONGEST_CURSOR):
        raise InvalidShape(f"nextCursor must be a text of at most {LONGEST_CURSOR} characters")
    total = _whole(hints, "total_count", "total", "totalCount")
    has_more = _flag(hints, "has_more", "hasMore")
    if name == "items" and cursor is None and total is None and has_more is None:
        has_more = False  # this Central pages by cursor, and this is the last page
    return _list(value[name], name), CataloguePage(
        Rows.of(()),
        total=total,
        has_more=has_more,
        next_cursor=cursor,
        event_offset=_whole(value, "eventOffset", "event_offset"),
        generation=read_generation(generation, value),
    )


class PageRows:
    """The rows of one page, added in parts so that a large page does not hold up other tasks."""

    def __init__(self) -> None:
        self._rows = Rows.of(())
        self._bad_rows: list[BadRow] = []
        self._ids: set[str] = set()

    def add(self, values: Sequence[Any]) -> None:
        """Parse products and add them.

        Raises:
            InvalidShape: a product is on the page twice, so the page is no state of the catalogue.
        """
        if self._add_regular(values):
            return
        for value in values:
            try:
                row = read_product(value)
            except UnreadableProduct as problem:
                self._add_bad(value, str(problem)[:_REASON_CHARACTERS])
            except _TOO_DEEP_TO_ENCODE:
                self._add_bad(value, _TOO_DEEP)
            else:
                self._add_id(row.product_id)
                self._rows.append(row)

    def _add_regular(self, values: Sequence[Any]) -> bool:
        """Add all in one go if each is a regular row with a new id; else add none."""
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

    def _add_bad(self, value: Any, reason: str) -> None:
        product_id = _product_id(value)
        if product_id is not None:
            self._add_id(product_id)
        self._bad_rows.append(BadRow(product_id, reason))

    def _add_id(self, product_id: str) -> None:
        if product_id in self._ids:
            raise InvalidShape(f"product {product_id[:80]!a} is on the page twice")
        self._ids.add(product_id)

    def page(self, outline: CataloguePage) -> CataloguePage:
        """Return the page with all rows added so far."""
        return replace(outline, rows=self._rows, bad_rows=tuple(self._bad_rows))


# -- the digest ---------------------------------------------------------------------------------


def read_digest(value: Any, generation: str | None, *, buckets: int) -> Digest:
    """Return a digest of `buckets` buckets; `generation` is the one in the header.

    Raises:
        InvalidShape
    """
    if not isinstance(value, dict):
        raise InvalidShape("a digest must be an object")
    next_offset = _whole(value, "nextOffset")
    rows, sums = value.get("rows"), value.get("sums")
    if next_offset is None or not isinstance(rows, list) or not isinstance(sums, list):
        raise InvalidShape("a digest must hold nextOffset, rows and sums")
    if len(rows) != buckets or len(sums) != buckets:
        raise InvalidShape(f"a digest of {buckets} buckets must hold as many rows and sums")
    if not all(type(count) is int and count >= 0 for count in rows):
        raise InvalidShape("rows of a digest must be whole numbers")
    if not all(isinstance(total, str) and _SUM.fullmatch(total) for total in sums):
        raise InvalidShape("sums of a digest must be texts of 32 hexadecimal digits")
    hashes = [int(total, 16) for total in sums]
    return Digest(next_offset, rows, hashes, read_generation(generation, value))


# -- one product -------------------------------------------------------------------------------


def read_single(value: Any, product_id: str) -> Row:
    """Return the product `product_id`, or raise InvalidShape."""
    try:
        return read_product(value, product_id=product_id)
    except UnreadableProduct as problem:
        raise InvalidShape(str(problem)[:_REASON_CHARACTERS]) from problem
    except _TOO_DEEP_TO_ENCODE as error:
        raise InvalidShape(_TOO_DEEP) from error


def is_own_error(value: Any) -> bool:
    """Return whether this is an error in Central's own shape: `{"code", "message", "details"}` or
    `{"error"}`. Frameworks and gateways, which know no such route, add other names."""
    if not isinstance(value, dict) or not value.keys() <= _ERROR_NAMES:
        return False
    reason = _first(value, "code", "error", "errorType")
    return isinstance(reason, str) and reason != ""


# -- fields ------------------------------------------------------------------------------------


def _first(value: dict[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _list(value: Any, name: str) -> list[Any]:
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


def _product_id(value: Any) -> str | None:
    """Return the product that an unreadable row or event names, if it does."""
    product_id = value.get("productId") if isinstance(value, dict) else None
    return product_id if isinstance(product_id, str) and product_id else None
