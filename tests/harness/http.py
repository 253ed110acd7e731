"""HTTP as bytes on a connection: what is sent is what the test says, nothing is normalised."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from multidict import CIMultiDict

DEADLINE_SECONDS = 5.0
HEAD_END = b"\r\n\r\n"

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])

    @property
    def fields(self) -> dict[str, str]:
        """An error's message for each bad field."""
        return dict(self.json["error"]["details"]["fields"])


def head_of_reply(head: bytes) -> tuple[int, CIMultiDict[str]]:
    """Status and headers; `head` ends with its empty line."""
    status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    parts = (line.partition(":") for line in lines)
    return int(status_line.split(" ")[1]), CIMultiDict((n, v.strip()) for n, _, v in parts)


def head_of(method: str, target: str, headers: Headers, body: bytes) -> bytes:
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in pairs}
    if body and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", "Host: store"]
    lines += [f"{name}: {value}" for name, value in pairs]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Connection:
    """One connection to a server on this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, **options: Any) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        within_seconds: float = DEADLINE_SECONDS,
    ) -> Reply:
        self.writer.write(head_of(method, target, headers, body) + body)
        return await self.reply(method, within_seconds=within_seconds)

    async def reply(
        self, method: str = "GET", *, within_seconds: float = DEADLINE_SECONDS
    ) -> Reply:
        async with asyncio.timeout(within_seconds):
            status, headers = head_of_reply(await self.reader.readuntil(HEAD_END))
            has_body = method != "HEAD" and status not in (100, 204, 304)
            size = int(headers.get("Content-Length", "0")) if has_body else 0
            return Reply(status, headers, await self.reader.readexactly(size))

    async def ended(self) -> bytes:
        """Wait until the other side closes; return what it sent until then."""
        with suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self.reader.read()
        return b""

    def close(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """Leave no doubt that nobody waits for an answer: half-closed connections get theirs."""
        at_once = struct.pack("ii", 1, 0)
        connected = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event to wait for, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the server tells tests nothing by itself
            await asyncio.sleep(0.005)
