"""Which web pages may call: CORS for the configured origins.

Pages of other origins get the same answers without these headers; their browser blocks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import web
from aiohttp.hdrs import (
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN,
    VARY,
)

ALLOWED_HEADERS = (
    "X-API-Key",
    "Content-Type",
    "If-None-Match",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Request-ID",
    "X-Canary",
    "X-Tenant-ID",
    "X-User-ID",
    "Cache-Control",
)
ALLOWED_METHODS = ("GET", "HEAD", "POST", "PATCH")

# What scripts of other origins may read, beside what they always may.
_EXPOSED_HEADERS = (
    "X-Cache-Offset",
    "X-Cache-Generation",
    "Age",
    "Cache-Status",
    "ETag",
    "X-Request-ID",
    "X-Canary-Echo",
    "Retry-After",
)

# How long browsers keep the answer to a preflight, and so how late an open page may see a change of
# the settings.
_MAX_AGE_SECONDS = 600


class Cors:
    """`origins` are exact, as a browser sends them, or the single `*` for any."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins
        self._exposed = ", ".join(_EXPOSED_HEADERS)

    def preflight(self, method: str, headers: Mapping[str, str]) -> web.Response | None:
        """Return the answer to a preflight of a configured origin; None to anything else."""
        is_preflight = method == "OPTIONS" and ACCESS_CONTROL_REQUEST_METHOD in headers
        if not is_preflight or self.allowed(headers.get(ORIGIN)) is None:
            return None
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": ", ".join(ALLOWED_METHODS),
                "Access-Control-Allow-Headers": ", ".join(ALLOWED_HEADERS),
                "Access-Control-Max-Age": str(_MAX_AGE_SECONDS),
            },
        )

    def add_headers(self, response: web.StreamResponse, origin: str | None) -> None:
        """Add the headers that let a page of the origin read the response."""
        if not self._origins:
            return
        if not self._any:
            response.headers.add(VARY, ORIGIN)
        allowed = self.allowed(origin)
        if allowed is not None:
            response.headers[ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
            response.headers[ACCESS_CONTROL_EXPOSE_HEADERS] = self._exposed

    def allowed(self, origin: str | None) -> str | None:
        """Return what `Access-Control-Allow-Origin` says to pages of the origin; None if they may
        not call."""
        if origin is None or not (self._any or origin in self._origins):
            return None
        return "*" if self._any else origin
