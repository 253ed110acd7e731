"""Ten thousand long polls at one Central, and how long until each is answered with an event.

    python -m benchmarks.harness.held_polls CENTRAL POLLS ROUNDS

Holds that many polls, each on a connection of its own, and changes one product. Prints, as JSON,
for each round the seconds from sending the change until the last poll has its whole answer. Then
each connection polls on, as a store does.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import orjson
import uvloop

from benchmarks.harness.processes import client
from benchmarks.harness.rows import product_id
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY

WAIT_SECONDS = 60
SETTLE_SECONDS = 0.5
"""Between the last poll that is held and the change, so that their sockets are quiet."""

CONNECT_AT_ONCE = 200
SPARE_FILES = 100


class Poll(asyncio.Protocol):
    """One store's connection. Tells `polls` of each whole answer."""

    def __init__(self, polls: HeldPolls) -> None:
        self._polls = polls
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def ask(self, head: bytes) -> None:
        assert self._transport is not None
        self._received.clear()
        self._transport.write(head)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._polls.answered(bytes(body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._polls.lost()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class HeldPolls:
    """All connections, and how many of them wait for an answer."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._count = count
        self._polls: list[Poll] = []
        self._left = 0
        self._is_over = asyncio.Event()
        self._is_ending = False
        self._last = b""
        self.problem = ""

    async def gather(self) -> None:
        loop = asyncio.get_running_loop()
        where = urlsplit(self._url)
        host, port = where.hostname or "", where.port or 80
        for first in range(0, self._count, CONNECT_AT_ONCE):
            these = range(first, min(self._count, first + CONNECT_AT_ONCE))
            made = [loop.create_connection(self._poll, host, port) for _ in these]
            self._polls += [protocol for _, protocol in await asyncio.gather(*made)]

    def _poll(self) -> Poll:
        return Poll(self)

    def ask(self, offset: int) -> None:
        query = f"/v1/inventory/events?offset={offset}&limit=100&wait={WAIT_SECONDS}"
        head = f"GET {query} HTTP/1.1\r\nHost: central\r\nX-API-Key: {CENTRAL_KEY}\r\n\r\n"
        self._left = len(self._polls)
        self._is_over.clear()
        for poll in self._polls:
            poll.ask(head.encode())

    def answered(self, body: bytes) -> None:
        self._last = body
        self._left -= 1
        if self._left == 0:
            self._is_over.set()

    def lost(self) -> None:
        if not self._is_ending:
            self.problem = "Central closed the connection of a poll"
            self._is_over.set()

    async def over(self) -> int:
        """Wait for all answers; return the offset to ask for next."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._is_over.wait()
        if self.problem:
            raise ConnectionError(self.problem)
        following: int = orjson.loads(self._last)["nextOffset"]
        return following

    def close(self) -> None:
        self._is_ending = True
        for poll in self._polls:
            poll.close()


async def wake(url: str, count: int, rounds: int) -> list[float]:
    polls, took = HeldPolls(url, count), []
    await polls.gather()
    async with client(url, CENTRAL_ADMIN_KEY) as admin:
        page = (await admin.get("/v1/inventory/events?offset=1&limit=1000")).json()
        following = page["nextOffset"]
        for number in range(rounds):
            polls.ask(following)
            await (await admin.get("/health")).aread()  # answered after what was sent before it
            await asyncio.sleep(SETTLE_SECONDS)
            row = {"productId": product_id(0), "available": number}
            began = time.perf_counter()
            changed = asyncio.create_task(
                admin.put("/v1/admin/products/set", json={"products": [row]})
            )
            following = await polls.over()
            took.append(time.perf_counter() - began)
            (await changed).raise_for_status()
    polls.close()
    return took


def allow_files(count: int) -> None:
    """Raises SystemExit if the system does not allow that many open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + SPARE_FILES:
        sys.exit(f"{count} polls need {count + SPARE_FILES} open files, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    url, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    allow_files(count)
    print(orjson.dumps(uvloop.run(wake(url, count, rounds))).decode())


if __name__ == "__main__":
    main()
