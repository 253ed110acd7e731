"""The spans of the store: one for each request of a client with a right key, and below it one for
each request to Central that it causes. Polls and full syncs, which no client caused, have none.

Fast reads have none either, but a read that belongs to a trace is never one: `traceparent` is a
header that they leave to the plain path.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import httpx
from aiohttp import web
from aiohttp.typedefs import Handler
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from store_cache.api.problems import STATUS, ApiError
from store_cache.central import carried
from store_cache.writes.write import WriteError

_PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """Makes spans and gives them to `provider`."""

    def __init__(self, provider: TracerProvider, *, version: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("store-cache", version)

    @classmethod
    def exported(cls, *, store_id: str, version: str) -> Spans:
        """Return spans that are sent by OTLP, as the environment says."""
        about = {"service.name": "store-cache", "service.version": version}
        own = about | {"service.instance.id": store_id}
        resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, version=version)

    def close(self, seconds: float) -> None:
        """Send what is left, and give up after `seconds`: a collector may hang."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(seconds)

    # -- requests of clients ---------------------------------------------------------------

    def around(self, handler: Handler, route: str) -> Handler:
        """Return a handler that makes a span of what the handler of the route does."""

        async def traced(request: web.Request) -> web.StreamResponse:
            with self._tracer.start_as_current_span(
                f"{request.method} {route}",
                context=_PROPAGATOR.extract(_headers_of(carried.trace.get())),
                kind=SpanKind.SERVER,
                attributes={
                    "http.request.method": request.method,
                    "http.route": route,
                    "url.path": request.path,
                    "store_cache.request_id": carried.request_id.get() or "",
                },
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                carried.trace.set(_trace_of(span))  # for the log
                try:
                    response = await handler(request)
                except (ApiError, WriteError) as error:
                    status = error.status if isinstance(error, ApiError) else STATUS[error.code]
                    _note(span, status, error.code)
                    raise
                except BaseException as error:
                    _note(span, 500, type(error).__name__)
                    raise
                _note(span, response.status)
                return response

        return traced

    # -- requests to Central ---------------------------------------------------------------

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Return a transport that makes a span of each request which belongs to a trace."""
        return _TracedTransport(inner, self._tracer)


class _TracedTransport(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport, tracer: trace.Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not trace.get_current_span().get_span_context().is_valid:
            return await self._inner.handle_async_request(request)
        span = self._tracer.start_span(
            f"{request.method} Central",
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": request.method,
                "server.address": request.url.host,
                "url.full": str(request.url),
            },
        )
        request.headers.update(_headers_of(_trace_of(span)))
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            span.end()
            raise
        _note(span, response.status_code)
        if response.is_closed:  # its body is there already
            span.end()
        else:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _TracedStream(response.stream, span)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _TracedStream(httpx.AsyncByteStream):
    """The body of an answer; the span ends with it."""

    def __init__(self, inner: httpx.AsyncByteStream, span: Span) -> None:
        self._inner = inner
        self._span = span

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk

    async def aclose(self) -> None:
        self._span.end()
        await self._inner.aclose()


def _note(span: Span, status: int, error: str = "") -> None:
    span.set_attribute("http.response.status_code", status)
    if error:
        span.set_attribute("error.type", error)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _trace_of(span: Span) -> carried.Trace:
    named: dict[str, str] = {}
    _PROPAGATOR.inject(named, context=trace.set_span_in_context(span))
    return carried.Trace(named[carried.TRACEPARENT], named.get(carried.TRACESTATE, ""))


def _headers_of(current: carried.Trace | None) -> dict[str, str]:
    if current is None:
        return {}
    state = {carried.TRACESTATE: current.state} if current.state else {}
    return {carried.TRACEPARENT: current.parent} | state
