"""Safeguards of writes, removed one by one (rules W, threats T)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from store_cache.central import client
from store_cache.central import parsing as wire
from store_cache.central.client import CentralClient, WriteReply
from store_cache.central.failures import Unsent, WriteUnsent
from store_cache.central.retries import Tries
from store_cache.model.event import AnyEvent, Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import read_product
from store_cache.model.stock import StockAnswer
from store_cache.storage.files import CacheFiles
from store_cache.storage.journal import JournalRecord
from store_cache.writer import CacheWriter
from store_cache.writes import circuit_breaker as breaker
from store_cache.writes import idempotency as keys
from store_cache.writes import in_doubt_search
from store_cache.writes import write as writing
from store_cache.writes.admission import Admission
from store_cache.writes.forwarder import Delivery, Forwarder
from store_cache.writes.idempotency import Attempt, Final, KeyTable
from store_cache.writes.in_doubt import InDoubtWrite, InDoubtWrites
from store_cache.writes.in_doubt_search import EventSource, search_feed
from store_cache.writes.product_queue import ProductQueue
from store_cache.writes.write import (
    Answer,
    Applied,
    FinalOutcome,
    Refused,
    Sent,
    SettledByPerson,
    Unknown,
    Write,
    WriteError,
    WriteOutcome,
    WriteRequest,
    answer_to,
)
from tests.removals.removal import Patch, Removals

of_writes = Removals()


# -- on disk -----------------------------------------------------------------------------------


@of_writes(
    "W1",
    "an attempt is on disk before it is sent",
    needs="forget_keys kill",
    test="tests/unit/writes/test_forwarder.py::test_an_attempt_is_on_disk_before_it_is_sent",
)
def attempts_on_disk(patch: Patch) -> None:
    """Attempts are in memory alone."""
    send = Forwarder._send

    async def unrecorded(
        self: Forwarder, deliveries: Sequence[Delivery], deadline_at: float
    ) -> list[WriteOutcome]:
        for delivery in deliveries:
            patch.act()
            delivery.is_recorded = True
        return await send(self, deliveries, deadline_at)

    patch.replace(Forwarder, "_send", unrecorded)


@of_writes(
    "W1",
    "a final answer is on disk before it is given",
    needs="forget_keys kill",
    test="tests/unit/test_writer.py::test_an_answer_and_its_key_are_one_record",
)
def answers_on_disk(patch: Patch) -> None:
    """Final answers are in memory alone."""
    append = CacheFiles.append

    async def without_finals(self: CacheFiles, *records: JournalRecord) -> None:
        kept: list[JournalRecord] = []
        for change, key_entry in records:
            entry = key_entry
            if entry is not None and (b'"applied":' in entry or b'"refused":' in entry):
                patch.act()
                entry = None
            if change is not None or entry is not None:
                kept.append(JournalRecord(change, entry))
        if kept:
            await append(self, *kept)

    patch.replace(CacheFiles, "append", without_finals)


@of_writes("W1 D2", "an answer is given only once it is on disk")
def answers_kept_first(patch: Patch) -> None:
    """A till is answered while the record is on its way to the disk."""
    settle_write = CacheWriter.settle_write
    under_way: set[asyncio.Task[None]] = set()

    async def later(
        self: CacheWriter, key_entry: bytes, answer: StockAnswer | None, **shown: Any
    ) -> None:
        patch.act()
        task = asyncio.ensure_future(settle_write(self, key_entry, answer, **shown))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    patch.replace(CacheWriter, "settle_write", later)


@of_writes("W6", "an applied answer is shown at once")
def answers_shown(patch: Patch) -> None:
    """Readers wait for the event."""
    settle_write = CacheWriter.settle_write

    async def kept_alone(
        self: CacheWriter, key_entry: bytes, _: StockAnswer | None, **shown: Any
    ) -> None:
        patch.act()
        await settle_write(self, key_entry, None, **shown)

    patch.replace(CacheWriter, "settle_write", kept_alone)


@of_writes(
    "W8",
    "this store's writes to a product go one after the other",
    test="tests/unit/writes/test_forwarder.py::test_adjustments_of_one_product_never_meet_each_other",
    why="a conflict is a right answer",
)
def one_after_the_other(patch: Patch) -> None:
    """Writes to a product go whenever they come."""

    @asynccontextmanager
    async def at_once(*_: object) -> AsyncIterator[None]:
        patch.act()
        yield

    patch.replace(ProductQueue, "turn", at_once)


@of_writes(
    "W6",
    "a stock older than the version sent is not told",
    test=(
        "tests/unit/writes/test_forwarder.py::"
        "test_a_stock_that_cannot_be_read_is_the_one_held_unless_that_is_older"
    ),
    why="each Central of the simulation says the stock with its refusal",
)
def stock_not_older(patch: Patch) -> None:
    """A refusal is filled in with whatever stock the cache has."""
    with_stock = Forwarder._with_stock

    async def any_stock(
        self: Forwarder, attempt: Attempt, refused: Refused, deadline_at: float
    ) -> Refused:
        patch.act()
        return await with_stock(self, replace(attempt, version=0), refused, deadline_at)

    patch.replace(Forwarder, "_with_stock", any_stock)


@of_writes(
    "W9",
    "what a person has settled is kept",
    test=(
        "tests/unit/writes/test_settling.py::"
        "test_what_is_settled_as_not_applied_is_never_sent_again"
    ),
    why="nobody settles writes in it",
)
def settlements_kept(patch: Patch) -> None:
    """A person gets an answer, and the write stays in doubt."""
    settle = Forwarder._settle

    async def answered(self: Forwarder, attempt: Attempt, outcome: FinalOutcome) -> None:
        if isinstance(outcome, SettledByPerson):
            patch.act()
            self._end(attempt.key, answer_to(outcome, attempt.product_id))
        else:
            await settle(self, attempt, outcome)

    patch.replace(Forwarder, "_settle", answered)


# -- repeats -----------------------------------------------------------------------------------


@of_writes(
    "W6",
    "an answer that is given again is not applied again",
    test=(
        "tests/unit/writes/test_forwarder.py::"
        "test_a_repeated_answer_is_not_applied_to_another_incarnation"
    ),
)
def answers_applied_once(patch: Patch) -> None:
    """A repeat applies the old figures to whatever is held under a lower version."""
    repeat = Forwarder._repeat

    async def applied_again(self: Forwarder, request: WriteRequest, final: Final) -> Answer:
        held = self._store.held_version(request.product_id)
        outcome = final.outcome
        if isinstance(outcome, Applied) and held is not None and held <= final.version:
            patch.act()
            record = keys.encode_final(request.key, final)
            await self._store.settle_write(record, outcome.stock, shown=lambda: None)
        return await repeat(self, request, final)

    patch.replace(Forwarder, "_repeat", applied_again)


@of_writes("W1", "a repeat sends the same key")
def same_key_on_a_repeat(patch: Patch) -> None:
    """A repeat of what is unknown goes to Central under a key of its own."""
    delivery = Forwarder._delivery

    async def under_another(
        self: Forwarder, request: WriteRequest, known: Attempt | None, deadline_at: float
    ) -> Delivery:
        found = await delivery(self, request, known, deadline_at)
        if known is not None:
            patch.act()
            found.attempt = replace(known, number=known.number + 1)
            self._keys.put(found.attempt)
            self._in_doubt.add(found.attempt)
        return found

    patch.replace(Forwarder, "_delivery", under_another)


@of_writes(
    "W1",
    "a repeat sends the same version",
    needs="forget_keys",
    test=(
        "tests/unit/writes/test_forwarder.py::test_a_later_attempt_without_an_answer_is_the_one_repeated"
    ),
)
def same_version_on_a_repeat(patch: Patch) -> None:
    """A repeat of an adjustment is sent with the version held by then."""
    delivery = Forwarder._delivery

    async def with_another(
        self: Forwarder, request: WriteRequest, known: Attempt | None, deadline_at: float
    ) -> Delivery:
        found = await delivery(self, request, known, deadline_at)
        held = self._store.held_version(request.product_id)
        if known is None or held is None or isinstance(request, Write) or held == known.version:
            return found
        patch.act()
        found.attempt = replace(known, version=held)
        return found

    patch.replace(Forwarder, "_delivery", with_another)


@of_writes(
    "W1",
    "attempts of an earlier process are unknown",
    needs="forget_keys kill",
    test=(
        "tests/unit/writes/test_idempotency.py::test_an_attempt_without_a_final_answer_is_unknown_after_a_restart"
    ),
)
def attempts_of_the_dead(patch: Patch) -> None:
    """An attempt found on disk is taken for one that was never sent."""
    decode = keys._decode_attempt

    def never_sent(record: dict[str, Any]) -> Attempt:
        patch.act()
        return replace(decode(record), is_unknown=False)

    patch.replace(keys, "_decode_attempt", never_sent)


@of_writes(
    "W3",
    "a refusal after an unknown attempt proves nothing",
    needs="forget_keys drop_answer",
    test="tests/unit/writes/test_forwarder.py::test_a_refusal_after_an_unknown_attempt_proves_nothing",
)
def refusals_of_repeats(patch: Patch) -> None:
    """A refusal is final, whatever an earlier sending did."""
    proven = writing._proven

    def believed(outcome: WriteOutcome, sent: Sent) -> WriteOutcome:
        if proven(outcome, sent) != outcome:
            patch.act()
        return outcome

    patch.replace(writing, "_proven", believed)


@of_writes(
    "W3",
    "a try that may have reached Central makes the next answer uncertain",
    needs="forget_keys reset_after",
    test="tests/unit/central/test_client.py::test_denied_after_a_lost_attempt_is_unknown",
)
def tries_that_reached(patch: Patch) -> None:
    """Only the last try counts."""
    write_reply = CentralClient._write_reply

    def certain(self: CentralClient, request: Any, reply: Any, *, certain: bool) -> WriteReply:
        if not certain:
            patch.act()
        return write_reply(self, request, reply, certain=True)

    patch.replace(CentralClient, "_write_reply", certain)


@of_writes("W3", "what may have reached Central is never called unsent", needs="reset_after")
def unsent_for_certain(patch: Patch) -> None:
    """A write that failed was not sent."""
    verdict = Tries.verdict

    def unsent(self: Tries, last: Any) -> WriteUnsent:
        found = verdict(self, last)
        if isinstance(found, WriteUnsent):
            return found
        patch.act()
        return WriteUnsent(str(found), cause=Unsent.REFUSED)

    patch.replace(Tries, "verdict", unsent)


@of_writes(
    "W3",
    "an applied answer names the version sent plus one",
    test="tests/unit/writes/test_write.py::test_an_applied_answer_that_does_not_fit_proves_nothing",
    why="no two writes of the simulation share a key at Central",
)
def version_of_an_answer(patch: Patch) -> None:
    """An applied answer is believed, whatever version it names."""
    read_applied = writing._read_applied

    def any_version(status: int, value: dict[str, Any], sent: Sent) -> Applied | Unknown:
        version = value.get("newVersion")
        if status != 200 or not isinstance(version, int) or version == sent.version + 1:
            return read_applied(status, value, sent)
        patch.act()
        return read_applied(status, value, replace(sent, version=version - 1))

    patch.replace(writing, "_read_applied", any_version)


@of_writes(
    "W3",
    "a refusal is proof only where another write has made the version of the attempt",
    needs="forget_keys",
    test="tests/unit/writes/test_in_doubt.py::test_a_refusal_alone_proves_nothing",
)
def another_write_made_the_version(patch: Patch) -> None:
    """Any refusal of a repeat proves that the first sending was not applied."""
    excludes = InDoubtWrite._excludes

    def always(self: InDoubtWrite, version: int | None) -> bool:
        if not excludes(self, version):
            patch.act()
        return True

    patch.replace(InDoubtWrite, "_excludes", always)


@of_writes(
    "W3",
    "a creation or deletion ends what versions can prove",
    needs="forget_keys",
    test=(
        "tests/unit/writes/test_in_doubt.py::"
        "test_an_event_that_could_hide_the_attempt_ends_what_a_refusal_can_prove"
    ),
)
def lives_end_proof(patch: Patch) -> None:
    """Versions of two lives prove something of each other."""
    observe = InDoubtWrite.observe

    def observed(self: InDoubtWrite, event: Event) -> None:
        is_other = event.product_id != self.attempt.product_id or event.write == self._name
        if is_other or event.kind is Kind.UPDATED:
            observe(self, event)
        else:
            patch.act()

    patch.replace(InDoubtWrite, "observe", observed)


@of_writes(
    "W3",
    "a refusal counts only once the feed was read to its end",
    needs="forget_keys",
    test=(
        "tests/unit/writes/test_forwarder.py::"
        "test_a_refusal_by_an_incarnation_that_the_store_does_not_know_proves_nothing"
    ),
)
def end_of_feed_for_proof(patch: Patch) -> None:
    """What the store has followed so far decides whether a refusal is proof."""

    async def already(
        in_doubt: InDoubtWrite,
        refusal: Refused,
        source: EventSource,
        position: Position | None,
        *,
        deadline_at: float,
    ) -> None:
        in_doubt.observe_refusal(refusal)
        if in_doubt.verdict is None:
            await search_feed(in_doubt, refusal, source, position, deadline_at=deadline_at)
        else:
            patch.act()

    patch.replace(in_doubt_search, "search_feed", already)


@of_writes(
    "W3",
    "events that are followed count as read for a write in doubt only if they can be read",
    test="tests/unit/writes/test_in_doubt.py::test_what_the_store_follows_is_not_read_again",
    why="every event of the simulation can be read",
)
def unreadable_events_not_read(patch: Patch) -> None:
    """All that the store follows counts as read."""
    read_on = InDoubtWrites._read_on

    def of_no_product(event: AnyEvent) -> AnyEvent:
        if isinstance(event, Event):
            return event
        patch.act()
        return replace(event, product_id="")

    def over(self: InDoubtWrites, events: Sequence[AnyEvent]) -> None:
        read_on(self, [of_no_product(event) for event in events])

    patch.replace(InDoubtWrites, "_read_on", over)


@of_writes(
    "W3",
    "an event that comes while the stock is read settles the write",
    needs="drop_answer",
    test="tests/unit/writes/test_forwarder.py::test_an_event_may_come_while_the_stock_is_read",
    why="an event in the second in which the stock is read is too rare to be searched for",
)
def verdict_before_unknown(patch: Patch) -> None:
    """The write is left unknown, whatever the feed has proved meanwhile."""
    leave_unknown, verdict = Forwarder._leave_unknown, InDoubtWrites.verdict
    is_leaving = ContextVar("is_leaving", default=False)

    async def unasked(self: Forwarder, delivery: Delivery, *told: Any, **named: Any) -> None:
        is_leaving.set(True)
        await leave_unknown(self, delivery, *told, **named)

    def unsaid(self: InDoubtWrites, attempt: Attempt) -> Applied | Refused | None:
        found = verdict(self, attempt)
        if not is_leaving.get():
            return found
        is_leaving.set(False)
        if found is not None:
            patch.act()
        return None

    patch.replace(Forwarder, "_leave_unknown", unasked)
    patch.replace(InDoubtWrites, "verdict", unsaid)


@of_writes(
    "P1 W3",
    "offsets of another generation prove nothing of a write",
    needs="forget_keys generation",
    test="tests/unit/writes/test_forwarder.py::test_positions_of_another_feed_prove_nothing",
)
def generation_of_proof(patch: Patch) -> None:
    """The feed is read again from where the attempt began, whatever feed that was."""

    async def anywhere(
        in_doubt: InDoubtWrite,
        refusal: Refused,
        source: EventSource,
        position: Position | None,
        *,
        deadline_at: float,
    ) -> None:
        attempt = in_doubt.attempt
        if position is not None and position.generation != attempt.generation:
            patch.act()
            in_doubt.attempt = replace(attempt, generation=position.generation)
        await search_feed(in_doubt, refusal, source, position, deadline_at=deadline_at)

    patch.replace(in_doubt_search, "search_feed", anywhere)


# -- the table of keys -------------------------------------------------------------------------


@of_writes(
    "W1 T16",
    "a key used for another write is refused (422)",
    test="tests/unit/writes/test_idempotency.py::test_a_key_used_for_another_payload_is_refused",
    why="the simulation's tills give each write its own key",
)
def keys_used_once(patch: Patch) -> None:
    """A key's answer is given to whatever is sent under it."""

    def any_payload(self: KeyTable, request: WriteRequest) -> Attempt | Final | None:
        patch.act()
        return self._open.get(request.key) or self._final(request.key, request.product_id)

    patch.replace(KeyTable, "find", any_payload)


@of_writes(
    "W1",
    "a full table refuses new keys rather than forget an old one",
    test="tests/unit/writes/test_forwarder.py::test_a_full_table_refuses_new_keys_and_answers_old_ones",
    why="500,000 writes do not fit into a minute",
)
def bound_of_the_key_table(patch: Patch) -> None:
    """The table grows without a bound."""

    def reserve(*_: object, **__: object) -> None:
        patch.act()

    patch.replace(KeyTable, "reserve", reserve)


@of_writes(
    "W1 T16",
    "no client takes all of the room in the table of keys",
    test="tests/unit/writes/test_idempotency.py::test_no_client_takes_all_of_the_room",
    why="500,000 writes do not fit into a minute",
)
def share_of_the_key_table(patch: Patch) -> None:
    """Whoever comes first may fill the table."""

    def reserve(self: KeyTable, count: int, *, waiting: int, **_: object) -> None:
        patch.act()
        if len(self) + waiting + count > self._capacity:
            raise WriteError("storage_unavailable", "no room")

    patch.replace(KeyTable, "reserve", reserve)


@of_writes(
    "W1 T16",
    "a crowded table forgets refusals, and nothing else",
    test="tests/unit/writes/test_idempotency.py::test_a_crowded_table_forgets_the_oldest_refusals_first",
    why="500,000 writes do not fit into a minute",
)
def room_by_refusals(patch: Patch) -> None:
    """The oldest answers are forgotten, whatever they said."""
    reserve = KeyTable.reserve

    def forget(self: KeyTable, count: int, **named: Any) -> None:
        patch.act()
        self._applied.remove_oldest(count)
        reserve(self, count, **named)

    patch.replace(KeyTable, "reserve", forget)


@of_writes(
    "W1 D5",
    "entries in memory win over those of a directory that appears late",
    test="tests/unit/test_writer.py::test_a_directory_that_appears_later_changes_no_answer",
    why="the directory of the simulation is always there at a start",
)
def entries_in_memory(patch: Patch) -> None:
    """What is on disk takes the place of what is in memory."""
    add_stored = KeyTable.add_stored

    def disk_wins(self: KeyTable, stored: keys.StoredKeys, now: float) -> None:
        if self._open or self._applied.entries:
            patch.act()
        for key in stored.open:
            self._applied.entries.pop(key.encode(), None)
        add_stored(self, stored, now)

    patch.replace(KeyTable, "add_stored", disk_wins)


@of_writes(
    "W5",
    "a client that disconnects cancels nothing",
    test="tests/unit/writes/test_forwarder.py::test_a_client_that_disconnects_cancels_nothing",
    why="the server does not cancel handlers either (`handler_cancellation` is off)",
)
def disconnects_cancel_nothing(patch: Patch) -> None:
    """Whoever waits for a write takes it along when it goes."""
    forward = Forwarder._forward

    async def together(self: Forwarder, requests: Sequence[WriteRequest]) -> list[Answer]:
        try:
            return await forward(self, requests)
        except asyncio.CancelledError:
            patch.act()
            for task in self._tasks:
                task.cancel()
            raise

    patch.replace(Forwarder, "_forward", together)


# -- the breaker of writes ---------------------------------------------------------------------


@of_writes(
    "W4",
    "once Central is known to be away, writes fail at once",
    test="tests/unit/writes/test_forwarder.py::test_a_connection_refused_to_the_sync_opens_the_breaker",
    why="the simulation does not time its tills",
)
def breaker_opens(patch: Patch) -> None:
    """Every till waits for its own timeout."""

    def closed(*_: object, **__: object) -> float:
        patch.act()
        return 0.0

    patch.replace(breaker, "wait_seconds", closed)


@of_writes(
    "W4",
    "an open breaker lets a probe through",
    test="tests/unit/writes/test_forwarder.py::test_one_probe_at_a_time_finds_central_again",
    why="the sync, which asks Central all the time, permits a probe too (B4)",
)
def probes(patch: Patch) -> None:
    """An open breaker stays open until somebody else closes it."""
    wait = breaker.wait_seconds

    def for_ever(state: breaker.BreakerState, now: float) -> float:
        if isinstance(state, breaker.Open):
            patch.act()
            return state.pause_seconds
        return wait(state, now)

    patch.replace(breaker, "wait_seconds", for_ever)


@of_writes(
    "W4",
    "one probe goes at a time",
    test="tests/unit/writes/test_forwarder.py::test_one_probe_at_a_time_finds_central_again",
    why="more of them do no harm to what a till is told",
)
def one_probe_at_a_time(patch: Patch) -> None:
    """Everybody probes while a probe is on its way."""
    wait = breaker.wait_seconds

    def at_once(state: breaker.BreakerState, now: float) -> float:
        if isinstance(state, breaker.Probing):
            patch.act()
            return 0.0
        return wait(state, now)

    patch.replace(breaker, "wait_seconds", at_once)


@of_writes(
    "B4",
    "an answer to the sync closes no breaker of writes",
    test="tests/unit/writes/test_forwarder.py::test_an_answer_to_the_sync_permits_one_probe_and_no_more",
    why="the simulation does not time its tills",
)
def feed_closes_nothing(patch: Patch) -> None:
    """A feed that lives closes the breaker of writes."""

    def closed(state: breaker.BreakerState, now: float) -> breaker.BreakerState:
        patch.act()
        return breaker.answered(state, now)

    patch.replace(breaker, "sync_answered", closed)


@of_writes(
    "W4",
    "a write that waited is sent only if there is time for its answer",
    test="tests/unit/writes/test_forwarder.py::test_the_stores_own_queue_is_no_outage",
    why="an unknown outcome is a right answer",
)
def time_for_an_answer(patch: Patch) -> None:
    """A write whose turn comes at the very end of its time is sent."""

    def latest(_: Admission, deadline_at: float) -> float:
        patch.act()
        return deadline_at - 0.5

    patch.replace(Admission, "_latest_start", latest)


@of_writes(
    "W4, T17",
    "a limited number of writes waits for Central",
    test="tests/unit/writes/test_forwarder.py"
    "::test_a_limited_number_of_writes_waits_for_a_central_that_hangs",
    why="the simulation has a handful of tills",
)
def room_for_waiting_writes(patch: Patch) -> None:
    """Every write is taken, and waits."""
    check_room = Admission.check_room

    def take_all(self: Admission, waiting: int) -> None:
        try:
            check_room(self, waiting)
        except WriteError:
            patch.act()

    patch.replace(Admission, "check_room", take_all)


# -- the border --------------------------------------------------------------------------------


@of_writes(
    "E5",
    "a single reading is of the product that was asked for",
    test="tests/unit/central/test_parsing.py::test_anything_but_the_requested_product_is_refused",
    why="no Central of the simulation answers with another product",
)
def identity_of_single_readings(patch: Patch) -> None:
    """Whatever product comes is taken."""

    def any_product(value: Any, **_: object) -> Any:
        patch.act()
        return read_product(value)

    patch.replace(wire, "read_product", any_product)


@of_writes(
    "T5",
    "an id that would lead to another address is refused",
    test=("tests/unit/central/test_client.py::test_ids_that_lead_elsewhere_are_not_sent"),
    why="no product of the simulation is called `..`",
)
def ids_that_lead_elsewhere(patch: Patch) -> None:
    """Every id is asked for."""

    def quoted(product_id: str) -> str:
        patch.act()
        return product_id

    patch.replace(client, "_quoted", quoted)
