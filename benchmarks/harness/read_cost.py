"""What the answer to a read costs by itself, without a connection: how long, and where.

It calls the fast read path directly, without sockets and from one caller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice

from benchmarks.harness.cache import as_served, catalogue_of
from benchmarks.harness.processes import KEY
from benchmarks.harness.profiling import profiled, shares_table
from benchmarks.harness.results import Text
from store_cache.api.auth import Authenticator, KeyRing
from store_cache.api.content.freshness import Freshness
from store_cache.api.cors import Cors
from store_cache.api.fast.reads import FastConnection, FastReads
from store_cache.api.wrong_keys import WrongKeys
from store_cache.catalogue.catalogue import Catalogue

ADDRESS = "127.0.0.1"
ANSWERS = 100_000
PROFILED = 20_000
FRESHNESS = Freshness(1, "g-bench", 1.0, False, True, "2026-01-15T10:30:00.000Z")


def asked(line: str, *, body: str = "") -> bytes:
    """A request as wrk sends it."""
    head = f"{line} HTTP/1.1\r\nHost: {ADDRESS}:8083\r\nX-API-Key: {KEY}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()


class Store:
    """The parts of a store that holds a catalogue, as far as reads use them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.writer = self.freshness = self
        self.catalogue = catalogue
        self.pending = None  # no sale waits in an outbox

    def measure(self) -> Freshness:
        return FRESHNESS


def connection_of(catalogue: Catalogue) -> FastConnection:
    authority = Authenticator(KeyRing(keys=[KEY]), WrongKeys())
    return FastConnection(FastReads(Store(catalogue), authority, Cors([])))  # type: ignore[arg-type]


async def measure_answers(products: int, kinds: Mapping[str, Sequence[bytes]]) -> Text:
    """`kinds`: by their name, requests as they come on a connection."""

    async def work() -> list[str]:
        catalogue = catalogue_of(products)
        return [await of_kind(connection_of(catalogue), *kind) for kind in kinds.items()]

    about = (
        "What of it is the answer itself, from the bytes of the request to those of the answer, "
        "without connection, system calls and whoever asks; and where that goes, by Python's "
        "profiler (which makes Python calls dearer than they are):"
    )
    return Text(text="\n\n".join([about, *await as_served(work)]))


async def of_kind(connection: FastConnection, name: str, requests: Sequence[bytes]) -> str:
    many, some = islice(cycle(requests), ANSWERS), islice(cycle(requests), PROFILED)
    began = time.thread_time()
    for request in many:
        assert connection.answer(request) is not None
    micros = (time.thread_time() - began) / ANSWERS * 1e6

    async def answer_some() -> None:
        for request in some:
            connection.answer(request)

    shares = await profiled(answer_some())
    return f"**{name}**: {micros:.1f} µs of processor time\n\n{shares_table(shares[:8])}"
