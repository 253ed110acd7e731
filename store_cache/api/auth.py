"""Authentication: API keys, whose they are, and what they may do.

A right key is always accepted, whatever else comes from its address: it is looked up before the
limit on wrong keys. That limit saves work and lines of the log; what protects a key is its length.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hmac import compare_digest
from math import inf

from aiohttp import web

from store_cache.api.problems import (
    InvalidRequest,
    RateLimited,
    Unauthorized,
    WrongTenant,
    retry_after,
)
from store_cache.api.wrong_keys import WrongKeys

HASHED = "sha256:"
HEADER = "X-API-Key"
TENANT_HEADER = "X-Tenant-ID"
"""By which a client may say for which tenant it asks."""


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
    """The client whose key was used, by the name that logs use for it (never the key itself).

    `digest` is the SHA-256 of the key; `expires_at` is in unix seconds.
    """

    name: str
    scope: Scope
    digest: bytes = field(default=bytes(32), repr=False)
    expires_at: float = inf


ANONYMOUS = Caller("-", Scope.OPEN)
CALLER = web.RequestKey("caller", Caller)
"""Who made a request, for handlers of routes that need a key."""


class KeyRing:
    """The configured keys, by their digests.

    `keys` and `admin_keys` are those of the settings, plain or as `sha256:<hex>`; `named` are those
    of the key file (None: there is none). Without admin keys and without a key file, every key is
    an admin's. `local` is the command line's on this machine, beside all of them. All are keys of
    `tenant_id`; empty: of no tenant.
    """

    def __init__(
        self,
        *,
        keys: Iterable[str],
        admin_keys: Iterable[str] = (),
        named: Iterable[Caller] | None = None,
        local: Caller | None = None,
        tenant_id: str = "",
    ) -> None:
        self.tenant_id = tenant_id
        admins = [key_digest(key) for key in admin_keys]
        scope = Scope.ADMIN if not admins and named is None else Scope.WRITE
        callers = [
            *(Caller(f"key-{n}", scope, key_digest(key)) for n, key in enumerate(keys, start=1)),
            *(Caller(f"admin-key-{n}", Scope.ADMIN, key) for n, key in enumerate(admins, start=1)),
            *(named or ()),
        ]
        self._callers = {caller.digest: caller for caller in callers}
        self._count = len(self._callers)
        if local is not None:
            self._callers[local.digest] = local

    def __len__(self) -> int:
        """How many keys are configured."""
        return self._count

    def find(self, key: str) -> Caller | None:
        """Return whose key it is, expired or not.

        The time it takes tells nothing about the keys held: what is compared are digests, which
        nobody can choose.
        """
        return self.of_digest(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())

    def of_digest(self, digest: bytes) -> Caller | None:
        caller = self._callers.get(digest, ANONYMOUS)
        return caller if compare_digest(caller.digest, digest) else None


def key_digest(key: str) -> bytes:
    """Return the digest of a key as written in the settings, plain or as `sha256:<hex>`."""
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()


class Authenticator:
    """Identifies callers by the keys of `ring`, which `replace` exchanges while requests go on.

    `now` is unix seconds, for keys that expire.
    """

    def __init__(
        self, ring: KeyRing, wrong_keys: WrongKeys, *, now: Callable[[], float] = time.time
    ) -> None:
        self.ring = ring
        self._wrong_keys = wrong_keys
        self._now = now

    def replace(self, ring: KeyRing) -> None:
        """Accept the keys of this ring from now on, and no others."""
        self.ring = ring

    def identify(self, values: Sequence[str], *, address: str, now: float) -> Caller:
        """Return the caller by the values of the key header; `now` is monotonic seconds.

        Raises InvalidRequest, Unauthorized, RateLimited.
        """
        if len(values) > 1:
            raise InvalidRequest.of_fields({HEADER: "is given more than once; give it once"})
        if values:
            caller = self.find(values[0])
            if caller is not None:
                return caller
            if wait_seconds := self._wrong_keys.add(address, now):
                headers = retry_after(wait_seconds)
                raise RateLimited(
                    "Too many wrong API keys came from this address, or from all; "
                    f"correct the key and try again in {headers['Retry-After']} s",
                    headers=headers,
                )
        # One text for every reason, so that it tells a guesser nothing.
        raise Unauthorized(
            f"The API key is missing or wrong; send one of the store's keys in the {HEADER} header"
        )

    def find(self, key: str) -> Caller | None:
        """Return whose key it is; None if it is nobody's, or has expired."""
        caller = self.ring.find(key)
        return caller if caller is not None and self.is_current(caller) else None

    def check_tenant(self, values: Sequence[str]) -> None:
        """Raise WrongTenant if a value of the tenant header is not the tenant of the keys. Without
        a tenant, what a client names is not looked at."""
        tenant_id = self.ring.tenant_id
        if tenant_id and any(value != tenant_id for value in values):
            raise WrongTenant(
                f"This store serves another tenant than the one that {TENANT_HEADER} names; "
                "correct the header, or the address of the store"
            )

    def is_current(self, caller: Caller) -> bool:
        """Return whether the key of a caller has not expired."""
        return caller.expires_at == inf or self._now() < caller.expires_at

    def is_valid(self, caller: Caller) -> bool:
        """Return whether a caller that was identified before would be now, with no less scope.

        For answers that go on for long: a key may be revoked, or expire, meanwhile.
        """
        held = self.ring.of_digest(caller.digest)
        return held is not None and held.scope >= caller.scope and self.is_current(held)


AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
