"""How long a store may take to be in sync once everything works again.

    3 x (backlog / page) x round trip, each in its turn under Central's limit
    + what the contract allows beyond that:
        an exchange in flight, until its deadline       a poll's wait and grace, or a page's
        the pause after its failure                     half a minute, a minute if refused
        a pause that Central's limit asks for           a minute
        two full syncs, if something asks for one       their spacing (F6)
        the grace of gaps and a poll's interval         three of each
        files that are tried again after a disk failed  half a minute (D5)
        overrides                                       a minute and a check (W7)
        a refetch that failed                           its longest back-off, one and a check
        a clock that was set                            the longest wait that it can pretend
        verification, if it has something to find       its interval, and a run

The numbers are those of the tables in docs/sync.md, written out: neither the constants nor the
present waits of the store are asked, since a store that waits too long would only be given longer.
"""

from __future__ import annotations

from math import ceil

from store_cache.api.parts import StoreParts
from tests.simulation.central import SimulatedCentral
from tests.simulation.plan import Plan

ROUND_TRIP_SECONDS = 0.1
"""Of a working network, with what the disk takes."""

LOOK_SECONDS = 0.5
"""How often the simulation checks whether the store is in sync."""

RESTART_SECONDS = 3.0
WINDOW_SECONDS = 60.0
POLL_GRACE_SECONDS = 10.0
PAGE_DEADLINE_SECONDS = 30.0
OUTAGE_SECONDS, REFUSED_SECONDS = 30.0, 60.0
LIMITED_SECONDS = 60.0
FIRST_SPACING_SECONDS, LONGEST_SPACING_SECONDS = 30.0, 600.0
HEAL_SECONDS = 35.0
OVERRIDE_SECONDS = 65.0
REFETCH_SECONDS = 65.0
CLOCK_SECONDS = 600.0
VERIFY_JITTER = 1.1
VERIFY_RUN_SECONDS = 60.0

LEAST_SHARE = 0.1
"""Of Central's limit, for the kind of request that has the least (F6)."""

LOWEST_LIMIT = 6
"""Requests a minute that a store takes for Central's limit, however often it is refused."""

REFUSING = ("denied", "server_error", "garbage")
DISK = ("disk_error", "disk_full", "sync_fails", "disk_slow", "disk_hangs", "disk_gone")
FULL_SYNC = (
    "retention",
    "generation",
    "restore",
    "lost_events",
    "garbage",
    "server_error",
    "power",
    "crash_operation",
    "crash_recovery",
    "force",
    "outage",
    *DISK,
)
"""Faults after which a full sync may be due."""


def bound_seconds(store: StoreParts | None, central: SimulatedCentral, plan: Plan) -> float:
    requests = 3 * _requests(store, central, plan)
    seconds = RESTART_SECONDS + LOOK_SECONDS + requests * ROUND_TRIP_SECONDS
    seconds += _limit(central, plan, requests) + _after_failure(plan)
    seconds += OVERRIDE_SECONDS + REFETCH_SECONDS
    if any(plan.has(name) for name in FULL_SYNC):
        seconds += _spacing(central)
    if any(plan.has(name) for name in DISK):
        seconds += HEAL_SECONDS
    if plan.has("clock"):
        seconds += CLOCK_SECONDS
    if plan.verify_seconds:
        seconds += plan.verify_seconds * VERIFY_JITTER + VERIFY_RUN_SECONDS
    return seconds


def _requests(store: StoreParts | None, central: SimulatedCentral, plan: Plan) -> int:
    """Return (backlog / page): of events, of the catalogue's pages and of refetches."""
    catalogue = None if store is None else store.writer.catalogue
    position = None if catalogue is None else catalogue.position
    backlog = central.backlog(0 if position is None else position.offset)
    refetches = (
        0 if catalogue is None else len(catalogue.pending_refetches) + len(catalogue.overrides)
    )
    pages = ceil(len(central.product_ids()) / (central.ledger.switches.page_limit or 100))
    return ceil(backlog / plan.batch_limit) + pages + refetches + 1


def _after_failure(plan: Plan) -> float:
    """Return the time until the exchange in flight has failed, and what follows a failure."""
    pause = REFUSED_SECONDS if any(plan.has(name) for name in REFUSING) else OUTAGE_SECONDS
    exchange = max(plan.wait_seconds + POLL_GRACE_SECONDS, PAGE_DEADLINE_SECONDS)
    interval = plan.interval_seconds if plan.poll_mode == "interval" else plan.wait_seconds
    return exchange + pause + 3 * (plan.grace_seconds + interval)


def _spacing(central: SimulatedCentral) -> float:
    """Return how long two full syncs may wait: the time doubles with each that Central has seen
    begin within the longest of these times."""
    now = central.now()
    recent = sum(now - at <= LONGEST_SPACING_SECONDS for at in central.readings)
    first = min(FIRST_SPACING_SECONDS * 2.0 ** max(recent - 1, 0), LONGEST_SPACING_SECONDS)
    return first + min(2 * first, LONGEST_SPACING_SECONDS)


def _limit(central: SimulatedCentral, plan: Plan, requests: int) -> float:
    """Return how long Central's limit, or one that a 429 has the store learn, delays requests."""
    limit = LOWEST_LIMIT if plan.has("limited") else central.ledger.switches.rate_limit
    if not limit:
        return 0.0
    per_minute = max(limit * LEAST_SHARE, 1.0)
    return LIMITED_SECONDS + 2 * WINDOW_SECONDS + requests * WINDOW_SECONDS / per_minute
