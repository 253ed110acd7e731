"""A thousand readers of changes, in one process: of a store's streams, over HTTP or gRPC, or of
mosquitto's messages.

    python -m benchmarks.harness.stream_readers store|rpc|mosquitto PORT READERS CHANGES [NOTES]

It prints `ready` once all are connected, and after so many changes its `Found` as JSON. It gives up
on what is missing after `PATIENCE_SECONDS` of silence. With CHANGES 0 it goes on reading until it
is ended. NOTES is the file of `noting_store`.

All kinds are read alike, by `recv` from sockets that epoll names: parsing a protocol for each
message would take longer than any server does.
"""

from __future__ import annotations

import re
import select
import socket
import statistics
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.harness.held_polls import allow_files
from benchmarks.harness.noting_store import visible_moments
from benchmarks.harness.observers import STAMP, now_ms, ready
from benchmarks.harness.processes import KEY
from benchmarks.peers.mosquitto import TOPIC

PATIENCE_SECONDS = 20.0
CONNECT_SECONDS = 30.0
READERS_OF_AN_ADDRESS = 400
"""A store admits 512 connections of one address."""

_STAMP = re.compile(rb'"%b":([0-9.]+)' % STAMP.encode())
_RECEIVED_AT_ONCE = 256 * 1024
_REQUEST = (
    "GET /v1/store/inventory/stream HTTP/1.1\r\n"
    f"Host: store\r\nX-API-Key: {KEY}\r\nAccept: text/event-stream\r\n\r\n"
).encode()


_DATA, _HEADERS, _SETTINGS, _WINDOW_UPDATE = 0, 1, 4, 8
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_LARGEST_FRAME = 2**24 - 1
"""No stamp lies across two frames."""

_FIRST_WINDOW, _LARGEST_WINDOW = 65_535, 2**31 - 1


def of_store(port: int, number: int) -> socket.socket:
    """Return the connection of a reader that has been told the store's state."""
    address = f"127.0.0.{2 + number // READERS_OF_AN_ADDRESS}"
    connection = socket.create_connection(
        ("127.0.0.1", port), timeout=CONNECT_SECONDS, source_address=(address, 0)
    )
    connection.sendall(_REQUEST)
    received = b""
    while b"event: state" not in received:
        if not (data := connection.recv(_RECEIVED_AT_ONCE)):
            raise ConnectionError(f"the store ended the connection after {received[:200]!r}")
        received += data
        if not received.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"the store answered {received[:200]!r}")
    return connection


def of_rpc(port: int, _number: int) -> socket.socket:
    """Return the connection of a watcher that has been told the store's state.

    It speaks as much of HTTP/2 (RFC 9113) as it needs: windows so large that they are never full,
    and one call.
    """
    connection = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS)
    given = {_INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, _MAX_FRAME_SIZE: _LARGEST_FRAME}
    settings = b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in given.items())
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/storecache.v1.Inventory/WatchProducts",
        ":authority": "store",
        "content-type": "application/grpc",
        "te": "trailers",
        "x-api-key": KEY,
    }
    # HPACK (RFC 7541, 6.2.2): each field as it is, without an index.
    block = b"".join(
        bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, settings)
        + _frame(_WINDOW_UPDATE, (_LARGEST_WINDOW - _FIRST_WINDOW).to_bytes(4))
        + _frame(_HEADERS, block, flags=_END_HEADERS, stream=1)
        + _frame(_DATA, bytes(5), flags=_END_STREAM, stream=1)  # an empty message
    )
    received = b""
    while b"live" not in received:
        if not (data := connection.recv(_RECEIVED_AT_ONCE)):
            raise ConnectionError(f"the store ended the connection after {received[:200]!r}")
        received += data
    return connection


def _frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


_clients: list[Client] = []  # a client that is freed closes its connection


def of_mosquitto(port: int, _number: int) -> socket.socket:
    """Return the connection of a client that has subscribed."""
    client = Client(CallbackAPIVersion.VERSION2)
    is_subscribed: list[bool] = []

    def subscribe(*_: object) -> None:
        client.subscribe(TOPIC)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: is_subscribed.append(True)
    client.connect("127.0.0.1", port, keepalive=0)
    connection = client.socket()
    assert isinstance(connection, socket.socket)
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    while not is_subscribed:
        if not waiting.poll(CONNECT_SECONDS * 1000):
            raise TimeoutError("mosquitto does not confirm a subscription")
        client.loop_read()
        client.loop_write()  # the subscription
    _clients.append(client)
    return connection


@dataclass(frozen=True)
class Found:
    """How many messages were received, and `[p50, p99]` of how long they took, in milliseconds:
    since their change was sent, and since it was visible in the store."""

    messages: int
    since_sent: list[float]
    since_visible: list[float]


class Readers:
    """`sent` and `received`: a moment of each message, in milliseconds."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self.sent = array("d")
        self.received = array("d")
        self._epoll = select.epoll()
        self._connections = {each.fileno(): each for each in connections}
        self._cut: dict[int, bytes] = {}  # the beginnings of rows whose end is still to come
        for number, each in self._connections.items():
            each.setblocking(False)
            self._epoll.register(number, select.EPOLLIN)

    def read(self, changes: int) -> None:
        """Read until each has got so many changes, or nothing comes any more."""
        most = changes * len(self._connections)
        while len(self.sent) < most and self._read_some(PATIENCE_SECONDS):
            pass

    def read_on(self) -> None:
        """Read for ever, and note nothing."""
        while True:
            for number, _ in self._epoll.poll():
                self._connections[number].recv(_RECEIVED_AT_ONCE)

    def found(self, notes: Path | None) -> Found:
        pairs = list(zip(self.sent, self.received, strict=True))
        since_sent = [received - sent for sent, received in pairs]
        if notes is None:
            return Found(len(pairs), cuts(since_sent), [])
        visible = visible_moments(notes)
        since_visible = [received - visible[sent] for sent, received in pairs]
        return Found(len(pairs), cuts(since_sent), cuts(since_visible))

    def _read_some(self, patience_seconds: float) -> bool:
        """Read what is there, and note it; return whether anything came in time."""
        found = self._epoll.poll(patience_seconds)
        for number, _ in found:
            data = self._connections[number].recv(_RECEIVED_AT_ONCE)
            if not data:
                raise ConnectionError("the server ended the connection of a reader")
            received_at = now_ms()
            if number in self._cut:
                data = self._cut.pop(number) + data
            end = data.rfind(b"}") + 1
            stamps = _STAMP.findall(data, 0, end)
            self.sent.extend(map(float, stamps))
            self.received.extend([received_at] * len(stamps))
            if b"{" in (rest := data[end:]):
                self._cut[number] = rest
        return bool(found)


def cuts(milliseconds: list[float]) -> list[float]:
    hundredths = statistics.quantiles(milliseconds, n=100)
    return [hundredths[49], hundredths[98]]


def main() -> None:
    kind, port, count, changes = sys.argv[1], *map(int, sys.argv[2:5])
    allow_files(3 * count)
    connect: Callable[[int, int], socket.socket]
    connect = {"store": of_store, "rpc": of_rpc, "mosquitto": of_mosquitto}[kind]
    readers = Readers([connect(port, number) for number in range(count)])
    ready()
    if not changes:
        readers.read_on()
    readers.read(changes)
    notes = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    print(orjson.dumps(readers.found(notes)).decode(), flush=True)


if __name__ == "__main__":
    main()
