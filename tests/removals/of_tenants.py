"""What keeps the tenants of one Central apart, removed one by one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from central_stub import ledger, server, tenants
from central_stub.keys import KeyMemory
from central_stub.ledger import Ledger
from central_stub.storage import Storage
from central_stub.switches import Switches
from central_stub.tenants import UNNAMED, AccessKeys
from store_cache.api.auth import Authenticator
from store_cache.storage import framing, recovery
from store_cache.storage.directory import Directory
from store_cache.storage.framing import OtherStore, Owner
from tests.removals.removal import Patch, Removals

of_tenants = Removals()


@of_tenants("promise 12", "a key of Central opens its own tenant alone", needs="tenants")
def keys_of_tenants(patch: Patch) -> None:
    """Whoever has a key is answered for the tenant that the header names."""
    tenant_of = tenants.tenant_of

    def as_named(key: str, named: str | None, keys: Mapping[str, AccessKeys]) -> str:
        own = tenant_of(key, None, keys)
        if own == UNNAMED or named is None or named == own:
            return own
        patch.act()
        return named

    patch.replace(tenants, "tenant_of", as_named)


@of_tenants("promise 12", "Central has idempotency keys for each tenant", needs="tenants")
def remembered_keys_of_tenants(patch: Patch) -> None:
    """What one tenant's write was answered, another's write with that key is answered, too."""
    shared = KeyMemory()

    def the_same() -> KeyMemory:
        patch.act()
        return shared

    patch.replace(ledger, "KeyMemory", the_same)


@of_tenants(
    "promise 12",
    "Central has a catalogue and a feed for each tenant",
    test="tests/scenarios/test_tenants.py::test_two_tenants_never_see_each_other",
    why="Centrals of the simulation are put together by the simulation",
)
def ledgers_of_tenants(patch: Patch) -> None:
    """All tenants write into one ledger."""
    open_ledger, opened = server.open_ledger, list[Ledger]()

    def one_for_all(
        folder: Path | None, switches: Switches, source: random.Random
    ) -> tuple[Ledger, Storage]:
        own, storage = open_ledger(folder, switches, source)
        if folder is None or not folder.name.startswith("tenant-"):
            opened.clear()  # Central starts, with the ledger of the unnamed tenant first
            return own, storage
        opened.append(own)
        if len(opened) > 1:
            patch.act()
        return opened[0], storage

    patch.replace(server, "open_ledger", one_for_all)


@of_tenants("promise 12", "a store answers no client that names another tenant", needs="tenants")
def tenants_of_clients(patch: Patch) -> None:
    """A store of one tenant answers whoever asks for another one."""
    check = Authenticator.check_tenant

    def unchecked(self: Authenticator, values: Sequence[str]) -> None:
        try:
            check(self, values)
        except Exception:  # noqa: BLE001 - whatever it refuses
            patch.act()

    patch.replace(Authenticator, "check_tenant", unchecked)


@of_tenants(
    "D6",
    "a folder of another tenant is refused",
    test="tests/unit/storage/test_files.py::test_the_files_of_another_tenant_are_refused",
    why="no store of the simulation changes its tenant",
)
def folders_of_tenants(patch: Patch) -> None:
    """A store begins with the products and keys of another tenant."""
    check_header = framing.check_header

    async def of_any_tenant(directory: Directory, name: str, owner: Owner) -> None:
        try:
            await check_header(directory, name, owner)
        except OtherStore as refused:
            if "TENANT_ID" not in str(refused):
                raise
            patch.act()

    patch.replace(recovery, "check_header", of_any_tenant)
