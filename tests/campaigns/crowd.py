"""Slow and silent clients of a store, by the thousand: `python -m tests.campaigns.crowd PORT`.

They come from five addresses of this machine, and each comes back some seconds after the store has
ended its connection. The process writes a line of JSON each second, as `Told` says, until its
standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import orjson
import uvloop

from tests.harness.clients import INVENTORY, TILL_KEY, path_of
from tests.harness.http import Connection, head_of
from tests.harness.streams import STREAM

ADDRESSES = tuple(f"127.0.0.{number}" for number in range(51, 56))
STEP_SECONDS = 0.5
BACK_SECONDS = 2.0, 4.0
TELL_SECONDS = 1.0
TAKEN_BYTES = 100
PIPELINED = 20

KEY = {"X-API-Key": TILL_KEY}
PAGE = head_of("GET", f"{INVENTORY}?limit=200", KEY, b"")
READ = head_of("GET", path_of("P-00000"), KEY, b"")
FOLLOW = head_of("GET", f"{STREAM}?from=start", KEY, b"")
HEAD = b"GET / HTTP/1.1\r\nHost: store\r\n"
HEAD_WITH_KEY = HEAD + f"X-API-Key: {TILL_KEY}\r\n".encode()
LOOKUP = head_of("POST", f"{INVENTORY}/lookup", {**KEY, "Content-Length": "100000"}, b"")


class Kind(StrEnum):
    """`HEADS`: send a head byte by byte. `BODIES`: a right head, then a body byte by byte. `PAGES`:
    ask for many pages and take them a few bytes at a time. `STREAMS`: do so with a stream.
    `SILENT`: send nothing. `IDLE`: read one product with a right key, then send nothing."""

    HEADS = "slow heads"
    BODIES = "slow bodies"
    PAGES = "slow readers of pages"
    STREAMS = "slow readers of streams"
    SILENT = "silent"
    IDLE = "silent after a right read"


SLOW = (Kind.HEADS, Kind.BODIES, Kind.PAGES, Kind.STREAMS)


@dataclass
class Told:
    """`connected`: how many of each kind have a connection now; `opened`: how many were made so
    far; `refused`: how many the store or the system did not accept."""

    connected: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    opened: int = 0
    refused: int = 0


async def be_slow(port: int, kind: Kind, address: str, told: Told) -> None:
    """Connect as a client of that kind, again and again."""
    await asyncio.sleep(random.random() * 2)
    behave = _BEHAVIOUR[kind]
    while True:
        line = None
        try:
            line = await _open(port, address)
            told.opened += 1
            told.connected[kind] += 1
            with suppress(ConnectionError):
                await behave(line)
        except OSError:
            told.refused += 1
        finally:
            if line is not None:
                told.connected[kind] -= 1
                line.close()
        await asyncio.sleep(random.uniform(*BACK_SECONDS))


async def _open(port: int, address: str) -> Connection:
    """A connection whose client takes a few bytes at a time."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    wire.setblocking(False)
    try:
        wire.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", port))
        return Connection(*await asyncio.open_connection(sock=wire, limit=1024))
    except BaseException:
        wire.close()
        raise


async def _send_slowly(line: Connection, first: bytes, pieces: bytes) -> None:
    line.writer.write(first)
    for byte in itertools.cycle(pieces):
        if await _has_ended(line):
            return
        line.writer.write(bytes([byte]))


async def _has_ended(line: Connection) -> bool:
    """Wait for a step; return whether the store has ended the connection."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STEP_SECONDS):
            return not await line.reader.read(1)
    return False


async def _take_slowly(line: Connection, request: bytes) -> None:
    line.writer.write(request)
    while await line.reader.read(TAKEN_BYTES):
        await asyncio.sleep(STEP_SECONDS)


async def _stay(line: Connection, request: bytes) -> None:
    line.writer.write(request)
    while await line.reader.read(10_000):
        pass


_BEHAVIOUR: dict[Kind, Callable[[Connection], Awaitable[None]]] = {
    Kind.HEADS: lambda line: _send_slowly(
        line, random.choice((HEAD, HEAD_WITH_KEY)), b"X-A: b\r\n"
    ),
    Kind.BODIES: lambda line: _send_slowly(line, LOOKUP, b" "),
    Kind.PAGES: lambda line: _take_slowly(line, PAGE * PIPELINED),
    Kind.STREAMS: lambda line: _take_slowly(line, FOLLOW),
    Kind.SILENT: lambda line: _stay(line, b""),
    Kind.IDLE: lambda line: _stay(line, READ),
}


def kinds(slow: int, silent: int) -> Sequence[Kind]:
    """The kind of each client: the four slow ones in equal parts, and one in ten of the silent with
    a key."""
    slow_ones = [SLOW[number % len(SLOW)] for number in range(slow)]
    return [*slow_ones, *(Kind.SILENT if n % 10 else Kind.IDLE for n in range(silent))]


async def crowd(port: int, slow: int, silent: int) -> None:
    told = Told()
    clients = [
        be_slow(port, kind, ADDRESSES[number % len(ADDRESSES)], told)
        for number, kind in enumerate(kinds(slow, silent))
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (*clients, _tell(told))]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()


async def _tell(told: Told) -> None:
    while True:
        sys.stdout.write(orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
        sys.stdout.flush()
        await asyncio.sleep(TELL_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--silent", type=int, default=2000)
    options = parser.parse_args()
    uvloop.run(crowd(options.port, options.slow, options.silent))


if __name__ == "__main__":
    main()
