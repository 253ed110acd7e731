"""The chains, modes and outages of docs/scale.md.

If only a part of the stores is played, Central has the same part of its capacity, and counts are
multiplied: what matters is the number of requests per second for each store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.scale.central import Capacity, Overload
from benchmarks.scale.outage import Outage
from store_cache.sync.states import SyncSettings

CHAIN = 10_000
EVENTS = (0.0, 0.1, 1.0, 10.0, 100.0)
MODES = {
    "continuous": SyncSettings(),
    "interval 30 s": SyncSettings(continuous=False),
    "interval 60 s": SyncSettings(continuous=False, interval_seconds=60.0),
}
USUAL = 2_000.0
"""Requests a second of Central, unless said otherwise: four times the polls of a quiet chain."""

PART = 500
"""So many of the chain's stores are played if the outage is long."""


@dataclass(frozen=True)
class Case:
    title: str
    outages: Mapping[str, Outage]
    of: int = CHAIN
    is_drawn: bool = False


def _part(
    seconds: float,
    capacity: float = USUAL,
    overload: Overload = Overload.UNAVAILABLE,
    *,
    jitter: bool = True,
) -> Outage:
    """Return an outage with a part of the stores, and the same part of the capacity."""
    shared = Capacity(capacity * PART / CHAIN, overload=overload)
    return Outage(PART, seconds, shared, jitter=jitter, watched_seconds=180.0)


def _pair(seconds: float) -> dict[str, Outage]:
    return {"with jitter": _part(seconds), "without": _part(seconds, jitter=False)}


def _lost(overload: Overload) -> Outage:
    """Each store reads 11 pages, of which Central can give four a second: nine minutes' work."""
    return Outage(
        200,
        60.0,
        Capacity(80.0, overload=overload),
        is_log_lost=True,
        products=10_000,
        watched_seconds=1_800.0,
    )


def _selling(*, collapses: bool) -> Outage:
    return Outage(
        200,
        60.0,
        Capacity(100.0),
        sales_per_second=0.02,
        collapses=collapses,
        watched_seconds=120.0,
    )


CASES = {
    "after five minutes": Case(
        "10,000 stores, 2,000 requests/s, after 310 s", _pair(310.0), is_drawn=True
    ),
    "after an hour": Case(
        "10,000 stores, 2,000 requests/s, after an hour", _pair(3600.0), is_drawn=True
    ),
    "by capacity": Case(
        "10,000 stores, after a minute",
        {
            f"{capacity:,.0f} requests/s, {overload}": _part(60.0, capacity, overload)
            for capacity in (600.0, 1_000.0, 2_000.0, 4_000.0)
            for overload in Overload
        },
    ),
    "with an empty log": Case(
        "200 stores that need a full sync",
        {str(overload): _lost(overload) for overload in Overload},
        of=200,
    ),
    "while tills sell": Case(
        "200 stores that sell",
        {
            "Central alone": _selling(collapses=False),
            "with a collapsing proxy": _selling(collapses=True),
        },
        of=200,
    ),
    "after a minute": Case(
        "10,000 stores, 2,000 requests/s, after a minute",
        {
            "with jitter": Outage(CHAIN, 60.0, Capacity(USUAL)),
            "without": Outage(CHAIN, 60.0, Capacity(USUAL), jitter=False),
        },
        is_drawn=True,
    ),
}
