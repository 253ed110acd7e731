"""Compares the store with Central now and then, and repairs what stands as different.

A run by digests:

    1. hash what has changed, ask Central for its digest, wind the own one back to its offset
    2. compare the buckets that are settled; those that differ again after the grace are read
    3. ask for each differing product by itself; wait until the feed was followed to its end as it
       was after that answer, and for the grace; what has not changed and still differs *stands*
    4. repair what stands: one product, one record, by the one writer

Without digests the catalogue's pages are walked slowly, and steps 3 and 4 follow each page.

Following never waits for a comparison. What a sale or an event touches meanwhile is left out and
compared the next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import KnownState
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.row_hash import bucket_count
from store_cache.central.failures import (
    CentralError,
    RequestRefused,
    Unreadable,
    UnsendableId,
)
from store_cache.model.change import RefetchReason
from store_cache.model.digest import Digest
from store_cache.model.pages import CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import FullSyncing
from store_cache.sync.verification.comparison import (
    Compared,
    compare,
    differing_fields,
    differing_products,
    is_another_catalogue,
    is_equal,
)
from store_cache.sync.verification.findings import (
    Findings,
    Method,
    Mismatch,
    VerificationState,
)
from store_cache.sync.verification.lap import Lap
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)

JITTER_SHARE = 0.1
"""Stores of a chain must not ask all at once: an interval is up to so much shorter or longer."""

AFTER_FAILURE_SPREAD_SECONDS = 5.0
AFTER_FAILURE_SPACING_SECONDS = 60.0
"""A comparison that a failure of the line asks for: its jitter, and how often at most."""

ROWS_AT_ONCE = 250
"""Rows hashed before other tasks may run: a few milliseconds at most."""

TRIES = 3
"""How often a comparison is begun, how many of them make a run, and in how many runs a bucket may
be unsettled before its products are read by themselves."""

TRY_AGAIN_SECONDS = 1.0
REACH_SECONDS = 30.0
"""How long to wait until the feed is followed to the digest's offset, or to its end."""

MOST_BUCKETS_READ = 64
"""Buckets read before the share of differing rows is judged."""

MOST_PRODUCTS = 500
"""Products read by themselves in one run; the rest follow in the next."""

DAY_SECONDS = 86_400.0


class Source(Protocol):
    """What verification asks of Central; `central.client.CentralClient` is one."""

    async def digest(self, buckets: int) -> Digest: ...

    async def bucket(self, bucket: int, buckets: int) -> CataloguePage: ...

    async def page(self, request: PageRequest) -> CataloguePage: ...

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None: ...


@dataclass(frozen=True, slots=True)
class VerificationSettings:
    """`interval_seconds` 0: only on demand. `grace_seconds`: HOLE_GRACE_SECONDS.
    `least_percent`: SNAPSHOT_MIN_PERCENT."""

    interval_seconds: float = 900.0
    lap_seconds: float = DAY_SECONDS
    grace_seconds: float = 2.0
    least_percent: int = 50


class Raced(Exception):
    """The comparison cannot be judged: the feed, the catalogue or Central moved on. Try again."""


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A product whose row, as Central gave it by itself (`is_sure`) or only on a page, differs."""

    product_id: str
    row: Row | None
    known: KnownState
    is_sure: bool


class Verifier:
    """`now` gives unix seconds of the wall clock, `random` numbers in [0, 1)."""

    def __init__(
        self,
        central: Source,
        writer: CacheWriter,
        runner: SyncRunner,
        digest: CatalogueDigest,
        settings: VerificationSettings,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.findings = Findings()
        self._central = central
        self._writer = writer
        self._runner = runner
        self._digest = digest
        self._settings = settings
        self._now = now
        self._random = random
        self._lap = Lap()
        self._due = asyncio.Event()
        self._due_at = float("inf")
        self._asked_after_failure_at = float("-inf")
        self._failures_seen = 0
        self._installed: Catalogue | None = None
        self._run: asyncio.Task[None] | None = None
        self._unsettled: dict[int, int] = {}
        self._repaired: dict[str, bytes | None] = {}
        self._removed: list[float] = []  # when products were removed, loop seconds
        self._generation: str | None = None

    # -- when ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Verify when it is due, for ever."""
        self._plan(self._interval())
        while True:
            self._note_events_of_the_line()
            seconds = max(0.0, self._due_at - self._time())
            if seconds == 0.0:
                self._plan(self._interval())
                await self.verify(repair=True)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, REACH_SECONDS)):
                    await self._runner.changed.wait()

    async def verify(self, *, repair: bool) -> None:
        """Run a verification now, or join the one under way, and return when it has ended."""
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._verify(repair=repair))
        await asyncio.shield(self._run)

    async def stop(self) -> None:
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait([self._run])

    def _plan(self, seconds: float) -> None:
        self._due_at = min(self._due_at, self._time() + seconds)
        if self._due_at <= self._time():
            self._due_at = self._time() + seconds

    def _interval(self) -> float:
        interval = self._settings.interval_seconds
        return interval * (1 + JITTER_SHARE * (2 * self._random() - 1))

    def _note_events_of_the_line(self) -> None:
        """Plan a run after a full sync was installed, and after the line has failed."""
        catalogue = self._writer.catalogue
        if catalogue is not self._installed:
            self._installed = catalogue
            self._lap = Lap()
            self._bring_forward(AFTER_FAILURE_SPREAD_SECONDS * self._random())
        failures = self._runner.state.health.failures
        has_returned = failures == 0 and self._failures_seen > 0
        self._failures_seen = failures
        time = self._time()
        if has_returned and time - self._asked_after_failure_at >= AFTER_FAILURE_SPACING_SECONDS:
            self._asked_after_failure_at = time
            self._bring_forward(AFTER_FAILURE_SPREAD_SECONDS * self._random())

    def _bring_forward(self, seconds: float) -> None:
        self._due_at = min(self._due_at, self._time() + seconds)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    # -- one run ---------------------------------------------------------------------------

    async def _verify(self, *, repair: bool) -> None:
        before, self.findings.state = self.findings.state, VerificationState.COMPARING
        try:
            state = await self._compare_and_repair(repair=repair)
            self.findings.note_end(state, self._now(), self._writer.position)
        except Raced as race:
            self.findings.given_up += 1
            self.findings.problem = str(race)
        except CentralError as problem:
            self.findings.problem = str(problem)
            log.info("verification: put off: %s", problem)
        finally:
            if self.findings.state is VerificationState.COMPARING:
                self.findings.state = before

    async def _compare_and_repair(self, *, repair: bool) -> VerificationState:
        self._note_generation()
        try:
            compared = await self._settled()
        except (RequestRefused, Unreadable):
            # A Central without digests takes the address for a product's, or knows no such call.
            self.findings.method = Method.PAGES
            return await self._judge(await self._suspects_of_pages(), repair=repair)
        self.findings.method = Method.DIGEST
        self._note_unsettled(compared)
        await self._refetch_long_unsettled(compared.buckets)
        return await self._judge(await self._suspects_of_buckets(compared), repair=repair)

    async def _settled(self) -> Compared:
        """Compare until each bucket was equal, or has differed twice with the grace in between.

        What comes to no rest in `TRIES` comparisons stays unsettled. Raises Raced, CentralError.
        """
        compared = await self._compared()
        differed: Counter[int] = Counter(compared.differing)
        equal = compared.equal
        for _ in range(TRIES - 1):
            open_buckets = set(range(compared.buckets)) - equal
            if all(differed[bucket] > 1 for bucket in open_buckets):
                break
            await asyncio.sleep(self._settings.grace_seconds)
            again = await self._compared()
            if again.buckets != compared.buckets:
                raise Raced("the catalogue has another number of buckets now")
            equal = equal | again.equal
            differed.update(again.differing)
            compared = again
        differing = {bucket for bucket, times in differed.items() if times > 1} - equal
        unsettled = set(range(compared.buckets)) - equal - differing
        return Compared(compared.buckets, differing, unsettled, compared.rows)

    def _note_generation(self) -> None:
        """Forget what was disputed or repaired in another generation of the feed."""
        position = self._writer.position
        named = None if position is None else position.named
        if named != self._generation:
            self._generation = named
            self._repaired.clear()
            self.findings.disputed.clear()

    # -- comparing by digests --------------------------------------------------------------

    async def _compared(self) -> Compared:
        """Compare by digests; a race is tried again. Raises Raced and CentralError."""
        for number in range(1, TRIES + 1):
            try:
                compared = await self._compare_once()
            except Raced:
                self.findings.raced += 1
                if number == TRIES:
                    raise
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                self.findings.compared += 1
                return compared
        raise AssertionError("the last race is raised")

    async def _compare_once(self) -> Compared:
        catalogue, asked = self._quiet_catalogue()
        await self._hash_changed()
        buckets = bucket_count(len(catalogue))
        self._digest.keep_changes()
        try:
            theirs = await self._central.digest(buckets)
            if theirs.generation is not None and theirs.generation != asked.named:
                raise Raced("Central answered about another generation")
            if theirs.next_offset < asked.offset:
                raise Raced("Central answered about an earlier state")
            await self._until(lambda: self._offset() >= theirs.next_offset)
            await self._hash_changed()
            if self._writer.catalogue is not catalogue or self._writer.replica is not None:
                raise Raced("a full sync came in between")
            ours, unclear = self._digest.at(theirs.next_offset, buckets)
            pending = [*catalogue.overrides, *catalogue.pending_refetches]
            unsettled = unclear | self._digest.buckets_of(pending, buckets)
            return compare(ours, theirs, unsettled=unsettled)
        finally:
            self._digest.drop_changes()

    def _quiet_catalogue(self) -> tuple[Catalogue, Position]:
        """Return what is to be compared. Raises Raced while a full sync builds something else."""
        catalogue, position = self._writer.catalogue, self._writer.position
        state = self._runner.state
        is_busy = isinstance(state.phase, FullSyncing) or state.lost is not None
        if catalogue is None or position is None or is_busy:
            raise Raced("a full sync is due or under way")
        return catalogue, position

    async def _hash_changed(self) -> None:
        while self._digest.unhashed:
            self._digest.hash_some(ROWS_AT_ONCE)
            if self._digest.unhashed:
                await asyncio.sleep(0)

    def _offset(self) -> int:
        position = self._writer.position
        return 0 if position is None else position.offset

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait for the sync to get so far. Raises Raced after `REACH_SECONDS`."""
        try:
            async with asyncio.timeout(REACH_SECONDS):
                while not is_so():
                    await self._runner.changed.wait()
        except TimeoutError:
            raise Raced("the feed was not followed so far in time") from None

    def _note_unsettled(self, compared: Compared) -> None:
        counted = {bucket: self._unsettled.get(bucket, 0) + 1 for bucket in compared.unsettled}
        self._unsettled = counted

    async def _refetch_long_unsettled(self, buckets: int) -> None:
        """Have the products read by themselves whose buckets never come to rest."""
        restless = {bucket for bucket, times in self._unsettled.items() if times >= TRIES}
        for product_id in (await self._held_in(restless, buckets))[:MOST_PRODUCTS]:
            await self._writer.request_refetch(product_id, RefetchReason.REFRESH)
        for bucket in restless:
            del self._unsettled[bucket]

    async def _held_in(self, wanted: set[int], buckets: int) -> list[str]:
        """Return the ids held in these buckets, looked for in parts."""
        catalogue, found, last = self._writer.catalogue, list[str](), ""
        while catalogue is not None and wanted:
            ids, _ = catalogue.after(last, 4 * ROWS_AT_ONCE)
            if not ids:
                break
            found += self._digest.ids_in(wanted, buckets, ids)
            last = ids[-1]
            await asyncio.sleep(0)
            if catalogue is not self._writer.catalogue:
                raise Raced("a full sync came in between")
        return found

    # -- suspects --------------------------------------------------------------------------

    async def _suspects_of_buckets(self, compared: Compared) -> list[str]:
        """Return the products that differ in the buckets that do. Raises Raced, CentralError."""
        found: list[str] = []
        held_ids = await self._held_in(set(compared.differing), compared.buckets)
        by_bucket: dict[int, list[str]] = {}
        for product_id in held_ids:
            (bucket,) = self._digest.buckets_of([product_id], compared.buckets)
            by_bucket.setdefault(bucket, []).append(product_id)
        for number, bucket in enumerate(sorted(compared.differing), start=1):
            page = await self._central.bucket(bucket, compared.buckets)
            found += self._differing_on(page, by_bucket.get(bucket, []))
            share = len(found) * len(compared.differing) // number
            is_sample = number == min(MOST_BUCKETS_READ, len(compared.differing))
            if is_sample and is_another_catalogue(differing=share, rows=compared.rows):
                self._request_full_sync(f"about {share} of {compared.rows} products differ")
                return []
            if len(found) >= MOST_PRODUCTS:
                break
        return found[:MOST_PRODUCTS]

    def _differing_on(self, page: CataloguePage, held_ids: Iterable[str]) -> list[str]:
        catalogue = self._quiet_catalogue()[0]
        given = dict(zip(page.rows.ids, page.rows.bodies, strict=True))
        ids = {*held_ids, *given}
        held = {i: row for i in ids if (row := catalogue.get(i)) is not None}
        unreadable = [bad.product_id for bad in page.bad_rows if bad.product_id is not None]
        return differing_products(held, given, unreadable)

    async def _suspects_of_pages(self) -> list[str]:
        """Walk the pages of one interval's part of a lap, and return the products that differ."""
        catalogue = self._quiet_catalogue()[0]
        found: list[str] = []
        pages = self._lap.pages_due(
            products=len(catalogue),
            interval_seconds=self._settings.interval_seconds,
            lap_seconds=self._settings.lap_seconds,
        )
        for _ in range(pages):
            request = self._lap.request()
            page = await self._central.page(request)
            if self._quiet_catalogue()[0] is not catalogue:
                raise Raced("a full sync came in between")
            self._lap.take(request, page)
            found += self._differing_on(page, [])
            if self._lap.is_over:
                found += self._lap.unseen(catalogue.ids())
                self._lap = Lap()
                break
        if is_another_catalogue(differing=len(found), rows=len(catalogue)):
            self._request_full_sync(f"{len(found)} of {len(catalogue)} products differ")
            return []
        return found[:MOST_PRODUCTS]

    # -- judging and repairing -------------------------------------------------------------

    async def _judge(self, product_ids: Sequence[str], *, repair: bool) -> VerificationState:
        """Read the products by themselves, and repair those whose difference stands."""
        suspects = [
            suspect
            for product_id in product_ids
            if product_id not in self.findings.disputed
            and (suspect := await self._suspect(product_id)) is not None
        ]
        if suspects:
            await self._follow_to_the_end()
            standing = [one for one in suspects if self._stands(one)]
            if standing:
                return await self._settle(standing, repair=repair)
        if self.findings.disputed:
            return VerificationState.NOT_COMPARABLE
        return VerificationState.EQUAL

    async def _suspect(self, product_id: str) -> _Suspect | None:
        """Ask Central for the product; None if it is equal, or if something else will settle it."""
        known = self._writer.known_state(product_id)
        catalogue, position = self._quiet_catalogue()
        if known.pending_refetch is not None or product_id in catalogue.overrides:
            return None
        try:
            row = await self._central.product(product_id, generation=position.named)
        except (RequestRefused, UnsendableId, Unreadable):
            # It can only be listed, or not be read at all: a full sync's pages have to settle it.
            return _Suspect(product_id, None, known, is_sure=False)
        if is_equal(known.row, None if row is None else row.body):
            return None
        return _Suspect(product_id, row, known, is_sure=True)

    async def _follow_to_the_end(self) -> None:
        """Wait until the feed was followed to its end as it is now, and for the grace."""
        await asyncio.sleep(self._settings.grace_seconds)
        asked_at = self._runner.uptime()
        self._runner.ask_anew()
        await self._until(lambda: (self._runner.state.in_sync_at or 0.0) >= asked_at)

    def _stands(self, suspect: _Suspect) -> bool:
        catalogue = self._writer.catalogue
        return (
            catalogue is not None
            and KnownState.of(catalogue, suspect.product_id) == suspect.known
            and suspect.product_id not in catalogue.overrides
        )

    async def _settle(self, standing: Sequence[_Suspect], *, repair: bool) -> VerificationState:
        listed_only = [one.product_id for one in standing if not one.is_sure]
        sure = [one for one in standing if one.is_sure]
        if listed_only and repair:
            self._request_full_sync(f"{listed_only[0]!r} differs, and can only be listed")
        if repair and not self._may_remove(sum(one.row is None for one in sure)):
            self._request_full_sync("too many products would be removed")
            return VerificationState.DIFFERS
        for suspect in sure:
            await self._repair(suspect, repair=repair)
        if self.findings.disputed:
            return VerificationState.NOT_COMPARABLE
        return VerificationState.REPAIRED if repair else VerificationState.DIFFERS

    async def _repair(self, suspect: _Suspect, *, repair: bool) -> None:
        product_id, before = suspect.product_id, suspect.known.row
        after = None if suspect.row is None else suspect.row.body
        fields = differing_fields(before, after)
        if product_id in self._repaired and self._repaired[product_id] == before:
            # It was repaired, nothing came on the feed, and it differs again.
            disputed = Mismatch(product_id, fields, before, after, self._now(), is_repaired=False)
            self.findings.disputed[product_id] = disputed
            log.warning("verification: Central is not of one mind about %r", product_id)
            return
        is_repaired = repair and await self._writer.apply_repair(
            product_id, suspect.row, known=suspect.known
        )
        if repair and not is_repaired:
            return  # it has changed in this moment
        if is_repaired:
            self._repaired[product_id] = after
            if after is None:
                self._removed.append(self._time())
        self.findings.note(
            Mismatch(product_id, fields, before, after, self._now(), is_repaired=is_repaired)
        )
        log.warning(
            "verification: product %r differed from Central's in %s%s",
            product_id,
            ", ".join(fields),
            "; it is repaired" if is_repaired else "",
        )

    def _may_remove(self, products: int) -> bool:
        """Return whether a day's removals leave enough of the catalogue (F5)."""
        day_ago = self._time() - DAY_SECONDS
        self._removed = [at for at in self._removed if at > day_ago]
        held = 0 if self._writer.catalogue is None else len(self._writer.catalogue)
        removed = len(self._removed) + products
        before = held + len(self._removed)
        return products == 0 or (before - removed) * 100 >= before * self._settings.least_percent

    def _request_full_sync(self, why: str) -> None:
        log.warning("verification: %s; a full sync follows", why)
        self._runner.request_full_sync("verification failed")
