"""The table of all removals."""

from __future__ import annotations

from tests.removals.in_rules import in_rules
from tests.removals.of_connections import of_connections
from tests.removals.of_feed import of_feed
from tests.removals.of_keys import of_keys
from tests.removals.of_outbox import of_outbox
from tests.removals.of_streams import of_streams
from tests.removals.of_tenants import of_tenants
from tests.removals.of_verification import of_verification
from tests.removals.of_writes import of_writes
from tests.removals.on_disk import on_disk
from tests.removals.removal import Removal

TABLE: dict[str, Removal] = {
    removal.name: removal
    for part in (
        on_disk,
        in_rules,
        of_feed,
        of_writes,
        of_outbox,
        of_connections,
        of_keys,
        of_streams,
        of_tenants,
        of_verification,
    )
    for removal in part.all
}
