"""Everything that is counted as it happens. What can be looked at is not counted: `collector`.

The parts call the methods here, as `app.build` wires them. Labels have few values each, whatever
clients and Central send, so the memory is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import inf

from store_cache.api.metrics.clock_skew import ClockSkew
from store_cache.api.metrics.histogram import Histogram, Histograms
from store_cache.central.client import Exchange
from store_cache.model.event import AnyEvent, Event
from store_cache.sync.states import FullSyncRecord
from store_cache.writes.forwarder import Result
from store_cache.writes.write import Answer

PRODUCT = "/v1/store/inventory/{productId}"
PAGE = "/v1/store/inventory"
LOOKUP = "/v1/store/inventory/lookup"
OTHER = "other"
"""The label of a route, a method, a status or a reason that is not one of the known ones."""

QUICK_SECONDS = 0.0001
"""Nearly all fast reads take less. It is the lowest bound of requests' buckets."""

MOST_MEASURED = 8
"""How many events of a batch are measured from Central to visible: enough to see a delay, and a
batch of hundreds costs no more than a small one."""

DATE_SECONDS = 0.9
"""How often the date of an answer is read, which takes 10 µs. Not once a second: all dates would be
read at the same fraction of one, and say no more than the first."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STATUSES = frozenset(str(status.value) for status in HTTPStatus)

# The reasons of full syncs, by how they begin (see `sync`), and their labels.
_REASONS = {
    "first start": "first_start",
    "on demand": "on_demand",
    "fallback timer": "fallback",
    "files were damaged": "files_damaged",
    "Central has a new generation": "feed_replaced",
    "Central's feed holds another event": "feed_replaced",
    "the feed went backwards": "feed_replaced",
    "the position is gone": "position_gone",
    "events are missing": "events_missing",
    "events were missing": "events_missing",
    "Central's feed ended before": "events_missing",
    "the log of events": "log_too_short",
    "an event that names no product": "event_unreadable",
    "a product in doubt": "product_unreadable",
}

# The date and time of RFC 3339. `fromisoformat` reads more than that.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class ReadTally:
    """The histograms of the fast reads of one route. The lowest bound is QUICK_SECONDS."""

    ok: Histogram
    not_modified: Histogram

    @classmethod
    def of(cls, requests: Histograms, route: str, method: str) -> ReadTally:
        return cls(requests.of(route, method, "200"), requests.of(route, method, "304"))


class Counts:
    """`now` is unix seconds, `uptime` seconds that are never set back."""

    def __init__(self, *, now: Callable[[], float], uptime: Callable[[], float]) -> None:
        self.requests = Histograms(
            *(QUICK_SECONDS, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
        )
        """Requests of clients, by route, method and status."""
        self.exchanges = Histograms(
            *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
        )
        """Requests to Central, by kind and status."""
        self.writes = Histograms(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
        """Writes, by outcome."""
        self.full_syncs = Histograms(0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0)
        """Full syncs that have ended, by reason and outcome."""
        self.disk_syncs = Histograms(
            0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0
        )
        """Records of the journal, written and synced; without labels."""
        self.visible = Histograms(
            *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
            3600.0,
        )
        """Events, from Central's timestamp until readers see them; without labels."""
        self.canary_requests = 0
        """Requests that named a canary."""
        self.clock_skew = ClockSkew()
        self._now = now
        self._uptime = uptime
        self._date_read_at = -inf

    def note_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer to a client. `route` is OTHER if there is no such route."""
        named = method if method in _METHODS else OTHER
        self.requests.of(route, named, str(status)).add(seconds)

    def note_exchange(self, exchange: Exchange) -> None:
        """Count a request to Central, as it ended."""
        status = exchange.status
        if status[:1].isdigit() and status not in _STATUSES:
            status = OTHER
        self.exchanges.of(exchange.kind, status).add(exchange.seconds)
        if exchange.date is not None and self._uptime() > self._date_read_at + DATE_SECONDS:
            self._date_read_at = self._uptime()
            self._note_date(exchange.date, exchange.seconds)

    def _note_date(self, value: str, seconds: float) -> None:
        try:
            date = parsedate_to_datetime(value).timestamp()
        except (ValueError, OverflowError):
            return
        now = self._now()
        self.clock_skew.observe(date=date, sent_at=now - seconds, arrived_at=now)

    def note_write(self, result: Result, seconds: float) -> None:
        """Count a write whose till gets this result; one in doubt again, once it is settled."""
        if isinstance(result, Answer):
            is_queued = result.body.get("queued") is True
            is_applied = result.body.get("applied") is True
            outcome = "queued" if is_queued else "applied" if is_applied else "refused"
        else:
            outcome = "in_doubt" if result.code == "central_timeout" else "failed"
        self.writes.of(outcome).add(seconds)

    def note_full_sync(self, record: FullSyncRecord) -> None:
        reason = next(
            (label for begins, label in _REASONS.items() if record.reasons[0].startswith(begins)),
            OTHER,
        )
        outcome = "failed" if record.problem else "installed"
        self.full_syncs.of(reason, outcome).add(record.ended_at - record.began_at)

    def note_sync(self, seconds: float) -> None:
        self.disk_syncs.of().add(seconds)

    def note_events(self, events: Sequence[AnyEvent]) -> None:
        """Measure events that readers see from now on."""
        now = self._now()
        for event in events[:: -(-len(events) // MOST_MEASURED) or 1]:
            made_at = _made_at(event)
            if made_at is not None:
                self.visible.of().add(max(0.0, now - made_at))


def _made_at(event: AnyEvent) -> float | None:
    """Return when Central says it made the event, in unix seconds; None if it does not say."""
    raw = event.raw if isinstance(event, Event) else None
    timestamp = raw.get("timestamp") if isinstance(raw, dict) else None
    if not isinstance(timestamp, str) or not _TIMESTAMP.fullmatch(timestamp):
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except (ValueError, OverflowError):
        return None
