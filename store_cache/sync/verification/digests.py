"""Compares the catalogue with Central by digests."""

from __future__ import annotations

import asyncio
from collections import Counter

from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.row_hash import bucket_count
from store_cache.sync.verification.comparison import Compared, compare
from store_cache.sync.verification.findings import Findings
from store_cache.sync.verification.following import Following, Raced
from store_cache.sync.verification.patience import PatientSource
from store_cache.writer import CacheWriter

ROWS_AT_ONCE = 250
"""Rows hashed before other tasks may run: a few milliseconds at most."""

TRIES = 3
"""How often a comparison is begun, and how many of them make a run."""

TRY_AGAIN_SECONDS = 1.0

FEW_BUCKETS = 64
"""So many buckets that differ are read at once: each of their products has to stand as different,
which takes the grace, too. After a crash of Central tills wait for that."""


class DigestComparer:
    """`grace_seconds`: see `Following`."""

    def __init__(
        self,
        central: PatientSource,
        writer: CacheWriter,
        digest: CatalogueDigest,
        following: Following,
        findings: Findings,
        *,
        grace_seconds: float,
    ) -> None:
        self._central = central
        self._writer = writer
        self._digest = digest
        self._following = following
        self._findings = findings
        self._grace_seconds = grace_seconds

    async def settled(self) -> Compared:
        """Compare until a few buckets differ, or each was equal or has differed twice with the
        grace in between.

        What comes to no rest in `TRIES` comparisons stays unsettled. Raises Raced, CentralError.
        """
        compared = await self.compared()
        if 0 < len(compared.differing) <= FEW_BUCKETS:
            return compared
        differed: Counter[int] = Counter(compared.differing.keys())
        open_buckets = compared.differing.keys() | compared.unsettled
        for _ in range(TRIES - 1):
            if all(differed[bucket] > 1 for bucket in open_buckets):
                break
            await asyncio.sleep(self._grace_seconds)
            again = await self.compared()
            if again.buckets != compared.buckets:
                raise Raced("the catalogue has another number of buckets now")
            differed.update(again.differing.keys())
            open_buckets &= again.differing.keys() | again.unsettled
            compared = again
        differing = {
            bucket: sums
            for bucket, sums in compared.differing.items()
            if bucket in open_buckets and differed[bucket] > 1
        }
        unsettled = open_buckets - differing.keys()
        return Compared(compared.buckets, differing, unsettled, compared.rows)

    async def compared(self) -> Compared:
        """Compare once; a race is tried again. Raises Raced and CentralError."""
        for number in range(1, TRIES + 1):
            try:
                compared = await self._compare()
            except Raced:
                self._findings.raced += 1
                if number == TRIES:
                    raise
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                self._findings.compared += 1
                return compared
        raise AssertionError("the last race is raised")

    async def _compare(self) -> Compared:
        await self._hash_changed()
        catalogue, asked = self._following.catalogue()
        buckets = bucket_count(len(catalogue))
        pending: set[str] = set()

        def begin() -> None:
            nonlocal asked
            catalogue, asked = self._following.catalogue()
            pending.clear()
            pending.update(catalogue.overrides, catalogue.pending_refetches)
            self._digest.keep_changes()

        try:
            theirs = await self._central.digest(buckets, before=begin)
            if theirs.generation is not None and theirs.generation != asked.named:
                raise Raced("Central answered about another generation")
            if theirs.next_offset < asked.offset:
                raise Raced("Central answered about an earlier state")
            await self._following.to_offset(theirs.next_offset)
            await self._hash_changed()
            if self._writer.catalogue is not catalogue or self._writer.replica is not None:
                raise Raced("a full sync came in between")
            ours, unclear = self._digest.at(theirs.next_offset, buckets)
            pending.update(catalogue.overrides, catalogue.pending_refetches)
            unsettled = unclear | self._digest.buckets_of(pending, buckets)
            return compare(ours, theirs, unsettled=unsettled)
        finally:
            self._digest.drop_changes()

    async def _hash_changed(self) -> None:
        while not self._digest.is_hashed:
            self._digest.hash_some(ROWS_AT_ONCE)
            await asyncio.sleep(0)

    async def held_in(self, buckets: set[int], of: int) -> dict[int, list[str]]:
        """Return the ids held in some of `of` buckets, by bucket, looked for in parts. Raises
        Raced."""
        catalogue, _ = self._following.catalogue()
        found: dict[int, list[str]] = {bucket: [] for bucket in buckets}
        last = ""
        while buckets:
            ids, _ = catalogue.after(last, 4 * ROWS_AT_ONCE)
            if not ids:
                break
            for product_id, bucket in self._digest.placed(ids, of):
                if bucket in buckets:
                    found[bucket].append(product_id)
            last = ids[-1]
            await asyncio.sleep(0)
            if catalogue is not self._writer.catalogue:
                raise Raced("a full sync came in between")
        return found
