"""How bad it is: the state of each process at a moment, and the order of all, the worst first.

A state is what the process last told, or `silent` if it has told nothing for three of its minutes.
Its level is `bad` (the shop sells from old stock, or may), `warn` (it will pass, or a person has to
look) or `good`. What is worse comes first; in the same state, who is further behind.
"""

import math
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from central_stub.fleet.report import STATES, StoreReport

SILENT_SECONDS = 200.0
"""Stores report every minute, give or take a fifth: by then three reports are missing."""

REFUSED_SECONDS = 3600.0
"""So long a refusal of Central's data is worth a look."""

FAR_BEHIND = 1000
"""Events. A store that is live is a few behind at most."""

BAD = frozenset({"degraded", "silent", "fallback", "empty"})
GOOD = frozenset({"live"})
LEVELS = ("bad", "warn", "good")
AT_ONCE = 1000
"""Processes: some 5 ms."""

_RANKS = {name: rank for rank, name in enumerate(STATES)}
_STATE_OF = {name: name for name in STATES if name != "silent"}
_order = attrgetter("order")


@dataclass(frozen=True, slots=True)
class Head:
    """Where Central's feed ends. `generation`: None if this Central does not name one."""

    generation: str | None
    offset: int


class Standing(NamedTuple):
    """How one process stands. `lag`: events behind the head; None: its position belongs to another
    generation. `order` sorts the worst first."""

    order: tuple[int, int, float, float, str, str]
    kept: StoreReport
    state: str
    level: str
    lag: int | None
    silent_seconds: float


def standing_of(kept: StoreReport, head: Head, now: float) -> Standing:
    """Return how a process stands; `now`: unix seconds."""
    report = kept.report
    silent_seconds = max(0.0, now - kept.received_at)
    state = _STATE_OF.get(report.state.name, "other")
    if silent_seconds > SILENT_SECONDS:
        state = "silent"
    lag = None
    if head.generation is None or report.position.generation == head.generation:
        lag = max(0, head.offset - report.position.offset)
    level = "warn"
    if state in BAD:
        level = "bad"
    elif state in GOOD and not _needs_a_look(kept, lag, silent_seconds):
        level = "good"
    order = (
        LEVELS.index(level),
        _RANKS[state],
        -math.inf if lag is None else -lag,
        -math.inf if report.age_seconds is None else -report.age_seconds,
        kept.store_id,
        report.process,
    )
    return Standing(order, kept, state, level, lag, silent_seconds)


def _needs_a_look(kept: StoreReport, lag: int | None, silent_seconds: float) -> bool:
    report = kept.report
    refused = report.refused
    return (
        lag is None
        or lag > FAR_BEHIND
        or (report.outbox is not None and report.outbox.parked > 0)
        or (refused is not None and refused.seconds_ago + silent_seconds < REFUSED_SECONDS)
    )


def ranking(
    kept: Sequence[StoreReport], head: Head, now: float
) -> Generator[None, None, list[Standing]]:
    """Return how all stand, the worst first; yield after each `AT_ONCE`, so that a caller can do
    something else in between."""
    standings: list[Standing] = []
    for start in range(0, len(kept), AT_ONCE):
        standings += [standing_of(each, head, now) for each in kept[start : start + AT_ONCE]]
        yield
    standings.sort(key=_order)
    return standings


def counts_of(standings: Iterable[Standing]) -> dict[str, int]:
    """Return how many processes are in each state, also in none."""
    counted = Counter(each.state for each in standings)
    return {state: counted[state] for state in STATES}


def document_of(standing: Standing) -> dict[str, Any]:
    """Return one entry of `GET /v1/admin/stores`. Durations have gone on since the report."""
    report, passed = standing.kept.report, standing.silent_seconds
    document = report.model_dump(
        mode="json", by_alias=True, include={"process", "version", "problem", "products", "outbox"}
    )
    full_sync, refused = report.last_full_sync, report.refused
    return document | {
        "storeId": standing.kept.store_id,
        "state": standing.state,
        "told": report.state.name,
        "level": standing.level,
        "stateSeconds": _later(report.state.seconds, passed),
        "silentSeconds": round(passed, 3),
        "uptimeSeconds": _later(report.uptime_seconds, passed),
        "generation": report.position.generation,
        "offset": report.position.offset,
        "lag": standing.lag,
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
