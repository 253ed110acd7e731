"""Who may call: API keys, their scopes, and a brake on guessing.

Knows: the configured keys as digests, and from which addresses wrong ones came lately.
Refuses to know: routes, and what a scope is needed for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from store_cache.api.problems import (
    InvalidRequest,
    RateLimited,
    Unauthorized,
    retry_after,
)

HASHED = "sha256:"
HEADER = "X-API-Key"


class Scope(IntEnum):
    """What a route asks for, and what a key gives; a higher one includes the lower."""

    OPEN = 0
    TILL = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True)
class Caller:
    """The key that was used, by the name that logs use for it (never the key itself)."""

    name: str
    scope: Scope


ANYBODY = Caller("-", Scope.OPEN)


class KeyRing:
    """All keys, kept as SHA-256 digests. While there are no admin keys, every key is one."""

    def __init__(self, *, keys: Iterable[str], admin_keys: Iterable[str]) -> None:
        tills, admins = [digest(key) for key in keys], [digest(key) for key in admin_keys]
        scope = Scope.TILL if admins else Scope.ADMIN
        self._callers = [
            (kept, Caller(f"key-{n}", scope)) for n, kept in enumerate(tills, start=1)
        ] + [
            (kept, Caller(f"admin-key-{n}", Scope.ADMIN)) for n, kept in enumerate(admins, start=1)
        ]

    def find(self, key: str) -> Caller | None:
        """Whose key it is. Takes the same time wherever in the list it stands, or if not at all:
        what came is hashed, and compared with every one."""
        came = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for kept, caller in self._callers:
            if hmac.compare_digest(kept, came):
                found = caller
        return found


def digest(key: str) -> bytes:
    """The digest of a key as it stands in the settings, plain or as `sha256:<hex>`."""
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()


@dataclass(slots=True)
class _Window:
    since: float
    failures: int = 0


class Failures:
    """Wrong keys per address in a window of time; bounded, the oldest address gives way."""

    def __init__(
        self, *, limit: int = 20, window_seconds: float = 60.0, most_addresses: int = 1024
    ) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._most_addresses = most_addresses
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def wait_seconds(self, address: str, now: float) -> float:
        """How long this address is not listened to; 0.0 if it is."""
        window = self._windows.get(address)
        if window is None or window.failures < self._limit:
            return 0.0
        return max(0.0, window.since + self._window_seconds - now)

    def add(self, address: str, now: float) -> None:
        window = self._windows.get(address)
        if window is None or now >= window.since + self._window_seconds:
            self._windows.pop(address, None)
            window = self._windows[address] = _Window(now)
        window.failures += 1
        if len(self._windows) > self._most_addresses:
            self._windows.popitem(last=False)


class Authority:
    """Says who calls. After too many wrong keys an address is believed nothing new for a while.

    A key that served from this address before goes on serving: behind one router, a till with a
    mistyped key must not stop the others, while guessing is stopped all the same.
    """

    def __init__(self, ring: KeyRing, failures: Failures, *, most_known: int = 4096) -> None:
        self._ring = ring
        self._failures = failures
        self._most_known = most_known
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def identify(self, values: Sequence[str], *, address: str, now: float) -> Caller:
        """The caller by the values of the key header; `now` is monotonic seconds.

        Raises InvalidRequest, Unauthorized, RateLimited.
        """
        if len(values) > 1:
            raise InvalidRequest.of_fields({HEADER: "is given more than once; give it once"})
        caller = self._ring.find(values[0]) if values else None
        if caller is not None and (address, caller.name) in self._known:
            return caller
        if wait := self._failures.wait_seconds(address, now):
            raise RateLimited(
                "Too many wrong API keys came from this address; "
                f"correct the key and try again in {wait:.0f} s",
                headers=retry_after(wait),
            )
        if caller is None:
            self._failures.add(address, now)
            raise _unauthorized()
        self._remember(address, caller.name)
        return caller

    def knows(self, key: str, address: str) -> bool:
        """Whether `identify` would believe this key without asking how many wrong ones came: it
        served from this address before. Notes nothing."""
        caller = self._ring.find(key)
        return caller is not None and (address, caller.name) in self._known

    def _remember(self, address: str, name: str) -> None:
        self._known[address, name] = None
        if len(self._known) > self._most_known:
            self._known.popitem(last=False)


def _unauthorized() -> Unauthorized:
    """One and the same for every reason, so that it tells a guesser nothing."""
    return Unauthorized(
        f"The API key is missing or wrong; send one of the store's keys in the {HEADER} header"
    )
