"""CORS: web pages of configured origins may call, others may not."""

import pytest

from tests.unit.api.conftest import TILL, Opened

TILL_PAGE = "https://till.example.com"
INVENTORY = "/v1/store/inventory"
ASKS = {
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "x-api-key, idempotency-key",
}


async def test_a_preflight_of_a_configured_origin(open_store: Opened) -> None:
    """It needs no key; the answer names methods, headers and how long it holds."""
    store = await open_store(cors_origins=[TILL_PAGE])
    reply = await store.send("OPTIONS", f"{INVENTORY}/A/inventory", headers=ASKS | origin())

    assert (204, b"") == (reply.status, reply.body)
    assert TILL_PAGE == reply.headers["Access-Control-Allow-Origin"]
    assert "GET, HEAD, POST, PATCH" == reply.headers["Access-Control-Allow-Methods"]
    assert "600" == reply.headers["Access-Control-Max-Age"]
    assert "Origin" == reply.headers["Vary"]
    for name in ("X-API-Key", "Content-Type", "If-None-Match", "Idempotency-Key", "X-Request-ID"):
        assert name in reply.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize(
    "headers",
    [
        ASKS | {"Origin": "https://other.example.com"},
        ASKS | {"Origin": "http://till.example.com"},
        ASKS | {"Origin": "null"},
        ASKS,
        {"Origin": TILL_PAGE},
        {},
    ],
)
async def test_any_other_options_request_is_not_a_preflight(
    open_store: Opened, headers: dict[str, str]
) -> None:
    """It gets 401 without a key and 405 with one, and no header that lets a page go on."""
    store = await open_store(cors_origins=[TILL_PAGE])
    without = await store.send("OPTIONS", INVENTORY, headers=headers)
    with_key = await store.send("OPTIONS", INVENTORY, headers=headers | TILL)

    assert (401, 405) == (without.status, with_key.status)
    assert "Access-Control-Allow-Methods" not in without.headers


@pytest.mark.parametrize(
    ("target", "status"), [(INVENTORY, 200), (f"{INVENTORY}/none", 404), (f"{INVENTORY}?x=1", 400)]
)
async def test_answers_say_that_the_origin_may_read_them(
    open_store: Opened, target: str, status: int
) -> None:
    """Errors too, with the headers that a page needs."""
    store = await open_store(cors_origins=[TILL_PAGE])
    reply = await store.get(target, origin=TILL_PAGE)

    assert (status, TILL_PAGE) == (reply.status, reply.headers["Access-Control-Allow-Origin"])
    exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
    assert {
        "X-Cache-Offset",
        "X-Cache-Generation",
        "Age",
        "Cache-Status",
        "ETag",
        "X-Request-ID",
        "X-Canary-Echo",
        "Retry-After",
    } == set(exposed)


async def test_a_page_can_read_that_its_key_is_wrong(open_store: Opened) -> None:
    """A page of a configured origin can read the 401."""
    store = await open_store(cors_origins=[TILL_PAGE])
    reply = await store.send("GET", INVENTORY, headers=origin())

    assert (401, TILL_PAGE) == (reply.status, reply.headers["Access-Control-Allow-Origin"])


async def test_answers_vary_by_origin(open_store: Opened) -> None:
    """`Vary` keeps a cache from giving the answer for one origin to another."""
    store = await open_store(cors_origins=[TILL_PAGE])
    without = await store.get(INVENTORY)
    other = await store.get(INVENTORY, origin="https://other.example.com")

    assert ["Origin", "Origin"] == [reply.headers["Vary"] for reply in (without, other)]
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_any_origin(open_store: Opened) -> None:
    """`*` lets every page with a key call."""
    store = await open_store(cors_origins=["*"])
    reply = await store.get(INVENTORY, origin="https://other.example.com")

    assert "*" == reply.headers["Access-Control-Allow-Origin"]
    assert "Vary" not in reply.headers


async def test_no_origin_is_configured(open_store: Opened) -> None:
    """By default there are no CORS headers."""
    store = await open_store()
    reply = await store.get(INVENTORY, origin=TILL_PAGE)

    assert [] == [name for name in reply.headers if name.startswith("Access-Control")]


def origin() -> dict[str, str]:
    return {"Origin": TILL_PAGE}
