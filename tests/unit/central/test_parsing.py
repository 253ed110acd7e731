"""Central's JSON in the shapes of the field, and in shapes that it must not have (T14)."""

from typing import Any

import orjson
import pytest

from store_cache.central.parsing import (
    InvalidShape,
    PageRows,
    is_own_error,
    read_event_page,
    read_generation,
    read_json,
    read_page_outline,
    read_single,
)
from store_cache.model.event import Event, Kind, QuarantinedEvent
from store_cache.model.pages import BadRow, CataloguePage

TOO_DEEP = orjson.loads(b"[" * 500 + b"]" * 500)
DEEPEST = orjson.loads(b"[" * 1000 + b"]" * 1000)


def product(product_id: str = "A", **more: Any) -> dict[str, Any]:
    return {"productId": product_id, "name": "N", "available": 3, "version": 2, **more}


def event(offset: int = 7, **more: Any) -> dict[str, Any]:
    kind = {"offset": offset, "eventType": "inventory_updated", "productId": "A", "version": 2}
    return {**kind, "data": product(), **more}


def read_page(value: Any, generation: str | None = None) -> CataloguePage:
    outline = read_page_outline(value, generation)
    rows = PageRows()
    rows.take(outline.values)
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
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidShape, match="not JSON"):
        read_json(body)


# -- the feed ----------------------------------------------------------------------------------


def test_page_of_events_is_read() -> None:
    value = {"events": [event(7), event(8)], "nextOffset": 9, "hasMore": True, "count": 2}
    page = read_event_page(value, "g1")

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
    """`events` may be null; what is left out is None."""
    page = read_event_page(value, None)

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
def test_pages_of_events_that_are_none(value: Any) -> None:
    """T14: a page with an event that names no offset says nothing that could be relied on."""
    with pytest.raises(InvalidShape):
        read_event_page(value, None)


def test_unreadable_event_does_not_spoil_the_page() -> None:
    """E5: set aside with offset and product; the rest goes on."""
    page = read_event_page({"events": [event(7, eventType="moved"), event(8)]}, None)
    aside, good = page.events

    assert isinstance(aside, QuarantinedEvent)
    assert (7, "A") == (aside.offset, aside.product_id)
    assert isinstance(good, Event)


@pytest.mark.parametrize(
    "odd", [{"data": product(tags=TOO_DEEP)}, {"eventType": DEEPEST}, {"version": DEEPEST}]
)
def test_event_that_is_nested_too_deep_is_set_aside(odd: dict[str, Any]) -> None:
    """T14: one such event must not hold up the feed for ever, nor end the program."""
    page = read_event_page({"events": [event(7, **odd), event(8)]}, None)
    aside, good = page.events

    assert isinstance(aside, QuarantinedEvent)
    assert (7, "A") == (aside.offset, aside.product_id)
    assert aside.fingerprint
    assert isinstance(good, Event)


def test_deletion_needs_no_data() -> None:
    deleted = {k: v for k, v in event(7, eventType="product_deleted").items() if k != "data"}
    (read,) = read_event_page({"events": [deleted]}, None).events

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
def test_generation_is_of_the_header_else_of_the_body(
    header: str | None, body: Any, expected: str | None
) -> None:
    assert expected == read_generation(header, body)


@pytest.mark.parametrize("odd", ["x" * 201, "a b", "a\r\nSet-Cookie: b", "é", True, 1.5, ["g"]])
def test_generation_that_could_harm_a_header_is_refused(odd: Any) -> None:
    """T8: it goes into a header of the store's answers."""
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
def test_page_without_cursor_where_central_walks_by_cursor_is_the_last(end: dict[str, Any]) -> None:
    """Else a catalogue of a single page would be asked for again by offset."""
    page = read_page({"items": [product()], **end})

    assert (None, False) == (page.next_cursor, page.has_more)


def test_items_with_a_total_are_walked_by_it() -> None:
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
def test_pages_of_the_catalogue_that_are_none(value: Any) -> None:
    """T14: strict shapes; an error page with status 200 is no empty catalogue."""
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
def test_unreadable_row_does_not_spoil_the_page(bad: Any, product_id: str | None) -> None:
    """F5: such rows are read singly, where their id is known."""
    page = read_page([product("A"), bad, product("Z")])

    assert ["A", "Z"] == ids(page)
    assert [product_id] == [row.product_id for row in page.bad_rows]
    assert all(row.reason for row in page.bad_rows)


def test_rows_left_without_zeros_are_read() -> None:
    """Deployed Centrals leave zeros out."""
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
def test_product_twice_on_one_page_is_a_fault(rows: list[Any]) -> None:
    """F3: repeats across pages merge, but one page is one reading."""
    with pytest.raises(InvalidShape, match="'A' is on the page twice"):
        read_page(rows)


def test_ids_that_differ_only_by_case_are_two_products() -> None:
    assert ["a", "A", "a "] == ids(read_page([product("a"), product("A"), product("a ")]))


def test_rows_are_read_in_parts() -> None:
    """A product in two parts of one page is there twice all the same."""
    rows = PageRows()
    rows.take([product("A")])

    with pytest.raises(InvalidShape, match="twice"):
        rows.take([product("A")])


def test_reason_of_a_bad_row_is_short() -> None:
    """T14: what Central sends never decides how long a reason is."""
    (bad,) = read_page([product("X", version=10**18)]).bad_rows

    assert isinstance(bad, BadRow)
    assert len(bad.reason) <= 200


# -- one product -------------------------------------------------------------------------------


def test_single_product_is_read() -> None:
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
def test_anything_but_the_product_asked_for_is_refused(value: Any) -> None:
    """Another product's answer, or a whole page, never becomes this product."""
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
    """E5: frameworks and gateways answer 404 in JSON too, about the address and not the product."""
    assert expected == is_own_error(value)
