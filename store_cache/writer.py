"""Holds the catalogue, and is the only one to change it: durable, then visible (D2, P3).

Every change of the catalogue takes the same steps under one lock: a change set plans it, the
journal makes it durable, and one call without a pause shows it to readers. The catalogue of a full
sync goes the same way as a whole: `install` writes a new snapshot, then swaps one reference.

If the disk fails, changes go on in memory. `disk` says so, and new files are tried until they
succeed (D5).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import takewhile
from math import inf
from typing import Protocol

from store_cache.announcer import Announcer
from store_cache.catalogue.apply import (
    OVERRIDE_SECONDS,
    TOMBSTONE_SECONDS,
    apply_answer,
    apply_answer_figures,
    apply_answers,
    apply_events,
    apply_refetch,
    apply_repair,
)
from store_cache.catalogue.catalogue import PART_ROWS, Catalogue, PointInTimeView
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.catalogue.observer import ChangeSource, Origin
from store_cache.catalogue.replica import Installation, Replica, Verdict
from store_cache.central.failures import CentralError
from store_cache.model.change import Change, PendingRefetch, RefetchReason
from store_cache.model.event import AnyEvent
from store_cache.model.position import Position, succeeding_generation
from store_cache.model.product import Row, read_row, version_of
from store_cache.model.stock import StockAnswer
from store_cache.storage.directory import DirectoryRefused
from store_cache.storage.files import CHECK_SECONDS, CacheFiles, JournalBroken
from store_cache.storage.journal import JournalRecord
from store_cache.writes.idempotency import KeyTable, StoredKeys
from store_cache.writes.outbox.outbox import SettledByFeed

log = logging.getLogger(__name__)

TOMBSTONES_AT_MOST = 100_000

IN_SYNC_RECORD_SECONDS = 60.0
"""How often a quiet feed writes the time in sync to disk. A start reads from it how old its
catalogue is at least (B5)."""

SETTLED_TOGETHER = 100
"""Answers that share a sync. To plan and show so many takes the event loop some milliseconds."""

HEAL_SECONDS = 30.0
"""How often new files are tried while the disk fails (D5)."""


Settling = Callable[[Sequence[AnyEvent]], AbstractContextManager[SettledByFeed | None]]


def _ignore() -> None:
    """The callback if none is set."""


def _settle_nothing(_events: Sequence[AnyEvent]) -> AbstractContextManager[SettledByFeed | None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Disk:
    """Whether what readers see is on disk.

    `problem`: why it is not, else empty. `since`: when that began, in unix seconds.
    """

    problem: str = ""
    since: float = 0.0

    @property
    def is_durable(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change that is to be recorded, with an entry of the key table or a JSON list of entries,
    and then shown.

    `origin`: where it comes from; None if it changes no row. `shown` is called in the step in which
    readers see it, just before.
    """

    change: Change
    key_entry: bytes | None = None
    origin: Origin | None = None
    shown: Callable[[], None] = _ignore


@dataclass(eq=False, slots=True)
class Settlement:
    """A write that Central has applied, until its answer is on disk and shown.

    `is_shown`: None while it waits, False if its product has to be fetched first.
    """

    key_entry: bytes
    answer: StockAnswer
    shown: Callable[[], None]
    is_shown: bool | None = None


class FetchProduct(Protocol):
    """Fetch one product from Central: a row, or None if there is none. Raises CentralError."""

    def __call__(self, product_id: str, *, generation: str | None) -> Awaitable[Row | None]: ...


class CacheWriter:
    """Holds the catalogue that readers see, and changes it.

    `catalogue` is None until one was loaded or installed, and `replica` is not None from the start
    of a full sync to its end. `findings` say what a start found wrong with the files.
    While the disk fails, `unsaved_changes` and `unsaved_writes` count the changes and the entries
    of the key table that are only in memory. `replaced` is set whenever another catalogue may be
    read, `refetches_changed` when a refetch is requested; whoever waits for them clears them.
    `announcer` tells its observers each visible change.
    """

    def __init__(
        self,
        files: CacheFiles,
        keys: KeyTable,
        *,
        now: Callable[[], float],
        steady: Callable[[], float],
        grace_seconds: float,
        fetch_product: FetchProduct,
    ) -> None:
        """`now` returns unix seconds of the wall clock, `steady` steady unix seconds (never set
        back): tombstones, overrides and refetches age by these. `grace_seconds`: how late an event
        may appear on the feed (HOLE_GRACE_SECONDS).
        """
        self.catalogue: Catalogue | None = None
        self.replica: Replica | None = None
        self.disk = Disk()
        self.unsaved_changes = 0
        self.unsaved_writes = 0
        self.files = files
        self.findings: tuple[str, ...] = ()
        self.announcer = Announcer()
        self.replaced = asyncio.Event()
        self.refetches_changed = asyncio.Event()
        self.on_renamed: Callable[[str], None] = lambda _label: None
        """Called when a repair has given the generation another label (the sync runner)."""
        self.settles: Settling = _settle_nothing
        """Entered with a batch of events until that is visible; says which queued writes it settles
        (the outbox)."""
        self.on_keys_loaded: Callable[[], None] = _ignore
        """Called when the key table has what lies in the directory."""
        self._keys = keys
        self._now = now
        self._steady = steady
        self._grace_seconds = grace_seconds
        self._fetch_product = fetch_product
        self._lock = asyncio.Lock()  # held from the plan of a change until it is visible
        self._settlements: list[Settlement] = []  # that wait for the lock, or hold it
        self._is_loaded = False
        self._early_answers: list[StockAnswer] = []  # from before the directory could be read
        self._followed_at: float | None = None  # when the feed was last followed to its end, steady
        self._compaction: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._healing: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._dismantling: asyncio.Task[None] | None = None

    # -- start and stop --------------------------------------------------------------------

    async def open(self) -> bool:
        """Load the files, and begin new ones before anything is acknowledged (D3, D7).

        Return whether they were damaged, so that a full sync is due (D4).
        """
        self._keys.since = self._now()  # until the files are loaded
        damaged = await self._load()
        await self._begin_files(self.catalogue)
        self._watch = asyncio.create_task(self._check_files())
        return damaged

    def without_outbox(self) -> None:
        """Ask no outbox any more: there is none, and nothing of it is on disk."""
        self.settles, self.on_keys_loaded = _settle_nothing, _ignore

    async def _load(self) -> bool:
        try:
            loaded = await self.files.load()
        except OSError as problem:
            self._degrade(problem)
            return False
        self._is_loaded = True
        if self.catalogue is None:
            if loaded.catalogue is not None:
                _limit_override_ages(loaded.catalogue, self._steady())
                if loaded.damaged:
                    _rename_generation(loaded.catalogue)
                if self._early_answers:
                    self._apply_early_answers(loaded.catalogue)
            self.catalogue = loaded.catalogue
            if self.catalogue is not None:
                self.announcer.announce_first(self.catalogue)
            self.replaced.set()
        self._early_answers = []
        bad_records, stored = 0, StoredKeys(self._keys.clients)
        while loaded.writes:  # in parts of a few milliseconds, perhaps while tills read
            bad_records += stored.load(loaded.writes.pop(0))
            await asyncio.sleep(0)
        self._keys.add_stored(stored, self._now())
        self.on_keys_loaded()
        self._keys.since = self.files.keys_since
        self.findings = loaded.findings
        if bad_records:
            finding = (
                f"{bad_records} entries of the key table could not be read and were left out: a "
                "till that repeats one of these writes has it judged by Central's memory of keys "
                "alone"
            )
            self.findings += (finding,)
        for finding in self.findings:
            log.warning("files: %s", finding)
        return loaded.damaged

    def _apply_early_answers(self, catalogue: Catalogue) -> None:
        change_set = ChangeSet(catalogue, now=self._steady(), grace_seconds=self._grace_seconds)
        apply_answers(change_set, self._early_answers)
        catalogue.apply(change_set.to_change("answers").numbered(catalogue.sequence + 1))

    async def close(self) -> None:
        """End background tasks and close the files."""
        telling, dismantling = self._telling, self._dismantling
        for task in (self._watch, self._healing, self._compaction, telling, dismantling):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        async with self._lock:
            await self.files.close()

    # -- what is held ----------------------------------------------------------------------

    @property
    def is_durable(self) -> bool:
        return self.disk.is_durable

    @property
    def is_loaded(self) -> bool:
        """Whether what lies in the directory was read."""
        return self._is_loaded

    @property
    def position(self) -> Position | None:
        """Where the catalogue stands in the feed; None without a catalogue."""
        return None if self.catalogue is None else self.catalogue.position

    @property
    def is_unfollowed(self) -> bool:
        """Whether the feed cannot be followed from the position: pages alone are shown."""
        return self.catalogue is not None and self.catalogue.is_unfollowed

    def held_version(self, product_id: str) -> int | None:
        body = None if self.catalogue is None else self.catalogue.get(product_id)
        return None if body is None else version_of(body)

    def held_row(self, product_id: str) -> Row | None:
        body = self.catalogue.get(product_id) if self.catalogue is not None else None
        return None if body is None else read_row(body)

    def known_state(self, product_id: str) -> KnownState:
        """Return what is known of a product. Take it before a refetch, for `apply_refetch`."""
        if self.catalogue is None:
            return KnownState(None, None, None)
        return KnownState.of(self.catalogue, product_id)

    def stale_overrides(self) -> list[str]:
        """Return products whose override was not confirmed by the feed for 60 s (W7).

        Their age is counted up to the moment when the feed was last followed to its end: while the
        store is behind, their events are still to come. Products with a pending refetch are left
        out.
        """
        if self.catalogue is None:
            return []
        limit = self._before_followed(OVERRIDE_SECONDS)
        oldest_first = self.catalogue.overrides.items()
        stale = takewhile(lambda item: item[1].since <= limit, oldest_first)
        return [i for i, _ in stale if i not in self.catalogue.pending_refetches]

    # -- changes by the feed ---------------------------------------------------------------

    async def apply_events(self, events: Sequence[AnyEvent], position: Position) -> int:
        """Apply a batch of events; readers see all of it or nothing (promise 1). Return how many of
        them set a row."""
        async with self._lock:
            change_set = self._change_set()
            apply_events(change_set, events)
            change = change_set.to_change("events", position=self._labelled(position))
            origin = Origin(ChangeSource.EVENT, events=events)
            with self.settles(events) as settled:
                if settled is None:
                    await self._commit(PlannedChange(change, origin=origin))
                else:
                    entries = b"[%b]" % b",".join(settled.records)
                    await self._commit(PlannedChange(change, entries, origin, settled.shown))
            return change_set.rows_set

    async def note_in_sync(self, age_seconds: float = 0.0) -> None:
        """Note that the feed was followed to where it ended `age_seconds` ago; on disk once a
        minute (B5)."""
        self._followed_at = self._steady()
        catalogue = self.catalogue
        if catalogue is None:
            return
        in_sync_at = self._now() - age_seconds  # the lock and the disk may take long
        seconds_ago = in_sync_at - (catalogue.in_sync_at or 0)
        if 0 <= seconds_ago < IN_SYNC_RECORD_SECONDS:
            return
        async with self._lock:
            if catalogue is self.catalogue:
                await self._commit(PlannedChange(Change("in step", in_sync_at=in_sync_at)))

    # -- changes by single products --------------------------------------------------------

    async def apply_refetch(
        self, product_id: str, row: Row | None, *, known: KnownState, reason: RefetchReason
    ) -> bool:
        """Apply what Central says of one product; `row` is None if Central has no such product.

        Return False if the product has changed since `known` was taken; then it has to be fetched
        again.
        """
        async with self._lock:
            if self.catalogue is None:
                return False
            change_set = self._change_set()
            applied = apply_refetch(change_set, product_id, row, known=known, reason=reason)
            if not applied:
                change_set.request_refetch(product_id, reason)
            change = change_set.to_change("reading")
            await self._commit(PlannedChange(change, origin=Origin(ChangeSource.REFETCH)))
            return applied

    async def apply_repair(self, product_id: str, row: Row | None, *, known: KnownState) -> bool:
        """Show what Central holds of a product that a comparison found different.

        If that lowers its version, the generation gets another label in the same record, so that a
        version never goes back within a generation (promise 2). Return False, changing nothing, if
        the product has changed since `known` was taken, is ahead of the feed, or a full sync is
        under way, which would bring the old label back.
        """
        async with self._lock:
            catalogue = self.catalogue
            if catalogue is None or self.replica is not None or product_id in catalogue.overrides:
                return False
            if KnownState.of(catalogue, product_id) != known:
                return False
            change_set = self._change_set()
            is_lower = apply_repair(change_set, product_id, row)
            position, origin = catalogue.position, Origin(ChangeSource.REPAIR)
            if is_lower and position is not None:
                label = succeeding_generation(position.generation, position.named)
                change = change_set.to_change("repair", position=position.renamed(label))
                await self._commit(PlannedChange(change, origin=origin))
                self.on_renamed(label)
            else:
                await self._commit(PlannedChange(change_set.to_change("repair"), origin=origin))
            return True

    def _labelled(self, position: Position) -> Position:
        """Return the position with the label of the generation that readers see. A repair may have
        changed that since the events were asked for."""
        held = self.position
        if held is None or (held.named, held.is_local) != (position.named, position.is_local):
            return position
        return position.renamed(held.generation)

    async def request_refetch(self, product_id: str, reason: RefetchReason) -> None:
        async with self._lock:
            if self.catalogue is not None:
                change_set = self._change_set()
                change_set.request_refetch(product_id, reason)
                await self._commit(PlannedChange(change_set.to_change("doubt")))

    async def postpone(self, product_id: str, refetch: PendingRefetch) -> None:
        """Keep a refetch that failed, with its new time."""
        async with self._lock:
            if self.catalogue is not None and product_id in self.catalogue.pending_refetches:
                change = Change("reading failed", pending_refetches={product_id: refetch})
                await self._commit(PlannedChange(change))

    # -- changes by writes -----------------------------------------------------------------

    async def record_write(self, *key_entries: bytes) -> None:
        """Append entries of the key table, with one sync; if the disk fails, they are only in
        memory (D5)."""
        await self._append([JournalRecord(key_entry=each) for each in key_entries])

    async def keep_write(self, key_entry: bytes) -> None:
        """Append an entry of the key table that counts only if it is durable. Raises OSError."""
        await self._append([JournalRecord(key_entry=key_entry)])
        if not self.disk.is_durable:
            raise OSError(errno.EIO, f"the disk fails: {self.disk.problem}")

    async def settle_write(
        self,
        key_entry: bytes,
        answer: StockAnswer | None,
        *,
        shown: Callable[[], None] = _ignore,
    ) -> None:
        """Append the final entry of a write and, if Central applied it, show its effect (W6).

        Both are one record, so that neither is ever on disk without the other. If the answer alone
        does not say what the product is now, it is fetched first. `answer` is None for a write that
        was not applied. `shown` is called in the same step in which readers see the effect.
        """
        if answer is None:
            await self.record_write(key_entry)
            shown()
            return
        settlement = Settlement(key_entry, answer, shown)
        self._settlements.append(settlement)
        try:
            async with self._lock:
                while settlement.is_shown is None:
                    await self._settle_together()
        finally:
            self._settlements.remove(settlement)
        if not settlement.is_shown:
            await self._settle_by_refetch(settlement)

    async def _settle_together(self) -> None:
        """Record and show the answers that wait for the lock, with one sync of the journal.

        Those whose product has to be fetched are left out, and so are a second one of a product and
        all beyond `SETTLED_TOGETHER`.
        """
        planned: dict[str, PlannedChange] = {}
        settled: list[Settlement] = []
        for settlement in self._settlements:
            answer, change = settlement.answer, Change("answer")
            if settlement.is_shown is not None or answer.product_id in planned:
                continue
            if self.catalogue is not None:
                change_set = self._change_set()
                if not apply_answer(change_set, answer):
                    settlement.is_shown = False
                    continue
                change = change_set.to_change("answer")
            planned[answer.product_id] = _of_answer(change, settlement)
            settled.append(settlement)
            if len(settled) == SETTLED_TOGETHER:
                break
        await self._commit(*planned.values())
        for settlement in settled:
            settlement.is_shown = True
            self._note_answer(settlement.answer)

    async def _settle_by_refetch(self, settlement: Settlement) -> None:
        answer, asked_at = settlement.answer, self._steady()
        known = self.known_state(answer.product_id)
        generation = None if self.position is None else self.position.named
        row, is_fetched = None, False
        try:
            row = await self._fetch_product(answer.product_id, generation=generation)
            is_fetched = True
        except CentralError as problem:
            log.info("a product could not be fetched after a write: %s", problem)
        async with self._lock:
            waited_seconds = max(0.0, self._steady() - asked_at)
            answer = replace(answer, age_seconds=answer.age_seconds + waited_seconds)
            change_set = self._change_set()
            is_applied = is_fetched and apply_refetch(
                change_set, answer.product_id, row, known=known, reason=RefetchReason.CROSSED
            )
            if not is_applied and not apply_answer(change_set, answer):
                apply_answer_figures(change_set, answer)
            await self._commit(_of_answer(change_set.to_change("answer"), settlement))
            self._note_answer(answer)

    def _note_answer(self, answer: StockAnswer) -> None:
        """Remember the answer for a catalogue that may be older and takes the place of this one."""
        if self.replica is not None:
            self.replica.answers.append(answer)
        if not self._is_loaded:
            self._early_answers.append(answer)

    # -- full syncs ------------------------------------------------------------------------

    def begin_replica(self, *, same_generation: bool) -> Replica:
        """Begin a replica, which collects the answers of writes from now on (F4)."""
        self.replica = Replica(
            held=self.catalogue,
            same_generation=same_generation,
            now=self._steady(),
            grace_seconds=self._grace_seconds,
        )
        return self.replica

    async def install(self, installation: Installation, *, least_percent: int) -> Verdict:
        """Judge the replica, write it to disk, then show it to readers (F2, F5, D2).

        If it is refused, it is dropped, and nothing else changes.
        """
        replica = self.replica
        if replica is None:
            raise RuntimeError("there is no replica to install")
        in_sync_at = self._now() - installation.age_seconds  # the lock and the disk may take long
        verdict = replica.judge(installation, least_percent=least_percent)
        if not verdict.accepted:
            self.replica = None
            return verdict
        if self._telling is not None:  # what the full sync before has changed
            await asyncio.wait([self._telling])
        async with self._lock:
            old = self.catalogue
            catalogue = self._finish(replica, installation)
            catalogue.in_sync_at = in_sync_at
            await self._begin_files(catalogue)
            self.catalogue, self.replica = catalogue, None
            self._announce(old, catalogue)
        self.replaced.set()
        self.refetches_changed.set()
        return verdict

    def _announce(self, old: Catalogue | None, new: Catalogue) -> None:
        """Announce a catalogue that was installed, and free the one before.

        Nothing but the announcer uses that any more: readers take the current one after each pause,
        and changes hold the lock.
        """
        if old is None:
            self.announcer.announce_first(new)
        elif self.announcer.observers:
            self.announcer.announce_replaced(old, new)
            self._telling = asyncio.create_task(self._tell_differences(old))
        else:
            self._free(old)

    async def _tell_differences(self, old: Catalogue) -> None:
        await self.announcer.tell_differences()
        self._free(old)

    def drop_replica(self) -> None:
        """Drop the replica of a full sync that has ended without installing it."""
        replica, self.replica = self.replica, None
        if replica is not None:
            self._free(replica.catalogue)

    @contextmanager
    def view(self) -> Iterator[PointInTimeView]:
        """Give a view of the catalogue as it is now, while changes, compaction and full syncs go
        on. There must be a catalogue."""
        catalogue = self.catalogue
        if catalogue is None:
            raise RuntimeError("there is no catalogue to view yet")
        view = catalogue.begin_view()
        try:
            yield view
        finally:
            catalogue.end_view(view)
            if catalogue is not self.catalogue:
                self._free(catalogue)

    def _free(self, catalogue: Catalogue) -> None:
        """Free a catalogue in parts; one that is still viewed is freed once that has ended."""
        if len(catalogue) > PART_ROWS and not catalogue.is_viewed:
            self._dismantling = asyncio.create_task(_dismantle(catalogue, after=self._dismantling))

    def _finish(self, replica: Replica, installation: Installation) -> Catalogue:
        """Return the catalogue of a replica, with what happened since it began."""
        held = Catalogue() if self.catalogue is None else self.catalogue  # one may be empty
        pending = held.pending_refetches.items()
        replica.catalogue.position = installation.position
        catalogue = replica.finish(
            pending_refetches={i: p for i, p in pending if p.since >= replica.began_at},
            tombstones=held.tombstones,
            now=self._steady(),
        )
        catalogue.follow_up_reason = installation.follow_up_reason
        catalogue.sequence = held.sequence + 1
        return catalogue

    # -- durable, then visible -------------------------------------------------------------

    def _change_set(self) -> ChangeSet:
        """Plan a change of the catalogue. The caller holds the lock until it is committed."""
        if self.catalogue is None:
            raise RuntimeError("there is no catalogue to change yet")
        # Tombstones and incarnations count until the feed was followed ten minutes past them: a
        # store that is behind will still get events of incarnations that ended (V2).
        before = self._before_followed(TOMBSTONE_SECONDS)
        self.catalogue.forget(before=before, at_most=TOMBSTONES_AT_MOST)
        return ChangeSet(self.catalogue, now=self._steady(), grace_seconds=self._grace_seconds)

    def _before_followed(self, seconds: float) -> float:
        """Return the time `seconds` before the feed was last followed to its end."""
        return -inf if self._followed_at is None else self._followed_at - seconds

    async def _commit(self, *planned: PlannedChange) -> None:
        """Append changes to the journal, then apply and announce them in order. The caller holds
        the lock."""
        catalogue = self.catalogue
        records: list[JournalRecord] = []
        visible: list[tuple[PlannedChange, Change | None]] = []
        number = 0
        for each in planned:
            change = None
            if not each.change.is_empty:
                assert catalogue is not None
                number += 1
                change = each.change.numbered(catalogue.sequence + number)
            visible.append((each, change))
            if change is not None or each.key_entry is not None:
                records.append(JournalRecord(change, each.key_entry))
        if records:
            await self._append(records)
        for each, change in visible:
            each.shown()
            if change is None:
                continue
            assert catalogue is not None
            self.announcer.apply(catalogue, change, each.origin)
            if change.pending_refetches:
                self.refetches_changed.set()

    async def _append(self, records: Sequence[JournalRecord]) -> None:
        try:  # while the disk fails, too: new files may have been begun
            await self.files.append(*records)
        except OSError as problem:
            self.unsaved_changes += sum(each.change is not None for each in records)
            self.unsaved_writes += sum(each.key_entry is not None for each in records)
            self._degrade(problem)
        else:
            self._compact_if_due()

    def _compact_if_due(self) -> None:
        is_running = self._compaction is not None and not self._compaction.done()
        if self.files.compaction_due and not is_running and self.catalogue is not None:
            self._compaction = asyncio.create_task(self._compact())

    async def _compact(self) -> None:
        try:
            await self.files.compact(self._keys.encoded)
        except JournalBroken as problem:
            self._degrade(problem)
        except OSError as problem:  # the journal is still in use, and grows until the next try
            log.warning("files: compacting the journal failed, it is tried again: %s", problem)

    # -- a failing disk (D5) ---------------------------------------------------------------

    async def _check_files(self) -> None:
        """Notice a directory that is deleted or replaced under the store."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.files.check()
            except OSError as problem:
                self._degrade(problem, heal_in_seconds=0.0)  # nothing is wrong with the disk

    async def _begin_files(self, catalogue: Catalogue | None) -> None:
        """Begin new files, which ends a failure of the disk, or begins one."""
        try:
            await self.files.begin(catalogue, self._keys.encoded())
        except (OSError, DirectoryRefused) as problem:
            self.unsaved_changes += catalogue is not self.catalogue
            self._degrade(problem)
            return
        self.unsaved_changes = self.unsaved_writes = 0
        if not self.disk.is_durable:
            log.warning("files: the disk works again; a new snapshot holds everything")
            self.disk = Disk()

    def _degrade(
        self, problem: OSError | DirectoryRefused, *, heal_in_seconds: float = HEAL_SECONDS
    ) -> None:
        """Go on in memory, and try new files in the background."""
        if self.disk.is_durable:
            self.disk = Disk(str(problem) or type(problem).__name__, self._now())
            log.error(
                "files: the disk fails (%s); the store goes on in memory, and what it is told "
                "from now on is lost if it restarts. Check DATA_DIR: space, permissions, device",
                problem,
            )
        elif isinstance(problem, DirectoryRefused) and str(problem) != self.disk.problem:
            self.disk = replace(self.disk, problem=str(problem))
            log.error("files: %s; until then the store goes on in memory", problem)
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._heal(heal_in_seconds))

    async def _heal(self, first_in_seconds: float) -> None:
        await asyncio.sleep(first_in_seconds)
        while not self.disk.is_durable:
            try:
                await self.files.probe()
                async with self._lock:
                    if not self._is_loaded:  # what is in the directory is used, once it is there
                        await self._load()
                    await self._begin_files(self.catalogue)
            except (OSError, DirectoryRefused) as problem:  # no reason to end a running store
                self._degrade(problem)
            if not self.disk.is_durable:
                await asyncio.sleep(HEAL_SECONDS)


def _of_answer(change: Change, settlement: Settlement) -> PlannedChange:
    key_entry = settlement.key_entry
    origin = Origin(ChangeSource.WRITE, key_entry=key_entry)
    return PlannedChange(change, key_entry, origin, settlement.shown)


def _rename_generation(catalogue: Catalogue) -> None:
    """Give the generation another name, because damage may have taken what readers have seen.

    The name is in every answer, also after the full sync that follows, so that readers notice that
    the catalogue went back (promise 2).
    """
    if (position := catalogue.position) is not None:
        name = succeeding_generation(position.generation, position.named)
        catalogue.position = position.renamed(name)


def _limit_override_ages(catalogue: Catalogue, now: float) -> None:
    """Bring overrides that are from the future back to `now`: the clock was set back since.

    They would not grow old before that time, and neither would those behind them.
    """
    for product_id, override in catalogue.overrides.items():
        if override.since > now:
            catalogue.overrides[product_id] = replace(override, since=now)


async def _dismantle(catalogue: Catalogue, *, after: asyncio.Task[None] | None) -> None:
    if after is not None:
        await asyncio.wait([after])
    for _ in catalogue.dismantle():
        await asyncio.sleep(0)
