"""Searches over HTTP: parameters, pages, walks, baskets with barcodes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.fake_store import FakeStore, product
from tests.unit.api.conftest import Opened, Store

INVENTORY = "/v1/store/inventory"
EAN = "4006381333931"


@pytest.fixture
async def store(open_store: Opened) -> Store:
    return await open_store(
        FakeStore(
            [
                product("A", name="Green tea", category="Drinks", status="active", barcode=EAN),
                product("B", name="Tea pot", category="Kitchen", status="ACTIVE", available=0),
                product("C", name="Bag of green tea", category="drinks", sku="T-1"),
                product("D", name="Straße", barcodes=["96385074", f"0{EAN}"]),
                product("TEA", name="Sign", status="ended"),
            ]
        )
    )


async def found(store: Store, query: str) -> list[str]:
    reply = await store.get(f"{INVENTORY}?{query}")
    assert reply.status == 200, reply.json
    return [one["productId"] for one in reply.json["products"]]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("search=tea", "TEA B A C"),
        ("search=TE%C3%81+gre", "A C"),
        ("search=strasse", "D"),
        ("search=nothing", ""),
        (f"search={EAN}", "A D"),
        ("barcode=96385074", "D"),
        (f"barcode=0{EAN}", "A D"),
        ("sku=t-1", "C"),
        ("category=DRINKS", "A C"),
        ("category=drink", ""),
        ("status=active", "A B"),
        ("inStock=true", "A C D TEA"),
        ("inStock=false", "B"),
        ("search=tea&category=drinks&inStock=true", "A C"),
        ("search=tea&sort=productId", "A B C TEA"),
        ("search=tea&sort=productId&after=A", "B C TEA"),
        ("search=tea&sort=productId&after=A&limit=1", "B"),
        ("category=drinks&after=A", "C"),
        ("search=tea&offset=1&limit=2", "B A"),
        ("sort=productId", "A B C D TEA"),
        ("sort=productId&after=C", "D TEA"),
    ],
)
async def test_searches(store: Store, query: str, ids: str) -> None:
    """All parameters combine, and `limit`, `offset` and `after` work as in the list."""
    assert ids.split() == await found(store, query)


async def test_a_page_of_a_search_has_the_shape_of_a_page(store: Store) -> None:
    """`pagination` counts what was found, `cacheInfo` all products."""
    reply = await store.get(f"{INVENTORY}?search=tea&limit=3&offset=1")
    plain = await store.get(f"{INVENTORY}?limit=3&offset=1")

    assert plain.json.keys() == reply.json.keys()
    assert plain.json["cacheInfo"] == reply.json["cacheInfo"]
    assert {
        "offset": 1,
        "limit": 3,
        "total": 4,
        "hasMore": False,
        "total_count": 4,
        "has_more": False,
    } == reply.json["pagination"]
    assert plain.headers.keys() == reply.headers.keys()


async def test_an_unchanged_search_has_no_body(store: Store) -> None:
    tag = (await store.get(f"{INVENTORY}?search=tea")).headers["ETag"]

    assert 304 == (await store.get(f"{INVENTORY}?search=tea", if_none_match=tag)).status
    store.fake.put(product("A", name="Green tea", version=7))
    assert 200 == (await store.get(f"{INVENTORY}?search=tea", if_none_match=tag)).status


@pytest.mark.parametrize("text", ["a" * 200, "é" * 200, "a b c d e f g h i j", "x" * 199 + "ﷺ"])
async def test_the_longest_searches(store: Store, text: str) -> None:
    """200 characters and ten words are allowed, however long they are as bytes."""
    assert [] == await found(store, f"search={quote(text)}")


async def test_several_parameters_may_be_wrong(store: Store) -> None:
    """Each is named, with the right check digit."""
    reply = await store.get(
        f"{INVENTORY}?search=%21&barcode=4006381333932&sort=x&inStock=1&limit=0"
    )
    fields = reply.json["error"]["details"]["fields"]

    assert {"search", "barcode", "sort", "inStock", "limit"} == fields.keys()
    assert EAN in fields["barcode"]


async def test_after_needs_the_order_of_ids(store: Store) -> None:
    """The message says what to do."""
    reply = await store.get(f"{INVENTORY}?search=tea&after=A")

    assert (400, "invalid_request") == (reply.status, reply.json["error"]["code"])
    assert "sort=productId" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"barcodes": [EAN]}, ("A D", [], [])),
        ({"barcodes": ["96385074", f"0{EAN}"]}, ("D A", [], [])),
        ({"barcodes": [EAN, f"0{EAN}"]}, ("A D", [], [])),
        ({"productIds": ["D", "X"], "barcodes": [EAN]}, ("D A", ["X"], [])),
        ({"barcodes": ["00000000"]}, ("", [], ["00000000"])),
        ({"productIds": ["C"], "barcodes": []}, ("C", [], [])),
    ],
)
async def test_baskets_with_barcodes(
    store: Store, asked: dict[str, Any], expected: tuple[str, list[str], list[str]]
) -> None:
    """Ids first, then barcodes; each product once; what is not held is named as it was asked."""
    reply = await store.post(f"{INVENTORY}/lookup", asked)
    ids, missing, missing_barcodes = expected

    assert ids.split() == [one["productId"] for one in reply.json["products"]]
    assert missing == reply.json["missing"]
    assert missing_barcodes == reply.json["missingBarcodes"]


async def test_a_basket_without_barcodes_is_as_ever(store: Store) -> None:
    reply = await store.post(f"{INVENTORY}/lookup", {"productIds": ["A", "X"]})

    assert {"products", "missing"} == reply.json.keys()


async def test_without_an_index_only_searches_wait(store: Store) -> None:
    """Searches are told to come again; everything else is answered."""
    assert store.fake.search is not None
    store.fake.search.is_ready = False
    search = await store.get(f"{INVENTORY}?search=tea")
    basket = await store.post(f"{INVENTORY}/lookup", {"barcodes": [EAN]})

    assert [(503, "index_not_ready", "1")] * 2 == [
        (reply.status, reply.json["error"]["code"], reply.headers["Retry-After"])
        for reply in (search, basket)
    ]
    assert 200 == (await store.get(f"{INVENTORY}?limit=2")).status
    assert 200 == (await store.post(f"{INVENTORY}/lookup", {"productIds": ["A"]})).status


async def test_a_store_without_search_knows_none_of_it(open_store: Opened) -> None:
    """Its parameters are unknown, and barcodes cannot be looked up."""
    store = await open_store(FakeStore([product("A")], search=False))
    replies = [
        await store.get(f"{INVENTORY}?search=a"),
        await store.get(f"{INVENTORY}?sort=productId"),
        await store.post(f"{INVENTORY}/lookup", {"barcodes": [EAN]}),
    ]

    assert [400] * 3 == [reply.status for reply in replies]
    assert "SEARCH=false" in replies[2].json["error"]["message"]
    assert 200 == (await store.get(f"{INVENTORY}?limit=2")).status


async def test_a_catalogue_comes_before_its_index(store: Store) -> None:
    """Without a catalogue, a search is answered as any read."""
    store.fake.catalogue = None
    reply = await store.get(f"{INVENTORY}?search=tea")

    assert (503, "cache_not_ready") == (reply.status, reply.json["error"]["code"])
