"""The report: how this store is at one moment, as Central is told.

All times are durations, since the clocks of a shop and of Central may differ. Texts and lists are
cut, so that a report always fits what Central takes (`LARGEST_BYTES` of JSON at most).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from store_cache.api.content.freshness import FreshnessGauge
from store_cache.api.content.state import StateTracker
from store_cache.central.client import CentralClient
from store_cache.fleet.refusals import Refusal
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import FullSyncRecord
from store_cache.writer import CacheWriter
from store_cache.writes.outbox.outbox import Outbox

LARGEST_BYTES = 8192
LONGEST_TEXT = 200
MOST_REASONS = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """Who reports. `process` names this process: another one has the same `tenant` and store id
    after a restart, or at the same time as the second node of a shop."""

    process: str
    tenant: str
    version: str
    started_at: float


@dataclass(frozen=True, slots=True)
class Reported:
    """The parts that a report looks at."""

    central: CentralClient
    runner: SyncRunner
    writer: CacheWriter
    freshness: FreshnessGauge
    state: StateTracker
    outbox: Outbox | None


def report_of(
    subject: Subject, parts: Reported, refusal: Refusal | None, now: float
) -> dict[str, Any]:
    """Return the report at `now`, in seconds of the uptime."""
    freshness, sync = parts.freshness.measure(), parts.runner.state
    age = freshness.age_seconds
    catalogue = parts.writer.catalogue
    disk = parts.writer.disk
    return {
        "process": subject.process,
        "tenant": subject.tenant,
        "version": subject.version,
        "uptimeSeconds": _seconds(now - subject.started_at),
        "state": {
            "name": str(parts.state.name),
            "seconds": _seconds(now - parts.state.since),
        },
        "problem": _cut(disk.problem or sync.health.problem or parts.central.problem),
        "position": {
            "generation": _cut(freshness.generation) if freshness.generation else None,
            "offset": freshness.last_offset,
        },
        "ageSeconds": _seconds(age) if math.isfinite(age) else None,
        "products": 0 if catalogue is None else len(catalogue),
        "outbox": None if parts.outbox is None else _outbox(parts.outbox),
        "lastFullSync": _full_sync(sync.full_syncs[-1], now) if sync.full_syncs else None,
        "refused": None if refusal is None else _refused(refusal, now),
    }


def _outbox(outbox: Outbox) -> dict[str, Any]:
    status = outbox.status()
    return {
        "queued": status.queued,
        "sending": status.sending,
        "inDoubt": status.in_doubt,
        "parked": status.parked,
        "oldestSeconds": _seconds(status.oldest_seconds),
    }


def _full_sync(record: FullSyncRecord, now: float) -> dict[str, Any]:
    return {
        "reasons": [_cut(reason) for reason in record.reasons[:MOST_REASONS]],
        "secondsAgo": _seconds(now - record.ended_at),
        "success": not record.problem,
        "products": record.products,
        "problem": _cut(record.problem),
    }


def _refused(refusal: Refusal, now: float) -> dict[str, Any]:
    return {
        "what": str(refusal.what),
        "offset": refusal.offset,
        "reason": _cut(refusal.reason),
        "secondsAgo": _seconds(now - refusal.at),
    }


def _seconds(seconds: float) -> float:
    return round(max(0.0, seconds), 3)


def _cut(text: str) -> str:
    """Return the beginning of a text, as UTF-8 can hold it: some of it is Central's own."""
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode()
