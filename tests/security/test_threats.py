"""Every threat of docs/security.md, carried out on a real store over a real socket.

What is attacked more thoroughly elsewhere is named in the table of that page.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import DOCS, ROOT, section, table_rows
from tests.harness.hostile_central import Attack, Route, json_answer
from tests.harness.http import Connection, Reply
from tests.scenarios.shop import until
from tests.security.conftest import (
    CENTRALS,
    ENDED,
    NEW,
    NOWHERE,
    OFFICE,
    OLD,
    ORIGIN,
    READS,
    TILL,
    AttackedStore,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVENTORY = "/v1/store/inventory"
PRODUCT = f"{INVENTORY}/P-1"
UNSOLD = "P-61"
UPDATES = f"{INVENTORY}/updates"
JSON = {"Content-Type": "application/json"}
KEY = {"X-API-Key": TILL}
MEGABYTE = 1_000_000

OPEN = {
    "/",
    "/console/{name}",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/{name}",
}
SCOPES = {
    ("GET", INVENTORY): "read",
    ("POST", f"{INVENTORY}/lookup"): "read",
    ("GET", f"{INVENTORY}/stream"): "read",
    ("GET", f"{INVENTORY}/dump"): "admin",
    ("GET", f"{INVENTORY}/{{productId}}"): "read",
    ("GET", f"{INVENTORY}/{{productId}}/history"): "read",
    ("GET", "/v1/store/sync/status"): "read",
    ("GET", "/v1/store/cache/stats"): "read",
    ("GET", "/v1/store/metrics/history"): "read",
    ("GET", "/v1/store/writes"): "write",
    ("POST", UPDATES): "write",
    ("POST", f"{INVENTORY}/batch-updates"): "write",
    ("PATCH", f"{INVENTORY}/{{productId}}/inventory"): "write",
    ("POST", "/v1/store/sync/force"): "admin",
    ("POST", "/v1/store/sync/verify"): "admin",
    ("POST", "/v1/store/writes/{idempotencyKey}/settle"): "admin",
}


def sale(key: str, product_id: str = "P-1", delta: int = -1) -> bytes:
    write = {"productId": product_id, "delta": delta, "version": 1, "idempotencyKey": key}
    return json.dumps(write).encode()


async def sell(store: AttackedStore, key: str, **write: Any) -> Reply:
    return await store.send("POST", UPDATES, headers=KEY | JSON, body=sale(key, **write))


def asked(store: AttackedStore, text: str) -> list[str]:
    """The requests to Central with this text in their heads."""
    return [head for head in store.central.asked if text in head]


@asynccontextmanager
async def attacking(store: AttackedStore, route: Route, answer: bytes) -> AsyncIterator[None]:
    """Central gives this answer for as long as the context lasts."""
    store.central.struck = 0
    store.central.attack = Attack("this", {route: lambda _: [answer]})
    try:
        yield
    finally:
        store.central.attack = None


@asynccontextmanager
async def lines(store: AttackedStore, count: int, address: str) -> AsyncIterator[list[Connection]]:
    opened = [await store.line(address) for _ in range(count)]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()


# -- keys --------------------------------------------------------------------------------------


async def test_a_guesser_is_told_nothing_and_is_slowed_down(store: AttackedStore) -> None:
    """One answer to a missing, a wrong and an ended key; from the 21st wrong one of an address on
    429, while a right key is accepted from there."""
    address = "127.0.0.41"
    wrong = [{}, {"X-API-Key": TILL[:-1]}, {"X-API-Key": ENDED}, {"X-API-Key": "\xff"}]
    same = [await store.send("GET", PRODUCT, headers=one, address=address) for one in wrong]
    guesses = [{"X-API-Key": f"guess-{number}"} for number in range(20)]
    more = [await store.send("GET", PRODUCT, headers=one, address=address) for one in guesses]
    right = await store.send("GET", PRODUCT, address=address)

    assert {(401, same[0].body)} == {(reply.status, reply.body) for reply in same}
    assert [401] * 17 + [429] * 3 == [reply.status for reply in more]
    assert 0 < int(more[-1].headers["Retry-After"]) <= 60
    assert 200 == right.status


async def test_a_stolen_key_is_taken_away_while_tills_sell(store: AttackedStore) -> None:
    """A client has two keys; a reload ends one of them, on an open connection too. The log calls
    the client by its name."""
    line = await store.line()
    use = {"X-API-Key": OLD}
    before = await line.send("GET", PRODUCT, headers=use)
    await store.send("GET", f"{INVENTORY}/none", headers={"X-API-Key": NEW})
    store.write_keys(("display", "read", READS), ("till-3", "write", NEW))
    store.process.send_signal(signal.SIGHUP)
    await until(lambda: "reload: done" in store.log.read_text())
    after = await line.send("GET", PRODUCT, headers=use)
    line.close()
    new = await store.send("GET", PRODUCT, headers={"X-API-Key": NEW})

    assert (200, 401, 200) == (before.status, after.status, new.status)
    assert "till-3" in store.log.read_text()


@pytest.mark.parametrize("name", ["X-API-Key", "Idempotency-Key"])
async def test_a_header_that_must_be_one_is_refused_twice(store: AttackedStore, name: str) -> None:
    """Nobody has to guess which of the two counts."""
    target = f"{PRODUCT}/inventory"
    usual = [*KEY.items(), *JSON.items(), ("Idempotency-Key", "twice-1")]
    value = dict(usual)[name]
    body = b'{"quantityChange": -1}'
    reply = await store.send("PATCH", target, headers=[*usual, (name, value)], body=body)

    assert (400, "invalid_request") == (reply.status, reply.code)
    assert [] == asked(store, "twice-1")


async def test_no_key_is_written_or_answered(store: AttackedStore) -> None:
    """Keys are used rightly, wrongly and in wrong places, and Central repeats its own in errors.
    Then they are searched for in answers, status, metrics, log and files."""
    for key in (TILL, OFFICE, CENTRALS):
        await use_everywhere(store, key)
    repeated = json.dumps({"error": f"bad key {CENTRALS}", "message": CENTRALS}).encode()
    for status in (b"401 No", b"400 No", b"500 No"):
        head = b"HTTP/1.1 %s\r\nX-Key: %s\r\nContent-Length: %d\r\n\r\n"
        answer = head % (status, CENTRALS.encode(), len(repeated)) + repeated
        async with attacking(store, Route.UPDATES, answer):
            await sell(store, f"repeated-{status[:3].decode()}")
    for target in ("/health", "/ready", "/metrics", "/openapi.json", "/v1/store/sync/status"):
        await store.send("GET", target)
    files = [path for path in store.data.rglob("*") if path.is_file() and not path.is_symlink()]
    written = {str(path): path.read_bytes() for path in (store.log, *files)}
    replies = [b"%r" % [*reply.headers.items()] + reply.body for reply in store.replies]

    assert len(files) >= 2
    assert len(replies) > 30
    for key in (TILL, OFFICE, CENTRALS):
        assert [] == [path for path, text in written.items() if key.encode() in text]
        assert [] == [reply for reply in replies if key.encode() in reply]


async def use_everywhere(store: AttackedStore, key: str) -> None:
    given = {"X-API-Key": key}
    for target in (INVENTORY, PRODUCT, f"{INVENTORY}/none", "/v1/none", f"{INVENTORY}?limit=0"):
        await store.send("GET", target, headers=given)
    await store.send("POST", "/v1/store/sync/verify", headers=given)
    await store.send("POST", UPDATES, headers=given | JSON, body=sale(f"with-{key[10:19]}"))
    await store.send("POST", UPDATES, headers=given | JSON, body=b'{"productId": 1}')
    await store.send("GET", PRODUCT, headers={"X-API-Key": f"{key} x"})
    await store.send("GET", PRODUCT, headers=[*given.items(), *given.items()])
    await store.send("GET", PRODUCT, headers={"Authorization": f"Bearer {key}"})
    await store.send("GET", f"{INVENTORY}?limit={key}&apiKey={key}")
    await store.send("GET", PRODUCT, headers={**KEY, "X-Request-ID": f"{key} of the till"})
    await store.send("POST", UPDATES, headers=KEY | JSON, body=b'{"apiKey": "%s"}' % key.encode())
    await store.send_raw(
        b"GET %s HTTP/1.1\r\nX-API-Key %s\r\n\r\n" % (PRODUCT.encode(), key.encode())
    )


# -- what becomes a request to Central ---------------------------------------------------------


async def test_a_product_id_leads_nowhere_else(store: AttackedStore) -> None:
    """Whatever the id, the store asks the configured host, below the configured path."""
    for product_id in (
        "../../admin",
        "..",
        "/admin",
        "http://elsewhere/",
        "P-1/../../admin",
        "a\\b",
    ):
        encoded = "".join(f"%{byte:02x}" for byte in product_id.encode())
        body = b'{"quantityChange": -1}'
        headers = KEY | JSON | {"Idempotency-Key": f"travels-{encoded}"}
        replies = [
            await store.send("GET", f"{INVENTORY}/{encoded}"),
            await store.send("GET", f"{INVENTORY}/{product_id}"),
            await store.send(
                "PATCH", f"{INVENTORY}/{encoded}/inventory", headers=headers, body=body
            ),
            await sell(store, f"travels-{encoded}", product_id=product_id),
        ]
        assert all(reply.status < 500 for reply in replies), [reply.body for reply in replies]
    host = f"Host: {store.central.url.removeprefix('http://')}"

    assert asked(store, "POST ")
    for head in store.central.asked:
        target = head.split(" ")[1]
        allowed = r"/chain/v1/(inventory(/[^/]+)*(\?.*)?|stores/store-s1/report)"
        assert re.fullmatch(allowed, target), target
        assert not {".", ".."} & set(target.partition("?")[0].split("/"))
        assert host in head


async def test_central_cannot_send_the_store_elsewhere(store: AttackedStore) -> None:
    """A redirect is a failure of Central: nothing is asked at its target, and no key goes there."""
    visits: list[asyncio.StreamWriter] = []
    trap = await asyncio.start_server(lambda _, writer: visits.append(writer), "127.0.0.1", 0)
    port = trap.sockets[0].getsockname()[1]
    there = b"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n"
    async with trap, attacking(store, Route.UPDATES, there % port):
        reply = await sell(store, "redirected")
        for writer in visits:
            writer.close()

    assert reply.status >= 502
    assert store.central.struck
    assert [] == visits


async def test_a_proxy_of_the_environment_is_not_used(store: AttackedStore) -> None:
    """The store runs with one that nobody answers at, and is in sync for all that."""
    status = await store.send("GET", "/v1/store/sync/status")

    assert NOWHERE == store.environment["HTTP_PROXY"] == store.environment["http_proxy"]
    assert "live" == status.json["state"]["name"]


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a\x7fb"])
async def test_no_header_is_injected_by_a_key_or_an_id(store: AttackedStore, text: str) -> None:
    """What cannot be a key or an id is refused, and Central is not asked."""
    count = len(asked(store, "POST "))
    as_key = await sell(store, text)
    as_id = await sell(store, "injected", product_id=text)

    assert (400, 400) == (as_key.status, as_id.status)
    assert count == len(asked(store, "POST "))
    assert [] == asked(store, "X-Evil")


async def test_no_text_of_a_client_splits_an_answer(store: AttackedStore) -> None:
    """No header of an answer is one that a client wrote into an id, a path or a parameter."""
    evil = "%0d%0aSet-Cookie:%20a=1"
    replies = [
        await store.send("GET", f"{INVENTORY}/x{evil}"),
        await store.send("GET", f"{INVENTORY}?after=x{evil}"),
        await store.send("GET", f"/x{evil}"),
        await store.send("GET", PRODUCT, headers=KEY | {"X-Request-ID": f"x{evil}"}),
        await store.send("GET", PRODUCT, headers=KEY | {"X-Request-ID": "x; a=1"}),
    ]

    assert [] == [reply for reply in replies if "Set-Cookie" in reply.headers]
    for reply in replies:
        assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["X-Request-ID"])


# -- connections -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding:\x0bchunked",
    ],
)
async def test_no_request_is_smuggled(store: AttackedStore, framing: bytes) -> None:
    """A request that can be read in two ways gets one answer, 400, and ends its connection: what
    follows it is not read as another request."""
    head = b"POST %s/lookup HTTP/1.1\r\nHost: store\r\nX-API-Key: %s\r\n%s\r\n\r\n"
    hidden = b"0\r\n\r\nGET %s HTTP/1.1\r\nHost: store\r\nX-API-Key: %s\r\n\r\n"
    path, key = INVENTORY.encode(), TILL.encode()
    answer = await store.send_raw(head % (path, key, framing) + hidden % (path, key))

    assert [b"400"] == re.findall(rb"HTTP/1\.[01] (\d+) ", answer)


@pytest.mark.slow
async def test_slow_and_silent_clients_are_ended_and_hold_nobody_up(store: AttackedStore) -> None:
    """Connections that send nothing end after five seconds; those that send half a head or body
    hold nobody up meanwhile."""
    half = b"GET %s HTTP/1.1\r\nHost: st" % PRODUCT.encode()
    body = b"POST %s HTTP/1.1\r\nHost: store\r\nX-API-Key: %s\r\nContent-Length: 99\r\n\r\n{"
    async with (
        lines(store, 100, "127.0.0.42") as silent,
        lines(store, 100, "127.0.0.43") as with_half_a_head,
        lines(store, 100, "127.0.0.44") as with_half_a_body,
    ):
        for line in with_half_a_head:
            line.writer.write(half)
        for line in with_half_a_body:
            line.writer.write(body % (UPDATES.encode(), TILL.encode()))
        reads = [await store.send("GET", PRODUCT) for _ in range(50)]
        async with asyncio.timeout(10.0):
            ended = [await line.reader.read() for line in silent]

    assert {200} == {reply.status for reply in reads}
    assert {b""} == set(ended)


async def test_a_flood_of_connections_keeps_no_till_out(store: AttackedStore) -> None:
    """At the cap of an address the oldest silent connection makes room; a till's stays."""
    address = "127.0.0.45"
    till = await store.line(address)
    before = await till.send("GET", PRODUCT, headers=KEY)
    async with lines(store, 560, address) as flood:
        new = await store.send("GET", PRODUCT, address=address)
        elsewhere = await store.send("GET", PRODUCT)
        after = await till.send("GET", PRODUCT, headers=KEY)
        oldest = await flood[0].ended()
        is_open = not flood[-1].reader.at_eof()
    till.close()

    assert [200] * 4 == [one.status for one in (before, new, elsewhere, after)]
    assert b"" == oldest
    assert is_open


# -- bodies ------------------------------------------------------------------------------------


def odd_bodies() -> Iterator[tuple[str, bytes, int]]:
    yield "huge", b'{"x": "' + b"x" * 2 * MEGABYTE + b'"}', 413
    yield "deep", b"[" * 3_000, 400
    yield "deeper", b'{"a":' * 40_000, 413
    yield "members", b"{" + b",".join(b'"%d":0' % n for n in range(24_000)) + b"}", 413
    yield "NaN", sale("odd").replace(b"-1", b"NaN"), 400
    yield "infinite", sale("odd").replace(b"-1", b"-1e999"), 400
    yield "long number", sale("odd").replace(b"-1", b"9" * 5000), 400
    yield "duplicate", sale("odd").replace(b'"delta"', b'"delta": 5, "delta"'), 400
    yield "no UTF-8", b'{"productId": "\xff"}', 400
    yield "lone surrogate", sale("odd").replace(b"P-1", b"\\ud800"), 400
    yield "nothing", b"", 400


async def test_odd_json_is_refused_and_costs_nothing(store: AttackedStore) -> None:
    """Each is refused as what it is, Central is not asked, and memory stays."""
    base = store.memory_bytes()
    for name, body, status in odd_bodies():
        count = len(asked(store, "POST "))
        for _ in range(3):
            reply = await store.send("POST", UPDATES, headers=KEY | JSON, body=body)
            assert status == reply.status, (name, reply.body)
        assert count == len(asked(store, "POST ")), name

    assert store.memory_bytes() < base + 32 * MEGABYTE


async def test_a_compressed_body_is_refused(store: AttackedStore) -> None:
    """It is not unpacked, so no small body becomes a large one."""
    for encoding in ("gzip", "deflate", "br", "zstd"):
        headers = KEY | JSON | {"Content-Encoding": encoding}
        reply = await store.send("POST", UPDATES, headers=headers, body=b"\x1f\x8b\x08")
        assert 415 == reply.status


# -- Central -----------------------------------------------------------------------------------


def hostile_feeds() -> Iterator[bytes]:
    usual = {"generation": "g-hostile", "hasMore": False, "nextOffset": 1}
    event = {"offset": 1, "eventType": "product_modified", "productId": UNSOLD, "version": 99}
    yield json_answer(usual | {"events": [1, None, []]})
    yield json_answer(usual | {"events": [event | {"data": {"available": -5, "version": 99}}]})
    yield json_answer(usual | {"events": [event | {"offset": -1}], "nextOffset": -7})
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{"
    yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"[" * MEGABYTE


async def until_shown(store: AttackedStore, product_id: str) -> None:
    """Wait until a read shows what Central has."""

    async def is_shown() -> bool:
        reply = await store.send("GET", f"{INVENTORY}/{product_id}")
        return bool(reply.json == store.central.rows[product_id])

    await until(is_shown, within_seconds=20.0)


async def test_a_hostile_central_changes_nothing(store: AttackedStore) -> None:
    """Whatever its feed says, what it said before is shown, and the store takes no memory. That is
    looked at once the store shows what Central rightly said afterwards."""
    for _ in range(3):  # or event 1 is the one before the position: another one is another feed
        store.central.tell("P-2")
    await until_shown(store, "P-2")
    shown = await store.send("GET", f"{INVENTORY}/{UNSOLD}")
    base = store.memory_bytes()
    for answer in hostile_feeds():
        async with attacking(store, Route.EVENTS, answer):
            await until(lambda: store.central.struck > 0)
        store.central.tell("P-2")
        await until_shown(store, "P-2")
        reply = await store.send("GET", f"{INVENTORY}/{UNSOLD}")
        assert (200, shown.json) == (reply.status, reply.json)

    assert store.memory_bytes() < base + 64 * MEGABYTE


async def test_writes_to_central_are_capped(store: AttackedStore) -> None:
    """Sixty tills sell sixty products at once: Central gets 32 at a time, and each is done."""
    central = store.central
    central.may_answer.clear()
    central.most_writing = 0
    sales = [
        asyncio.create_task(sell(store, f"at-once-{number}", product_id=f"P-{number}"))
        for number in range(1, 61)
    ]
    try:
        await until(lambda: central.writing >= 32)
        for _ in range(10):  # time for more to arrive, if they were sent
            assert 200 == (await store.send("GET", PRODUCT)).status
    finally:
        central.may_answer.set()
    replies = await asyncio.gather(*sales)

    assert {200} == {reply.status for reply in replies}
    assert 32 == central.most_writing


# -- what is written and answered --------------------------------------------------------------


async def test_no_client_writes_a_line_of_the_log(store: AttackedStore) -> None:
    """Each line is JSON of the store's own making; one event has one line."""
    forged = '{"level":"error","message":"forged"}'
    encoded = "%0a" + "".join(f"%{byte:02x}" for byte in forged.encode()) + "%0a"
    await store.send("GET", f"{INVENTORY}/{encoded}")
    await store.send("GET", f"/{encoded}")
    await store.send("GET", f"{INVENTORY}?limit={encoded}")
    await store.send("GET", f"/none?{encoded}", headers={"User-Agent": forged, "X-API-Key": forged})
    await store.send("POST", UPDATES, headers=KEY | JSON, body=sale(f"\n{forged}\n"))
    await store.send_raw(b"GET /\n%s\n HTTP/1.1\r\n\r\n" % forged.encode())
    logged = store.logged()

    assert len(logged) > 5
    assert [] == [line for line in logged if line.get("message") == "forged"]


async def test_a_used_idempotency_key_tells_nothing_of_its_write(store: AttackedStore) -> None:
    """Another body under the same key is 422; the answer shows nothing that the first one wrote or
    was answered, and Central is asked once."""
    first = await sell(store, "order-12345", product_id="P-17", delta=-4321)
    count = len(asked(store, "POST "))
    other = {"X-API-Key": NEW}
    body = sale("order-12345", product_id="P-18")
    second = await store.send("POST", UPDATES, headers=other | JSON, body=body)

    assert (200, 422) == (first.status, second.status)
    assert count == len(asked(store, "POST "))
    for secret in (b"P-17", b"4321", b"newQuantity", TILL.encode()):
        assert secret not in second.body


async def test_other_methods_and_origins_get_nothing(store: AttackedStore) -> None:
    """TRACE and OPTIONS are 405; only pages of the configured origin may read answers."""
    foreign = {"Origin": "https://evil.example.com", "Access-Control-Request-Method": "GET"}
    methods = [await store.send(method, INVENTORY) for method in ("TRACE", "OPTIONS", "DELETE")]
    preflight = await store.send("OPTIONS", INVENTORY, headers=KEY | foreign)
    read = await store.send("GET", PRODUCT, headers=KEY | foreign)
    ours = await store.send("GET", PRODUCT, headers=KEY | {"Origin": ORIGIN})
    allows = "Access-Control-Allow-Origin"

    assert [405] * 4 == [reply.status for reply in (*methods, preflight)]
    assert (None, None) == (preflight.headers.get(allows), read.headers.get(allows))
    assert ORIGIN == ours.headers[allows]


async def test_no_answer_tells_what_the_store_is_made_of(store: AttackedStore) -> None:
    """No version, module or traceback in a header or an error, whatever was sent."""
    for target in ("/", "/none", INVENTORY, f"{INVENTORY}?limit=x", "/health", "/v1/x", "*"):
        for method in ("GET", "POST", "TRACE", "BREW"):
            await store.send(method, target)
            await store.send(method, target, headers={})
    malformed = [
        await store.send_raw(raw + b"\r\n\r\n")
        for raw in (
            b"GET",
            b"\0",
            b"GET / HTTP/9.9",
            b"GET / HTTP/1.1\r\nHost: a b\r\nx",
            b"x" * 9000,
        )
    ]
    told = re.compile(rb"aiohttp|python|uvloop|traceback|\.py\b|line \d+, in ", re.IGNORECASE)
    errors = [reply.body for reply in store.replies if reply.status >= 400]

    assert [] == [reply for reply in store.replies if reply.status == 500]
    assert [] == [text for text in (*errors, *malformed) if told.search(text)]
    assert {"store-cache"} == {
        reply.headers["Server"] for reply in store.replies if "Server" in reply.headers
    }
    assert "Traceback" not in store.log.read_text()


async def test_no_route_lets_a_lower_scope_in(store: AttackedStore) -> None:
    """The routes are those that the running store describes. One that this file does not list
    fails."""
    document = (await store.send("GET", "/openapi.json")).json
    routes = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method in ("get", "post", "put", "patch", "delete") and path not in OPEN
    }
    ranks = {"read": 1, "write": 2, "admin": 3}
    keys = {None: 0, READS: 1, NEW: 2, OFFICE: 3}

    assert set(SCOPES) == routes
    for (method, path), scope in SCOPES.items():
        for key, rank in keys.items():
            headers = {"Accept": "application/json"} | ({} if key is None else {"X-API-Key": key})
            target = path.replace("{productId}", "P-1")
            reply = await head_of_answer(store, method, target, headers)
            expected = 401 if key is None else 403 if rank < ranks[scope] else None
            assert expected == (reply if reply in (401, 403) else None), (method, path, key)


async def head_of_answer(
    store: AttackedStore, method: str, target: str, headers: dict[str, str]
) -> int:
    """The status of an answer, which may go on for ever."""
    line = await store.line()
    given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.writer.write(f"{method} {target} HTTP/1.1\r\nHost: store\r\n{given}\r\n".encode())
    async with asyncio.timeout(5.0):
        status_line = await line.reader.readline()
    line.close()
    return int(status_line.split()[1])


async def test_files_are_the_stores_alone(store: AttackedStore) -> None:
    """The folder was open to all, with a link under a file's name: nobody
    else may write to it, the files are the
    owner's, and what the link leads to is untouched."""
    found = [path for path in store.data.iterdir() if "damaged" not in path.name]
    files = [path for path in found if not path.is_symlink()]
    usual = re.compile(r"lock|admin-token|(snapshot|journal)-\d+\.jsonl(\.new)?")

    assert 0 == stat.S_IMODE(store.data.stat().st_mode) & 0o022
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert [] == [path.name for path in files if not usual.fullmatch(path.name)]
    assert "not the store's" == store.outside.read_text()


# -- what the store is made of -----------------------------------------------------------------


async def test_dependencies_are_pinned_and_audited() -> None:
    """Every requirement of every lock has a hash, and continuous integration audits them."""
    locks = sorted(ROOT.glob("requirements*.lock"))
    pinned = re.compile(
        r"[A-Za-z0-9._-]+==\S+( ; [^\n]+?)? \\\n(    --hash=sha256:[0-9a-f]{64}.*\n?)+"
    )
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]

    assert {"requirements.lock", "requirements-image.lock", "requirements-dev.lock"} <= {
        lock.name for lock in locks
    }
    for lock in locks:
        blocks = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)[1:]
        assert [] == [block for block in blocks if not pinned.fullmatch(block)]
    assert "make audit" in [step.get("run") for step in jobs["audit"]["steps"]]


async def test_the_bill_of_materials_names_each_dependency(tmp_path: Path) -> None:
    """`make sbom` lists what is locked, with versions and hashes. It also checks the list against
    the format's schema, which takes seconds and is left out here."""
    file = tmp_path / "sbom.json"
    recipe = (ROOT / "Makefile").read_text()
    command = re.search(r"\$\(BIN\)/python (-m cyclonedx_py .*?)\n\n", recipe, re.DOTALL)
    assert command
    words = command[1].replace("\\\n", " ").replace("$(SBOM)", str(file)).split()
    program = await asyncio.create_subprocess_exec(
        sys.executable, *words, "--no-validate", cwd=ROOT, stderr=subprocess.DEVNULL
    )
    assert 0 == await program.wait()
    listed = {part["name"]: part for part in json.loads(file.read_text())["components"]}
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, re.MULTILINE))
    hashes = [one for link in listed["aiohttp"]["externalReferences"] for one in link["hashes"]]

    assert locked == {name: part["version"] for name, part in listed.items()}
    assert hashes[0]["content"] in lock


# -- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [400 * 86400.0, -400 * 86400.0])
async def test_the_clock_may_be_set(store: AttackedStore, seconds: float) -> None:
    """By a year forwards and backwards, while requests are under way: none is ended, reads do not
    become stale, and sales are done."""
    line, waiting = await store.line(), await store.line()
    await line.send("GET", PRODUCT, headers=KEY)
    waiting.writer.write(b"GET %s HTTP/1.1\r\n" % PRODUCT.encode())
    store.central.may_answer.clear()
    sold = asyncio.create_task(sell(store, f"at-{seconds}", product_id="P-9"))
    try:
        await until(lambda: store.central.writing == 1)
        store.ahead.write_text(str(seconds))
        read = await line.send("GET", PRODUCT, headers=KEY)
        waiting.writer.write(b"Host: store\r\nX-API-Key: %s\r\n\r\n" % TILL.encode())
        late = await waiting.reply()
        health = await store.send("GET", "/health")
        store.central.may_answer.set()
        assert 200 == (await sold).status
    finally:
        store.central.may_answer.set()
        store.ahead.write_text("0")
        line.close()
        waiting.close()

    assert (200, 200) == (read.status, late.status)
    assert int(read.headers["Age"]) < 60
    checks = health.json["checks"]
    assert {"ok"} == {checks[name]["status"] for name in ("catalogue", "central", "freshness")}


# -- the page ----------------------------------------------------------------------------------


async def test_each_threat_of_the_page_has_its_test() -> None:
    """docs/security.md names a test of this file for each threat, and every test of this file."""
    rows = table_rows(section(DOCS / "security.md", "Threats"))[1:]
    named = {threat: set(re.findall(r"`(test_\w+)`", tests)) for threat, _, tests in rows}
    here = {name for name in globals() if name.startswith("test_")} - {
        test_each_threat_of_the_page_has_its_test.__name__
    }
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert 23 == len(rows)
    assert [] == [threat for threat, tests in named.items() if not tests & here]
    assert set() == here - set().union(*named.values())
    assert [] == [one for tests in named.values() for one in tests if f"def {one}(" not in code]
