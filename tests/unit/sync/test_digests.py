"""Comparing by digests: what is tried again, and what counts as different."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.row_hash import MODULUS, bucket_of, row_hash
from store_cache.model.change import Change
from store_cache.model.digest import Digest
from store_cache.model.position import Position
from store_cache.sync.verification.digests import FEW_BUCKETS, TRIES, DigestComparer
from store_cache.sync.verification.findings import Findings
from store_cache.sync.verification.following import Following, Raced
from store_cache.sync.verification.patience import PatientSource
from store_cache.writer import CacheWriter
from tests.harness.virtual_time import in_virtual_time

OFFSET = 7
GRACE_SECONDS = 2.0
ROWS = {
    f"P{number}": b'{"productId":"P%d","name":"","available":1}' % number for number in range(400)
}


def digest_of(rows: dict[str, bytes], buckets: int, *, offset: int = OFFSET) -> Digest:
    """The digest of these rows, from its definition."""
    counts, sums = [0] * buckets, [0] * buckets
    for product_id, row in rows.items():
        bucket = bucket_of(product_id, buckets)
        counts[bucket] += 1
        sums[bucket] = (sums[bucket] + row_hash(row)) % MODULUS
    return Digest(offset, counts, sums, "g-1")


class Central:
    """Gives one answer after the other; each is made for as many buckets as it was asked for."""

    def __init__(self, *answers: Callable[[int], Digest]) -> None:
        self.asked = 0
        self._answers: Iterator[Callable[[int], Digest]] = iter(answers)

    async def digest(self, buckets: int, *, before: Callable[[], None]) -> Digest:
        before()
        self.asked += 1
        return next(self._answers)(buckets)


class Writer:
    """Of a store that builds no replica."""

    replica = None

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue


class Followed:
    """The feed of a store that has followed everything."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def catalogue(self) -> tuple[Catalogue, Position]:
        return self._catalogue, Position("g-1", OFFSET)

    async def to_offset(self, offset: int) -> None: ...


def comparer(central: Central) -> tuple[DigestComparer, Findings]:
    catalogue = Catalogue()
    catalogue.apply(Change("", rows=ROWS))
    digest = CatalogueDigest()
    digest.begin(catalogue)
    findings = Findings()
    comparer = DigestComparer(
        cast("PatientSource", central),
        cast("CacheWriter", Writer(catalogue)),
        digest,
        cast("Following", Followed(catalogue)),
        findings,
        grace_seconds=GRACE_SECONDS,
    )
    return comparer, findings


def equal(buckets: int) -> Digest:
    return digest_of(ROWS, buckets)


def earlier(buckets: int) -> Digest:
    return digest_of(ROWS, buckets, offset=OFFSET - 1)


def of_another_feed(buckets: int) -> Digest:
    return replace(equal(buckets), generation="g-2")


def different(*product_ids: str) -> Callable[[int], Digest]:
    return lambda buckets: digest_of(ROWS | dict.fromkeys(product_ids, b"{}"), buckets)


@in_virtual_time
async def test_a_race_is_tried_again() -> None:
    central = Central(earlier, of_another_feed, equal)
    compare, findings = comparer(central)
    compared = await compare.compared()

    assert {} == compared.differing
    assert len(ROWS) == compared.rows
    assert (TRIES, 1, TRIES - 1) == (central.asked, findings.compared, findings.raced)


@pytest.mark.parametrize("answer", [earlier, of_another_feed])
@in_virtual_time
async def test_the_last_race_is_raised(answer: Callable[[int], Digest]) -> None:
    central = Central(*[answer] * (TRIES + 1))
    compare, findings = comparer(central)
    with pytest.raises(Raced):
        await compare.compared()

    assert (TRIES, 0, TRIES) == (central.asked, findings.compared, findings.raced)


@in_virtual_time
async def test_an_equal_or_slightly_different_catalogue_is_compared_once() -> None:
    """After a crash of Central tills wait for what differs: it is read at once."""
    for answer, number in ((equal, 0), (different("P1", "P2"), 2)):
        central = Central(answer, equal)
        compare, _ = comparer(central)
        compared = await compare.settled()

        assert (1, number) == (central.asked, len(compared.differing))
    assert 0.0 == asyncio.get_running_loop().time()


@in_virtual_time
async def test_many_buckets_that_differ_have_to_differ_twice() -> None:
    """Others were late events. The grace is waited for in between."""
    many = list(ROWS)[: 2 * FEW_BUCKETS]
    central = Central(different(*many), different("P0", "P399"), equal)
    compare, _ = comparer(central)
    compared = await compare.settled()

    assert {bucket_of("P0", compared.buckets)} == {*compared.differing}
    assert set() == compared.unsettled
    assert (2, GRACE_SECONDS) == (central.asked, asyncio.get_running_loop().time())
