"""The digest, computed here a second time from its definition in docs/digest.md."""

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from central_stub.digest import hash_row
from central_stub.ledger import Ledger
from central_stub.switches import Switches
from tests.harness.postgres import BlockingLedger, Postgres

NOON = 1_750_000_000.0


@pytest.fixture(params=["memory", "postgres"])
def empty(request: pytest.FixtureRequest) -> Any:
    """Each of the two ledgers."""
    if request.param == "memory":
        return Ledger(generation="g-1")
    started: Postgres = request.getfixturevalue("postgres")
    return BlockingLedger(started.loop, started.backend(Switches(), lambda: "g-1"))


@pytest.fixture
def ledger(empty: Any) -> Any:
    for number in range(50):
        empty.create({"productId": f"P{number}", "name": f"Tée {number}", "price": 2.0}, NOON)
    return empty


def canonical(row: dict[str, object]) -> bytes:
    """Return these rows in RFC 8785: sorted names, no blanks, 2.0 as 2."""
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in row.items()}
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_bucket_is_a_count_and_the_sum_of_the_hashes_of_its_rows(ledger: Any) -> None:
    buckets = 8
    counts, sums = [0] * buckets, [0] * buckets
    for row in ledger.everything():
        prefix = hashlib.sha256(row["productId"].encode()).digest()[:8]
        bucket = int.from_bytes(prefix, "big") % buckets
        counts[bucket] += 1
        sums[bucket] += int(hashlib.sha256(canonical(row)).hexdigest()[:32], 16)

    assert ledger.digest(buckets) == (counts, [f"{each % 2**128:032x}" for each in sums])


NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.dictionaries(st.text(), st.text() | st.none() | st.booleans() | NUMBERS)


@given(ROWS)
def test_a_hash_is_over_the_canonical_form_whatever_the_row(row: dict[str, Any]) -> None:
    """Also of rows that are encoded the fast way."""
    whole: dict[str, Any] = {"name": "", "available": 0, **row}
    digest = hashlib.sha256(rfc8785.dumps(whole)).digest()

    assert int.from_bytes(digest[:16], "big") == hash_row(row)


def test_an_empty_bucket_is_nothing(empty: Any) -> None:
    assert empty.digest(2) == ([0, 0], ["0" * 32, "0" * 32])


def test_change_of_a_product_changes_its_bucket(ledger: Any) -> None:
    """The rows of that bucket contain the product."""
    _, before = ledger.digest(16)

    ledger.set({"productId": "P7", "available": 3}, NOON)

    _, after = ledger.digest(16)
    differ = [number for number in range(16) if before[number] != after[number]]
    assert 1 == len(differ)
    assert "P7" in {row["productId"] for row in ledger.bucket(differ[0], 16)}


def test_a_lie_shows_in_the_digest(ledger: Any) -> None:
    """The digest shows a change without an event."""
    before = ledger.digest(4)

    ledger.lie("P7", {"available": 3})
    told = ledger.digest(4)
    ledger.lie("P7", {"available": 0})

    assert before != told
    assert before == ledger.digest(4)


def test_buckets_hold_every_product_once(ledger: Any) -> None:
    """The rows of all buckets are the catalogue."""

    found = sorted(row["productId"] for each in range(7) for row in ledger.bucket(each, 7))

    assert sorted(row["productId"] for row in ledger.everything()) == found
