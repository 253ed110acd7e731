"""The network, as a transport of httpx over aiohttp's client.

httpx's own transport takes 1.1 ms of one core for a page of 500 events, aiohttp's client, with its
parser in C, 0.5 ms; whatever else plays Central (a simulated line, a fake) stays a transport too.

Knows: connections and how long they are kept, deadlines of single operations, and which of httpx's
errors each failure of aiohttp is. Nothing of the environment, no redirect and no cookie is used.
Refuses to know: what is asked, and what an answer means.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx
from yarl import URL

READ_BYTES = 256 * 1024
"""How much may wait to be read before the line is told to pause: a page of events at once."""

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
"""The first that fits counts."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError) as exc:
        raise next(named for kind, named in _ERRORS if isinstance(exc, kind))(str(exc)) from exc


class _Body(httpx.AsyncByteStream):
    """An answer's body as it comes. Closed before its end, it takes the connection with it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.close()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """At most `connections` at once, each closed after `idle_seconds` without use.

    `tls`: who is trusted, for https addresses; None: whom httpx trusts.
    """

    def __init__(
        self, *, connections: int, idle_seconds: float, tls: ssl.SSLContext | None
    ) -> None:
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx.TransportError."""
        seconds = request.extensions["timeout"]
        with _translated():
            response = await self._opened(request.url.scheme).request(
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
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self, scheme: str) -> aiohttp.ClientSession:
        """Made when first used: it belongs to the running loop."""
        if self._session is None:
            if scheme == "https" and self._tls is None:
                self._tls = httpx.create_ssl_context(trust_env=False)
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(
                    keepalive_timeout=self._idle_seconds,
                    limit=self._connections,
                    ssl=self._tls or True,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=READ_BYTES,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        return self._session
