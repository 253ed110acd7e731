"""Compares the store with Central now and then, and repairs what stands as different.

A run by digests:

    1. hash what has changed, ask Central for its digest, wind the own one back to its offset
    2. compare the buckets that are settled; those that differ are read, many only if they differ
       again after the grace
    3. ask for each differing product by itself; wait until the feed was followed to its end as it
       was after that answer, and for the grace; what has not changed and still differs *stands*
    4. repair what stands: one product, one record, by the one writer

Without digests the catalogue's pages are walked slowly, and steps 3 and 4 follow each part. After a
break the products that changed shortly before it come first.

Following never waits for a comparison. What a sale or an event touches meanwhile is judged again.
Nothing that was found is forgotten when a run ends: the next one begins with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.central.failures import CentralError, RequestRefused, Unreadable
from store_cache.model.change import RefetchReason
from store_cache.model.pages import CataloguePage
from store_cache.sync.runner import SyncRunner
from store_cache.sync.verification.changes import RecentChanges
from store_cache.sync.verification.comparison import (
    BucketSums,
    Compared,
    differing_products,
    is_another_catalogue,
)
from store_cache.sync.verification.digests import FEW_BUCKETS, ROWS_AT_ONCE, TRIES, DigestComparer
from store_cache.sync.verification.findings import Findings, Method, VerificationState
from store_cache.sync.verification.following import Following, Raced
from store_cache.sync.verification.judge import Bucket, Found, Judge, Place
from store_cache.sync.verification.lap import Lap
from store_cache.sync.verification.patience import PatientSource, Source
from store_cache.sync.verification.removals import DAY_SECONDS, RemovalLimit
from store_cache.sync.verification.schedule import Schedule
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)

PRODUCTS_OF_SAMPLE = 20
"""Products read by themselves before a full sync is requested: a share of what only seems to differ
would be a false alarm."""

PRODUCTS_AT_ONCE = 100
"""Products read by themselves before the feed is followed to its end and they are judged."""

MOST_PRODUCTS = 500
"""Products found in one run; the rest follow in the next."""


@dataclass(frozen=True, slots=True)
class VerificationSettings:
    """`grace_seconds`: HOLE_GRACE_SECONDS. `least_percent`: SNAPSHOT_MIN_PERCENT."""

    interval_seconds: float = 900.0
    lap_seconds: float = DAY_SECONDS
    grace_seconds: float = 2.0
    least_percent: int = 50


class Verifier:
    """`now` gives unix seconds of the wall clock, `random` numbers in [0, 1). `digest` and
    `changes` have to observe the catalogue of `writer`."""

    def __init__(
        self,
        central: Source,
        writer: CacheWriter,
        runner: SyncRunner,
        digest: CatalogueDigest,
        changes: RecentChanges,
        settings: VerificationSettings,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.findings = Findings()
        self._writer = writer
        self._runner = runner
        self._changes = changes
        self._settings = settings
        self._now = now
        self._schedule = Schedule(settings.interval_seconds, random)
        self._following = Following(writer, runner, grace_seconds=settings.grace_seconds)
        patient = PatientSource(central, random)
        self._digests = DigestComparer(
            patient,
            writer,
            digest,
            self._following,
            self.findings,
            grace_seconds=settings.grace_seconds,
        )
        self._limit = RemovalLimit(settings.least_percent)
        self._judge = Judge(
            patient,
            writer,
            changes,
            self._following,
            self._limit,
            self.findings,
            now=now,
            time=self._time,
            request_full_sync=runner.request_full_sync,
        )
        self._lap = Lap(self._time())
        self._before_break: dict[str, None] = {}  # products to read first, by pages
        self._installed: Catalogue | None = None
        self._unsettled: dict[Bucket, int] = {}  # in how many runs in a row
        self._woken = asyncio.Event()
        self._run: asyncio.Task[None] | None = None

    # -- when ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Verify when it is due, for ever."""
        self._schedule.begin(self._time())
        while True:
            self._note_installed()
            if not self._runner.state.health.failures:
                self._schedule.note_return(self._time())
            seconds = self._schedule.due_at - self._time()
            if seconds > 0.0:
                await self._wait(seconds)
                continue
            self._schedule.begin(self._time())
            await self._under_way()  # what it has read may be from before the cause of this one
            await self.verify(repair=True)

    async def verify(self, *, repair: bool) -> None:
        """Run a verification now, or join the one under way, and return when it has ended."""
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._verify(repair=repair))
        await asyncio.shield(self._run)

    async def stop(self) -> None:
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait([self._run])

    def note_break(self) -> None:
        """The connection, or Central, has failed: a run follows once it works again."""
        self._schedule.note_break(self._time())
        self._before_break |= dict.fromkeys(self._changes.lately())
        self._woken.set()

    def note_replaced(self) -> None:
        """Readers see another catalogue."""
        self._woken.set()

    async def _wait(self, seconds: float) -> None:
        """Wait until a run is due, or something is to be planned."""
        self._woken.clear()
        is_broken = self._schedule.is_broken
        news = self._runner.changed if is_broken else self._woken
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await news.wait()

    async def _under_way(self) -> None:
        if self._run is not None and not self._run.done():
            await asyncio.wait([self._run])

    def _note_installed(self) -> None:
        """Plan a run after a full sync was installed."""
        if self._writer.catalogue is self._installed:
            return
        self._installed = self._writer.catalogue
        self._lap = Lap(self._time())
        self._before_break.clear()
        self._judge.note_full_sync()
        self._schedule.bring_forward(self._time())

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    # -- one run ---------------------------------------------------------------------------

    async def _verify(self, *, repair: bool) -> None:
        findings = self.findings
        before, findings.state = findings.state, VerificationState.COMPARING
        try:
            state = await self._compare_and_repair(repair=repair)
            findings.note_end(state, self._now(), self._writer.position)
        except (Raced, CentralError) as problem:
            findings.given_up += 1
            findings.problem = str(problem)
            log.info("verification: put off: %s", problem)
            self._schedule.retry(self._time())
        finally:
            self._woken.set()  # the next run may be due earlier
            findings.unresolved = len(self._judge.unresolved)
            if findings.state is VerificationState.COMPARING:
                findings.state = before

    async def _compare_and_repair(self, *, repair: bool) -> VerificationState:
        findings = self.findings
        self._note_installed()
        self._judge.begin_run()
        self._limit.since = min(self._time(), self._lap.began_at)
        repaired = findings.repaired + findings.only_times
        await self._settle(repair=repair)  # what the runs before have left
        try:
            compared = await self._digests.settled()
        except (RequestRefused, Unreadable):
            # A Central without digests takes the address for a product's, or knows no such call.
            findings.method = Method.PAGES
            is_comparable = await self._compare_by_pages(repair=repair)
        else:
            findings.method = Method.DIGEST
            self._before_break.clear()
            is_comparable = await self._compare_by_digests(compared, repair=repair)
        if findings.disputed or not is_comparable:
            return VerificationState.NOT_COMPARABLE
        if self._judge.unresolved or self._judge.unrepaired:
            return VerificationState.DIFFERS
        if findings.repaired + findings.only_times > repaired:
            return VerificationState.REPAIRED
        return VerificationState.EQUAL

    async def _settle(self, *, repair: bool) -> None:
        """Judge what is unresolved, and once more what has changed meanwhile."""
        for _ in range(TRIES):
            left = [i for i in self._judge.unresolved if i not in self._judge.unrepaired]
            for start in range(0, min(len(left), MOST_PRODUCTS), PRODUCTS_AT_ONCE):
                part = left[start : min(start + PRODUCTS_AT_ONCE, MOST_PRODUCTS)]
                standing = await self._judge.standing(part)
                self._lap.differed += len(standing)
                await self._judge.settle(standing, repair=repair)
            if not self._judge.unresolved.keys() - self._judge.unrepaired:
                return
            await asyncio.sleep(self._settings.grace_seconds)

    async def _is_other(self, *, differing: int, rows: int, repair: bool) -> bool:
        """Return whether Central's is another catalogue: more than a quarter of the rows differ,
        and those of a sample stand as different. A full sync is then requested."""
        found = list(self._judge.unresolved)[:PRODUCTS_OF_SAMPLE]
        if not found or not is_another_catalogue(differing=differing, rows=rows):
            return False
        standing = await self._judge.standing(found)
        certain = self._judge.without_disputed(standing)
        standing_rows = len(certain) * differing // len(found)
        if len(certain) < len(standing) or not is_another_catalogue(
            differing=standing_rows, rows=rows
        ):
            return False
        self._judge.note_all(certain)
        if repair:
            why = f"about {standing_rows} of {rows} products differ"
            self._judge.leave_to_full_sync(certain, why)
        return True

    def _find_on(self, page: CataloguePage, place: Place, held_ids: Iterable[str]) -> int:
        """Note the products that differ on a page or in a bucket; return how many do."""
        catalogue, _ = self._following.catalogue()
        given = dict(zip(page.rows.ids, page.rows.bodies, strict=True))
        held = {i: row for i in {*held_ids, *given} if (row := catalogue.get(i)) is not None}
        unreadable = [bad.product_id for bad in page.bad_rows if bad.product_id is not None]
        differing = differing_products(held, given, unreadable)
        for product_id in differing:
            if product_id not in self.findings.disputed:
                found = Found(place, held.get(product_id), given.get(product_id))
                self._judge.find(product_id, found)
        return len(differing)

    # -- by digests ------------------------------------------------------------------------

    async def _compare_by_digests(self, compared: Compared, *, repair: bool) -> bool:
        """Read the buckets that differ, and settle their products. Return False if Central's digest
        is not that of its own rows."""
        await self._refetch_long_unsettled(compared)
        unexplained = await self._read_buckets(compared, repair=repair)
        if unexplained is None:
            return True
        await self._settle(repair=repair)
        if not unexplained:
            return True
        again = await self._digests.compared()
        wrong = [b for b, sums in unexplained.items() if again.differing.get(b) == sums]
        if again.buckets != compared.buckets or not wrong:
            return True
        log.warning("verification: Central's digest is not that of its rows (bucket %d)", wrong[0])
        return False

    async def _read_buckets(
        self, compared: Compared, *, repair: bool
    ) -> dict[int, BucketSums] | None:
        """Note what differs in the buckets that do. Return those in which nothing does; None if
        Central's is another catalogue."""
        found, unexplained = 0, dict[int, BucketSums]()
        buckets = list(compared.differing)
        for start in range(0, len(buckets), FEW_BUCKETS):
            part = buckets[start : start + FEW_BUCKETS]
            held_ids = await self._digests.held_in(set(part), compared.buckets)
            for bucket in part:
                _, position = self._following.catalogue()
                place = Bucket(bucket, compared.buckets)
                page = await self._judge.read(place, position)
                differing = self._find_on(page, place, held_ids[bucket])
                found += differing
                if not differing:
                    unexplained[bucket] = compared.differing[bucket]
            if start == 0:
                estimate = found * len(buckets) // len(part)
                if await self._is_other(differing=estimate, rows=compared.rows, repair=repair):
                    return None
            if found >= MOST_PRODUCTS and start + len(part) < len(buckets):
                self._schedule.bring_forward(self._time())  # the rest
                break
        return unexplained

    async def _refetch_long_unsettled(self, compared: Compared) -> None:
        """Have the products read by themselves whose buckets never come to rest.

        A product that is to be read makes its bucket unsettled. So no more are asked for until
        those were: under Central's limit there would soon be more of them in every bucket than are
        ever read.
        """
        unsettled = [Bucket(number, compared.buckets) for number in compared.unsettled]
        self._unsettled = {bucket: self._unsettled.get(bucket, 0) + 1 for bucket in unsettled}
        restless = {b.number for b, times in self._unsettled.items() if times >= TRIES}
        catalogue, _ = self._following.catalogue()
        pending = catalogue.pending_refetches.values()
        untried = any(p.reason is RefetchReason.REFRESH and not p.attempts for p in pending)
        if not restless or untried:
            return
        held_ids = await self._digests.held_in(restless, compared.buckets)
        ids = [product_id for bucket in held_ids.values() for product_id in bucket]
        for product_id in ids[:MOST_PRODUCTS]:
            await self._writer.request_refetch(product_id, RefetchReason.REFRESH)
        for number in restless:
            del self._unsettled[Bucket(number, compared.buckets)]

    # -- by pages --------------------------------------------------------------------------

    async def _compare_by_pages(self, *, repair: bool) -> bool:
        """Walk the pages of one interval's part of a lap, and settle the products that differ."""
        for product_id in list(self._before_break):
            self._judge.find(product_id, Found(is_suspected=True))
            del self._before_break[product_id]
        await self._settle(repair=repair)
        if len(self._judge.unresolved) >= MOST_PRODUCTS:
            return True  # these come first
        catalogue, _ = self._following.catalogue()
        found = await self._walk(catalogue)
        self.findings.compared += 1
        differing = self._lap.differed + found
        if await self._is_other(differing=differing, rows=len(catalogue), repair=repair):
            return True
        await self._settle(repair=repair)
        if self._lap.is_over:
            self._lap = Lap(self._time())
        return True

    async def _walk(self, catalogue: Catalogue) -> int:
        """Read one interval's part of a lap; return how many products differ on it, or are held and
        were on no page."""
        found = 0
        due = self._lap.products_due(
            products=len(catalogue),
            interval_seconds=self._settings.interval_seconds,
            lap_seconds=self._settings.lap_seconds,
        )
        while due > 0 and not self._lap.is_over:
            request = self._lap.request()
            _, position = self._following.catalogue()
            page = await self._judge.read(request, position)
            if self._following.catalogue()[0] is not catalogue:
                raise Raced("a full sync came in between")
            found += self._find_on(page, request, [])
            due -= self._lap.take(request, page)
        return found + await self._find_unseen(catalogue) if self._lap.is_over else found

    async def _find_unseen(self, catalogue: Catalogue) -> int:
        """Have what no page of the lap has shown read by itself."""
        found, last = 0, ""
        while True:
            ids, _ = catalogue.after(last, 4 * ROWS_AT_ONCE)
            if not ids:
                return found
            for product_id in self._lap.unseen(ids):
                self._judge.find(product_id, Found(held=catalogue.get(product_id)))
                found += 1
            last = ids[-1]
            await asyncio.sleep(0)
            if self._following.catalogue()[0] is not catalogue:
                raise Raced("a full sync came in between")
