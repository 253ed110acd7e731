"""Connection limits and a clean stop: deadlines, caps, and what a stop waits for."""

import asyncio
import logging
import socket
from contextlib import ExitStack
from dataclasses import replace

import pytest

from store_cache.api.limits import ConnectionLimits
from store_cache.api.server import CannotServe, serve
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import DEADLINE_SECONDS, Connection, head_of, until
from tests.harness.virtual_time import in_virtual_time
from tests.unit.api.conftest import TILL, Opened, Store
from tests.unit.api.twins import memory_server

INVENTORY = "/v1/store/inventory"
SHORT = ConnectionLimits(
    first_byte_seconds=0.1,
    idle_seconds=0.1,
    head_seconds=0.1,
    unread_seconds=0.1,
    check_seconds=0.01,
)
LATE_HEAD = ConnectionLimits(head_seconds=0.1, check_seconds=0.01)
UNREAD = ConnectionLimits(unread_seconds=0.1, check_seconds=0.01)
SILENT = ConnectionLimits(first_byte_seconds=0.1, idle_seconds=0.1, check_seconds=0.01)


async def test_a_connection_without_a_request_is_closed(open_store: Opened) -> None:
    """A client that only connects does not keep its connection."""
    store = await open_store(limits=SILENT)
    line = await store.line()

    assert b"" == await line.ended()


async def test_a_connection_is_kept_for_the_next_request(open_store: Opened) -> None:
    """Between two requests it may be idle for a while, then it is closed."""
    store = await open_store(limits=SILENT)
    line = await store.line()
    replies = [await line.send("GET", INVENTORY, headers=TILL) for _ in range(3)]

    assert [200] * 3 == [reply.status for reply in replies]
    assert b"" == await line.ended()


async def test_an_endless_head_ends_the_connection(open_store: Opened) -> None:
    """The deadline counts from the first byte; more bytes do not extend it."""
    store = await open_store(limits=LATE_HEAD)
    line = await store.line()
    await line.send("GET", INVENTORY, headers=TILL)
    line.writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")

    dripping = asyncio.create_task(_drip(line))

    assert b"" == await line.ended()
    dripping.cancel()


async def _drip(line: Connection) -> None:
    while not line.writer.is_closing():
        line.writer.write(b"x")
        await asyncio.sleep(0.02)


async def test_a_body_that_does_not_arrive_is_an_error(open_store: Opened) -> None:
    """The client gets an answer, and the connection ends."""
    store = await open_store(body_seconds=0.05)
    line = await store.begin_post(TILL | {"Content-Length": "100"}, b"{")
    reply = await line.reply()

    assert (400, "invalid_request") == (reply.status, reply.code)
    assert "did not arrive" in reply.json["error"]["message"]


async def test_a_client_that_does_not_read_is_aborted(open_store: Opened) -> None:
    """Unread answers do not pile up: the connection is aborted, which frees their memory."""
    large = "x" * 60_000
    fake = FakeStore(product(f"P{n}", note=large) for n in range(200))
    store = await open_store(fake, limits=UNREAD)
    # A small buffer, so that one answer fills it.
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", store.running.port))
    request = head_of("GET", f"{INVENTORY}?limit=200", TILL, b"")
    await asyncio.get_running_loop().sock_sendall(narrow, request)
    await until(lambda: store.running.connections == 1)
    await until(lambda: store.running.connections == 0)
    narrow.close()

    assert 200 == (await store.get(f"{INVENTORY}?limit=1")).status


async def test_a_long_answer_is_sent_while_it_is_read(open_store: Opened) -> None:
    """A client that reads gets all of it."""
    large = "x" * 60_000
    fake = FakeStore(product(f"P{n}", note=large) for n in range(200))
    store = await open_store(fake, limits=ConnectionLimits(unread_seconds=2.0, check_seconds=0.01))
    reply = await store.get(f"{INVENTORY}?limit=200")

    assert 200 == len(reply.json["products"])


async def test_a_request_may_take_longer_than_the_deadlines(open_store: Opened) -> None:
    """No deadline counts while a request is being answered: Central may be slow."""
    store = await open_store(limits=SHORT)
    store.fake.admission.clear()
    line = await store.begin_write()
    idle = await store.line()
    await idle.ended()
    store.fake.admission.set()

    assert 200 == (await line.reply()).status


async def is_served(line: Connection, target: str = INVENTORY) -> bool:
    return 200 == (await line.send("GET", target, headers=TILL)).status


async def tills_of(store: Store, *addresses: str) -> list[Connection]:
    """Connections from these addresses, on each of which a key was accepted."""
    lines = [await store.line(local_addr=(address, 0)) for address in addresses]
    for line in lines:
        assert await is_served(line)
    return lines


async def test_connections_are_capped_for_each_address(
    open_store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """(T11) Beyond the cap of an address its connections are refused, with one line in the log for
    all; other addresses are served, and so is this one once it has closed a connection."""
    store = await open_store(
        limits=ConnectionLimits(most_connections_per_address=3, local_reserve=0)
    )
    held = await tills_of(store, *["127.0.0.2"] * 3)
    refused = [await store.line(local_addr=("127.0.0.2", 0)) for _ in range(5)]

    assert [b""] * 5 == [await line.ended() for line in refused]
    assert 200 == (await store.get(INVENTORY)).status
    assert 1 == len([one for one in caplog.records if "too many" in one.message])
    held[0].close()
    await until(lambda: store.running.connections == 2)
    assert await is_served(await store.line(local_addr=("127.0.0.2", 0)))


async def test_connections_are_capped_in_all(open_store: Opened) -> None:
    """(T11) Beyond the cap, a connection is closed at once if all others are tills'."""
    store = await open_store(limits=ConnectionLimits(most_connections=2, local_reserve=0))
    held = await tills_of(store, "127.0.0.2", "127.0.0.3")
    refused = await store.line()
    refused.writer.write(head_of("GET", INVENTORY, TILL | {"Connection": "close"}, b""))

    assert b"" == await refused.ended()
    assert all([await is_served(line) for line in held])


async def test_health_checks_of_this_machine_have_a_reserve(open_store: Opened) -> None:
    """At the cap a probe still gets its answer, and closes: the next one does too."""
    store = await open_store(limits=ConnectionLimits(most_connections=2, local_reserve=2))
    await tills_of(store, *["127.0.0.2"] * 3)

    for _ in range(4):
        assert 200 == (await store.send("GET", "/health")).status
        await until(lambda: store.running.connections == 3)


@pytest.mark.parametrize(("count", "addresses"), [(2100, 5), (600, 1)])
async def test_silent_connections_keep_no_till_out(
    open_store: Opened, caplog: pytest.LogCaptureFixture, count: int, addresses: int
) -> None:
    """(T11) Silent connections from five addresses fill the store, or those from one address its
    share; new tills and health checks get in, and tills that were there before stay."""
    store = await open_store(limits=ConnectionLimits(first_byte_seconds=60.0))
    tills = await tills_of(store, "127.0.0.2", "127.0.0.8")
    with ExitStack() as held:
        await asyncio.to_thread(open_silent, store.running.port, count, addresses, held)

        assert store.running.connections <= 2064
        assert 200 == (await store.send("GET", "/health")).status
        assert all([await is_served(line) for line in tills])
        await tills_of(store, *[f"127.0.0.{n}" for n in range(2, 9)])
    assert 1 == len([one for one in caplog.records if "to make room" in one.message])


def open_silent(port: int, count: int, addresses: int, held: ExitStack) -> None:
    for number in range(count):
        silent = held.enter_context(socket.socket())
        silent.bind((f"127.0.0.{2 + number % addresses}", 0))
        silent.connect(("127.0.0.1", port))


async def test_the_oldest_stranger_makes_room(open_store: Opened) -> None:
    """Of the connections without a key, the oldest is closed; one on which a wrong key was sent, or
    a part of a request, is no better."""
    store = await open_store(limits=ConnectionLimits(most_connections=3, local_reserve=0))
    [till] = await tills_of(store, "127.0.0.2")
    strangers = [await store.line() for _ in range(2)]
    reply = await strangers[0].send("GET", INVENTORY, headers={"X-API-Key": "guess"})
    strangers[1].writer.write(b"GET / HTTP/1.1\r\n")
    new = await store.line()

    assert 401 == reply.status
    assert await is_served(new)
    assert b"" == await strangers[0].ended()
    newer = await store.line()
    assert await is_served(newer)
    assert b"" == await strangers[1].ended()
    assert await is_served(till)


@in_virtual_time
async def test_a_till_between_requests_keeps_its_connection() -> None:
    """(T10) The first byte has to come within 5 s, the next request within 75 s."""
    async with memory_server(FakeStore([product("PROD-001")])) as server:
        silent, till = server.connect(), server.connect()
        till.feed(head_of("GET", INVENTORY, TILL, b""))
        closed = []
        for seconds in (4.0, 2.0, 68.0, 2.0):
            await asyncio.sleep(seconds)
            closed.append((silent.is_closed, till.is_closed))

    assert [(False, False), (True, False), (True, False), (True, True)] == closed


@in_virtual_time
async def test_the_first_head_has_its_time_from_its_first_byte() -> None:
    """(T10) A first byte that comes late leaves as much time for the rest."""
    async with memory_server(FakeStore([product("PROD-001")])) as server:
        slow = server.connect()
        await asyncio.sleep(4.0)
        slow.feed(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(9.0)
        was_closed = slow.is_closed
        slow.feed(b"Host: store\r\n")
        await asyncio.sleep(2.0)

    assert (False, True, b"") == (was_closed, slow.is_closed, bytes(slow.sent))


@pytest.mark.parametrize(
    ("open_files", "most"), [(-1, 2048), (65_536, 2048), (1024, 824), (256, 128), (64, 32)]
)
def test_connections_leave_files_to_the_store(open_files: int, most: int) -> None:
    """Where few files may be open (-1: any number), fewer connections are admitted."""
    limits = ConnectionLimits.within(open_files)

    assert most == limits.most_connections
    assert (most < 2048) == ("LimitNOFILE" in limits.cure)


async def test_refused_connections_are_logged_with_a_cure(
    open_store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """If the limit of open files is what refuses them, the line says how to raise it."""
    store = await open_store(limits=replace(ConnectionLimits.within(4), local_reserve=0))
    await tills_of(store, "127.0.0.2", "127.0.0.3")
    refused = await store.line()

    assert b"" == await refused.ended()
    [logged] = [one.__dict__ for one in caplog.records if "too many" in one.message]
    assert "raise the limit of open files, now 4: LimitNOFILE= or ulimit -n" == logged["cure"]


async def test_malformed_requests_are_not_repeated(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the answer nor the log repeats a malformed request, which may contain a key."""
    caplog.set_level(logging.DEBUG)
    line = await store.line()
    line.writer.write(b"GET /health HTTP/1.1\r\nX-API-Key : canary\x00key\r\n\r\n")
    reply = await line.reply()

    assert (400, "invalid_request") == (reply.status, reply.code)
    assert reply.headers["X-Request-ID"]
    assert "store-cache" == reply.headers["Server"]
    assert b"canary" not in reply.body
    assert "canary" not in caplog.text


async def test_a_stop_lets_requests_end(open_store: Opened) -> None:
    """A write under way is answered; an idle connection is closed, a new one refused."""
    store = await open_store()
    store.fake.admission.clear()
    idle = await store.line()
    await idle.send("GET", "/health")
    busy = await store.begin_write()
    stopping = asyncio.create_task(store.running.stop(grace_seconds=DEADLINE_SECONDS))

    assert b"" == await idle.ended()
    with pytest.raises(ConnectionRefusedError):
        await Connection.open(store.running.port)
    store.fake.admission.set()
    assert 200 == (await busy.reply()).status
    await stopping


async def test_a_stop_cancels_requests_after_the_grace(open_store: Opened) -> None:
    """A request that does not end within the grace is cancelled and answered: its outcome is not
    known. Its connection is closed."""
    store = await open_store()
    store.fake.admission.clear()
    line = await store.begin_write()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await store.running.stop(grace_seconds=0.05)
    reply = await line.reply()

    assert (504, "central_timeout") == (reply.status, reply.code)
    assert b"" == await line.ended()


async def test_a_till_that_leaves_before_its_answer_is_no_defect(
    open_store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is counted out once, before its request ends."""
    store = await open_store()
    store.fake.admission.clear()
    line = await store.begin_write()
    line.reset()
    await until(lambda: store.running.connections == 0)
    store.fake.admission.set()
    await store.running.stop(grace_seconds=DEADLINE_SECONDS)
    assert [] == [one.getMessage() for one in caplog.records if one.exc_info]


async def test_a_stop_cancels_requests_of_disconnected_clients(open_store: Opened) -> None:
    """A request whose client has disconnected does not outlive the server."""
    store = await open_store()
    store.fake.admission.clear()
    others = asyncio.all_tasks()
    line = await store.begin_write()
    line.reset()
    await until(lambda: store.running.connections == 0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await store.running.stop(grace_seconds=0.05)

    assert asyncio.all_tasks() <= others


async def test_a_port_in_use_is_an_error(store: Store) -> None:
    """The message names the port and what to do."""
    with pytest.raises(CannotServe, match=r"port \d+: .*; stop the other process, or set PORT"):
        await serve(store.app, host="127.0.0.1", port=store.running.port)
