"""Reads from memory: pages, single products by any id, baskets."""

from typing import Any
from urllib.parse import quote

import pytest

from store_cache.model.product import read_product
from tests.harness.fake_store import FakeStore, product
from tests.unit.api.conftest import TILL, Opened, Store

INVENTORY = "/v1/store/inventory"

IDS = [
    "PROD-001", "with space", "a/b", "/", "a/b/inventory", "inventory", ".", "..", "../..", "...",
    "100%", "%2F", "%252F", "%FF", "a?b#c", "a;b=c&d+e", "{id}", "Straße-Ω-日本-🥛", "e\u0301",
    "\u00e9", "sku", "SKU", "lookup", "updates", "batch-updates", 'quote"and\\backslash',
    "tab\tand\nline\x00", "\u2028",
]  # fmt: skip


async def test_a_page_has_the_shape_of_the_contract(open_store: Opened) -> None:
    """It has the rows as Central sent them, other attributes included, pagination and cacheInfo."""
    milk = product("MILK", name="Milk", category="Dairy", tags=["cold", {"deep": [1, None]}])
    store = await open_store(FakeStore([product("PROD-002"), milk]))
    reply = await store.get(INVENTORY)

    expected = {
        "products": [milk, product("PROD-002")],
        "pagination": {
            "offset": 0,
            "limit": 50,
            "total": 2,
            "hasMore": False,
            "total_count": 2,
            "has_more": False,
        },
        "cacheInfo": {"lastSyncTime": "2024-01-15T10:29:45Z", "totalProducts": 2},
    }
    assert expected == reply.json
    assert "application/json" == reply.headers["Content-Type"]


@pytest.mark.parametrize(
    ("query", "ids", "pagination"),
    [
        ("", "ABCDE", (0, 50, False)),
        ("?limit=2", "AB", (0, 2, True)),
        ("?offset=2&limit=2", "CD", (2, 2, True)),
        ("?offset=4&limit=2", "E", (4, 2, False)),
        ("?offset=5", "", (5, 50, False)),
        ("?limit=201", "ABCDE", (0, 200, False)),
        ("?limit=9999999999999999999999999", "ABCDE", (0, 200, False)),
        ("?offset=9999999999999999999999999", "", (10**18, 50, False)),
        ("?after=", "ABCDE", (0, 50, False)),
        ("?after=B&limit=2", "CD", (2, 2, True)),
        ("?after=B%00&limit=2", "CD", (2, 2, True)),
        ("?after=D", "E", (4, 50, False)),
        ("?after=Z", "", (5, 50, False)),
        ("?limit=2&", "AB", (0, 2, True)),
    ],
)
async def test_pages(
    open_store: Opened, query: str, ids: str, pagination: tuple[int, int, bool]
) -> None:
    """`limit` above 200 means 200; an offset past the end gives an empty page; `after` takes any
    id, held or not. The names of older stores say the same as the others."""
    store = await open_store(FakeStore(product(one) for one in "EDCBA"))
    reply = await store.get(INVENTORY + query)
    said = reply.json["pagination"]

    assert list(ids) == [one["productId"] for one in reply.json["products"]]
    assert pagination == (said["offset"], said["limit"], said["hasMore"])
    assert 5 == said["total"] == said["total_count"]
    assert said["hasMore"] is said["has_more"]


async def test_a_walk_by_after_neither_skips_nor_repeats(open_store: Opened) -> None:
    """While products are added and removed between pages, `after` gives each other one once."""
    store = await open_store(FakeStore(product(f"P{n:02}") for n in range(10, 20)))
    walked: list[str] = []
    after, has_more = "", True
    while has_more:
        page = (await store.get(f"{INVENTORY}?limit=3&after={after}")).json
        walked += [one["productId"] for one in page["products"]]
        after, has_more = walked[-1], page["pagination"]["hasMore"]
        store.fake.put(product(f"P0{len(walked)}"))
        store.fake.remove(after)

    assert [f"P{n:02}" for n in range(10, 20)] == walked


async def test_products_are_in_the_order_of_code_points(open_store: Opened) -> None:
    """Case and accents count."""
    store = await open_store(
        FakeStore(product(one) for one in ["b", "a", "B", "é", "z", "🥛", "Z"])
    )
    reply = await store.get(INVENTORY)

    assert ["B", "Z", "a", "b", "z", "é", "🥛"] == [
        one["productId"] for one in reply.json["products"]
    ]


@pytest.mark.parametrize("product_id", IDS)
async def test_any_id_is_reachable_percent_encoded(open_store: Opened, product_id: str) -> None:
    """Whatever characters an id has, encoding all but letters and digits names it."""
    store = await open_store(FakeStore([product(product_id), product("other")]))
    reply = await store.get(f"{INVENTORY}/{quote(product_id, safe='')}")

    assert (200, product(product_id)) == (reply.status, reply.json)


@pytest.mark.parametrize("product_id", IDS)
async def test_each_character_may_be_encoded(open_store: Opened, product_id: str) -> None:
    """Encoding what need not be encoded names the same product."""
    encoded = "".join(f"%{byte:02x}" for byte in product_id.encode())
    store = await open_store(FakeStore(product(one) for one in IDS))
    reply = await store.get(f"{INVENTORY}/{encoded}")

    assert (200, product_id) == (reply.status, reply.json["productId"])


async def test_the_absolute_form_of_a_target_is_understood(store: Store) -> None:
    """A request as sent to a proxy, with scheme and host, finds the same product."""
    reply = await store.get(f"http://store{INVENTORY}/PROD-001")

    assert (200, "PROD-001") == (reply.status, reply.json["productId"])


async def test_a_product_that_is_not_held(store: Store) -> None:
    """404 as in the contract, with the headers of freshness."""
    reply = await store.get(f"{INVENTORY}/PROD-999")

    expected = {
        "error": {
            "code": "product_not_found",
            "message": "Product not found in local cache",
            "details": {
                "productId": "PROD-999",
                "suggestion": "Product may not exist or cache may be out of sync",
            },
        }
    }
    assert (404, expected) == (reply.status, reply.json)
    assert "1045" == reply.headers["X-Cache-Offset"]


async def test_no_cache_asks_central_first(store: Store) -> None:
    """With `Cache-Control: no-cache` a product is what Central has now, also a new one."""
    store.fake.elsewhere["PROD-001"] = read_product(product("PROD-001", version=7, available=3))
    store.fake.elsewhere["NEW"] = read_product(product("NEW", version=1))
    before = await store.get(f"{INVENTORY}/PROD-001")
    asked = await store.get(f"{INVENTORY}/PROD-001", cache_control="max-age=0, No-Cache")
    new = await store.get(f"{INVENTORY}/NEW", cache_control="no-cache")

    assert (6, 7) == (before.json["version"], asked.json["version"])
    assert 200 == new.status
    assert ["PROD-001", "NEW"] == store.fake.refreshed


@pytest.mark.parametrize("product_id", ["%2E", "%2E%2E", "a%0Ab"])
async def test_an_unsendable_id_is_read_from_memory(store: Store, product_id: str) -> None:
    """Central is not asked for an id that cannot be part of a URL."""
    reply = await store.get(f"{INVENTORY}/{product_id}", cache_control="no-cache")

    assert (404, []) == (reply.status, store.fake.refreshed)


async def test_lookup_answers_a_basket_at_once(store: Store) -> None:
    """Held products in the order asked, each once; the others by id."""
    asked = ["PROD-003", "nope", "PROD-001", "PROD-003", "nope", ""]
    reply = await store.post(f"{INVENTORY}/lookup", {"productIds": asked})

    assert {
        "products": [product("PROD-003"), product("PROD-001")],
        "missing": ["nope", ""],
    } == reply.json
    assert "1045" == reply.headers["X-Cache-Offset"]


async def test_lookup_of_nothing_and_of_two_hundred(store: Store) -> None:
    """These are the smallest and the largest lookup."""
    none = await store.post(f"{INVENTORY}/lookup", {"productIds": []})
    most = await store.post(f"{INVENTORY}/lookup", {"productIds": [f"x{n}" for n in range(200)]})

    assert {"products": [], "missing": []} == none.json
    assert 200 == len(most.json["missing"])


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"'])
async def test_json_may_name_its_charset(store: Store, charset: str) -> None:
    """UTF-8, named or not, is accepted."""
    headers = TILL | {"Content-Type": "application/json" + charset}
    reply = await store.post(f"{INVENTORY}/lookup", {"productIds": ["é"]}, headers)

    assert ["é"] == reply.json["missing"]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", INVENTORY, None),
        ("GET", f"{INVENTORY}?after=A", None),
        ("GET", f"{INVENTORY}/PROD-001", None),
        ("POST", f"{INVENTORY}/lookup", {"productIds": ["PROD-001"]}),
    ],
)
async def test_without_a_catalogue_every_read_is_503(
    store: Store, method: str, target: str, body: Any
) -> None:
    """503 `cache_not_ready` with `Retry-After`, not an empty list or a 404."""
    store.fake.catalogue = None
    reply = await store.post(target, body, method=method)

    assert (503, "cache_not_ready") == (reply.status, reply.code)
    assert "1" == reply.headers["Retry-After"]


@pytest.mark.parametrize(
    "target", [INVENTORY, f"{INVENTORY}/PROD-001", "/health", "/v1/store/cache/stats"]
)
async def test_head_is_get_without_the_body(store: Store, target: str) -> None:
    """HEAD has the status and headers of GET, length included."""
    got = await store.get(target, x_request_id="one")
    head = await store.send("HEAD", target, headers=TILL | {"X-Request-ID": "one"})
    for reply in (got, head):
        del reply.headers["Date"]

    assert (got.status, got.headers) == (head.status, head.headers)
    assert b"" == head.body


async def test_pipelined_reads_are_answered_in_order(store: Store) -> None:
    """Requests sent without waiting are answered in the order sent."""
    line = await store.line()
    ids = ["PROD-003", "PROD-001", "PROD-002"] * 20
    for one in ids:
        request = f"GET {INVENTORY}/{one} HTTP/1.1\r\nHost: x\r\nX-API-Key: till-secret\r\n\r\n"
        line.writer.write(request.encode())
    answered = [(await line.reply()).json["productId"] for _ in ids]

    assert ids == answered
