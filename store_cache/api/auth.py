"""Authentication: API keys, their scopes, and a brake on guessing."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from aiohttp import web

from store_cache.api.problems import (
    InvalidRequest,
    RateLimited,
    Unauthorized,
    retry_after,
)

HASHED = "sha256:"
HEADER = "X-API-Key"


class Scope(IntEnum):
    """What a route requires, and what a key grants; a higher one includes the lower.

    A route that changes nothing is READ, one that changes stock is WRITE, one that changes how the
    store works is ADMIN. OPEN routes need no key, so they must tell nothing about the shop.
    """

    OPEN = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """The key that was used, by the name that logs use for it (never the key itself)."""

    name: str
    scope: Scope


ANONYMOUS = Caller("-", Scope.OPEN)


CALLER = web.RequestKey("caller", Caller)
"""Who made a request, for handlers of routes that need a key."""


class KeyRing:
    """The configured keys as SHA-256 digests. `keys` read and write; while there are no admin keys,
    every key is one."""

    def __init__(self, *, keys: Iterable[str], admin_keys: Iterable[str]) -> None:
        admins = [key_digest(key) for key in admin_keys]
        scope = Scope.WRITE if admins else Scope.ADMIN
        self._callers = [
            *((key_digest(key), Caller(f"key-{n}", scope)) for n, key in enumerate(keys, start=1)),
            *((key, Caller(f"admin-key-{n}", Scope.ADMIN)) for n, key in enumerate(admins, 1)),
        ]

    def find(self, key: str) -> Caller | None:
        """Return whose key it is, in the same time for every key: right or wrong, it is hashed
        and compared with each one."""
        digest_given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for digest_held, caller in self._callers:
            if hmac.compare_digest(digest_held, digest_given):
                found = caller
        return found


def key_digest(key: str) -> bytes:
    """Return the digest of a key as written in the settings, plain or as `sha256:<hex>`."""
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()


@dataclass(slots=True)
class _WrongKeyCount:
    since: float
    count: int = 0


class WrongKeys:
    """Counts wrong keys per address in a time window; drops the oldest address when full."""

    def __init__(
        self, *, limit: int = 20, window_seconds: float = 60.0, most_addresses: int = 1024
    ) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._most_addresses = most_addresses
        self._counts: OrderedDict[str, _WrongKeyCount] = OrderedDict()

    def wait_seconds(self, address: str, now: float) -> float:
        """Return how long keys of this address are still refused unseen; 0.0 if they are not."""
        held = self._counts.get(address)
        if held is None or held.count < self._limit:
            return 0.0
        return max(0.0, held.since + self._window_seconds - now)

    def add(self, address: str, now: float) -> None:
        held = self._counts.get(address)
        if held is None or now >= held.since + self._window_seconds:
            self._counts.pop(address, None)
            held = self._counts[address] = _WrongKeyCount(now)
        held.count += 1
        if len(self._counts) > self._most_addresses:
            self._counts.popitem(last=False)


class Authenticator:
    """Identifies callers. After too many wrong keys from an address, no new key is accepted from
    it for a while.

    A key that was accepted from this address before stays accepted: behind one router, a till
    with a mistyped key must not stop the others.
    """

    def __init__(self, ring: KeyRing, wrong_keys: WrongKeys, *, most_accepted: int = 4096) -> None:
        self._ring = ring
        self._wrong_keys = wrong_keys
        self._most_accepted = most_accepted
        self._accepted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def identify(self, values: Sequence[str], *, address: str, now: float) -> Caller:
        """Return the caller by the values of the key header; `now` is monotonic seconds.

        Raises InvalidRequest, Unauthorized, RateLimited.
        """
        if len(values) > 1:
            raise InvalidRequest.of_fields({HEADER: "is given more than once; give it once"})
        caller = self._ring.find(values[0]) if values else None
        if caller is not None and (address, caller.name) in self._accepted:
            return caller
        if wait_seconds := self._wrong_keys.wait_seconds(address, now):
            raise RateLimited(
                "Too many wrong API keys came from this address; "
                f"correct the key and try again in {wait_seconds:.0f} s",
                headers=retry_after(wait_seconds),
            )
        if caller is None:
            self._wrong_keys.add(address, now)
            # One text for every reason, so that it tells a guesser nothing.
            raise Unauthorized(
                "The API key is missing or wrong; "
                f"send one of the store's keys in the {HEADER} header"
            )
        self._accepted[address, caller.name] = None
        if len(self._accepted) > self._most_accepted:
            self._accepted.popitem(last=False)
        return caller

    def has_accepted(self, key: str, address: str) -> bool:
        """Return whether `identify` accepts this key whatever else came from the address, because
        it accepted it there before. Changes nothing."""
        caller = self._ring.find(key)
        return caller is not None and (address, caller.name) in self._accepted
