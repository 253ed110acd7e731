"""The search index of a whole catalogue: shards in the order of their products' ids."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from store_cache.catalogue.search.shard import Shard
from store_cache.catalogue.search.terms import (
    barcode_term,
    category_term,
    code_prefix,
    is_number,
    name_term,
    sku_term,
    status_term,
)
from store_cache.catalogue.search.words import words_of

SHARD_PRODUCTS = 2_048
"""Products of a shard as it is filled; with twice as many it is split. Each search looks into every
shard, so that many small ones would take longer."""

Part = tuple[Shard, int]
"""Products of one shard, as a mask."""


@dataclass(frozen=True, slots=True)
class Query:
    """Products match if they have all that is given; None asks for nothing.

    `text`: each of its words begins a word of the product; it has at least one. `barcode`: a GTIN;
    leading zeros do not matter. `sku`, `category` and `status`: the whole value, but for case.
    """

    text: str | None = None
    barcode: str | None = None
    sku: str | None = None
    category: str | None = None
    status: str | None = None
    in_stock: bool | None = None


class Found:
    """The products that a query has found, in order. It is valid until the index changes.

    `groups` come one after the other; within each, products are in the order of their ids.
    """

    def __init__(self, groups: Sequence[Sequence[Part]]) -> None:
        self._groups = groups
        self.total = sum(mask.bit_count() for group in groups for _, mask in group)

    def page(self, offset: int, limit: int) -> list[bytes]:
        """Return rows `offset` to `offset + limit`."""
        rows: list[bytes] = []
        skipped = 0
        for group in self._groups:
            for shard, mask in group:
                count = mask.bit_count()
                if skipped + count > offset and len(rows) < limit:
                    begin = max(offset - skipped, 0)
                    rows += shard.rows(mask)[begin : begin + limit - len(rows)]
                skipped += count
        return rows

    def page_after(self, product_id: str, limit: int) -> tuple[int, list[bytes]]:
        """Return the offset of the first product behind `product_id`, and the rows from there.

        There must be a single group.
        """
        (group,) = self._groups
        offset = sum(
            (mask & shard.up_to(product_id)).bit_count()
            for shard, mask in group
            if shard.ids[0] <= product_id
        )
        return offset, self.page(offset, limit)


class SearchIndex:
    """The words, barcodes and attributes of products, and their rows.

    Load the products in the order of their ids first, then put and remove single ones.
    `text_changes` counts how often a product was added, removed, or got other terms since.
    """

    def __init__(self) -> None:
        self.text_changes = 0
        self._shards: list[Shard] = []
        self._last_ids: list[str] = []

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    # -- reads -----------------------------------------------------------------------------

    def find(self, query: Query, *, by_relevance: bool) -> Found:
        """Return the products that match.

        By relevance, products whose id, sku or barcode is the whole text come first, then those
        whose name begins with its words. Otherwise all are in the order of their ids.
        """
        filters = _filter_terms(query)
        if query.text is None:
            found = [(shard, _filtered(shard, query.in_stock, filters)) for shard in self._shards]
            return Found([[part for part in found if part[1]]])
        words = words_of(query.text)
        begins = name_term(words)
        rarest_first = sorted(words, key=len, reverse=True)
        whole = query.text.strip()
        code = code_prefix(whole)
        barcode = barcode_term(whole) if is_number(whole) else None
        first: list[Part] = []
        second: list[Part] = []
        third: list[Part] = []
        for shard in self._shards:
            matching = exactly = 0 if barcode is None else shard.having(barcode)
            if with_words := _having_all(shard, rarest_first):
                matching |= with_words
                exactly |= shard.having(code)
            if matching:
                matching &= _filtered(shard, query.in_stock, filters)
            if not matching:
                continue
            if not by_relevance:
                third.append((shard, matching))
                continue
            exactly &= matching
            beginning = shard.having(begins) & matching & ~exactly
            rest = matching & ~(exactly | beginning)
            for group, mask in ((first, exactly), (second, beginning), (third, rest)):
                if mask:
                    group.append((shard, mask))
        return Found([first, second, third] if by_relevance else [third])

    def with_barcode(self, digits: str) -> list[str]:
        """Return the ids of the products with a barcode, which may have leading zeros."""
        term = barcode_term(digits)
        ids: list[str] = []
        for shard in self._shards:
            if mask := shard.having(term):
                ids += shard.ids_of(mask)
        return ids

    # -- changes ---------------------------------------------------------------------------

    def load(self, ids: Sequence[str], rows: Sequence[bytes]) -> Iterator[None]:
        """Add sorted products that follow all that are held, in parts of a few milliseconds.

        Those of a shard are added with its last part.
        """
        shards = max(1, len(ids) // SHARD_PRODUCTS)
        size = max(1, ceil(len(ids) / shards))
        for begin in range(0, len(ids), size):
            part = slice(begin, begin + size)
            shard = Shard()
            yield from shard.fill(ids[part], rows[part])
            self._shards.append(shard)
            self._last_ids.append(shard.ids[-1])

    def put(self, product_id: str, row: bytes) -> None:
        """Add a product, or set its row."""
        if not self._shards:
            self._shards.append(Shard())
            self._last_ids.append("")
        number = min(bisect_left(self._last_ids, product_id), len(self._shards) - 1)
        shard = self._shards[number]
        self.text_changes += shard.put(product_id, row)
        self._last_ids[number] = shard.ids[-1]

    def remove(self, product_id: str) -> None:
        """Remove a product, if it is held."""
        number = bisect_left(self._last_ids, product_id)
        if number == len(self._shards):
            return
        shard = self._shards[number]
        self.text_changes += shard.remove(product_id)
        if len(shard):
            self._last_ids[number] = shard.ids[-1]
        else:
            del self._shards[number], self._last_ids[number]

    def split(self) -> Iterator[None]:
        """Split shards that have grown too large, in parts of a few milliseconds.

        Products may be put and removed between two parts.
        """
        for shard in [each for each in self._shards if len(each) >= 2 * SHARD_PRODUCTS]:
            rows, halves = shard.items(), SearchIndex()
            yield from halves.load(list(rows), list(rows.values()))
            now = shard.items()
            for product_id in rows.keys() - now.keys():
                halves.remove(product_id)
            for product_id, row in now.items():
                if rows.get(product_id) is not row:
                    halves.put(product_id, row)
            if shard in self._shards:
                number = self._shards.index(shard)
                self._shards[number : number + 1] = halves._shards
                self._last_ids[number : number + 1] = halves._last_ids


def _filter_terms(query: Query) -> list[bytes]:
    makers = (
        (query.barcode, barcode_term),
        (query.sku, sku_term),
        (query.category, category_term),
        (query.status, status_term),
    )
    return [term_of(value) for value, term_of in makers if value is not None]


def _filtered(shard: Shard, in_stock: bool | None, terms: Sequence[bytes]) -> int:
    mask = shard.held
    if in_stock is not None:
        mask = shard.in_stock if in_stock else mask & ~shard.in_stock
    for term in terms:
        if not mask:
            break
        mask &= shard.having(term)
    return mask


def _having_all(shard: Shard, prefixes: Sequence[bytes]) -> int:
    """Return the products that have, for each prefix, a term that it begins."""
    mask = -1
    for prefix in prefixes:
        if not (mask := mask & shard.having(prefix)):
            break
    return mask
