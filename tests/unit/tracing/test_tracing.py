"""Spans: one trace from the till through the store to Central, and when there are any."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.serve import api_of
from store_cache.tracing import setup
from store_cache.tracing.setup import is_wanted, tracing
from store_cache.tracing.spans import Spans
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import RunningStore, settings_of
from tests.unit.central.test_carried import PARENT, SALE, TILL, TRACE_ID, UPDATES, Witness


@asynccontextmanager
async def shop(spans: Spans) -> AsyncIterator[tuple[Witness, aiohttp.ClientSession]]:
    """A live store that makes spans, its Central, and a till."""
    central, settings, directory = Witness(), settings_of(), FaultyDirectory()
    world = Environment(directory, now=central.clock.now, transport=central, spans=spans)
    async with running(settings, world) as parts:
        app = api_of(parts, settings)
        server = await serve(app, host="127.0.0.1", port=0)
        try:
            await RunningStore(parts, settings, central, directory).until("live")
            url = f"http://127.0.0.1:{server.port}"
            async with aiohttp.ClientSession(url, headers=TILL) as till:
                yield central, till
        finally:
            await server.stop(1.0)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider, version="0.1.0")


def ids_of(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent."""
    context = span.get_span_context()
    assert context is not None
    parent = 0 if span.parent is None else span.parent.span_id
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{parent:016x}"


def facts_of(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


async def test_one_trace_from_till_to_central(spans: Spans, exporter: InMemorySpanExporter) -> None:
    """The till's span is the parent of the store's, which is that of the request to Central, which
    Central is told of; the product, which is read again, has one too. Polls have none."""
    async with shop(spans) as (central, till):
        answer = await till.post(
            UPDATES, json=SALE, headers={"traceparent": PARENT, "X-Request-ID": "till-3-17"}
        )
        [headers] = central.writes
    to_central, _, to_store = exporter.get_finished_spans()

    assert 200 == answer.status
    assert (SpanKind.CLIENT, SpanKind.SERVER) == (to_central.kind, to_store.kind)
    trace, store_span, till_span = ids_of(to_store)
    assert (TRACE_ID, "b7ad6b7169203331") == (trace, till_span)
    _, central_span, parent = ids_of(to_central)
    assert (TRACE_ID, store_span) == (ids_of(to_central)[0], parent)
    assert f"00-{TRACE_ID}-{central_span}-01" == headers["traceparent"]
    assert f"POST {UPDATES}" == to_store.name
    assert 200 == facts_of(to_store)["http.response.status_code"]
    assert "till-3-17" == facts_of(to_store)["store_cache.request_id"]
    assert "http://central.test/v1/inventory/updates" == facts_of(to_central)["url.full"]


async def test_write_without_a_trace_begins_one(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    """Its spans belong together all the same."""
    async with shop(spans) as (_central, till):
        await till.post(UPDATES, json=SALE)
    to_central, reading, to_store = exporter.get_finished_spans()

    assert {ids_of(to_store)[0]} == {ids_of(to_central)[0], ids_of(reading)[0]}
    assert "0" * 16 == ids_of(to_store)[2]


async def test_errors_are_named(spans: Spans, exporter: InMemorySpanExporter) -> None:
    """A refusal has the status of its answer; a request to Central that fails says how."""
    async with shop(spans) as (central, till):
        await till.post(UPDATES, json=SALE | {"version": 9})
        central.cut()
        away = await till.post(UPDATES, json=SALE | {"idempotencyKey": "sale-2"})
        fresh = {"traceparent": PARENT, "Cache-Control": "no-cache"}
        missing = await till.get("/v1/store/inventory/none", headers=fresh)
    by_name: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        by_name.setdefault(span.name, []).append(span)
    conflict, unavailable = by_name[f"POST {UPDATES}"]
    broken = by_name["GET Central"][-1]
    [not_found] = by_name["GET /v1/store/inventory/{productId}"]

    assert 409 == facts_of(conflict)["http.response.status_code"]
    assert conflict.status.is_unset
    assert ("ConnectError", False) == (broken.status.description, broken.status.is_ok)
    assert (503, 404) == (away.status, missing.status)
    assert (503, "central_unavailable") == (
        facts_of(unavailable)["http.response.status_code"],
        facts_of(unavailable)["error.type"],
    )
    assert (404, "product_not_found") == (
        facts_of(not_found)["http.response.status_code"],
        facts_of(not_found)["error.type"],
    )


async def test_wrong_keys_and_fast_reads_make_no_spans(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    """Strangers cannot fill the collector; a read that belongs to no trace stays fast."""
    async with shop(spans) as (_central, till):
        await till.get("/v1/store/inventory/P-1", headers={"X-API-Key": "guess"})
        await till.get("/v1/store/inventory/P-1")
        before = len(exporter.get_finished_spans())
        await till.get("/v1/store/inventory/P-1", headers={"traceparent": PARENT})

    assert 0 == before
    assert ["GET /v1/store/inventory/{productId}"] == [
        span.name for span in exporter.get_finished_spans()
    ]


# -- switched on by the environment ------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop-7"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_standard_variables_switch_it_on(environment: dict[str, str], expected: bool) -> None:
    """An endpoint or an exporter, unless they are switched off."""
    assert expected == is_wanted(environment)


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, asyncio.Queue[ExportTraceServiceRequest]]]:
    """A receiver of OTLP: its address, and what arrives."""
    received: asyncio.Queue[ExportTraceServiceRequest] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        received.put_nowait(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", received
    finally:
        await runner.cleanup()


async def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """By OTLP over HTTP, with the store's name, at the latest when the store stops."""
    async with collector() as (url, received):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_RESOURCE_ATTRIBUTES": "shop=7"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        async with tracing(environment, store_id="store-s1", version="0.1.0") as spans:
            assert spans is not None
            async with shop(spans) as (_central, till):
                await till.post(UPDATES, json=SALE, headers={"traceparent": PARENT})
        async with asyncio.timeout(5):
            [resource] = (await received.get()).resource_spans
    about = {each.key: each.value.string_value for each in resource.resource.attributes}
    found = [span for scope in resource.scope_spans for span in scope.spans]

    assert {"service.name": "store-cache", "service.instance.id": "store-s1", "shop": "7"} == {
        name: about[name] for name in ("service.name", "service.instance.id", "shop")
    }
    assert {"POST Central", "GET Central", f"POST {UPDATES}"} == {span.name for span in found}
    assert {bytes.fromhex(TRACE_ID)} == {span.trace_id for span in found}


async def test_a_collector_that_hangs_does_not_hold_up_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last spans are given up."""
    monkeypatch.setattr(setup, "FLUSH_SECONDS", 0.1)

    silent = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    began_at = asyncio.get_running_loop().time()
    async with tracing({"OTEL_TRACES_EXPORTER": "otlp"}, store_id="s", version="1") as spans:
        assert spans is not None
        async with shop(spans) as (_central, till):
            await till.post(UPDATES, json=SALE)
    silent.close()

    assert asyncio.get_running_loop().time() - began_at < 2.0


async def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store starts without spans; the log says what to install."""
    monkeypatch.setattr(setup, "find_spec", lambda _: None)
    async with tracing({"OTEL_TRACES_EXPORTER": "otlp"}, store_id="s", version="1") as spans:
        assert spans is None

    assert "pip install 'store-cache[tracing]'" in caplog.text


async def test_other_protocols_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Spans are sent by HTTP, whatever the variable says."""
    environment = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with caplog.at_level(logging.INFO):
        async with tracing(environment, store_id="s", version="1") as spans:
            assert spans is not None

    assert "OTEL_EXPORTER_OTLP_PROTOCOL is grpc; spans are sent as http/protobuf" in caplog.text
