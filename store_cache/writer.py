"""The one writer of the cache: durable before visible, in one place (D2, P3).

Knows: the order of changes, and that each goes to the journal before a reader sees it; what is
done while the disk fails (D5).
Refuses to know: why a change is made, when to sync, HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Protocol

from store_cache.catalogue.apply import (
    OVERRIDE_SECONDS,
    TOMBSTONE_SECONDS,
    ChangeSet,
    KnownState,
    apply_answer,
    apply_answer_figures,
    apply_events,
    apply_refetch,
    version_of,
)
from store_cache.catalogue.catalogue import PART_ROWS, Catalogue
from store_cache.catalogue.replica import Installation, Replica, Verdict
from store_cache.central.failures import CentralError
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason
from store_cache.model.event import AnyEvent
from store_cache.model.position import Position, succeeding_generation
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.storage.directory import DirectoryInUse
from store_cache.storage.files import CacheFiles, JournalBroken, NewerFormat
from store_cache.writes.idempotency import KeyTable

log = logging.getLogger(__name__)

MARKS_AT_MOST = 100_000
IN_STEP_NOTE_SECONDS = 60.0
"""How often being in step is written down on a quiet feed, so that a start from disk knows how old
its catalogue is at the least."""

KEYS_AT_ONCE = 1_000
"""Entries of the key table loaded without a pause: a few milliseconds."""

HEAL_SECONDS = 30.0
"""How often new files are tried while the disk fails (D5)."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Whether what is shown is on disk. `problem` is empty while it is; `since`: unix seconds."""

    problem: str = ""
    since: float = 0.0

    @property
    def is_durable(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class FileSizes:
    """How large the files are, and why old ones could not be removed, if so."""

    snapshot_bytes: int
    journal_bytes: int
    sweep_problem: str


class ReadWhole(Protocol):
    def __call__(self, product_id: str, *, generation: str | None) -> Awaitable[Row | None]: ...


class CacheWriter:
    """Holds the catalogue that readers see, and changes it.

    `now` gives unix seconds; `steady` too, but is never set: by it doubts and marks grow old.
    `read_whole` asks Central for one product: a row, or None for absent.
    """

    def __init__(
        self,
        archive: CacheFiles,
        keys: KeyTable,
        *,
        now: Callable[[], float],
        steady: Callable[[], float],
        grace_seconds: float,
        read_whole: ReadWhole,
    ) -> None:
        self.catalogue: Catalogue | None = None
        self.disk = Disk()
        self.findings: tuple[str, ...] = ()
        self.refetches_changed = asyncio.Event()
        self.replaced = asyncio.Event()
        """Set when another catalogue is there to be read; whoever waits clears it."""
        self._archive = archive
        self._keys = keys
        self._now = now
        self._steady = steady
        self._grace_seconds = grace_seconds
        self._read_whole = read_whole
        self._order = asyncio.Lock()
        self._replica: Replica | None = None
        self._answers: list[StockAnswer] = []
        self._fold: asyncio.Task[None] | None = None
        self._healing: asyncio.Task[None] | None = None
        self._dismantling: asyncio.Task[None] | None = None
        self._is_loaded = False
        self._in_sync_at: float | None = None

    # -- start and stop --------------------------------------------------------------------

    async def open(self) -> bool:
        """Take what the files hold, and begin new ones before anything is acknowledged (D3, D7).

        True where something was damaged, so that a full sync is due (D4).
        """
        damaged = await self._load()
        try:
            await self._archive.begin(self.catalogue, self._keys.encoded())
        except OSError as problem:
            self._degrade(problem)
        return damaged

    async def _load(self) -> bool:
        try:
            loaded = await self._archive.load()
        except OSError as problem:
            self._degrade(problem)
            return False
        self._is_loaded = True
        if self.catalogue is None:
            self.catalogue = loaded.catalogue
            if loaded.catalogue is not None:
                _bring_back(loaded.catalogue, self._steady())
            self.replaced.set()
            if loaded.damaged and loaded.catalogue is not None:
                _rename_generation(loaded.catalogue)
        bad_records = await self._load_keys(loaded.writes)
        self.findings = (*loaded.findings, *_about_keys(bad_records))
        for finding in self.findings:
            log.warning("files: %s", finding)
        return loaded.damaged

    async def _load_keys(self, records: list[dict[str, Any]]) -> int:
        """In parts: half a million hold the loop for seconds, and a folder that appears late is
        loaded while tills read. Returns how many were none."""
        bad_records = 0
        for start in range(0, len(records), KEYS_AT_ONCE):
            bad_records += self._keys.load(records[start : start + KEYS_AT_ONCE])
            await asyncio.sleep(0)
        self._keys.end_load(self._now())
        return bad_records

    async def close(self) -> None:
        """End what goes on in the background, and let go of the files."""
        for task in (self._healing, self._fold, self._dismantling):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        async with self._order:
            await self._archive.close()

    @property
    def files(self) -> FileSizes:
        archive = self._archive
        return FileSizes(archive.snapshot_bytes, archive.journal_bytes, archive.sweep_problem)

    # -- reads that decisions need ---------------------------------------------------------

    @property
    def position(self) -> Position | None:
        """Where the catalogue in place stands in the feed; None while there is none."""
        return self.catalogue.position if self.catalogue is not None else None

    def held_version(self, product_id: str) -> int | None:
        body = self.catalogue.get(product_id) if self.catalogue is not None else None
        return None if body is None else version_of(body)

    def known_state(self, product_id: str) -> KnownState:
        """To be taken when a reading is sent, and given back with what it says."""
        if self.catalogue is None:
            return KnownState(None, None, None)
        return KnownState.of(self.catalogue, product_id)

    # -- changes ---------------------------------------------------------------------------

    async def apply_events(self, events: Sequence[AnyEvent], position: Position) -> None:
        """Apply a batch: all of it or nothing is ever seen (promise 1)."""
        async with self._order:
            catalogue = self._held()
            change_set = self._change_set(catalogue)
            apply_events(change_set, events)
            await self._make(catalogue, change_set.to_change("events", position=position))

    async def note_in_sync(self) -> None:
        """Write down that the store is in step with Central, once in a while (B5)."""
        self._in_sync_at = self._steady()
        catalogue = self.catalogue
        if catalogue is None or not self._is_news(catalogue):
            return
        async with self._order:
            if catalogue is self.catalogue:
                await self._make(catalogue, Change("in step", in_sync_at=self._now()))

    def _is_news(self, catalogue: Catalogue) -> bool:
        ago = self._now() - (catalogue.in_sync_at or 0)
        return catalogue.unfollowed_until > 0 or not 0 <= ago < IN_STEP_NOTE_SECONDS

    async def apply_refetch(
        self, product_id: str, row: Row | None, *, known: KnownState, reason: RefetchReason
    ) -> bool:
        """Take what Central says of one product; False: it changed meanwhile, read again."""
        async with self._order:
            catalogue = self.catalogue
            if catalogue is None:
                return False
            change_set = self._change_set(catalogue)
            taken = apply_refetch(change_set, product_id, row, known=known, reason=reason)
            if not taken:
                change_set.request_refetch(product_id, reason)
            await self._make(catalogue, change_set.to_change("reading"))
            return taken

    async def request_refetch(self, product_id: str, reason: RefetchReason) -> None:
        async with self._order:
            if self.catalogue is not None:
                change_set = self._change_set(self.catalogue)
                change_set.request_refetch(product_id, reason)
                await self._make(self.catalogue, change_set.to_change("doubt"))

    async def postpone(self, product_id: str, owed: PendingRefetch) -> None:
        """A reading failed: it stays owed, later."""
        async with self._order:
            if self.catalogue is not None and product_id in self.catalogue.pending_refetches:
                change = Change("reading failed", pending_refetches={product_id: owed})
                await self._make(self.catalogue, change)

    def stale_overrides(self) -> list[str]:
        """Products that are still ahead though the feed was followed past them (W7): while it is
        behind, their events are still to come."""
        if self.catalogue is None:
            return []
        limit = -inf if self._in_sync_at is None else self._in_sync_at - OVERRIDE_SECONDS
        owed = self.catalogue.pending_refetches
        return [i for i, a in _oldest(self.catalogue.overrides, limit) if i not in owed]

    # -- writes ----------------------------------------------------------------------------

    async def record_write(self, write: bytes) -> None:
        """Put an entry of the key table on disk; without a disk it is in memory alone (D5)."""
        await self._append(None, write)

    async def settle_write(self, write: bytes, answer: StockAnswer | None) -> None:
        """Put a write's final answer on disk and, if it was applied, show it (W6): both in one
        record, so that neither is ever there without the other."""
        if answer is None:
            await self.record_write(write)
        elif not await self._lay(write, answer):
            await self._lay_whole(write, answer)

    async def _lay(self, write: bytes, answer: StockAnswer) -> bool:
        async with self._order:
            if self.catalogue is None:
                await self._append(None, write)
                return True
            change_set = self._change_set(self.catalogue)
            if not apply_answer(change_set, answer):
                return False
            await self._make_answer(self.catalogue, change_set, write, answer)
            return True

    async def _lay_whole(self, write: bytes, answer: StockAnswer) -> None:
        """The product has to be read whole first; if that fails, the answer's own figures do."""
        known = self.known_state(answer.product_id)
        row, was_read = await self._read(answer.product_id)
        async with self._order:
            catalogue = self._held()
            change_set = self._change_set(catalogue)
            taken = was_read and apply_refetch(
                change_set, answer.product_id, row, known=known, reason=RefetchReason.CROSSED
            )
            if not taken and not apply_answer(change_set, answer):
                apply_answer_figures(change_set, answer)
            await self._make_answer(catalogue, change_set, write, answer)

    async def _read(self, product_id: str) -> tuple[Row | None, bool]:
        try:
            named = self.position.named if self.position is not None else None
            return await self._read_whole(product_id, generation=named), True
        except CentralError as problem:
            log.info("a product could not be read whole after a write: %s", problem)
            return None, False

    async def _make_answer(
        self, catalogue: Catalogue, change_set: ChangeSet, write: bytes, answer: StockAnswer
    ) -> None:
        await self._make(catalogue, change_set.to_change("answer"), write)
        if self._replica is not None:
            self._answers.append(answer)

    # -- the copy of a full sync -----------------------------------------------------------

    def begin_replica(self, *, same_generation: bool) -> Replica:
        """Start a copy; answers to writes are remembered from here on (F4)."""
        self._answers = []
        self._replica = Replica(
            held=self.catalogue,
            same_generation=same_generation,
            now=self._steady(),
            grace_seconds=self._grace_seconds,
        )
        return self._replica

    def drop_replica(self) -> None:
        self._replica = None
        self._answers = []

    async def install(
        self, replica: Replica, installation: Installation, *, least_percent: int
    ) -> Verdict:
        """Judge the replica, write it to disk, then show it to readers, in this order (F2, F5, D2).
        If it is refused, nothing changes."""
        verdict = replica.judge(
            least_percent=least_percent,
            accept=installation.accept,
            agreed_products=installation.agreed_products,
        )
        if not verdict.accepted:
            return verdict
        async with self._order:
            copy = self._finished(replica, installation)
            await self._begin_files(copy)
            old, self.catalogue = self.catalogue, copy
            self.drop_replica()
        self._let_go(old)
        self.replaced.set()
        self.refetches_changed.set()
        return verdict

    def _finished(self, replica: Replica, installation: Installation) -> Catalogue:
        held = self.catalogue or Catalogue()
        owed = {i: o for i, o in held.pending_refetches.items() if o.since >= replica.began_at}
        copy = replica.finish(
            answers=self._answers,
            pending_refetches=owed,
            tombstones=held.tombstones,
            now=self._steady(),
        )
        copy.position = installation.position
        copy.unfollowed_until = installation.unfollowed_until
        copy.follow_up_reason = installation.follow_up_reason
        copy.sequence = held.sequence + 1
        copy.in_sync_at = self._now()
        return copy

    def _let_go(self, old: Catalogue | None) -> None:
        """Nobody reads the catalogue that was replaced any more: who wants one takes it anew after
        each pause, and what changes it holds the order."""
        if old is not None and len(old) > PART_ROWS:
            self._dismantling = asyncio.create_task(_dismantle(old, after=self._dismantling))

    async def _begin_files(self, catalogue: Catalogue | None) -> None:
        try:
            await self._archive.begin(catalogue, self._keys.encoded())
        except OSError as problem:
            self._degrade(problem)
        else:
            self._healed()

    # -- the order of things ---------------------------------------------------------------

    def _held(self) -> Catalogue:
        if self.catalogue is None:
            raise RuntimeError("there is no catalogue to change yet")
        return self.catalogue

    def _change_set(self, catalogue: Catalogue) -> ChangeSet:
        catalogue.forget(before=self._forgotten_before(), at_most=MARKS_AT_MOST)
        return ChangeSet(catalogue, now=self._steady(), grace_seconds=self._grace_seconds)

    def _forgotten_before(self) -> float:
        """Marks and lives matter until the feed has been followed past them, and ten minutes more:
        a store that is behind will still hear of the life that ended (V2)."""
        return -inf if self._in_sync_at is None else self._in_sync_at - TOMBSTONE_SECONDS

    async def _make(self, catalogue: Catalogue, change: Change, write: bytes | None = None) -> None:
        """Durable, then visible. The caller holds the order."""
        numbered = None if change.is_empty else change.numbered(catalogue.sequence + 1)
        await self._append(numbered, write)
        if numbered is not None:
            catalogue.apply(numbered)
            if numbered.pending_refetches:
                self.refetches_changed.set()

    async def _append(self, change: Change | None, write: bytes | None) -> None:
        if change is None and write is None:
            return
        try:  # also while the disk fails: only the archive knows when new files have begun
            await self._archive.append(change=change, write=write)
        except OSError as problem:
            self._degrade(problem)
        else:
            self._fold_when_due()

    # -- folding (D3) ----------------------------------------------------------------------

    def _fold_when_due(self) -> None:
        running = self._fold is not None and not self._fold.done()
        if self._archive.compaction_due and not running and self.catalogue is not None:
            self._fold = asyncio.create_task(self._fold_now(self.catalogue))

    async def _fold_now(self, catalogue: Catalogue) -> None:
        try:
            await self._archive.compact(catalogue, self._keys.encoded)
        except JournalBroken as problem:
            self._degrade(problem)
        except OSError as problem:  # the journal goes on as it was, and grows until the next try
            log.warning("files: folding the journal failed, it is tried again: %s", problem)

    # -- a failing disk (D5) ---------------------------------------------------------------

    def _degrade(self, problem: OSError) -> None:
        if self.disk.is_durable:
            self.disk = Disk(str(problem) or type(problem).__name__, self._now())
            log.error(
                "files: the disk fails (%s); the store goes on in memory, and what it is told "
                "from now on is lost if it restarts. Check DATA_DIR: space, permissions, device",
                problem,
            )
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        while not self.disk.is_durable:
            await asyncio.sleep(HEAL_SECONDS)
            async with self._order:
                await self._try_new_files()

    async def _try_new_files(self) -> None:
        if not self._is_loaded:  # what the folder holds counts, now that it is there
            try:
                await self._load()
            except (DirectoryInUse, NewerFormat) as problem:  # no reason to end a shop that runs
                self._name_problem(str(problem))
                return
        await self._begin_files(self.catalogue)

    def _name_problem(self, problem: str) -> None:
        if problem != self.disk.problem:
            self.disk = replace(self.disk, problem=problem)
            log.error("files: %s; until then the store goes on in memory", problem)

    def _healed(self) -> None:
        if not self.disk.is_durable:
            log.warning("files: the disk works again; a new snapshot holds everything")
            self.disk = Disk()


def _rename_generation(catalogue: Catalogue) -> None:
    """Damage may have taken what readers were shown: that the catalogue goes back is to be seen
    in every answer, until the full sync that follows and after it (promise 2)."""
    position = catalogue.position
    if position is not None:
        name = succeeding_generation(position.generation, position.named)
        catalogue.position = position.renamed(name)


def _bring_back(catalogue: Catalogue, now: float) -> None:
    """The clock may have been set back before this start: what is ahead of the feed since a time
    that is still to come would not grow old before that, nor would what stands behind it."""
    for product_id, entry in catalogue.overrides.items():
        if entry.since > now:
            catalogue.overrides[product_id] = replace(entry, since=now)


async def _dismantle(catalogue: Catalogue, *, after: asyncio.Task[None] | None) -> None:
    if after is not None:
        await asyncio.wait([after])
    for _ in catalogue.dismantle():
        await asyncio.sleep(0)


def _about_keys(bad_records: int) -> list[str]:
    said = (
        f"{bad_records} entries of the key table could not be read and were left out: a till that "
        "repeats one of these writes has it judged by Central's memory of keys alone"
    )
    return [said] if bad_records else []


def _oldest(ahead: dict[str, Override], limit: float) -> list[tuple[str, Override]]:
    found = []
    for product_id, item in ahead.items():
        if item.since > limit:
            break
        found.append((product_id, item))
    return found
