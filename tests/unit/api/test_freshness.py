"""How fresh an answer is: offset, generation, age, cache status, ETag and 304."""

import math
from dataclasses import replace

import pytest

from store_cache.api.content.bodies import weak_tag
from store_cache.api.content.entity_tags import matches
from tests.harness.fake_store import FRESH, product
from tests.unit.api.conftest import TILL, Store

INVENTORY = "/v1/store/inventory"
READS = [INVENTORY, f"{INVENTORY}/PROD-001"]


def test_a_fresh_answer() -> None:
    """It has the headers of the contract, and says how a browser may cache it."""
    expected = {
        "Cache-Control": "private, no-cache",
        "X-Cache-Offset": "1045",
        "X-Cache-Generation": "g-1",
        "Age": "3",
        "Cache-Status": "store-cache; hit",
    }

    assert expected == FRESH.headers


@pytest.mark.parametrize(
    ("age_seconds", "age"),
    [(0.0, 0), (0.001, 1), (59.0, 59), (59.1, 60), (-3.0, 0), (math.inf, 2**31), (1e300, 2**31)],
)
def test_age_is_never_smaller_than_the_truth(age_seconds: float, age: int) -> None:
    """It is rounded up to whole seconds; a store that was never in sync has the largest (B5)."""
    said = replace(FRESH, age_seconds=age_seconds).headers

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
    """`detail` is one token, with staleness first (RFC 9211, D5)."""
    said = replace(FRESH, is_stale=is_stale, is_durable=is_durable).headers

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
    """It is Central's text: what may not be in a header is percent-encoded (T8)."""
    headers = replace(FRESH, generation=generation).headers

    assert said == headers["X-Cache-Generation"]


async def test_without_a_generation_there_is_no_header(store: Store) -> None:
    """Without a generation there is no header for it."""
    store.fake.fresh = replace(FRESH, generation=None)
    reply = await store.get(INVENTORY)

    assert "X-Cache-Generation" not in reply.headers


@pytest.mark.parametrize("target", READS)
async def test_an_unchanged_answer_is_304(store: Store, target: str) -> None:
    """Its tag gets 304 without a body, with the present freshness."""
    first = await store.get(target)
    store.fake.fresh = replace(FRESH, last_offset=2000, last_sync_time="2024-01-15T10:31:00Z")
    second = await store.get(target, if_none_match=first.headers["ETag"])

    assert (304, b"") == (second.status, second.body)
    assert first.headers["ETag"] == second.headers["ETag"]
    assert ("2000", "3") == (second.headers["X-Cache-Offset"], second.headers["Age"])
    assert "Content-Type" not in second.headers


async def test_an_unchanged_basket_is_304(store: Store) -> None:
    """A lookup is answered like a read, though it is a POST."""
    body = {"productIds": ["PROD-001", "nope"]}
    first = await store.post(f"{INVENTORY}/lookup", body)
    headers = TILL | {"If-None-Match": first.headers["ETag"]}
    second = await store.post(f"{INVENTORY}/lookup", body, headers)
    other = await store.post(f"{INVENTORY}/lookup", {"productIds": ["PROD-002"]}, headers)

    assert [200, 304, 200] == [first.status, second.status, other.status]


@pytest.mark.parametrize("target", READS)
async def test_a_changed_answer_has_another_tag(store: Store, target: str) -> None:
    """A change of the content changes the tag."""
    first = await store.get(target)
    store.fake.put(product("PROD-001", version=7))
    second = await store.get(target, if_none_match=first.headers["ETag"])

    assert 200 == second.status
    assert first.headers["ETag"] != second.headers["ETag"]


async def test_the_tag_of_a_page_covers_its_pagination(store: Store) -> None:
    """The same rows of a longer list are other content."""
    first = await store.get(f"{INVENTORY}?limit=1")
    store.fake.put(product("ZZZ"))
    second = await store.get(f"{INVENTORY}?limit=1", if_none_match=first.headers["ETag"])

    assert first.json["products"] == second.json["products"]
    assert 200 == second.status


async def test_tags_are_weak_if_the_body_has_a_time(store: Store) -> None:
    """The tag of a page does not cover `cacheInfo`, so it is weak; that of a product is strong."""
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
    """Lists, lines, weak tags and `*` are compared weakly; a malformed header is ignored."""
    assert is_match == matches(values, tag)


def test_a_weak_tag_covers_rows_and_numbers() -> None:
    """Equal rows have equal tags; other rows, another order or other numbers do not."""
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
