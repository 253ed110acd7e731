"""Reads products by themselves, and repairs those whose difference from Central stands.

A difference *stands* if, after the feed was followed to its end as asked after Central's answer and
the grace was waited for, nothing was seen of the product and its row still differs. What cannot be
judged now stays `unresolved`; the next run begins with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from store_cache.catalogue.change_set import KnownState
from store_cache.central.failures import OtherFeed, RequestRefused, Unreadable, UnsendableId
from store_cache.model.pages import CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row, read_row
from store_cache.sync.verification.changes import RecentChanges
from store_cache.sync.verification.comparison import differing_fields, is_equal
from store_cache.sync.verification.findings import RECENT, Findings, Mismatch
from store_cache.sync.verification.following import Following, Raced
from store_cache.sync.verification.patience import PatientSource
from store_cache.sync.verification.removals import RemovalLimit
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)

REPAIRS_TO_DISPUTE = 3
"""Repaired so often without an event, a product that differs again is disputed."""

MOST_REMEMBERED = 10_000
"""So many repairs are remembered, the last ones: whether a difference comes back."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Bucket `number` of `of`."""

    number: int
    of: int


Place = Bucket | PageRequest
"""Where Central lists a product."""


@dataclass(frozen=True, slots=True)
class Found:
    """Why a product is to be read by itself.

    `place`: where Central lists it, or None. `held`, `listed`: its rows here and there as they were
    compared; None is no product. `is_suspected`: it was not seen to differ, and only may.
    """

    place: Place | None = None
    held: bytes | None = None
    listed: bytes | None = None
    is_suspected: bool = False


class Sign(Enum):
    """What shows that a product differs."""

    ANSWER = auto()  # Central's answer about this product
    LISTING = auto()  # it cannot be read by itself, and a second reading of its place shows it
    NOTHING = auto()  # it is held, cannot be read by itself, and is not listed any more
    CONTRADICTION = auto()  # by itself it is equal, and its place still shows it different


@dataclass(frozen=True, slots=True)
class Suspect:
    """A product that differs. `row`: as Central has it; None is no product."""

    product_id: str
    row: Row | None
    known: KnownState
    sign: Sign

    @property
    def body(self) -> bytes | None:
        return None if self.row is None else self.row.body


@dataclass(frozen=True, slots=True)
class _Settled:
    """How a difference was settled: what was `given_up`, what is held since, and how often that was
    done without an event in between."""

    given_up: bytes | None
    held: bytes | None
    times: int


class Judge:
    """`time` gives seconds of the clock of `limit`, `now` unix seconds."""

    def __init__(
        self,
        central: PatientSource,
        writer: CacheWriter,
        changes: RecentChanges,
        following: Following,
        limit: RemovalLimit,
        findings: Findings,
        *,
        now: Callable[[], float],
        time: Callable[[], float],
        request_full_sync: Callable[[str], None],
    ) -> None:
        self.unresolved: dict[str, Found] = {}
        self.unrepaired: set[str] = set()
        """Products of this run that stand as different and were not repaired."""
        self._central = central
        self._writer = writer
        self._changes = changes
        self._following = following
        self._limit = limit
        self._findings = findings
        self._now = now
        self._time = time
        self._request_full_sync = request_full_sync
        self._settled: dict[str, _Settled] = {}
        self._given_up: dict[str, bytes | None] = {}  # until a full sync has settled them
        self._generation: str | None = None

    # -- runs ------------------------------------------------------------------------------

    def begin_run(self) -> None:
        """Forget what holds for one run, and, in another generation, what Central contradicted."""
        self.unrepaired.clear()
        position = self._writer.position
        generation = None if position is None else position.generation
        if generation != self._generation:
            self._generation = generation
            self._settled.clear()
            self._findings.disputed.clear()

    def note_full_sync(self) -> None:
        """A full sync was installed: it has settled what was left to it."""
        for product_id, given_up in self._given_up.items():
            held = self._writer.known_state(product_id).row
            if not is_equal(held, given_up):
                self._remember(product_id, given_up=given_up, held=held)
        self._given_up.clear()

    def find(self, product_id: str, found: Found) -> None:
        """Have a product read by itself. One that was seen to differ stays that."""
        if not found.is_suspected or product_id not in self.unresolved:
            self.unresolved[product_id] = found

    # -- what stands -----------------------------------------------------------------------

    async def standing(self, product_ids: Sequence[str]) -> list[Suspect]:
        """Return those of these unresolved products whose difference stands. Those that are equal
        are resolved, and those that cannot be told stay. Raises Raced, CentralError."""
        self._changes.watch(product_ids)
        try:
            read = [await self._suspect(product_id) for product_id in product_ids]
            suspects = [suspect for suspect in read if suspect is not None]
            if suspects:
                await self._following.to_its_end()
            return [suspect for suspect in suspects if self._stands(suspect)]
        finally:
            self._changes.watch(())

    async def _suspect(self, product_id: str) -> Suspect | None:
        """Read a product; None if it is equal and so resolved, or if it cannot be told now."""
        catalogue, position = self._following.catalogue()
        known = KnownState.of(catalogue, product_id)
        found = self.unresolved[product_id]
        if known.pending_refetch is not None or product_id in catalogue.overrides:
            return None
        try:
            row = await self._central.product(product_id, generation=position.named)
        except OtherFeed as problem:
            raise Raced(f"Central has a new generation {problem.generation}") from problem
        except (RequestRefused, UnsendableId, Unreadable):
            if found.is_suspected:
                del self.unresolved[product_id]
                return None
            row = await self._listed(found.place, product_id, position)
            sign = Sign.NOTHING if row is None else Sign.LISTING
        else:
            sign = Sign.ANSWER
            is_same = is_equal(known.row, None if row is None else row.body)
            if is_same and found.place is not None and known.row == found.held:
                # Nothing has changed here since the place was read, and it showed another row.
                row = await self._listed(found.place, product_id, position)
                sign = Sign.CONTRADICTION
        if is_equal(known.row, None if row is None else row.body):
            del self.unresolved[product_id]
            return None
        return Suspect(product_id, row, known, sign)

    async def _listed(self, place: Place | None, product_id: str, position: Position) -> Row | None:
        """Return the product as its place lists it now; None if it does not."""
        if place is None:
            return None
        page = await self.read(place, position)
        bodies = dict(zip(page.rows.ids, page.rows.bodies, strict=True))
        return read_row(bodies[product_id]) if product_id in bodies else None

    async def read(self, place: Place, position: Position) -> CataloguePage:
        """Read a page or a bucket of the generation of `position`. Raises Raced, CentralError."""
        match place:
            case Bucket(number, of):
                page = await self._central.bucket(number, of)
            case PageRequest():
                page = await self._central.page(place)
        if page.generation is not None and page.generation != position.named:
            raise Raced("Central answered about another generation")
        return page

    def _stands(self, suspect: Suspect) -> bool:
        catalogue, product_id = self._writer.catalogue, suspect.product_id
        return (
            catalogue is not None
            and not self._changes.is_touched(product_id)
            and KnownState.of(catalogue, product_id) == suspect.known
            and product_id not in catalogue.overrides
        )

    # -- what is done about it -------------------------------------------------------------

    async def settle(self, standing: Iterable[Suspect], *, repair: bool) -> None:
        """Repair what stands, or note it if it must not be repaired. Raises Raced."""
        certain = [suspect for suspect in standing if not self._is_disputed(suspect)]
        absent = sum(s.sign is Sign.ANSWER and s.row is None for s in certain)
        may_remove = self._may_remove(absent)
        for suspect in certain:
            is_readable = suspect.sign is not Sign.NOTHING
            if repair and is_readable and (suspect.row is not None or may_remove):
                await self._repair(suspect)
            else:
                self._note(suspect, is_repaired=False)
        unlisted = next((s.product_id for s in certain if s.sign is Sign.NOTHING), None)
        if repair and unlisted is not None:
            self.leave_to_full_sync(certain, f"{unlisted!r} differs, and cannot be read")
        if repair and not may_remove:
            self.leave_to_full_sync(certain, "too many products would be removed")

    def note_all(self, standing: Iterable[Suspect]) -> None:
        """Note what stands as different and is not repaired."""
        for suspect in standing:
            self._note(suspect, is_repaired=False)

    def leave_to_full_sync(self, standing: Iterable[Suspect], why: str) -> None:
        """Request a full sync, which then settles what is unrepaired of this."""
        for suspect in standing:
            if suspect.product_id in self.unrepaired:
                self._given_up[suspect.product_id] = suspect.known.row
        log.warning("verification: %s; a full sync follows", why)
        self._request_full_sync("verification failed")

    def _may_remove(self, products: int) -> bool:
        held = 0 if self._writer.catalogue is None else len(self._writer.catalogue)
        return self._limit.allows(products, held=held, now=self._time())

    async def _repair(self, suspect: Suspect) -> None:
        self._following.catalogue()  # no repair while a full sync is under way
        product_id, row = suspect.product_id, suspect.row
        if not await self._writer.apply_repair(product_id, row, known=suspect.known):
            return  # it has changed in this moment, and stays unresolved
        if (position := self._writer.position) is not None:
            self._generation = position.generation  # the repair may have given it another label
        if row is None:
            self._limit.note(self._time())
        self._remember(product_id, given_up=suspect.known.row, held=suspect.body)
        self._note(suspect, is_repaired=True)
        self.unresolved.pop(product_id, None)

    def _note(self, suspect: Suspect, *, is_repaired: bool) -> None:
        mismatch = self._mismatch(suspect, is_repaired=is_repaired)
        if not is_repaired:
            self.unrepaired.add(suspect.product_id)
        self._findings.note(mismatch)
        log.log(
            logging.WARNING if mismatch.is_defect else logging.INFO,
            "verification: product %r differed from Central's in %s%s",
            suspect.product_id,
            ", ".join(mismatch.fields),
            "; it is repaired" if is_repaired else "",
        )

    def _mismatch(self, suspect: Suspect, *, is_repaired: bool) -> Mismatch:
        before, after = suspect.known.row, suspect.body
        fields = differing_fields(before, after)
        at = self._now()
        return Mismatch(suspect.product_id, fields, before, after, at, is_repaired=is_repaired)

    # -- disputes --------------------------------------------------------------------------

    def _is_disputed(self, suspect: Suspect) -> bool:
        """Return whether Central contradicts itself about a product, and note that."""
        product_id = suspect.product_id
        if product_id in self._findings.disputed:
            self.unresolved.pop(product_id, None)
            return True
        if suspect.sign is not Sign.CONTRADICTION and not self._comes_back(suspect):
            return False
        self.unresolved.pop(product_id, None)
        if len(self._findings.disputed) < RECENT:
            self._findings.disputed[product_id] = self._mismatch(suspect, is_repaired=False)
        log.warning("verification: Central is not of one mind about %r", product_id)
        return True

    def without_disputed(self, standing: Iterable[Suspect]) -> list[Suspect]:
        """Return those of which Central says one thing only; the others are noted as disputed."""
        return [suspect for suspect in standing if not self._is_disputed(suspect)]

    def _comes_back(self, suspect: Suspect) -> bool:
        """Return whether a difference that was settled is there again, without an event since."""
        settled = self._settled.get(suspect.product_id)
        if settled is None or settled.held != suspect.known.row:
            return False
        return settled.times >= REPAIRS_TO_DISPUTE or is_equal(suspect.body, settled.given_up)

    def _remember(self, product_id: str, *, given_up: bytes | None, held: bytes | None) -> None:
        before = self._settled.pop(product_id, None)
        is_next = before is not None and before.held == given_up
        times = before.times + 1 if before is not None and is_next else 1
        self._settled[product_id] = _Settled(given_up, held, times)
        if len(self._settled) > MOST_REMEMBERED:
            del self._settled[next(iter(self._settled))]
