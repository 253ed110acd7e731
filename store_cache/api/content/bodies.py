"""The bodies of reads, joined from the bytes of rows, and their entity tags (RFC 9110).

Nothing here awaits, so that each body shows one state of the catalogue (promise 1). `pending` is
what is queued of each product, if there is an outbox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter

import orjson

from store_cache.api.content.freshness import Freshness
from store_cache.api.content.models import PageQuery
from store_cache.catalogue.catalogue import Catalogue
from store_cache.writes.outbox.pending import PendingStock

# Tills written against older stores read `total_count` and `has_more`.
_PAGE = (
    b'{"products":[%b],"pagination":{"offset":%d,"limit":%d,"total":%d,"hasMore":%b,'
    b'"total_count":%d,"has_more":%b},"cacheInfo":{"lastSyncTime":%b,"totalProducts":%d}}'
)
_BASKET = b'{"products":[%b],"missing":%b}'
_BASKET_WITH_BARCODES = b'{"products":[%b],"missing":%b,"missingBarcodes":%b}'
_HASH_BYTES = 8
_DIGEST = hashlib.blake2b(digest_size=12)  # copying it takes half the time of making one

Content = tuple[bytes, str]
"""JSON, and its tag as written in the `ETag` header."""


def product(
    catalogue: Catalogue, product_id: str, pending: PendingStock | None = None
) -> Content | None:
    """Return one product; None if the catalogue does not hold it."""
    row = catalogue.get(product_id)
    if row is None:
        return None
    if pending:
        row = pending.show(row)
    return row, strong_tag(row)


def page(
    catalogue: Catalogue,
    query: PageQuery,
    freshness: Freshness,
    pending: PendingStock | None = None,
) -> Content:
    """Return a page of the list, by offset or by the id before it."""
    if query.after is None:
        return page_at(catalogue, query.offset, query.limit, freshness, pending)
    start, rows = catalogue.page_after(query.after, query.limit)
    total = len(catalogue)
    return page_of(rows, start, query.limit, total, total, freshness, pending=pending)


def page_at(
    catalogue: Catalogue,
    offset: int,
    limit: int,
    freshness: Freshness,
    pending: PendingStock | None = None,
) -> Content:
    """Return the page at an offset, which is what most clients ask for."""
    total = len(catalogue)
    rows = catalogue.page(offset, limit)
    return page_of(rows, offset, limit, total, total, freshness, pending=pending)


def page_of(
    rows: Sequence[bytes],
    start: int,
    limit: int,
    total: int,
    held: int,
    freshness: Freshness,
    *,
    pending: PendingStock | None = None,
) -> Content:
    """Return a page of a list of `total` products; the catalogue has `held`.

    The tag covers rows and pagination, not the time of the last sync.
    """
    if pending:
        rows = pending.show_all(rows)
    has_more = b"true" if rows and start + len(rows) < total else b"false"
    synced = orjson.dumps(freshness.last_sync_time)
    counts = (total, has_more)
    body = _PAGE % (b",".join(rows), start, limit, *counts, *counts, synced, held)
    return body, weak_tag(rows, start, limit, total)


def basket(
    catalogue: Catalogue, asked: Sequence[str], pending: PendingStock | None = None
) -> Content:
    """Return the products with these ids, in this order, and the ids of those not held."""
    held, missing = _found(catalogue.rows, asked)
    if pending:
        held = pending.show_all(held)
    body = _BASKET % (b",".join(held), orjson.dumps(missing))
    return body, weak_tag(held, *missing)


def basket_with_barcodes(
    catalogue: Catalogue,
    asked: Sequence[str],
    by_barcode: Mapping[str, Sequence[str]],
    pending: PendingStock | None = None,
) -> Content:
    """Return the products with these ids, then the other ones with these barcodes.

    `by_barcode`: the ids of the products with each barcode; all are held.
    """
    found = chain.from_iterable(by_barcode.values())
    rows, missing = _found(catalogue.rows, list(dict.fromkeys([*asked, *found])))
    if pending:
        rows = pending.show_all(rows)
    missing_barcodes = [barcode for barcode, found in by_barcode.items() if not found]
    said = orjson.dumps(missing), orjson.dumps(missing_barcodes)
    body = _BASKET_WITH_BARCODES % (b",".join(rows), *said)
    return body, weak_tag(rows, *missing, "", *missing_barcodes)


def _found(rows: Mapping[str, bytes], asked: Sequence[str]) -> tuple[Sequence[bytes], list[str]]:
    """Return the rows that are held, and the ids of those that are not.

    Getting all rows in one call takes half the time of one by one: they lie apart in memory, and
    the processor then waits for several at once.
    """
    if len(asked) > 1:  # with a single id, `itemgetter` returns no tuple
        try:
            return itemgetter(*asked)(rows), []
        except KeyError:
            pass  # some are missing
    held = [row for row in map(rows.get, asked) if row is not None]
    return held, [one for one in asked if one not in rows]


def strong_tag(content: bytes) -> str:
    digest = _DIGEST.copy()
    digest.update(content)
    return f'"{digest.hexdigest()}"'


def weak_tag(rows: Sequence[bytes], *others: str | int) -> str:
    """Return the tag of an answer that holds the same content beside a time that moves.

    It is made of Python's hashes, which are stored with the rows: a digest of a page's bytes would
    cost more than the rest of its answer. Each process hashes differently, so that after a restart
    pages have other tags and are sent whole once.
    """
    hashed = hash((tuple(rows), others)).to_bytes(_HASH_BYTES, signed=True)
    return f'W/"{hashed.hex()}"'
