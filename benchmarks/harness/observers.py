"""Programs that change products at Central, and programs that see it. Each is told its part:

    change CENTRAL COUNT    change COUNT products, 200 a second
    read STORE COUNT        read them at a store until all are changed
    poll CENTRAL COUNT      follow the feed as a bare long-poll client

    python -m benchmarks.harness.observers change http://127.0.0.1:8081 1000

A changed row carries the moment at which its change was sent to Central, by the clock that all
processes of a machine share. So a latency includes the way into Central for both observers. Each
program prints `ready`, then its latencies in milliseconds as JSON.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import orjson
import uvloop

from benchmarks.harness.processes import KEY, client
from benchmarks.harness.rows import product_id
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY

CHANGES_A_SECOND = 200
PRODUCTS = 1_000
PAGE_ROWS = 20
READ_PAUSE_SECONDS = 0.0002
"""Between two reads that found nothing new: a till does not take the store's whole core."""
PATIENCE_SECONDS = 30.0
STAMP = "changedAt"


class Asking(Protocol):
    """A connection to a program that answers with JSON."""

    def ask(self, method: str, path: str, body: bytes = b"") -> Any: ...


class Connection:
    """One connection, one exchange at a time, with as little overhead as possible."""

    def __init__(self, url: str, key: str) -> None:
        host = urlsplit(url).netloc
        self._head = f"Host: {host}\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        address = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
        self._socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        """Return the answer's JSON. Raises ConnectionError for a status other than 200."""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        return orjson.loads(self._answer())

    def _answer(self) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"answered {head[:40]!r}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._receive()
        return body

    def _receive(self) -> bytes:
        if not (data := self._socket.recv(65_536)):
            raise ConnectionError("closed in the middle of an answer")
        return data


def now_ms() -> float:
    return time.monotonic_ns() / 1e6


def ready() -> None:
    print("ready", flush=True)


def change(url: str, count: int) -> list[float]:
    """Change the products one by one at random moments; return how long each answer took."""
    central = Connection(url, CENTRAL_ADMIN_KEY)
    moments = random.Random(3)
    took, due = [], now_ms()
    ready()
    for number in range(count):
        due += moments.expovariate(CHANGES_A_SECOND) * 1000
        time.sleep(max(0.0, due - now_ms()) / 1000)
        began = now_ms()
        row = {"productId": product_id(number % PRODUCTS), "available": number, STAMP: began}
        central.ask("PUT", "/v1/admin/products/set", orjson.dumps({"products": [row]}))
        took.append(now_ms() - began)
    return took


def read(url: str, count: int) -> list[float]:
    """Read the products in the order of their changes, until all changes are seen."""
    store = Connection(url, KEY)
    seen = now_ms()
    latencies: list[float] = []
    ready()
    while len(latencies) < count:
        stamps = read_newer(store, len(latencies) % PRODUCTS, seen)
        found = now_ms()
        latencies += [found - stamp for stamp in stamps]
        seen = stamps[-1]
    return latencies[:count]


def read_newer(store: Asking, number: int, than: float) -> list[float]:
    """Read a page from that product on until its first row carries a later moment than that one.

    Returns the moments of all rows that follow in order: a reader that was held up sees several at
    once.
    """
    limit = min(PAGE_ROWS, PRODUCTS - number)
    path = f"/v1/store/inventory?offset={number}&limit={limit}"
    deadline = now_ms() + PATIENCE_SECONDS * 1000
    while now_ms() < deadline:
        rows = store.ask("GET", path)["products"]
        if stamps := rising([row.get(STAMP, 0.0) for row in rows], than):
            return stamps
        time.sleep(READ_PAUSE_SECONDS)
    raise TimeoutError(f"{product_id(number)} was not seen to change in {PATIENCE_SECONDS} s")


def rising(stamps: list[float], than: float) -> list[float]:
    """Return those at the beginning that are each later than the one before."""
    pairs = zip(stamps, [than, *stamps], strict=False)
    return [own for own, _ in takewhile(lambda pair: pair[0] > pair[1], pairs)]


async def poll(url: str, count: int) -> list[float]:
    """Follow the feed as a ten-line client does; return when each event was parsed."""
    latencies: list[float] = []
    async with client(url, CENTRAL_KEY) as central:
        offset = orjson.loads((await central.get("/v1/inventory?limit=1")).content)["eventOffset"]
        offset += 1  # it names the last event
        ready()
        while len(latencies) < count:
            page = await next_page(central, offset)
            latencies += [now_ms() - event["data"][STAMP] for event in page["events"]]
            offset = page["nextOffset"]
    return latencies


async def next_page(central: httpx.AsyncClient, offset: int) -> Any:
    answer = await central.get(f"/v1/inventory/events?offset={offset}&limit=100&wait=20")
    return orjson.loads(answer.raise_for_status().content)


def poll_on_uvloop(url: str, count: int) -> list[float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(poll(url, count))


PARTS: dict[str, Callable[[str, int], list[float]]] = {
    "change": change,
    "read": read,
    "poll": poll_on_uvloop,
}

if __name__ == "__main__":
    print(orjson.dumps(PARTS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))).decode())
