"""Central's JSON in the shapes of deployed Centrals, and in invalid ones (T14)."""

from collections.abc import Generator
from typing import Any

import orjson
import pytest

from store_cache.central.failures import InvalidShape
from store_cache.central.parsing import (
    PageEvents,
    PageRows,
    is_own_error,
    read_digest,
    read_generation,
    read_json,
    read_page_outline,
    read_single,
)
from store_cache.model.digest import Digest
from store_cache.model.event import Event, Kind, QuarantinedEvent, fingerprint
from store_cache.model.pages import BadRow, CataloguePage

TOO_DEEP = orjson.loads(b"[" * 500 + b"]" * 500)
DEEPEST = orjson.loads(b"[" * 1000 + b"]" * 1000)


def product(product_id: str = "A", **more: Any) -> dict[str, Any]:
    return {"productId": product_id, "name": "N", "available": 3, "version": 2, **more}


def event(offset: int = 7, **more: Any) -> dict[str, Any]:
    kind = {"offset": offset, "eventType": "inventory_updated", "productId": "A", "version": 2}
    return {**kind, "data": product(), **more}


def read_page(value: Any, generation: str | None = None) -> CataloguePage:
    values, outline = read_page_outline(value, generation)
    rows = PageRows()
    rows.add(values)
    return rows.page(outline)


def ids(page: CataloguePage) -> list[str]:
    return page.rows.ids


# -- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Bad gateway</body></html>",
        b'{"events": [',
        b"NaN",
        b'{"a": Infinity}',
        b'"\\ud800"',
        b'"\xff"',
        b"[" * 5000,
    ],
)
def test_invalid_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidShape, match="not JSON"):
        read_json(body)


LONG = b"12345678901234567890123"


def page_with(*numbers: bytes) -> CataloguePage:
    """A page of a product for each number, which is an attribute of it."""
    product = b'{"productId":"P-%d","name":"N","available":3,"version":2,"price":%b}'
    rows = [product % (place, number) for place, number in enumerate(numbers)]
    return read_page(read_json(b"[%b]" % b",".join(rows)))


def test_numbers_of_a_page_keep_their_digits() -> None:
    """[E5] A whole number beyond 64 bits too, beside usual ones."""
    page = page_with(b"1.5", LONG, b"7")

    assert [b'"price":1.5', b'"price":' + LONG, b'"price":7'] == [
        body[body.index(b'"price"') : -1] for body in page.rows.bodies
    ]


@pytest.mark.parametrize("neighbour", [b"1.5", LONG])
def test_a_number_beyond_every_double_costs_its_row_alone(neighbour: bytes) -> None:
    """[E5] The rest of the page is read."""
    page = page_with(neighbour, b"1e400", b"7")

    assert ["P-0", "P-2"] == ids(page)
    assert (BadRow("P-1", "the number 1e400 is too large"),) == page.bad_rows


@pytest.mark.parametrize(("number", "is_readable"), [(LONG, True), (b"1e400", False)])
def test_numbers_of_events_and_of_single_products(number: bytes, is_readable: bool) -> None:
    """[E5] An event with a number beyond every double is quarantined, and the next one is read."""
    data = orjson.dumps(product(price=0)).replace(b'"price":0', b'"price":' + number)
    first, second = orjson.dumps(event(7, data="D")), orjson.dumps(event(8))
    body = b'{"events":[%b,%b]}' % (first.replace(b'"D"', data), second)
    read, after = PageEvents(asked_offset=7).page(read_json(body), None).events

    assert isinstance(after, Event)
    if is_readable:
        assert isinstance(read, Event)
        assert data == read.body == read_single(read_json(data), "A").body
        return
    assert isinstance(read, QuarantinedEvent)
    assert ("A", "the number 1e400 is too large") == (read.product_id, read.reason)
    with pytest.raises(InvalidShape, match="the number 1e400 is too large"):
        read_single(read_json(data), "A")


def test_a_long_number_changes_no_fingerprint() -> None:
    """[E4] The fingerprint on disk may be of a version that took the number for a double."""
    body = b'{"offset":7,"eventType":"x","note":%b}' % LONG
    (read,) = PageEvents(asked_offset=7).page(read_json(b'{"events":[%b]}' % body), None).events

    assert fingerprint(orjson.loads(body)) == read.fingerprint


# -- the feed ----------------------------------------------------------------------------------


def test_page_of_events() -> None:
    value = {"events": [event(7), event(8)], "nextOffset": 9, "hasMore": True, "count": 2}
    page = PageEvents(asked_offset=7).page(value, "g1")

    assert [7, 8] == [item.offset for item in page.events]
    assert (9, True, "g1") == (page.next_offset, page.has_more, page.generation)


@pytest.mark.parametrize(
    ("value", "next_offset", "has_more"),
    [
        ({"events": None, "nextOffset": 5}, 5, None),
        ({"events": []}, None, None),
        ({"nextOffset": 0, "hasMore": False}, 0, False),
        ({"events": [], "next_offset": 3, "has_more": True}, 3, True),
        ({"events": [], "nextOffset": None, "hasMore": None}, None, None),
    ],
)
def test_empty_pages_of_events(value: Any, next_offset: int | None, has_more: bool | None) -> None:
    """`events` may be null; a hint that is left out is None."""
    page = PageEvents(asked_offset=7).page(value, None)

    assert () == page.events
    assert (next_offset, has_more) == (page.next_offset, page.has_more)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "events",
        None,
        {},
        {"error": "down for maintenance"},
        {"events": {}},
        {"events": "none"},
        {"events": [None]},
        {"events": [[]]},
        {"events": [{"eventType": "inventory_updated", "productId": "A"}]},
        {"events": [event(True)]},
        {"events": [event(-1)]},
        {"events": [{**event(), "offset": "7"}]},
        {"events": [{**event(), "offset": 1e30}]},
        {"events": [{**event(), "offset": DEEPEST}]},
        {"events": [], "nextOffset": "9"},
        {"events": [], "nextOffset": -1},
        {"events": [], "nextOffset": 2**53},
        {"events": [], "nextOffset": True},
        {"events": [], "hasMore": "no"},
        {"events": [], "hasMore": 0},
        {"events": [], "generation": "two words"},
    ],
)
def test_invalid_pages_of_events(value: Any) -> None:
    """T14: so is a page with an event without an offset, if nothing says which one it takes."""
    with pytest.raises(InvalidShape):
        PageEvents(asked_offset=7).page(value, None)


def test_unreadable_event_is_quarantined() -> None:
    """E5: with its offset and product; the other events of the page count."""
    value = {"events": [event(7, eventType="moved"), event(8)]}
    page = PageEvents(asked_offset=7).page(value, None)
    quarantined, good = page.events

    assert isinstance(quarantined, QuarantinedEvent)
    assert (7, "A") == (quarantined.offset, quarantined.product_id)
    assert isinstance(good, Event)


@pytest.mark.parametrize(
    "odd", [{"data": product(tags=TOO_DEEP)}, {"eventType": DEEPEST}, {"version": DEEPEST}]
)
def test_event_that_is_nested_too_deep_is_quarantined(odd: dict[str, Any]) -> None:
    """T14: it can neither stop the feed nor end the program."""
    page = PageEvents(asked_offset=7).page({"events": [event(7, **odd), event(8)]}, None)
    quarantined, good = page.events

    assert isinstance(quarantined, QuarantinedEvent)
    assert (7, "A") == (quarantined.offset, quarantined.product_id)
    assert quarantined.fingerprint
    assert isinstance(good, Event)


def without_offset(**more: Any) -> dict[str, Any]:
    return {name: item for name, item in event(**more).items() if name != "offset"}


@pytest.mark.parametrize(
    ("asked_offset", "events", "next_offset"),
    [
        (7, [without_offset(), event(8)], None),
        (6, [event(6), without_offset(), event(8)], None),
        (5, [event(5), event(6), without_offset()], 8),
        (7, [without_offset()], 8),
        (7, [{**event(), "offset": "7"}], 8),
        (7, [{**event(), "offset": DEEPEST}], 8),
    ],
)
def test_an_event_without_an_offset_takes_the_one_that_is_missing(
    asked_offset: int, events: list[Any], next_offset: int | None
) -> None:
    """E5: it stops no feed. The missing one may be another, late event, so that only a full sync
    can tell what changed."""
    value = {"events": events, "nextOffset": next_offset}
    page = PageEvents(asked_offset=asked_offset).page(value, None)
    (quarantined,) = (each for each in page.events if isinstance(each, QuarantinedEvent))

    assert {*range(asked_offset, asked_offset + len(events))} == {e.offset for e in page.events}
    assert (7, "A", True) == (
        quarantined.offset,
        quarantined.product_id,
        quarantined.needs_full_sync,
    )
    assert quarantined.fingerprint


def test_an_entry_that_takes_no_offset_is_no_event() -> None:
    """P4: Central uses each offset once, and all are there."""
    value = {"events": [event(7), {"eventType": "heartbeat"}, event(8)], "nextOffset": 9}
    page = PageEvents(asked_offset=7).page(value, None)

    assert [7, 8] == [each.offset for each in page.events]
    assert {Event} == {*map(type, page.events)}


@pytest.mark.parametrize("kind", ["inventory_updated", "product_deleted", "moved"])
def test_an_event_without_a_product_may_name_it_in_its_data(kind: str) -> None:
    """E5: the product is refetched; without any name only a full sync can tell what changed."""
    value = event(7, eventType=kind, productId=None)
    (read,) = PageEvents(asked_offset=7).page({"events": [value]}, None).events
    (nameless,) = PageEvents(asked_offset=7).page({"events": [value | {"data": {}}]}, None).events

    assert isinstance(read, QuarantinedEvent)
    assert ("A", False) == (read.product_id, read.needs_full_sync)
    assert isinstance(nameless, QuarantinedEvent)
    assert (None, True) == (nameless.product_id, nameless.needs_full_sync)


def test_deletion_needs_no_data() -> None:
    deleted = {k: v for k, v in event(7, eventType="product_deleted").items() if k != "data"}
    (read,) = PageEvents(asked_offset=7).page({"events": [deleted]}, None).events

    assert isinstance(read, Event)
    assert (Kind.DELETED, None) == (read.kind, read.body)


# -- generations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        (None, {}, None),
        (None, [], None),
        ("", {"generation": None}, None),
        (None, {"generation": ""}, None),
        ("g1", {}, "g1"),
        (None, {"generation": "g2"}, "g2"),
        ("g1", {"generation": "g2"}, "g1"),
        (None, {"generation": 17}, "17"),
        ("x" * 200, {}, "x" * 200),
    ],
)
def test_generation_comes_from_the_header_or_the_body(
    header: str | None, body: Any, expected: str | None
) -> None:
    assert expected == read_generation(header, body)


@pytest.mark.parametrize("odd", ["x" * 201, "a b", "a\r\nSet-Cookie: b", "é", True, 1.5, ["g"]])
def test_generation_that_is_unsafe_in_a_header_is_refused(odd: Any) -> None:
    """T8: it becomes a header of the store's answers."""
    with pytest.raises(InvalidShape, match="generation"):
        read_generation(None, {"generation": odd})


# -- the catalogue -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hints", "total", "has_more"),
    [
        ({"total_count": 4, "has_more": True}, 4, True),
        ({"total": 4, "hasMore": False}, 4, False),
        ({"offset": 0, "limit": 2}, None, None),
        ({"total": None, "hasMore": None}, None, None),
    ],
)
def test_page_with_pagination(
    hints: dict[str, Any], total: int | None, has_more: bool | None
) -> None:
    value = {"products": [product("A"), product("B")], "pagination": hints, "eventOffset": 1045}
    page = read_page(value, "g1")

    assert ["A", "B"] == ids(page)
    assert (total, has_more) == (page.total, page.has_more)
    assert (1045, "g1", None, False) == (
        page.event_offset,
        page.generation,
        page.next_cursor,
        page.is_whole,
    )


def test_page_with_hints_beside_the_products() -> None:
    page = read_page({"products": [product()], "total": 9, "hasMore": True})

    assert (9, True, None) == (page.total, page.has_more, page.event_offset)


def test_page_with_cursor() -> None:
    page = read_page({"items": [product()], "nextCursor": "eyJv", "eventOffset": 0})

    assert ("eyJv", None, 0) == (page.next_cursor, page.has_more, page.event_offset)


@pytest.mark.parametrize("end", [{}, {"nextCursor": None}, {"nextCursor": ""}])
def test_items_without_cursor_are_the_last_page(end: dict[str, Any]) -> None:
    """Otherwise a catalogue of one page would be requested again by offset."""
    page = read_page({"items": [product()], **end})

    assert (None, False) == (page.next_cursor, page.has_more)


def test_items_with_a_total_are_not_the_last_page() -> None:
    page = read_page({"items": [product()], "total": 2})

    assert (2, None) == (page.total, page.has_more)


def test_bare_list_is_everything() -> None:
    page = read_page([product("B"), product("A")], "g1")

    assert ["B", "A"] == ids(page)
    assert (True, "g1", None) == (page.is_whole, page.generation, page.event_offset)


@pytest.mark.parametrize("value", [{"products": None}, {"items": None}, {"products": []}, []])
def test_empty_pages(value: Any) -> None:
    assert [] == ids(read_page(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "products",
        7,
        {},
        {"error": "down for maintenance"},
        {"events": []},
        {"products": {}},
        {"products": "none"},
        {"products": [], "pagination": []},
        {"products": [], "pagination": {"total": "4"}},
        {"products": [], "pagination": {"total": -1}},
        {"products": [], "pagination": {"has_more": "yes"}},
        {"products": [], "eventOffset": -3},
        {"products": [], "eventOffset": 1.5},
        {"products": [], "eventOffset": False},
        {"items": [], "nextCursor": 7},
        {"items": [], "nextCursor": "x" * 4097},
        {"products": [], "generation": "\n"},
    ],
)
def test_invalid_pages_of_the_catalogue(value: Any) -> None:
    """T14: an error page with status 200 is not an empty catalogue."""
    with pytest.raises(InvalidShape):
        read_page(value)


@pytest.mark.parametrize(
    ("bad", "product_id"),
    [
        (product("X", version="2"), "X"),
        (product("X", version=0), "X"),
        (product("X", version=None), "X"),
        (product("X", available=-1), "X"),
        (product("X", available=1.5), "X"),
        (product("X", tags=TOO_DEEP), "X"),
        ({"productId": "X"}, "X"),
        (product(""), None),
        ({**product(), "productId": 7}, None),
        ({"name": "N", "version": 1}, None),
        (None, None),
        ([], None),
        ("X", None),
    ],
)
def test_unreadable_row_is_a_bad_row(bad: Any, product_id: str | None) -> None:
    """F5: it carries its id, if it has one, to be refetched; the other rows count."""
    page = read_page([product("A"), bad, product("Z")])

    assert ["A", "Z"] == ids(page)
    assert [product_id] == [row.product_id for row in page.bad_rows]
    assert all(row.reason for row in page.bad_rows)


def test_rows_without_zeros_are_read() -> None:
    """Some deployed Centrals leave zeros out."""
    page = read_page([{"productId": "A", "name": "N", "version": 1}])

    assert [0] == [orjson.loads(body)["available"] for body in page.rows.bodies]


@pytest.mark.parametrize(
    "rows",
    [
        [product("A"), product("B"), product("A")],
        [product("A"), product("A", version=9)],
        [product("A"), product("A", version="unreadable")],
        [product("A", version="unreadable"), product("A")],
    ],
)
def test_product_twice_on_one_page_is_refused(rows: list[Any]) -> None:
    """F3: repeats on different pages are merged, but a page is read at one moment."""
    with pytest.raises(InvalidShape, match="'A' is on the page twice"):
        read_page(rows)


def test_ids_that_differ_only_by_case_are_two_products() -> None:
    assert ["a", "A", "a "] == ids(read_page([product("a"), product("A"), product("a ")]))


def test_product_twice_in_two_parts_of_a_page_is_refused() -> None:
    rows = PageRows()
    rows.add([product("A")])

    with pytest.raises(InvalidShape, match="twice"):
        rows.add([product("A")])


def test_reason_of_a_bad_row_is_short() -> None:
    """T14: Central's data does not decide its length."""
    (bad,) = read_page([product("X", version=10**18)]).bad_rows

    assert isinstance(bad, BadRow)
    assert len(bad.reason) <= 200


# -- one product -------------------------------------------------------------------------------


def test_single_product() -> None:
    assert 2 == read_single(product("A"), "A").version


@pytest.mark.parametrize(
    "value",
    [
        product("B"),
        {},
        {"error": "not here"},
        {"events": [], "nextOffset": 4},
        [product("A")],
        None,
        product("A", tags=TOO_DEEP),
        product("B" * 10_000),
    ],
)
def test_anything_but_the_requested_product_is_refused(value: Any) -> None:
    """Neither another product nor a page is taken for this product."""
    with pytest.raises(InvalidShape) as caught:
        read_single(value, "A")

    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"code": "not_found", "message": "no such product", "details": []}, True),
        ({"error": "product not found"}, True),
        ({"errorType": "product_not_found", "errorMessage": "…", "productId": "A"}, True),
        ({"timestamp": "…", "status": 404, "error": "Not Found", "path": "/v1/inventory/A"}, False),
        ({"message": "no Route matched with those values"}, False),
        ({"detail": "Not Found"}, False),
        ({"error": ""}, False),
        ({"error": {"code": 404}}, False),
        ({"code": 404, "message": "…"}, False),
        ({}, False),
        ([], False),
        ("not found", False),
        (None, False),
    ],
)
def test_only_centrals_own_error_shape_means_absence(value: Any, expected: bool) -> None:
    """E5: a 404 of a framework or gateway is about the address, not the product."""
    assert expected == is_own_error(value)


# -- digests -----------------------------------------------------------------------------------

SUMS = ["0" * 31 + "a", "f" * 32]


def digest(**changed: Any) -> dict[str, Any]:
    whole = {"generation": "g-1", "nextOffset": 7, "rows": [1, 2], "sums": SUMS}
    return whole | changed


def whole(parts: Generator[None, None, Digest]) -> Digest:
    while True:
        try:
            next(parts)
        except StopIteration as end:
            read: Digest = end.value
            return read


def test_digest() -> None:
    read = whole(read_digest(digest(), None, buckets=2))
    assert (read.next_offset, read.generation, read.buckets) == (7, "g-1", 2)
    assert ([1, 2], [10, 2**128 - 1]) == (read.rows, read.sums)


@pytest.mark.parametrize(
    "value",
    [
        [],
        digest(nextOffset=None),
        digest(rows=[1]),
        digest(rows=[1, -1]),
        digest(rows=[1, True]),
        digest(rows=[1, 2.0]),
        digest(sums=SUMS[:1]),
        digest(sums=["0" * 31, "0" * 33]),
        digest(sums=["0" * 32, "F" * 32]),
        digest(sums=["0" * 32, "0" * 30 + "  "]),
        digest(sums=["0" * 32, "0" * 31 + "x"]),
        digest(sums=["0" * 32, None]),
        digest(sums=["0" * 32, 7]),
    ],
)
def test_invalid_digests(value: Any) -> None:
    with pytest.raises(InvalidShape):
        whole(read_digest(value, None, buckets=2))
