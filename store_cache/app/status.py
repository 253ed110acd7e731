"""What an operator is told: the state by name, how fresh the cache is, what happened and why.

Knows: how the parts' facts become the documents of the contract.
Refuses to know: HTTP; and it changes nothing, but logs when the state gets another name (B6).
"""

from __future__ import annotations

import logging
import math
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from store_cache.api.content.freshness import whole_second
from store_cache.api.service import Freshness
from store_cache.model.change import Owed
from store_cache.model.position import Position
from store_cache.sync.runner import Driver
from store_cache.sync.states import Running, RunRecord
from store_cache.writer import Disk, Keeper
from store_cache.writes.forwarder import Forwarding

log = logging.getLogger(__name__)

DOUBTFUL_SHOWN = 20
"""A status stays small, whatever Central does."""

MEGABYTE = 1_000_000


class Clock:
    """The two times there are: `now`, unix seconds, which may be set; and the loop's, which never
    goes back and which ages are measured by (T23)."""

    def __init__(self, now: Callable[[], float], loop_time: Callable[[], float]) -> None:
        self.now = now
        self.loop_time = loop_time

    def at(self, loop_seconds: float) -> str:
        """A moment of the loop's time in RFC 3339."""
        return rfc3339(self.now() - (self.loop_time() - loop_seconds))


@dataclass(frozen=True, slots=True)
class Named:
    """The state's name (B4) and since when, in the loop's time."""

    name: str
    since: float


@dataclass(frozen=True, slots=True)
class _Told:
    """A freshness, and what it is told for: these facts, and ages above `after` up to `until`."""

    freshness: Freshness
    position: Position | None
    in_step_at: float | None
    disk: Disk
    after: float
    until: float


class Status:
    """Reads the parts; `stale_after_seconds` as configured, `version` of the program."""

    def __init__(
        self,
        *,
        driver: Driver,
        keeper: Keeper,
        forwarding: Forwarding,
        clock: Clock,
        stale_after_seconds: float,
        version: str,
    ) -> None:
        self._driver = driver
        self._keeper = keeper
        self._forwarding = forwarding
        self._clock = clock
        self._stale_after_seconds = stale_after_seconds
        self._version = version
        self._began_at = clock.loop_time()
        self._named = Named("empty", self._began_at)
        self._told: _Told | None = None

    # -- freshness -------------------------------------------------------------------------

    def freshness(self) -> Freshness:
        """The same object for as long as nothing changes but fractions of a second of the age:
        whoever made headers of it need not make them again."""
        told, age_seconds = self._told, self.age_seconds()
        if (
            told is None
            or not told.after < age_seconds <= told.until
            or told.position is not self._keeper.position
            or told.disk is not self._keeper.disk
            or told.in_step_at != self._in_step_at()
        ):
            told = self._told = self._tell(age_seconds)
        return told.freshness

    def _tell(self, age_seconds: float) -> _Told:
        position, disk = self._keeper.position, self._keeper.disk
        is_stale = age_seconds > self._stale_after_seconds
        freshness = Freshness(
            last_offset=position.last_offset if position is not None else 0,
            generation=position.label if position is not None else None,
            age_seconds=age_seconds,
            is_stale=is_stale,
            is_durable=disk.is_durable,
            last_sync_time=self._last_sync_time(age_seconds),
        )
        after, until = whole_second(age_seconds)
        if is_stale:
            after = max(after, self._stale_after_seconds)
        else:
            until = min(until, self._stale_after_seconds)
        return _Told(freshness, position, self._in_step_at(), disk, after, until)

    def _in_step_at(self) -> float | None:
        """On whichever clock it is known, as `age_seconds` says."""
        followed = self._driver.state.in_step_at
        catalogue = self._keeper.catalogue
        if followed is not None or catalogue is None:
            return followed
        return catalogue.in_step_at

    def age_seconds(self) -> float:
        """Since the store was last known to be in step (B5); infinite if it never was. From disk
        it is what was written down, on the clock that can be set."""
        in_step_at = self._driver.state.in_step_at
        if in_step_at is not None:
            return self._clock.loop_time() - in_step_at
        catalogue = self._keeper.catalogue
        if catalogue is None or catalogue.in_step_at is None:
            return math.inf
        return max(0.0, self._clock.now() - catalogue.in_step_at)

    def _last_sync_time(self, age_seconds: float) -> str | None:
        if math.isinf(age_seconds):
            return None
        return rfc3339(self._clock.now() - age_seconds)

    # -- names -----------------------------------------------------------------------------

    def named(self) -> Named:
        """The state by its name; call it often enough to know since when."""
        name = self._name()
        if name != self._named.name:
            log.info("sync status: %s, was %s", name, self._named.name)
            self._named = Named(name, self._clock.loop_time())
        return self._named

    def _name(self) -> str:
        state = self._driver.state
        if not self._keeper.disk.is_durable:
            return "degraded"
        if state.line.fell_back:
            return "fallback"
        if isinstance(state.phase, Running):
            return "syncing"
        if self._keeper.catalogue is None:
            return "empty"
        if state.in_step_at is None:
            return "cached"
        is_stale = bool(state.lost) or self.age_seconds() > self._stale_after_seconds
        return "stale" if is_stale else "live"

    # -- documents -------------------------------------------------------------------------

    def sync_status(self) -> dict[str, Any]:
        """GET /v1/store/sync/status"""
        state = self._driver.state
        runs = state.runs
        last = runs[-1] if runs else None
        named = self.named()
        freshness = self.freshness()
        return {
            "inProgress": isinstance(state.phase, Running),
            "lastSyncTime": freshness.last_sync_time,
            "lastSyncSuccess": last is None or not last.problem,
            "productCount": self._products(),
            "syncDuration": short(last.ended_at - last.began_at) if last else "",
            "errorMessage": state.line.problem or (last.problem if last else ""),
            "eventSync": self._event_sync(freshness),
            "state": {"name": named.name, "since": self._clock.at(named.since)},
            "generation": freshness.generation,
            "durable": freshness.is_durable,
            "centralHeadOffset": self._driver.head_offset,
            "lag": self._lag(freshness),
            "breaker": self._breaker(),
            "fullSync": self._full_sync(),
            "fullSyncs": [self._run(record) for record in reversed(runs)],
            "doubtful": self._doubtful(),
            "aheadOfFeed": len(self._keeper.catalogue.ahead) if self._keeper.catalogue else 0,
            "eventsSetAside": self._set_aside(),
            "writes": self._writes(),
            "disk": self._disk(),
        }

    def _products(self) -> int:
        return len(self._keeper.catalogue) if self._keeper.catalogue is not None else 0

    def _event_sync(self, freshness: Freshness) -> dict[str, Any]:
        until = self._driver.rests_until
        next_poll = self._clock.loop_time() if until is None else until
        line = self._driver.state.line
        return {
            "lastEventOffset": freshness.last_offset,
            "consecutiveFailures": line.failures,
            "fallbackMode": line.fell_back,
            "nextPollTime": self._clock.at(next_poll),
        }

    def _lag(self, freshness: Freshness) -> int | None:
        head = self._driver.head_offset
        return None if head is None else max(0, head - freshness.last_offset)

    def _breaker(self) -> dict[str, Any]:
        line = self._driver.state.line
        return {
            "state": "open" if line.fell_back else "closed",
            "cause": line.problem,
            "since": None if line.since is None else self._clock.at(line.since),
        }

    def _full_sync(self) -> dict[str, Any] | None:
        """The full sync under way, or the one that is wanted."""
        state = self._driver.state
        if isinstance(state.phase, Running):
            run = state.phase.run
            return {
                "number": run.number,
                "reasons": list(run.reasons),
                "step": str(run.step),
                "began": self._clock.at(run.began_at),
                "products": self._driver.copied_products,
            }
        if state.wanted is None:
            return None
        return {"wanted": list(state.wanted.reasons)}

    def _run(self, record: RunRecord) -> dict[str, Any]:
        return {
            "number": record.number,
            "reasons": list(record.reasons),
            "began": self._clock.at(record.began_at),
            "duration": short(record.ended_at - record.began_at),
            "success": not record.problem,
            "products": record.products,
            "problem": record.problem,
        }

    def _doubtful(self) -> dict[str, Any]:
        owed: Mapping[str, Owed] = self._keeper.catalogue.owed if self._keeper.catalogue else {}
        tried = {i: item for i, item in owed.items() if item.attempts}
        shown = list(tried.items())[:DOUBTFUL_SHOWN]
        return {
            "toBeRead": len(owed),
            "failing": len(tried),
            "products": [
                {"productId": i, "doubt": item.doubt.value, "problem": item.problem}
                for i, item in shown
            ],
        }

    def _set_aside(self) -> dict[str, Any]:
        last = self._driver.last_set_aside
        shown = None if last is None else {"offset": last.offset, "reason": last.reason}
        return {"count": self._driver.set_aside, "last": shown}

    def _writes(self) -> dict[str, Any]:
        writes = self._forwarding.status()
        return {
            "breaker": writes.gate.breaker,
            "breakerSince": self._clock.at(self._clock.loop_time() - writes.gate.seconds),
            "retryInSeconds": round(writes.gate.retry_seconds, 3),
            "inFlight": writes.gate.in_flight,
            "underWay": writes.under_way,
            "unknown": writes.unknown,
            "remembered": writes.remembered,
        }

    def _disk(self) -> dict[str, Any]:
        disk, files = self._keeper.disk, self._keeper.files
        return {
            "durable": disk.is_durable,
            "problem": disk.problem,
            "since": None if disk.is_durable else rfc3339(disk.since),
            "promise": ""
            if disk.is_durable
            else "What is shown now is lost if the store restarts (promises 2 and 7)",
            "findings": list(self._keeper.findings),
            "snapshotSize": megabytes(files.snapshot_bytes),
            "journalSize": megabytes(files.journal_bytes),
            "sweepProblem": files.sweep_problem,
        }

    def cache_stats(self) -> dict[str, Any]:
        """GET /v1/store/cache/stats"""
        catalogue = self._keeper.catalogue
        held = 0 if catalogue is None else catalogue.bytes_held
        freshness = self.freshness()
        return {
            "totalProducts": self._products(),
            "cacheSize": megabytes(held),
            "lastSyncTime": freshness.last_sync_time,
            "lastEventOffset": freshness.last_offset,
            "initializedAt": self._clock.at(self._began_at),
            "uptime": short(self._uptime_seconds()),
            "memoryUsage": {"allocated": megabytes(resident_bytes()), "inUse": megabytes(held)},
        }

    def _uptime_seconds(self) -> float:
        return self._clock.loop_time() - self._began_at

    def health(self) -> dict[str, Any]:
        """GET /health"""
        checks = {
            "catalogue": self._check(self._keeper.catalogue is not None, "no catalogue yet"),
            "central": self._check(
                not self._driver.state.line.problem, self._driver.state.line.problem
            ),
            "freshness": self._check(not self.freshness().is_stale, "stale"),
            "disk": self._check(self._keeper.disk.is_durable, self._keeper.disk.problem),
        }
        healthy = all(check["status"] == "ok" for check in checks.values())
        return {
            "status": "healthy" if healthy else "degraded",
            "service": "store-cache",
            "version": self._version,
            "timestamp": rfc3339(self._clock.now()),
            "uptime": short(self._uptime_seconds()),
            "checks": checks,
        }

    def _check(self, is_well: bool, problem: str) -> dict[str, str]:
        return {"status": "ok"} if is_well else {"status": "degraded", "problem": problem}


def rfc3339(unix_seconds: float) -> str:
    moment = datetime.fromtimestamp(unix_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short(seconds: float) -> str:
    """A duration for a person: `1.2s`, `4m10s`, `1h30m45s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f}MB"


def resident_bytes() -> int:
    """Memory that the process holds, from Linux's /proc; 0 where there is none."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()
