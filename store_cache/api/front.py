"""The beginning of a connection: a proxy's header, and TLS, before the first byte of HTTP.

    accepted ─▶ header of PROXY protocol v2 ─▶ counted in ─▶ TLS handshake ─▶ ClientConnection

Connections are counted in before the handshake, so that the caps and the deadline of the first byte
hold for clients that never complete one. Without TLS and such proxies nobody passes here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from store_cache.api.proxies import ProxyHeader, TrustedProxies
from store_cache.api.throttled_log import ThrottledWarning
from store_cache.api.tls import ServerTls

if TYPE_CHECKING:
    from store_cache.api.connection import ClientConnection

log = logging.getLogger(__name__)

HEADER_SECONDS = 5.0
"""How long a proxy may take to send its header."""

_HANDSHAKE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 5.0


class Fronts:
    """What all beginnings share. `tls` is for new connections and may be exchanged; None: plain."""

    def __init__(
        self,
        new_connection: Callable[[], ClientConnection],
        proxies: TrustedProxies,
        tls: ServerTls | None,
    ) -> None:
        self.new_connection = new_connection
        self.proxies = proxies
        self.tls = tls
        self.tasks: set[asyncio.Task[None]] = set()
        self.waiting: set[asyncio.Transport] = set()
        self.bad_headers = ThrottledWarning(
            log, "connections of a proxy were refused; see TRUSTED_PROXIES", counted_as="refused"
        )
        self.failed_handshakes = ThrottledWarning(
            log, "TLS handshakes with clients failed", counted_as="failed"
        )

    def front(self) -> Front:
        return Front(self)

    async def close(self) -> None:
        """End all connections that have not begun."""
        for transport in tuple(self.waiting):
            transport.abort()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Front(asyncio.BufferedProtocol):
    """One beginning. Its buffer takes the bytes of the header and none behind it."""

    def __init__(self, fronts: Fronts) -> None:
        self._fronts = fronts
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._header: ProxyHeader | None = None
        self._buffer = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        if not self._fronts.proxies.speaks_proxy_v2(self._peer):
            self._transport.pause_reading()
            self._accept(self._peer)
            return
        self._header = ProxyHeader()
        self._fronts.waiting.add(self._transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HEADER_SECONDS, self._refuse, "it sent no header in time")

    def get_buffer(self, sizehint: int) -> bytearray:
        assert self._header is not None
        self._buffer = bytearray(self._header.missing)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        header, transport = self._header, self._transport
        assert header is not None
        assert transport is not None
        try:
            header.add(bytes(self._buffer[:nbytes]))
            if header.missing:
                return
            client = header.client() or self._peer
        except ValueError as problem:
            self._refuse(str(problem))
            return
        self._end_waiting()
        transport.pause_reading()
        # Once the transport is done with this buffer.
        asyncio.get_running_loop().call_soon(self._accept, client)

    def eof_received(self) -> None:
        """The transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is not None:
            self._fronts.waiting.discard(self._transport)

    def _refuse(self, reason: str) -> None:
        self._fronts.bad_headers.note(address=self._peer, reason=reason)
        if self._transport is not None:
            self._transport.abort()

    def _accept(self, client: str) -> None:
        """Count the connection in as this client's, and let it begin."""
        transport = self._transport
        assert transport is not None
        connection = self._fronts.new_connection()
        if transport.is_closing() or not connection.accept(transport, client):
            return
        if self._fronts.tls is None:
            transport.set_protocol(connection)
            connection.connection_made(transport)
            transport.resume_reading()
            return
        task = asyncio.get_running_loop().create_task(self._secure(connection, transport, client))
        self._fronts.tasks.add(task)
        task.add_done_callback(self._fronts.tasks.discard)

    async def _secure(
        self, connection: ClientConnection, transport: asyncio.Transport, client: str
    ) -> None:
        """Make the TLS handshake, then begin."""
        assert self._fronts.tls is not None
        loop, early = asyncio.get_running_loop(), _Early()
        try:
            secured = await loop.start_tls(
                transport,
                early,
                self._fronts.tls.context_for(client),
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError as problem:  # so are errors of TLS, and its timeout
            connection.give_up()
            transport.abort()
            if not isinstance(problem, ConnectionError):
                reason = getattr(problem, "reason", None) or type(problem).__name__
                self._fronts.failed_handshakes.note(address=client, reason=reason)
            return
        except asyncio.CancelledError:
            connection.give_up()
            transport.abort()
            raise
        if secured is None:  # the client ended it during the handshake
            connection.give_up()
            return
        secured.set_protocol(connection)
        connection.connection_made(secured)
        early.hand_over(connection)


class _Early(asyncio.Protocol):
    """Keeps what arrives between the end of the handshake and the beginning of the connection."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._is_ended = False
        self._is_lost = False

    def data_received(self, data: bytes) -> None:
        self._data += data

    def eof_received(self) -> None:
        self._is_ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    def hand_over(self, connection: ClientConnection) -> None:
        if self._data:
            connection.data_received(bytes(self._data))
        if self._is_ended:
            connection.eof_received()
        if self._is_lost:
            connection.connection_lost(None)
