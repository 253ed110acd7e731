"""The metrics of a store as Prometheus reads them.

What was counted comes from `Counts`. Everything else is looked at when it is asked for, so that it
costs nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from store_cache.api.content.state import StateName
from store_cache.api.metrics.counts import Counts
from store_cache.api.metrics.histogram import Histograms
from store_cache.api.metrics.watched import Watched
from store_cache.writes.outbox.entry import UNSETTLED


class StoreCollector(Collector):
    """Makes the metrics anew for each scrape."""

    def __init__(self, counts: Counts, watched: Watched) -> None:
        self._counts = counts
        self._watched = watched

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry need not look for duplicate names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "store_cache_build", "The program.", {"version": self._watched.version}
        )
        yield from self._requests()
        yield from self._catalogue()
        yield from self._feed()
        yield from self._full_syncs()
        yield from self._central()
        yield from self._writes()
        yield from self._outbox()
        yield from self._disk()
        yield from self._streams()
        yield from self._verification()

    def _requests(self) -> Iterator[Metric]:
        requests = self._counts.requests
        yield _counter(
            "store_cache_http_requests", "Answers to clients.", requests, "route method status"
        )
        yield _histogram(
            "store_cache_http_request_seconds",
            "Time from the head of a request to its answer.",
            requests.summed_by(0),
            "route",
        )
        canary = CounterMetricFamily(
            "store_cache_canary_requests", "Requests that named a canary (X-Canary)."
        )
        canary.add_metric([], self._counts.canary_requests)
        yield canary

    def _catalogue(self) -> Iterator[Metric]:
        watched = self._watched
        catalogue = watched.writer.catalogue
        yield _gauge(
            "store_cache_products", "Products served.", 0 if catalogue is None else len(catalogue)
        )
        yield _gauge(
            "store_cache_age_seconds",
            "Time since the catalogue was last known to be in sync with Central; +Inf: never.",
            watched.freshness.measure().age_seconds,
        )
        state = watched.state.find()
        states = GaugeMetricFamily(
            "store_cache_state", "The state of the store: one is 1.", labels=["state"]
        )
        for name in StateName:
            states.add_metric([name.value], float(name is state))
        yield states

    def _feed(self) -> Iterator[Metric]:
        watched, runner, counts = self._watched, self._watched.runner, self._counts
        yield _gauge(
            "store_cache_feed_offset",
            "The last event that the catalogue reflects.",
            watched.freshness.measure().last_offset,
        )
        if runner.head_offset is not None:
            yield _gauge(
                "store_cache_feed_head_offset",
                "The last event that Central is known to have.",
                runner.head_offset,
            )
        if watched.lag is not None:
            yield _gauge(
                "store_cache_feed_lag_events",
                "Events that Central is known to have and the catalogue does not reflect.",
                watched.lag,
            )
        if watched.feed is not None:
            yield _gauge(
                "store_cache_feed_from_nats",
                "Whether the feed comes from NATS (1), or from Central instead (0).",
                float(watched.feed.is_from_nats),
            )
        events = CounterMetricFamily(
            "store_cache_events", "Events of Central's feed.", labels=["outcome"]
        )
        events.add_metric(["applied"], runner.events_applied)
        events.add_metric(["stale"], runner.events_stale)
        events.add_metric(["quarantined"], runner.quarantined)
        yield events
        yield _histogram(
            "store_cache_event_visible_seconds",
            "Time from Central's timestamp of an event until readers see it.",
            counts.visible,
        )
        if counts.clock_skew.seconds is not None:
            yield _gauge(
                "store_cache_central_clock_skew_seconds",
                "How far Central's clock is ahead of this machine's.",
                counts.clock_skew.seconds,
            )

    def _full_syncs(self) -> Iterator[Metric]:
        full_syncs, labels = self._counts.full_syncs, "reason outcome"
        yield _counter("store_cache_full_syncs", "Full syncs that ended.", full_syncs, labels)
        yield _histogram(
            "store_cache_full_sync_seconds", "How long full syncs took.", full_syncs, labels
        )

    def _central(self) -> Iterator[Metric]:
        exchanges, labels = self._counts.exchanges, "kind status"
        yield _counter("store_cache_central_requests", "Requests to Central.", exchanges, labels)
        yield _histogram(
            "store_cache_central_request_seconds",
            "How long requests to Central took; a poll is held until there is an event.",
            exchanges,
            labels,
        )
        admission = self._watched.forwarder.status().admission
        circuits = GaugeMetricFamily(
            "store_cache_circuit_open",
            "1 while a circuit breaker towards Central is open.",
            labels=["circuit"],
        )
        circuits.add_metric(["feed"], float(self._watched.runner.state.health.fell_back))
        circuits.add_metric(["writes"], float(admission.is_away))
        yield circuits

    def _writes(self) -> Iterator[Metric]:
        writes = self._counts.writes
        yield _counter("store_cache_writes", "Writes of tills.", writes, "outcome")
        yield _histogram(
            "store_cache_write_seconds", "How long tills waited for writes.", writes, "outcome"
        )
        yield _gauge(
            "store_cache_writes_in_doubt",
            "Writes whose outcome is not known now.",
            self._watched.forwarder.status().unknown,
        )

    def _outbox(self) -> Iterator[Metric]:
        outbox = self._watched.outbox
        if outbox is None:
            return
        entries = GaugeMetricFamily(
            "store_cache_outbox_entries", "Writes in the outbox.", labels=["state"]
        )
        for state in sorted(UNSETTLED):
            entries.add_metric([state.value], float(outbox.counts[state]))
        yield entries
        yield _gauge(
            "store_cache_outbox_oldest_seconds",
            "Time since the oldest write in the outbox was queued; 0: it is empty.",
            outbox.status().oldest_seconds,
        )

    def _disk(self) -> Iterator[Metric]:
        writer = self._watched.writer
        yield _gauge(
            "store_cache_durable", "1 if what readers see is on disk.", writer.disk.is_durable
        )
        yield _gauge(
            "store_cache_journal_bytes",
            "Length of the journal since the snapshot.",
            writer.files.journal_bytes,
        )
        yield _gauge(
            "store_cache_snapshot_bytes", "Length of the snapshot.", writer.files.snapshot_bytes
        )
        yield _histogram(
            "store_cache_sync_seconds",
            "How long the disk took to write and sync records of the journal.",
            self._counts.disk_syncs,
        )
        compactions = CounterMetricFamily(
            "store_cache_compactions", "Snapshots that replaced a journal which had grown."
        )
        compactions.add_metric([], writer.files.compactions)
        yield compactions

    def _streams(self) -> Iterator[Metric]:
        streams = self._watched.streams
        if streams is None:
            return
        yield _gauge("store_cache_stream_readers", "Open streams of changes.", len(streams))
        resets = CounterMetricFamily(
            "store_cache_stream_resets", "How often a reader of a stream had to begin again."
        )
        resets.add_metric([], streams.feed.resets)
        yield resets

    def _verification(self) -> Iterator[Metric]:
        if self._watched.verifier is None:
            return
        findings = self._watched.verifier.findings
        if findings.last_equal is not None:
            yield _gauge(
                "store_cache_verified_timestamp_seconds",
                "When the catalogue was last found equal to Central's, in unix seconds.",
                findings.last_equal,
            )
        mismatches = CounterMetricFamily(
            "store_cache_verification_mismatches",
            "Products that differed from Central's in more than a time.",
        )
        mismatches.add_metric([], findings.mismatches)
        yield mismatches
        comparisons = CounterMetricFamily(
            "store_cache_verification_comparisons",
            "Comparisons with Central, by outcome.",
            labels=["outcome"],
        )
        comparisons.add_metric(["completed"], findings.compared)
        comparisons.add_metric(["raced"], findings.raced)
        comparisons.add_metric(["given_up"], findings.given_up)
        yield comparisons


def new_registry(collector: StoreCollector) -> CollectorRegistry:
    """Return a registry of the store's metrics and of those of the process (memory, CPU, files)."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=float(value))


def _counter(name: str, documentation: str, counted: Histograms, labels: str) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=labels.split())
    for values, histogram in counted:
        family.add_metric(values, histogram.count)
    return family


def _histogram(name: str, documentation: str, measured: Histograms, labels: str = "") -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=labels.split())
    for values, histogram in measured:
        family.add_metric(values, histogram.buckets(), histogram.total_seconds)
    return family
