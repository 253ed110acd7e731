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
from store_cache.model.change import PendingRefetch
from store_cache.model.position import Position
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import FullSyncing, FullSyncRecord
from store_cache.writer import CacheWriter, Disk
from store_cache.writes.forwarder import Forwarder

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
    in_sync_at: float | None
    disk: Disk
    after: float
    until: float


class Status:
    """Reads the parts; `stale_after_seconds` as configured, `version` of the program."""

    def __init__(
        self,
        *,
        runner: SyncRunner,
        writer: CacheWriter,
        forwarder: Forwarder,
        clock: Clock,
        stale_after_seconds: float,
        version: str,
    ) -> None:
        self._runner = runner
        self._writer = writer
        self._forwarder = forwarder
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
            or told.position is not self._writer.position
            or told.disk is not self._writer.disk
            or told.in_sync_at != self._in_sync_at()
        ):
            told = self._told = self._tell(age_seconds)
        return told.freshness

    def _tell(self, age_seconds: float) -> _Told:
        position, disk = self._writer.position, self._writer.disk
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
        return _Told(freshness, position, self._in_sync_at(), disk, after, until)

    def _in_sync_at(self) -> float | None:
        """On whichever clock it is known, as `age_seconds` says."""
        followed = self._runner.state.in_sync_at
        catalogue = self._writer.catalogue
        if followed is not None or catalogue is None:
            return followed
        return catalogue.in_sync_at

    def age_seconds(self) -> float:
        """Since the store was last known to be in step (B5); infinite if it never was. From disk
        it is what was written down, on the clock that can be set."""
        in_sync_at = self._runner.state.in_sync_at
        if in_sync_at is not None:
            return self._clock.loop_time() - in_sync_at
        catalogue = self._writer.catalogue
        if catalogue is None or catalogue.in_sync_at is None:
            return math.inf
        return max(0.0, self._clock.now() - catalogue.in_sync_at)

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
        state = self._runner.state
        if not self._writer.disk.is_durable:
            return "degraded"
        if state.health.fell_back:
            return "fallback"
        if isinstance(state.phase, FullSyncing):
            return "syncing"
        if self._writer.catalogue is None:
            return "empty"
        if state.in_sync_at is None:
            return "cached"
        is_stale = bool(state.lost) or self.age_seconds() > self._stale_after_seconds
        return "stale" if is_stale else "live"

    # -- documents -------------------------------------------------------------------------

    def sync_status(self) -> dict[str, Any]:
        """GET /v1/store/sync/status"""
        state = self._runner.state
        runs = state.runs
        last = runs[-1] if runs else None
        named = self.named()
        freshness = self.freshness()
        return {
            "inProgress": isinstance(state.phase, FullSyncing),
            "lastSyncTime": freshness.last_sync_time,
            "lastSyncSuccess": last is None or not last.problem,
            "productCount": self._products(),
            "syncDuration": short(last.ended_at - last.began_at) if last else "",
            "errorMessage": state.health.problem or (last.problem if last else ""),
            "eventSync": self._event_sync(freshness),
            "state": {"name": named.name, "since": self._clock.at(named.since)},
            "generation": freshness.generation,
            "durable": freshness.is_durable,
            "centralHeadOffset": self._runner.head_offset,
            "lag": self._lag(freshness),
            "breaker": self._breaker(),
            "fullSync": self._full_sync(),
            "fullSyncs": [self._run(record) for record in reversed(runs)],
            "doubtful": self._doubtful(),
            "aheadOfFeed": len(self._writer.catalogue.overrides) if self._writer.catalogue else 0,
            "eventsSetAside": self._set_aside(),
            "writes": self._writes(),
            "disk": self._disk(),
        }

    def _products(self) -> int:
        return len(self._writer.catalogue) if self._writer.catalogue is not None else 0

    def _event_sync(self, freshness: Freshness) -> dict[str, Any]:
        until = self._runner.rests_until
        next_poll = self._clock.loop_time() if until is None else until
        line = self._runner.state.health
        return {
            "lastEventOffset": freshness.last_offset,
            "consecutiveFailures": line.failures,
            "fallbackMode": line.fell_back,
            "nextPollTime": self._clock.at(next_poll),
        }

    def _lag(self, freshness: Freshness) -> int | None:
        head = self._runner.head_offset
        return None if head is None else max(0, head - freshness.last_offset)

    def _breaker(self) -> dict[str, Any]:
        line = self._runner.state.health
        return {
            "state": "open" if line.fell_back else "closed",
            "cause": line.problem,
            "since": None if line.since is None else self._clock.at(line.since),
        }

    def _full_sync(self) -> dict[str, Any] | None:
        """The full sync under way, or the one that is wanted."""
        state = self._runner.state
        if isinstance(state.phase, FullSyncing):
            run = state.phase.run
            return {
                "number": run.number,
                "reasons": list(run.reasons),
                "step": str(run.step),
                "began": self._clock.at(run.began_at),
                "products": self._runner.replica_products,
            }
        if state.wanted is None:
            return None
        return {"wanted": list(state.wanted.reasons)}

    def _run(self, record: FullSyncRecord) -> dict[str, Any]:
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
        owed: Mapping[str, PendingRefetch] = (
            self._writer.catalogue.pending_refetches if self._writer.catalogue else {}
        )
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
        last = self._runner.last_quarantined
        shown = None if last is None else {"offset": last.offset, "reason": last.reason}
        return {"count": self._runner.quarantined, "last": shown}

    def _writes(self) -> dict[str, Any]:
        writes = self._forwarder.status()
        return {
            "breaker": writes.admission.breaker,
            "breakerSince": self._clock.at(self._clock.loop_time() - writes.admission.seconds),
            "retryInSeconds": round(writes.admission.retry_seconds, 3),
            "inFlight": writes.admission.in_flight,
            "underWay": writes.under_way,
            "unknown": writes.unknown,
            "remembered": writes.remembered,
        }

    def _disk(self) -> dict[str, Any]:
        disk, files = self._writer.disk, self._writer.files
        return {
            "durable": disk.is_durable,
            "problem": disk.problem,
            "since": None if disk.is_durable else rfc3339(disk.since),
            "promise": ""
            if disk.is_durable
            else "What is shown now is lost if the store restarts (promises 2 and 7)",
            "findings": list(self._writer.findings),
            "snapshotSize": megabytes(files.snapshot_bytes),
            "journalSize": megabytes(files.journal_bytes),
            "sweepProblem": files.sweep_problem,
        }

    def cache_stats(self) -> dict[str, Any]:
        """GET /v1/store/cache/stats"""
        catalogue = self._writer.catalogue
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
            "catalogue": self._check(self._writer.catalogue is not None, "no catalogue yet"),
            "central": self._check(
                not self._runner.state.health.problem, self._runner.state.health.problem
            ),
            "freshness": self._check(not self.freshness().is_stale, "stale"),
            "disk": self._check(self._writer.disk.is_durable, self._writer.disk.problem),
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
