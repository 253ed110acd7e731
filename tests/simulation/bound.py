"""How long a store may take to be in sync once everything works again.

    the longest wait that is in force then
    + 3 x (backlog / page) x round trip
    + what the product's own rules still allow after that:
        an exchange in flight, until its deadline       a poll's wait and grace, or a page's
        the pause after its failure                     half a minute, a minute if refused
        a second full sync, if the first needs one      its spacing (F6)
        the grace of gaps and a poll's interval         three of each
        files that are tried again while the disk fails half a minute (D5)
        overrides                                       a minute and a check (W7)
        a refetch that is postponed once more           its longest back-off, if one is pending
        Central's limit                                 its window, and each request in its turn

The waits in force are read from the running store; one that does not run is started first.
"""

from __future__ import annotations

from math import ceil

from store_cache import writer
from store_cache.api.parts import StoreParts
from store_cache.catalogue import apply as rules
from store_cache.central import client
from store_cache.central.rate_limit import WINDOW_SECONDS
from store_cache.sync import backoff
from store_cache.sync import refetch as refetcher
from store_cache.sync.states import full_sync_due_at
from tests.simulation.central import SimulatedCentral
from tests.simulation.plan import Plan

ROUND_TRIP_SECONDS = 0.1
"""Of a working network, with what the disk takes."""

RESTART_SECONDS = 3.0
LEAST_SHARE = 0.1
"""Of Central's limit, for the kind of request that has the least (F6)."""

LOOK_SECONDS = 0.5
"""How often the simulation checks whether the store is in sync."""


def bound_seconds(
    store: StoreParts | None,
    central: SimulatedCentral,
    plan: Plan,
    *,
    monotonic: float,
    wall: float,
) -> float:
    """`monotonic` and `wall` are the store's clocks when the faults end."""
    requests = 3 * _requests(store, central, plan)
    waits = RESTART_SECONDS if store is None else _longest_wait(store, monotonic, wall)
    allpending = _after_failure(plan) + _second_full_sync(store) + _limit(store, central, requests)
    if store is not None:
        allpending += _pending_work(store)
    return waits + requests * ROUND_TRIP_SECONDS + allpending + LOOK_SECONDS


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


def _longest_wait(store: StoreParts, monotonic: float, wall: float) -> float:
    """Return the longest wait of the sync, the rate limit, a full sync or a refetch."""
    state = store.runner.state
    sync_due = full_sync_due_at(state)
    pending = (
        store.writer.catalogue.pending_refetches.values()
        if store.writer.catalogue is not None
        else ()
    )
    ends = (
        store.runner.sleeps_until or 0.0,
        state.spacing.next_at if sync_due is None else sync_due,
        store.runner._central.rate_limit.paused_until,  # type: ignore[attr-defined]
        *(min(each.due - wall, refetcher.CLOCK_JUMP_SECONDS) + monotonic for each in pending),
    )
    return max(0.0, float(max(ends)) - monotonic)


def _after_failure(plan: Plan) -> float:
    """Return the time until the exchange in flight has failed, and what follows a failure."""
    may_refuse = plan.has("denied") or plan.has("server_error") or plan.has("garbage")
    refused = backoff.REFUSED_FLOOR_SECONDS + backoff.REFUSED_SPREAD_SECONDS
    pause = refused if may_refuse else backoff.PROBE_LONGEST_SECONDS
    exchange = max(plan.wait_seconds + client.POLL_GRACE_SECONDS, client.PAGE_DEADLINE_SECONDS)
    interval = plan.interval_seconds if plan.poll_mode == "interval" else plan.wait_seconds
    return exchange + pause + 3 * (plan.grace_seconds + interval)


def _second_full_sync(store: StoreParts | None) -> float:
    delay = 0.0 if store is None else store.runner.state.spacing.delay_seconds
    longer = max(backoff.FIRST_SPACING_SECONDS, 2 * delay)
    return min(longer, backoff.LONGEST_SPACING_SECONDS)


def _pending_work(store: StoreParts) -> float:
    seconds = 0.0 if store.writer.disk.is_durable else writer.HEAL_SECONDS
    catalogue = store.writer.catalogue
    if catalogue is not None and catalogue.pending_refetches:
        seconds += refetcher.LONGEST_BACKOFF_SECONDS
    if catalogue is not None and catalogue.overrides:
        seconds += rules.OVERRIDE_SECONDS + refetcher.LOOK_SECONDS
    return seconds


def _limit(store: StoreParts | None, central: SimulatedCentral, requests: int) -> float:
    """Return how long Central's limit, and the one that the store has learned, delay requests."""
    learned = None if store is None else store.runner._central.rate_limit  # type: ignore[attr-defined]
    limits = [central.ledger.switches.rate_limit, None if learned is None else learned.limit]
    known = [limit for limit in limits if limit]  # 0 and None: there is none
    if not known:
        return 0.0
    return 2 * WINDOW_SECONDS + requests * WINDOW_SECONDS / max(min(known) * LEAST_SHARE, 1.0)
