"""The search index against a scan of every product (`tests/harness/brute_force.py`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from store_cache.catalogue.search import index as index_module
from store_cache.catalogue.search import postings as postings_module
from store_cache.catalogue.search import shard as shard_module
from store_cache.catalogue.search.index import Query, SearchIndex
from store_cache.model.product import read_product
from tests.harness import brute_force
from tests.harness.brute_force import Asked, Scanned

ALL = 10**6


def body(product: dict[str, Any]) -> bytes:
    return read_product({"available": 1, "version": 1, "name": ""} | product).body


def index_of(products: Iterable[dict[str, Any]]) -> SearchIndex:
    """Return a freshly loaded index."""
    rows = {product["productId"]: body(product) for product in products}
    ids = sorted(rows)
    index = SearchIndex()
    for _ in index.load(ids, [rows[one] for one in ids]):
        pass
    return index


def ids_in(rows: Iterable[bytes]) -> list[str]:
    return [orjson.loads(row)["productId"] for row in rows]


def query_of(asked: Asked) -> Query:
    return Query(
        asked.search, asked.barcode, asked.sku, asked.category, asked.status, asked.in_stock
    )


def search(index: SearchIndex, text: str, **others: Any) -> list[str]:
    found = index.find(Query(text, **others), by_relevance=True)
    rows = found.page(0, ALL)
    assert len(rows) == found.total
    return ids_in(rows)


def check(index: SearchIndex, products: Sequence[dict[str, Any]], asked: Asked) -> None:
    """Compare what is found in both orders."""
    scanned = list(map(Scanned, products))
    for by_relevance in (True, False):
        expected = brute_force.found(scanned, asked, by_relevance=by_relevance)
        found = index.find(query_of(asked), by_relevance=by_relevance)
        assert expected == ids_in(found.page(0, ALL)), asked
        assert len(expected) == found.total


TEA = {"productId": "TEA-1", "name": "Grüner Tee, Straße 12", "category": "Getränke"}


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("tea", True),
        ("TEA-1", True),
        ("1 tea", True),
        ("grun", True),
        ("GRÜNER", True),
        ("gru\u0308ner", True),
        ("strasse", True),
        ("STRASSE 1", True),
        ("straße 2", False),
        ("getranke tee", True),
        ("ee", False),
        ("tee tee tee", True),
        ("\uff34\uff25\uff25", True),
        ("grüner kaffee", False),
    ],
)
def test_each_word_begins_a_word_of_the_product(text: str, is_found: bool) -> None:
    """Order, case and accents of the words do not matter; ß is ss."""
    assert (["TEA-1"] if is_found else []) == search(index_of([TEA]), text)


def test_each_searched_field_is_searched() -> None:
    """Texts, whole numbers and lists of them; other values and other fields are not searched."""
    fields = ["description", "sku", "category", "tags", "barcode", "barcodes", "gtin", "ean", "upc"]
    products: list[dict[str, Any]] = [
        {"productId": f"P{number}", field: value}
        for number, field in enumerate(fields)
        for value in ([f"text{number}", "both"],)
    ]
    products += [
        {"productId": "N", "sku": 1234567},
        {
            "productId": "X",
            "status": "both",
            "brand": "both",
            "tags": [True, None, 1.5, {"a": "both"}],
        },
    ]
    index = index_of(products)

    assert [f"P{number}" for number in range(len(fields))] == sorted(search(index, "both"))
    assert ["P3"] == search(index, "text3")
    assert ["N"] == search(index, "1234")
    assert [] == search(index, "true")


def test_the_order_is_exact_then_name_then_the_rest() -> None:
    """Within each by id; `exact` is the whole id, sku or barcode, but for case."""
    products: list[dict[str, Any]] = [
        {"productId": "d", "name": "Red"},
        {"productId": "RED", "name": "Ball"},
        {"productId": "c", "name": "Ball", "sku": "red"},
        {"productId": "b", "name": "A red ball"},
        {"productId": "a", "name": "Reddish"},
        {"productId": "0", "name": "x", "tags": ["RED"]},
    ]
    index = index_of(products)

    assert ["RED", "c", "a", "d", "0", "b"] == search(index, " Red ")
    assert ["0", "RED", "a", "b", "c", "d"] == ids_in(
        index.find(Query("red"), by_relevance=False).page(0, ALL)
    )
    assert ["RED", "b", "c"] == search(index, "red ball")


def test_a_name_begins_with_the_words_in_their_order() -> None:
    """The last one may be the beginning of a word."""
    names = {"a": "Green tea bag", "b": "Bag of green tea", "c": "Green teapot", "d": "Tea green"}
    index = index_of({"productId": i, "name": name} for i, name in names.items())

    assert ["a", "c", "b", "d"] == search(index, "green te")


def test_leading_zeros_of_a_barcode_do_not_matter() -> None:
    """In `barcode`, and in a text that is a barcode as a whole; also for numbers in JSON."""
    products: list[dict[str, Any]] = [
        {"productId": "a", "barcode": "05012345678900"},
        {"productId": "b", "ean": 5012345678900},
        {"productId": "c", "barcodes": ["1", "5012345678900"]},
        {"productId": "d", "gtin": "15012345678907"},
    ]
    index = index_of(products)

    for text in ("5012345678900", "05012345678900", "005012345678900"):
        found = index.find(Query(barcode=text), by_relevance=True)
        assert ["a", "b", "c"] == ids_in(found.page(0, ALL))
        assert ["a", "b", "c"] == search(index, text)
    assert ["a", "b", "c"] == search(index, "50123")
    assert ["a"] == search(index, "0501")


def test_values_that_hold_control_characters_stay_apart() -> None:
    """No value is taken for another one that continues it."""
    index = index_of([{"productId": "a", "name": "1"}, {"productId": "a\x00", "name": "2"}])

    assert ["a", "a\x00"] == search(index, "a")
    assert ["a"] == [i for i in search(index, "a") if i == "a"]
    assert ["a"] == ids_in(index.find(Query("a"), by_relevance=True).page(0, 1))


def test_pages_and_walks() -> None:
    """A page is a part of what is found, in order; `after` goes on behind an id, held or not."""
    with patch.object(index_module, "SHARD_PRODUCTS", 7):
        index = index_of({"productId": f"{n:03}", "name": f"tea {n % 2}"} for n in range(100))
    found = index.find(Query("tea 1"), by_relevance=False)
    everything = found.page(0, ALL)

    assert 50 == found.total == len(everything)
    assert everything[10:13] == found.page(10, 3)
    assert [] == found.page(50, 10)
    assert (0, everything[:5]) == found.page_after("", 5)
    assert (6, everything[6:9]) == found.page_after("011", 3)
    assert (6, everything[6:9]) == found.page_after("012", 3)
    assert (50, []) == found.page_after("x", 3)


def test_an_empty_index_finds_nothing() -> None:
    found = SearchIndex().find(Query("tea"), by_relevance=True)

    assert (0, []) == (found.total, found.page(0, 5))
    assert (0, []) == SearchIndex().find(Query(in_stock=True), by_relevance=False).page_after("", 5)


def test_a_sale_touches_no_text() -> None:
    """Only quantity, version and time change, or a field that is not indexed; `inStock` follows."""
    index = index_of([{"productId": "a", "name": "tea", "available": 1, "price": 1}])
    sold = {"productId": "a", "name": "tea", "available": 0, "version": 2, "lastUpdated": "now"}
    index.put("a", body(sold | {"price": 1}))
    index.put("a", body(sold | {"price": 2}))

    assert 0 == index.text_changes
    assert ["a"] == search(index, "tea", in_stock=False)
    assert [] == search(index, "tea", in_stock=True)
    index.put("a", body(sold | {"name": "coffee"}))
    assert 1 == index.text_changes
    assert [] == search(index, "tea")


def test_what_is_out_of_stock_is_found_by_itself() -> None:
    index = index_of({"productId": i, "available": n} for i, n in (("a", 1), ("b", 0), ("c", 0)))
    index.remove("c")

    assert ["b"] == ids_in(index.find(Query(in_stock=False), by_relevance=False).page(0, ALL))
    assert ["a"] == ids_in(index.find(Query(in_stock=True), by_relevance=False).page(0, ALL))


def test_what_was_found_often_follows_changes() -> None:
    """The products of a common word are kept, and change with it."""
    with patch.object(shard_module, "_FEW_SLOTS", 2):
        index = index_of({"productId": i, "name": "tea"} for i in "abc")
        before = search(index, "tea")
        index.put("d", body({"productId": "d", "name": "tea"}))
        index.put("b", body({"productId": "b", "name": "teapot"}))
        index.put("c", body({"productId": "c", "name": "coffee"}))
        index.remove("a")
        index.remove("bb")  # it is not held

        assert ["a", "b", "c"] == before
        assert ["b", "d"] == search(index, "tea")
        assert ["b"] == search(index, "teapot")
        assert 4 == index.text_changes


def test_products_may_change_while_their_shard_is_split() -> None:
    with patch.object(index_module, "SHARD_PRODUCTS", 3):
        index = SearchIndex()
        for one in "bcdefg":
            index.put(one, body({"productId": one, "name": "tea"}))
        steps = index.split()
        next(steps)
        index.put("a", body({"productId": "a", "name": "tea"}))
        index.put("d", body({"productId": "d", "name": "coffee"}))
        index.remove("e")
        for _ in steps:
            pass
        split = search(index, "tea"), search(index, "coffee")
        index.put("d", body({"productId": "d", "name": "cocoa"}))
        for one in "bcfga":
            index.remove(one)
        index.put("z", body({"productId": "z", "name": "tea"}))

    assert (["a", "b", "c", "f", "g"], ["d"]) == split
    assert (["d"], ["z"], 2) == (search(index, "cocoa"), search(index, "tea"), len(index))


WORDS = ["a", "ab", "abc", "tea", "té", "tee", "ß", "ss", "12", "0012", "x-y", "ﬁ", "Ω", "½", "i̇"]
some_text = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join) | st.text(max_size=6)
some_ids = st.sampled_from(
    ["a", "A", "b", "a-1", "12", "0012", "tea", "é", "a\x00", "zz"]
) | st.text(min_size=1, max_size=3)
some_value = (
    some_text
    | st.integers(0, 30)
    | st.booleans()
    | st.none()
    | st.lists(some_text | st.integers(0, 5) | st.booleans(), max_size=3)
)
FIELDS = ["description", "sku", "category", "status", "tags", "barcode", "barcodes", "upc"]
some_product = st.builds(
    lambda name, available, others, extra: (
        {"name": name, "available": available} | others | ({"extra": extra} if extra else {})
    ),
    name=some_text,
    available=st.integers(0, 1),
    others=st.dictionaries(st.sampled_from(FIELDS), some_value, max_size=5),
    extra=st.integers(0, 2),
)
searched = (some_text | some_ids).filter(brute_force.words)
some_query = st.builds(
    Asked,
    search=st.none() | searched,
    barcode=st.none() | st.sampled_from(["12", "0012", "5", "0"]),
    sku=st.none() | some_text,
    category=st.none() | st.sampled_from(WORDS),
    status=st.none() | st.sampled_from(WORDS),
    in_stock=st.none() | st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(products=st.dictionaries(some_ids, some_product, max_size=12), asked=some_query)
def test_random_catalogues_and_queries(products: dict[str, dict[str, Any]], asked: Asked) -> None:
    """The index finds what a scan finds, in the same order."""
    held = [{"productId": one, **product} for one, product in products.items()]
    check(index_of(held), held, asked)


changes = st.dictionaries(some_ids, st.none() | some_product, max_size=2)


class IndexMachine(RuleBasedStateMachine):
    """Products come, change and go in any order; the index stays what a fresh one would be."""

    def __init__(self) -> None:
        super().__init__()
        self.products: dict[str, dict[str, Any]] = {}
        self.index = SearchIndex()

    @rule(products=st.dictionaries(some_ids, some_product, max_size=8))
    def load(self, products: dict[str, dict[str, Any]]) -> None:
        """Start anew with other products."""
        self.products = {one: {"productId": one, **product} for one, product in products.items()}
        self.index = index_of(self.products.values())

    @rule(one=some_ids, product=some_product)
    def put(self, one: str, product: dict[str, Any]) -> None:
        self.products[one] = {"productId": one, **product}
        self.index.put(one, body(self.products[one]))

    @rule(one=some_ids)
    def remove(self, one: str) -> None:
        self.products.pop(one, None)
        self.index.remove(one)

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        """Split what has grown, while products change between the parts."""
        for _ in self.index.split():
            for one, product in data.draw(changes).items():
                if product is None:
                    self.remove(one)
                else:
                    self.put(one, product)

    @rule(data=st.data(), available=st.integers(0, 1))
    def sell(self, data: st.DataObject, available: int) -> None:
        if self.products:
            one = data.draw(st.sampled_from(sorted(self.products)))
            product = self.products[one] | {"available": available, "version": 9}
            before = self.index.text_changes
            self.products[one] = product
            self.index.put(one, body(product))
            assert before == self.index.text_changes

    @rule(asked=some_query)
    def ask(self, asked: Asked) -> None:
        check(self.index, list(self.products.values()), asked)

    @invariant()
    def all_are_held(self) -> None:
        rows = self.index.find(Query(), by_relevance=False).page(0, ALL)
        assert sorted(self.products) == ids_in(rows)
        assert len(self.products) == len(self.index)


@pytest.mark.slow
def test_random_changes() -> None:
    """With shards, blocks and kept masks of a few products, so that they are made and split."""
    with (
        patch.object(index_module, "SHARD_PRODUCTS", 3),
        patch.object(postings_module, "BLOCK_TERMS", 2),
        patch.object(shard_module, "_FEW_SLOTS", 2),
        patch.object(shard_module, "_MOST_KEPT", 9),
    ):
        run_state_machine_as_test(
            IndexMachine,
            settings=settings(max_examples=25, stateful_step_count=40, deadline=None),
        )


def test_a_word_of_any_length_is_indexed_at_once() -> None:
    """It has more prefixes than a search can ask for."""
    index = index_of([{"productId": "P-1"}])
    began = time.process_time()
    index.put("P-1", body({"productId": "P-1", "name": "a" * 60_000}))
    index.put("P-1", body({"productId": "P-1", "name": "a" * 60_000 + "b"}))
    assert time.process_time() - began < 0.5

    assert 1 == index.find(Query("a" * 200), by_relevance=True).total
