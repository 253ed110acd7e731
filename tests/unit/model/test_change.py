"""Changes as they lie on disk."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_cache.model.change import (
    Change,
    Override,
    PendingRefetch,
    RefetchReason,
    Tombstone,
    decode_change,
    encode_change,
)
from store_cache.model.position import Position
from store_cache.model.product import read_product

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
offsets = st.integers(0, 2**53 - 1)
times = st.floats(0, 4e9)
positions = st.builds(Position, ids, offsets, st.none() | ids)
marks = st.builds(Tombstone, offsets, offsets, times)
ahead = st.builds(Override, offsets, times)
owed = st.builds(
    PendingRefetch, st.sampled_from(RefetchReason), times, times, st.integers(0, 30), ids
)
rows = st.builds(
    lambda name, price: (
        read_product({"productId": "P", "version": 1, "name": name, "price": price}).body
    ),
    ids,
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**64 - 1),
)


def entries(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(ids, st.none() | of, max_size=3)


changes = st.builds(
    Change,
    ids,
    sequence=offsets,
    position=st.none() | positions,
    rows=entries(rows),
    tombstones=entries(marks),
    overrides=entries(ahead),
    pending_refetches=entries(owed),
    incarnations=st.dictionaries(ids, times, max_size=3),
    in_sync_at=st.none() | times,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(changes)
def test_a_change_comes_back_from_disk_as_it_was(change: Change) -> None:
    """[P3] Position, rows to the byte, marks, what is ahead and what is owed: in one record."""
    assert change == decode_change(orjson.loads(encode_change(change)))


def test_a_change_is_readable_json() -> None:
    """[D1] A person can read the journal; a row stands in it as it is served."""
    change = Change(
        "events",
        4,
        Position("g1", 8, "f"),
        rows={"P-1": b'{"productId":"P-1"}', "P-2": None},
        tombstones={"P-2": Tombstone(7, 3, 5.0)},
        pending_refetches={"P-1": None},
    )
    expected = (
        b'{"cause":"events","sequence":4,'
        b'"position":{"generation":"g1","offset":8,"fingerprint":"f"},'
        b'"marks":{"P-2":[7,3,5.0]},"owed":{"P-1":null},'
        b'"rows":{"P-1":{"productId":"P-1"},"P-2":null}}'
    )

    assert expected == encode_change(change)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"cause": "x", "sequence": 1},
        {"cause": "x", "sequence": 1, "rows": []},
        {"cause": "x", "sequence": 1, "rows": {}, "position": {}},
        {"cause": "x", "sequence": 1, "rows": {}, "owed": {"P-1": {"doubt": "no such"}}},
        {"cause": "x", "sequence": 1, "rows": {}, "owed": {"P-1": "order"}},
        {"cause": "x", "sequence": 1, "rows": {}, "marks": {"P-1": ["x", 1, 1]}},
        {"cause": "x", "sequence": 1, "rows": {}, "ahead": [1]},
        {"cause": "x", "sequence": 1, "rows": {}, "ahead": {"P-1": 0}},
        {"cause": "x", "sequence": 1, "rows": {}, "lives": "P-1"},
        {"cause": "x", "sequence": 1, "rows": {}, "lives": {"P-1": []}},
    ],
)
def test_a_record_that_is_no_change_is_refused(value: dict[str, Any]) -> None:
    """[D4] As one of three errors, which mean damage to who reads the files."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_change(value)


@pytest.mark.parametrize(
    "change",
    [
        Change("x", position=Position("g", 0)),
        Change("x", in_sync_at=1.0),
        Change("x", rows={"P": None}),
        Change("x", tombstones={"P": None}),
        Change("x", overrides={"P": None}),
        Change("x", pending_refetches={"P": None}),
        Change("x", incarnations={"P": 1.0}),
    ],
)
def test_whatever_says_something_is_written(change: Change) -> None:
    """[P3] An end of a mark or of a doubt is news as well."""
    assert not change.is_empty


def test_a_change_that_says_nothing_is_not_written() -> None:
    """[D1] An empty poll costs no write."""
    assert Change("events", sequence=5).is_empty


def test_only_a_refresh_does_not_win() -> None:
    """[V2] Every doubt about what is held is settled by what Central says; a refresh is none."""
    assert set(RefetchReason) - {RefetchReason.REFRESH} == {
        reason for reason in RefetchReason if reason.wins
    }


def test_a_change_gets_its_number_last() -> None:
    """[P3] The writer numbers; who plans a change does not know its place in the order."""
    assert Change("events", 9, incarnations={"P": 1.0}) == Change(
        "events", incarnations={"P": 1.0}
    ).numbered(9)
