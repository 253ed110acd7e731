"""What only a ledger in PostgreSQL has: several processes, groups, a tail, a schema."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
import pytest
from pydantic import SecretStr

from central_stub.backend import FeedPage, OutcomeUnknown, Unavailable
from central_stub.cli import main, switched
from central_stub.postgres import backend as postgres_backend
from central_stub.postgres import database as postgres_database
from central_stub.postgres import schema, tail
from central_stub.postgres.backend import PostgresBackend
from central_stub.postgres.database import TRIES, Database, Seen
from central_stub.postgres.groups import Groups
from central_stub.postgres.upkeep import migrate
from central_stub.server import Running, running
from central_stub.settings import Settings
from central_stub.storage import StorageError
from central_stub.switches import Feature, Switches
from central_stub.wire import Request, Route
from tests.harness.postgres import Postgres

P1 = {"productId": "P1", "available": 100}
P2 = {"productId": "P2", "available": 100}


@dataclass
class Answered:
    status: int
    body: Any
    generation: str


@dataclass
class Pair:
    """Two processes of Central on one database, here in one event loop."""

    postgres: Postgres
    url: str
    first: Running
    second: Running

    async def ask(self, central: Running, method: str, path: str, body: Any = None) -> Answered:
        sent = b"" if body is None else orjson.dumps(body)
        reply = await central.reply(Request(method, path, "admin-demo", sent))
        name = reply.headers.get("X-Feed-Generation", "")
        return Answered(reply.status, orjson.loads(reply.body), name)

    async def get(self, central: Running, path: str) -> Answered:
        return await self.ask(central, "GET", path)

    async def create(self, *products: dict[str, Any]) -> None:
        body = {"products": list(products)}
        created = await self.ask(self.first, "POST", "/v1/admin/products/create", body)
        assert 0 == created.body["summary"]["failed"]

    async def sell(self, central: Running, product_id: str, version: int, key: str) -> Answered:
        update = {"productId": product_id, "delta": -1, "version": version, "idempotencyKey": key}
        return await self.ask(central, "POST", "/v1/inventory/updates", update)

    def sql(self, statement: str) -> str:
        return self.postgres.server.query(statement, self.url.split("/")[3].partition("?")[0])


@asynccontextmanager
async def a_pair(postgres: Postgres, url: str = "") -> AsyncIterator[Pair]:
    url = url or postgres.empty_database()
    settings = Settings(_env_file=None, port=0, database=SecretStr(url))
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(running(settings)) for _ in range(2)]
        yield Pair(postgres, url, *both)


@pytest.fixture
async def pair(postgres: Postgres) -> AsyncIterator[Pair]:
    async with a_pair(postgres) as both:
        yield both


@pytest.fixture
async def pair_with_a_database(postgres: Postgres) -> AsyncIterator[Pair]:
    """Of its own, which the test may change in any way."""
    async with a_pair(postgres, postgres.new_database()) as both:
        yield both


@pytest.fixture
async def pair_that_does_not_look(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    """What it does is told by notifications, and by calls, alone."""
    monkeypatch.setattr(postgres_database, "LOOK_SECONDS", 1000.0)
    async with a_pair(postgres) as both:
        yield both


def backend_of(central: Running) -> PostgresBackend:
    backend = central._services[""].backend
    assert isinstance(backend, PostgresBackend)
    return backend


async def until_held(*centrals: Running) -> None:
    while not all(central.held_polls for central in centrals):  # noqa: ASYNC110 (this loop's)
        await asyncio.sleep(0)


async def test_a_poll_at_one_process_is_woken_by_a_write_at_the_other(pair: Pair) -> None:
    """Long before its time is up, and before the look of each second."""
    await pair.create(P1)
    poll = asyncio.create_task(pair.get(pair.second, "/v1/inventory/events?offset=2&wait=30"))
    await until_held(pair.second)

    await pair.sell(pair.first, "P1", 1, "k1")

    (event,) = (await asyncio.wait_for(poll, 10)).body["events"]
    assert (2, "k1") == (event["offset"], event["idempotencyKey"])


async def test_a_process_that_heard_nothing_still_answers_truly(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a notification nor a look told it of the sale: asked, it reads the feed first."""
    await pair.create(P1)
    await pair.get(pair.second, "/v1/inventory/events?offset=2")
    monkeypatch.setattr(PostgresBackend, "wake", lambda *_: None)
    monkeypatch.setattr(PostgresBackend, "note", lambda *_: None)
    await pair.sell(pair.first, "P1", 1, "k1")

    body = (await pair.get(pair.second, "/v1/inventory/events?offset=3&wait=0")).body

    assert ([], 3) == (body["events"], body["nextOffset"])


async def test_a_process_that_heard_nothing_answers_truly_from_the_beginning(
    pair_that_does_not_look: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offset 0 means 1, which is the end of the feed that it knows."""
    monkeypatch.setattr(PostgresBackend, "wake", lambda *_: None)
    await pair_that_does_not_look.create(P1)

    path = "/v1/inventory/events?offset=0"
    body = (await pair_that_does_not_look.get(pair_that_does_not_look.second, path)).body

    assert [1] == [event["offset"] for event in body["events"]]


async def test_a_lost_notification_is_made_up_for_by_the_look(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a second or two."""
    await pair.create(P1)
    monkeypatch.setattr(PostgresBackend, "wake", lambda *_: None)
    poll = asyncio.create_task(pair.get(pair.second, "/v1/inventory/events?offset=2&wait=30"))
    await until_held(pair.second)

    await pair.sell(pair.first, "P1", 1, "k1")

    assert 1 == len((await asyncio.wait_for(poll, 15)).body["events"])


async def test_a_notification_of_somebody_else_does_not_end_the_listening(
    pair_that_does_not_look: Pair,
) -> None:
    """Anybody who may connect may notify; the next write still wakes a poll."""
    pair = pair_that_does_not_look
    await pair.create(P1)
    for payload in ("hello world", "", "1 2", "1 2 3 4"):
        pair.sql(f"NOTIFY central, '{payload}'")
    poll = asyncio.create_task(pair.get(pair.second, "/v1/inventory/events?offset=2&wait=30"))
    await until_held(pair.second)

    await pair.sell(pair.first, "P1", 1, "k1")

    assert 1 == len((await asyncio.wait_for(poll, 10)).body["events"])


async def test_a_notification_that_comes_while_the_feed_is_read_is_not_lost(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That reading may have begun before the event; so another follows it."""
    begun, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def refresh() -> None:
        begun.release()
        await ended.acquire()

    backend = backend_of(pair.second)
    monkeypatch.setattr(backend._tail, "refresh", refresh)
    backend.wake(None, None)
    await begun.acquire()
    backend.wake(None, None)
    ended.release()

    await asyncio.wait_for(begun.acquire(), 5)
    ended.release()


async def test_a_poll_is_woken_by_more_events_than_a_process_keeps_in_memory(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At both processes; what is no longer in memory is read, once for all equal polls."""
    monkeypatch.setattr(tail, "TAIL_EVENTS", 3)
    await pair.create(P1)
    path = "/v1/inventory/events?offset=2&limit=4&wait=30"
    both = (pair.first, pair.second)
    polls = [asyncio.create_task(pair.get(central, path)) for central in both * 5]
    await until_held(*both)
    while sum(central.held_polls for central in both) < len(polls):  # noqa: ASYNC110 (this loop's)
        await asyncio.sleep(0)
    readings = 0
    older_events = PostgresBackend._older_events

    async def counted(backend: PostgresBackend, offset: int, limit: int) -> FeedPage:
        nonlocal readings
        readings += 1
        return await older_events(backend, offset, limit)

    monkeypatch.setattr(PostgresBackend, "_older_events", counted)
    await pair.create(*({"productId": f"Q{number}"} for number in range(10)))

    answers = await asyncio.wait_for(asyncio.gather(*polls), 10)

    assert [[2, 3, 4, 5]] * 10 == [
        [event["offset"] for event in each.body["events"]] for each in answers
    ]
    assert 2 == readings


async def test_a_new_generation_answers_held_polls(pair: Pair) -> None:
    """At both processes, with what the new feed has: a store then makes its full sync at once."""
    await pair.create(P1, P2)
    both = (pair.first, pair.second)
    path = "/v1/inventory/events?offset=3&wait=30"
    polls = [asyncio.create_task(pair.get(central, path)) for central in both]
    await until_held(*both)

    await pair.ask(pair.first, "POST", "/v1/admin/faults", {"kind": "new_generation"})

    answers = await asyncio.wait_for(asyncio.gather(*polls), 10)
    name = (await pair.get(pair.first, "/v1/inventory")).generation
    assert [(name, 1)] * 2 == [(each.generation, each.body["nextOffset"]) for each in answers]


async def test_many_writers_at_both_leave_dense_offsets_and_exact_stock(pair: Pair) -> None:
    """Each write is sent to both processes with one key, and is applied once."""
    await pair.create(*({"productId": f"P{number}", "available": 50} for number in range(5)))

    async def till(number: int) -> None:
        for sale in range(6):
            version, attempt, applied = 1, 0, False
            while not applied:
                key, product_id = f"{number}-{sale}-{attempt}", f"P{(number + sale) % 5}"
                twice = [pair.sell(c, product_id, version, key) for c in (pair.first, pair.second)]
                one, other = await asyncio.gather(*twice)
                assert one.body == other.body
                applied, version = one.body["applied"], one.body["newVersion"]
                attempt += 1

    await asyncio.gather(*(till(number) for number in range(6)))

    events = (await pair.get(pair.second, "/v1/inventory/events?offset=1&limit=1000")).body[
        "events"
    ]
    assert list(range(1, 5 + 36 + 1)) == [event["offset"] for event in events]
    rows = (await pair.get(pair.first, "/v1/inventory")).body["products"]
    assert 250 - 36 == sum(row["available"] for row in rows)
    versions = dict.fromkeys((f"P{number}" for number in range(5)), 0)
    for event in events:
        versions[event["productId"]] += 1
        assert versions[event["productId"]] == event["version"]


async def test_one_key_for_two_products_at_once_is_applied_once(pair: Pair) -> None:
    """The group that comes second is repeated, and answers what the first one did."""
    await pair.create(P1, P2)
    for number in range(10):
        one, other = await asyncio.gather(
            pair.sell(pair.first, "P1", 1 + number, f"k{number}"),
            pair.sell(pair.second, "P2", 1, f"k{number}"),
        )
        assert one.body["applied"] == other.body["applied"]
        assert one.body["newVersion"] == other.body["newVersion"]
        if (await pair.get(pair.first, "/v1/inventory/P2")).body["version"] > 1:
            break
    rows = (await pair.get(pair.first, "/v1/inventory")).body["products"]
    assert 200 - (number + 1) == sum(row["available"] for row in rows)


async def test_only_the_culprit_of_a_group_fails(pair_with_a_database: Pair) -> None:
    """What the database refuses is split off; the others of the group are applied."""
    pair = pair_with_a_database
    products = [{"productId": f"P{number}", "available": 9} for number in range(20)]
    await pair.create(*products)
    pair.sql(
        "ALTER TABLE central.products ADD CHECK (id <> 'P7'::bytea OR "
        "position('\"version\":1,' in encode(body, 'escape')) > 0) NOT VALID"
    )

    answers = await asyncio.gather(
        *(pair.sell(pair.first, f"P{number}", 1, f"k{number}") for number in range(20))
    )

    assert [500] == [each.status for number, each in enumerate(answers) if number == 7]
    assert {200} == {each.status for number, each in enumerate(answers) if number != 7}
    assert (39, 1) == (
        (await pair.get(pair.first, "/v1/inventory")).body["eventOffset"],
        (await pair.get(pair.first, "/v1/inventory/P7")).body["version"],
    )


async def test_a_product_that_somebody_has_locked_does_not_stop_the_others(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own write is 503 when the lock was not given in time, and applied later."""
    monkeypatch.setattr(postgres_database, "LOCK_SECONDS", 0.2)
    async with a_pair(postgres) as pair:
        await pair.create(P1, P2)
        async with await psycopg.AsyncConnection.connect(pair.url) as holder:
            await holder.execute("SELECT body FROM central.products WHERE id = 'P1' FOR UPDATE")
            locked = asyncio.create_task(pair.sell(pair.first, "P1", 1, "k1"))
            await asyncio.sleep(0.05)
            other = await asyncio.wait_for(pair.sell(pair.first, "P2", 1, "k2"), 10)
            refused = await asyncio.wait_for(locked, 10)

        assert (503, 200) == (refused.status, other.status)
        assert (await pair.sell(pair.first, "P1", 1, "k1")).body["applied"]


async def test_a_process_that_vanishes_in_the_middle_of_a_group_gives_its_locks_back(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends its transaction, and another process sells. If the first was only asleep, it
    repeats the group, which then is too late."""
    monkeypatch.setattr(postgres_database, "IDLE_SECONDS", 0.3)
    find, asleep, wake = Groups._find, asyncio.Event(), asyncio.Event()

    async def find_and_sleep(groups: Groups, *arguments: Any) -> Any:
        found = await find(groups, *arguments)
        if not asleep.is_set():
            asleep.set()
            await wake.wait()
        return found

    async with a_pair(postgres) as pair:
        await pair.create(P1)
        monkeypatch.setattr(Groups, "_find", find_and_sleep)
        sleeper = asyncio.create_task(pair.sell(pair.first, "P1", 1, "k1"))
        await asleep.wait()
        try:
            sold = await asyncio.wait_for(pair.sell(pair.second, "P1", 1, "k2"), 10)
        finally:
            wake.set()

        assert (200, 2) == (sold.status, sold.body["newVersion"])
        assert 409 == (await sleeper).status
        assert 2 == (await pair.get(pair.first, "/v1/inventory/P1")).body["version"]


async def test_the_address_may_name_other_limits(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its options, or else in PGOPTIONS; what neither names has Central's limit."""
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=8s")
    shown = []
    for given in ("", "&options=-c%20lock_timeout%3D7s"):
        database = Database(postgres.empty_database() + given)
        await database.open()
        for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
            shown += await database.read(f"SHOW {name}", {})
        await database.close()

    assert ["8s", "10s", "7s", "10s"] == [value for (value,) in shown]


@pytest.mark.parametrize("limit", [None, 55])
async def test_a_process_that_starts_while_products_are_vacuumed_stops_no_write(
    pair: Pair, limit: int | None
) -> None:
    """Also one that sets a switch."""
    await pair.create(P1)
    named: dict[str, Any] = {} if limit is None else {"event_limit": limit}
    settings = Settings(_env_file=None, port=0, database=SecretStr(pair.url), **named)
    async with await psycopg.AsyncConnection.connect(pair.url) as vacuum:
        await vacuum.execute("LOCK TABLE central.products IN SHARE UPDATE EXCLUSIVE MODE")
        async with asyncio.timeout(10), running(settings):
            assert 200 == (await pair.sell(pair.first, "P1", 1, "k1")).status


async def test_a_group_and_what_must_be_alone_do_not_overlap(pair: Pair) -> None:
    """A write that comes while everything is replaced is applied to what is there afterwards."""
    await pair.create(P1)
    async with backend_of(pair.first)._database.alone(backend_of(pair.first)._tenant) as connection:
        selling = asyncio.create_task(pair.sell(pair.second, "P1", 1, "k1"))
        await asyncio.sleep(0.05)
        assert not selling.done()
        body = b'{"productId":"P1","available":7,"version":4}'
        await connection.execute("DELETE FROM central.products")
        await connection.execute(
            "INSERT INTO central.products VALUES (1, 'P1', %s, 0, 0, 0, 0, 0)", (body,)
        )

    sold = await asyncio.wait_for(selling, 10)

    assert (409, 4) == (sold.status, sold.body["newVersion"])


async def test_a_group_that_was_committed_is_answered_whatever_fails_after_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 500, since a repeat tells; it is not left without an answer."""
    await pair.create(P1)

    async def fail(*_: Any) -> None:
        raise RuntimeError("the feed is odd")

    with monkeypatch.context() as broken:
        broken.setattr(backend_of(pair.first)._tail, "append", fail)
        unknown = await asyncio.wait_for(pair.sell(pair.first, "P1", 1, "k1"), 10)

    assert (500, "internal_error") == (unknown.status, unknown.body["code"])
    again = await pair.sell(pair.first, "P1", 1, "k1")
    assert (200, 2) == (again.status, again.body["newVersion"])


async def test_a_database_that_lost_events_gets_a_new_generation(pair: Pair) -> None:
    """Also where other events took their offsets; both processes agree on one name."""
    await pair.create(P1, P2)
    before = (await pair.get(pair.first, "/v1/inventory")).generation
    await pair.get(pair.second, "/v1/inventory/events?offset=3")
    cut_off = "UPDATE central.feed SET head = 1; DELETE FROM central.events WHERE number > 1"
    replaced = """
        UPDATE central.events SET body = '{"timestamp": "2025-01-01T00:00:00.000Z"}'
        WHERE number = (SELECT head FROM central.feed)
    """
    for lost in (cut_off, replaced):
        pair.sql(lost)

        names = set()
        for central in (pair.first, pair.second, pair.first):
            await pair.get(central, "/v1/inventory/events?offset=9")
            names.add((await pair.get(central, "/v1/inventory")).generation)

        (name,) = names
        assert before != name
        before = name


async def test_events_taken_back_on_purpose_keep_the_generation(pair: Pair) -> None:
    """`keepGeneration` imitates a Central that does not notice; the epoch tells the processes."""
    await pair.create(P1)
    backup = (await pair.get(pair.first, "/v1/admin/backup")).body
    await pair.sell(pair.second, "P1", 1, "k1")
    before = (await pair.get(pair.second, "/v1/inventory")).generation

    order = {"backup": backup, "keepGeneration": True}
    await pair.ask(pair.first, "POST", "/v1/admin/restore", order)

    beyond_what_was_held = "/v1/inventory/events?offset=3"  # so each process looks first
    for central in (pair.first, pair.second):
        page = await pair.get(central, beyond_what_was_held)
        assert (before, [], 2) == (page.generation, page.body["events"], page.body["nextOffset"])


async def test_after_a_restore_the_command_begins_a_generation(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every tenant, without a running process; offsets and products stay."""
    await pair.create(P1)
    before = (await pair.get(pair.first, "/v1/inventory")).generation

    assert 0 == await asyncio.to_thread(main, ["restored", "--database", pair.url])

    name = capsys.readouterr().out.split()[1]
    await pair.get(pair.second, "/v1/inventory/events?offset=9")
    after = await pair.get(pair.second, "/v1/inventory")
    assert (name, 1) == (after.generation, after.body["eventOffset"])
    assert before != name


async def test_any_process_shows_faults_and_counts_them_together(pair: Pair) -> None:
    """Two strikes in all, whichever process is asked."""
    order = {"kind": "status", "status": 503, "times": 2}
    await pair.ask(pair.first, "POST", "/v1/admin/faults", order)
    await pair.ask(pair.second, "PUT", "/v1/admin/switches", {"pageLimit": 7})

    listed = [(await pair.get(c, "/v1/admin/faults")).body for c in (pair.first, pair.second)]
    await pair.get(pair.first, "/v1/inventory/events?offset=9")
    shown = [(await pair.get(c, "/v1/admin/switches")).body for c in (pair.first, pair.second)]

    assert listed[0] == listed[1]
    assert [7, 7] == [each["pageLimit"] for each in shown]
    struck = [await over_http(central) for central in (pair.first, pair.second) * 2]
    assert [503, 503, 200, 200] == struck


async def over_http(central: Running) -> int:
    """The status that a store gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(central.url.split(":")[2]))
    head = "GET /v1/inventory HTTP/1.1\r\nHost: c\r\nX-API-Key: demo\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_what_changes_something_is_not_sent_twice_if_the_connection_is_lost(
    pair: Pair,
) -> None:
    """A fault would strike twice, or be set twice. What only reads is repeated."""
    pair.sql("DROP SEQUENCE IF EXISTS tries; CREATE SEQUENCE tries")
    database = backend_of(pair.first)._database
    breaking = "SELECT nextval('tries'), pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(OutcomeUnknown, match="see whether it was"):
        await database.change(breaking, {})
    assert "1" == pair.sql("SELECT last_value FROM tries").strip()
    with pytest.raises(Unavailable):
        await database.read(breaking, {})
    assert str(1 + TRIES) == pair.sql("SELECT last_value FROM tries").strip()


async def test_faults_are_set_and_counted_after_the_server_has_ended_all_connections(
    pair: Pair,
) -> None:
    """The next one is taken until one is alive: nothing was sent yet."""
    await pair.create(P1)
    backend = backend_of(pair.first)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    fault = {"kind": "status", "status": 503, "times": 2}
    pair.sql(f"{others} AND datname = current_database()")
    assert 200 == (await pair.ask(pair.first, "POST", "/v1/admin/faults", fault)).status
    pair.sql(f"{others} AND datname = current_database()")
    assert 1 == len(await backend.strike(Route.PAGES))
    assert [1] == [each.struck for each in await backend.faults()]


async def test_a_process_stops_also_if_a_cancellation_is_lost(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As psycopg_pool may, by `asyncio.wait_for` of Python 3.11."""
    looks = asyncio.Event()

    async def look(_: Database) -> None:
        looks.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    monkeypatch.setattr(postgres_database, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(Database, "look", look)
    database = Database(postgres.empty_database())
    await database.open()
    async with asyncio.timeout(30):
        await looks.wait()
        await database.close()


async def test_old_events_and_keys_are_deleted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background; below the floor an offset is 410 at once."""
    monkeypatch.setattr(postgres_backend, "KEYS_EVERY_SECONDS", 0.0)
    await pair.create(P1)
    switches = {"eventLimit": 2, "keyMemorySeconds": 0}
    await pair.ask(pair.first, "PUT", "/v1/admin/switches", switches)
    for version in range(1, 6):
        await pair.sell(pair.first, "P1", version, f"k{version}")

    assert 410 == (await pair.get(pair.first, "/v1/inventory/events?offset=4")).status
    ends_at = time.monotonic() + 20
    counted = "SELECT (SELECT count(*) FROM central.events), (SELECT count(*) FROM central.keys)"
    while time.monotonic() < ends_at and await asyncio.to_thread(pair.sql, counted) != "2|0":  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    assert "2|0" == pair.sql(counted)


async def test_a_process_with_an_old_floor_deletes_nothing_of_a_newer_feed(
    pair_that_does_not_look: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not heard that all was wiped, and that the feed has begun anew."""
    pair = pair_that_does_not_look
    await pair.create(P1)
    await pair.ask(pair.first, "PUT", "/v1/admin/switches", {"eventLimit": 5})
    for version in range(1, 9):
        await pair.sell(pair.first, "P1", version, f"k{version}")
    monkeypatch.setattr(PostgresBackend, "wake", lambda *_: None)
    await pair.ask(pair.second, "POST", "/v1/admin/wipe", {})
    body = {"products": [P1, P2, {"productId": "P3"}]}
    await pair.ask(pair.second, "POST", "/v1/admin/products/create", body)

    await backend_of(pair.first).clean()

    assert "1,2,3" == pair.sql(
        "SELECT string_agg(number::text, ',' ORDER BY 1) FROM central.events"
    )
    name = (await pair.get(pair.second, "/v1/inventory")).generation
    polls = [await pair.get(c, "/v1/inventory/events?offset=99") for c in (pair.first, pair.second)]
    assert [(name, 4)] * 2 == [(each.generation, each.body["nextOffset"]) for each in polls]


async def test_a_look_tells_every_tenant_although_another_cannot_clean_up(
    postgres: Postgres,
) -> None:
    """Whichever comes first."""
    database = Database(postgres.empty_database())
    await database.open()
    try:
        for name in ("one", "two"):
            async with database.connection() as connection:
                await connection.execute(
                    "INSERT INTO central.feed (name, generation, switches) VALUES (%s, 'g', '{}')",
                    (name,),
                )
        followers = [Follower(), Follower()]
        for tenant, follower in enumerate(followers, start=1):
            database.follow(tenant, follower)

        await database.look()

        assert [1, 1] == [len(each.seen) for each in followers]
        assert [1, 1] == [each.cleanings for each in followers]
    finally:
        await database.close()


class Follower:
    """A tenant that can delete nothing."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.cleanings = 0

    def note(self, seen: Seen) -> None:
        self.seen.append(seen)

    def wake(self, epoch: int | None, head: int | None) -> None: ...

    async def clean(self) -> None:
        self.cleanings += 1
        raise psycopg.errors.InsufficientPrivilege("permission denied for table events")


async def test_what_is_older_than_the_tail_is_read_from_the_database(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same pages as from memory."""
    monkeypatch.setattr(tail, "TAIL_EVENTS", 3)
    settings = Settings(_env_file=None, port=0, database=SecretStr(postgres.empty_database()))
    async with running(settings) as central:
        pair = Pair(postgres, "", central, central)
        await pair.create(*({"productId": f"P{number}"} for number in range(10)))

        pages = [
            (await pair.get(central, f"/v1/inventory/events?offset={at}&limit=4")).body
            for at in (1, 5, 9, 11)
        ]

    assert [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], []] == [
        [event["offset"] for event in page["events"]] for page in pages
    ]
    assert [(5, True), (9, True), (11, False), (11, False)] == [
        (page["nextOffset"], page["hasMore"]) for page in pages
    ]


async def test_a_read_only_database_is_read_and_not_written(pair_with_a_database: Pair) -> None:
    """Reads and polls go on; a write is 503, and nothing is done."""
    pair = pair_with_a_database
    await pair.create(P1)
    name = pair.url.split("/")[3].partition("?")[0]
    pair.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    pair.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        f" AND datname = '{name}'"
    )

    refused = await pair.sell(pair.first, "P1", 1, "k1")
    read = await pair.get(pair.first, "/v1/inventory/P1")
    poll = await pair.get(pair.second, "/v1/inventory/events?offset=2")

    assert (503, "unavailable") == (refused.status, refused.body["code"])
    assert (200, 1, 200) == (read.status, read.body["version"], poll.status)


async def test_what_this_ledger_cannot_do_is_refused(pair: Pair) -> None:
    """A crash that loses one half, and a feed out of order; nothing changes."""
    crash = {"kind": "crash", "loses": "stock"}
    refused = [
        await pair.ask(pair.first, "POST", "/v1/admin/faults", crash),
        await pair.ask(pair.first, "PUT", "/v1/admin/switches", {"without": ["order"]}),
    ]

    assert [400, 400] == [each.status for each in refused]
    assert [] == (await pair.get(pair.first, "/v1/admin/switches")).body["without"]


async def test_switches_named_at_a_start_are_set_for_all(pair: Pair) -> None:
    """The others stay as they are in the database."""
    await pair.ask(pair.first, "PUT", "/v1/admin/switches", {"pageLimit": 7})
    url = SecretStr(pair.url)
    settings = Settings(_env_file=None, port=0, database=url, event_limit=55)

    async with running(settings):
        await pair.get(pair.first, "/v1/inventory/events?offset=9")
        shown = (await pair.get(pair.first, "/v1/admin/switches")).body

    assert (7, 55) == (shown["pageLimit"], shown["eventLimit"])
    unordered = Switches(without=frozenset({Feature.ORDER}))
    with pytest.raises(StorageError, match="order"):
        await Running(Settings(_env_file=None, port=0, database=url), unordered).start()


async def test_a_switch_that_is_named_at_a_start_is_set_also_if_it_is_the_usual_one(
    pair: Pair,
) -> None:
    """Named by a setting, or by `--switch`."""
    changed = {"nullEvents": True, "pageLimit": 7, "refusePositive": True}
    await pair.ask(pair.first, "PUT", "/v1/admin/switches", changed)
    settings = Settings(_env_file=None, port=0, database=SecretStr(pair.url), page_limit=1000)
    switches = switched(settings.switches, ["nullEvents=false"])

    async with running(settings, switches) as third:
        shown = (await pair.get(third, "/v1/admin/switches")).body

    assert (False, 1000, True) == tuple(shown[name] for name in changed)


async def test_what_a_newer_release_has_stored_is_left_out(pair: Pair) -> None:
    """Sales go on at both, a process of this release starts, and the newer one finds again what it
    has stored although a process of this release has set another switch."""
    await pair.create(P1)
    stored = orjson.loads(pair.sql("SELECT convert_from(switches, 'UTF8') FROM central.feed"))
    newer = {"later": {"on": True}, "pageShape": "spiral", "without": ["cursor", "gravity"]}
    text = orjson.dumps(stored | newer | {"pageLimit": 7}).decode()
    pair.sql(
        f"UPDATE central.feed SET revision = revision + 1, switches = convert_to('{text}', 'UTF8');"
        """INSERT INTO central.faults VALUES (1, 9, '{"kind": "flood"}')"""
    )
    await pair.get(pair.first, "/v1/inventory/events?offset=9")

    sold = [
        await asyncio.wait_for(pair.sell(central, "P1", version, f"k{version}"), 10)
        for version, central in enumerate((pair.first, pair.second), start=1)
    ]
    async with running(Settings(_env_file=None, port=0, database=SecretStr(pair.url))) as third:
        shown = await pair.ask(third, "PUT", "/v1/admin/switches", {"nullEvents": True})
        faults = await pair.get(third, "/v1/admin/faults")

    assert [200, 200] == [each.status for each in sold]
    names = ("pageShape", "without", "pageLimit", "nullEvents")
    assert ["products", ["cursor"], 7, True] == [shown.body[name] for name in names]
    assert (200, []) == (faults.status, faults.body["faults"])
    after = orjson.loads(pair.sql("SELECT convert_from(switches, 'UTF8') FROM central.feed"))
    assert {"on": True} == after["later"]


# The schema


async def test_a_schema_that_is_not_this_program_s_is_refused(
    postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older: it says to migrate. Newer: it says to take a newer program, and does not migrate."""
    name = f"empty_{next(postgres.numbers)}"
    postgres.server.query(f"CREATE DATABASE {name}")
    url = postgres.server.url(name)
    settings = Settings(_env_file=None, port=0, database=SecretStr(url))

    with pytest.raises(StorageError, match="run central-stub migrate"):
        await Running(settings).start()
    assert 0 == await asyncio.to_thread(main, ["migrate", "--database", url])
    assert f"applied {schema.migrations()[0].name}" in capsys.readouterr().out
    assert [] == await migrate(url)
    async with running(settings) as central:
        assert 0 == await central.products()
    postgres.server.query("INSERT INTO central.migrations VALUES (9999, 'later')", name)
    with pytest.raises(StorageError, match="run a newer central-stub"):
        await Running(settings).start()
    with pytest.raises(StorageError, match="run a newer central-stub"):
        await migrate(url)


def test_the_versions_of_the_schema_are_counted_from_one() -> None:
    """Without gaps, so that none is left out by a wrong name."""
    versions = [each.version for each in schema.migrations()]

    assert list(range(1, len(versions) + 1)) == versions


async def test_a_database_that_is_not_there_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, exit status 1."""
    url = "postgresql://central:secret@127.0.0.1:1/central"

    code = await asyncio.to_thread(main, ["migrate", "--database", url])

    said = capsys.readouterr().err
    assert (1, 1, False) == (code, said.count("\n"), "secret" in said)
    assert "CENTRAL_STUB_DATABASE" in said
