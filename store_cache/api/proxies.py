"""The address of a client behind proxies: `X-Forwarded-For`, and PROXY protocol version 2.

Both are believed only from the addresses of TRUSTED_PROXIES. A proxy either forwards HTTP and adds
`X-Forwarded-For`, or forwards bytes and begins each connection with a header of PROXY protocol v2.
Which one it does is configured, never guessed: else a client could send that header itself through
a proxy that forwards bytes and adds none.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from aiohttp import hdrs, web

from store_cache.api.addresses import parse_address

BYTES_PREFIX = "proxy-v2:"
"""Marks an entry of TRUSTED_PROXIES that speaks PROXY protocol v2."""

HEADER = hdrs.X_FORWARDED_FOR

ADDRESS = web.RequestKey("address", str)
"""The address of a request's client, as far as that is known."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# -- who is trusted --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """`http` add X-Forwarded-For; `proxy_v2` begin connections with a header."""

    http: tuple[_Network, ...] = ()
    proxy_v2: tuple[_Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> TrustedProxies:
        """Read addresses and networks, with BYTES_PREFIX before those that speak PROXY v2.

        Raises ValueError, which names the entry.
        """
        http: list[_Network] = []
        proxy_v2: list[_Network] = []
        for entry in entries:
            place = entry.removeprefix(BYTES_PREFIX)
            try:
                network = ipaddress.ip_network(place)
            except ValueError:
                raise ValueError(f"holds {entry[:60]!r}, which is no address or network") from None
            (http if place == entry else proxy_v2).append(network)
        return cls(tuple(http), tuple(proxy_v2))

    def speaks_proxy_v2(self, peer: str) -> bool:
        return bool(self.proxy_v2) and _is_in(peer, self.proxy_v2)

    def is_trusted(self, peer: str) -> bool:
        """Return whether many clients may come from this address."""
        return bool(self.http or self.proxy_v2) and _is_in(peer, self.http + self.proxy_v2)

    def client_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of the client of a request.

        `forwarded`: the values of X-Forwarded-For. Its last address that is not a trusted proxy's
        counts: what stands before it is whatever that client said. What is no address ends the
        walk, at the proxy that added it.
        """
        if not (self.http and forwarded and _is_in(peer, self.http)):
            return peer
        for entry in reversed(",".join(forwarded).split(",")):
            address = _read_address(entry)
            if address is None:
                return peer
            peer = address
            if not _is_in(peer, self.http):
                return peer
        return peer


@lru_cache(maxsize=1024)
def _is_in(address: str, networks: tuple[_Network, ...]) -> bool:
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _read_address(entry: str) -> str | None:
    """Return the address of an entry, which some proxies write with a port."""
    text = entry.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = parse_address(text)
    return None if parsed is None else str(parsed)


def peer_of(request: web.BaseRequest) -> str:
    """Return the address of whoever opened the connection, as a PROXY header names it."""
    return str(getattr(request.protocol, "address", ""))


# -- PROXY protocol v2 -----------------------------------------------------------------------------

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD_BYTES = 16
"""The part of the header that has a fixed length."""

_MOST_BYTES = 4096
_HEAD = struct.Struct(">12sBBH")
_VERSION = 2
_LOCAL, _PROXY = 0, 1
_FAMILIES = {0x11: (4, ipaddress.IPv4Address), 0x21: (16, ipaddress.IPv6Address)}
"""TCP over IPv4 and IPv6: how long an address is, and its class."""


@dataclass(slots=True)
class ProxyHeader:
    """Reads one header. `missing`: how many bytes to add next; 0 once it is complete."""

    missing: int = HEAD_BYTES
    _received: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take `missing` bytes or less. Raises ValueError if they are no header of version 2."""
        is_head = len(self._received) < HEAD_BYTES
        self._received += data
        self.missing -= len(data)
        if is_head and not self.missing:
            self.missing = self._length()

    def client(self) -> str | None:
        """Return the client's address of a complete header; None if the proxy speaks for itself, as
        in its health checks, or does not know the address. Raises ValueError."""
        _, version_command, family, length = _HEAD.unpack_from(self._received)
        if version_command & 0x0F == _LOCAL or family not in _FAMILIES:
            return None
        size, address = _FAMILIES[family]
        if length < 2 * size + 4:
            raise ValueError("its header is too short for its addresses")
        source = bytes(self._received[HEAD_BYTES : HEAD_BYTES + size])
        return str(parse_address(str(address(source))))

    def _length(self) -> int:
        """Return how many bytes follow the head."""
        signature, version_command, _, length = _HEAD.unpack(self._received)
        if signature != SIGNATURE or version_command >> 4 != _VERSION:
            raise ValueError("what it sent is no header of PROXY protocol v2")
        if version_command & 0x0F not in (_LOCAL, _PROXY):
            raise ValueError("its header has an unknown command")
        if length > _MOST_BYTES:
            raise ValueError("its header is too long")
        return int(length)
