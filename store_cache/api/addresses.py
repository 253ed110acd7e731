"""Addresses of clients, as sockets and proxies name them."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """Return the address; None if it is none, such as the name of a Unix socket.

    An address of IPv4 that is written as one of IPv6, as a socket for both shows it, counts as what
    it is. The zone of a link-local one is left out.
    """
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def is_loopback(text: str) -> bool:
    """Return whether it is an address of this machine alone."""
    parsed = parse_address(text)
    return parsed is not None and parsed.is_loopback
