"""The beginning of a connection: a proxy's header, and TLS, before the first byte of HTTP.

    accept ─▶ header of PROXY protocol v2 ─▶ count in ─▶ TLS handshake ─▶ ClientConnection

Connections are counted in before the handshake, so that the caps and the deadline of the first byte
hold for clients that never complete one. Sockets are accepted here, and not by the event loop: so
no byte is read before it is known what it belongs to. Without TLS and such proxies the event loop
accepts, and nobody passes here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from store_cache.api.addresses import is_loopback
from store_cache.api.proxies import ProxyHeader, TrustedProxies
from store_cache.api.throttled_log import ThrottledWarning
from store_cache.api.tls import ServerTls

if TYPE_CHECKING:
    from store_cache.api.connection import ClientConnection

log = logging.getLogger(__name__)

HEADER_SECONDS = 5.0
"""How long a proxy may take to send its header."""

_SHUTDOWN_SECONDS = 5.0

_AT_ONCE = 64
"""So many connections are accepted before others get their turn."""

AFTER_FAILURE_SECONDS = 1.0
"""How long none are accepted if that failed, as it does without a free file descriptor."""


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of `host`, which does not listen yet. Raises OSError.

    Addresses of a family that this machine does not have, such as IPv6, are left out, unless there
    are no others.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError as problem:
                missing = problem
                continue
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
    except OSError:
        for one in bound:
            one.close()
        raise
    if missing is not None and not bound:
        raise missing
    return bound


class Front:
    """Accepts connections and lets them begin. `tls` is for new ones, and may be exchanged; None:
    they are plain."""

    def __init__(
        self,
        listening: Sequence[socket.socket],
        new_connection: Callable[[], ClientConnection],
        proxies: TrustedProxies,
        tls: ServerTls | None,
    ) -> None:
        self.tls = tls
        self.listening = listening
        self._new_connection = new_connection
        self._proxies = proxies
        self._loop = asyncio.get_running_loop()
        self._accepting = [self._loop.create_task(self._accept_all(one)) for one in listening]
        self._beginning: set[asyncio.Task[None]] = set()
        self._failures = ThrottledWarning(
            log, "connections could not be accepted", counted_as="failures"
        )
        self._bad_headers = ThrottledWarning(
            log, "connections of a proxy were refused; see TRUSTED_PROXIES", counted_as="refused"
        )
        self._failed_handshakes = ThrottledWarning(
            log, "TLS handshakes with clients failed", counted_as="failed"
        )

    async def close(self) -> None:
        """Accept no more, and end the connections that have not begun."""
        tasks = [*self._accepting, *self._beginning]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self.listening:
            one.close()

    async def _accept_all(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, peer = await self._loop.sock_accept(listening)
                self._begin_in_task(accepted, str(peer[0]))
                for accepted, peer in _accept_waiting(listening):
                    self._begin_in_task(accepted, str(peer[0]))
            except ConnectionAbortedError:
                pass  # its client was gone before
            except OSError as problem:
                self._failures.note(reason=str(problem))
                await asyncio.sleep(AFTER_FAILURE_SECONDS)

    def _begin_in_task(self, accepted: socket.socket, peer: str) -> None:
        task = self._loop.create_task(self._begin(accepted, peer))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket, peer: str) -> None:
        """Take a connection from its first byte to HTTP, or close it."""
        connection: ClientConnection | None = None
        has_begun = False
        try:
            client = peer
            if self._proxies.speaks_proxy_v2(peer):
                client = await self._read_header(accepted) or peer
            connection = self._new_connection()
            # A proxy elsewhere may say that its client is here.
            is_local = is_loopback(peer) and is_loopback(client)
            beginning = _Accepted(accepted, asyncio.current_task())
            if connection.accept(beginning, client, is_local=is_local):
                await self._hand_over(accepted, connection)
                has_begun = True
        except ValueError as problem:
            self._bad_headers.note(address=peer, reason=str(problem))
        except TimeoutError:
            self._bad_headers.note(address=peer, reason="it sent no header in time")
        except OSError:
            log.debug("a client was gone before its connection began")
        finally:
            if not has_begun:
                if connection is not None:
                    connection.give_up()
                accepted.close()

    async def _read_header(self, accepted: socket.socket) -> str | None:
        """Read the header and no byte behind it; return the client that it names, if any.

        Raises ValueError, TimeoutError, OSError.
        """
        header = ProxyHeader()
        async with asyncio.timeout(HEADER_SECONDS):
            while header.missing:
                data = await self._loop.sock_recv(accepted, header.missing)
                if not data:
                    raise ConnectionError
                header.add(data)
        return header.client()

    async def _hand_over(self, accepted: socket.socket, connection: ClientConnection) -> None:
        """Make the TLS handshake, if there is to be one, and let the connection go on by itself.

        The handshake has no deadline of its own: that of the first byte ends it.
        """
        if self.tls is None:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
            return
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self.tls.local if connection.is_local else self.tls.remote,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError as problem:  # so are errors of TLS
            if reason := getattr(problem, "reason", None):
                self._failed_handshakes.note(address=connection.address, reason=reason)
            raise ConnectionError from problem


class _Accepted:
    """How a connection ends its socket, whether it has begun or not."""

    def __init__(self, accepted: socket.socket, beginning: asyncio.Task[None] | None) -> None:
        self._accepted = accepted
        self._beginning = beginning

    def abort(self) -> None:
        if self._beginning is not None and not self._beginning.done():
            self._beginning.cancel()
        with suppress(OSError):  # it is closed
            self._accepted.shutdown(socket.SHUT_RDWR)


def _accept_waiting(listening: socket.socket) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """Yield connections that wait already, up to a number."""
    for _ in range(_AT_ONCE - 1):
        try:
            accepted, peer = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        accepted.setblocking(False)
        yield accepted, peer
