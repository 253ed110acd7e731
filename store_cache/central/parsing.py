"""Central's JSON as plain values, in every shape that deployed Centrals use.

A hint that is left out becomes None. A value that is there must be valid, so that nothing wrong is
taken for a fact; otherwise the functions raise InvalidShape.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson

from store_cache.central.failures import InvalidShape
from store_cache.central.splitting import ITEM_BYTES, WHOLE_BYTES
from store_cache.model import exact_json
from store_cache.model.digest import Digest
from store_cache.model.event import (
    AnyEvent,
    Event,
    LargeItem,
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
    TOO_LARGE,
    Row,
    Rows,
    UnreadableProduct,
    read_product,
    regular_rows,
)

MOST_EVENTS = 1000
"""Events of one page. The store asks for up to 500, but some Centrals ignore `limit`; one that sent
its whole log would have to be read to its end for each page."""

MOST_ROWS = 100_000
"""Products of one page. The store asks for 1,000, but some Centrals send all they have at once."""

MOST_BAD_ROWS = 1000
"""Products of one page that cannot be read, unless still more can: each is refetched by itself."""

SUMS_AT_ONCE = 8192
"""Sums of a digest that are read before other tasks may run: about two milliseconds."""

LONGEST_BAD_ID = 512
LONGEST_CURSOR = 4096
_GENERATION = re.compile(r"[!-~]{1,200}")
_TOO_DEEP = "it is nested too deep"
_TOO_DEEP_TO_ENCODE = (orjson.JSONEncodeError, RecursionError)
_REASON_CHARACTERS = 200
_ERROR_NAMES = frozenset(
    {"code", "message", "details", "error", "errorType", "errorMessage", "productId"}
)


def read_json(body: bytes | bytearray, *, keeps_digits: bool = True) -> Any:
    """Parse a body, or raise InvalidShape. `keeps_digits`: of numbers beyond 64 bits."""
    try:
        return exact_json.loads(body) if keeps_digits else orjson.loads(body)
    except ValueError as error:
        raise InvalidShape("it is not JSON") from error


# -- the feed ----------------------------------------------------------------------------------


class PageEvents:
    """The events of one page, which asked for those from `asked_offset` on.

    An event without an offset takes the first one from `asked_offset` on that is missing on the
    page. If none is missing before the offset that Central names as the next one, it takes none of
    the feed's offsets, and is left out.
    """

    names = ("events",)
    whole_bytes = ITEM_BYTES
    """So no event of a page that is parsed at once would be too large as a part of a longer one: it
    has the same fingerprint in both."""

    def __init__(self, *, asked_offset: int) -> None:
        self._asked_offset = asked_offset
        self._events: list[AnyEvent | _Unplaced] = []
        self._has_unplaced = False
        self._bytes = 0

    def add(self, values: Sequence[Any], text_bytes: int = 0) -> None:
        """Read events and add them; `text_bytes` is the length of their text, if they are a part of
        a longer list.

        Raises:
            InvalidShape
        """
        if len(self._events) + len(values) > MOST_EVENTS:
            raise InvalidShape(f"it holds more than {MOST_EVENTS} events, which were not asked for")
        try:
            events: Sequence[AnyEvent | _Unplaced] = read_events(values)
        except (UnreadableEvent, *_TOO_DEEP_TO_ENCODE):
            events = [_read_or_quarantine(value) for value in values]
            self._has_unplaced |= any(isinstance(event, _Unplaced) for event in events)
        self._bytes += text_bytes
        if self._bytes > ITEM_BYTES:
            events = [each.digested() if isinstance(each, Event) else each for each in events]
        self._events += events

    def page(self, value: Any, generation: str | None) -> EventPage:
        """Return the page with the events added so far and those of `value`; `generation` is the
        one in the header.

        Raises:
            InvalidShape
        """
        if not isinstance(value, dict):
            raise InvalidShape("a page of events must be an object")
        next_offset = _whole(value, "nextOffset", "next_offset")
        events = value.get("events")
        if events is None and "events" not in value and next_offset is None:
            raise InvalidShape("it holds neither events nor nextOffset")
        self.add(_list(events, "events"))
        events = self._placed(next_offset) if self._has_unplaced else self._events
        return EventPage(
            tuple(cast("Iterable[AnyEvent]", events)),
            next_offset,
            _flag(value, "hasMore", "has_more"),
            read_generation(generation, value),
        )

    def _placed(self, next_offset: int | None) -> Iterator[AnyEvent]:
        """Yield the events in their order; those without an offset with the one that they take."""
        offsets = {each.offset for each in self._events if not isinstance(each, _Unplaced)}
        end = max(next_offset or 0, 1 + max(offsets, default=-1))
        missing = (offset for offset in range(self._asked_offset, end) if offset not in offsets)
        for event in self._events:
            if not isinstance(event, _Unplaced):
                yield event
            elif (offset := next(missing, None)) is not None:
                yield event.at(offset)
            elif next_offset is None:
                raise InvalidShape("an event has no offset, and nothing says which one it takes")


@dataclass(frozen=True, slots=True)
class _Unplaced:
    """An event without an offset."""

    product_id: str | None
    fingerprint: str

    def at(self, offset: int) -> QuarantinedEvent:
        reason = "it has no offset that can be read"
        return QuarantinedEvent(offset, self.product_id, reason, self.fingerprint, is_placed=True)


def _read_or_quarantine(value: Any) -> AnyEvent | _Unplaced:
    """Read an event. One that is too large, is nested too deep or has no offset must not stop the
    feed."""
    reason = _TOO_DEEP
    if isinstance(value, LargeItem):
        value, reason = value.members, TOO_LARGE
    if not isinstance(value, dict):
        raise InvalidShape("an event must be an object with an offset")
    product_id, offset = named_product(value), offset_of(value)
    if offset is None:
        return _Unplaced(product_id, fingerprint(value))
    if reason is _TOO_DEEP:
        with suppress(*_TOO_DEEP_TO_ENCODE):
            return read_event(value)
    return QuarantinedEvent(offset, product_id, reason, fingerprint(value))


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

    names = ("products", "items")
    whole_bytes = WHOLE_BYTES

    def __init__(self) -> None:
        self._rows = Rows.of(())
        self._bad_rows: list[BadRow] = []
        self._ids: set[str] = set()

    def add(self, values: Sequence[Any], _text_bytes: int = 0) -> None:
        """Parse products and add them.

        Raises:
            InvalidShape: a product is on the page twice, so the page is no state of the catalogue;
                or there are too many.
        """
        if len(self._rows) + len(values) > MOST_ROWS:
            raise InvalidShape(f"it holds more than {MOST_ROWS} products")
        if self._add_regular(values):
            return
        for value in values:
            if isinstance(value, LargeItem):
                self._add_bad(value.members, TOO_LARGE)
                continue
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
        if len(self._bad_rows) > max(MOST_BAD_ROWS, len(self._rows)):
            raise InvalidShape(f"{len(self._bad_rows)} of its products cannot be read: {reason}")

    def _add_id(self, product_id: str) -> None:
        if product_id in self._ids:
            raise InvalidShape(f"product {product_id[:80]!a} is on the page twice")
        self._ids.add(product_id)

    def page(self, outline: CataloguePage) -> CataloguePage:
        """Return the page with all rows added so far."""
        return replace(outline, rows=self._rows, bad_rows=tuple(self._bad_rows))


# -- the digest ---------------------------------------------------------------------------------


def read_digest(
    value: Any, generation: str | None, *, buckets: int
) -> Generator[None, None, Digest]:
    """Read a digest of `buckets` buckets in parts, and return it; `generation` is the one in the
    header.

    Raises:
        InvalidShape
    """
    if not isinstance(value, dict):
        raise InvalidShape("a digest must be an object")
    next_offset = _whole(value, "nextOffset")
    rows, texts = value.get("rows"), value.get("sums")
    if next_offset is None or not isinstance(rows, list) or not isinstance(texts, list):
        raise InvalidShape("a digest must hold nextOffset, rows and sums")
    if len(rows) != buckets or len(texts) != buckets:
        raise InvalidShape(f"a digest of {buckets} buckets must hold as many rows and sums")
    if set(map(type, rows)) - {int} or min(rows, default=0) < 0:
        raise InvalidShape("rows of a digest must be whole numbers")
    sums: list[int] = []
    for first in range(0, buckets, SUMS_AT_ONCE):
        sums += _sums(texts[first : first + SUMS_AT_ONCE])
        yield
    return Digest(next_offset, rows, sums, read_generation(generation, value))


def _sums(texts: list[Any]) -> list[int]:
    """Return the numbers that texts of 32 lower-case hexadecimal digits stand for; they are read as
    one text, which takes a third of the time.

    Raises:
        InvalidShape
    """
    try:
        text = "".join(texts)
        is_regular = not set(map(len, texts)) - {32} and text == text.lower()
        numbers = struct.unpack("16s" * len(texts), bytes.fromhex(text))
    except (TypeError, ValueError, struct.error):
        is_regular, numbers = False, ()
    if not is_regular:
        raise InvalidShape("sums of a digest must be texts of 32 hexadecimal digits")
    return list(map(int.from_bytes, numbers))


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
    is_id = isinstance(product_id, str) and 0 < len(product_id) <= LONGEST_BAD_ID
    return product_id if is_id else None
