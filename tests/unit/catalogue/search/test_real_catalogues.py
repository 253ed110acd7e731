"""Random searches of real catalogues, against a scan of every product."""

from __future__ import annotations

import os
import random

import orjson
import pytest

from store_cache.catalogue.search.index import Query, SearchIndex
from store_cache.model.product import read_product
from tests.harness import brute_force
from tests.harness.brute_force import Scanned, random_search
from tests.harness.real_data import CATALOGUES, real_catalogue

SEARCHES = int(os.environ.get("SEARCHES", "200"))
"""`SEARCHES=5000` for a long run."""

ALL = 10**6


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CATALOGUES)
def test_random_searches_find_what_a_scan_finds(name: str) -> None:
    """The same products in the same order, with filters, pages and walks."""
    chance = random.Random(20)
    products = real_catalogue(name)
    for product in products:  # all have a stock there, or none has
        product["available"] *= chance.random() < 0.7
        product["status"] = chance.choice(["active", "Discontinued"])
    rows = {p["productId"]: read_product({"version": 1} | p).body for p in products}
    index = SearchIndex()
    for _ in index.load(sorted(rows), [rows[one] for one in sorted(rows)]):
        pass
    scanned = list(map(Scanned, products))
    hits = 0
    for _ in range(SEARCHES):
        asked = random_search(products, chance)
        by_relevance = chance.random() < 0.6
        expected = brute_force.found(scanned, asked, by_relevance=by_relevance)
        query = Query(
            asked.search, asked.barcode, asked.sku, asked.category, asked.status, asked.in_stock
        )
        result = index.find(query, by_relevance=by_relevance)
        assert expected == ids_in(result.page(0, ALL)), asked
        assert len(expected) == result.total
        offset, limit = chance.randrange(len(expected) + 1), chance.choice([1, 50, 200])
        assert expected[offset : offset + limit] == ids_in(result.page(offset, limit))
        if asked.search is None or not by_relevance:
            after = chance.choice(products)["productId"]
            start = sum(one <= after for one in expected)
            begin, page = result.page_after(after, limit)
            assert (start, expected[start : start + limit]) == (begin, ids_in(page))
        hits += bool(expected)
    assert hits > SEARCHES / 2


def ids_in(rows: list[bytes]) -> list[str]:
    return [orjson.loads(row)["productId"] for row in rows]
