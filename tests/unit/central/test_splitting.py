"""Long answers are split into the items of their list (T14)."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store_cache.central.failures import InvalidShape
from store_cache.central.splitting import (
    ITEM_BYTES,
    ITEMS_AT_ONCE,
    MOST_CONTAINERS,
    OUTLINE_BYTES,
    ListSplitter,
    is_parsed_at_once,
)
from store_cache.model.event import LargeItem

NAMES = ("products", "items")
ROW = {"productId": "P-1", "name": 'a "name", {x} [y] \\', "available": 3, "tags": [{"a": [1]}]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=20,
)


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def split(body: bytes, *, size: int = 100_000) -> tuple[list[Any], Any]:
    """Return the items and the parsed outline of an answer that arrives in such pieces."""
    splitter, items = ListSplitter(NAMES), []
    for piece in (*pieces(body, size), None):
        if piece is None:
            splitter.end()
        else:
            splitter.feed(piece)
        while (taken := splitter.take()) is not None:
            assert len(taken[0]) <= ITEMS_AT_ONCE
            items += taken[0]
    return items, orjson.loads(splitter.outline)


@given(
    items=st.lists(json_values, max_size=8),
    before=st.dictionaries(st.text(max_size=5), json_values, max_size=2),
    after=st.dictionaries(st.text(max_size=5), json_values, max_size=2),
    name=st.sampled_from([*NAMES, ""]),
    size=st.integers(1, 50),
    indent=st.booleans(),
)
def test_an_answer_in_pieces_is_the_answer(
    items: list[Any],
    before: dict[str, Any],
    after: dict[str, Any],
    name: str,
    size: int,
    indent: bool,
) -> None:
    """Whatever its items are, its list is called, stands beside it, and how it is written."""
    beside = {key: item for key, item in (before | after).items() if key not in NAMES}
    whole = {**before, name: items, **after}
    value = {key: whole[key] for key in whole if key in (name, *beside)} if name else items
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)

    found, outline = split(body, size=size)

    assert items == found
    assert (beside | {name: []} if name else []) == outline


def test_a_long_answer_is_split_as_it_arrives() -> None:
    """Its bytes are not held until its end."""
    splitter = ListSplitter(NAMES)
    splitter.feed(b'{"products":[')
    row, held = orjson.dumps(ROW) + b",", 0
    for _ in range(200):
        splitter.feed(row * 100)
        while splitter.take() is not None:
            pass
        held = max(held, len(splitter._buffer))

    assert held < 2 * ITEM_BYTES  # and not 200 pieces


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "large",
    [
        b'{"productId":"big","x":["%s"],"version":3}' % (b"y" * 2 * ITEM_BYTES),
        b'{"x":"%s","productId":"big","version":3}' % (b'\\"' * 2 * ITEM_BYTES),
        b'{"x":[%s{}],"productId":"big","version":3}' % (b"{}," * ITEM_BYTES),
        b'{"x":{"productId":"other","y":[%s]},"productId":"big","version":3}'
        % b",".join([b'"a","b"'] * ITEM_BYTES),
        b'{"x":%s%s,"productId":"big","version":3}' % (b"[" * 900 + b" " * ITEM_BYTES, b"]" * 900),
    ],
    ids=["text", "quotes", "objects", "texts", "deep"],
)
def test_a_large_item_is_named_and_the_others_are_read(large: bytes, place: int) -> None:
    """By its own short members, wherever they stand in it."""
    items = [b'{"productId":"first"}', b'{"productId":"last"}']
    items.insert(place, large)
    found, outline = split(b'{"products":[%s],"total":3}' % b" , ".join(items), size=30_000)

    assert {"products": [], "total": 3} == outline
    named = found.pop(place)
    assert isinstance(named, LargeItem)
    assert ("big", 3) == (named.members["productId"], named.members["version"])
    assert [{"productId": "first"}, {"productId": "last"}] == found


def test_an_item_nested_deep_is_parsed() -> None:
    """If it is no larger than others may be."""
    deep = b'{"a":%s1%s}' % (b"[" * 50, b"]" * 50)

    assert [orjson.loads(deep), 7] == split(b"[%s,7]" % deep)[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"products":[1,]}', "not JSON"),
        (b'{"products":[1 2]}', "not JSON"),
        (b'{"products":[1}', "not JSON"),
        (b'{"products":[,1]}', "not JSON"),
        (b'{"products":[{"a"}]}', "not JSON"),
        (b'{"products":["a]}', "not JSON"),
        (b'{"products":[[1,2}', "not JSON"),
        (b'{"products":[1', "not JSON"),
        (b'{"other":[1]}', "no list begins"),
        (b"7", "no list begins"),
        (b'{"other":"%s","products":[]}' % (b"a" * OUTLINE_BYTES), "no list begins"),
        (b'{"products":[],"x":"%s"}' % (b"a" * OUTLINE_BYTES), "beside its list"),
        (b'{"products":[%s' % (b"[" * 2000), "nested too deep"),
    ],
)
def test_what_cannot_be_split_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidShape, match=reason):
        split(body)


def test_only_what_is_quickly_parsed_is_parsed_at_once() -> None:
    """A page of a thousand usual products is; what would take much memory or time is not."""
    usual = orjson.dumps([ROW | {"version": number, "price": 9.5} for number in range(1000)])

    assert is_parsed_at_once(usual)
    assert not is_parsed_at_once(b"{}," * MOST_CONTAINERS + b"[]")
    assert not is_parsed_at_once(b"0," * 60_001)
    assert is_parsed_at_once(b"0," * 60_001, 70_000)
    assert not is_parsed_at_once(b"12345678901234567890," * 9000)
