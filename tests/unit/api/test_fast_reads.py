"""The fast reads say what the plain path says, and keep every limit of the service."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from random import Random

import pytest

from store_cache.api import middleware as exchange
from store_cache.api.content.freshness import Freshness
from store_cache.api.limits import ConnectionLimits
from tests.harness.shop import FRESH, Shop, product
from tests.harness.virtual_time import in_virtual_time
from tests.unit.api.odd_requests import ODD_IDS, Odd
from tests.unit.api.twins import SETTLED_SECONDS, Pair, Twins, a_server, the_twins

PATH = b"/v1/store/inventory"
LIST = b'{"productIds":["PROD-001","PROD-999"]}'
LATER_SECONDS = 200.0
"""Past every deadline."""


def head(target: bytes = PATH + b"/PROD-001", *fields: bytes, method: bytes = b"GET") -> bytes:
    usual = (b"Host: store", b"X-API-Key: till-secret")
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *usual, *fields, b"", b""])


def lookup(body: bytes = LIST, *fields: bytes) -> bytes:
    typed = (b"Content-Type: application/json", b"Content-Length: %d" % len(body))
    return head(PATH + b"/lookup", *typed, *fields, method=b"POST") + body


PRODUCT = head()
PAGE = head(PATH + b"?offset=1&limit=2")
LOOKUP = lookup()
FAST = {
    "product": PRODUCT,
    "page": PAGE,
    "page of too many": head(PATH + b"?offset=0&limit=201"),
    "page without a query": head(PATH),
    "page with a limit": head(PATH + b"?limit=2"),
    "page behind an id": head(PATH + b"?limit=2&after=PROD-001"),
    "lookup": LOOKUP,
    "lookup with spaces": lookup(b'{"productIds": ["PROD-001", "PROD-002"]}'),
    "request id": head(PATH, b"X-Request-ID: till-3-17"),
    "other tag": head(PATH, b'If-None-Match: "x"'),
    "any tag": head(PATH, b"If-None-Match: *"),
    "curl": head(PATH, b"User-Agent: curl/8.5.0", b"Accept: */*"),
    "browser": head(
        PATH, b"Sec-Fetch-Site: same-origin", b"sec-ch-ua-platform: x", b"Referer: http://store/"
    ),
    "httpx": head(
        PATH, b"Accept: */*", b"Accept-Encoding: gzip, deflate", b"Connection: keep-alive"
    ),
}


def stocked() -> Shop:
    return Shop(product(one, note="ä%") for one in ODD_IDS)


async def welcomed(twins: Twins, address: str = "127.0.0.1") -> Pair:
    """A connection from an address from where the key has served before."""
    pair = twins.connect(address)
    await pair.feed(PRODUCT)
    return pair


# -- the same answers --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@in_virtual_time
async def test_generated_requests_are_answered_alike(seed: int) -> None:
    """Common, odd, malformed, cut, joined: byte for byte, also what is closed, and when. Meanwhile
    products and freshness change."""
    odd, shop = Odd(seed), stocked()
    count = 0
    async with the_twins(shop) as twins:
        for number in range(700):
            address = f"10.0.0.{number // 10}"  # so few share one that guesses do not add up
            pair = twins.connect(address) if number % 10 else await welcomed(twins, address)
            for chunks in odd.requests():
                count += 1
                await pair.feed(*chunks)
                plain, fast = pair.said
                assert plain == fast, (seed, number, chunks)
            if number % 10 == 0:
                await asyncio.sleep(LATER_SECONDS)
                plain, fast = pair.said
                assert plain == fast, (seed, number)
            await pair.close()
            change(shop, odd.random)

        assert count > 2000
        assert twins.plain.seen - twins.fast.seen > 300


def change(shop: Shop, chance: Random) -> None:
    number = chance.randrange(20)
    if number == 0:
        shop.put(product("PROD-002", available=chance.randrange(99)))
    elif number == 1:
        shop.remove("PROD-003")
    elif number == 2:
        shop.put(product("PROD-003"))
    elif number == 3:
        shop.fresh = replace(shop.fresh, last_offset=shop.fresh.last_offset + 1)
    elif number == 4:
        shop.fresh = FRESHNESSES[chance.randrange(len(FRESHNESSES))]


FRESHNESSES: tuple[Freshness, ...] = (
    FRESH,
    replace(FRESH, age_seconds=61.0, is_stale=True),
    replace(FRESH, is_durable=False),
    replace(FRESH, age_seconds=math.inf, is_stale=True, is_durable=False, last_sync_time=None),
    replace(FRESH, generation=None),
    replace(FRESH, generation='%s 100%\r\nX: "ä"', last_sync_time="2024-01-15T10:29:46Z"),
)


@pytest.mark.parametrize("fresh", FRESHNESSES, ids=range(len(FRESHNESSES)))
@pytest.mark.parametrize("origins", [[], ["https://till.example.com"], ["*"]], ids=str)
@in_virtual_time
async def test_every_state_is_told_alike(fresh: Freshness, origins: list[str]) -> None:
    """Fresh, stale, not durable, never in step, of any generation, with other origins: what is
    common to the answers is the same, and each comes by the fast way."""
    shop = stocked()
    shop.fresh = fresh
    async with the_twins(shop, cors_origins=origins) as twins:
        pair = await welcomed(twins)
        before = twins.fast.seen
        await pair.feed(*FAST.values())

        assert pair.said[0] == pair.said[1]
        assert before == twins.fast.seen


@pytest.mark.parametrize("request_", FAST.values(), ids=FAST)
@in_virtual_time
async def test_what_is_cut_is_answered_alike(request_: bytes) -> None:
    """At every byte: aiohttp puts it together, and goes on with the connection."""
    async with the_twins(stocked()) as twins:
        for at in range(1, len(request_)):
            pair = await welcomed(twins)
            before = twins.fast.seen
            await pair.feed(request_[:at], request_[at:], PRODUCT)

            assert pair.said[0] == pair.said[1]
            assert twins.fast.seen - before in (1, 2)
            await pair.close()


@pytest.mark.parametrize("first", FAST.values(), ids=FAST)
@in_virtual_time
async def test_pipelined_requests_are_answered_alike(first: bytes) -> None:
    """In their order: two or three at once, or while another is being answered."""
    async with the_twins(stocked()) as twins:
        for second in FAST.values():
            pair = await welcomed(twins)
            pair.fast.feed(first + second)
            pair.plain.feed(first + second)
            await pair.feed(PRODUCT, first + second + PAGE, PRODUCT)
            plain, fast = pair.said

            assert plain == fast
            assert 8 == fast[0].count(b"HTTP/1.1 ")
            await pair.close()


ASIDE = {
    "HEAD": head(method=b"HEAD"),
    "HTTP/1.0": PRODUCT.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "close": head(PATH, b"Connection: close"),
    "no-cache": head(PATH + b"/PROD-001", b"Cache-Control: no-cache"),
    "length": head(PATH, b"Content-Length: 0"),
    "chunks": head(PATH, b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "expect": head(PATH, b"Expect: 100-continue"),
    "upgrade": head(PATH, b"Upgrade: h2c", b"Connection: upgrade"),
    "range": head(PATH, b"Range: bytes=0-9"),
    "origin": head(PATH, b"Origin: https://till.example.com"),
    "two hosts": head(PATH, b"Host: store"),
    "two keys": head(PATH, b"X-API-Key: till-secret"),
    "two tags": head(PATH, b'If-None-Match: "a"', b'If-None-Match: "b"'),
    "odd request id": head(PATH, b"X-Request-ID: a b"),
    "escape": head(PATH + b"/PROD%2D001"),
    "query of one": head(PATH + b"/PROD-001?"),
    "unknown": head(PATH + b"/PROD-999"),
    "bad limit": head(PATH + b"?limit=0"),
    "wrong key": PRODUCT.replace(b"till-secret", b"till-secreT"),
    "no key": PRODUCT.replace(b"X-API-Key: till-secret\r\n", b""),
    "no fields": b"GET /v1/store/inventory/PROD-001 HTTP/1.1\r\n\r\n",
    "no fields, another line": b"GET /v1/store/inventory/PROD-001 HTTP/1.1\r\n\r\n\r\n",
    "bare line feeds": PRODUCT.replace(b"\r\n", b"\n"),
    "fold": head(PATH, b"Accept: a,", b" b"),
    "longer than all": head(PATH, b"User-Agent: " + b"x" * 3000),
    "another read": head(b"/v1/store/sync/status"),
    "health": head(b"/health"),
    "lookup of no list": lookup(b'{"productIds":[1]}'),
    "lookup of half an id": lookup(b'{"productIds":["]}'),
    "lookup of half an id, spaced": lookup(b'{"productIds": ["]}'),
}


@pytest.mark.parametrize("request_", ASIDE.values(), ids=ASIDE)
@in_virtual_time
async def test_what_is_unusual_is_aiohttp_s(request_: bytes) -> None:
    """It is handed over, first on a connection and behind others, and answered alike."""
    async with the_twins(stocked(), body_seconds=1.0) as twins:
        await (await welcomed(twins)).close()
        for before in ([], [PRODUCT], [PAGE, LOOKUP]):
            pair = twins.connect()
            await pair.feed(*before)
            seen = twins.fast.seen
            await pair.feed(request_, settled_seconds=5.0)
            plain, fast = pair.said

            assert plain == fast
            assert seen + (1 if "\n\r\n" in request_.decode() else 0) <= twins.fast.seen
            await pair.close()


@in_virtual_time
async def test_without_a_catalogue_nothing_is_fast() -> None:
    """503 is the plain path's to say; once there is a catalogue the fast way is open again."""
    shop = stocked()
    async with the_twins(shop) as twins:
        pair = await welcomed(twins)
        kept, shop.catalogue = shop.catalogue, None
        await pair.feed(PRODUCT, PAGE, LOOKUP)
        shop.catalogue = kept
        before = twins.fast.seen
        await pair.feed(PRODUCT, PAGE, LOOKUP)

        assert pair.said[0] == pair.said[1]
        assert 3 == pair.fast.sent.count(b"503 Service Unavailable")
        assert before == twins.fast.seen


@in_virtual_time
async def test_tags_that_were_given_are_known_on_both_ways() -> None:
    """A tag of the fast way is 304 on the plain one, and the other way round; a change ends it."""
    shop = stocked()
    async with the_twins(shop) as twins:
        for number, request in enumerate((PRODUCT, head(PATH), LOOKUP)):
            pair = await welcomed(twins)
            await pair.feed(request)
            tag = bytes(pair.fast.sent).rpartition(b"ETag: ")[2].partition(b"\r\n")[0]
            again = request.replace(b"Host", b"If-None-Match: %b\r\nHost" % tag)
            seen = twins.fast.seen
            await pair.feed(again)
            shop.put(product("PROD-001", available=number))
            await pair.feed(again)
            answers = bytes(pair.fast.sent).split(b"HTTP/1.1 ")[2:]

            assert pair.said[0] == pair.said[1]
            assert [b"200", b"304", b"200"] == [one[:3] for one in answers]
            assert seen == twins.fast.seen


# -- whose turn it is --------------------------------------------------------------------------


SOLD = b'{"productId":"PROD-001","delta":-1,"version":6,"idempotencyKey":"k"}'
WRITE = head(
    PATH + b"/updates",
    b"Content-Type: application/json",
    b"Content-Length: %d" % len(SOLD),
    method=b"POST",
)


@pytest.mark.parametrize("cut", [[WRITE + SOLD], [WRITE, SOLD], [WRITE, SOLD[:9], SOLD[9:]]])
@in_virtual_time
async def test_a_connection_is_fast_again_after_a_write(cut: list[bytes]) -> None:
    """Tills read and sell on one connection; the read that follows shows the sale (W6)."""
    shop = stocked()
    async with a_server(shop) as server:
        wire = server.connect()
        for chunk in (PRODUCT, *cut):
            wire.feed(chunk)
            await asyncio.sleep(SETTLED_SECONDS)
        seen = server.seen
        wire.feed(PRODUCT)
        sold = bytes(wire.sent).rpartition(b"HTTP/1.1 200 OK")[2]

        assert (2, 2) == (seen, server.seen)
        assert b'"available":9' in sold


@in_virtual_time
async def test_no_answer_overtakes_another() -> None:
    """While aiohttp answers a request, what comes on the same connection waits for it."""
    shop = stocked()
    async with a_server(shop) as server:
        wire = server.connect()
        wire.feed(PRODUCT)
        await asyncio.sleep(SETTLED_SECONDS)
        shop.admission.clear()
        written = len(wire.sent)
        for chunk in (WRITE + SOLD, PRODUCT, PAGE):
            wire.feed(chunk)
            await asyncio.sleep(SETTLED_SECONDS)

        assert written == len(wire.sent)
        shop.admission.set()
        await asyncio.sleep(SETTLED_SECONDS)
        answers = bytes(wire.sent[written:]).split(b"HTTP/1.1 200 OK")[1:]
        assert [b"newQuantity", b"idempotency", b"pagination"][::2] == [
            word for word in (b"newQuantity", b"pagination") if word in b"".join(answers)
        ]
        assert [True, False, False] == [b"newQuantity" in one for one in answers]
        assert [False, False, True] == [b"pagination" in one for one in answers]


SMUGGLED = {
    "in a header of the next": [PRODUCT + b"POST / HTTP/1.1\r\nX-Y: ", PRODUCT],
    "in a body": [head(PATH, b"Content-Length: %d" % len(PRODUCT)), PRODUCT, PRODUCT],
    "in a body's rest": [
        head(PATH + b"/updates", b"Content-Length: %d" % (len(PRODUCT) + 1), method=b"POST") + b"{",
        PRODUCT,
        PRODUCT,
    ],
    "in a chunk": [
        head(PATH + b"/updates", b"Transfer-Encoding: chunked", method=b"POST"),
        b"%x\r\n" % len(PRODUCT),
        PRODUCT,
        b"\r\n0\r\n\r\n",
        PRODUCT,
    ],
    "between length and chunks": [
        head(PATH, b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        PRODUCT,
    ],
    "behind an upgrade": [head(PATH, b"Upgrade: h2c", b"Connection: upgrade"), PRODUCT],
    "behind a tunnel": [head(b"store:8083", method=b"CONNECT"), PRODUCT],
    "in two lengths": [head(PATH, b"Content-Length: 0", b"Content-Length: 9"), PRODUCT],
    "after a head that does not end": [PRODUCT[:-2], PRODUCT, PRODUCT],
    "after an empty line": [b"\r\n", PRODUCT, PRODUCT],
    "after half a line end": [PRODUCT[:-1], b"\n" + PRODUCT, PRODUCT],
    "after a close": [head(PATH, b"Connection: close"), PRODUCT],
    "after a refusal": [b"\x00", PRODUCT],
}


@pytest.mark.parametrize("chunks", SMUGGLED.values(), ids=SMUGGLED)
@in_virtual_time
async def test_nothing_is_smuggled_past_aiohttp(chunks: list[bytes]) -> None:
    """(T9) What belongs to another request, by aiohttp's reading, is never answered by itself."""
    async with the_twins(stocked(), body_seconds=1.0) as twins:
        for settled_seconds in (SETTLED_SECONDS, 5.0):
            pair = await welcomed(twins)
            await pair.feed(*chunks, settled_seconds=settled_seconds)

            assert pair.said[0] == pair.said[1]
            await pair.close()


@pytest.mark.parametrize("last", [head(PATH, b"Connection: close"), head(PATH + b"?a=b"), LOOKUP])
@in_virtual_time
async def test_what_comes_in_the_moment_of_an_answer_is_answered_alike(last: bytes) -> None:
    """Before aiohttp has turned to the next request, or has closed: after a goodbye nothing is."""
    async with the_twins(stocked()) as twins:
        pair = await welcomed(twins)
        pair.fast.at_once = pair.plain.at_once = PRODUCT
        await pair.feed(last)
        plain, fast = pair.said

        assert plain == fast
        assert (b"close" in last) == pair.fast.is_closed


# -- keys --------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_key_counts_only_where_it_served_before() -> None:
    """(T1) The first request of an address is aiohttp's, and so is every one with a wrong key:
    after twenty of these a key that never served from there is not believed, on either way."""
    async with the_twins(stocked()) as twins:
        pair = twins.connect()
        await pair.feed(*[PRODUCT.replace(b"till-secret", b"guess-%d" % n) for n in range(20)])
        await pair.feed(PRODUCT, PRODUCT)
        other = await welcomed(twins, "10.0.0.2")
        seen = twins.fast.seen
        await other.feed(PRODUCT)

        assert pair.said[0] == pair.said[1]
        assert 20 == pair.fast.sent.count(b"401 Unauthorized")
        assert 2 == pair.fast.sent.count(b"429 Too Many Requests")
        assert seen == twins.fast.seen


@in_virtual_time
async def test_a_connection_s_memory_opens_it_to_no_other_key() -> None:
    """(T1) Whoever comes with other fields on a connection that served is asked for the key."""
    async with the_twins(stocked()) as twins:
        pair = await welcomed(twins)
        await pair.feed(PRODUCT, PRODUCT)
        for other in ("wrong key", "no key", "no fields", "no fields, another line"):
            await pair.feed(ASIDE[other])

        assert pair.said[0] == pair.said[1]
        assert 3 == pair.fast.sent.count(b"HTTP/1.1 200")


# -- limits ------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_connection_that_was_served_and_falls_silent_is_closed() -> None:
    """(T10) `idle_seconds` after the last answer, not after the last that aiohttp saw."""
    async with a_server(stocked()) as server:
        wire = server.connect()
        for _ in range(10):
            wire.feed(PRODUCT)
            await asyncio.sleep(60.0)
            assert not wire.is_closed
        await asyncio.sleep(16.0)

        assert wire.is_closed
        assert 1 == server.seen
        assert 10 == wire.sent.count(b"HTTP/1.1 200")


@in_virtual_time
async def test_a_head_that_does_not_end_is_cut_on_a_fast_connection() -> None:
    """(T10) The deadline of a head counts from its first byte, whatever was answered before."""
    async with a_server(stocked(), limits=ConnectionLimits(head_seconds=5.0)) as server:
        wire = server.connect()
        for _ in range(3):
            wire.feed(PRODUCT)
            await asyncio.sleep(1.0)
        wire.feed(PRODUCT[:20])
        for at in range(20, 28):
            await asyncio.sleep(1.0)
            wire.feed(PRODUCT[at : at + 1])

        assert wire.is_closed


@in_virtual_time
async def test_a_reader_that_does_not_read_is_cut_on_a_fast_connection() -> None:
    """(T10) While it takes nothing, requests are aiohttp's, which stops reading; then it is cut."""
    async with a_server(stocked(), limits=ConnectionLimits(unread_seconds=5.0)) as server:
        wire = server.connect()
        wire.feed(PRODUCT)
        await asyncio.sleep(SETTLED_SECONDS)
        wire.feed(PRODUCT)
        wire.connection.pause_writing()
        for _ in range(3):
            wire.feed(PRODUCT)
            await asyncio.sleep(1.0)
        written = wire.writes
        wire.feed(PRODUCT)
        await asyncio.sleep(1.0)

        assert written == wire.writes
        assert not wire.is_closed
        await asyncio.sleep(2.0)
        assert wire.is_closed


@in_virtual_time
async def test_a_stop_closes_fast_connections_and_answers_no_more() -> None:
    """What was served and is quiet is closed in good order; what comes afterwards is not read."""
    async with a_server(stocked()) as server:
        wire, busy = server.connect(), server.connect()
        for _ in range(2):
            wire.feed(PRODUCT)
            busy.feed(PRODUCT)
            await asyncio.sleep(SETTLED_SECONDS)
        server.server.pre_shutdown()
        written = len(busy.sent)
        busy.feed(PRODUCT)
        server.limiter.close_idle()

        assert wire.is_closed
        assert written == len(busy.sent)


# -- what is seen of it ------------------------------------------------------------------------


@in_virtual_time
async def test_where_somebody_debugs_every_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At level debug the plain path answers, with its lines; the connection stays open to both."""
    async with a_server(stocked()) as server:
        wire = server.connect()
        wire.feed(PRODUCT)
        await asyncio.sleep(SETTLED_SECONDS)
        caplog.set_level(logging.DEBUG, exchange.__name__)
        for request in (PRODUCT, PAGE, LOOKUP):
            wire.feed(request)
            await asyncio.sleep(SETTLED_SECONDS)

        assert 3 == len([one for one in caplog.records if one.message == "request answered"])
        assert 4 == server.seen


@in_virtual_time
async def test_a_lookup_is_no_line_either(caplog: pytest.LogCaptureFixture) -> None:
    """It is a read, whatever its method: logged like the others, on both ways."""
    caplog.set_level(logging.INFO, exchange.__name__)
    async with the_twins(stocked()) as twins:
        await (await welcomed(twins)).feed(LOOKUP)

        assert [] == caplog.records


@in_virtual_time
async def test_a_defect_costs_speed_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """What fails on the fast way is said in the log, once for a connection, and the plain path
    answers."""

    class Broken(Shop):
        is_broken = False

        def measure(self) -> Freshness:
            if self.is_broken:
                self.is_broken = False
                raise RuntimeError("a defect")
            return super().measure()

    shop = Broken([product("PROD-001")])
    async with a_server(shop) as server:
        wire = server.connect()
        wire.feed(PRODUCT)
        await asyncio.sleep(SETTLED_SECONDS)
        shop.is_broken = True
        for _ in range(3):
            wire.feed(PRODUCT)
            await asyncio.sleep(SETTLED_SECONDS)

        assert 4 == server.seen == wire.sent.count(b"HTTP/1.1 200")
        assert ["a fast read failed; its connection goes on without them"] == [
            one.message for one in caplog.records
        ]
