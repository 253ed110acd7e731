"""Requests that cost the event loop as much as a client can make them, within every limit.

    python -m tests.campaigns.holding_requests

Each is given to a server in memory as it would arrive from a socket, 256 kB at a time. What is
measured is the processor time of the longest turn, in which nobody else is served. Exits with 1 if
one is longer than 20 ms.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping

from tests.harness.commands import run_to_end
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import head_of
from tests.unit.api.conftest import TILL
from tests.unit.api.twins import memory_server

MOST_SECONDS = 0.020
READ_BYTES = 256_000
"""So much uvloop reads from a socket at a time."""
TRIES = 5

INVENTORY = "/v1/store/inventory"
BODY_BYTES = 256 * 1024


def post(body: bytes, path: str = "updates", **headers: str) -> bytes:
    sent = TILL | {"Content-Type": "application/json"} | headers
    return head_of("POST", f"{INVENTORY}/{path}", sent, body) + body


def filled(first: bytes, piece: Callable[[int], bytes], last: bytes) -> bytes:
    """As many pieces as fit into a body, separated by commas."""
    pieces: list[bytes] = []
    size = len(first) + len(last)
    while size + len(more := piece(len(pieces))) + 1 <= BODY_BYTES:
        pieces.append(more)
        size += len(more) + 1
    return first + b",".join(pieces) + last


def many_fields(count: int, name: str, value: str) -> bytes:
    """A request with as many header fields as the parser takes, without a key."""
    fields = [(name, value)] * count
    return head_of("GET", f"{INVENTORY}", fields, b"")


def chunked(size: int) -> bytes:
    head = head_of("POST", f"{INVENTORY}/updates", TILL | {"Transfer-Encoding": "chunked"}, b"")
    one = b"%x\r\n%b\r\n" % (size, b" " * size)
    return head + one * (BODY_BYTES // size) + b"0\r\n\r\n"


REQUESTS: Mapping[str, bytes] = {
    "names": post(filled(b"{", lambda n: b'"%x":1' % n, b"}")),
    "long names": post(filled(b"{", lambda n: b'"%064x":1' % n, b"}")),
    "names in objects": post(filled(b'{"a":[', lambda n: b'{"a":1,"b":2}', b"]}")),
    "empty objects": post(filled(b'{"updates":[', lambda _: b"{}", b"]}"), "batch-updates"),
    "wrong updates": post(
        filled(b'{"updates":[', lambda n: b'{"delta":0,"x%d":0}' % n, b"]}"), "batch-updates"
    ),
    "100 updates with names": post(
        b'{"updates":['
        + b",".join(
            [b"{" + b",".join(b'"%x":1' % n for n in range(300)) + b"}" for _ in range(100)]
        )
        + b"]}",
        "batch-updates",
    ),
    "empty lists": post(filled(b'{"a":[', lambda _: b"[]", b"]}")),
    "digits": post(filled(b"[", lambda _: b"1", b"]")),
    "numbers for ids": post(filled(b'{"productIds":[', lambda _: b"1", b"]}"), "lookup"),
    "ids": post(filled(b'{"productIds":[', lambda n: b'"%x"' % n, b"]}"), "lookup"),
    "empty texts": post(filled(b'{"productIds":[', lambda _: b'""', b"]}"), "lookup"),
    "a long id": post(b'{"productIds":["%b"]}' % (b"x" * (BODY_BYTES - 20)), "lookup"),
    "commas in a text": post(b'{"a":"%b"}' % (b"," * (BODY_BYTES - 10))),
    "escapes in a text": post(b'{"a":"%b"}' % (rb"\"" * (BODY_BYTES // 2 - 10))),
    "unicode escapes": post(b'{"a":"%b"}' % (rb"\u00e4" * (BODY_BYTES // 6 - 10))),
    "quotes": post(b'"' * BODY_BYTES),
    "backslashes": post(b'["%b"]' % (b"\\" * (BODY_BYTES - 4))),
    "deep": post(b"[" * BODY_BYTES),
    "deep, closed": post(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": post(b'{"a":' * 50_000),
    "a whole number": post(b"9" * BODY_BYTES),
    "a fraction": post(b"0." + b"9" * (BODY_BYTES - 2)),
    "an exponent": post(b"1e" + b"9" * (BODY_BYTES - 2)),
    "many whole numbers": post(filled(b"[", lambda _: b"9" * 4000, b"]")),
    "many fractions": post(filled(b"[", lambda _: b"0." + b"9" * 4000, b"]")),
    "a name twice": post(filled(b"{", lambda n: b'"%x":1' % n, b',"0":1}')),
    "one name": post(filled(b"{", lambda n: b'"a":1', b"}")),
    "white space": post(b" " * BODY_BYTES),
    "chunks of a byte": chunked(1),
    "chunks of ten bytes": chunked(10),
    "commas in Accept": many_fields(120, "Accept", "," * 8000),
    "types in Accept": many_fields(120, "Accept", "application/problem+json;q=0," * 280),
    "commas in Cache-Control": head_of(
        "GET",
        f"{INVENTORY}/PROD-001",
        [*TILL.items(), *[("Cache-Control", "," * 8000)] * 120],
        b"",
    ),
    "tags in If-None-Match": head_of(
        "GET",
        f"{INVENTORY}/PROD-001",
        [*TILL.items(), *[("If-None-Match", '"x",' * 2000)] * 120],
        b"",
    ),
    "commas in If-None-Match": head_of(
        "GET",
        f"{INVENTORY}/PROD-001",
        [*TILL.items(), *[("If-None-Match", '"x"' + ", " * 3900 + ";")] * 120],
        b"",
    ),
    "keys": many_fields(120, "X-API-Key", "x" * 8000),
    "request ids": many_fields(120, "X-Request-ID", "x" * 8000),
    "hosts": head_of("GET", INVENTORY, {"Host": "a" * 8000}, b""),
    "parameters": head_of("GET", f"{INVENTORY}?" + "a&" * 4000, TILL, b""),
    "escapes in a path": head_of("GET", "/" + "%C3%A4" * 1300, TILL, b""),
    "slashes": head_of("GET", "/" * 8000, TILL, b""),
    "slashes below the inventory": head_of("GET", INVENTORY + "/" * 8000, TILL, b""),
    "pipelined reads": head_of("GET", INVENTORY, TILL, b"") * 3500,
    "pipelined refusals": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 9000,
    "pipelined upgrades": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n" * 6000,
    "pipelined upgrades of connections": (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" * 4000
    ),
    "empty lines": b"\r\n" * 128_000,
    "an endless head": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 50_000,
    "an endless field": b"GET / HTTP/1.1\r\nX: " + b"x" * 256_000,
    "no HTTP": b"\x16\x03\x01" * 80_000,
}


async def longest_hold(request: bytes) -> float:
    """Return for how many seconds of processor time the request keeps others from their turn."""
    fake = FakeStore(product(f"PROD-{n:03}") for n in range(1000))
    async with memory_server(fake) as server:
        wire = server.connect()
        for _ in range(20):
            await asyncio.sleep(0)
        longest, began = 0.0, time.thread_time()
        for start in range(0, len(request), READ_BYTES):
            wire.feed(request[start : start + READ_BYTES])
            for _ in range(200):
                await asyncio.sleep(0)
                now = time.thread_time()
                longest, began = max(longest, now - began), now
        wire.abort()
        return longest


def main() -> int:
    only = sys.argv[1:]
    held = {
        name: min(run_to_end(longest_hold(request)) for _ in range(TRIES))
        for name, request in REQUESTS.items()
        if not only or name in only
    }
    for name, seconds in sorted(held.items(), key=lambda each: -each[1]):
        said = "" if seconds <= MOST_SECONDS else "  TOO LONG"
        print(f"{seconds * 1000:8.1f} ms  {name}{said}")
    return 1 if max(held.values()) > MOST_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
