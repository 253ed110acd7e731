"""Rows: how a product object becomes one, and what of it is kept."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from store_cache.model.product import (
    MAX_WHOLE,
    Row,
    Rows,
    UnreadableProduct,
    encode_exactly,
    read_product,
    read_row,
    regular_rows,
    version_of,
    with_stock,
)

CUP: dict[str, Any] = {
    "category": "kitchen",
    "price": 99.99,
    "version": 7,
    "lastUpdated": "2024-01-15T10:30:00Z",
    "available": 8,
    "name": "Cup",
    "productId": "PROD-001",
}


def test_the_six_fields_come_first_and_the_rest_as_it_came() -> None:
    """[D1] Rows compare as bytes, however Central orders the fields."""
    expected = (
        b'{"productId":"PROD-001","name":"Cup","available":8,"version":7,'
        b'"lastUpdated":"2024-01-15T10:30:00Z","price":99.99,"category":"kitchen"}'
    )

    assert expected == read_product(CUP).body
    assert expected == read_product(dict(reversed(CUP.items()))).body


def test_what_may_be_left_out_is_filled_or_stays_out() -> None:
    """[E5] A missing quantity is a zero that was left out."""
    row = read_product({"version": 1}, product_id="P-1")

    assert b'{"productId":"P-1","name":"","available":0,"version":1}' == row.body


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "must be an object, not missing or null"),
        ([CUP], "must be an object, not a list"),
        ("PROD-001", "must be an object, not a text"),
        (CUP | {"productId": 1}, "productId must be a text, not the number 1"),
        (CUP | {"productId": None}, "productId must be a text"),
        (CUP | {"productId": ""}, "productId is empty"),
        (CUP | {"version": "7"}, "version must be a whole number, not a text"),
        (CUP | {"version": True}, "version must be a whole number, not true or false"),
        (CUP | {"version": 7.0}, "version must be a whole number, not the number 7.0"),
        (CUP | {"version": 0}, "version is 0, outside"),
        (CUP | {"version": MAX_WHOLE + 1}, "version is 9007199254740992, outside"),
        (CUP | {"available": None}, "available must be a whole number, not missing or null"),
        (CUP | {"available": -1}, "available is -1, outside 0"),
        (CUP | {"available": {}}, "available must be a whole number, not an object"),
    ],
)
def test_what_breaks_the_contract_is_named(value: object, problem: str) -> None:
    """[E5] The message says which field is wrong, and how."""
    with pytest.raises(UnreadableProduct, match=problem):
        read_product(value)


@pytest.mark.parametrize(
    ("product_id", "version", "problem"),
    [
        ("PROD-002", None, "productId is 'PROD-001' where 'PROD-002' was expected"),
        (None, 8, "version is 7 where 8 was expected"),
    ],
)
def test_an_object_does_not_contradict_its_envelope(
    product_id: str | None, version: int | None, problem: str
) -> None:
    """[E5] A product inside an event or an answer about another one is refused."""
    with pytest.raises(UnreadableProduct, match=problem):
        read_product(CUP, product_id=product_id, version=version)


def test_a_version_that_is_nowhere_is_missing() -> None:
    """[E5] Without a version nothing can be ordered."""
    with pytest.raises(UnreadableProduct, match="version must be a whole number, not missing"):
        read_product({"productId": "P-1"})


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
products = st.builds(
    lambda others, available, version: (
        others | {"productId": "P-1", "available": available, "version": version}
    ),
    st.dictionaries(texts, values, max_size=5),
    st.integers(0, MAX_WHOLE),
    st.integers(1, MAX_WHOLE),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(products)
def test_a_row_is_read_back_as_it_was(product: dict[str, Any]) -> None:
    """[D1] From bytes to values to bytes changes nothing, and no attribute is lost."""
    row = read_product(product)

    assert row == read_row(row.body)
    assert row.body == read_product(orjson.loads(row.body)).body
    assert product.items() <= orjson.loads(row.body).items()


def test_an_answer_sets_quantity_version_and_time() -> None:
    """[W6] Nothing else of the product changes, and the order of fields stays."""
    row = with_stock(
        read_product(CUP).body, available=0, version=8, last_updated="2024-01-15T11:00:00Z"
    )
    changed = CUP | {"available": 0, "version": 8, "lastUpdated": "2024-01-15T11:00:00Z"}

    assert read_product(changed) == row


def test_an_answer_keeps_the_digits_of_other_numbers() -> None:
    """[W6] A whole number beyond 64 bits too."""
    digits = "12345678901234567890123"
    body = b'{"productId":"P","name":"","available":%d,"version":%d,"code":%b}'
    row = with_stock(body % (9, 1, digits.encode()), available=8, version=2, last_updated=None)

    assert body % (8, 2, digits.encode()) == row.body


def test_an_answer_without_a_time_leaves_the_time() -> None:
    """[W6] Central sent none."""
    row = with_stock(read_product(CUP).body, available=6, version=8, last_updated=None)

    assert CUP["lastUpdated"] == orjson.loads(row.body)["lastUpdated"]


def test_rows_take_no_more_memory_than_their_bytes() -> None:
    """[D1] The bytes that orjson returns keep 4 KiB each; a row is a copy of the exact size."""
    body = encode_exactly({"productId": "P-1"})

    assert b'{"productId":"P-1"}' == body
    assert sys.getsizeof(b"") + len(body) == sys.getsizeof(body)


def read_back(value: dict[str, Any]) -> dict[str, object]:
    """Return the product in the order of fields of a row, and of most Centrals."""
    parsed: dict[str, object] = orjson.loads(read_product(value).body)
    return parsed


PARTS: dict[str, st.SearchStrategy[object]] = {
    "productId": st.sampled_from(["P-1", "P-2", "", 5, None]),
    "name": st.sampled_from(["Cup", "", None, {"version": 1}]),
    "available": st.sampled_from([0, 8, MAX_WHOLE, MAX_WHOLE + 1, -1, True, 8.0, "8", None]),
    "version": st.sampled_from([1, 7, MAX_WHOLE, MAX_WHOLE + 1, 0, True, 7.0, "7", None]),
    "lastUpdated": st.sampled_from(["2024-01-15T10:30:00Z", None]),
    "price": st.sampled_from([99.99, "1.0"]),
    "tags": st.just(["a", "b"]),
}
OTHER_NAMES = {f"x{number}": number for number in range(100)}


@st.composite
def objects(draw: st.DrawFn) -> dict[str, object]:
    """Product objects with some of the fields, in any order, correct or not."""
    names = draw(st.lists(st.sampled_from(sorted(PARTS)), unique=True))
    return {name: draw(PARTS[name]) for name in names}


def outcome(value: dict[str, object], product_id: str | None, version: int | None) -> object:
    try:
        return read_product(value, product_id=product_id, version=version)
    except UnreadableProduct as problem:
        return str(problem)


@settings(max_examples=300, deadline=None)
@given(objects(), st.sampled_from([None, "P-1"]), st.sampled_from([None, 7]))
def test_a_complete_product_is_parsed_as_any_other(
    value: dict[str, object], product_id: str | None, version: int | None
) -> None:
    """[F5] The fast path gives the result of the slow one, which an object with a hundred more
    names takes."""
    fast = outcome(value, product_id, version)
    slow = outcome(value | OTHER_NAMES, product_id, version)
    if isinstance(slow, Row):
        more = b"," + orjson.dumps(OTHER_NAMES)[1:-1]
        slow = slow._replace(body=slow.body.replace(more, b""))

    assert slow == fast


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(objects(), st.just(read_back(CUP))), min_size=1, max_size=4))
def test_products_by_columns_are_parsed_as_one_by_one(values: list[dict[str, object]]) -> None:
    """[F5] Unless any of them is odd: then the columns are not used."""
    rows = regular_rows(values)
    one_by_one = [outcome(value, None, None) for value in values]

    assert rows is None or Rows.of(row for row in one_by_one if isinstance(row, Row)) == rows


def test_only_complete_products_are_parsed_by_columns() -> None:
    """[F5] A page as Central sends it takes the fast path; one odd product sends all to the slow
    one."""
    values = [read_back(CUP | {"productId": f"P-{number}"}) for number in range(3)]

    assert Rows.of(map(read_product, values)) == regular_rows(values)

    for odd in ({"available": True}, {"version": 0}, {"productId": ""}):
        assert regular_rows([*values, values[0] | odd]) is None
    assert regular_rows([*values, {}]) is regular_rows([*values, None]) is None


_pieces = st.sampled_from(
    ['"', "\\", ",", ':"', ',"version":', '\\","version":', "{", "[", "version", "é"]
)
odd_texts = st.lists(_pieces, max_size=5).map("".join)
odd_names = odd_texts | st.sampled_from(["version", "available", "name"])
odd_values = st.recursive(
    odd_texts | st.integers(0, 99) | st.none() | st.floats(0, 9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(odd_names, inner, max_size=3),
    max_leaves=6,
)
extras = st.dictionaries(odd_texts | st.sampled_from(["vendor", "Version"]), odd_values, max_size=3)


@given(odd_texts.filter(bool), odd_values, st.integers(1, 2**53 - 1), st.booleans(), extras)
@example("P", {"a": 1, "version": 7}, 3, True, {})
@example("P", [{"available": 1, "version": 7, "b": 1}], 3, True, {})
@example('P,"version":7,', ',"version":7,', 3, False, {})
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_version_of_a_row_is_the_products(
    product_id: str, name: object, version: int, is_last: bool, extra: dict[str, Any]
) -> None:
    """[V1] Whatever else is in a row, and however much it looks like a version."""
    own = {"productId": product_id, "name": name, "available": version, "version": version}
    own |= {} if is_last else {"price": 1.5}

    assert version == version_of(read_product(extra | own).body)
