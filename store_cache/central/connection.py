"""One request to Central and its complete answer.

A `Connection` uses a transport of httpx, without an httpx client: it follows no redirect, keeps no
cookie, and sends no header but its own. It turns every error of a transport into Unreachable or
ExchangeBroken. No message contains a header, which could be the key.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlencode

import httpx

from store_cache.central.carried import carried_headers
from store_cache.central.failures import (
    ExchangeBroken,
    HeldBack,
    InvalidShape,
    Unreachable,
    UnsendableId,
)
from store_cache.central.splitting import MOST_VALUES, ListSplitter, is_parsed_at_once
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
LONGEST_KEPT_ADDRESS = 512
"""Addresses kept, 1.5 MB of them: a quiet feed is polled at the same offset again and again, and
httpx takes 0.1 ms to parse an address."""

MOST_ERROR_BYTES = 64 * 1024
"""What is read of an answer other than 2xx: more than Central's errors have. Of a proxy's page only
the status counts."""

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


class ItemReader(Protocol):
    """Reads the items of a list, some at a time. `names`: what the list is called in an object.
    `whole_bytes`: an answer of so many may be parsed at once."""

    @property
    def names(self) -> Collection[str]: ...

    @property
    def whole_bytes(self) -> int: ...

    def add(self, values: list[Any], text_bytes: int) -> None:
        """Read the next items, whose text has so many bytes. Raises InvalidShape."""


@dataclass(frozen=True, slots=True)
class Request:
    """`subject` names the request in messages: "the feed". `most_bytes`: a right answer has no
    more. `body` is JSON, or None. `items` reads the list of an answer that is too long to be parsed
    at once; without it an answer of more than `most_values` is unreadable. `keeps_digits` False: no
    number of a right answer is beyond 64 bits, whatever digits its texts hold."""

    subject: str
    method: str
    url: httpx.URL
    most_bytes: int
    body: bytes | None = None
    items: ItemReader | None = None
    most_values: int = MOST_VALUES
    keeps_digits: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer. The names of `headers` are case-insensitive.

    If its list was read by the request's `items`, it is empty in `body`. `problem`: why the answer
    was not read to its end, which makes it unreadable; `body` is then its beginning.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray
    problem: InvalidShape | None = None


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
        tenant_id: str = "",
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
                **({"X-Tenant-ID": tenant_id} if tenant_id else {}),
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
        target = f"{path}?{urlencode(query)}" if query else path
        if len(target) > LONGEST_KEPT_ADDRESS:
            return self._parse_address(target)
        return self._address(target)

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
                return await self._read_reply(response, request)
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

    async def _read_reply(self, response: httpx.Response, request: Request) -> Reply:
        status, headers = response.status_code, response.headers
        named = headers.get("Content-Length", "")
        length = int(named) if _LENGTH.fullmatch(named) else None
        if not response.is_success:
            return Reply(status, headers, await self._read_error(response, request, length))
        answer = _Answer(request)
        try:
            if length is not None and length > request.most_bytes:
                raise _too_long(request)
            received = 0
            async for chunk in _stream(response):
                received += len(chunk)
                if received > request.most_bytes:
                    raise _too_long(request)
                await answer.feed(chunk)
            self._check_length(request, received, length)
            await answer.end()
        except InvalidShape as problem:
            return Reply(status, headers, answer.beginning, problem=problem)
        return Reply(status, headers, answer.body)

    async def _read_error(
        self, response: httpx.Response, request: Request, length: int | None
    ) -> bytearray:
        """Return the body of an answer other than 2xx, or its beginning."""
        body = bytearray()
        async for chunk in _stream(response):
            body += chunk
            if len(body) > MOST_ERROR_BYTES:
                return body
        self._check_length(request, len(body), length)
        return body

    def _check_length(self, request: Request, received: int, length: int | None) -> None:
        if length is not None and received < length:
            raise ExchangeBroken(
                f"{self.central} sent {received} of {length} bytes about {request.subject}; "
                "it may be restarting, or the network is poor"
            )

    def excerpt(self, body: bytes | bytearray) -> str:
        """Return the first characters of an answer, escaped and without the key, for a message."""
        text = bytes(body[:_EXCERPT_BYTES]).decode("utf-8", "replace")
        return ascii(self.without_key(text)[:_EXCERPT_CHARACTERS])

    def without_key(self, text: str) -> str:
        """Return what Central says without the store's key, which it may repeat in an error."""
        return text.replace(self._api_key, "***")


class _Answer:
    """The body of an answer while it arrives: as a whole, or split into the items of its list."""

    def __init__(self, request: Request) -> None:
        self._items = items = request.items
        self._whole_bytes = request.most_bytes if items is None else items.whole_bytes
        self._most_values = request.most_values
        self._keeps_digits = request.keeps_digits
        self._splitter: ListSplitter | None = None
        self.body: bytes | bytearray = bytearray()
        """The whole body; of a split answer, once it has ended, the body with an empty list."""
        self.beginning = b""

    async def feed(self, chunk: bytes) -> None:
        """Raises InvalidShape."""
        if len(self.beginning) < _EXCERPT_BYTES:
            self.beginning += chunk[:_EXCERPT_BYTES]
        if self._splitter is None:
            # One object, however small the chunks: a drip must not cost memory.
            self.body += chunk
            if len(self.body) > self._whole_bytes:
                await self._split()
        else:
            self._splitter.feed(chunk)
            await self._read_items(self._splitter)

    async def end(self) -> None:
        """Raises InvalidShape."""
        if self._splitter is None and not is_parsed_at_once(
            self.body, self._most_values, keeps_digits=self._keeps_digits
        ):
            await self._split()
        if self._splitter is not None:
            self._splitter.end()
            await self._read_items(self._splitter)
            self.body = self._splitter.outline

    async def _split(self) -> None:
        if self._items is None:
            raise InvalidShape("it holds more than a right answer needs")
        self._splitter = ListSplitter(self._items.names)
        self._splitter.feed(self.body)
        self.body = b""
        await self._read_items(self._splitter)

    async def _read_items(self, splitter: ListSplitter) -> None:
        """Read the items that are there, some at a time, with other tasks in between."""
        assert self._items is not None
        while (taken := splitter.take()) is not None:
            values, text_bytes = taken
            if values:
                self._items.add(values, text_bytes)
            await asyncio.sleep(0)


def _stream(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the chunks of the body; `aiter_raw` refuses the complete bodies that transports of
    tests return."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


def _too_long(request: Request) -> InvalidShape:
    most = request.most_bytes
    return InvalidShape(f"it is longer than {most} bytes, which no right answer needs")
