"""The metrics: what is counted, how it is shown, and the points of the last hour."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

from store_cache.api.metrics.clock_skew import ANSWERS, ClockSkew
from store_cache.api.metrics.counts import MOST_MEASURED, Counts
from store_cache.api.metrics.histogram import Histogram, quantile
from store_cache.api.metrics.history import POINT_SECONDS
from store_cache.api.metrics.metrics import OPENMETRICS
from store_cache.app.build import Environment, running
from store_cache.central.client import Exchange
from store_cache.model.event import AnyEvent, read_event
from store_cache.sync.states import FullSyncRecord
from store_cache.writes.write import Write, WriteError
from tests.docs.pages import DOCS, section, table_rows
from tests.golden.central import ScriptedCentral
from tests.harness.central import LedgerTransport
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY
from tests.harness.clock import NOON, Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import RunningStore, a_store, settings_of
from tests.harness.virtual_time import in_virtual_time

TILL = {"X-API-Key": TILL_KEY}
PAGE = "/v1/store/inventory"
PRODUCT = "/v1/store/inventory/{productId}"
LOOKUP = "/v1/store/inventory/lookup"

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples_of(store: RunningStore) -> Samples:
    """All samples by name and values of labels, in the order of the labels' names."""
    assert store.parts.metrics is not None
    body = store.parts.metrics.exposition()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_families(body.decode())
        for sample in family.samples
    }


def requests_of(samples: Samples) -> dict[tuple[str, ...], float]:
    """Answers to clients, by method, route and status."""
    return {
        labels: value
        for (name, labels), value in samples.items()
        if name == "store_cache_http_requests_total" and value
    }


@asynccontextmanager
async def shop(**settings: Any) -> AsyncIterator[tuple[RunningStore, aiohttp.ClientSession]]:
    """A live store, served, and a client of it."""
    async with a_store(**settings) as store, store.served() as url:
        await store.until("live")
        async with aiohttp.ClientSession(url) as client:
            yield store, client


# -- what is shown -----------------------------------------------------------------------------


async def test_metrics_are_those_of_the_documentation() -> None:
    """Names, types and labels are those of the table in docs/operations.md, and each has a help."""
    async with shop(verify_interval_minutes=15, offline_writes="queue") as (store, client):
        store.central.sell()
        await client.get(PAGE, headers=TILL)
        write = {"productId": "P-2", "delta": -1, "version": 1, "idempotencyKey": "k"}
        await client.post(f"{PAGE}/updates", json=write, headers=TILL)
        async with asyncio.timeout(10):
            while store.parts.runner.events_applied < 1:
                await store.parts.runner.changed.wait()
        dated = Exchange("feed", "200", 0.1, "Mon, 15 Jan 2024 12:00:00 GMT")
        assert store.parts.metrics is not None
        assert store.parts.verifier is not None
        store.parts.metrics.counts.note_exchange(dated)
        store.parts.verifier.findings.last_equal = NOON
        body = await (await client.get("/metrics")).text()
    found = {}
    for family in text_families(body):
        if family.name.startswith("store_cache"):
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, labels)
            assert family.documentation.endswith((".", "never."))
    documented = {
        name.strip("`"): (kind, {label.strip("` ") for label in labels.split(",")} - {""})
        for name, kind, labels, _ in table_rows(section(DOCS / "operations.md", "Metrics"))[1:]
    }

    only_with_nats = {"store_cache_feed_from_nats": ("gauge", set[str]())}
    assert documented == found | only_with_nats


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", OPENMETRICS),
        ("application/openmetrics-text; version=x.y", OPENMETRICS),
    ],
)
async def test_notation_is_what_the_scraper_accepts(accept: str, content_type: str) -> None:
    """A scraper that knows OpenMetrics gets it, others get text; both parse, with equal values."""
    async with shop() as (_store, client):
        answer = await client.get("/metrics", headers={"Accept": accept})
        body = await answer.text()
    is_openmetrics = content_type.startswith("application/openmetrics")
    families = list((openmetrics_families if is_openmetrics else text_families)(body))
    values = {s.name: s.value for family in families for s in family.samples}

    assert (200, content_type) == (answer.status, answer.headers["Content-Type"])
    assert 3.0 == values["store_cache_products"]
    assert "process_resident_memory_bytes" in values


async def test_metrics_are_made_once_a_second() -> None:
    """Between two times a scrape gets the same bytes, whatever happens."""
    async with shop() as (_store, client):
        first = await (await client.get("/metrics")).text()
        await client.get(PAGE, headers=TILL)
        second = await (await client.get("/metrics?a=b")).text()
        third = await (await client.get("/metrics", headers={"Accept": OPENMETRICS})).text()

    assert first == second
    assert 'method="GET",route="/metrics",status="200"} 2.0' in third


async def test_key_is_asked_for_if_wanted() -> None:
    """By default a scrape needs no key; METRICS_KEY_REQUIRED asks for one, a till's is enough."""
    async with shop() as (_store, client):
        statuses = [(await client.get("/metrics")).status, (await client.head("/metrics")).status]
    async with shop(metrics_key_required="true") as (_store, client):
        statuses.append((await client.get("/metrics")).status)
        statuses.append((await client.get("/metrics", headers=TILL)).status)

    assert [200, 200, 401, 200] == statuses


@pytest.mark.parametrize("fast_reads", ["true", "false"])
async def test_without_metrics_nothing_else_changes(fast_reads: str) -> None:
    """METRICS=false leaves out both routes; reads and writes are answered as ever."""
    async with shop(metrics="false", fast_reads=fast_reads) as (store, client):
        write = {"productId": "P-2", "delta": -1, "version": 1, "idempotencyKey": "k"}
        statuses = [
            (await client.get("/metrics")).status,
            (await client.get("/v1/store/metrics/history", headers=TILL)).status,
            (await client.get(f"{PAGE}/P-1", headers=TILL)).status,
            (await client.post(f"{PAGE}/updates", json=write, headers=TILL)).status,
        ]

        assert [404, 404, 200, 200] == statuses
        assert store.parts.metrics is None


def test_only_a_store_with_metrics_loads_their_library() -> None:
    """Loading the program does not; building its metrics does."""
    look = "import sys, store_cache.app.serve; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()


@in_virtual_time
async def test_state_of_a_store_through_an_outage() -> None:
    """One state is 1; the breaker, the age and the disk are shown as they are."""
    central = LedgerTransport(Clock())
    central.cut()
    async with a_store(central=central) as store:
        await store.until("fallback")
        away = samples_of(store)
        central.is_cut = False
        await store.until("live")
        await asyncio.sleep(7.0)
        back = samples_of(store)
        store.disk.room = 0
        central.sell()
        await asyncio.sleep(1.0)
        full = samples_of(store)

    def states(samples: Samples) -> dict[str, float]:
        return {
            labels[0]: value for (n, labels), value in samples.items() if n == "store_cache_state"
        }

    for samples, name in ((away, "fallback"), (back, "live"), (full, "degraded")):
        assert {name: 1.0} == {state: value for state, value in states(samples).items() if value}
        assert 7 == len(states(samples))
    assert float("inf") == away["store_cache_age_seconds", ()]
    assert 1.0 == away["store_cache_circuit_open", ("feed",)]
    assert ("store_cache_feed_lag_events", ()) not in away
    assert 7.0 == pytest.approx(back["store_cache_age_seconds", ()], abs=0.1)
    assert 0.0 == back["store_cache_circuit_open", ("feed",)]
    assert 0.0 == back["store_cache_feed_lag_events", ()]
    assert (1.0, 0.0) == (back["store_cache_durable", ()], full["store_cache_durable", ()])
    assert 1.0 == full["store_cache_full_syncs_total", ("installed", "first_start")]


# -- what is counted ---------------------------------------------------------------------------


@pytest.mark.parametrize("fast_reads", ["true", "false"])
async def test_each_request_counts_once(fast_reads: str) -> None:
    """Reads count the same with and without fast reads; what has no route of its own is `other`."""
    async with shop(fast_reads=fast_reads) as (store, client):
        tag = (await client.get(f"{PAGE}/P-1", headers=TILL)).headers["ETag"]
        await client.get(f"{PAGE}/P-1", headers=TILL | {"If-None-Match": tag})
        await client.get(f"{PAGE}/P-9", headers=TILL)
        await client.get(PAGE, headers=TILL)
        await client.get(f"{PAGE}?offset=0&limit=2", headers=TILL)
        await client.head(PAGE, headers=TILL)
        await client.post(LOOKUP, json={"productIds": ["P-1"]}, headers=TILL)
        await client.get(PAGE)
        await client.get("/nowhere")
        await client.request("PURGE", "/nowhere/else")
        samples = samples_of(store)

    assert {
        ("GET", PRODUCT, "200"): 1,
        ("GET", PRODUCT, "304"): 1,
        ("GET", PRODUCT, "404"): 1,
        ("GET", PAGE, "200"): 2,
        ("HEAD", PAGE, "200"): 1,
        ("POST", LOOKUP, "200"): 1,
        ("GET", PAGE, "401"): 1,
        ("GET", "other", "404"): 1,
        ("other", "other", "404"): 1,
    } == requests_of(samples)
    assert 3.0 == samples["store_cache_http_request_seconds_count", (PRODUCT,)]
    assert 0 < samples["store_cache_http_request_seconds_sum", (PRODUCT,)] < 1


async def test_nothing_that_is_sent_makes_more_series() -> None:
    """A thousand products, paths and methods leave the number of samples as it was."""
    async with shop() as (store, client):

        async def ask(number: int) -> None:
            await client.get(f"{PAGE}/none-{number}", headers=TILL)
            await client.get(f"/path/{number}?a={number}")
            await client.request(f"METHOD{number}", f"/v1/{number}", headers=TILL)

        await ask(0)
        before = len(samples_of(store))
        for number in range(1, 60):
            await ask(number)

        assert before == len(samples_of(store))


def test_nothing_that_central_sends_makes_more_series() -> None:
    """Statuses that do not exist, and reasons of a full sync that name a generation, share one."""
    counts = Counts(now=lambda: NOON, uptime=lambda: 0.0)
    for status in range(100, 1000):
        counts.note_exchange(Exchange("feed", str(status), 0.1, None))
    for number in range(50):
        reasons = (f"Central has a new generation g-{number}", "on demand")
        counts.note_full_sync(FullSyncRecord(number, reasons, 0.0, 1.0))
        counts.note_full_sync(FullSyncRecord(number, (f"new reason {number}",), 0.0, 1.0, 0, "x"))

    assert 70 > len(list(counts.exchanges))
    assert 900 == counts.exchanges.total().count
    assert [("feed_replaced", "installed"), ("other", "failed")] == [
        labels for labels, _ in counts.full_syncs
    ]


@in_virtual_time
async def test_writes_are_counted_by_outcome() -> None:
    """One applied, one refused, one that was not sent, one in doubt, counted again as settled."""
    async with a_store() as store:
        await store.until("live")
        forwarder = store.parts.forwarder
        await forwarder.update(Write("P-1", -1, 1, "applied"))
        await forwarder.update(Write("P-1", -1, 1, "refused"))
        store.central.failing = "updates"
        with pytest.raises(WriteError):
            await forwarder.update(Write("P-2", -1, 1, "in doubt"))
        doubt = samples_of(store)
        store.central.failing = None
        await asyncio.sleep(60.0)
        await forwarder.update(Write("P-2", -1, 1, "in doubt"))
        store.central.cut()
        with pytest.raises(WriteError):
            await forwarder.update(Write("P-3", -1, 1, "unsent"))
        samples = samples_of(store)

    counted = {
        labels[0]: value
        for (name, labels), value in samples.items()
        if name == "store_cache_writes_total"
    }
    assert {"applied": 2.0, "refused": 1.0, "in_doubt": 1.0, "failed": 1.0} == counted
    assert (1.0, 0.0) == (
        doubt["store_cache_writes_in_doubt", ()],
        samples["store_cache_writes_in_doubt", ()],
    )
    assert 1.0 < samples["store_cache_central_requests_total", ("write", "503")]
    assert 1.0 == samples["store_cache_central_requests_total", ("feed", "unreachable")]


@in_virtual_time
async def test_a_queued_write_is_not_counted_as_refused() -> None:
    async with a_store(offline_writes="queue") as store:
        await store.until("live")
        store.central.cut()
        await store.parts.forwarder.update(Write("P-1", -1, 1, "queued"))
        samples = samples_of(store)

    assert 1.0 == samples["store_cache_writes_total", ("queued",)]
    assert ("store_cache_writes_total", ("refused",)) not in samples


@in_virtual_time
async def test_events_are_counted_by_outcome() -> None:
    """An event is applied, or stale because a newer state is held, or quarantined."""
    lamp = {"productId": "LAMP", "name": "Lamp", "available": 5, "version": 3}
    central = ScriptedCentral(lamp | {"lastUpdated": "2024-01-15T12:00:00Z"})
    world = Environment(FaultyDirectory(), now=Clock().now, transport=central)
    async with running(settings_of(), world) as parts:
        await asyncio.sleep(3.0)
        runner = parts.runner
        assert (0, 1) == (runner.events_applied, runner.events_stale)  # its page had its creation
        central.set("LAMP", available=4)
        central.publish("inventory_updated", lamp)
        central.set("LAMP", available=3)
        central.publish("shelf_moved", central.rows["LAMP"])
        await asyncio.sleep(5.0)

    assert (2, 2, 1) == (runner.events_applied, runner.events_stale, runner.quarantined)


def events(count: int, *, made_at: str = "2024-01-15T12:00:00.000Z") -> list[AnyEvent]:
    data = {"productId": "P", "available": 1, "version": 1, "lastUpdated": made_at, "name": "n"}
    event = {"eventType": "inventory_updated", "productId": "P", "version": 1, "data": data}
    return [read_event(event | {"offset": n, "timestamp": made_at}) for n in range(count)]


@pytest.mark.parametrize(("count", "measured"), [(1, 1), (7, 7), (8, 8), (9, 5), (500, 8)])
def test_a_batch_is_measured_at_a_few_of_its_events(count: int, measured: int) -> None:
    """Of a large batch some events, evenly: the cost does not grow with it."""
    counts = Counts(now=lambda: NOON, uptime=lambda: 0.0)
    counts.note_events(events(count))

    assert measured <= MOST_MEASURED
    assert measured == counts.visible.total().count


@pytest.mark.parametrize(
    "made_at", ["", "yesterday", "2024-99-15T12:00:00Z", "20240115", "2024-01-15"]
)
def test_an_event_without_a_time_is_not_measured(made_at: str) -> None:
    """Some Centrals name none, or one that cannot be read: that is no error."""
    counts = Counts(now=lambda: NOON, uptime=lambda: 0.0)
    counts.note_events(events(1, made_at=made_at))

    assert 0 == counts.visible.total().count


# -- clocks, histograms ------------------------------------------------------------------------


def test_skew_is_found_to_a_fraction_of_a_second() -> None:
    """From dates of whole seconds, asked for at different moments."""
    skew = ClockSkew()
    for number in range(20):
        sent_at = 1000.0 + number * 1.13
        date = float(int(sent_at + 0.01 + 4.3))  # Central's clock is 4.3 s ahead
        skew.observe(date=date, sent_at=sent_at, arrived_at=sent_at + 0.02)

    assert skew.seconds is not None
    assert 4.3 == pytest.approx(skew.seconds, abs=0.1)


def test_skew_follows_a_clock_that_is_set() -> None:
    """What contradicts the answers before replaces them; at most so many are held."""
    skew = ClockSkew()
    for number in range(3 * ANSWERS):
        skew.observe(date=1000.0 + number, sent_at=1000.0 + number, arrived_at=1000.0 + number)
    before = skew.seconds
    skew.observe(date=5000.0, sent_at=2000.0, arrived_at=2000.1)

    assert before is not None
    assert 0.5 == pytest.approx(before, abs=0.5)
    assert skew.seconds is not None
    assert 3000.0 == pytest.approx(skew.seconds, abs=1.0)


@pytest.mark.parametrize(
    ("durations", "share", "expected"),
    [
        ([], 0.5, None),
        ([0.5] * 10, 0.5, 0.5),
        ([0.5] * 10, 0.99, 0.99),
        ([0.5] * 5 + [1.5] * 5, 0.75, 1.5),
        ([9.0], 0.5, 4.0),
    ],
)
def test_quantiles_are_estimated_as_prometheus_does(
    durations: list[float], share: float, expected: float | None
) -> None:
    """Evenly within a bucket; beyond the last bound, that bound."""
    histogram = Histogram((1.0, 2.0, 4.0))
    for seconds in durations:
        histogram.add(seconds)

    assert expected == quantile(histogram.bounds, histogram.counts, share)


def test_bucket_holds_what_is_at_most_its_bound() -> None:
    """As Prometheus defines `le`."""
    histogram = Histogram((1.0, 2.0))
    for seconds in (1.0, 1.5, 2.0, 2.1):
        histogram.add(seconds)

    assert [("1", 1), ("2", 3), ("+Inf", 4)] == histogram.buckets()
    assert 6.6 == pytest.approx(histogram.total_seconds)


# -- the last hour -----------------------------------------------------------------------------


@in_virtual_time
async def test_history_has_a_point_for_every_ten_seconds() -> None:
    """Each says what happened since the one before; only the last hour is kept."""
    async with a_store() as store:
        await store.until("live")
        assert store.parts.metrics is not None
        history = store.parts.metrics.history
        await asyncio.sleep(POINT_SECONDS + 1)
        for number in range(5):
            await store.parts.forwarder.update(Write("P-1", -1, number + 1, f"k-{number}"))
        store.central.wake()
        await asyncio.sleep(POINT_SECONDS)
        quiet, busy = history.points(60)
        await asyncio.sleep(2 * 3600.0)
        hour, minute = history.points(60), history.points(1)

    assert (0.0, 0.5) == (quiet["writesPerSecond"], busy["writesPerSecond"])
    assert ("live", 0, 0.0) == (busy["state"], busy["lag"], busy["errorsPerSecond"])
    assert busy["visibleSeconds"]["p50"] < 1 < busy["ageSeconds"] < 21
    assert {"p50": None, "p99": None} == hour[-1]["visibleSeconds"]
    assert (360, 6) == (len(hour), len(minute))
    assert minute == hour[-6:]


@in_virtual_time
async def test_history_shows_an_outage() -> None:
    """Central's failures are counted apart from the errors that tills see."""
    async with a_store() as store:
        await store.until("live")
        store.central.cut()
        await asyncio.sleep(65.0)
        assert store.parts.metrics is not None
        last = store.parts.metrics.history.points(1)[-1]

    assert "fallback" == last["state"]
    assert 0 < last["centralErrorsPerSecond"]
    assert 0.0 == last["errorsPerSecond"]


@pytest.mark.parametrize("minutes", ["0", "61", "-1", "x", "", "1.5", "٣", "9" * 5000, "01"])
async def test_history_refuses_other_minutes(minutes: str) -> None:
    """The answer names the parameter and what it may be."""
    async with shop() as (_store, client):
        answer = await client.get(f"/v1/store/metrics/history?minutes={minutes}", headers=TILL)
        error = orjson.loads(await answer.read())["error"]

    assert 400 == answer.status
    assert {"minutes": "must be a whole number from 1 to 60"} == error["details"]["fields"]


async def test_history_is_for_tills() -> None:
    """It needs a key, as the status does."""
    async with shop() as (store, client):
        assert store.parts.metrics is not None
        store.parts.metrics.history.add_point()
        statuses = [
            (await client.get("/v1/store/metrics/history", headers=headers)).status
            for headers in ({}, TILL, {"X-API-Key": STORE_ADMIN_KEY})
        ]
        answer = await client.get("/v1/store/metrics/history?minutes=5", headers=TILL)
        document = orjson.loads(await answer.read())

    assert [401, 200, 200] == statuses
    assert (10, 1) == (document["intervalSeconds"], len(document["points"]))
