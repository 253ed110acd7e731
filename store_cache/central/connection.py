"""One request to Central and its complete answer.

A `Connection` uses a transport of httpx, without an httpx client: it follows no redirect, keeps no
cookie, and sends no header but its own. It turns every error of a transport into Unreachable or
ExchangeBroken. No message contains a header, which could be the key.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlencode

import httpx

from store_cache.central.carried import carried_headers
from store_cache.central.failures import (
    ExchangeBroken,
    HeldBack,
    Unreachable,
    UnsendableId,
)
from store_cache.central.transport import AiohttpTransport

CONNECT_SECONDS = 3.0
POOL_SECONDS = 3.0

IDLE_SECONDS = 4.0
"""Common servers close a connection that was idle for 5 s. A write sent at that moment would have
an unknown outcome, so the store closes first."""

CONNECTIONS = 128
"""More than the store uses at once, so that no request waits for a connection: such a wait would
end like a Central that accepts none."""

ADDRESSES = 1024
"""Addresses kept, 1.5 MB of them: a quiet feed is polled at the same offset again and again, and
httpx takes 0.1 ms to parse an address."""

_EXCERPT_BYTES = 4096
_EXCERPT_CHARACTERS = 80
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_LENGTH = re.compile(r"[0-9]{1,18}")

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
_REASONS: dict[type[Exception], str] = {
    httpx.ConnectTimeout: "it did not accept a connection in time",
    httpx.ReadTimeout: "it went silent",
    httpx.WriteTimeout: "it stopped taking the request",
    httpx.ReadError: "the connection broke while its answer was read",
    httpx.WriteError: "the connection broke while the request was sent",
    httpx.RemoteProtocolError: "it closed the connection in the middle, or does not speak HTTP",
}


@dataclass(frozen=True, slots=True)
class Request:
    """`subject` names the request in messages: "the feed". `body` is JSON, or None."""

    subject: str
    method: str
    url: httpx.URL
    most_bytes: int
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer. The names of `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytearray


def network_transport(tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
    """Return the way to Central over the network."""
    return AiohttpTransport(connections=CONNECTIONS, idle_seconds=IDLE_SECONDS, tls=tls)


class Connection:
    """The way to one Central, and the only object that knows its key.

    Raises:
        ValueError: `base_url` or `api_key` cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        transport: httpx.AsyncBaseTransport | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        if not _VISIBLE_ASCII.fullmatch(api_key):
            raise ValueError("CENTRAL_API_KEY must be visible ASCII characters")
        self._base = httpx.URL(base_url.rstrip("/"))
        if self._base.scheme not in ("http", "https") or not self._base.host:
            raise ValueError("CENTRAL_API_URL must be an http or https address")
        self._address = lru_cache(maxsize=ADDRESSES)(self._parse_address)
        self._api_key = api_key
        self._netloc = self._base.netloc.decode("ascii")
        self._headers = httpx.Headers(
            {
                "Host": self._netloc,
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # 300 kB can unpack to 300 MB
                "User-Agent": "store-cache",
                "X-API-Key": api_key,
            }
        )
        self._transport = transport or network_transport(tls)

    @property
    def central(self) -> str:
        """Central's host and port, for messages."""
        return f"Central ({self._netloc})"

    async def close(self) -> None:
        await self._transport.aclose()

    def url(self, path: str, query: Mapping[str, str | int] | None = None) -> httpx.URL:
        """Return the address of `path`, which is percent-encoded already, below the base address.

        Raises:
            UnsendableId: httpx reads another address than the one written.
        """
        return self._address(f"{path}?{urlencode(query)}" if query else path)

    def _parse_address(self, target: str) -> httpx.URL:
        base = self._base
        try:
            url = httpx.URL(str(base).rstrip("/") + target)
        except httpx.InvalidURL as error:
            raise UnsendableId("the product id is too long for an address: ask by list") from error
        same_host = (url.scheme, url.netloc) == (base.scheme, base.netloc)
        if not same_host or url.raw_path != base.raw_path.rstrip(b"/") + target.encode("ascii"):
            path = target.partition("?")[0]
            raise UnsendableId(f"{path[:_EXCERPT_CHARACTERS]!a} leads to another address")
        return url

    async def send(self, request: Request, *, total_seconds: float) -> Reply:
        """Send the request and return the complete answer, whatever its status.

        The caller ends the exchange after `total_seconds`. Single operations get shorter timeouts.

        Raises:
            Unreachable: there was no connection.
            ExchangeBroken: there was no complete answer.
        """
        try:
            response = await self._transport.handle_async_request(
                self._httpx_request(request, total_seconds)
            )
            try:
                body = await self._read_body(response, request)
                return Reply(response.status_code, response.headers, body)
            finally:
                await response.aclose()
        except httpx.PoolTimeout as error:
            raise HeldBack(
                f"all connections to {self.central} are in use", retry_after_seconds=1.0
            ) from error
        except _NEVER_SENT as error:
            reason = _REASONS.get(type(error)) or ascii(str(error)[:200] or type(error).__name__)
            advice = "check that it runs, CENTRAL_API_URL and the network"
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                advice = "if it uses a certificate authority of its own, set CENTRAL_CA_FILE"
            raise Unreachable(f"{self.central} cannot be reached: {reason}; {advice}") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            reason = _REASONS.get(type(error), f"the line failed ({type(error).__name__})")
            raise ExchangeBroken(
                f"{self.central} gave no whole answer about {request.subject}: {reason}; "
                "it may be restarting, or the network is poor"
            ) from error

    def _httpx_request(self, request: Request, total_seconds: float) -> httpx.Request:
        headers, body, carried = self._headers, request.body or b"", carried_headers()
        if body or carried:
            more = [(name.encode(), value.encode()) for name, value in carried.items()]
            if body:
                more.append((b"Content-Type", b"application/json"))
                more.append((b"Content-Length", b"%d" % len(body)))
            headers = httpx.Headers([*headers.raw, *more])
        # Connecting ends within the total: a write whose time is up before it was sent is then
        # known to be unsent.
        timeouts = {
            "connect": min(CONNECT_SECONDS, total_seconds / 3),
            "pool": min(POOL_SECONDS, total_seconds / 4),
            "read": total_seconds,
            "write": total_seconds,
        }
        # A stream: with `content`, httpx searches all headers three times for what goes with it.
        built = httpx.Request(
            request.method,
            request.url,
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions={"timeout": timeouts},
        )
        built.read()
        return built

    async def _read_body(self, response: httpx.Response, request: Request) -> bytearray:
        named = response.headers.get("Content-Length", "")
        length = int(named) if _LENGTH.fullmatch(named) else None
        if length is not None and length > request.most_bytes:
            raise self._too_long(request)
        body = bytearray()  # one object, however small the chunks: a drip must not cost memory
        # Not `aiter_raw`: it refuses the complete bodies that transports of tests return.
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            body += chunk
            if len(body) > request.most_bytes:
                raise self._too_long(request)
        if length is not None and len(body) < length:
            raise ExchangeBroken(
                f"{self.central} sent {len(body)} of {length} bytes about {request.subject}; "
                "it may be restarting, or the network is poor"
            )
        return body

    def _too_long(self, request: Request) -> ExchangeBroken:
        return ExchangeBroken(
            f"{self.central} sent more than {request.most_bytes} bytes about {request.subject}, "
            "which no right answer needs; check CENTRAL_API_URL"
        )

    def excerpt(self, body: bytes | bytearray) -> str:
        """Return the first characters of an answer, escaped and without the key, for a message."""
        text = bytes(body[:_EXCERPT_BYTES]).decode("utf-8", "replace")
        return ascii(text.replace(self._api_key, "***")[:_EXCERPT_CHARACTERS])
