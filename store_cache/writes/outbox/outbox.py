"""The entries of the outbox: held in memory as the log on disk has them, and changed through it.

An entry's record is one of the key table's, so that one log, one snapshot and one recovery hold
both. What is to be sent, how much is pending of each product, and how many entries there are, is
made from the records at a start, and never stored beside them (O6).

Memory has a new state as soon as its record is given to the journal, so that the order in memory is
that on disk. A till is answered, and readers see a change, only once it is durable. The key table,
of which snapshots are made, has a settled entry only then, too: its record is also that of the row
that it changed, and a snapshot of before has no such row.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import orjson

from store_cache.model.event import AnyEvent, Event
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import Attempt, KeyTable, fingerprint, key_reused
from store_cache.writes.in_doubt import InDoubtWrites
from store_cache.writes.outbox import answers, transitions
from store_cache.writes.outbox.entry import (
    SETTLED,
    TO_BE_SENT,
    UNSETTLED,
    Entry,
    Result,
    State,
    Step,
    decode_entry,
    encode_entry,
    new_id,
)
from store_cache.writes.outbox.order import SendingOrder
from store_cache.writes.outbox.pending import PendingStock
from store_cache.writes.write import Answer, Doubt, WriteError, WriteRequest

log = logging.getLogger(__name__)

FULL_RETRY_SECONDS = 30.0

ENDED = "the store ended before Central answered"
"""Why an entry is in doubt that a start finds on its way."""

DOUBTFUL = frozenset({transitions.KEY_TAKEN, transitions.FORGOTTEN, transitions.REPLACED})
"""Why an entry is parked of which an attempt may have been applied."""


class EntryLog(Protocol):
    """The cache's writer, as far as this module uses it."""

    @property
    def is_durable(self) -> bool: ...

    def held_row(self, product_id: str) -> Row | None: ...

    async def keep_write(self, key_entry: bytes) -> None:
        """Append a record. Raises OSError if it is not durable."""

    async def record_write(self, *key_entries: bytes) -> None: ...

    async def settle_write(
        self, key_entry: bytes, answer: StockAnswer | None, *, shown: Callable[[], None]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How many entries are in each unsettled state, and the age of the oldest one; how long the
    oldest one has been in doubt (0.0: none is). `may_lack`: why entries may be missing, or empty.
    `waits_for`: what the sender waits for, or empty."""

    queued: int
    sending: int
    in_doubt: int
    parked: int
    oldest_seconds: float
    doubt_seconds: float
    may_lack: str
    waits_for: str

    @property
    def unsettled(self) -> int:
        return self.queued + self.sending + self.in_doubt + self.parked


@dataclass(frozen=True, slots=True)
class SettledByFeed:
    """What a batch of events settles: the records for the journal, and what is to be called when
    the batch becomes visible."""

    records: tuple[bytes, ...]
    shown: Callable[[], None]


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """`limit`: so many entries may be unsettled. `is_accepting`: whether writes are queued; if not,
    what is left is only sent (O9). `retention_seconds`: how long a settled entry can be asked
    for."""

    store_id: str
    limit: int
    is_accepting: bool
    retention_seconds: float


class Outbox:
    """`now` is unix seconds; `random` returns numbers from 0 to 1.

    `order` has what is to be sent, `pending` what reads show beside the stock; `busy` are the keys
    that the sender is about, and `failures` says how often in a row the sending of each has failed.
    `in_doubt` has the evidence about the last attempt of each entry that was sent and is unsettled.
    `may_lack`: why entries may be missing, or empty; `waits_for`: what the sender waits for.
    `on_changed` is called with each entry that readers see in a new state, `on_work` when something
    is to be sent.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        *,
        keys: KeyTable,
        store: EntryLog,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.order = SendingOrder()
        self.pending = PendingStock()
        self.busy: set[str] = set()
        self.failures: Counter[str] = Counter()
        self.in_doubt = InDoubtWrites(store_id=settings.store_id)
        self.may_lack = ""
        self.waits_for = ""
        self.on_changed: Callable[[Entry], None] = _ignore
        self.on_work: Callable[[], None] = _ignore
        self.is_accepting = settings.is_accepting
        self._settings = settings
        self._keys = keys
        self._store = store
        self._now = now
        self._random = random
        self.counts: Counter[State] = Counter()
        """How many entries are in each unsettled state."""
        self._unsettled: dict[str, Entry] = {}
        self._unreadable: set[str] = set()  # keys
        self._settled: dict[str, float] = {}  # by key, when; the oldest first
        self._key_of: dict[str, str] = {}  # by id
        self._held_up: Counter[str] = Counter()  # by product: entries that later ones wait for
        self._counted: dict[str, tuple[str, int]] = {}  # by key: what `pending` has of it
        # By product: versions that entries have raised, each with its generation.
        self._steps: dict[str, set[tuple[str | None, int]]] = {}
        self._settling: dict[str, Entry] = {}  # by key: settled, and not on disk yet
        self._writing: dict[str, asyncio.Future[None]] = {}
        self._sequence = 0

    # -- start -----------------------------------------------------------------------------

    def load(self) -> None:
        """Take the entries of the key table, which was loaded, but for those to be forgotten.

        If the files could not be read before, readers are told of what is pending, too.
        """
        entries = self._readable_entries()
        settled = [entry for entry in entries if not entry.is_unsettled]
        for entry in sorted(settled, key=lambda one: one.changed_at):
            self._settle_in_memory(entry)
        for entry in sorted(entries, key=lambda one: one.sequence):
            self._key_of[entry.id] = entry.key
            self._sequence = max(self._sequence, entry.sequence)
            if entry.is_unsettled and entry.key not in self._unsettled:
                self._put(transitions.recovered(entry, ENDED, self._now()))
                self._count(entry)
                self._schedule(self._unsettled[entry.key])
                self.on_changed(self._unsettled[entry.key])
        self.on_work()
        self.expire()

    def _readable_entries(self) -> list[Entry]:
        """Return the entries of the key table. One that cannot be read stays on disk, and is
        named."""
        entries = []
        for key, record in self._keys.outbox.items():
            try:
                entries.append(decode_entry(orjson.loads(record)))
            except (KeyError, TypeError, ValueError, AttributeError) as problem:
                self._unreadable.add(key)
                self.may_lack = (
                    f"{len(self._unreadable)} entries of the outbox cannot be read, the last one "
                    f"under the key {key}: a newer version may have written them. Their till has "
                    "to say what was sold"
                )
                log.error("the entry of key %s in the outbox cannot be read: %r", key, problem)
        return entries

    # -- what is held ----------------------------------------------------------------------

    @property
    def is_used(self) -> bool:
        """Whether writes are queued, or some are left (O9)."""
        return self.is_accepting or bool(self._keys.outbox)

    def find(self, request: WriteRequest) -> Entry | None:
        """Return the entry of a write's key. Raises WriteError `idempotency_key_reused`, or
        `storage_unavailable` if the entry cannot be read."""
        if request.key in self._unreadable:
            raise WriteError(
                "storage_unavailable",
                "The outbox has this write, and cannot read it: have the store's log looked at "
                "before it is sold under another key",
                details={"idempotencyKey": request.key},
            )
        entry = self.get(request.key)
        if entry is not None and entry.fingerprint != fingerprint(request):
            client, used_at = entry.request.client, entry.queued_at
            raise key_reused(request.key, client=client, used_at=used_at)
        return entry

    def get(self, key: str) -> Entry | None:
        if (entry := self._unsettled.get(key) or self._settling.get(key)) is not None:
            return entry
        record = None if key in self._unreadable else self._keys.outbox.get(key)
        return None if record is None else decode_entry(orjson.loads(record))

    def unsettled(self, key: str) -> Entry | None:
        """Return the entry of a key if it has no outcome yet."""
        return self._unsettled.get(key)

    def is_current(self, entry: Entry) -> bool:
        """Whether this is still the state of an unsettled entry. While a record of it is written,
        or its answer awaited, the feed or a person may settle it."""
        return self._unsettled.get(entry.key) is entry

    def by_id(self, entry_id: str) -> Entry | None:
        key = self._key_of.get(entry_id)
        return None if key is None else self.get(key)

    def existing(self, entry_id: str) -> Entry:
        """Return an entry by its id. Raises WriteError `outbox_entry_not_found`."""
        entry = self.by_id(entry_id)
        if entry is None:
            raise WriteError(
                "outbox_entry_not_found",
                "The outbox has no entry with this id; settled ones are kept for "
                "KEY_RETENTION_HOURS",
                details={"outboxId": entry_id[:100]},
            )
        return entry

    def listed(self, state: State | None, *, limit: int, after: str) -> list[Entry]:
        """Return entries in the order of their ids, those after the id `after`; unsettled ones
        unless a state is asked for."""
        is_settled = state is not None and state not in UNSETTLED
        keys = self._settled if is_settled else self._unsettled
        ids = sorted(i for i, key in self._key_of.items() if i > after and key in keys)
        found = (entry for i in ids if (entry := self.by_id(i)) is not None)
        return [*islice((one for one in found if state in (None, one.state)), limit)]

    def holds_up(self, product_id: str) -> bool:
        """Whether a new write to the product has to wait behind an entry (O1)."""
        return self._held_up[product_id] > 0

    def __len__(self) -> int:
        """How many entries are unsettled."""
        return len(self._unsettled)

    def status(self) -> OutboxStatus:
        now, entries = self._now(), self._unsettled.values()
        counts = self.counts
        oldest = min((entry.queued_at for entry in entries), default=now)
        doubtful = (entry.changed_at for entry in entries if entry.state is State.IN_DOUBT)
        return OutboxStatus(
            counts[State.QUEUED],
            counts[State.SENDING],
            counts[State.IN_DOUBT],
            counts[State.PARKED],
            oldest_seconds=max(0.0, now - oldest),
            doubt_seconds=max(0.0, now - min(doubtful, default=now)),
            may_lack=self.may_lack,
            waits_for=self.waits_for if entries else "",
        )

    def doubts(self) -> list[Doubt]:
        """Return what is known of each entry in doubt."""
        return [
            answers.doubt_of(entry, self._seen(entry))
            for entry in self._unsettled.values()
            if entry.state is State.IN_DOUBT
        ]

    async def answer(self, key: str) -> Answer | WriteError:
        """Return what a till is answered for an entry, once its state is durable."""
        await self.until_durable(key)
        entry = self.get(key)
        assert entry is not None, "an entry is forgotten a day after it was settled"
        return self._answer(entry)

    async def until_durable(self, key: str) -> None:
        """Return once the state of the entry of a key, if there is one, is durable; of a settled
        one, once readers see it, too."""
        while (writing := self._writing.get(key)) is not None:
            await asyncio.shield(writing)

    def _answer(self, entry: Entry) -> Answer | WriteError:
        row = self._store.held_row(entry.product_id)
        return answers.answer_to(
            entry,
            available=None if row is None else row.available,
            pending=self.pending.of(entry.product_id),
            seen=self._seen(entry),
        )

    def _seen(self, entry: Entry) -> tuple[Any, ...]:
        found = None if entry.attempt is None else self.in_doubt.get(entry.attempt)
        return () if found is None else found.seen

    def continued_version(self, product_id: str, version: int, generation: str | None) -> int:
        """Return the version that the shop's own queued writes have made of `version` in this
        generation, if nobody else changed the product (O2)."""
        steps = self._steps.get(product_id, ())
        while (generation, version) in steps:
            version += 1
        return version

    # -- new entries -----------------------------------------------------------------------

    def check_room(self, count: int) -> None:
        """Raise WriteError unless `count` writes may be queued now (O7)."""
        if not self._store.is_durable:
            raise _disk_fails()
        limit = self._settings.limit
        if len(self._unsettled) + count > limit:
            raise WriteError(
                "outbox_full",
                f"Central cannot be reached, and {len(self._unsettled)} writes wait for it, of "
                f"{limit} that may (OUTBOX_LIMIT). Nothing was sent or queued: repeat the write "
                "with the same key",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )

    async def queue(self, requests: Sequence[tuple[WriteRequest, int]], reason: str) -> None:
        """Queue writes that certainly never reached Central: all of them or, raising WriteError,
        none. With each comes the number of its next attempt."""
        self.check_room(len(requests))
        now = self._now()
        entries = [
            transitions.queued(
                request,
                entry_id=self._new_id(now),
                sequence=self._next_sequence(),
                number=number,
                reason=reason,
                now=now,
            )
            for request, number in requests
        ]
        records = [self._put(entry) for entry in entries]
        kept = await asyncio.gather(*map(self._store.keep_write, records), return_exceptions=True)
        if failed := [problem for problem in kept if problem is not None]:
            for entry in filter(self.is_current, entries):
                self._forget(entry)
            if not isinstance(failed[0], OSError):
                raise failed[0]
            raise _disk_fails() from failed[0]
        for entry in filter(self.is_current, entries):
            self._count(entry)
            self._schedule(entry)
            self.on_changed(entry)
        self.on_work()

    @property
    def can_take_in(self) -> bool:
        """Whether a write of unknown outcome can be kept here."""
        return self.is_accepting and self._store.is_durable

    async def take_in(self, request: WriteRequest, attempt: Attempt, reason: str) -> Entry:
        """Keep a write of a till whose outcome is unknown, and have it settled."""
        now = self._now()
        entry = transitions.taken_in(
            request,
            attempt,
            entry_id=self._new_id(now),
            sequence=self._next_sequence(),
            reason=reason,
            now=now,
        )
        await self.record(entry)
        self._schedule(entry)
        self.on_work()
        return entry

    # -- changes ---------------------------------------------------------------------------

    async def record(self, *entries: Entry) -> None:
        """Put entries into their next states, which settle nothing, with one sync."""
        with self._put_until_durable(*entries) as records:
            await self._store.record_write(*records)
            for entry in entries:
                self._count(entry)
        for entry in filter(self.is_current, entries):
            self.on_changed(entry)

    async def settle(self, entry: Entry, stock: StockAnswer | None) -> None:
        """Settle an entry. Its delta goes in the same record, and in the same step for readers, as
        the row that it changed."""
        with self._put_until_durable(entry) as [record]:
            shown = partial(self._show_settled, entry, record)
            await self._store.settle_write(record, stock, shown=shown)

    @contextmanager
    def settled_by(self, events: Sequence[AnyEvent]) -> Iterator[SettledByFeed | None]:
        """Yield what events that name writes of this shop settle (O4), None if nothing; repeats of
        these writes wait until the block, which logs and shows it, ends.

        They count even if this store never sent the write: another node may have, or this one
        before its folder was restored.
        """
        may_settle = self._unsettled or self._settling
        settled = [*self._named_entries(events)] if may_settle else []
        if not settled:
            yield None
            return

        def shown() -> None:
            for entry, record in zip(settled, records, strict=True):
                self._show_settled(entry, record)

        with self._put_until_durable(*settled) as records:
            yield SettledByFeed(tuple(records), shown)

    def _show_settled(self, entry: Entry, record: bytes) -> None:
        """Show that an entry is settled, and take its delta away: its record is durable. Nothing is
        left to do if the feed was faster."""
        if self._settling.get(entry.key) is not entry:
            return
        del self._settling[entry.key]
        self._keys.put_outbox(entry.key, record)
        self._uncount(entry)
        self.on_changed(entry)

    def _named_entries(self, events: Sequence[AnyEvent]) -> Iterable[Entry]:
        for event in events:
            if not isinstance(event, Event) or event.body is None:
                continue
            name = event.write
            if name is None or name.store_id != self._settings.store_id:
                continue
            key = name.key.removeprefix(f"{self._settings.store_id}-").partition("~")[0]
            # Also one whose answer has come, and waits for its product: the event shows the sale.
            entry = self._unsettled.get(key) or self._settling.get(key)
            if entry is None or entry.product_id != event.product_id:
                continue
            if entry.state is State.DISCARDED:
                continue
            row = orjson.loads(event.body)
            updated = row.get("lastUpdated")
            result = Result(
                row["available"], event.version, updated if isinstance(updated, str) else None
            )
            log.info("the feed settles write %s of the outbox, %s", name.key, entry.id)
            yield transitions.applied(entry, result, self._now())

    # -- what people do --------------------------------------------------------------------

    async def retry(self, entry_id: str, *, by: str, reason: str, outcome: str) -> Entry:
        """Send a parked entry again, under the next key that Central has not refused. If an attempt
        of it may have been applied, `outcome` must say `not_applied`. Raises WriteError."""
        entry = self._idle(entry_id)
        if entry.state not in (State.PARKED, State.IN_DOUBT):
            raise _wrong_state(entry, "only a parked entry, or one in doubt, can be sent again")
        if _is_doubtful(entry) and outcome != "not_applied":
            raise _wrong_state(
                entry,
                "an attempt of it may have been applied: find out, and say so by "
                '"outcome": "not_applied"',
            )
        step = Step("retried", by, reason, self._now(), outcome)
        again = transitions.retried(entry, step)
        self._log_step(entry, step)
        await self.record(again)
        self._schedule(again)
        self.on_work()
        return again

    async def discard(self, entry_id: str, *, by: str, reason: str) -> Entry:
        """Give an entry up that was not applied. Raises WriteError."""
        entry = self._idle(entry_id)
        if _is_doubtful(entry):
            raise _wrong_state(entry, "it may have been applied: find out, and settle it")
        if entry.state not in (State.PARKED, State.QUEUED):
            raise _wrong_state(entry, "only a parked or queued entry can be discarded")
        step = Step("discarded", by, reason, self._now())
        self._log_step(entry, step)
        discarded = transitions.discarded(entry, step)
        await self.settle(discarded, None)
        return discarded

    async def settle_by_person(
        self,
        entry_id: str,
        *,
        is_applied: bool,
        by: str,
        reason: str,
        stock: tuple[int, int] | None,
    ) -> Entry:
        """Settle an entry in doubt as a person says; `stock` is the product's quantity and version
        now. Raises WriteError."""
        entry = self.check_doubtful(entry_id)
        outcome = "applied" if is_applied else "not_applied"
        step = Step(SETTLED, by, reason, self._now(), outcome)
        self._log_step(entry, step)
        settled = transitions.settled(entry, step, Result(*(stock or (None, None))))
        await self.settle(settled, None)
        return settled

    def check_doubtful(self, entry_id: str) -> Entry:
        """Return an entry that a person may settle. Raises WriteError."""
        entry = self._idle(entry_id)
        if not _is_doubtful(entry):
            raise WriteError(
                "write_not_in_doubt",
                "This entry is not in doubt, so there is nothing to settle: retry or discard it if "
                "it is parked",
                details={"outboxId": entry.id, "state": entry.state.value},
            )
        return entry

    def _idle(self, entry_id: str) -> Entry:
        """Return an entry that is not under way. Raises WriteError."""
        entry = self.existing(entry_id)
        if entry.key in self.busy or entry.key in self._writing:
            raise WriteError(
                "write_under_way",
                "The entry is on its way to Central: wait for its outcome",
                details={"outboxId": entry_id},
            )
        return entry

    def _log_step(self, entry: Entry, step: Step) -> None:
        log.warning(
            "entry %s of the outbox (%s of product %s by %d, %s) is %s%s by %s: %s",
            *(entry.id, entry.key, entry.product_id, entry.delta, entry.state.value),
            *(step.action, f" as {step.outcome}" if step.outcome else "", step.by, step.reason),
        )

    # -- forgetting ------------------------------------------------------------------------

    def expire(self) -> None:
        """Forget entries that were settled longer ago than the retention."""
        oldest = self._now() - self._settings.retention_seconds
        while self._settled and next(iter(self._settled.values())) < oldest:
            key = next(iter(self._settled))
            entry = self.get(key)
            del self._settled[key]
            self._keys.drop_outbox(key)
            if entry is not None:
                self._key_of.pop(entry.id, None)
                self._forget_step(entry)

    # -- memory ----------------------------------------------------------------------------

    @contextmanager
    def _put_until_durable(self, *entries: Entry) -> Iterator[list[bytes]]:
        """Put entries in, and yield their records; repeats of their writes wait until the block,
        which logs them, ends."""
        records = [self._put(entry) for entry in entries]
        writing = asyncio.get_running_loop().create_future()
        self._writing |= dict.fromkeys([entry.key for entry in entries], writing)
        try:
            yield records
        finally:
            for entry in entries:
                if self._writing.get(entry.key) is writing:
                    del self._writing[entry.key]
            writing.set_result(None)

    def _put(self, entry: Entry) -> bytes:
        """Make this the state of the entry in memory and, unless it is settled, in the next
        snapshot; return its record."""
        record = encode_entry(entry)
        before = self._leave_state(entry.key)
        self._key_of[entry.id] = entry.key
        if entry.is_unsettled:
            self._keys.put_outbox(entry.key, record)
            self._unsettled[entry.key] = entry
            self.counts[entry.state] += 1
            if entry.holds_up:
                self._held_up[entry.product_id] += 1
            attempt, last = entry.attempt, None if before is None else before.attempt
            if attempt is not None and attempt != last:
                self.in_doubt.add(attempt)
            elif attempt is None and last is not None:
                self.in_doubt.drop(last)
        else:
            self._unsettled.pop(entry.key, None)
            self._settling[entry.key] = entry
            self._settle_in_memory(entry)
            if entry.attempt is not None:
                self.in_doubt.drop(entry.attempt)
        self.order.remove(entry.key, entry.product_id, entry.sequence)
        if entry.state not in TO_BE_SENT:
            self.failures.pop(entry.key, None)
        return record

    def _leave_state(self, key: str) -> Entry | None:
        """Count an entry out of the state that it is in. Return it, or None if there is none."""
        before = self._unsettled.get(key)
        if before is None:
            return None
        self.counts[before.state] -= 1
        if before.holds_up:
            self._held_up[before.product_id] -= 1
            if not self._held_up[before.product_id]:
                del self._held_up[before.product_id]
        return before

    def _settle_in_memory(self, entry: Entry) -> None:
        self._settled[entry.key] = entry.changed_at
        self._key_of[entry.id] = entry.key
        if (raised := entry.version_raised) is not None:
            self._steps.setdefault(entry.product_id, set()).add(raised)

    def _forget_step(self, entry: Entry) -> None:
        if (raised := entry.version_raised) is not None:
            steps = self._steps.get(entry.product_id, set())
            steps.discard(raised)
            if not steps:
                self._steps.pop(entry.product_id, None)

    def _forget(self, entry: Entry) -> None:
        """Take an entry out that could not be kept."""
        self._leave_state(entry.key)
        self._unsettled.pop(entry.key, None)
        self._key_of.pop(entry.id, None)
        self._keys.drop_outbox(entry.key)

    def _count(self, entry: Entry) -> None:
        if entry.key not in self._counted and entry.key in self._unsettled:
            self._counted[entry.key] = entry.product_id, entry.delta
            self.pending.add(entry.product_id, entry.delta)

    def _uncount(self, entry: Entry) -> None:
        if (counted := self._counted.pop(entry.key, None)) is not None:
            self.pending.remove(*counted)

    def _schedule(self, entry: Entry) -> None:
        """Have the sender take an entry up, unless it has another state by now."""
        if not self.is_current(entry):
            return
        if entry.state is State.QUEUED:
            self.order.put_queued(entry.key, entry.product_id, entry.sequence)
        elif entry.state is State.IN_DOUBT:
            self.order.put_in_doubt(entry.key, entry.product_id, entry.sequence, due=0.0)

    def _new_id(self, now: float) -> str:
        entry_id = new_id(now, self._random)
        while entry_id in self._key_of:
            now += 0.001
            entry_id = new_id(now, self._random)
        self._key_of[entry_id] = ""  # until the entry is put in
        return entry_id

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence


def _disk_fails() -> WriteError:
    return WriteError(
        "storage_unavailable",
        "The store's disk fails, and a write is queued only on disk. Nothing was sent or queued: "
        "repeat the write with the same key",
        retry_after_seconds=FULL_RETRY_SECONDS,
    )


def _is_doubtful(entry: Entry) -> bool:
    """Whether an attempt of the entry may have been applied."""
    is_parked_doubt = entry.state is State.PARKED and entry.error_type in DOUBTFUL
    return entry.state is State.IN_DOUBT or is_parked_doubt


def _wrong_state(entry: Entry, why: str) -> WriteError:
    return WriteError(
        "outbox_entry_in_other_state",
        f"The entry is {entry.state.value}: {why}",
        details={"outboxId": entry.id, "state": entry.state.value},
    )


def _ignore(*_: object) -> None:
    """The callback if none is set."""
