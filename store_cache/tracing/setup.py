"""Switches tracing on by the standard variables of OpenTelemetry, and off at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store_cache.tracing.spans import Spans

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""How long a stop waits until the last spans are sent."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SENT_AS = "http/protobuf"


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether the variables ask for spans to be sent."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (exporter != "none" and any(map(environment.get, _ENDPOINTS)))


@asynccontextmanager
async def tracing(
    environment: Mapping[str, str], *, store_id: str, version: str
) -> AsyncIterator[Spans | None]:
    """Send spans until the block ends; None if none are wanted, or they cannot be sent.

    `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` may name the service in another way.
    """
    if not is_wanted(environment):
        yield None
        return
    if find_spec("opentelemetry.exporter") is None:
        log.warning(
            "OTEL_... asks for tracing, which is not installed, so there are no spans: "
            "pip install 'store-cache[tracing]'"
        )
        yield None
        return
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), _SENT_AS)
    if protocol != _SENT_AS:
        log.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %s; spans are sent as %s", protocol, _SENT_AS)
    from store_cache.tracing.spans import Spans  # noqa: PLC0415 - the extra may not be installed

    spans = Spans.exported(store_id=store_id, version=version)
    log.info("tracing: spans are sent by OTLP")
    try:
        yield spans
    finally:
        await asyncio.to_thread(spans.close, FLUSH_SECONDS)
