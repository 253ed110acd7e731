"""How bad it is: the state of each process at a moment, and which are the worst.

A state is what the process last told, or `silent` if it has told nothing for three of its minutes.
Its level is `bad` (the shop sells from old stock, or may), `warn` (it will pass, or a person has to
look) or `good`. What is worse comes first; in the same state, who is further behind.
"""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from central_stub.fleet.report import STATES, Report, StoreReport

SILENT_SECONDS = 200.0
"""Stores report every minute, give or take a fifth: by then three reports are missing."""

REFUSED_SECONDS = 3600.0
"""So long a refusal of Central's data is worth a look."""

FAR_BEHIND = 1000
"""Events. A store that is live is a few behind at most."""

BAD = frozenset({"degraded", "silent", "fallback", "empty"})
GOOD = frozenset({"live"})
LEVELS = ("bad", "warn", "good")
AT_ONCE = 250
"""Processes that are looked at in one step: some 1 ms."""

_RANKS = {name: rank for rank, name in enumerate(STATES)}
_LEVEL_RANKS = {name: rank for rank, name in enumerate(LEVELS)}
_LEVEL_OF = {name: "bad" if name in BAD else "good" if name in GOOD else "warn" for name in STATES}
_STATE_OF = {name: name for name in STATES if name != "silent"}
_order = attrgetter("order")


class Standing(NamedTuple):
    """How one process stands. `order` sorts the worst first."""

    order: tuple[int, int, float, float, str, str]
    kept: StoreReport
    state: str
    level: str
    silent_seconds: float


def standing_of(kept: StoreReport, now: float) -> Standing:
    """Return how a process stands; `now`: unix seconds."""
    report, lag = kept.report, kept.lag
    silent_seconds = max(0.0, now - kept.received_at)
    state = _STATE_OF.get(report.state.name, "other")
    if silent_seconds > SILENT_SECONDS:
        state = "silent"
    level = _LEVEL_OF[state]
    if level == "good" and _needs_a_look(report, lag, silent_seconds):
        level = "warn"
    age = report.age_seconds
    order = (
        _LEVEL_RANKS[level],
        _RANKS[state],
        -math.inf if lag is None else -lag,
        -math.inf if age is None else -age,
        kept.store_id,
        report.process,
    )
    return Standing(order, kept, state, level, silent_seconds)


def _needs_a_look(report: Report, lag: int | None, silent_seconds: float) -> bool:
    refused = report.refused
    return (
        lag is None
        or lag > FAR_BEHIND
        or (report.outbox is not None and report.outbox.parked > 0)
        or (refused is not None and refused.seconds_ago + silent_seconds < REFUSED_SECONDS)
    )


class Worst:
    """The `most` worst of those that were added, in order; `total` of how many."""

    def __init__(self, most: int) -> None:
        self.standings: list[Standing] = []
        self.total = 0
        self._most = most

    def add(self, some: Sequence[Standing]) -> None:
        self.total += len(some)
        if len(self.standings) == self._most:
            last = self.standings[-1].order
            some = [each for each in some if each.order < last]
        if some:
            self.standings = sorted([*self.standings, *some], key=_order)[: self._most]


def document_of(standing: Standing) -> dict[str, Any]:
    """Return one entry of `GET /v1/admin/stores`. Durations have gone on since the report."""
    report, passed = standing.kept.report, standing.silent_seconds
    outbox, full_sync, refused = report.outbox, report.last_full_sync, report.refused
    return {
        "process": report.process,
        "version": report.version,
        "problem": report.problem,
        "products": report.products,
        "outbox": None if outbox is None else outbox.model_dump(mode="json", by_alias=True),
        "storeId": standing.kept.store_id,
        "state": standing.state,
        "told": report.state.name,
        "level": standing.level,
        "stateSeconds": _later(report.state.seconds, passed),
        "silentSeconds": round(passed, 3),
        "uptimeSeconds": _later(report.uptime_seconds, passed),
        "generation": report.position.generation,
        "offset": report.position.offset,
        "lag": standing.kept.lag,
        "ageSeconds": None if report.age_seconds is None else _later(report.age_seconds, passed),
        "lastFullSync": None
        if full_sync is None
        else full_sync.model_dump(mode="json", by_alias=True)
        | {"secondsAgo": _later(full_sync.seconds_ago, passed)},
        "refused": None
        if refused is None
        else refused.model_dump(mode="json", by_alias=True)
        | {"secondsAgo": _later(refused.seconds_ago, passed)},
    }


def _later(seconds: float, passed: float) -> float:
    return round(seconds + passed, 3)
