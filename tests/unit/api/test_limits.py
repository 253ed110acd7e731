"""Connection limits and a clean stop: deadlines, caps, and what a stop waits for."""

import asyncio
import logging
import socket

import pytest

from store_cache.api.limits import ConnectionLimits
from store_cache.api.server import CannotServe, serve
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import DEADLINE_SECONDS, Connection, head_of, until
from tests.unit.api.conftest import TILL, Opened, Store

INVENTORY = "/v1/store/inventory"
SHORT = ConnectionLimits(idle_seconds=0.1, head_seconds=0.1, unread_seconds=0.1, check_seconds=0.01)
LATE_HEAD = ConnectionLimits(head_seconds=0.1, check_seconds=0.01)
UNREAD = ConnectionLimits(unread_seconds=0.1, check_seconds=0.01)
SILENT = ConnectionLimits(idle_seconds=0.1, check_seconds=0.01)


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
    large = "x" * 100_000
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
    large = "x" * 100_000
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


async def test_connections_are_capped_for_each_address(
    open_store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the cap of an address its connections are refused, with one line in the log for all;
    other addresses are served, and so is this one once it has closed a connection."""
    store = await open_store(limits=ConnectionLimits(most_connections_per_address=3))
    held = [await store.line(local_addr=("127.0.0.2", 0)) for _ in range(3)]
    await held[-1].send("GET", INVENTORY, headers=TILL)
    refused = [await store.line(local_addr=("127.0.0.2", 0)) for _ in range(5)]

    assert [b""] * 5 == [await line.ended() for line in refused]
    assert 200 == (await store.get(INVENTORY)).status
    assert 1 == len([one for one in caplog.records if "too many" in one.message])
    held[0].close()
    await until(lambda: store.running.connections == 2)
    again = await store.line(local_addr=("127.0.0.2", 0))
    assert 200 == (await again.send("GET", INVENTORY, headers=TILL)).status


async def test_connections_are_capped_in_all(open_store: Opened) -> None:
    """Beyond the cap, a connection is closed at once."""
    store = await open_store(limits=ConnectionLimits(most_connections=2))
    held = [await store.line(local_addr=(f"127.0.0.{n}", 0)) for n in (2, 3)]
    for line in held:
        await line.send("GET", INVENTORY, headers=TILL)
    refused = await store.line()

    assert b"" == await refused.ended()


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
    store = await open_store(limits=ConnectionLimits.within(4))
    held = [await store.line() for _ in range(2)]
    for line in held:
        await line.send("GET", INVENTORY, headers=TILL)
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


async def test_a_stop_cancels_requests_of_disconnected_clients(open_store: Opened) -> None:
    """A request whose client has disconnected does not outlive the server."""
    store = await open_store()
    store.fake.admission.clear()
    others = asyncio.all_tasks()
    line = await store.begin_write()
    line.close()
    await until(lambda: store.running.connections == 0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await store.running.stop(grace_seconds=0.05)

    assert asyncio.all_tasks() <= others


async def test_a_port_in_use_is_an_error(store: Store) -> None:
    """The message names the port and what to do."""
    with pytest.raises(CannotServe, match=r"port \d+: .*; stop the other process, or set PORT"):
        await serve(store.app, host="127.0.0.1", port=store.running.port)
