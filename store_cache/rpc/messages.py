"""Rows, freshness and answers as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Struct

from store_cache.api.content.clock import rfc3339
from store_cache.api.content.freshness import Freshness
from store_cache.catalogue.history.entries import Entry
from store_cache.rpc.generated import inventory_pb2 as pb


def product(row: bytes) -> pb.Product:
    """Return one product, whose row is the JSON that an HTTP read gives."""
    held = orjson.loads(row)
    return pb.Product(
        product_id=held["productId"],
        name=held["name"],
        available=held["available"],
        version=held["version"],
        last_updated=held.get("lastUpdated") or "",
        json=row.decode(),
        pending_delta=held.get("pendingDelta"),
        expected_available=held.get("expectedAvailable"),
    )


def freshness(measured: Freshness) -> pb.Freshness:
    age = measured.age_seconds
    return pb.Freshness(
        generation=measured.generation or "",
        offset=measured.last_offset,
        age_seconds=age if math.isfinite(age) else None,
        stale=measured.is_stale,
        durable=measured.is_durable,
    )


def write_result(body: Mapping[str, Any]) -> pb.WriteResult:
    """Return the answer to a write from the body that HTTP gives."""
    return pb.WriteResult(
        product_id=body["productId"],
        applied=body["applied"],
        new_quantity=body.get("newQuantity"),
        new_version=body.get("newVersion"),
        last_updated=body.get("lastUpdated") or "",
        error_type=body.get("errorType") or "",
        error_message=body.get("errorMessage") or "",
        queued=body.get("queued", False),
        outbox_id=body.get("outboxId") or "",
    )


def document(value: Mapping[str, Any]) -> Struct:
    """Return a document of the HTTP API; whole numbers in it are doubles, as in every Struct."""
    struct = Struct()
    struct.update(value)
    return struct


def change(entry: Entry, *, with_key: bool) -> pb.ProductChange:
    """Return one change of a product's history. `with_key`: with the key of this shop's write."""
    return pb.ProductChange(
        version=entry.version,
        available=entry.available,
        delta=entry.delta,
        at=rfc3339(entry.at),
        source=entry.source.value,
        offset=entry.offset,
        request_id=(entry.key or "") if with_key else "",
    )
