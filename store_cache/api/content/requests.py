"""Request bodies: received within a size limit and a deadline, and parsed as strict JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from store_cache.api.problems import (
    InvalidJson,
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
)

MOST_BYTES = 256 * 1024

MOST_MEMBERS = 4_000
"""Names and items in a body: forty for each update of a whole batch. Ten times as many would keep
all others waiting for a tenth of a second while they are parsed."""

_TYPES = ("application/json", "text/plain")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_json(request: web.Request, *, deadline_seconds: float) -> Any:
    """Return the body as JSON values.

    Raises UnsupportedMediaType, PayloadTooLarge, InvalidRequest (it did not arrive), InvalidJson.
    """
    if encoding := request.headers.get("Content-Encoding"):
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding[:50]!r} is not accepted; send the body uncompressed"
        )
    # Many tills send JSON without saying so.
    has_type = bool(request.headers.get("Content-Type", "").strip())
    charset = (request.charset or "utf-8").lower()
    if (has_type and request.content_type not in _TYPES) or charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(
            "The body must be JSON in UTF-8; send Content-Type: application/json"
        )
    return parse_json(await _receive(request, deadline_seconds))


def parse_json(body: bytes) -> Any:
    """Parse JSON that every parser reads alike. Raises InvalidJson, PayloadTooLarge.

    Besides bad syntax, it refuses NaN and infinities, lone surrogates, deep nesting, and duplicate
    names, of which one parser takes the first and another the last.
    """
    if has_more_members(body, MOST_MEMBERS):
        raise PayloadTooLarge(
            f"The body has more than {MOST_MEMBERS} names and items; split it into smaller ones",
            details={"limitMembers": MOST_MEMBERS},
        )
    try:
        value = orjson.loads(body)  # refuses all but duplicates
        json.loads(body, object_pairs_hook=_unique)
    except RecursionError:
        raise InvalidJson("The body is not valid JSON: it is nested too deeply") from None
    except ValueError as problem:
        raise InvalidJson(f"The body is not valid JSON: {problem}") from None
    return value


def has_more_members(body: bytes, limit: int) -> bool:
    """Return whether JSON has more members than `limit`, before anything is built from it.

    Each member but the first of its object or list follows a comma. The answer for what is no JSON
    means nothing.
    """
    if _count_members(body) <= limit:  # what stands in texts is counted too
        return False
    without_escapes = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if without_escapes.count(b'"') > 4 * limit:  # a name and a text need two quotes each
        return True
    return _count_members(b"".join(without_escapes.split(b'"')[::2])) > limit


def _count_members(text: bytes) -> int:
    return text.count(b",") + text.count(b"{") + text.count(b"[")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:100]!r} stands twice in one object")
        found[name] = value
    return found


async def _receive(request: web.Request, deadline_seconds: float) -> bytes:
    if (request.content_length or 0) > MOST_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(deadline_seconds):
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(_CONTINUE)
            body = bytearray()
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise _too_large()
            return bytes(body)
    except TimeoutError:
        raise InvalidRequest(
            f"The body did not arrive within {deadline_seconds:g} s; send it in one go"
        ) from None
    except (web.RequestPayloadError, ConnectionError):
        raise InvalidRequest(
            "The body broke off or its transfer coding is malformed; send it again"
        ) from None


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body is larger than {MOST_BYTES} bytes; split it into smaller requests",
        details={"limitBytes": MOST_BYTES},
    )
