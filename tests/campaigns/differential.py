"""Sends the same raw bytes to a store with fast reads and without; the answers must be the same.

    python -m tests.campaigns.differential --requests 40000 --seed 1

One store is served on two ports, over real sockets. Requests are common, odd or malformed, arrive
whole, in parts or several at once, and name tags of earlier answers. Compared are all bytes but
dates and new request ids, and whether the connection stays open. Products and the age of the
catalogue change between rounds, and never between the two answers to a request. A difference is
printed with the bytes that make it; so is a connection that is left without an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import cast

import httpx
import uvloop
from typing_extensions import override

from tests.harness.central import LedgerTransport
from tests.harness.clock import NOON, Clock
from tests.harness.store import RunningStore, a_store, served, settings_of
from tests.unit.api.odd_requests import ODD_IDS, ORIGIN, Odd
from tests.unit.api.twins import without_changing

ROUND_REQUESTS = 250
"""The servers are new after so many requests, so that wrong keys never add up to their limit."""

SETTLED_TURNS = 100
"""So many turns of the event loop without a byte: nothing more is answered for the time being."""

DEADLINE_SECONDS = 5.0
HANGS = "hangs"
"""A connection that neither answers nor closes, though its client sends no more."""

_AGES = (0.0, 0.4, 3.0, 45.0, 4000.0)
_LAST = (
    b"GET /v1/store/inventory/PROD-001 HTTP/1.1\r\nHost: store\r\nX-API-Key: till-secret\r\n"
    b"X-Request-ID: the-last-one\r\n\r\n"
)
_ANSWER_TO_LAST = re.compile(
    rb"X-Request-ID: the-last-one\r\n(?:[^\r]+\r\n)*?Content-Length: ([0-9]+)\r\n"
    rb"(?:[^\r]+\r\n)*\r\n"
)
# The clock of the circuit breaker goes on while that of the store stands.
_MOVING = re.compile(rb'(?<="breakerSince":)"[^"]+"')
_TAG = re.compile(rb"ETag: ([^\r]+)\r\n")


class StillClock(Clock):
    """It stands until the campaign sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    @override
    def steady(self) -> float:
        return NOON + self.at

    @override
    def uptime(self) -> float:
        return self.at


class QuietCentral(LedgerTransport):
    """Answers polls for events only while it `may_tell`, so that nothing else changes the store."""

    def __init__(self, clock: StillClock) -> None:
        super().__init__(clock, *ODD_IDS)
        self.may_tell = asyncio.Event()
        self.may_tell.set()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if "/events" in request.url.path:
            await self.may_tell.wait()
        return response


class Client(asyncio.Protocol):
    """One connection. `received` is all that the server sent."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    @override
    def data_received(self, data: bytes) -> None:
        self.received += data

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    @property
    def is_answered(self) -> bool:
        """Whether the last request was answered, or never will be."""
        last = _ANSWER_TO_LAST.search(self.received)
        return self.is_closed or (
            last is not None and len(self.received) >= last.end() + int(last[1])
        )

    async def send(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            if self.is_closed:
                return
            self.transport.write(chunk)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Wait until nothing more arrives, unless everything is answered before."""
        quiet_turns = 0
        while quiet_turns < SETTLED_TURNS and not self.is_answered:
            before = len(self.received)
            await asyncio.sleep(0)
            quiet_turns = quiet_turns + 1 if len(self.received) == before else 0

    async def end(self) -> bool:
        """Send no more; return whether the server then closes."""
        self.transport.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self.closed.wait()
        return self.is_closed


async def answers(
    port: int, address: str, requests: Sequence[Sequence[bytes]]
) -> tuple[bytes, str]:
    """Send the requests, each in its chunks, on a connection from an address of this machine.

    Return all that was answered, without what differs each time, and what became of the connection.
    """
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, "127.0.0.1", port, local_addr=(address, 0))
    try:
        for chunks in requests:
            await client.send(chunks)
            await client.settle()
        await client.send([_LAST])
        await client.settle()
        became = "closed" if client.is_closed else "open" if client.is_answered else "waits"
        if became == "waits":  # for the rest of a request, of which the last became a part
            became = became if await client.end() else HANGS
        return _MOVING.sub(b"*", without_changing(client.received)), became
    finally:
        client.transport.abort()


@dataclass
class Arrivals:
    """Draws what arrives on connections. `tags` are of answers given before."""

    seed: int
    odd: Odd = field(init=False)
    tags: deque[bytes] = field(default_factory=lambda: deque([b'"x"'], maxlen=40))

    def __post_init__(self) -> None:
        self.odd = Odd(self.seed)

    def next(self) -> list[list[bytes]]:
        """Return the requests of one connection, each in the chunks in which it arrives."""
        drawn = self.odd.requests()
        if self._is(0.1):  # all at once
            drawn = [[b"".join(chunk for chunks in drawn for chunk in chunks)]]
        return [self._cut(self._tagged(b"".join(chunks))) for chunks in drawn]

    def _tagged(self, request: bytes) -> bytes:
        if not self._is(0.15):
            return request
        field = b"\r\nIf-None-Match: %b\r\n" % self.odd.random.choice(self.tags)
        return request.replace(b"\r\n", field, 1)

    def _cut(self, request: bytes) -> list[bytes]:
        if len(request) < 2 or not self._is(0.2):
            return [request]
        most = min(4, len(request) - 1)
        places = self.odd.random.sample(range(1, len(request)), self.odd.random.randint(1, most))
        ends = [0, *sorted(places), len(request)]
        return [request[start:end] for start, end in pairwise(ends)]

    def _is(self, chance: float) -> bool:
        return self.odd.random.random() < chance


@dataclass
class Outcome:
    """What was sent and found. `fast`: how many answers were given without aiohttp. `became`: what
    the connections were in the end."""

    requests: int = 0
    connections: int = 0
    fast: int = 0
    became: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


async def compare(requests: int, seed: int, *, most_differences: int = 5) -> Outcome:
    """Send about so many requests to both, and return what differs."""
    arrivals, outcome = Arrivals(seed), Outcome()
    clock = StillClock()
    central = QuietCentral(clock)
    async with a_store(central=central, cors_origins=ORIGIN) as store:
        await store.until("live")
        while outcome.requests < requests and len(outcome.differences) < most_differences:
            await change(store, central, clock, arrivals.odd.random)
            until = min(requests, outcome.requests + ROUND_REQUESTS)
            await play_round(store, arrivals, outcome, until)
    return outcome


async def change(
    store: RunningStore, central: QuietCentral, clock: StillClock, random: Random
) -> None:
    """Sell a product elsewhere, have the store follow, and let time pass."""
    clock.at += 1.0
    central.may_tell.set()
    central.sell("PROD-001", 1)
    while (position := store.parts.writer.position) is None or (
        position.last_offset < central.ledger.head
    ):
        await store.parts.runner.changed.wait()
    central.may_tell.clear()
    clock.at += random.choice(_AGES)


async def play_round(store: RunningStore, arrivals: Arrivals, outcome: Outcome, until: int) -> None:
    """Send requests to two new servers of the store until there were so many, or one differs."""
    fast, plain = (settings_of(cors_origins=ORIGIN, fast_reads=is_on) for is_on in (True, False))
    async with served(store.parts, fast) as one, served(store.parts, plain) as other:
        found = len(outcome.differences)
        while outcome.requests < until and found == len(outcome.differences):
            await play(one.port, other.port, arrivals, outcome)
        outcome.fast += other._server.requests_count - one._server.requests_count


async def play(fast_port: int, plain_port: int, arrivals: Arrivals, outcome: Outcome) -> None:
    """Send the requests of one connection to both, and note what differs."""
    outcome.connections += 1
    number = outcome.connections
    address = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255 or 1}"
    sent = arrivals.next()
    fast, plain = await asyncio.gather(
        answers(fast_port, address, sent), answers(plain_port, address, sent)
    )
    outcome.requests += len(sent)
    outcome.became[plain[1]] += 1
    arrivals.tags += _TAG.findall(plain[0])
    if fast != plain or fast[1] == HANGS:
        outcome.differences.append(
            f"connection {number} of seed {arrivals.seed}\n  sent  {sent}\n  fast  {fast}\n"
            f"  plain {plain}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    outcome = uvloop.run(compare(options.requests, options.seed))
    for difference in outcome.differences:
        print(difference)
    became = ", ".join(f"{count} {name}" for name, count in sorted(outcome.became.items()))
    print(
        f"{outcome.requests} requests on {outcome.connections} connections (in the end {became}), "
        f"{outcome.fast} answers without aiohttp: {len(outcome.differences)} differences"
    )
    return 1 if outcome.differences else 0


if __name__ == "__main__":
    sys.exit(main())
