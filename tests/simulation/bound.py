"""How long a store may take to be in step once everything works again.

    the longest wait then in force
    + 3 x (backlog / page) x round trip
    + what the product's own rules still allow after that:
        an exchange under way, until its deadline       a poll's wait and grace, or a page's
        the pause after its failure                     half a minute, a minute if refused
        a second full sync, where the first has a flaw  its spacing (F6)
        the grace of holes and a poll's interval        three of each
        files that are tried anew while the disk fails  half a minute (D5)
        products ahead of the feed                      a minute and a look (W7)
        a reading that is put off once more             its longest back-off, if one is owed
        Central's limit                                 its window, and each request in its turn

The waits in force are read from the running store; one that does not run is started first.
Knows: the store's waits, and Central's backlog. Refuses to know: whether the store keeps to it.
"""

from __future__ import annotations

from math import ceil

from store_cache import writer
from store_cache.api.parts import StoreParts
from store_cache.catalogue import apply as rules
from store_cache.central import client as central
from store_cache.central.rate_limit import WINDOW_SECONDS
from store_cache.sync import backoff as line
from store_cache.sync import refetch as refetcher
from store_cache.sync.states import full_sync_due_at
from tests.simulation.chain import Chain
from tests.simulation.plan import Plan

ROUND_TRIP_SECONDS = 0.1
"""Of a healed line, with what the disk takes."""

RESTART_SECONDS = 3.0
LEAST_SHARE = 0.1
"""Of Central's limit, for the kind of request that has the least (F6)."""

LOOK_SECONDS = 0.5
"""How often the simulation looks whether the store is in step."""


def bound_seconds(
    store: StoreParts | None, chain: Chain, plan: Plan, *, monotonic: float, wall: float
) -> float:
    """`monotonic` and `wall` are the shop's clocks at the moment of healing."""
    requests = 3 * _requests(store, chain, plan)
    waits = RESTART_SECONDS if store is None else _longest_wait(store, monotonic, wall)
    allowed = _after_failure(plan) + _second_run(store) + _limit(store, chain, requests)
    if store is not None:
        allowed += _unsettled(store)
    return waits + requests * ROUND_TRIP_SECONDS + allowed + LOOK_SECONDS


def _requests(store: StoreParts | None, chain: Chain, plan: Plan) -> int:
    """(backlog / page), of events, of the catalogue's pages and of single readings."""
    catalogue = None if store is None else store.writer.catalogue
    position = None if catalogue is None else catalogue.position
    backlog = chain.backlog(0 if position is None else position.offset)
    readings = (
        0 if catalogue is None else len(catalogue.pending_refetches) + len(catalogue.overrides)
    )
    pages = ceil(len(chain.product_ids()) / (chain.ledger.switches.page_limit or 100))
    return ceil(backlog / plan.batch_limit) + pages + readings + 1


def _longest_wait(store: StoreParts, monotonic: float, wall: float) -> float:
    """The longest that the driver, the rate limit, a full sync or a reading still waits."""
    state = store.runner.state
    run_due = full_sync_due_at(state)
    owed = (
        store.writer.catalogue.pending_refetches.values()
        if store.writer.catalogue is not None
        else ()
    )
    ends = (
        store.runner.rests_until or 0.0,
        state.spacing.next_at if run_due is None else run_due,
        store.runner._central.rate_limit.paused_until,  # type: ignore[attr-defined]
        *(min(each.due - wall, refetcher.CLOCK_JUMP_SECONDS) + monotonic for each in owed),
    )
    return max(0.0, float(max(ends)) - monotonic)


def _after_failure(plan: Plan) -> float:
    """The exchange under way fails at its deadline, and what follows a failure passes."""
    may_refuse = plan.has("denied") or plan.has("server_error") or plan.has("garbage")
    refused = line.REFUSED_FLOOR_SECONDS + line.REFUSED_SPREAD_SECONDS
    pause = refused if may_refuse else line.PROBE_LONGEST_SECONDS
    exchange = max(plan.wait_seconds + central.POLL_GRACE_SECONDS, central.PAGE_DEADLINE_SECONDS)
    interval = plan.interval_seconds if plan.poll_mode == "interval" else plan.wait_seconds
    return exchange + pause + 3 * (plan.grace_seconds + interval)


def _second_run(store: StoreParts | None) -> float:
    delay = 0.0 if store is None else store.runner.state.spacing.delay_seconds
    longer = max(line.FIRST_SPACING_SECONDS, 2 * delay)
    return min(longer, line.LONGEST_SPACING_SECONDS)


def _unsettled(store: StoreParts) -> float:
    seconds = 0.0 if store.writer.disk.is_durable else writer.HEAL_SECONDS
    catalogue = store.writer.catalogue
    if catalogue is not None and catalogue.pending_refetches:
        seconds += refetcher.LONGEST_BACKOFF_SECONDS
    if catalogue is not None and catalogue.overrides:
        seconds += rules.OVERRIDE_SECONDS + refetcher.LOOK_SECONDS
    return seconds


def _limit(store: StoreParts | None, chain: Chain, requests: int) -> float:
    """What Central's own limit, and what the store believes of it, hold requests back."""
    learned = None if store is None else store.runner._central.rate_limit  # type: ignore[attr-defined]
    limits = [chain.ledger.switches.rate_limit, None if learned is None else learned.limit]
    known = [limit for limit in limits if limit]  # 0 and None: there is none
    if not known:
        return 0.0
    return 2 * WINDOW_SECONDS + requests * WINDOW_SECONDS / max(min(known) * LEAST_SHARE, 1.0)
