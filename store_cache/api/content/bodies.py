"""What reads answer with: the bytes, and the tag that names them.

Knows: how rows become answers, by joining bytes; how content is named (RFC 9110, ETag).
Refuses to know: requests, headers, and where the catalogue is from.
Nothing here awaits: each content is of one whole state of the catalogue (promise 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from operator import itemgetter

import orjson

from store_cache.api.content.freshness import Freshness
from store_cache.api.content.models import PageQuery
from store_cache.catalogue.catalogue import Catalogue

_PAGE = (
    b'{"products":[%b],"pagination":{"offset":%d,"limit":%d,"total":%d,"hasMore":%b},'
    b'"cacheInfo":{"lastSyncTime":%b,"totalProducts":%d}}'
)
_BASKET = b'{"products":[%b],"missing":%b}'
_HASH_BYTES = 8
_DIGEST = hashlib.blake2b(digest_size=12)  # to copy: half as dear as to make

Content = tuple[bytes, str]
"""JSON, and its tag as it stands in the header."""


def product(catalogue: Catalogue, product_id: str) -> Content | None:
    """One product; None if it is not held."""
    row = catalogue.get(product_id)
    return None if row is None else (row, strong_tag(row))


def page(catalogue: Catalogue, query: PageQuery, freshness: Freshness) -> Content:
    """A page of the list."""
    if query.after is None:
        return page_at(catalogue, query.offset, query.limit, freshness)
    start, rows = catalogue.page_after(query.after, query.limit)
    return _page_of(rows, start, query.limit, len(catalogue), freshness)


def page_at(catalogue: Catalogue, offset: int, limit: int, freshness: Freshness) -> Content:
    """The page that most ask for."""
    return _page_of(catalogue.page(offset, limit), offset, limit, len(catalogue), freshness)


def _page_of(
    rows: Sequence[bytes], start: int, limit: int, total: int, freshness: Freshness
) -> Content:
    """The tag is of rows and pagination, not of the time beside them."""
    has_more = b"true" if rows and start + len(rows) < total else b"false"
    synced = orjson.dumps(freshness.last_sync_time)
    body = _PAGE % (b",".join(rows), start, limit, total, has_more, synced, total)
    return body, weak_tag(rows, start, limit, total)


def basket(catalogue: Catalogue, asked: Sequence[str]) -> Content:
    """The products of these ids, in this order, and the ids of those that are not held."""
    held, missing = _found(catalogue.rows, asked)
    body = _BASKET % (b",".join(held), orjson.dumps(missing))
    return body, weak_tag(held, *missing)


def _found(rows: Mapping[str, bytes], asked: Sequence[str]) -> tuple[Sequence[bytes], list[str]]:
    """The rows that are held, and the ids of those that are not.

    Each row is somewhere else in memory, and the processor waits for several at a time if nothing
    else is between them: all at once costs half of what one by one does.
    """
    if len(asked) > 1:  # of a single one `itemgetter` makes no tuple
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
    """For an answer that says the same content along with a time that moves.

    Python keeps the hash of a row with the row: a digest of a page's bytes would cost more than
    all the rest of its answer. The hash is keyed anew by each process, so that after a restart
    pages have other tags, and are sent whole once.
    """
    name = hash((tuple(rows), others)).to_bytes(_HASH_BYTES, signed=True)
    return f'W/"{name.hex()}"'
