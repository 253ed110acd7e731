"""Limits on the requests a second of each client."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from store_cache.api.auth import Caller, Scope, key_digest
from store_cache.api.limits import ConnectionLimits
from store_cache.api.request_rates import RatePolicy
from tests.harness.clients import TILL_KEY
from tests.harness.fake_store import FakeStore, product
from tests.harness.virtual_time import in_virtual_time
from tests.unit.api.conftest import ADMIN, TILL, Opened
from tests.unit.api.twins import memory_server, twin_servers

PATH = b"/v1/store/inventory"
PRODUCT = b"GET " + PATH + b"/PROD-001 HTTP/1.1\r\nHost: store\r\nX-API-Key: till-secret\r\n\r\n"
UPDATE = {"productId": "PROD-001", "delta": -2, "version": 6, "idempotencyKey": "order-12345"}
OFFICE = Caller("office", Scope.ADMIN, key_digest("office-key"))
ODD_FIELDS = (
    *(b"X-Request-ID: till-3-17", b"Accept: application/problem+json", b"Accept: */*"),
    *(b"Accept-Encoding: gzip", b"X-Unknown: 1"),
)


def stocked() -> FakeStore:
    return FakeStore([product("PROD-001")])


@in_virtual_time
async def test_a_client_may_send_a_second_s_worth_at_once() -> None:
    """Then as many a second as the limit says, however long it was quiet before."""
    policy = RatePolicy("reads", 10)
    await asyncio.sleep(1000.0)
    first = [policy.take("till-3") for _ in range(12)]
    rest = []
    for _ in range(100):
        await asyncio.sleep(0.05)
        rest.append(policy.take("till-3"))

    assert [True] * 10 + [False] * 2 == first
    assert 49 <= sum(rest) <= 50


@in_virtual_time
async def test_a_client_does_not_use_up_another_s_limit() -> None:
    """Each has its own."""
    policy = RatePolicy("reads", 1)

    assert [True, False, True] == [policy.take(one) for one in ("hog", "hog", "till-3")]


async def test_a_refused_request_says_how_to_go_on(open_store: Opened) -> None:
    """429 with `Retry-After`, and the fields of the RateLimit draft; a write was not sent."""
    store = await open_store(reads_per_second=2, writes_per_second=1)
    reads = [await store.get("/v1/store/inventory/PROD-001") for _ in range(3)]
    writes = [await store.post("/v1/store/inventory/updates", UPDATE) for _ in range(2)]

    assert [200, 200, 429] == [reply.status for reply in reads]
    assert [200, 429] == [reply.status for reply in writes]
    fields = {"Retry-After": "1", "RateLimit": '"reads";r=0;t=1'}
    assert fields.items() <= reads[-1].headers.items()
    assert '"reads";q=2;w=1' == reads[-1].headers["RateLimit-Policy"]
    assert '"writes";q=1;w=1' == writes[-1].headers["RateLimit-Policy"]
    assert "rate_limited" == writes[-1].code
    assert {"limit": "writes", "perSecond": 1} == writes[-1].json["error"]["details"]
    assert 1 == len(store.fake.writes)


async def test_only_reads_and_writes_of_a_known_client_are_counted(open_store: Opened) -> None:
    """Not wrong keys, probes, admin calls, or what another client sends. All spellings of a read
    count, and so does a key that may do more."""
    store = await open_store(reads_per_second=1, named=[OFFICE])
    for _ in range(3):
        assert 200 == (await store.send("GET", "/health")).status
        assert 401 == (await store.send("GET", "/v1/store/inventory")).status
        assert 200 == (await store.send("POST", "/v1/store/sync/force", headers=ADMIN)).status
    read = await store.send("HEAD", "/v1/store/inventory", headers=TILL)
    lookup = await store.post("/v1/store/inventory/lookup", {"productIds": ["PROD-001"]})
    nowhere = await store.send("GET", "/v1/nowhere", headers=TILL)
    office = {"X-API-Key": "office-key"}
    others = [await store.send("GET", "/v1/store/inventory", headers=office) for _ in range(2)]

    assert [200, 429, 429] == [reply.status for reply in (read, lookup, nowhere)]
    assert [200, 429] == [reply.status for reply in others]


@pytest.mark.parametrize("field", [None, *ODD_FIELDS])
@in_virtual_time
async def test_both_paths_limit_alike(field: bytes | None) -> None:
    """The same bytes from both, in the same order, whoever of the two answers."""
    request = PRODUCT if field is None else PRODUCT[:-2] + field + b"\r\n\r\n"
    unknown = PRODUCT.replace(b"PROD-001", b"PROD-404")
    async with twin_servers(stocked(), reads_per_second=3) as twins:
        pair = twins.connect()
        for _ in range(3):
            await pair.feed(request, unknown, request, request, PRODUCT)
            await asyncio.sleep(1.0)

        assert pair.plain_answers == pair.fast_answers
        assert 6 == pair.fast.sent.count(b"HTTP/1.1 200")
        assert 3 == pair.fast.sent.count(b"HTTP/1.1 404")
        assert 6 == pair.fast.sent.count(b"HTTP/1.1 429")


@in_virtual_time
async def test_refusing_a_fast_read_is_fast() -> None:
    """Aiohttp does not see it, so a client beyond its limit costs little."""
    async with memory_server(stocked(), reads_per_second=1) as server:
        wire = server.connect()
        await wire.deliver(*[PRODUCT] * 50)

        assert (0, 49) == (server.seen, wire.sent.count(b"HTTP/1.1 429"))


@in_virtual_time
async def test_a_client_beyond_its_limit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By name, once a minute, with how many were refused."""
    async with memory_server(stocked(), reads_per_second=1) as server:
        wire = server.connect()
        await wire.deliver(*[PRODUCT] * 50)
        await asyncio.sleep(61.0)
        await wire.deliver(*[PRODUCT] * 3)

    lines = [each for each in caplog.records if "over the limit" in each.message]
    assert [1, 49] == [getattr(line, "refused", 0) for line in lines]
    assert ("key-1", "reads", 1) == (
        *(getattr(lines[0], "client", ""), getattr(lines[0], "kind", "")),
        getattr(lines[0], "perSecond", 0),
    )


async def test_without_limits_nothing_is_limited(open_store: Opened) -> None:
    """0 is off, and the default."""
    store = await open_store()
    line = await store.line()
    target = "/v1/store/inventory/PROD-001"
    replies = [await line.send("GET", target, headers=TILL) for _ in range(300)]

    assert {200} == {reply.status for reply in replies}
    assert orjson.loads(replies[0].body)["productId"] == "PROD-001"


@pytest.mark.parametrize("key", [TILL_KEY, "guess"])
@pytest.mark.parametrize("fast_reads", [True, False])
async def test_a_refused_client_is_not_heard_for_a_while(
    open_store: Opened, fast_reads: bool, key: str
) -> None:
    """It would else ask again at once, and slow others down by being refused. Nothing is lost: its
    next request is answered then. So it is with wrong keys."""
    limits = ConnectionLimits(refused_seconds=0.2)
    store = await open_store(reads_per_second=1, fast_reads=fast_reads, limits=limits)
    line, now = await store.line(), asyncio.get_running_loop().time
    target = "/v1/store/inventory/PROD-001"
    statuses = []
    while 429 not in statuses:
        statuses.append((await line.send("GET", target, headers={"X-API-Key": key})).status)
    began_at = now()
    again = await line.send("GET", target, headers={"X-API-Key": key})

    assert now() - began_at > 0.15
    assert 429 == again.status
    assert (2 if key == TILL_KEY else 21) == len(statuses)
