"""`store-cache writes`: writes in doubt, listed and settled by a person (W9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from store_cache.cli.main import main
from store_cache.cli.writes import in_doubt_lines
from store_cache.writes.write import Doubt, SeenEvent
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY
from tests.harness.fake_store import MOMENT_SECONDS, FakeStore, product
from tests.unit.api.conftest import Opened

Captured = pytest.CaptureFixture[str]
SEEN = SeenEvent(1046, 7, 8, None)
DOUBT = Doubt("till-3/0042", "PROD-001", 6, MOMENT_SECONDS, "till-3", (SEEN,))


@asynccontextmanager
async def served(open_store: Opened, *doubts: Doubt) -> AsyncIterator[tuple[FakeStore, str]]:
    fake = FakeStore([product("PROD-001")])
    fake.doubts = {doubt.key: doubt for doubt in doubts}
    store = await open_store(fake, keys=[TILL_KEY], admin_keys=[STORE_ADMIN_KEY])
    yield fake, f"http://127.0.0.1:{store.running.port}"


async def ran(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


async def test_writes_in_doubt_are_listed(open_store: Opened, capsys: Captured) -> None:
    """[W9] Key, product, version and time, and what the feed has brought since."""
    async with served(open_store, DOUBT) as (_, url):
        assert 0 == await ran("writes", "--url", url, "--key", TILL_KEY)

    assert [
        "till-3/0042",
        "    PROD-001, sent for version 6 at 2024-01-15T10:30:00.000Z by till-3",
        "    since then: version 7, 8 available, nobody is named",
    ] == capsys.readouterr().out.splitlines()


async def test_without_doubts_it_says_so(open_store: Opened, capsys: Captured) -> None:
    """[W9] A person need not wonder whether the list was read."""
    async with served(open_store) as (_, url):
        await ran("writes", "--url", url, "--key", TILL_KEY)

    assert "no write is in doubt\n" == capsys.readouterr().out


async def test_the_list_as_the_api_gives_it(open_store: Opened, capsys: Captured) -> None:
    """[W9] `--json` prints the document."""
    async with served(open_store, DOUBT) as (_, url):
        await ran("writes", "--json", "--url", url, "--key", TILL_KEY)

    assert 1 == orjson.loads(capsys.readouterr().out)["count"]


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
async def test_a_person_settles_one(open_store: Opened, capsys: Captured, *, as_json: bool) -> None:
    """[W9] The key may hold a slash; what the till is answered from now on is in the document."""
    async with served(open_store, DOUBT) as (fake, url):
        words = ["writes", "settle", DOUBT.key, "applied", "--reason", "seen in Central's list"]
        options = ["--url", url, "--key", STORE_ADMIN_KEY, *(["--json"] if as_json else [])]
        assert 0 == await ran(*words, *options)
    printed = capsys.readouterr().out

    assert {} == fake.doubts
    if as_json:
        assert orjson.loads(printed)["answer"]["applied"]
    else:
        assert "till-3/0042 is settled: applied\n" == printed


@pytest.mark.parametrize(
    ("key", "error"),
    [(TILL_KEY, "403 forbidden"), (STORE_ADMIN_KEY, "404 write_not_found")],
    ids=["a till's key", "an unknown write"],
)
async def test_what_the_store_refuses_fails(
    open_store: Opened, capsys: Captured, key: str, error: str
) -> None:
    """[W9] Only an admin settles, and only what is in doubt."""
    async with served(open_store) as (_, url):
        words = ["writes", "settle", "nothing", "applied", "--reason", "?", "--url", url]
        assert 1 == await ran(*words, "--key", key)

    assert error in capsys.readouterr().err


def test_a_long_list_says_how_many_are_left_out() -> None:
    """[W9] The store lists the first 200."""
    write = {
        "idempotencyKey": "a",
        "productId": "P-1",
        "versionSent": 1,
        "sentAt": "2024-01-15T10:30:00.000Z",
        "client": None,
        "seenSince": [{"version": 2, "available": None, "storeId": "store-s2"}],
    }
    lines = in_doubt_lines({"writes": [write], "count": 3})

    assert "    since then: version 2, deleted, a write of store-s2" == lines[-2]
    assert "and 2 more" == lines[-1]
