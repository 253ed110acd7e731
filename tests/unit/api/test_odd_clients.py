"""Clients that are rare, odd or gone: each gets an answer or its end, and the log no traceback."""

from __future__ import annotations

import asyncio
import logging

import orjson
import pytest

from tests.harness.fake_store import FakeStore, product
from tests.harness.http import Connection, head_of, until
from tests.harness.virtual_time import in_virtual_time
from tests.unit.api.conftest import TILL, Opened, Store
from tests.unit.api.twins import memory_server

INVENTORY = "/v1/store/inventory"
PRODUCT = f"{INVENTORY}/PROD-001"
UPDATES = f"{INVENTORY}/updates"
SOLD = b'{"productId":"PROD-001","delta":-2,"version":6,"idempotencyKey":"k"}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SOLD), SOLD)
JSON = TILL | {"Content-Type": "application/json"}
SIZED = JSON | {"Content-Length": str(len(SOLD))}
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.exc_info]


# -- clients that are gone ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (SIZED | {"Expect": "100-continue"}, b""),
        (SIZED, SOLD[:9]),
        (JSON | {"Transfer-Encoding": "chunked"}, b"5\r\n{"),
    ],
    ids=["before the 100", "within the body", "within a chunk"],
)
async def test_a_client_that_goes_away_is_no_defect(
    store: Store, caplog: pytest.LogCaptureFixture, headers: dict[str, str], body: bytes
) -> None:
    """A reset connection ends its request without a traceback, and nothing is sold."""
    for _ in range(3):
        line = await store.begin_post(headers, body)
        line.close()
    await until(lambda: store.running.connections == 0)

    assert 200 == (await store.get(PRODUCT)).status
    assert [] == tracebacks(caplog)
    assert [] == store.fake.writes


@pytest.mark.parametrize("key", [{}, TILL], ids=["without a key", "with a key"])
@in_virtual_time
async def test_a_broken_rest_of_a_refused_body_is_no_defect(
    caplog: pytest.LogCaptureFixture, key: dict[str, str]
) -> None:
    """The body of a request that was refused already may be malformed; that is not worth a
    traceback."""
    headers = key | {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}
    async with memory_server(FakeStore([product("PROD-001")])) as server:
        wire = server.connect()
        await wire.deliver(head_of("POST", UPDATES, headers, b""), b"no chunk\r\n")
        await asyncio.sleep(3.0)

    assert (True, 1) == (wire.is_closed, wire.sent.count(b"HTTP/1.1 4"))
    assert [] == tracebacks(caplog)


# -- clients that have said all ----------------------------------------------------------------


async def ask_and_close(store: Store, request: bytes) -> Connection:
    """Send bytes, and close this end's half of the connection."""
    line = await store.line()
    line.writer.write(request)
    line.writer.write_eof()
    return line


@pytest.mark.parametrize("fast", [True, False])
async def test_a_half_closed_connection_gets_its_answers(open_store: Opened, fast: bool) -> None:
    """A client may close its half behind the last request; all are answered, then the connection
    ends."""
    store = await open_store(fast_reads=fast)
    await store.get(PRODUCT)
    read = head_of("GET", PRODUCT, TILL, b"")
    for requests in ([read], [read, read], [read, head_of("POST", UPDATES, SIZED, b"") + SOLD]):
        line = await ask_and_close(store, b"".join(requests))

        assert [200] * len(requests) == [(await line.reply()).status for _ in requests]
        assert b"" == await line.ended()


async def test_a_half_closed_connection_waits_for_central(store: Store) -> None:
    """The answer to a sale may take a while."""
    store.fake.admission.clear()
    line = await ask_and_close(store, head_of("POST", UPDATES, SIZED, b"") + SOLD)
    await store.fake.arrived.wait()
    store.fake.admission.set()

    assert 200 == (await line.reply()).status
    assert b"" == await line.ended()


@pytest.mark.parametrize(
    "request_",
    [
        head_of("POST", UPDATES, SIZED, b"") + SOLD[:9],
        head_of("POST", UPDATES, SIZED | {"Expect": "100-continue"}, b""),
        head_of("POST", UPDATES, JSON | {"Transfer-Encoding": "chunked"}, b"") + b"5\r\n{",
    ],
    ids=["length", "expect", "chunks"],
)
async def test_a_body_that_will_not_be_complete_is_refused_at_once(
    store: Store, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    """Nothing waits for bytes that cannot come any more."""
    line = await ask_and_close(store, request_)
    reply = await line.reply()
    if reply.status == 100:
        reply = await line.reply()

    assert (400, "invalid_request") == (reply.status, reply.code)
    assert "broke off" in reply.json["error"]["message"]
    assert b"" == await line.ended()
    assert [] == tracebacks(caplog)


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_half_a_head_gets_no_answer(store: Store, sent: bytes) -> None:
    """A connection that is closed before a request is complete ends at once."""
    line = await ask_and_close(store, sent)

    assert b"" == await line.ended()


# -- upgrades ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("cut", [None, 0, 40], ids=["whole", "behind the upgrade", "within it"])
@pytest.mark.parametrize("body", [b"", SOLD], ids=["read", "write"])
async def test_a_request_behind_an_upgrade_is_answered(
    open_store: Opened, *, fast: bool, cut: int | None, body: bytes
) -> None:
    """An upgrade is declined by an ordinary answer; what follows it on the connection, in the same
    packet too, is answered after it."""
    store = await open_store(fast_reads=fast)
    await store.get(PRODUCT)
    if body:
        upgrade = head_of("POST", UPDATES, H2C | SIZED, b"") + body
    else:
        upgrade = head_of("GET", PRODUCT, H2C | TILL, b"")
    sent = upgrade + 2 * head_of("GET", PRODUCT, TILL, b"")
    at = len(sent) if cut is None else len(upgrade) - cut
    line = await store.line()
    line.writer.write(sent[:at])
    if at < len(sent):
        await until(lambda: store.running.connections > 0)
        line.writer.write(sent[at:])

    assert [200] * 3 == [(await line.reply()).status for _ in range(3)]
    reply = await line.send("GET", INVENTORY, headers=TILL)
    assert 200 == reply.status


async def test_nothing_hangs_behind_upgrades_among_others(store: Store) -> None:
    """If it is not certain where the upgrade ends, its answer ends the connection."""
    read = head_of("GET", PRODUCT, TILL, b"")
    line = await store.line()
    line.writer.write(read + head_of("GET", PRODUCT, H2C | TILL, b"") + read)

    assert [200, 200] == [(await line.reply()).status for _ in range(2)]
    assert b"" == await line.ended()


async def test_many_requests_behind_an_upgrade_wait_for_it(store: Store) -> None:
    """Nothing more is read until it is answered; then all are, in order."""
    store.fake.admission.clear()
    upgrade = head_of("POST", UPDATES, H2C | SIZED, b"") + SOLD
    line = await store.line()
    line.writer.write(upgrade + 500 * head_of("GET", PRODUCT, TILL, b""))
    await store.fake.arrived.wait()
    store.fake.admission.set()
    replies = [await line.reply() for _ in range(501)]

    assert {200} == {reply.status for reply in replies}
    assert [True, False] == ["newQuantity" in reply.json for reply in replies[:2]]


# -- large and many ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "large",
    [
        head_of("POST", UPDATES, JSON, b" " * 200_000) + b" " * 200_000,
        head_of("POST", UPDATES, JSON | {"Transfer-Encoding": "chunked"}, b"")
        + b"1\r\n \r\n" * 30_000
        + b"0\r\n\r\n",
    ],
    ids=["a body", "chunks of a byte"],
)
async def test_others_get_their_turn(store: Store, large: bytes) -> None:
    """(T10) However much arrives at once on one connection is parsed in parts; a request that
    arrives after it on another one is answered before its end."""
    async with memory_server(store.fake) as server:
        busy, other = server.connect(), server.connect()
        await asyncio.sleep(0)
        busy.feed(large)
        other.feed(head_of("GET", PRODUCT, TILL, b""))
        for _ in range(20):
            await asyncio.sleep(0)

        assert other.sent.startswith(b"HTTP/1.1 200")
        assert b"" == busy.sent
        await until(lambda: busy.sent.startswith(b"HTTP/1.1 400"))


async def test_a_large_body_arrives_whole(store: Store) -> None:
    """A body of many parts is read to its end, whatever is sent behind it."""
    ids = [f"PROD-{number:03}" for number in range(200)]
    body = b'{"productIds":%b,"note":"%b"}' % (orjson.dumps(ids), b"x" * 200_000)
    line = await store.line()
    lookup = head_of("POST", f"{INVENTORY}/lookup", JSON, body) + body
    line.writer.write(lookup + lookup + head_of("GET", PRODUCT, TILL, b""))
    replies = [await line.reply() for _ in range(3)]

    assert [200] * 3 == [reply.status for reply in replies]
    assert [3, 3] == [len(reply.json["products"]) for reply in replies[:2]]


async def test_a_path_of_many_parts_is_refused(store: Store) -> None:
    """(T10) It takes the router long to look at each part, of which no route has many."""
    reply = await store.send("GET", "/" * 31)

    assert (400, "invalid_request") == (reply.status, reply.code)
    assert 404 == (await store.send("GET", "/" * 30)).status


# -- what proxies could understand in another way ----------------------------------------------


@pytest.mark.parametrize(
    "host", ["a b", "a, b", "store/", "user@store", "store:80a", "[::1", "a\tb", "<x>", "%zz", "ä"]
)
async def test_an_invalid_host_is_refused(store: Store, host: str) -> None:
    """(T9) RFC 9112, 3.2: a server must answer 400."""
    line = await store.line()
    line.writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    reply = await line.reply()

    assert (400, ["Host"]) == (reply.status, list(reply.fields))


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: a\r\n"])
async def test_there_is_one_host(store: Store, hosts: bytes) -> None:
    """(T9) A request without `Host`, or with two, is malformed."""
    line = await store.line()
    line.writer.write(b"GET /health HTTP/1.1\r\n" + hosts + b"\r\n")

    assert 400 == (await line.reply()).status


@pytest.mark.parametrize(
    "host", ["", "store", "store:8083", "store:", "127.0.0.1:80", "[::1]", "[fe80::1]:80", "a_b.c"]
)
async def test_a_valid_host_is_of_no_consequence(store: Store, host: str) -> None:
    """Any name leads to the store."""
    line = await store.line()
    line.writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert 200 == (await line.reply()).status


@pytest.mark.parametrize(
    "coding",
    [
        "gzip,chunked",
        "identity, chunked",
        "chunked, chunked",
        "x\r\nTransfer-Encoding: chunked",
    ],
)
async def test_another_transfer_coding_is_refused(store: Store, coding: str) -> None:
    """(T9) [T13] A coding that is not decoded is not passed over either."""
    line = await store.begin_post(TILL | {"Transfer-Encoding": coding}, CHUNKED)

    assert (400, "invalid_request") == ((reply := await line.reply()).status, reply.code)
    assert [] == store.fake.writes


async def test_a_chunked_body_is_read(store: Store) -> None:
    """`Transfer-Encoding: chunked` alone, in any case, is HTTP/1.1."""
    line = await store.begin_post(TILL | {"Transfer-Encoding": "Chunked"}, CHUNKED)

    assert 200 == (await line.reply()).status
    assert [orjson.loads(SOLD)["productId"]] == [one.product_id for one in store.fake.writes]


# -- every answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "request_",
    [
        head_of("GET", PRODUCT, TILL, b""),
        head_of("GET", INVENTORY, TILL, b""),
        head_of("GET", "/health", {}, b""),
        head_of("GET", INVENTORY, {}, b""),
        head_of("POST", UPDATES, SIZED, b"") + SOLD,
        b"no HTTP\r\n\r\n",
    ],
    ids=["product", "page", "health", "error", "write", "malformed"],
)
async def test_no_answer_is_taken_for_another_type(
    open_store: Opened, caplog: pytest.LogCaptureFixture, *, fast: bool, request_: bytes
) -> None:
    """A browser shall not guess a type from what a product says of itself."""
    caplog.set_level(logging.INFO)
    store = await open_store(fast_reads=fast)
    await store.get(PRODUCT)
    line = await store.line()
    line.writer.write(request_)

    assert "nosniff" == (await line.reply()).headers["X-Content-Type-Options"]
