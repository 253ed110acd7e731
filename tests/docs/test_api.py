"""docs/api.md: its examples run, and its table has every error code."""

import asyncio

import orjson
import pytest

from store_cache.api.problems import STATUS
from store_cache.writes.write import Doubt, SeenEvent
from tests.docs.pages import DOCS, Call, calls, section, shown_answer, table_rows
from tests.harness.fake_store import MOMENT_SECONDS, FakeStore, product
from tests.harness.http import DEADLINE_SECONDS
from tests.harness.streams import STREAM, Event, EventParser, StreamClient
from tests.unit.api.conftest import Opened, Store

API = DOCS / "api.md"


@pytest.fixture
async def documented_store(open_store: Opened) -> Store:
    fake = FakeStore(
        [
            product(
                "PROD-001",
                name="Wireless Headphones",
                category="Audio",
                barcode="4006381333931",
            ),
            product("PROD-002", name="Desk Lamp", available=4, version=2, price=24.5),
            product("tea/green 50%", name="Green Tea", available=30, version=1, price=3.2),
        ]
    )
    seen = SeenEvent(1046, 2, 4, "store-s2")
    doubt = Doubt("order-12349", "PROD-002", 1, MOMENT_SECONDS - 60, "till-3", (seen,))
    fake.doubts = {doubt.key: doubt}
    return await open_store(fake, keys=["demo"], admin_keys=["office"], api_docs=True)


async def test_each_example_is_answered_as_shown(documented_store: Store) -> None:
    """Each call, in the order of the page, gets the answer printed below it."""
    found = calls(API)
    for call, shown in found:
        reply = await documented_store.send(
            call.method, call.target, headers=call.headers, body=call.body
        )
        status, headers, body = shown_answer(call, shown)
        if call.target.startswith(STREAM):
            assert await _events(documented_store, call, body) == EventParser().feed(
                f"{body}\n".encode()
            )
            continue

        if call.shows_head:
            assert status == reply.status
        assert headers == {name: reply.headers.get(name) for name in headers}
        assert not body.strip() or orjson.loads(body) == reply.json

    assert len(found) >= 12


async def _events(store: Store, call: Call, shown: str) -> list[Event]:
    """The events of a stream, as many as are shown."""
    query = call.target.removeprefix(STREAM)
    client = await StreamClient.open(store.running.port, query, key=call.headers["X-API-Key"])
    async with asyncio.timeout(DEADLINE_SECONDS):
        await client.until(lambda _: len(client.events) == shown.count("event: "))
    assert f"retry: {client.parser.retry}\n" in shown
    client.close()
    return client.events


def test_each_code_is_in_the_table_of_errors() -> None:
    """Every code with its status, and none that does not exist."""
    rows = table_rows(section(API, "What a till does with an error"))[1:]

    assert {f"`{code}`": str(status) for code, status in STATUS.items()} == {
        code: status for code, status, _, _ in rows
    }
