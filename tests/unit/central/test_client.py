"""The client against answers that no correct Central gives, and connections that break."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate

import httpx
import orjson
import pytest
import respx

from store_cache.central.client import CentralClient, WriteReply
from store_cache.central.connection import CONNECTIONS, Connection
from store_cache.central.failures import (
    AccessDenied,
    CentralError,
    ExchangeBroken,
    HeldBack,
    LimitExceeded,
    OtherFeed,
    PositionGone,
    RequestRefused,
    Unreachable,
    Unreadable,
    UnsendableId,
    Unsent,
    WriteUnknown,
    WriteUnsent,
)
from store_cache.central.parsing import SUMS_AT_ONCE
from store_cache.central.rate_limit import Priority, RateLimit
from store_cache.central.splitting import ITEMS_AT_ONCE
from store_cache.model.event import Event, QuarantinedEvent
from store_cache.model.pages import BadRow, CataloguePage, PageRequest
from tests.harness.virtual_time import run
from tests.unit.central.server import Server

KEY = "canary-7f3a9"
BASE = "http://central.test:8081/api"
NOW = 1_700_000_000.0

Handler = Callable[[httpx.Request], Awaitable[httpx.Response] | httpx.Response]
Script = list[httpx.Response | Exception]


class Scripted(httpx.AsyncBaseTransport):
    """Answers by `handler`, and records each request and its time."""

    def __init__(self, handler: Handler) -> None:
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.handler = handler

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        await request.aread()
        answer = self.handler(request)
        return answer if isinstance(answer, httpx.Response) else await answer


class Slow(httpx.AsyncByteStream):
    """A body of `start` and `chunks` copies of `chunk`, each after `seconds`."""

    def __init__(
        self, chunk: bytes, *, chunks: int, seconds: float = 0.0, start: bytes = b""
    ) -> None:
        self._chunk, self._chunks, self._seconds = chunk, chunks, seconds
        self._start = start
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._start
        for _ in range(self._chunks):
            await asyncio.sleep(self._seconds)
            self.sent += len(self._chunk)
            yield self._chunk


class Torn(httpx.AsyncByteStream):
    """A body whose connection breaks after the first bytes."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"events'
        raise httpx.ReadError("connection reset")


def in_turn(*script: httpx.Response | Exception) -> Handler:
    """Give each request the next answer or failure, and repeat the last one."""
    left = list(script)

    def answer(_: httpx.Request) -> httpx.Response:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, Exception):
            raise step
        return step

    return answer


def connect(
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    base_url: str = BASE,
    api_key: str = KEY,
    rate_limit: RateLimit | None = None,
    random: float = 1.0,
) -> CentralClient:
    return CentralClient(
        base_url=base_url,
        api_key=api_key,
        rate_limit=rate_limit or RateLimit(),
        random=lambda: random,
        now=lambda: NOW,
        transport=transport,
    )


async def poll(central: CentralClient, wait_seconds: int = 20) -> object:
    return await central.events(offset=7, limit=100, wait_seconds=wait_seconds)


async def read_page(central: CentralClient) -> object:
    return await central.page(PageRequest(0, 200))


async def sell(central: CentralClient) -> object:
    return await central.write(PAYLOAD, deadline_seconds=8)


async def read_product(central: CentralClient) -> object:
    return await central.product("A")


READS = [poll, read_page, read_product]
PRODUCT = {"productId": "A", "name": "N", "available": 3, "version": 2}
PAYLOAD = {"storeId": "s1", "productId": "A", "delta": -1, "version": 2, "idempotencyKey": "s1-k"}
APPLIED = {"productId": "A", "newQuantity": 2, "newVersion": 3, "applied": True}
EMPTY = {"events": [], "nextOffset": 7, "hasMore": False}


def json(value: object, status: int = 200, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.Response(status, json=value, headers=named)


def html(status: int = 200, text: str = "<html>Bad gateway</html>") -> httpx.Response:
    return httpx.Response(status, html=text)


# -- requests ----------------------------------------------------------------------------------


async def test_requests_are_as_central_wants_them() -> None:
    """Each call has its address and parameters, sends the key, and asks for no compression."""
    router = respx.Router(base_url=BASE, assert_all_called=True)
    pages = router.get("/v1/inventory").respond(json=[PRODUCT])
    events = router.get("/v1/inventory/events").respond(json=EMPTY)
    product = router.get("/v1/inventory/A").respond(json=PRODUCT)
    central = connect(httpx.MockTransport(router.async_handler))
    await central.page(PageRequest(400, 200))
    await central.page(PageRequest(400, 200, cursor="a+b/c="))
    await central.events(offset=7, limit=100, wait_seconds=20)
    await central.product("A")

    router.assert_all_called()
    assert [b"offset=400&limit=200", b"cursor=a%2Bb%2Fc%3D&limit=200"] == queries_of(pages)
    assert [b"offset=7&limit=100&wait=20"] == queries_of(events)
    assert [b""] == queries_of(product)
    assert {(KEY, "identity")} == {
        (call.request.headers["X-API-Key"], call.request.headers["Accept-Encoding"])
        for call in router.calls
    }


def queries_of(route: respx.Route) -> list[bytes]:
    return [call.request.url.query for call in route.calls]


async def test_write_is_posted_as_given() -> None:
    """The payload is sent as JSON, unchanged."""
    router = respx.Router(base_url=BASE)
    route = router.post("/v1/inventory/updates").respond(json=APPLIED)
    central = connect(httpx.MockTransport(router.async_handler))
    reply = await central.write(PAYLOAD, deadline_seconds=8)
    sent = route.calls.last.request

    assert WriteReply(200, APPLIED, certain=True) == reply
    assert orjson.dumps(PAYLOAD) == sent.content
    assert "application/json" == sent.headers["Content-Type"]


@pytest.mark.parametrize(
    ("product_id", "path"),
    [
        ("PROD 1/2", b"PROD%201%2F2"),
        ("../admin", b"..%2Fadmin"),
        ("a/../b", b"a%2F..%2Fb"),
        ("...", b"..."),
        (".a", b".a"),
        ("%2e%2e", b"%252e%252e"),
        ("a?b#c&d=e", b"a%3Fb%23c%26d%3De"),
        ("ÄÖ 雪", b"%C3%84%C3%96%20%E9%9B%AA"),
        ("@evil.test", b"%40evil.test"),
        ("\\..\\", b"%5C..%5C"),
        (" ", b"%20"),
        ("~'\"<>{}|^`", b"~%27%22%3C%3E%7B%7D%7C%5E%60"),
    ],
)
async def test_every_id_is_one_segment_of_the_path(product_id: str, path: bytes) -> None:
    """T5: whatever characters an id has, the request goes to its own address."""
    transport = Scripted(lambda _: json({**PRODUCT, "productId": product_id}))
    row = await connect(transport).product(product_id)

    assert row is not None
    assert product_id == row.product_id
    assert b"/api/v1/inventory/" + path == transport.requests[0].url.raw_path
    assert "central.test" == transport.requests[0].url.host


@pytest.mark.parametrize(
    "product_id", ["", ".", "..", "a\r\nX-Evil: 1", "a\0", "\x7f", "\x85", "\ud800", "x" * 70_000]
)
async def test_ids_that_lead_elsewhere_are_not_sent(product_id: str) -> None:
    """T5, T7."""
    transport = Scripted(lambda _: json(PRODUCT))

    with pytest.raises(UnsendableId):
        await connect(transport).product(product_id)

    assert [] == transport.requests


@pytest.mark.parametrize("path", ["/v1/inventory/..", "/v1/./admin", "@evil.test/v1", ".test/v1"])
def test_address_that_is_read_as_another_is_refused(path: str) -> None:
    """T5: host and path of every address are compared with those written."""
    connection = Connection(base_url="http://central", api_key=KEY, transport=None, tls=None)

    with pytest.raises(UnsendableId, match="leads to another address"):
        connection.url(path)


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "é"])
def test_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match=r"CENTRAL_API_KEY must be visible ASCII characters$"):
        connect(api_key=key)


@pytest.mark.parametrize("base_url", ["ftp://central.test", "central.test:8081", "http://"])
def test_invalid_address_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="CENTRAL_API_URL must be an http or https address"):
        connect(base_url=base_url)


# -- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (html(), Unreadable),
        (httpx.Response(200, text=""), Unreadable),
        (httpx.Response(204), Unreadable),
        (json({"error": "down for maintenance"}), Unreadable),
        (json("ok"), Unreadable),
        (json({"code": "unauthorized", "message": "…"}, 401), AccessDenied),
        (html(403), AccessDenied),
        (html(404), RequestRefused),
        (json({"detail": "Not Found"}, 404), RequestRefused),
        (json({"code": "bad_request", "message": "…"}, 400), RequestRefused),
        (httpx.Response(307, headers={"Location": "http://elsewhere.test/"}), RequestRefused),
        (httpx.Response(304), RequestRefused),
        (json({"code": "gone", "message": "…"}, 410), PositionGone),
        (html(500), ExchangeBroken),
        (html(502), ExchangeBroken),
        (json({"code": "busy", "message": "…"}, 503), ExchangeBroken),
        (html(429), LimitExceeded),
    ],
)
async def test_each_answer_is_one_kind_of_error(
    read: Callable[[CentralClient], Awaitable[object]],
    answer: httpx.Response,
    error: type[CentralError],
) -> None:
    """The table in the docstring of the client, for each read."""
    with pytest.raises(CentralError) as caught:
        await read(connect(Scripted(lambda _: answer)))

    assert error is type(caught.value)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), Unreachable),
        (httpx.ConnectTimeout(""), Unreachable),
        (httpx.PoolTimeout(""), HeldBack),
        (httpx.ReadTimeout(""), ExchangeBroken),
        (httpx.WriteTimeout(""), ExchangeBroken),
        (httpx.ReadError(""), ExchangeBroken),
        (httpx.WriteError(""), ExchangeBroken),
        (httpx.RemoteProtocolError("Server disconnected"), ExchangeBroken),
        (httpx.LocalProtocolError(f"Illegal header value b'{KEY}'"), ExchangeBroken),
        (ConnectionResetError(104, "reset"), ExchangeBroken),
        (TimeoutError(110, "timed out"), ExchangeBroken),
    ],
)
async def test_each_failure_says_whether_central_can_have_seen_the_request(
    read: Callable[[CentralClient], Awaitable[object]],
    failure: Exception,
    error: type[CentralError],
) -> None:
    """Only a request that got no connection cannot have reached Central."""
    with pytest.raises(CentralError) as caught:
        await read(connect(Scripted(in_turn(failure))))

    assert error is type(caught.value)
    assert KEY not in str(caught.value)


async def test_only_centrals_own_error_means_absence() -> None:
    """E5: a bare 404 says nothing about the product."""
    absent = json({"code": "not_found", "message": "no such product"}, 404)

    assert await connect(Scripted(lambda _: absent)).product("A") is None

    with pytest.raises(RequestRefused):
        await connect(Scripted(lambda _: html(404))).product("A")


async def test_redirect_is_not_followed() -> None:
    """T6: only the configuration names addresses."""
    moved = httpx.Response(301, headers={"Location": "http://elsewhere.test/v1"})
    transport = Scripted(lambda _: moved)

    with pytest.raises(
        RequestRefused, match="set CENTRAL_API_URL to where it redirects to"
    ) as caught:
        await poll(connect(transport))

    assert ["central.test"] == [request.url.host for request in transport.requests]
    assert 301 == caught.value.status


async def test_unreadable_answer_names_status_and_first_characters() -> None:
    """T15: the message shows that a proxy answered, and the answer cannot forge a log line."""
    page = html(text="<html>\r\nERROR \x1b[31mdisk full" + "x" * 10_000)

    with pytest.raises(Unreadable) as caught:
        await poll(connect(Scripted(lambda _: page)))

    message = str(caught.value)
    assert r"answered 200 about the feed: '<html>\r\nERROR \x1b[31mdisk full" in message
    assert "check that CENTRAL_API_URL" in message
    assert len(message) < 400
    assert message.isprintable()


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_key_that_central_echoes_is_in_no_message(status: int) -> None:
    """T4: a debug page may repeat the request's headers."""
    echo = html(status, f"<pre>X-API-Key: {KEY}</pre>")

    with pytest.raises(CentralError) as caught:
        await poll(connect(Scripted(lambda _: echo)))

    assert "X-API-Key: ***" in str(caught.value)
    assert KEY not in str(caught.value)


async def test_a_refusal_does_not_show_the_key() -> None:
    """What Central says about a write is shown to tills and kept on disk; an id stays as it is."""
    answer = {"productId": KEY, "errorMessage": f"bad key {KEY}", "results": [{"message": KEY}]}
    central = connect(Scripted(lambda _: json(answer, 400)))
    reply = await central.write(PAYLOAD, deadline_seconds=8)

    masked = {"productId": KEY, "errorMessage": "bad key ***", "results": [{"message": "***"}]}
    assert masked == reply.value


async def test_key_is_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """T4: nor in those of the libraries, at any level."""
    for library in ("", "httpx", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=library)
    logging.getLogger("aiohttp.client").debug("this level is heard")
    async with Server(EMPTY_ANSWER) as server:
        central = connect(base_url=server.url)
        await poll(central)
        await central.close()

    assert caplog.records
    assert KEY not in caplog.text


async def test_denied_names_the_setting() -> None:
    """B2."""
    with pytest.raises(AccessDenied, match="set CENTRAL_API_KEY"):
        await poll(connect(Scripted(lambda _: html(401))))


async def test_compressed_answer_is_not_unpacked() -> None:
    """T14: 60 kB can be 64 MB."""
    bomb = httpx.Response(
        200,
        stream=Slow(gzip.compress(b" " * 2**26), chunks=1),
        headers={"Content-Encoding": "gzip"},
    )

    with pytest.raises(Unreadable, match="it is compressed, though the store asks for identity"):
        await poll(connect(Scripted(lambda _: bomb)))


async def test_cookies_are_not_kept() -> None:
    """A hostile Central cannot fill the store's memory with cookies."""
    transport = Scripted(lambda _: json(EMPTY, Set_Cookie="a=b; Path=/"))
    central = connect(transport)
    await poll(central)
    await poll(central)

    assert "Cookie" not in transport.requests[1].headers


@pytest.mark.parametrize("sent", [{"X-Feed-Generation": "g1"}, {"x-feed-generation": "g1"}])
async def test_generation_of_the_header_is_read(sent: dict[str, str]) -> None:
    answer = httpx.Response(200, json=EMPTY, headers=sent)
    page = await connect(Scripted(lambda _: answer)).events(offset=7, limit=1, wait_seconds=0)

    assert "g1" == page.generation


@pytest.mark.parametrize("status", [200, 404])
async def test_product_of_another_generation_is_refused(status: int) -> None:
    """[P1] Neither its row nor its absence says anything about the generation held."""
    body = PRODUCT if status == 200 else {"code": "not_found", "message": "m", "details": []}
    answer = httpx.Response(status, json=body, headers={"X-Feed-Generation": "g2"})
    central = connect(Scripted(lambda _: answer))
    with pytest.raises(OtherFeed, match="new generation 'g2'") as raised:
        await central.product("A", generation="g1")

    assert "g2" == raised.value.generation


@pytest.mark.parametrize(("named", "expected"), [("g1", "g1"), ("g1", None), (None, "g1")])
async def test_product_of_the_same_or_no_generation_is_returned(
    named: str | None, expected: str | None
) -> None:
    """[P1] A generation that is not named cannot be compared."""
    headers = {} if named is None else {"X-Feed-Generation": named}
    answer = httpx.Response(200, json=PRODUCT, headers=headers)
    row = await connect(Scripted(lambda _: answer)).product("A", generation=expected)

    assert row is not None


async def test_a_large_digest_is_read_whatever_digits_its_sums_have() -> None:
    """Sums look like long numbers here and there. Tills are served meanwhile."""
    buckets = 65_536
    sums = ["1234567890" * 3 + "12", f"{2**127:032x}"] * (buckets // 2)
    body = {"nextOffset": 9, "rows": [16] * buckets, "sums": sums}
    central = connect(Scripted(lambda _: json(body)))
    turns = 0

    async def serve() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    serving_tills = asyncio.create_task(serve())
    digest = await central.digest(buckets)
    serving_tills.cancel()

    assert (9, 65_536) == (digest.next_offset, digest.buckets)
    assert [int(sums[0], 16), 2**127] == digest.sums[:2]
    assert turns > buckets // SUMS_AT_ONCE


async def test_large_page_does_not_block_the_loop() -> None:
    """Promise 9: tills are served while a large catalogue is parsed."""
    products = [{**PRODUCT, "productId": f"P{number:05}"} for number in range(5000)]
    central = connect(Scripted(lambda _: json(products)))
    turns = 0

    async def serve() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    serving_tills = asyncio.create_task(serve())
    page = await central.page(PageRequest(0, 1000))
    serving_tills.cancel()

    assert 5000 == len(page.rows)
    assert turns >= 10


# -- deadlines and sizes -----------------------------------------------------------------------


def ends_after(handler: Handler, read: Callable[[CentralClient], Awaitable[object]]) -> float:
    """Return the virtual seconds after which the read fails at its deadline."""

    async def give_up() -> float:
        with pytest.raises(ExchangeBroken, match=r"within [0-9]+ s"):
            await read(connect(Scripted(handler)))
        return asyncio.get_running_loop().time()

    return run(give_up())


async def never(_: httpx.Request) -> httpx.Response:
    await asyncio.sleep(3600)
    raise AssertionError("waited for an hour")


def drip(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, stream=Slow(b" ", chunks=10_000, seconds=1.0))


@pytest.mark.parametrize("handler", [never, drip])
@pytest.mark.parametrize(("read", "seconds"), [(poll, 30), (read_page, 30), (read_product, 5)])
def test_every_exchange_ends(
    handler: Handler, read: Callable[[CentralClient], Awaitable[object]], seconds: float
) -> None:
    """E6: silence and a drip end at the deadline, which for a poll is 10 s after its `wait`."""
    assert pytest.approx(seconds) == ends_after(handler, read)


def test_poll_held_for_the_whole_wait_is_answered() -> None:
    """E6: the deadline is after the end of `wait`."""

    async def hold(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(20)
        return json(EMPTY)

    async def ask() -> float:
        await poll(connect(Scripted(hold)))
        return asyncio.get_running_loop().time()

    assert 20 == pytest.approx(run(ask()))


@pytest.mark.parametrize(
    ("read", "start", "chunk", "reason"),
    [
        (poll, b"", b" " * 2**16, "no list begins"),
        (poll, b'{"events":[', b'{"offset":1},' * 50, "more than 1000 events"),
        (poll, b'{"events":[{"offset":7,"x":[', b"{}," * 2**15, f"{100 * 2**16 + 2**16} bytes"),
        (read_page, b"[", b"{}," * 2**12, "of its products cannot be read"),
        (read_page, b'{"nextCursor":"', b"c" * 2**16, "no list begins"),
        (read_page, b'{"items":[],"x":"', b"c" * 2**16, "beside its list"),
        (read_page, b"[", b"[" * 2**16, "nested too deep"),
        (read_product, b"[", b"{}," * 2**12, f"longer than {96 * 2**10} bytes"),
    ],
)
async def test_endless_answer_is_cut_off(
    read: Callable[[CentralClient], Awaitable[object]], start: bytes, chunk: bytes, reason: str
) -> None:
    """T14: what is read is bounded by what was asked for, also if the answer names no length."""
    endless = Slow(chunk, chunks=10_000, start=start)

    with pytest.raises(Unreadable, match=f"cannot be read: .*{reason}"):
        await read(connect(Scripted(lambda _: httpx.Response(200, stream=endless))))
    assert endless.sent < 10 * 2**20


async def test_answer_that_announces_too_many_bytes_is_not_read() -> None:
    huge = httpx.Response(200, stream=Torn(), headers={"Content-Length": str(10**12)})

    with pytest.raises(Unreadable, match="longer than"):
        await poll(connect(Scripted(lambda _: huge)))


async def test_a_page_larger_than_asked_for_is_read() -> None:
    """Some Centrals have a page size of their own, or send all they have; no other task waits for
    such an answer."""
    rows = [PRODUCT | {"productId": f"P-{number}", "name": "n" * 40} for number in range(20_000)]
    body = orjson.dumps(rows)
    answer = httpx.Response(200, stream=Slow(body, chunks=1))
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            await asyncio.sleep(0)
            steps += 1

    counting = asyncio.create_task(count())
    page = await read_page(connect(Scripted(lambda _: answer)))
    counting.cancel()

    assert isinstance(page, CataloguePage)
    assert page.is_whole
    assert [row["productId"] for row in rows] == page.rows.ids
    assert steps > 20_000 / ITEMS_AT_ONCE


@pytest.mark.parametrize("others", [2, 3000], ids=["parsed at once", "split"])
async def test_a_row_too_large_is_named_and_the_others_are_read(others: int) -> None:
    """F5: it is set aside like one that cannot be read."""
    large = [PRODUCT | {"productId": f"L-{size}", "name": "n" * size} for size in (70_000, 200_000)]
    rows = [PRODUCT | {"productId": f"P-{n}", "description": "d" * 200} for n in range(others)]
    answer = {"products": [rows[0], *large, *rows[1:]], "total": others + 2}
    page = await read_page(connect(Scripted(lambda _: json(answer))))

    assert isinstance(page, CataloguePage)
    assert [row["productId"] for row in rows] == page.rows.ids
    assert (others + 2, True) == (page.total, page.has_more is None)
    reason = "it has more than the 65536 bytes of a row"
    assert (BadRow("L-70000", reason), BadRow("L-200000", reason)) == page.bad_rows


@pytest.mark.parametrize("size", [70_000, 200_000, 10_000_000])
async def test_an_event_too_large_is_quarantined_and_the_others_are_read(size: int) -> None:
    """E5: with its offset and product. The same event has the same fingerprint alone and among
    others, or the feed would be taken for another one (E4)."""
    told = [
        {
            "offset": offset,
            "eventType": "product_modified",
            "data": PRODUCT | {"version": offset, "name": "n" * (size if offset == 9 else 1)},
            "productId": "A",
            "version": offset,
        }
        for offset in range(7, 12)
    ]
    central = connect(Scripted(in_turn(json({"events": told}), json({"events": [told[2]]}))))
    page = await central.events(offset=7, limit=200, wait_seconds=0)
    alone = await central.events(offset=9, limit=200, wait_seconds=0)

    assert [7, 8, 9, 10, 11] == [event.offset for event in page.events]
    large = page.events[2]
    assert isinstance(large, QuarantinedEvent)
    assert ("A", "it has more than the 65536 bytes of a row") == (large.product_id, large.reason)
    assert [large.fingerprint] == [event.fingerprint for event in alone.events]
    assert all(isinstance(event, Event) for event in page.events if event is not large)


async def test_an_event_has_the_same_fingerprint_in_a_long_answer() -> None:
    """E4: and names the same write, though less of it is kept."""
    told = [
        {
            "offset": offset,
            "eventType": "product_modified",
            "data": PRODUCT | {"version": offset, "text": "t" * 3000},
            "productId": "A",
            "version": offset,
            "storeId": "s1",
            "idempotencyKey": f"s1-{offset}",
        }
        for offset in range(1, 100)
    ]
    central = connect(Scripted(in_turn(json({"events": told}), json({"events": told[-1:]}))))
    last = (await central.events(offset=1, limit=100, wait_seconds=0)).events[-1]
    [alone] = (await central.events(offset=99, limit=1, wait_seconds=0)).events

    assert isinstance(last, Event)
    assert isinstance(alone, Event)
    assert (last.fingerprint, last.write) == (alone.fingerprint, alone.write)
    assert last._replace(raw=None) == alone._replace(raw=None)


async def test_of_a_long_error_the_status_counts() -> None:
    """Whatever a proxy says beside it."""
    page = httpx.Response(503, stream=Slow(b"<p>", chunks=100_000), headers={"Retry-After": "7"})

    with pytest.raises(ExchangeBroken) as caught:
        await poll(connect(Scripted(lambda _: page)))

    assert (503, 7.0) == (caught.value.status, caught.value.retry_after_seconds)


async def test_an_answer_to_a_write_of_many_values_is_not_parsed() -> None:
    """T14: whether the write was applied is then unknown."""
    soup = httpx.Response(200, content=b"[" + b"{}," * 21_000 + b"{}]")

    with pytest.raises(WriteUnknown, match="may have been applied"):
        await connect(Scripted(lambda _: soup)).write(
            {"storeId": "s1", "updates": [PAYLOAD] * 10}, deadline_seconds=8
        )


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, stream=Torn()),
        httpx.Response(200, stream=Slow(b"[]", chunks=1), headers={"Content-Length": "400"}),
    ],
)
async def test_cut_answer_is_a_broken_exchange(answer: httpx.Response) -> None:
    """Even if the part that arrived is valid JSON."""
    with pytest.raises(ExchangeBroken):
        await read_page(connect(Scripted(lambda _: answer)))


# -- the rate limit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "7", "X-RateLimit-Reset": "30"}, 7.0),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "30"}, 30.0),
        ({"Retry-After": formatdate(NOW + 12, usegmt=True)}, 12.0),
        ({"X-RateLimit-Reset": "30"}, 30.0),
        ({"X-RateLimit-Reset": str(int(NOW) + 25)}, 25.0),
        ({"X-RateLimit-Reset": str(int(NOW + 25) * 1000)}, 25.0),
        ({"X-RateLimit-Reset": str(int(NOW) + 86_400)}, 300.0),
        ({"Retry-After": "999999999"}, 300.0),
        (
            {
                "Retry-After": formatdate(NOW + 7212, usegmt=True),
                "Date": formatdate(NOW + 7200, usegmt=True),
            },
            12.0,
        ),
        ({}, 1.0),
        ({"Retry-After": "0"}, 1.0),
        ({"Retry-After": "-5"}, 1.0),
        ({"Retry-After": "nan"}, 1.0),
        ({"Retry-After": "1e9"}, 1.0),
        ({"Retry-After": "9" * 400}, 1.0),
        ({"Retry-After": formatdate(NOW - 60, usegmt=True)}, 1.0),
        ({"Retry-After": "Mon, 99 Foo 2024 25:00:00 GMT"}, 1.0),
        ({"X-RateLimit-Reset": str(int(NOW) - 60)}, 1.0),
    ],
)
def test_429_names_its_end_in_many_ways(headers: dict[str, str], seconds: float) -> None:
    """B1: seconds, a date, a moment or nothing, compared with Central's own clock."""

    async def ask() -> float:
        with pytest.raises(LimitExceeded) as caught:
            await poll(connect(Scripted(lambda _: httpx.Response(429, headers=headers))))
        return caught.value.retry_after_seconds

    assert seconds == pytest.approx(run(ask()))


def test_nothing_is_sent_until_a_limit_ends() -> None:
    """B1: all reads share the limit; they fail at once and do not wait."""

    async def ask() -> tuple[list[float], list[float]]:
        transport = Scripted(in_turn(httpx.Response(429, headers={"Retry-After": "7"}), json([])))
        central = connect(transport)
        waits = []
        for read in READS:
            with pytest.raises(LimitExceeded) as caught:
                await read(central)
            waits.append(caught.value.retry_after_seconds)
            await asyncio.sleep(1)
        await asyncio.sleep(4)
        await read_page(central)
        return waits, transport.times

    waits, times = run(ask())

    assert [7, 6, 5] == waits
    assert [0, 7] == times


@pytest.mark.parametrize(("named", "seconds"), [({"Retry-After": "9"}, 9.0), ({}, None)])
async def test_503_carries_its_retry_after(named: dict[str, str], seconds: float | None) -> None:
    """B1: it is the least wait before the next request."""
    with pytest.raises(ExchangeBroken) as caught:
        await poll(connect(Scripted(lambda _: httpx.Response(503, headers=named))))

    assert (503, seconds) == (caught.value.status, caught.value.retry_after_seconds)


# -- writes ------------------------------------------------------------------------------------

LIMITED = httpx.Response(429, headers={"Retry-After": "3"})
REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
RESET = httpx.ReadError("reset")
CONFLICT = {"productId": "A", "applied": False, "errorType": "version_conflict", "newVersion": 9}


def write(*script: httpx.Response | Exception) -> tuple[WriteReply | CentralError, list[float]]:
    """Send a write in virtual time; return its result, and when its attempts were sent."""

    async def send() -> tuple[WriteReply | CentralError, list[float]]:
        transport = Scripted(in_turn(*script))
        result: WriteReply | CentralError
        try:
            result = await connect(transport).write(PAYLOAD, deadline_seconds=8)
        except CentralError as exc:
            result = exc
        assert {orjson.dumps(PAYLOAD)} == {request.content for request in transport.requests}
        return result, transport.times

    return run(send())


@pytest.mark.parametrize(
    ("script", "certain", "times"),
    [
        ([json(APPLIED)], True, [0]),
        ([REFUSED, json(APPLIED)], True, [0, 0.1]),
        ([REFUSED, REFUSED, REFUSED, json(APPLIED)], True, [0, 0.1, 0.3, 0.7]),
        ([LIMITED, json(APPLIED)], True, [0, 3.1]),
        ([RESET, json(APPLIED)], False, [0, 0.1]),
        ([html(502), json(APPLIED)], False, [0, 0.1]),
        ([html(503), json(APPLIED)], False, [0, 0.1]),
        ([httpx.Response(503, headers={"Retry-After": "2"}), json(APPLIED)], False, [0, 2.1]),
        ([html(504), json(APPLIED)], False, [0, 0.1]),
        ([html(504), REFUSED, LIMITED, json(APPLIED)], False, [0, 0.1, 0.3, 3.7]),
        ([httpx.Response(200, stream=Torn()), json(APPLIED)], False, [0, 0.1]),
    ],
)
def test_write_is_repeated_where_that_can_help(
    script: Script, certain: bool, times: list[float]
) -> None:
    """W2: with the same bytes; the reply says whether an earlier attempt may have arrived."""
    result, sent_at = write(*script)

    assert WriteReply(200, APPLIED, certain=certain) == result
    assert pytest.approx(times) == sent_at


@pytest.mark.parametrize("status", [200, 400, 404, 409, 410, 422])
def test_refusal_is_returned_and_not_repeated(status: int) -> None:
    """W2, W3: the caller judges what it proves."""
    result, sent_at = write(json(CONFLICT, status))

    assert WriteReply(status, CONFLICT, certain=True) == result
    assert [0] == sent_at


@pytest.mark.parametrize(
    "answer",
    [
        html(),
        html(404),
        html(401),
        html(403),
        html(500),
        json({"errorType": "internal_error"}, 500),
        json(APPLIED, 501),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "/login"}),
        httpx.Response(200, content=b'{"applied": tr'),
        httpx.Response(200, stream=Slow(b"{}", chunks=1), headers={"Content-Encoding": "gzip"}),
    ],
)
def test_write_with_any_other_answer_is_unknown_at_once(answer: httpx.Response) -> None:
    """W3: an HTML page, a 5xx or a cut body proves nothing; only the same key can tell."""
    result, sent_at = write(answer)

    assert WriteUnknown is type(result)
    assert "the write may have been applied" in str(result)
    assert [0] == sent_at


def test_denied_write_names_the_key() -> None:
    """B2: a 401 in Central's own words says that nothing was done."""
    result, _ = write(json({"code": "unauthorized", "message": "…"}, 401))

    assert AccessDenied is type(result)


def test_denied_after_a_lost_attempt_is_unknown() -> None:
    """W3: the key may have been withdrawn after the first attempt was applied."""
    result, _ = write(RESET, json({"code": "unauthorized", "message": "…"}, 401))

    assert WriteUnknown is type(result)
    assert "CENTRAL_API_KEY" in str(result)


def test_write_without_a_connection_is_unsent() -> None:
    """W3: no attempt can have reached Central; the last one begins before the deadline."""
    result, sent_at = write(REFUSED)

    assert isinstance(result, WriteUnsent)
    assert result.retry_after_seconds is None
    assert "check that it runs" in str(result)
    assert 6 < sent_at[-1] < 8


def test_write_behind_a_long_limit_fails_at_once() -> None:
    """W3: a till does not wait for what cannot come within the deadline."""

    async def send() -> tuple[list[float], float | None, float]:
        transport = Scripted(in_turn(httpx.Response(429, headers={"Retry-After": "60"})))
        with pytest.raises(WriteUnsent) as unsent:
            await connect(transport).write(PAYLOAD, deadline_seconds=8)
        ended_at = asyncio.get_running_loop().time()
        return transport.times, unsent.value.retry_after_seconds, ended_at

    assert ([0], 60, 0) == run(send())


def test_repeats_of_a_write_are_jittered() -> None:
    """W2: the tills of a chain must not come back all at the same moment."""

    async def send(random: float) -> list[float]:
        transport = Scripted(in_turn(REFUSED, REFUSED, json(APPLIED)))
        await connect(transport, random=random).write(PAYLOAD, deadline_seconds=8)
        return transport.times

    assert pytest.approx([0, 0.05, 0.15]) == run(send(0.5))
    assert [0, 0, 0] == run(send(0.0))


def test_limit_after_a_lost_attempt_is_unknown() -> None:
    result, _ = write(RESET, httpx.Response(429, headers={"Retry-After": "60"}))

    assert WriteUnknown is type(result)


@pytest.mark.parametrize("handler", [never, drip])
def test_write_without_an_answer_is_unknown_at_its_deadline(handler: Handler) -> None:
    """W3: one deadline covers all attempts and waits."""

    async def send() -> float:
        with pytest.raises(WriteUnknown, match="within 8 s"):
            await connect(Scripted(handler)).write(PAYLOAD, deadline_seconds=8)
        return asyncio.get_running_loop().time()

    assert 8 == pytest.approx(run(send()))


def test_write_waits_for_a_limit_within_its_deadline() -> None:
    """F6: a write waits for the end of a pause, if that is before its deadline."""

    async def send() -> list[float]:
        transport = Scripted(lambda _: json(APPLIED))
        rate_limit = RateLimit()
        rate_limit.limited(0.0, 4.0)
        reply = await connect(transport, rate_limit=rate_limit).write(PAYLOAD, deadline_seconds=8)
        assert reply.certain
        return transport.times

    assert [4.1] == pytest.approx(run(send()))


async def test_what_kept_a_write_from_central_is_told() -> None:
    """W4: a refused connection, Central's limit, or a limit that the store keeps to by itself."""
    now = asyncio.get_running_loop().time()
    kept = RateLimit()
    kept.limited(now, 30.0)
    refused = Scripted(in_turn(*[httpx.ConnectError("refused")] * 3))
    limited = Scripted(lambda _: httpx.Response(429, headers={"Retry-After": "30"}))
    causes = []
    for transport, rate_limit in ((refused, None), (limited, None), (limited, kept)):
        client = connect(transport, rate_limit=rate_limit or RateLimit())
        with pytest.raises(WriteUnsent) as caught:
            await client.write(PAYLOAD, deadline_seconds=0.01)
        causes.append(caught.value.cause)

    assert [Unsent.REFUSED, Unsent.LIMITED, Unsent.HELD_BACK] == causes


async def test_the_exchange_that_ended_last_says_whether_central_answers() -> None:
    """B4: of any kind; refusals are answers, and limits say nothing."""
    answers: list[httpx.Response | Exception] = [
        json(EMPTY),
        httpx.Response(503),
        httpx.Response(429),
        json(APPLIED),
        httpx.ConnectError("refused"),
        httpx.Response(410),
    ]
    refused: list[str] = []
    client = connect(Scripted(in_turn(*answers)))
    client.on_refused_connection = lambda: refused.append(client.problem)
    problems = []
    for exchange in (poll, read_page, poll, sell, poll, poll):
        with suppress(CentralError):
            await exchange(client)
        client.rate_limit = RateLimit()
        problems.append(client.problem)

    assert ["", True, True, "", True, ""] == [problem and True for problem in problems]
    assert "answered 503 about the catalogue" in problems[1]
    assert refused == [problems[4]]


# -- over a real network -----------------------------------------------------------------------

EMPTY_JSON = orjson.dumps(EMPTY)
EMPTY_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(EMPTY_JSON), EMPTY_JSON)


async def test_cancelled_polls_free_their_connections() -> None:
    """Also if more polls are cancelled than there are connections."""
    polls = CONNECTIONS + 5
    async with Server(*[None] * polls, EMPTY_ANSWER) as server, asyncio.timeout(20):
        central = connect(base_url=server.url)
        for _ in range(polls):
            held = asyncio.create_task(poll(central))
            await server.asked.wait()
            server.asked.clear()
            held.cancel()
            with pytest.raises(asyncio.CancelledError):
                await held
        await poll(central)
        await central.close()


async def test_connection_is_kept_between_requests() -> None:
    """A new one for each poll would cost a round trip, and more with TLS."""
    async with Server(*[EMPTY_ANSWER] * 3) as server:
        central = connect(base_url=server.url)
        for _ in range(3):
            await poll(central)
        await central.close()

    assert 1 == server.connections


async def test_closed_port_is_unreachable() -> None:
    async with Server() as server:
        central = connect(base_url=server.url)

    with pytest.raises(Unreachable, match="cannot be reached"):
        await poll(central)
    await central.close()


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """T6."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with Server(EMPTY_ANSWER) as server:
        central = connect(base_url=server.url)
        await poll(central)
        await central.close()

    assert 1 == server.connections


@pytest.mark.parametrize("priority", [Priority.PAGES, Priority.FEED])
async def test_reads_beyond_the_limit_are_not_sent(priority: Priority) -> None:
    """F6: each read counts against the share of its priority."""
    rate_limit = RateLimit()
    now = asyncio.get_running_loop().time()
    for _ in range(101):
        rate_limit.sent(Priority.WRITES, now - 59)
    rate_limit.limited(now - 58, 1.0)
    transport = Scripted(lambda _: json([]))
    read = read_page if priority is Priority.PAGES else poll

    with pytest.raises(LimitExceeded, match="the store keeps to the limit"):
        await read(connect(transport, rate_limit=rate_limit))

    assert [] == transport.requests


async def test_limit_that_an_answer_names_holds_for_the_next_request() -> None:
    """F6: no refusal is needed. Pages are spaced from the second one on."""
    transport = Scripted(lambda _: json([], X_RateLimit_Limit="60"))
    central = connect(transport)
    await read_page(central)
    await read_page(central)

    with pytest.raises(LimitExceeded, match="the store keeps to the limit"):
        await read_page(central)

    assert 60 == central.rate_limit.limit
    assert 2 == len(transport.requests)
