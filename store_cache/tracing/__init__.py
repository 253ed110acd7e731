"""Spans for OpenTelemetry, if `OTEL_…` variables ask for them; needs the extra `tracing`.

That a trace goes on from a till to Central does not depend on this: `central.carried`.
"""
