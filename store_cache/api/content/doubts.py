"""Writes of unknown outcome as the API shows them: in the list, and in the error of a write."""

from __future__ import annotations

from store_cache.api.content.clock import rfc3339
from store_cache.api.content.documents import DoubtFacts, SeenSince, StockAtCentral, WriteInDoubt
from store_cache.writes.write import Doubt, SeenEvent


def doubt_facts(doubt: Doubt) -> DoubtFacts:
    """Return what is known of a write, apart from its key."""
    at_central: StockAtCentral | None = None
    if doubt.at_central is not None:
        quantity, version = doubt.at_central
        at_central = {"available": quantity, "version": version}
    return {
        "productId": doubt.product_id,
        "versionSent": doubt.version,
        "sentAt": rfc3339(doubt.sent_at),
        "seenSince": [_seen(event) for event in doubt.seen],
        "atCentral": at_central,
    }


def doubt_document(doubt: Doubt) -> WriteInDoubt:
    return {
        "idempotencyKey": doubt.key,
        "client": doubt.client or None,
        "state": "in_doubt",
        **doubt_facts(doubt),
    }


def _seen(event: SeenEvent) -> SeenSince:
    return {
        "offset": event.offset,
        "version": event.version,
        "available": event.available,
        "storeId": event.store_id,
    }
