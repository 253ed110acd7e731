"""One request to Central and its whole answer.

Knows: connections, addresses, deadlines of single operations, the cap on bytes, and what a failure
says about whether Central can have seen the request.
Refuses to know: what is asked, what an answer means, and when to try again.

It speaks to a transport of httpx, and to no client of it: nothing is followed, kept or added that
is not written here. Everything that a transport can raise is translated here and nowhere else. No
message repeats a header: the libraries' own may hold the key.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlencode

import httpx

from store_cache.central.failures import ExchangeBroken, Unreachable, UnsendableId
from store_cache.central.transport import AiohttpTransport

CONNECT_SECONDS = 3.0
POOL_SECONDS = 3.0

IDLE_SECONDS = 4.0
"""Common servers close a connection that was idle for 5 s. A write that meets that moment would
have an unknown outcome, so the store closes first."""

CONNECTIONS = 32
"""More than `central` lets its requests use at once, so that none waits for another's."""

ADDRESSES = 1024
"""So many are kept, 1.5 MB of them: a quiet feed is asked for at the same offset again and again,
and httpx takes 0.1 ms to read an address."""

_SHOWN_BYTES = 4096
_SHOWN_CHARACTERS = 80
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_LENGTH = re.compile(r"[0-9]{1,18}")

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_REASONS: dict[type[Exception], str] = {
    httpx.ConnectTimeout: "it did not accept a connection in time",
    httpx.PoolTimeout: "all connections to it are in use",
    httpx.ReadTimeout: "it went silent",
    httpx.WriteTimeout: "it stopped taking the request",
    httpx.ReadError: "the connection broke while its answer was read",
    httpx.WriteError: "the connection broke while the request was sent",
    httpx.RemoteProtocolError: "it closed the connection in the middle, or does not speak HTTP",
}


@dataclass(frozen=True, slots=True)
class Request:
    """`what` names it in messages: "the feed", "product 'A'". `body` is JSON, or None."""

    what: str
    method: str
    url: httpx.URL
    most_bytes: int
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `headers` are read whatever their case."""

    status: int
    headers: Mapping[str, str]
    body: bytearray


class _Base(NamedTuple):
    """The base address, as text and in the parts that every address below it has."""

    text: str
    scheme: str
    netloc: bytes
    path: bytes


class Connection:
    """The connections to one Central, and the only place that knows its key.

    Raises ValueError where `base_url` or `api_key` cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        transport: httpx.AsyncBaseTransport | None,
        ca_file: str | None,
    ) -> None:
        if not _VISIBLE_ASCII.fullmatch(api_key):
            raise ValueError("CENTRAL_API_KEY must be visible ASCII characters")
        base = httpx.URL(base_url.rstrip("/"))
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError("CENTRAL_API_URL must be an http or https address")
        self._base = _Base(
            str(base).rstrip("/"), base.scheme, base.netloc, base.raw_path.rstrip(b"/")
        )
        self._api_key = api_key
        self._headers = httpx.Headers(
            {
                "Host": self._base.netloc.decode("ascii"),
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # 300 kB can unpack to 300 MB
                "User-Agent": "store-cache",
                "X-API-Key": api_key,
            }
        )
        self._transport = transport or _network(ca_file)

    @property
    def central(self) -> str:
        """Central's host and port, for messages."""
        return f"Central ({self._base.netloc.decode('ascii')})"

    def url(self, path: str, query: Mapping[str, str | int] | None = None) -> httpx.URL:
        """The address of `path`, which is percent-encoded already, below the base address.

        Raises UnsendableId where the address would be another one than was meant.
        """
        return _address(self._base, f"{path}?{urlencode(query)}" if query else path)

    async def send(self, request: Request, *, total_seconds: float) -> Reply:
        """Send the request and take the whole answer, whatever its status.

        `total_seconds` is what the caller's own deadline leaves; this sets the timeouts of single
        operations from it. Raises Unreachable, Broken.
        """
        try:
            response = await self._transport.handle_async_request(
                self._built(request, total_seconds)
            )
            try:
                body = await self._body(response, request)
                return Reply(response.status_code, response.headers, body)
            finally:
                await response.aclose()
        except _NEVER_SENT as exc:
            raise Unreachable(self._unreachable(exc)) from exc
        except (httpx.HTTPError, httpx.StreamError, OSError) as exc:
            reason = _REASONS.get(type(exc), f"the line failed ({type(exc).__name__})")
            raise ExchangeBroken(
                f"{self.central} gave no whole answer about {request.what}: {reason}; "
                "it may be restarting, or the network is poor"
            ) from exc

    def _built(self, request: Request, total_seconds: float) -> httpx.Request:
        headers, body = self._headers, request.body or b""
        if body:
            length = (b"Content-Length", b"%d" % len(body))
            headers = httpx.Headers([*headers.raw, (b"Content-Type", b"application/json"), length])
        # A stream: httpx looks through all headers three times for what goes with a `content`.
        built = httpx.Request(
            request.method,
            request.url,
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions={"timeout": _timeouts(total_seconds)},
        )
        built.read()
        return built

    async def close(self) -> None:
        await self._transport.aclose()

    def shown(self, body: bytes | bytearray) -> str:
        """The first characters of an answer, escaped and without the key, for a message."""
        text = bytes(body[:_SHOWN_BYTES]).decode("utf-8", "replace")
        return ascii(text.replace(self._api_key, "***")[:_SHOWN_CHARACTERS])

    async def _body(self, response: httpx.Response, request: Request) -> bytearray:
        named = response.headers.get("Content-Length", "")
        length = int(named) if _LENGTH.fullmatch(named) else None
        if length is not None and length > request.most_bytes:
            raise ExchangeBroken(self._endless(request))
        body = bytearray()  # one object however small the chunks: a drip must not cost memory
        # Not `aiter_raw`: it refuses the whole bodies that other transports than the network give.
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            body += chunk
            if len(body) > request.most_bytes:
                raise ExchangeBroken(self._endless(request))
        if length is not None and len(body) < length:
            raise ExchangeBroken(
                f"{self.central} sent {len(body)} of {length} bytes about {request.what}; "
                "it may be restarting, or the network is poor"
            )
        return body

    def _endless(self, request: Request) -> str:
        return (
            f"{self.central} sent more than {request.most_bytes} bytes about {request.what}, "
            "which no right answer needs; check CENTRAL_API_URL"
        )

    def _unreachable(self, exc: Exception) -> str:
        reason = _REASONS.get(type(exc)) or ascii(str(exc)[:200] or type(exc).__name__)
        advice = "check that it runs, CENTRAL_API_URL and the network"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            advice = "if it uses a certificate authority of its own, set CENTRAL_CA_FILE"
        return f"{self.central} cannot be reached: {reason}; {advice}"


def _network(ca_file: str | None) -> AiohttpTransport:
    tls = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    return AiohttpTransport(connections=CONNECTIONS, idle_seconds=IDLE_SECONDS, tls=tls)


@lru_cache(maxsize=ADDRESSES)
def _address(base: _Base, target: str) -> httpx.URL:
    """Raises UnsendableId where httpx reads another address than is written here."""
    try:
        url = httpx.URL(base.text + target)
    except httpx.InvalidURL as exc:
        raise UnsendableId("the product id is too long for an address: ask by list") from exc
    same_host = (url.scheme, url.netloc) == (base.scheme, base.netloc)
    if not same_host or url.raw_path != base.path + target.encode("ascii"):
        path = target.partition("?")[0]
        raise UnsendableId(f"{path[:_SHOWN_CHARACTERS]!a} leads to another address")
    return url


def _timeouts(total_seconds: float) -> dict[str, float]:
    """Of each operation, as httpx's transports want them. Connecting (TCP, then TLS) and the wait
    for a connection end within the total: a write whose time is up before it was sent is then
    known to be unsent."""
    return {
        "connect": min(CONNECT_SECONDS, total_seconds / 3),
        "pool": min(POOL_SECONDS, total_seconds / 4),
        "read": total_seconds,
        "write": total_seconds,
    }
