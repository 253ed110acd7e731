"""How fresh an answer is: offset, generation, age, cache status, ETag and 304."""

import math
from dataclasses import replace

import pytest

from store_cache.api.content.bodies import weak_tag
from store_cache.api.content.cache_headers import freshness_headers, matches
from tests.harness.shop import FRESH, product
from tests.unit.api.conftest import TILL, Store

INVENTORY = "/v1/store/inventory"
READS = [INVENTORY, f"{INVENTORY}/PROD-001"]


def test_a_fresh_answer() -> None:
    """The four headers of the contract, and what a browser may do with the answer."""
    expected = {
        "Cache-Control": "private, no-cache",
        "X-Cache-Offset": "1045",
        "X-Cache-Generation": "g-1",
        "Age": "3",
        "Cache-Status": "store-cache; hit",
    }

    assert expected == freshness_headers(FRESH)


@pytest.mark.parametrize(
    ("age_seconds", "age"),
    [(0.0, 0), (0.001, 1), (59.0, 59), (59.1, 60), (-3.0, 0), (math.inf, 2**31), (1e300, 2**31)],
)
def test_age_is_never_smaller_than_the_truth(age_seconds: float, age: int) -> None:
    """Whole seconds, rounded up; a store that was never in step is as old as can be said (B5)."""
    said = freshness_headers(replace(FRESH, age_seconds=age_seconds))

    assert str(age) == said["Age"]


@pytest.mark.parametrize(
    ("is_stale", "is_durable", "status"),
    [
        (False, True, "store-cache; hit"),
        (True, True, "store-cache; hit; detail=stale"),
        (False, False, "store-cache; hit; detail=not-durable"),
        (True, False, "store-cache; hit; detail=stale/not-durable"),
    ],
)
def test_cache_status_says_stale_and_not_durable(
    is_stale: bool, is_durable: bool, status: str
) -> None:
    """One `detail`, one token; staleness first where both apply (RFC 9211, D5)."""
    said = freshness_headers(replace(FRESH, is_stale=is_stale, is_durable=is_durable))

    assert status == said["Cache-Status"]


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ("0c7e-44", "0c7e-44"),
        ("a\r\nSet-Cookie: b", "a%0D%0ASet-Cookie:%20b"),
        ("é", "%C3%A9"),
        ("100%", "100%25"),
    ],
)
def test_a_generation_cannot_split_the_answer(generation: str, said: str) -> None:
    """It is Central's text: what does not belong into a header is percent-encoded (T8)."""
    headers = freshness_headers(replace(FRESH, generation=generation))

    assert said == headers["X-Cache-Generation"]


async def test_a_generation_that_is_not_known_is_not_said(store: Store) -> None:
    """Without a generation there is no header for it."""
    store.shop.fresh = replace(FRESH, generation=None)
    reply = await store.get(INVENTORY)

    assert "X-Cache-Generation" not in reply.headers


@pytest.mark.parametrize("target", READS)
async def test_an_unchanged_answer_is_304(store: Store, target: str) -> None:
    """The tag of an answer gets 304 with no body, and how fresh that is."""
    first = await store.get(target)
    store.shop.fresh = replace(FRESH, last_offset=2000, last_sync_time="2024-01-15T10:31:00Z")
    second = await store.get(target, if_none_match=first.headers["ETag"])

    assert (304, b"") == (second.status, second.body)
    assert first.headers["ETag"] == second.headers["ETag"]
    assert ("2000", "3") == (second.headers["X-Cache-Offset"], second.headers["Age"])
    assert "Content-Type" not in second.headers


async def test_an_unchanged_basket_is_304(store: Store) -> None:
    """Lookup is a read that takes its list in the body: it is answered like one."""
    body = {"productIds": ["PROD-001", "nope"]}
    first = await store.post(f"{INVENTORY}/lookup", body)
    headers = TILL | {"If-None-Match": first.headers["ETag"]}
    second = await store.post(f"{INVENTORY}/lookup", body, headers)
    other = await store.post(f"{INVENTORY}/lookup", {"productIds": ["PROD-002"]}, headers)

    assert [200, 304, 200] == [first.status, second.status, other.status]


@pytest.mark.parametrize("target", READS)
async def test_a_changed_answer_has_another_tag(store: Store, target: str) -> None:
    """Whatever changes in the content changes the tag."""
    first = await store.get(target)
    store.shop.put(product("PROD-001", version=7))
    second = await store.get(target, if_none_match=first.headers["ETag"])

    assert 200 == second.status
    assert first.headers["ETag"] != second.headers["ETag"]


async def test_the_tag_of_a_page_is_of_its_products_and_place(store: Store) -> None:
    """A page that holds the same rows of a longer list is another content."""
    first = await store.get(f"{INVENTORY}?limit=1")
    store.shop.put(product("ZZZ"))
    second = await store.get(f"{INVENTORY}?limit=1", if_none_match=first.headers["ETag"])

    assert first.json["products"] == second.json["products"]
    assert 200 == second.status


async def test_tags_are_weak_where_the_body_holds_a_time(store: Store) -> None:
    """A page's tag leaves `cacheInfo` out, so it is weak; a product's is strong."""
    page, single = [(await store.get(target)).headers["ETag"] for target in READS]

    assert page.startswith('W/"')
    assert single.startswith('"')


@pytest.mark.parametrize(
    ("values", "is_match"),
    [
        (["*"], True),
        ([" * "], True),
        (['"b"'], False),
        (['"x"'], True),
        (['W/"x"'], True),
        (['"a", "x" , W/"c"'], True),
        (['"a",,W/"x",'], True),
        (['"a"', '"x"'], True),
        (["x"], False),
        (['"x" and more'], False),
        (['"a, b"', '"c"'], False),
        ([""], False),
    ],
)
@pytest.mark.parametrize("tag", ['"x"', 'W/"x"'])
def test_if_none_match(values: list[str], is_match: bool, tag: str) -> None:
    """Lists, several lines, weak tags and `*`, by the weak comparison; a malformed one is none."""
    assert is_match == matches(values, tag)


def test_a_weak_tag_names_rows_and_what_is_said_of_them() -> None:
    """Equal rows have equal tags, wherever they are held; other rows, order or numbers have not."""
    rows = [b"one", b"two"]
    same = weak_tag([bytes(bytearray(row)) for row in rows], 0, 2)
    others = [(rows[::-1], 0, 2), (rows, 1, 2), ([b"one", b"tw0"], 0, 2), ([b"onetwo"], 0, 2)]

    assert weak_tag(rows, 0, 2) == same
    assert same not in {weak_tag(*other) for other in others}
    assert matches([same], same)


async def test_a_star_matches_only_what_is_held(store: Store) -> None:
    """`If-None-Match: *` is 304 for a product that is held, and 404 for one that is not."""
    held = await store.get(f"{INVENTORY}/PROD-001", if_none_match="*")
    absent = await store.get(f"{INVENTORY}/PROD-999", if_none_match="*")

    assert (304, 404) == (held.status, absent.status)
