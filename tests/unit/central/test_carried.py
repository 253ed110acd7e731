"""What requests to Central carry on: the id of the client's request, and its trace."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import pytest
from typing_extensions import override

from store_cache.app.logging import JsonFormatter, Redaction
from store_cache.central.carried import Trace, read_trace
from tests.harness.central import LedgerTransport
from tests.harness.clients import TILL_KEY
from tests.harness.clock import Clock
from tests.harness.store import RunningStore, a_store

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
TILL = {"X-API-Key": TILL_KEY}
UPDATES = "/v1/store/inventory/updates"
SALE = {"productId": "P-1", "delta": -1, "version": 1, "idempotencyKey": "sale-1"}


class Witness(LedgerTransport):
    """Notes the headers of each request."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.headers: list[tuple[str, httpx.Headers]] = []

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.headers.append((request.method, request.headers))
        return await super().handle_async_request(request)

    @property
    def writes(self) -> list[httpx.Headers]:
        return [headers for method, headers in self.headers if method == "POST"]


@asynccontextmanager
async def shop() -> AsyncIterator[tuple[RunningStore, Witness, aiohttp.ClientSession]]:
    central = Witness()
    async with a_store(central=central) as store, store.served() as url:
        await store.until("live")
        async with aiohttp.ClientSession(url, headers=TILL) as till:
            yield store, central, till


async def test_write_carries_the_request_s_id_and_trace() -> None:
    """Central gets what the till sent, unchanged, whether or not the store makes spans."""
    sent = {"X-Request-ID": "till-3-17", "traceparent": PARENT, "tracestate": "vendor=1, other=2"}
    async with shop() as (_store, central, till):
        answer = await till.post(UPDATES, json=SALE, headers=sent)
        [headers] = central.writes

    assert 200 == answer.status
    assert sent == {name: headers[name] for name in sent}


async def test_id_that_the_store_gave_goes_on_too() -> None:
    """A line of Central's log leads to the store's answer. There is no trace without one."""
    async with shop() as (_store, central, till):
        answer = await till.post(UPDATES, json=SALE)
        [headers] = central.writes

    assert answer.headers["X-Request-ID"] == headers["X-Request-ID"]
    assert "traceparent" not in headers


async def test_nothing_is_left_for_the_next_request() -> None:
    """On the same connection, a write without a trace has none; neither has any poll or page."""
    async with shop() as (store, central, till):
        await till.post(UPDATES, json=SALE, headers={"traceparent": PARENT})
        await till.post(UPDATES, json=SALE | {"version": 2, "idempotencyKey": "sale-2"})
        store.central.wake()
        async with asyncio.timeout(10):
            while store.parts.runner.head_offset != store.central.ledger.head:
                await store.parts.runner.changed.wait()
        first, second = central.writes
        reads = [headers for method, headers in central.headers if method == "GET"]

    assert "traceparent" in first
    assert "traceparent" not in second
    assert first["X-Request-ID"] != second["X-Request-ID"]
    # Each write has its product read as well, since that was created a moment ago.
    of_writes = [headers for headers in reads if "X-Request-ID" in headers]
    assert [first["X-Request-ID"], second["X-Request-ID"]] == [
        headers["X-Request-ID"] for headers in of_writes
    ]
    assert len(reads) > len(of_writes) + 2  # a page, and polls
    assert not any("traceparent" in headers for headers in reads if headers not in of_writes)


async def test_product_that_is_read_for_a_till_carries_them() -> None:
    """A read with `no-cache` asks Central at once."""
    sent = {"X-Request-ID": "till-3-18", "traceparent": PARENT, "Cache-Control": "no-cache"}
    async with shop() as (_store, central, till):
        await till.get("/v1/store/inventory/P-1", headers=sent)
        _, headers = central.headers[-1]

    assert ("till-3-18", PARENT) == (headers["X-Request-ID"], headers["traceparent"])


async def test_lines_of_the_log_name_both(caplog: pytest.LogCaptureFixture) -> None:
    """Each line of a request has `requestId`, and `traceId` if it belongs to a trace."""
    lines: list[dict[str, Any]] = []

    class Listener(logging.Handler):
        @override
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    listener = Listener()
    listener.setFormatter(JsonFormatter(Redaction()))
    async with shop() as (_store, _central, till):
        logging.getLogger("store_cache").addHandler(listener)
        try:
            with caplog.at_level(logging.INFO, "store_cache"):
                sent = {"X-Request-ID": "till-3-19", "traceparent": PARENT}
                await till.post(UPDATES, json=SALE, headers=sent)
                await till.post(UPDATES, json=SALE, headers={"X-Request-ID": "till-3-20"})
        finally:
            logging.getLogger("store_cache").removeHandler(listener)
    answered = [line for line in lines if line["message"] == "request answered"]

    assert [("till-3-19", TRACE_ID), ("till-3-20", None)] == [
        (line["requestId"], line.get("traceId")) for line in answered
    ]


@pytest.mark.parametrize(
    ("parents", "states", "expected"),
    [
        ([PARENT], [], Trace(PARENT)),
        ([PARENT], ["a=1", "b=2"], Trace(PARENT, "a=1,b=2")),
        ([f" {PARENT} "], [], Trace(PARENT)),
        ([PARENT], ["a=" + "x" * 600], Trace(PARENT)),
        ([PARENT], ["a=ü"], Trace(PARENT)),
        ([PARENT.replace("00-", "cc-", 1)], [], Trace(PARENT.replace("00-", "cc-", 1))),
        ([], ["a=1"], None),
        ([PARENT, PARENT], [], None),
        ([""], [], None),
        ([PARENT.upper()], [], None),
        ([PARENT.replace("00-", "ff-", 1)], [], None),
        ([f"00-{'0' * 32}-b7ad6b7169203331-01"], [], None),
        ([f"00-{TRACE_ID}-{'0' * 16}-01"], [], None),
        ([PARENT + "-more"], [], None),
        ([PARENT + "\r\nX-Api-Key: 1"], [], None),
    ],
)
def test_only_what_names_a_trace_goes_on(
    parents: list[str], states: list[str], expected: Trace | None
) -> None:
    """As W3C Trace Context has it; a state that cannot be sent on is left out."""
    assert expected == read_trace(parents, states)
