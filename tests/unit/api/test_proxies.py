"""Proxies: whose word on a client's address is taken, and what is read from it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct

import pytest

from store_cache.api import middleware
from store_cache.api.limits import ConnectionLimits
from store_cache.api.proxies import SIGNATURE, ProxyHeader, TrustedProxies
from tests.harness.clients import TILL_KEY
from tests.harness.http import HEAD_END, Connection, head_of, head_of_reply, until
from tests.unit.api.conftest import TILL, Opened, Store

PROXIES = TrustedProxies.parse(["10.0.0.1", "10.9.0.0/16", "2001:db8::1", "proxy-v2:10.0.0.2"])
TARGET = "/v1/store/inventory/PROD-001"


def header(
    client: str = "203.0.113.7", *, command: int = 1, family: int | None = None, tail: bytes = b""
) -> bytes:
    """A header of PROXY protocol v2, with `tail` behind its addresses."""
    address = ipaddress.ip_address(client)
    known = 0x11 if address.version == 4 else 0x21
    body = address.packed + address.packed + struct.pack(">HH", 50_000, 8083) + tail
    return (
        SIGNATURE
        + bytes([0x20 | command, known if family is None else family])
        + (struct.pack(">H", len(body)) + body)
    )


# -- X-Forwarded-For -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.7, 10.9.3.4"], "203.0.113.7"),
        ("10.0.0.1", ["10.9.3.4,2001:db8::1"], "10.9.3.4"),
        ("10.0.0.1", ["203.0.113.7:55123"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:55123"], "2001:db8::7"),
        ("10.0.0.1", ["2001:DB8:0::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, , 10.9.3.4"], "10.9.3.4"),
        ("203.0.113.9", ["6.6.6.6"], "203.0.113.9"),
        ("10.0.0.2", ["6.6.6.6"], "10.0.0.2"),
        ("", ["6.6.6.6"], ""),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(
    peer: str, forwarded: list[str], client: str
) -> None:
    """(T2) What a client writes there itself is never taken for its address, and what is no address
    ends at the proxy that added it."""
    assert client == PROXIES.client_of(peer, forwarded)


@pytest.mark.parametrize("entry", ["", "proxy", "10.0.0.1/8", "proxy-v2:", "10.0.0.1:80", "*"])
def test_a_wrong_entry_is_named(entry: str) -> None:
    """Networks without host bits, since these may be a mistake."""
    with pytest.raises(ValueError, match="which is no address or network"):
        TrustedProxies.parse(["10.0.0.1", entry])


async def test_wrong_keys_count_for_the_client_behind_a_proxy(open_store: Opened) -> None:
    """(T2) One client that guesses does not have the others answered 429."""
    store = await open_store(proxies=["127.0.0.1"])

    async def guess(client: str) -> int:
        headers = {"X-API-Key": "guess", "X-Forwarded-For": f"6.6.6.6, {client}"}
        return (await store.send("GET", TARGET, headers=headers)).status

    statuses = [await guess("203.0.113.7") for _ in range(21)]

    assert 429 == statuses[-1]
    assert 401 == await guess("203.0.113.8")


@pytest.mark.parametrize(("proxies", "logged"), [(["127.0.0.1"], "6.6.6.6"), ([], "127.0.0.1")])
async def test_the_log_names_the_client(
    open_store: Opened, caplog: pytest.LogCaptureFixture, proxies: list[str], logged: str
) -> None:
    """Without a trusted proxy, whoever opened the connection."""
    caplog.set_level(logging.DEBUG, middleware.__name__)
    store = await open_store(proxies=proxies)
    await store.send("GET", TARGET, headers=TILL | {"X-Forwarded-For": "6.6.6.6"})

    assert [logged] == [line.__dict__["address"] for line in caplog.records]


async def test_reads_through_a_proxy_are_fast(open_store: Opened) -> None:
    """Fields that proxies add do not keep a read from the fast path."""
    store = await open_store(proxies=["127.0.0.1"])
    line = await store.line()
    fields = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Real-IP": "1.1.1.1",
    }
    replies = [await line.send("GET", TARGET, headers=TILL | fields) for _ in range(2)]

    assert [200, 200] == [reply.status for reply in replies]
    assert 0 == store.running._server.requests_count


async def test_a_proxy_has_no_cap_of_its_own(open_store: Opened) -> None:
    """(T2) All clients behind one that forwards HTTP come from its address."""
    limits = ConnectionLimits(most_connections_per_address=2, local_reserve=0)
    store = await open_store(proxies=["127.0.0.1"], limits=limits)
    lines = [await store.line() for _ in range(5)]
    replies = [await line.send("GET", TARGET, headers=TILL) for line in lines]

    assert [200] * 5 == [reply.status for reply in replies]


# -- PROXY protocol v2 -----------------------------------------------------------------------------


def client_in(sent: bytes, size: int = 4096) -> str | None:
    """Read a header in pieces of this size; return the client that it names."""
    reading, at = ProxyHeader(), 0
    while reading.missing:
        piece = sent[at : at + min(size, reading.missing)]
        reading.add(piece)
        at += len(piece)
    assert len(sent) == at
    return reading.client()


@pytest.mark.parametrize(
    ("sent", "client"),
    [
        (header("203.0.113.7"), "203.0.113.7"),
        (header("2001:db8::7"), "2001:db8::7"),
        (header("::ffff:203.0.113.7"), "203.0.113.7"),
        (header("203.0.113.7", tail=b"\x03\x00\x04abcd"), "203.0.113.7"),
        (header("203.0.113.7", command=0), None),
        (header("203.0.113.7", command=0, family=0), None),
        (header("203.0.113.7", family=0), None),
        (header("203.0.113.7", family=0x31), None),
        (header("203.0.113.7", family=0x12), None),
        (SIGNATURE + b"\x20\x00\x00\x00", None),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_header_is_read_in_any_pieces(sent: bytes, client: str | None, size: int) -> None:
    """No byte behind it is taken. A health check of the proxy itself names no client; nor does a
    family that has no TCP addresses."""
    assert client == client_in(sent, size)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.1.1",
        SIGNATURE + b"\x11\x11\x00\x0c",
        SIGNATURE + b"\x22\x11\x00\x0c",
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
    ],
)
def test_what_is_no_header_is_refused(sent: bytes) -> None:
    """(T2) Version 1, other versions and commands, lengths that cannot be."""
    with pytest.raises(ValueError, match="header"):
        client_in(sent)


async def ask(store: Store, before: bytes, key: str = TILL_KEY) -> int:
    """Send this and a read on a new connection; return the status, 0 if it is closed instead."""
    line = await store.line()
    request = head_of("GET", TARGET, {"X-API-Key": key}, b"")
    line.writer.write(before + request)
    try:
        return head_of_reply(await line.reader.readuntil(HEAD_END))[0]
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0


async def test_a_connection_begins_with_the_header(open_store: Opened) -> None:
    """Its client is counted by wrong keys and by the cap for each address. The rest of the
    connection is as without a proxy, fast reads too."""
    limits = ConnectionLimits(most_connections_per_address=2)
    store = await open_store(proxies=["proxy-v2:127.0.0.1"], limits=limits)

    assert 200 == await ask(store, header("203.0.113.7"))
    assert 200 == await ask(store, header("203.0.113.7"))
    assert 0 == await ask(store, header("203.0.113.7"))
    assert 200 == await ask(store, header("2001:db8::7"))
    assert 200 == await ask(store, header(command=0))
    assert 0 == store.running._server.requests_count
    assert 5 == store.running.connections + 1


async def test_a_header_in_pieces_and_a_request_behind_it(open_store: Opened) -> None:
    """However the bytes are cut."""
    store = await open_store(proxies=["proxy-v2:127.0.0.1"])
    line = await store.line()
    sent = header("203.0.113.7", tail=bytes(30)) + head_of("GET", TARGET, TILL, b"")
    for at in range(0, len(sent), 9):
        line.writer.write(sent[at : at + 9])
        await line.writer.drain()
        await asyncio.sleep(0)
    reply = await line.reply()

    assert 200 == reply.status
    assert 200 == (await line.send("GET", TARGET, headers=TILL)).status


@pytest.mark.parametrize("before", [b"", header(command=2), b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"])
async def test_a_proxy_that_sends_no_header_is_refused(
    open_store: Opened, before: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """(T2) The connection ends, and the log says which setting to look at: a guess would let
    clients send the header themselves."""
    store = await open_store(proxies=["proxy-v2:127.0.0.1"])

    assert 0 == await ask(store, before)
    assert 0 == store.running.connections
    [line] = [each for each in caplog.records if "TRUSTED_PROXIES" in each.message]
    assert "header" in line.__dict__["reason"]


async def test_a_header_of_anyone_else_is_a_bad_request(open_store: Opened) -> None:
    """(T2) Nobody can name another address for themselves."""
    store = await open_store(proxies=["proxy-v2:10.0.0.1"])

    assert 400 == await ask(store, header("203.0.113.7"))
    assert 200 == await ask(store, b"")


async def test_a_proxy_that_is_silent_is_ended(
    open_store: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its deadline; a client's silence behind it has the usual one."""
    monkeypatch.setattr("store_cache.api.front.HEADER_SECONDS", 0.05)
    limits = ConnectionLimits(first_byte_seconds=0.05, check_seconds=0.02)
    store = await open_store(proxies=["proxy-v2:127.0.0.1"], limits=limits)
    silent, half, quiet = [await store.line() for _ in range(3)]
    half.writer.write(header()[:20])
    quiet.writer.write(header())

    assert [b"", b"", b""] == [await line.ended() for line in (silent, half, quiet)]
    await until(lambda: store.running.connections == 0)


async def test_a_stop_ends_connections_that_have_not_begun(open_store: Opened) -> None:
    """A proxy that opens connections in advance does not delay it."""
    store = await open_store(proxies=["proxy-v2:127.0.0.1"])
    line: Connection = await store.line()
    line.writer.write(header()[:20])
    await asyncio.sleep(0.05)
    await store.running.stop(grace_seconds=1.0)

    assert b"" == await line.ended()


@pytest.fixture
def own_address() -> str:
    """An address of this machine that others can reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # of a datagram socket, that sends nothing
        except OSError:
            pytest.skip("this machine has no address but its own")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
async def test_a_proxy_elsewhere_has_no_client_on_this_machine(
    open_store: Opened, own_address: str, client: str
) -> None:
    """(T2) Whatever it says: the places for this machine's own probes are not for it."""
    limits = ConnectionLimits(most_connections=1, local_reserve=1)
    proxies = [f"proxy-v2:{own_address}", "proxy-v2:127.0.0.1"]
    store = await open_store(proxies=proxies, limits=limits)
    till = await store.line()
    till.writer.write(header())
    assert 200 == (await till.send("GET", TARGET, headers=TILL)).status
    elsewhere = await store.line(local_addr=(own_address, 0))
    elsewhere.writer.write(header(client))
    here = await store.line()
    here.writer.write(header("127.0.0.1"))

    assert b"" == await elsewhere.ended()
    assert 200 == (await here.send("GET", "/health")).status
