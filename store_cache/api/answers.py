"""Answers that several handlers give: JSON that no cache may keep, content with a tag, and answers
that go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from time import time
from typing import Any

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import CONTENT_LENGTH, DATE, IF_NONE_MATCH, METH_HEAD
from aiohttp.http import HttpVersion11

from store_cache.api.content.entity_tags import matches


class WholeAnswer(web.Response):
    """An answer with a body that is there, written at once where nothing is unusual.

    aiohttp takes a dozen steps for it. They are left to requests that need them: HEAD, HTTP/1.0,
    the last one of a connection, and those of clients that do not read.
    """

    _is_written = False

    @property
    def keep_alive(self) -> bool | None:
        return True if self._is_written else super().keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        transport, body = request.transport, self.body
        if (
            transport is None
            or transport.is_closing()
            or not isinstance(body, bytes)
            or request.method == METH_HEAD
            or request.version != HttpVersion11
            or not request.keep_alive
            or self.keep_alive is False
            or request.protocol.writing_paused
        ):
            return await super().prepare(request)
        self.headers[CONTENT_LENGTH] = str(len(body))
        self.headers[DATE] = http_date(int(time()))
        transport.write(head_of(self) + body)
        self._is_written = True
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._is_written:
            await super().write_eof(data)


class LongAnswer(web.StreamResponse):
    """An answer whose body goes on while its client reads.

    The middleware calls `send` once it has added the headers that every answer has.
    """

    async def send(self, request: web.Request) -> None:
        raise NotImplementedError


def head_of(response: web.Response) -> bytes:
    """Return the head of an answer to HTTP/1.1."""
    fields = "\r\n".join(map(": ".join, response.headers.items()))
    return f"HTTP/1.1 {response.status} {response.reason}\r\n{fields}\r\n\r\n".encode()


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """Return a moment in unix seconds as HTTP writes it."""
    return formatdate(second, usegmt=True)


def outbox_path(outbox_id: str) -> str:
    """Return where an entry of the outbox is found."""
    return f"/v1/store/outbox/{outbox_id}"


def json_answer(
    value: Mapping[str, Any], *, status: int = 200, location: str | None = None
) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if location is not None:
        headers["Location"] = location
    return WholeAnswer(status=status, body=orjson.dumps(value), headers=headers)


def tagged_answer(
    request: web.Request, body: bytes, tag: str, content_type: str, headers: Mapping[str, str]
) -> web.Response:
    """Return 200 with the body, or 304 if the caller holds it."""
    given = {**headers, "ETag": tag}
    if matches(request.headers.getall(IF_NONE_MATCH, ()), tag):
        return web.Response(status=304, headers=given)
    given["Content-Type"] = content_type
    return WholeAnswer(body=body, headers=given)
