"""Which web pages may call: CORS for the configured origins.

Pages of other origins get the same answers without these headers; their browser blocks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import web

from store_cache.api.content.cache_headers import EXPOSED

ALLOWED_HEADERS = (
    "X-API-Key",
    "Content-Type",
    "If-None-Match",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Request-ID",
    "Cache-Control",
)
ALLOWED_METHODS = ("GET", "HEAD", "POST", "PATCH")

# How long browsers keep the answer to a preflight, and so how late an open page may see a change of
# the settings.
_MAX_AGE_SECONDS = 600


class Cors:
    """`origins` are exact, as a browser sends them, or the single `*` for any."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    def preflight(self, method: str, headers: Mapping[str, str]) -> web.Response | None:
        """Return the answer to a preflight of a configured origin; None to anything else."""
        is_preflight = method == "OPTIONS" and "Access-Control-Request-Method" in headers
        if not is_preflight or not self._allows(headers.get("Origin")):
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
            response.headers.add("Vary", "Origin")
        if origin is not None and self._allows(origin):
            exposed = ", ".join((*EXPOSED, "X-Request-ID", "Retry-After"))
            response.headers["Access-Control-Allow-Origin"] = "*" if self._any else origin
            response.headers["Access-Control-Expose-Headers"] = exposed

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and (self._any or origin in self._origins)
