"""The network, as an httpx transport over aiohttp's client.

httpx's own transport takes 1.1 ms of processor time for a page of 500 events; aiohttp's client,
with its parser in C, takes 0.5 ms. The interface is that of httpx, so that tests can replace the
network by another transport.

No setting of the environment, redirect or cookie is used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from yarl import URL

READ_BUFFER_BYTES = 256 * 1024
"""Bytes that may wait to be read before the peer is paused: a page of events fits at once."""

PARSED_AT_ONCE_BYTES = 16 * 1024
"""Bytes that the HTTP parser gets before other tasks may run. Chunks of a byte, or interim answers,
cost it some ten milliseconds; ordinary answers a thousandth of that."""

_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (OSError, httpx.ReadError),
    (aiohttp.ClientError, httpx.NetworkError),
)
"""The first match counts."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """At most `connections` at once, each closed after `idle_seconds` without use.

    `tls` says which certificates are trusted for https; None: those that httpx trusts.
    """

    def __init__(
        self, *, connections: int, idle_seconds: float, tls: ssl.SSLContext | None
    ) -> None:
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return the answer's head; its body is a stream.

        Raises:
            httpx.TransportError
        """
        seconds = request.extensions["timeout"]
        with _translated_errors():
            session = self._session or self._open_session(request.url.scheme)
            response = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers={name.decode(): value.decode() for name, value in request.headers.raw},
                data=request.content or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=seconds["pool"] + seconds["connect"],
                    sock_connect=seconds["connect"],
                    sock_read=seconds["read"],
                ),
            )
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_ResponseStream(response)
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open_session(self, scheme: str) -> aiohttp.ClientSession:
        """Open the session at the first request, because it belongs to the running loop."""
        if scheme == "https" and self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        connector = aiohttp.TCPConnector(
            keepalive_timeout=self._idle_seconds,
            limit=self._connections,
            ssl=self._tls or True,
        )
        connector._factory = _paced(asyncio.get_running_loop())
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        return self._session


def _paced(loop: asyncio.AbstractEventLoop) -> Any:
    return partial(PacedResponseHandler, loop)  # aiohttp's own is partial(ResponseHandler, loop)


class PacedResponseHandler(ResponseHandler):
    """Hands what arrives at once to the HTTP parser in parts, with other tasks in between.

    aiohttp parses all that the socket had, up to 256 KiB, before anything else runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._waiting = bytearray()  # behind what was parsed; the transport is paused meanwhile
        self._is_scheduled = False

    def data_received(self, data: bytes) -> None:
        is_little = len(data) <= PARSED_AT_ONCE_BYTES and not self._waiting
        if is_little or not data or self.upgraded:  # without data the parser goes on with its own
            super().data_received(data)
            return
        self._waiting += data
        if not self._is_scheduled:
            self._parse_part()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp calls this for each chunk that is read
            super().resume_reading(resume_parser)
            self._schedule()

    @property
    def should_close(self) -> bool:
        """What follows an answer belongs to no request: the connection must not be used again."""
        return bool(self._waiting) or super().should_close

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._waiting:  # TLS tells of the end in the same moment as of the last bytes
            rest = bytes(self._waiting)
            self._waiting.clear()
            super().data_received(rest)
        super().connection_lost(exc)

    def _schedule(self) -> None:
        if self._waiting and not self._reading_paused and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._parse_next)

    def _parse_next(self) -> None:
        self._is_scheduled = False
        if self._waiting and not self._reading_paused:  # else `resume_reading` goes on
            self._parse_part()

    def _parse_part(self) -> None:
        part = bytes(self._waiting[:PARSED_AT_ONCE_BYTES])
        del self._waiting[:PARSED_AT_ONCE_BYTES]
        super().data_received(part)
        if self._waiting:
            self._pause_reading_for_buffer()
            self._schedule()
        elif self._buffer_paused:
            self._resume_reading_for_buffer()


class _ResponseStream(httpx.AsyncByteStream):
    """The body of an answer. Closing it before its end closes the connection."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated_errors():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.close()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        kind = next(theirs for ours, theirs in _ERRORS if isinstance(error, ours))
        raise kind(str(error)) from error
