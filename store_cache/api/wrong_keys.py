"""Counts wrong API keys, by address and in all, so that guessing costs little work and log.

Addresses of IPv6 are counted by their /64: whoever has one has them all.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from store_cache.api.addresses import parse_address

_CLIENT_PREFIX = 64


@dataclass(slots=True)
class _Count:
    since: float
    count: int = 0


class WrongKeys:
    """Limits wrong keys from one address, and from all, in a time window.

    The limit on all holds where a guesser has many addresses. The oldest address is dropped when
    there are too many. Times are monotonic seconds.
    """

    def __init__(
        self,
        *,
        limit: int = 20,
        limit_of_all: int = 600,
        window_seconds: float = 60.0,
        most_addresses: int = 1024,
    ) -> None:
        self._limit = limit
        self._limit_of_all = limit_of_all
        self._window_seconds = window_seconds
        self._most_addresses = most_addresses
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._of_all = _Count(0.0)

    def add(self, address: str, now: float) -> float:
        """Count a wrong key. Return how long the limit is exceeded by then, in seconds; 0.0 if it
        is not. A key beyond the limit is not counted, so that the wait does not grow."""
        if now >= self._of_all.since + self._window_seconds:
            self._of_all = _Count(now)
        if self._of_all.count >= self._limit_of_all:
            return self._of_all.since + self._window_seconds - now
        group = _group(address)
        held = self._counts.get(group)
        if held is None or now >= held.since + self._window_seconds:
            self._counts.pop(group, None)
            held = self._counts[group] = _Count(now)
        if held.count >= self._limit:
            return held.since + self._window_seconds - now
        held.count += 1
        self._of_all.count += 1
        if len(self._counts) > self._most_addresses:
            self._counts.popitem(last=False)
        return 0.0


def _group(address: str) -> str:
    """Return what an address counts as: itself, or its /64."""
    parsed = parse_address(address)
    if parsed is None:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _CLIENT_PREFIX), strict=False))
