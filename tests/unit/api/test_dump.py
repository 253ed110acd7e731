"""The dump: every product at one position, as lines, no faster than it is read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import orjson

from store_cache.api.handlers.dump import DUMPS_AT_ONCE, ROWS_AT_ONCE
from store_cache.model.position import Position
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import until
from tests.unit.api.conftest import ADMIN, TILL, Opened, Store

PATH = "/v1/store/inventory/dump"


def stocked(products: int) -> FakeStore:
    return FakeStore([product(f"P-{number:05}") for number in range(products)])


@asynccontextmanager
async def asked(store: Store) -> AsyncIterator[aiohttp.ClientResponse]:
    """A dump whose client has read nothing but the head of the answer."""
    url = f"http://127.0.0.1:{store.running.port}{PATH}"
    connector = aiohttp.TCPConnector(socket_factory=small_socket)
    async with (
        aiohttp.ClientSession(headers=ADMIN, connector=connector) as client,
        client.get(url) as response,
    ):
        yield response


def small_socket(address: Any) -> socket.socket:
    """A socket on which the system keeps little of what nobody has read."""
    made = socket.socket(address[0], address[1])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    return made


async def dump(store: Store) -> list[bytes]:
    async with asked(store) as response:
        assert (200, "application/x-ndjson") == (response.status, response.content_type)
        return (await response.read()).splitlines()


async def test_a_dump_is_a_head_line_and_a_line_for_each_product(open_store: Opened) -> None:
    store = await open_store(stocked(2 * ROWS_AT_ONCE + 1))
    store.fake.held.position = Position("g-1 2", 1046)
    head, *lines = await dump(store)

    assert {"generation": "g-1~2", "offset": 1045, "products": 1001} == orjson.loads(head)
    assert list(store.fake.held.rows.values()) == lines
    assert not store.fake.held.is_viewed


async def test_an_empty_catalogue_is_a_head_line(open_store: Opened) -> None:
    (head,) = await dump(await open_store(FakeStore()))
    assert {"generation": None, "offset": 0, "products": 0} == orjson.loads(head)


async def test_only_an_admin_may_dump_and_only_what_there_is(store: Store) -> None:
    refused = await store.send("GET", PATH, headers=TILL)
    assert 403 == refused.status
    odd = await store.send("GET", f"{PATH}?limit=5", headers=ADMIN)
    assert 400 == odd.status
    head = await store.send("HEAD", PATH, headers=ADMIN)
    assert (200, b"") == (head.status, head.body)
    store.fake.catalogue = None
    missing = await store.send("GET", PATH, headers=ADMIN)
    assert (503, "cache_not_ready") == (missing.status, missing.json["error"]["code"])


MANY = 40_000
"""More than the buffers of a connection hold."""


async def test_a_client_that_reads_slowly_gets_the_catalogue_of_the_moment_it_asked(
    open_store: Opened,
) -> None:
    """Changes go on meanwhile, and other requests are answered."""
    store = await open_store(stocked(MANY))
    before = list(store.fake.held.rows.values())
    async with asked(store) as response:
        store.fake.put(product("P-39999", available=1, version=7))
        store.fake.remove("P-39998")
        store.fake.put(product("P-39997x"))
        assert 200 == (await store.get("/v1/store/inventory/P-39999")).status
        assert store.fake.held.is_viewed  # it waits for its client
        head, *lines = (await response.read()).splitlines()
    assert (MANY, before) == (orjson.loads(head)["products"], lines)
    assert not store.fake.held.is_viewed


async def test_a_client_that_leaves_keeps_no_view(open_store: Opened) -> None:
    """A view keeps old rows in memory."""
    store = await open_store(stocked(MANY))
    async with asked(store) as response:
        await until(lambda: store.fake.held.is_viewed)
        response.close()
        await until(lambda: not store.fake.held.is_viewed)


async def test_more_dumps_than_two_wait_for_their_turn(open_store: Opened) -> None:
    store = await open_store(stocked(MANY))
    async with AsyncExitStack() as stack:
        first, *_ = [await stack.enter_async_context(asked(store)) for _ in range(DUMPS_AT_ONCE)]
        later = asyncio.create_task(dump(store))
        await asyncio.sleep(0.2)
        assert not later.done()
        first.close()
        assert MANY + 1 == len(await later)
