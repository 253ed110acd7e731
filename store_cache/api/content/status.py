"""The documents that describe the store: its sync status, its cache, its health (B3, B4)."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Protocol

from store_cache.api.content.clock import Clock, rfc3339, short_duration
from store_cache.api.content.defects import Defects
from store_cache.api.content.documents import (
    CacheStats,
    Check,
    DiskState,
    Doubtful,
    EndedFullSync,
    FeedState,
    Health,
    OutboxState,
    RunningFullSync,
    SyncStatus,
    WantedFullSync,
    WritesState,
)
from store_cache.api.content.freshness import FreshnessGauge
from store_cache.api.content.state import StateTracker
from store_cache.api.content.verification import verification_document
from store_cache.central.client import CentralClient
from store_cache.model.change import PendingRefetch
from store_cache.model.position import Position
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import FullSyncing, FullSyncRecord
from store_cache.sync.verification.findings import Findings
from store_cache.writer import CacheWriter
from store_cache.writes.forwarder import Forwarder, WritesStatus
from store_cache.writes.outbox.outbox import Outbox, OutboxStatus

DOUBTFUL_SHOWN = 20
"""How many products with a failing refetch are listed, so that a status stays small."""

LONGEST_DOUBT_SECONDS = 60.0
"""How long a write may be of unknown outcome before the health says so: tills repeat sooner."""

LONGEST_OUTBOX_DOUBT_SECONDS = 300.0
"""The same of a write in the outbox, which the store repeats itself."""

MEGABYTE = 1_000_000


class FeedSource(Protocol):
    """Where the sync gets events from, if not from Central alone (`store_cache.nats.source`)."""

    @property
    def is_from_nats(self) -> bool: ...

    @property
    def server(self) -> str: ...

    @property
    def problem(self) -> str: ...

    def behind(self, offset: int) -> int | None: ...


class StatusDocuments:
    """Each method returns a document of the API; none changes anything but the state's name."""

    def __init__(
        self,
        *,
        central: CentralClient,
        runner: SyncRunner,
        writer: CacheWriter,
        forwarder: Forwarder,
        freshness: FreshnessGauge,
        state: StateTracker,
        defects: Defects,
        clock: Clock,
        version: str,
        outbox: Outbox | None = None,
    ) -> None:
        self._outbox = outbox
        self._central = central
        self._runner = runner
        self._writer = writer
        self._forwarder = forwarder
        self._freshness = freshness
        self._state = state
        self._defects = defects
        self._clock = clock
        self.verification: Findings | None = None  # None: it is off
        self.feed: FeedSource | None = None  # None: Central
        self._version = version
        self._started_at = clock.uptime()

    def sync_status(self) -> SyncStatus:
        """GET /v1/store/sync/status"""
        state, head = self._runner.state, self._runner.head_offset
        health, ended = state.health, state.full_syncs
        last = ended[-1] if ended else None
        freshness = self._freshness.measure()
        catalogue = self._writer.catalogue
        self._state.update()
        resumes_at = self._runner.sleeps_until
        quarantined = self._runner.last_quarantined
        document: SyncStatus = {
            "inProgress": isinstance(state.phase, FullSyncing),
            "lastSyncTime": freshness.last_sync_time,
            "lastSyncSuccess": last is None or not last.problem,
            "productCount": self._product_count(),
            "syncDuration": short_duration(last.ended_at - last.began_at) if last else "",
            "errorMessage": self._problem() or (last.problem if last else ""),
            "eventSync": {
                "lastEventOffset": freshness.last_offset,
                "consecutiveFailures": health.failures,
                "fallbackMode": health.fell_back,
                "nextPollTime": self._clock.at(
                    self._clock.uptime() if resumes_at is None else resumes_at
                ),
            },
            "state": {"name": self._state.name, "since": self._clock.at(self._state.since)},
            "generation": freshness.generation,
            "durable": freshness.is_durable,
            "centralHeadOffset": head,
            "lag": None if head is None else max(0, head - freshness.last_offset),
            "breaker": {
                "state": "open" if health.fell_back else "closed",
                "cause": health.problem,
                "since": None if health.since is None else self._clock.at(health.since),
            },
            "fullSync": self._current_full_sync(),
            "fullSyncs": [self._ended_full_sync(record) for record in reversed(ended)],
            "doubtful": _doubtful({} if catalogue is None else catalogue.pending_refetches),
            "aheadOfFeed": 0 if catalogue is None else len(catalogue.overrides),
            "eventsSetAside": {
                "count": self._runner.quarantined,
                "last": None
                if quarantined is None
                else {"offset": quarantined.offset, "reason": quarantined.reason},
            },
            "writes": self._writes(),
            "disk": self._disk(),
            "verification": verification_document(self.verification),
        }
        if self._outbox is not None:
            document["outbox"] = self._outbox_state(self._outbox)
        if self.feed is not None:
            document["feed"] = _feed_state(self.feed, state.position)
        return document

    def cache_stats(self) -> CacheStats:
        """GET /v1/store/cache/stats"""
        catalogue = self._writer.catalogue
        held = megabytes(0 if catalogue is None else catalogue.bytes_held)
        freshness = self._freshness.measure()
        return {
            "totalProducts": self._product_count(),
            "cacheSize": held,
            "lastSyncTime": freshness.last_sync_time,
            "lastEventOffset": freshness.last_offset,
            "initializedAt": self._clock.at(self._started_at),
            "uptime": self._uptime(),
            "memoryUsage": {"allocated": megabytes(resident_bytes()), "inUse": held},
        }

    def health(self) -> Health:
        """GET /health"""
        problem, disk = self._central_problem(), self._writer.disk
        writes = self._writes_problem(self._forwarder.status())
        checks = {
            "catalogue": _check(self._writer.catalogue is not None, "no catalogue yet"),
            "central": _check(not problem, problem),
            "freshness": _check(not self._freshness.measure().is_stale, "stale"),
            "writes": _check(not writes, writes),
            "disk": _check(disk.is_durable, disk.problem),
        }
        if self._outbox is not None:
            waits = outbox_problem(self._outbox.status())
            checks["outbox"] = _check(not waits, waits)
        if self.verification is not None:
            alarm = self.verification.alarm(self._clock.now())
            checks["verification"] = _check(not alarm, alarm)
        if defect := self._defects.problem:
            checks["program"] = _check(False, defect)
        is_healthy = all(check["status"] == "ok" for check in checks.values())
        return {
            "status": "healthy" if is_healthy else "degraded",
            "service": "store-cache",
            "version": self._version,
            "timestamp": rfc3339(self._clock.now()),
            "uptime": self._uptime(),
            "checks": checks,
        }

    def why_no_catalogue(self) -> str:
        """Return, for a person, how far the first full sync is, or what prevents it."""
        if isinstance(self._runner.state.phase, FullSyncing) and self._runner.pages_read:
            pages, products = self._runner.pages_read, self._runner.replica_products
            return f"its first full sync has read {products} products so far, in {pages} pages"
        return self._problem() or "its first full sync begins"

    def _problem(self) -> str:
        return self._defects.problem or self._central_problem()

    def _central_problem(self) -> str:
        """Return why the sync failed last, or else the last exchange of any kind."""
        return self._runner.state.health.problem or self._central.problem

    def _writes_problem(self, writes: WritesStatus) -> str:
        if writes.admission.is_away:
            are_queued = self._outbox is not None and self._outbox.is_accepting
            what = "queued" if are_queued else "refused"
            return f"the breaker of writes is open: they are {what} until one is answered again"
        if writes.unknown_seconds > LONGEST_DOUBT_SECONDS:
            return f"{writes.unknown} writes have no known outcome; their tills have to repeat them"
        room = writes.room
        if room.is_crowded:
            return (
                f"{room.held} of at most {room.capacity} idempotency keys are remembered, "
                f"{room.largest_held} of them of {room.largest or 'a client that is not known'}: "
                "clients with more than their share are refused new writes until keys are forgotten"
            )
        return ""

    def _product_count(self) -> int:
        return 0 if self._writer.catalogue is None else len(self._writer.catalogue)

    def _uptime(self) -> str:
        return short_duration(self._clock.uptime() - self._started_at)

    def _current_full_sync(self) -> RunningFullSync | WantedFullSync | None:
        """The full sync that runs, or the one that is requested and has not begun."""
        state = self._runner.state
        if isinstance(state.phase, FullSyncing):
            current = state.phase.full_sync
            return {
                "number": current.number,
                "reasons": list(current.reasons),
                "step": str(current.step_name),
                "began": self._clock.at(current.began_at),
                "products": self._runner.replica_products,
                "total": self._runner.pages_total,
            }
        return None if state.requested is None else {"wanted": list(state.requested.reasons)}

    def _ended_full_sync(self, record: FullSyncRecord) -> EndedFullSync:
        return {
            "number": record.number,
            "reasons": list(record.reasons),
            "began": self._clock.at(record.began_at),
            "duration": short_duration(record.ended_at - record.began_at),
            "success": not record.problem,
            "products": record.products,
            "problem": record.problem,
        }

    def _writes(self) -> WritesState:
        writes = self._forwarder.status()
        admission = writes.admission
        return {
            "breaker": admission.breaker,
            "breakerSince": self._clock.at(self._clock.uptime() - admission.seconds),
            "retryInSeconds": round(admission.retry_seconds, 3),
            "inFlight": admission.in_flight,
            "underWay": writes.under_way,
            "unknown": writes.unknown,
            "remembered": writes.remembered,
            "keysReused": writes.keys_reused,
            "problem": self._writes_problem(writes),
        }

    def _outbox_state(self, outbox: Outbox) -> OutboxState:
        status = outbox.status()
        return {
            "queued": status.queued,
            "sending": status.sending,
            "inDoubt": status.in_doubt,
            "parked": status.parked,
            "oldestSeconds": round(status.oldest_seconds, 3),
            "accepting": outbox.is_accepting,
            "waitsFor": status.waits_for,
            "problem": outbox_problem(status),
        }

    def _disk(self) -> DiskState:
        disk, files = self._writer.disk, self._writer.files
        loss = "What is shown now is lost if the store restarts (promises 2 and 7)"
        return {
            "durable": disk.is_durable,
            "problem": disk.problem,
            "since": None if disk.is_durable else rfc3339(disk.since),
            "promise": "" if disk.is_durable else loss,
            "findings": list(self._writer.findings),
            "snapshotSize": megabytes(files.snapshot_bytes),
            "journalSize": megabytes(files.journal_bytes),
            "sweepProblem": files.sweep_problem,
        }


def _feed_state(feed: FeedSource, position: Position | None) -> FeedState:
    return {
        "source": "nats" if feed.is_from_nats else "central",
        "server": feed.server,
        "behind": None if position is None else feed.behind(position.offset),
        "problem": feed.problem,
    }


def outbox_problem(status: OutboxStatus) -> str:
    """Return what a person has to do about the outbox; empty: nothing."""
    problems = []
    if status.parked:
        problems.append(
            f"{status.parked} queued writes are parked: a person has to retry or discard them"
        )
    if status.doubt_seconds > LONGEST_OUTBOX_DOUBT_SECONDS:
        problems.append(
            f"{status.in_doubt} queued writes have been in doubt for over "
            f"{LONGEST_OUTBOX_DOUBT_SECONDS / 60:g} minutes: a person may have to settle them"
        )
    if status.may_lack:
        problems.append(status.may_lack)
    return "; ".join(problems)


def _doubtful(pending: dict[str, PendingRefetch]) -> Doubtful:
    failing = [(product_id, one) for product_id, one in pending.items() if one.attempts]
    return {
        "toBeRead": len(pending),
        "failing": len(failing),
        "products": [
            {"productId": product_id, "doubt": one.reason.value, "problem": one.problem}
            for product_id, one in failing[:DOUBTFUL_SHOWN]
        ],
    }


def _check(is_ok: bool, problem: str) -> Check:
    return {"status": "ok"} if is_ok else {"status": "degraded", "problem": problem}


def megabytes(size: int) -> str:
    """Return a number of bytes for a person: `2.4MB`."""
    return f"{size / MEGABYTE:.1f}MB"


def resident_bytes() -> int:
    """Return how much memory the process holds, from Linux's /proc; 0 where there is none."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()
