"""The common answer in one write, without aiohttp's handling of headers.

It is used for a small 200 to an HTTP/1.1 request on a connection that stays open; other answers are
a `web.Response`. Processor time of waking 10,000 held polls: 0.19 to 0.44 s (median 0.28) instead
of 0.38 to 0.52 (median 0.45).
"""

import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from central_stub.wire import Reply

LARGEST_BYTES = 1 << 16
"""Above this, a slow reader must be waited for, which one write does not do."""


def response_of(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Return the fastest response with this reply to this request."""
    if (
        reply.status == 200
        and request.version == HttpVersion11
        and request.keep_alive
        and request.method != "HEAD"
        and len(reply.body) <= LARGEST_BYTES
    ):
        return OneWrite(reply)
    return web.Response(
        status=reply.status,
        body=reply.body,
        content_type=reply.content_type,
        headers=reply.headers,
    )


class OneWrite(web.StreamResponse):
    """Head and body of a 200 in one write."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        if request.transport is None:
            raise ConnectionResetError("the caller is gone")
        request.transport.write(_bytes(self._reply))
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was written by `prepare`."""


def _bytes(reply: Reply) -> bytes:
    names = tuple(reply.headers.items())
    return _head(int(time.time()), reply.content_type, len(reply.body), names) + reply.body


@lru_cache(maxsize=1)
def _head(
    second: int, content_type: str, length: int, headers: tuple[tuple[str, str], ...]
) -> bytes:
    """Return the head, which is the same for all polls that are woken within a second."""
    lines = [
        "HTTP/1.1 200 OK",
        f"Date: {formatdate(second, usegmt=True)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
