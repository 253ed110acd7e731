"""`store-cache outbox`: what waits, and what a person decides (O10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from store_cache.cli.main import main
from store_cache.cli.outbox import counts_line
from store_cache.writes.idempotency import Attempt
from store_cache.writes.outbox import transitions
from store_cache.writes.outbox.entry import Entry
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.write import Adjustment, Unknown
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY
from tests.harness.fake_store import MOMENT_SECONDS, FakeStore, product
from tests.unit.api.conftest import Opened

Captured = pytest.CaptureFixture[str]


@asynccontextmanager
async def served(open_store: Opened) -> AsyncIterator[tuple[Outbox, str]]:
    fake = FakeStore([product("PROD-001")])
    store = await open_store(fake, keys=[TILL_KEY], admin_keys=[STORE_ADMIN_KEY])
    yield fake.outbox, f"http://127.0.0.1:{store.running.port}"


async def ran(url: str, *words: str) -> int:
    arguments = ("outbox", *words, "--url", url, "--key", STORE_ADMIN_KEY)
    return await asyncio.to_thread(main, arguments)


async def queued(outbox: Outbox, key: str = "sale") -> Entry:
    await outbox.queue([(Adjustment("PROD-001", -2, key, client="till-3"), 1)], "away")
    entry = outbox.get(key)
    assert entry is not None
    return entry


async def parked(outbox: Outbox) -> Entry:
    entry = transitions.parked(await queued(outbox), "invalid_request", "no", MOMENT_SECONDS)
    await outbox.record(entry)
    return entry


async def test_what_waits_is_listed(open_store: Opened, capsys: Captured) -> None:
    """[O10] Two lines or three for each entry, and how many there are."""
    async with served(open_store) as (outbox, url):
        entry = await parked(outbox)
        assert 0 == await ran(url, "list")

    assert [
        f"{entry.id}  parked",
        "    PROD-001 -2, key sale, queued at 2024-01-15T10:30:00.000Z by till-3",
        "    invalid_request: no",
        "1 parked",
    ] == capsys.readouterr().out.splitlines()


async def test_a_long_list_is_read_to_its_end(open_store: Opened, capsys: Captured) -> None:
    """[O10] Also as JSON, and by state."""
    async with served(open_store) as (outbox, url):
        for number in range(5):
            await queued(outbox, f"sale-{number}")
        await ran(url, "list", "--json", "--state", "queued")

    assert 5 == len(orjson.loads(capsys.readouterr().out)["entries"])


async def test_an_entry_is_shown_with_all_that_was_tried(
    open_store: Opened, capsys: Captured
) -> None:
    """[O10] The attempt that was sent last, and what persons did."""
    async with served(open_store) as (outbox, url):
        entry = await queued(outbox)
        attempt = Attempt("sale", entry.fingerprint, "PROD-001", 6, MOMENT_SECONDS)
        sent = transitions.sending(entry, attempt, MOMENT_SECONDS)
        await outbox.record(transitions.concluded(sent, Unknown("silence"), MOMENT_SECONDS))
        words = ["retry", entry.id, "--outcome", "not_applied", "--reason", "counted"]
        assert 0 == await ran(url, *words)
        assert 0 == await ran(url, "show", entry.id)
    lines = capsys.readouterr().out.splitlines()

    assert f"{entry.id} is queued" == lines[0]
    assert "    attempt 1 for version 6, sent at 2024-01-15T10:30:00.000Z" in lines
    assert lines[-1].startswith("    retried as not applied by admin-key-1 at ")
    assert lines[-1].endswith(": counted")


async def test_a_person_discards_and_settles(open_store: Opened, capsys: Captured) -> None:
    """[O10] What the store refuses is an error that says why."""
    async with served(open_store) as (outbox, url):
        entry = await parked(outbox)
        assert 1 == await ran(url, "settle", entry.id, "applied", "--reason", "?")
        assert 0 == await ran(url, "discard", entry.id, "--reason", "entered twice", "--json")
    printed = capsys.readouterr()

    assert "409 write_not_in_doubt" in printed.err
    assert "discarded" == orjson.loads(printed.out)["state"]


async def test_drain_tells_whether_anything_waits(open_store: Opened, capsys: Captured) -> None:
    """[O10] By its exit status; with --wait it waits until nothing does."""
    async with served(open_store) as (outbox, url):
        entry = await queued(outbox)
        assert 1 == await ran(url, "drain")
        waiting = asyncio.create_task(ran(url, "drain", "--wait", "--json"))
        await outbox.discard(entry.id, by="office", reason="?")
        assert 0 == await waiting

    assert "1 queued" == capsys.readouterr().out.splitlines()[0]


async def test_an_unknown_entry_is_an_error(capsys: Captured, open_store: Opened) -> None:
    """[O10] Settled ones are forgotten after a while."""
    async with served(open_store) as (_, url):
        assert 1 == await ran(url, "show", "nothing")

    assert "404 outbox_entry_not_found" in capsys.readouterr().err


def test_counts_in_words() -> None:
    """[O10] Only what there is."""
    counts = {"queued": 2, "sending": 0, "inDoubt": 1, "parked": 0}

    assert "2 queued, 1 in doubt" == counts_line(counts)
    assert "nothing waits" == counts_line(dict.fromkeys(counts, 0))
