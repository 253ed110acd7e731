"""Events as bytes (WHATWG HTML, "Server-sent events"). JSON holds no line ends, so each event's
data is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def product(row: bytes, event_id: bytes | None = None) -> bytes:
    return _event(b"product", row, event_id)


def deleted(product_id: str, event_id: bytes | None = None) -> bytes:
    return _event(b"deleted", orjson.dumps({"productId": product_id}), event_id)


def document(name: str, value: Mapping[str, Any], event_id: bytes | None = None) -> bytes:
    return _event(name.encode(), orjson.dumps(value), event_id)


def retry(seconds: float) -> bytes:
    """Tell the client how long to wait before it connects again."""
    return b"retry: %d\n\n" % round(seconds * 1000)


def _event(name: bytes, data: bytes, event_id: bytes | None) -> bytes:
    if event_id is None:
        return b"event: %b\ndata: %b\n\n" % (name, data)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id, name, data)
