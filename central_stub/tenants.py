"""Tenants: chains that share one Central and know nothing of each other.

Each tenant has a catalogue, feed, generation, idempotency keys, faults and switches of its own. The
key of a request belongs to a tenant and opens that one alone; `X-Tenant-ID` opens nothing, it is
only checked. An admin key opens every tenant, the one that the header names. What has no tenant
belongs to the unnamed one, whose keys are `CENTRAL_STUB_API_KEYS`.
"""

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from central_stub.wire import Refused, Route

HEADER: Final = "X-Tenant-ID"
UNNAMED: Final = ""


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """Keys of stores, for the inventory, and of administrators, for everything. `store_ids`: the
    stores that a key belongs to, where Central knows them."""

    stores: Sequence[str]
    admins: Sequence[str]
    store_ids: Mapping[str, Collection[str]] = field(default_factory=dict)

    def check(self, key: str, route: Route) -> None:
        """Raise Refused: 401 for an unknown key, 403 for a store's key on an admin call."""
        if self.is_admin(key):
            return
        if not self.is_store(key):
            raise Refused(401, "unauthorized", "X-API-Key is missing or unknown to Central")
        if route is Route.ADMIN:
            raise Refused(403, "forbidden", "this call takes an admin key")

    def check_store(self, key: str, store_id: str) -> None:
        """Raise Refused: 403 `wrong_store` for a key that belongs to other stores."""
        known = self.store_ids.get(key)
        if known is not None and store_id not in known:
            raise Refused(403, "wrong_store", f"the key is not of the store {store_id}")

    def is_admin(self, key: str) -> bool:
        return _is_one_of(key, self.admins)

    def is_store(self, key: str) -> bool:
        return _is_one_of(key, self.stores)


def tenant_of(key: str, named: str | None, tenants: Mapping[str, AccessKeys]) -> str:
    """Return the tenant that a request is for. `named`: the value of `X-Tenant-ID`, if it has one.

    A store's key decides alone. An admin key is of no tenant, so `named` chooses; without it, the
    unnamed one. That one also gets, and refuses, a key that nobody has. Raises Refused: 403
    `wrong_tenant` if `named` is another tenant than a store's key is of, or none that there is.
    """
    owners = [tenant for tenant, keys in tenants.items() if keys.is_store(key)]
    if owners:
        if named is not None and named != owners[0]:
            raise Refused(403, "wrong_tenant", f"the key is not of the tenant in {HEADER}")
        return owners[0]
    if named is None or not tenants[UNNAMED].is_admin(key):
        return UNNAMED
    if named not in tenants:
        raise Refused(403, "wrong_tenant", f"there is no tenant of the name in {HEADER}")
    return named


def _is_one_of(key: str, keys: Sequence[str]) -> bool:
    given = key.encode(errors="surrogatepass")  # a stray byte of a header is no key's "?"
    return sum(hmac.compare_digest(given, each.encode()) for each in keys) > 0
