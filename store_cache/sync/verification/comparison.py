"""What differs between the store and Central: by buckets, by products, by fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import compress
from operator import ne

import orjson

from store_cache.catalogue.row_hash import canonical
from store_cache.model.digest import Digest

OTHER_CATALOGUE_SHARE = 0.25
"""More rows differing than this share is another catalogue: a full sync is cheaper and judged."""

BucketSums = tuple[int, int, int, int]
"""Rows and sum of a bucket here, rows and sum at Central."""


@dataclass(frozen=True, slots=True)
class Compared:
    """`differing` and `unsettled` buckets of `buckets`; the unsettled ones were not compared.
    `rows`: how many rows the settled ones have, on the side that has more."""

    buckets: int
    differing: Mapping[int, BucketSums]
    unsettled: Set[int]
    rows: int


def compare(ours: Digest, theirs: Digest, *, unsettled: Set[int]) -> Compared:
    """Compare two digests of as many buckets, taken at one position."""
    numbers = range(ours.buckets)
    unequal = {
        *compress(numbers, map(ne, ours.sums, theirs.sums)),
        *compress(numbers, map(ne, ours.rows, theirs.rows)),
    }
    differing = {
        bucket: (ours.rows[bucket], ours.sums[bucket], theirs.rows[bucket], theirs.sums[bucket])
        for bucket in sorted(unequal - unsettled)
    }
    rows = max(_settled_rows(digest, unsettled) for digest in (ours, theirs))
    return Compared(ours.buckets, differing, unsettled, rows)


def _settled_rows(digest: Digest, unsettled: Set[int]) -> int:
    return sum(digest.rows) - sum(digest.rows[bucket] for bucket in unsettled)


def is_another_catalogue(*, differing: int, rows: int) -> bool:
    """Return whether so many of the rows compared differ that a full sync has to judge it."""
    return differing > rows * OTHER_CATALOGUE_SHARE


def differing_products(
    held: Mapping[str, bytes], given: Mapping[str, bytes], unreadable: Iterable[str] = ()
) -> list[str]:
    """Return the ids whose rows differ, or that only one side has. `unreadable`: products that
    Central has, in rows that cannot be read; whether these differ is not known."""
    unknown = set(unreadable)
    return sorted(
        product_id
        for product_id in held.keys() | given.keys()
        if product_id not in unknown and not is_equal(held.get(product_id), given.get(product_id))
    )


def is_equal(row: bytes | None, other: bytes | None) -> bool:
    """Return whether two rows are the same in canonical form; None is no product."""
    if row is None or other is None:
        return row is other
    return row == other or canonical(row) == canonical(other)


def differing_fields(before: bytes | None, after: bytes | None) -> list[str]:
    """Return the names of the members that differ; of a product that one side lacks, all."""
    values = [{} if row is None else orjson.loads(row) for row in (before, after)]
    names = dict.fromkeys([*values[0], *values[1]])
    return [name for name in names if values[0].get(name) != values[1].get(name)]
