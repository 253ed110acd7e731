"""Row hashes and buckets: the vectors of docs/digest.md, which another Central can test by too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from central_stub import catalogue, digest
from store_cache.catalogue.row_hash import bucket_count, bucket_of, canonical, row_hash
from store_cache.model import exact_json
from store_cache.model.product import read_product

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "docs" / "digest-vectors.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("vector", VECTORS["rows"], ids=lambda vector: vector["what"])
def test_a_row_has_the_canonical_form_and_the_hash_of_its_vector(vector: dict[str, str]) -> None:
    row = read_product(exact_json.loads(vector["row"].encode()))
    assert canonical(row.body).decode() == vector["canonical"]
    assert f"{row_hash(row.body):032x}" == vector["hash"]
    assert f"{digest.hash_row(json.loads(vector['row'])):032x}" == vector["hash"]


@pytest.mark.parametrize("vector", VECTORS["buckets"])
def test_a_product_is_in_the_bucket_of_its_vector(vector: dict[str, Any]) -> None:
    product_id, buckets = vector["productId"], vector["buckets"]
    assert bucket_of(product_id, buckets) == vector["bucket"]
    assert catalogue.bucket_of(product_id, buckets) == vector["bucket"]


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=6))
def test_the_short_way_equals_rfc_8785(row: dict[str, Any]) -> None:
    body = orjson.dumps(row)
    assert canonical(body) == rfc8785.dumps(orjson.loads(body))


@pytest.mark.parametrize(
    ("rows", "buckets"),
    [
        *((0, 256), (4069, 256), (16 * 300, 256), (16 * 384, 256), (16 * 385, 512)),
        *((100_000, 8192), (1_000_000, 65_536), (50_000_000, 65_536)),
    ],
)
def test_the_number_of_buckets_is_the_nearest_power_of_two(rows: int, buckets: int) -> None:
    assert bucket_count(rows) == buckets
