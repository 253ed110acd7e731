"""What differs between the store and Central: by buckets, by products, by fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import orjson

from store_cache.catalogue.row_hash import canonical
from store_cache.model.digest import Digest

OTHER_CATALOGUE_SHARE = 0.25
"""More rows differing than this share is another catalogue: a full sync is cheaper and judged."""

LEAST_ROWS_FOR_SHARE = 16
"""Of fewer differing rows a share says nothing: they are repaired one by one."""


@dataclass(frozen=True, slots=True)
class Compared:
    """`differing` and `unsettled` buckets of `buckets`; unsettled ones were not compared.
    `rows`: how many rows the settled ones have."""

    buckets: int
    differing: Set[int]
    unsettled: Set[int]
    rows: int

    @property
    def equal(self) -> Set[int]:
        return set(range(self.buckets)) - self.differing - self.unsettled


def compare(ours: Digest, theirs: Digest, *, unsettled: Set[int]) -> Compared:
    """Compare two digests of as many buckets, taken at one position."""
    settled = [bucket for bucket in range(ours.buckets) if bucket not in unsettled]
    differing = {
        bucket
        for bucket in settled
        if ours.rows[bucket] != theirs.rows[bucket] or ours.sums[bucket] != theirs.sums[bucket]
    }
    rows = sum(ours.rows[bucket] for bucket in settled)
    return Compared(ours.buckets, differing, unsettled, rows)


def is_another_catalogue(*, differing: int, rows: int) -> bool:
    return differing >= LEAST_ROWS_FOR_SHARE and differing > rows * OTHER_CATALOGUE_SHARE


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
