"""Changes as they are written to disk."""

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
from store_cache.storage.framing import frame, unframe

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
offsets = st.integers(0, 2**53 - 1)
times = st.floats(0, 4e9)
prices = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**64 - 1)
rows = st.builds(
    lambda name, price: (
        read_product({"productId": "P", "version": 1, "name": name, "price": price}).body
    ),
    ids,
    prices,
)
refetches = st.builds(
    PendingRefetch, st.sampled_from(RefetchReason), times, times, st.integers(0, 30), ids
)


def entries(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(ids, st.none() | of, max_size=3)


changes = st.builds(
    Change,
    ids,
    sequence=offsets,
    position=st.none() | st.builds(Position, ids, offsets, st.none() | ids),
    rows=entries(rows),
    tombstones=entries(st.builds(Tombstone, offsets, offsets, times)),
    overrides=entries(st.builds(Override, offsets, times)),
    pending_refetches=entries(refetches),
    incarnations=st.dictionaries(ids, times, max_size=3),
    in_sync_at=st.none() | times,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(changes)
def test_a_change_is_decoded_as_it_was(change: Change) -> None:
    """[P3] Position, rows to the byte, tombstones, overrides and pending refetches: one record."""
    assert change == decode_change(orjson.loads(encode_change(change)))


def test_digits_of_long_numbers_come_back_from_disk() -> None:
    """[D1] A whole number beyond 64 bits too."""
    change = Change("x", rows={"P": b'{"productId":"P","code":12345678901234567890123}'})
    record = unframe(frame("record", encode_change(change)).rstrip())

    assert record is not None
    assert change == decode_change(record[1])


def test_a_change_is_readable_json() -> None:
    """[D1] A person can read the journal. A row stands in it as it is served."""
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


NOTHING: dict[str, Any] = {"cause": "x", "sequence": 1, "rows": {}}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"cause": "x", "sequence": 1},
        NOTHING | {"rows": []},
        NOTHING | {"position": {}},
        NOTHING | {"owed": {"P-1": {"doubt": "no such"}}},
        NOTHING | {"owed": {"P-1": "order"}},
        NOTHING | {"marks": {"P-1": ["x", 1, 1]}},
        NOTHING | {"ahead": [1]},
        NOTHING | {"ahead": {"P-1": 0}},
        NOTHING | {"lives": "P-1"},
        NOTHING | {"lives": {"P-1": []}},
    ],
)
def test_a_record_that_is_no_change_is_refused(value: dict[str, Any]) -> None:
    """[D4] By one of three errors, which recovery takes for damage."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_change(value)


@pytest.mark.parametrize(
    "says",
    [
        {"position": Position("g", 0)},
        {"in_sync_at": 1.0},
        {"rows": {"P": None}},
        {"tombstones": {"P": None}},
        {"overrides": {"P": None}},
        {"pending_refetches": {"P": None}},
        {"incarnations": {"P": 1.0}},
    ],
    ids=lambda says: next(iter(says)),
)
def test_only_a_change_that_says_nothing_is_empty(says: dict[str, Any]) -> None:
    """[P3] The end of a tombstone is written too. [D1] An empty poll costs no write."""
    assert not Change("x", **says).is_empty
    assert Change("x", sequence=5).is_empty


def test_only_a_refresh_does_not_win() -> None:
    """[V2] Central's answer settles every other reason for a refetch."""
    assert {RefetchReason.REFRESH} == {reason for reason in RefetchReason if not reason.wins}
