"""Fast reads give the same answers as the plain path, within the same limits."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from random import Random

import pytest

from store_cache.api import middleware
from store_cache.api.content.freshness import Freshness
from store_cache.api.limits import ConnectionLimits
from tests.harness.fake_store import FRESH, FakeStore, product
from tests.harness.virtual_time import in_virtual_time
from tests.unit.api.odd_requests import ODD_IDS, Odd
from tests.unit.api.twins import SETTLED_SECONDS, Pair, Twins, memory_server, twin_servers

PATH = b"/v1/store/inventory"
LIST = b'{"productIds":["PROD-001","PROD-999"]}'
LATER_SECONDS = 200.0
"""Longer than every deadline."""


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
    "page with too large a limit": head(PATH + b"?offset=0&limit=201"),
    "page without a query": head(PATH),
    "page with a limit": head(PATH + b"?limit=2"),
    "page after an id": head(PATH + b"?limit=2&after=PROD-001"),
    "lookup": LOOKUP,
    "lookup with spaces": lookup(b'{"productIds": ["PROD-001", "PROD-002"]}'),
    "request id": head(PATH, b"X-Request-ID: till-3-17"),
    "other tag": head(PATH, b'If-None-Match: "x"'),
    "any tag": head(PATH, b"If-None-Match: *"),
    "escape": head(PATH + b"/PROD%2D001"),
    "escaped slash": head(PATH + b"/tea%2Fgreen%2050%25"),
    "escape of two bytes": head(PATH + b"/%C3%A4"),
    "escaped page": head(PATH + b"?limit=2&after=tea%2Fgreen"),
    "origin": head(PATH, b"Origin: https://till.example.com"),
    "other origin": head(PATH + b"/PROD-001", b"Origin: https://other.example.com"),
    "lookup of an origin": lookup(LIST, b"Origin: https://till.example.com"),
    "curl": head(PATH, b"User-Agent: curl/8.5.0", b"Accept: */*"),
    "browser": head(
        PATH, b"Sec-Fetch-Site: same-origin", b"sec-ch-ua-platform: x", b"Referer: http://store/"
    ),
    "httpx": head(
        PATH, b"Accept: */*", b"Accept-Encoding: gzip, deflate", b"Connection: keep-alive"
    ),
}


def stocked() -> FakeStore:
    return FakeStore(product(one, note="ä%") for one in ODD_IDS)


async def accepted_pair(twins: Twins, address: str = "127.0.0.1") -> Pair:
    """Return connections on which a product was read."""
    pair = twins.connect(address)
    await pair.feed(PRODUCT)
    return pair


# -- the same answers --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@in_virtual_time
async def test_generated_requests_are_answered_alike(seed: int) -> None:
    """Common, odd, malformed, split and joined requests get the same bytes from both servers, and
    the same connections are closed at the same time, while products and freshness change."""
    odd, fake = Odd(seed), stocked()
    count = 0
    async with twin_servers(fake) as twins:
        for number in range(700):
            address = f"10.0.0.{number // 10}"  # few per address, so that wrong keys do not add up
            pair = twins.connect(address) if number % 10 else await accepted_pair(twins, address)
            for chunks in odd.requests():
                count += 1
                await pair.feed(*chunks)
                assert pair.plain_answers == pair.fast_answers, (seed, number, chunks)
            if number % 10 == 0:
                await asyncio.sleep(LATER_SECONDS)
                assert pair.plain_answers == pair.fast_answers, (seed, number)
            await pair.close()
            change(fake, odd.random)

        assert count > 2000
        assert twins.plain.seen - twins.fast.seen > 300


def change(fake: FakeStore, chance: Random) -> None:
    number = chance.randrange(20)
    if number == 0:
        fake.put(product("PROD-002", available=chance.randrange(99)))
    elif number == 1:
        fake.remove("PROD-003")
    elif number == 2:
        fake.put(product("PROD-003"))
    elif number == 3:
        fake.fresh = replace(fake.fresh, last_offset=fake.fresh.last_offset + 1)
    elif number == 4:
        fake.fresh = FRESHNESSES[chance.randrange(len(FRESHNESSES))]


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
async def test_every_freshness_is_answered_alike(fresh: Freshness, origins: list[str]) -> None:
    """Whether fresh, stale, not durable, never in sync, of any generation, or with CORS, the header
    fields are the same; and no fast read reaches aiohttp."""
    fake = stocked()
    fake.fresh = fresh
    async with twin_servers(fake, cors_origins=origins) as twins:
        pair = await accepted_pair(twins)
        before = twins.fast.seen
        await pair.feed(*FAST.values())

        assert pair.plain_answers == pair.fast_answers
        assert before == twins.fast.seen


@pytest.mark.parametrize("request_", FAST.values(), ids=FAST)
@in_virtual_time
async def test_split_requests_are_answered_alike(request_: bytes) -> None:
    """A request split at any byte is aiohttp's, and the connection stays usable."""
    async with twin_servers(stocked()) as twins:
        for at in range(1, len(request_)):
            pair = await accepted_pair(twins)
            before = twins.fast.seen
            await pair.feed(request_[:at], request_[at:], PRODUCT)

            assert pair.plain_answers == pair.fast_answers
            assert twins.fast.seen - before in (1, 2)
            await pair.close()


@pytest.mark.parametrize("first", FAST.values(), ids=FAST)
@in_virtual_time
async def test_pipelined_requests_are_answered_alike(first: bytes) -> None:
    """Two or three at once, or during another answer: all are answered in order."""
    async with twin_servers(stocked()) as twins:
        for second in FAST.values():
            pair = await accepted_pair(twins)
            pair.fast.feed(first + second)
            pair.plain.feed(first + second)
            await pair.feed(PRODUCT, first + second + PAGE, PRODUCT)

            assert pair.plain_answers == pair.fast_answers
            assert 8 == pair.fast.sent.count(b"HTTP/1.1 ")
            await pair.close()


HANDED_OVER = {
    "HEAD": head(method=b"HEAD"),
    "HTTP/1.0": PRODUCT.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "close": head(PATH, b"Connection: close"),
    "no-cache": head(PATH + b"/PROD-001", b"Cache-Control: no-cache"),
    "length": head(PATH, b"Content-Length: 0"),
    "chunks": head(PATH, b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "expect": head(PATH, b"Expect: 100-continue"),
    "upgrade": head(PATH, b"Upgrade: h2c", b"Connection: upgrade"),
    "range": head(PATH, b"Range: bytes=0-9"),
    "two hosts": head(PATH, b"Host: store"),
    "two keys": head(PATH, b"X-API-Key: till-secret"),
    "two tags": head(PATH, b'If-None-Match: "a"', b'If-None-Match: "b"'),
    "odd request id": head(PATH, b"X-Request-ID: a b"),
    "escaped dot": head(PATH + b"/%2Ehidden"),
    "escaped route": head(PATH + b"/%73tream"),
    "another escaped route": head(PATH + b"/dum%70"),
    "half an escape": head(PATH + b"/PROD%2"),
    "escape of no text": head(PATH + b"/%C3"),
    "escape of no product": head(PATH + b"/%00"),
    "two origins": head(PATH, b"Origin: https://till.example.com", b"Origin: null"),
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


@pytest.mark.parametrize("request_", HANDED_OVER.values(), ids=HANDED_OVER)
@in_virtual_time
async def test_unusual_requests_are_handed_over(request_: bytes) -> None:
    """Aiohttp gets them, first on a connection and after others, and answers alike."""
    async with twin_servers(stocked(), body_seconds=1.0) as twins:
        await (await accepted_pair(twins)).close()
        for before in ([], [PRODUCT], [PAGE, LOOKUP]):
            pair = twins.connect()
            await pair.feed(*before)
            seen = twins.fast.seen
            await pair.feed(request_, settled_seconds=5.0)

            assert pair.plain_answers == pair.fast_answers
            assert seen + (1 if "\n\r\n" in request_.decode() else 0) <= twins.fast.seen
            await pair.close()


@in_virtual_time
async def test_without_a_catalogue_nothing_is_fast() -> None:
    """The plain path answers 503; once there is a catalogue, reads are fast again."""
    fake = stocked()
    async with twin_servers(fake) as twins:
        pair = await accepted_pair(twins)
        kept, fake.catalogue = fake.catalogue, None
        await pair.feed(PRODUCT, PAGE, LOOKUP)
        fake.catalogue = kept
        before = twins.fast.seen
        await pair.feed(PRODUCT, PAGE, LOOKUP)

        assert pair.plain_answers == pair.fast_answers
        assert 3 == pair.fast.sent.count(b"503 Service Unavailable")
        assert before == twins.fast.seen


@in_virtual_time
async def test_both_paths_know_each_others_tags() -> None:
    """A tag from either path gets 304 on both, until the content changes."""
    fake = stocked()
    async with twin_servers(fake) as twins:
        for number, request in enumerate((PRODUCT, head(PATH), LOOKUP)):
            pair = await accepted_pair(twins)
            await pair.feed(request)
            tag = bytes(pair.fast.sent).rpartition(b"ETag: ")[2].partition(b"\r\n")[0]
            again = request.replace(b"Host", b"If-None-Match: %b\r\nHost" % tag)
            seen = twins.fast.seen
            await pair.feed(again)
            fake.put(product("PROD-001", available=number))
            await pair.feed(again)
            answers = bytes(pair.fast.sent).split(b"HTTP/1.1 ")[2:]

            assert pair.plain_answers == pair.fast_answers
            assert [b"200", b"304", b"200"] == [one[:3] for one in answers]
            assert seen == twins.fast.seen


# -- pipelining --------------------------------------------------------------------------------


SOLD = b'{"productId":"PROD-001","delta":-1,"version":6,"idempotencyKey":"k"}'
WRITE = head(
    PATH + b"/updates",
    b"Content-Type: application/json",
    b"Content-Length: %d" % len(SOLD),
    method=b"POST",
)


@pytest.mark.parametrize("parts", [[WRITE + SOLD], [WRITE, SOLD], [WRITE, SOLD[:9], SOLD[9:]]])
@in_virtual_time
async def test_a_connection_is_fast_again_after_a_write(parts: list[bytes]) -> None:
    """A till reads and writes on one connection; the read that follows shows the write (W6)."""
    fake = stocked()
    async with memory_server(fake) as server:
        wire = server.connect()
        await wire.deliver(PRODUCT, *parts)
        seen = server.seen
        wire.feed(PRODUCT)
        sold = bytes(wire.sent).rpartition(b"HTTP/1.1 200 OK")[2]

        assert (1, 1) == (seen, server.seen)
        assert b'"available":9' in sold


@in_virtual_time
async def test_a_request_behind_a_refused_upgrade_is_answered() -> None:
    """It was refused before its body had arrived."""
    refused = WRITE.replace(b"/updates", b"/updates?a=b").replace(b"Host", b"Upgrade: h2c\r\nHost")
    async with memory_server(stocked()) as server:
        wire = server.connect()
        await wire.deliver(refused + SOLD[:9], SOLD[9:], PRODUCT)

        assert 1 == wire.sent.count(b"HTTP/1.1 400 Bad Request")
        assert 1 == wire.sent.count(b"HTTP/1.1 200 OK")


@in_virtual_time
async def test_no_answer_overtakes_another() -> None:
    """While aiohttp answers a request, later ones on the same connection wait for it."""
    fake = stocked()
    async with memory_server(fake) as server:
        wire = server.connect()
        await wire.deliver(PRODUCT)
        fake.admission.clear()
        written = len(wire.sent)
        await wire.deliver(WRITE + SOLD, PRODUCT, PAGE)

        assert written == len(wire.sent)
        fake.admission.set()
        await asyncio.sleep(SETTLED_SECONDS)
        answers = bytes(wire.sent[written:]).split(b"HTTP/1.1 200 OK")[1:]
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
    """(T9) Bytes that are part of another request, as aiohttp reads it, get no answer of their
    own."""
    async with twin_servers(stocked(), body_seconds=1.0) as twins:
        for settled_seconds in (SETTLED_SECONDS, 5.0):
            pair = await accepted_pair(twins)
            await pair.feed(*chunks, settled_seconds=settled_seconds)

            assert pair.plain_answers == pair.fast_answers
            await pair.close()


@pytest.mark.parametrize("last", [head(PATH, b"Connection: close"), head(PATH + b"?a=b"), LOOKUP])
@in_virtual_time
async def test_bytes_that_arrive_during_an_answer_are_answered_alike(last: bytes) -> None:
    """They arrive before aiohttp has finished; after `Connection: close` they get no answer."""
    async with twin_servers(stocked()) as twins:
        pair = await accepted_pair(twins)
        pair.fast.at_once = pair.plain.at_once = PRODUCT
        await pair.feed(last)

        assert pair.plain_answers == pair.fast_answers
        assert (b"close" in last) == pair.fast.is_closed


# -- keys --------------------------------------------------------------------------------------


@in_virtual_time
async def test_wrong_keys_are_answered_by_aiohttp() -> None:
    """(T1) Every one of them. A right one is fast from its first request on, whatever came before
    it."""
    async with twin_servers(stocked()) as twins:
        pair = twins.connect()
        await pair.feed(*[PRODUCT.replace(b"till-secret", b"guess-%d" % n) for n in range(22)])
        seen = twins.fast.seen
        await pair.feed(PRODUCT, PRODUCT)

        assert pair.plain_answers == pair.fast_answers
        assert 20 == pair.fast.sent.count(b"401 Unauthorized")
        assert 2 == pair.fast.sent.count(b"429 Too Many Requests")
        assert (22, 22) == (seen, twins.fast.seen)


@in_virtual_time
async def test_remembered_fields_accept_no_other_key() -> None:
    """(T1) Other fields on the same connection are checked anew."""
    async with twin_servers(stocked()) as twins:
        pair = await accepted_pair(twins)
        await pair.feed(PRODUCT, PRODUCT)
        for other in ("wrong key", "no key", "no fields", "no fields, another line"):
            await pair.feed(HANDED_OVER[other])

        assert pair.plain_answers == pair.fast_answers
        assert 3 == pair.fast.sent.count(b"HTTP/1.1 200")


# -- limits ------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_idle_connection_is_closed() -> None:
    """(T10) `idle_seconds` count from the last answer, be it fast or aiohttp's."""
    async with memory_server(stocked()) as server:
        wire = server.connect()
        for number in range(10):
            wire.feed(PRODUCT if number % 2 else PRODUCT.replace(b"GET", b"HEAD", 1))
            await asyncio.sleep(60.0)
            assert not wire.is_closed
        await asyncio.sleep(16.0)

        assert wire.is_closed
        assert 5 == server.seen
        assert 10 == wire.sent.count(b"HTTP/1.1 200")


@in_virtual_time
async def test_an_endless_head_ends_a_fast_connection() -> None:
    """(T10) The deadline of a head counts from its first byte, also after fast reads."""
    async with memory_server(stocked(), limits=ConnectionLimits(head_seconds=5.0)) as server:
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
async def test_a_client_that_does_not_read_is_disconnected() -> None:
    """(T10) While it does not read, aiohttp gets its requests and stops reading them; at the
    deadline the connection ends."""
    async with memory_server(stocked(), limits=ConnectionLimits(unread_seconds=5.0)) as server:
        wire = server.connect()
        await wire.deliver(PRODUCT)
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
async def test_a_stop_closes_fast_connections() -> None:
    """Idle ones are closed gracefully; requests that arrive afterwards get no answer."""
    async with memory_server(stocked()) as server:
        idle, busy = server.connect(), server.connect()
        for connection in (idle, busy):
            await connection.deliver(PRODUCT, PRODUCT)
        server.server.pre_shutdown()
        written = len(busy.sent)
        busy.feed(PRODUCT)
        server.limiter.close_idle()

        assert idle.is_closed
        assert written == len(busy.sent)


# -- logs --------------------------------------------------------------------------------------


@in_virtual_time
async def test_every_read_is_logged_at_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    """The plain path then answers, and logs, on connections that were fast before."""
    async with memory_server(stocked()) as server:
        wire = server.connect()
        await wire.deliver(PRODUCT)
        caplog.set_level(logging.DEBUG, middleware.__name__)
        await wire.deliver(PRODUCT, PAGE, LOOKUP)

        assert 3 == len([one for one in caplog.records if one.message == "request answered"])
        assert 3 == server.seen


@in_virtual_time
async def test_a_lookup_is_not_logged_at_level_info(caplog: pytest.LogCaptureFixture) -> None:
    """It is a read, whatever its method, on both paths."""
    caplog.set_level(logging.INFO, middleware.__name__)
    async with twin_servers(stocked()) as twins:
        await (await accepted_pair(twins)).feed(LOOKUP)

        assert [] == caplog.records


@in_virtual_time
async def test_a_defect_of_fast_reads_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once per connection, and the plain path answers."""

    class Broken(FakeStore):
        is_broken = False

        def measure(self) -> Freshness:
            if self.is_broken:
                self.is_broken = False
                raise RuntimeError("a defect")
            return super().measure()

    fake = Broken([product("PROD-001")])
    async with memory_server(fake) as server:
        wire = server.connect()
        await wire.deliver(PRODUCT)
        fake.is_broken = True
        await wire.deliver(PRODUCT, PRODUCT, PRODUCT)

        assert (3, 4) == (server.seen, wire.sent.count(b"HTTP/1.1 200"))
        assert ["a fast read failed; its connection goes on without them"] == [
            one.message for one in caplog.records
        ]
