"""Safeguards of the outbox, removed one by one (rules O)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import inf

from store_cache.model.event import AnyEvent
from store_cache.writer import CacheWriter
from store_cache.writes.outbox import outbox as entries
from store_cache.writes.outbox import sender as sending
from store_cache.writes.outbox import transitions
from store_cache.writes.outbox.entry import Entry, State, Step
from store_cache.writes.outbox.order import SendingOrder
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.outbox.sender import OutboxSender
from store_cache.writes.write import Answer, WriteError, WriteOutcome
from tests.removals.removal import Patch, Removals

of_outbox = Removals()

RULES = "tests/unit/writes/outbox/test_rules.py::"
WRITING = "tests/unit/writes/outbox/test_outbox.py::"
SCENARIOS = "tests/scenarios/test_outbox.py::"
APPLIED_ONCE = "each write is still applied once, which is what it counts"


@of_outbox(
    "O6",
    "a queued write is on disk before its 202",
    test=f"{SCENARIOS}test_a_restart_finds_every_entry_on_disk",
    needs="outage kill",
)
def queued_writes_on_disk(patch: Patch) -> None:
    """Queued writes are in memory alone."""

    async def kept(_: CacheWriter, _entry: bytes) -> None:
        patch.act()

    patch.replace(CacheWriter, "keep_write", kept)


@of_outbox(
    "O6",
    "what is not on disk was not queued",
    test=f"{SCENARIOS}test_a_failing_disk_queues_nothing",
    why="what a failing disk loses is a known limit there",
)
def queued_only_on_disk(patch: Patch) -> None:
    """A write is queued in memory if the disk fails."""

    async def kept(self: CacheWriter, entry: bytes) -> None:
        patch.act()
        await self.record_write(entry)

    def no_check(_: Outbox, _count: int) -> None:
        patch.act()

    patch.replace(CacheWriter, "keep_write", kept)
    patch.replace(Outbox, "check_room", no_check)


@of_outbox(
    "O4 O6",
    "what was on its way when the store ended is in doubt",
    test=f"{SCENARIOS}test_what_may_have_been_applied_before_a_crash_is_never_sent_as_new",
    needs="outage kill forget_keys",
)
def sending_is_in_doubt(patch: Patch) -> None:
    """It counts as not sent, and is sent as new."""

    def as_new(entry: Entry, _reason: str, _now: float) -> Entry:
        if entry.state is State.SENDING:
            patch.act()
            return replace(entry, state=State.QUEUED, attempt=None)
        return entry

    patch.replace(transitions, "recovered", as_new)


@of_outbox(
    "O2",
    "a rebased write takes a derived key",
    test="tests/unit/writes/outbox/test_rules.py::"
    "test_a_rebase_takes_the_next_key_and_central_s_version",
    needs="outage",
)
def derived_keys(patch: Patch) -> None:
    """It is sent again under the key that Central has refused."""
    next_attempt = transitions._next_attempt

    def same_key(entry: Entry, version: int | None, problem: str, now: float) -> Entry:
        patch.act()
        return replace(next_attempt(entry, version, problem, now), number=entry.number)

    patch.replace(transitions, "_next_attempt", same_key)


@of_outbox(
    "O2",
    "a stale version is parked",
    test=f"{SCENARIOS}test_a_write_with_a_stale_version_is_parked_unless_it_says_otherwise",
    why=APPLIED_ONCE,
)
def stale_versions_parked(patch: Patch) -> None:
    """Every write is rebased."""

    def always(_: Entry) -> bool:
        patch.act()
        return True

    patch.replace(Entry, "may_rebase", property(always))


@of_outbox(
    "O4",
    "an event that names an entry settles it",
    test=f"{SCENARIOS}test_an_event_that_names_the_write_settles_it",
    needs="outage",
)
def named_by_events(patch: Patch) -> None:
    """Only answers settle entries."""

    def nothing(_: Outbox, _events: Sequence[object]) -> AbstractContextManager[None]:
        patch.act()
        return nullcontext()

    patch.replace(Outbox, "settled_by", nothing)


@of_outbox(
    "O4",
    "a doubt is not sent as new unless a person says that it was not applied",
    test=f"{SCENARIOS}test_a_doubt_is_retried_only_if_a_person_says_that_it_was_not_applied",
    needs="outage",
)
def persons_say_of_doubts(patch: Patch) -> None:
    """Any entry is retried or discarded."""

    def never(_: Entry) -> bool:
        patch.act()
        return False

    patch.replace(entries, "_is_doubtful", never)


@of_outbox(
    "O4 O5",
    "a doubt is parked once Central may have forgotten the key, or was replaced",
    test=f"{SCENARIOS}test_a_replaced_central_parks_what_is_in_doubt",
    why=APPLIED_ONCE,
)
def doubts_given_up(patch: Patch) -> None:
    """It is sent again for ever."""

    def never(_: OutboxSender, entry: Entry) -> Entry:
        patch.act()
        return entry

    patch.replace(OutboxSender, "_given_up", never)


@of_outbox(
    "O1",
    "entries of one product go one after the other",
    test="tests/unit/writes/outbox/test_rules.py::"
    "test_a_product_s_entries_go_one_after_the_other_and_products_in_parallel",
    why=APPLIED_ONCE,
)
def entries_in_order(patch: Patch) -> None:
    """A product is not busy while one of its entries is being sent."""
    take = SendingOrder.take

    def at_once(self: SendingOrder, now: float) -> str | None:
        key = take(self, now)
        if key is not None and key in self._taken:
            patch.act()
            self.free(key)
        return key

    patch.replace(SendingOrder, "take", at_once)


@of_outbox(
    "O10",
    "a settled entry's delta goes with the row that it changed",
    test=f"{SCENARIOS}test_reads_show_what_is_pending_until_it_is_settled",
    needs="outage",
)
def deltas_end(patch: Patch) -> None:
    """The delta of a settled entry is shown for ever."""

    def kept(_: Outbox, _entry: Entry) -> None:
        patch.act()

    patch.replace(Outbox, "_uncount", kept)


@of_outbox(
    "O10 D2",
    "a snapshot has a settled entry only once its record is durable",
    test=(
        f"{WRITING}"
        "test_an_entry_that_a_compaction_meets_while_it_is_settled_is_in_doubt_after_a_crash"
    ),
    why="a snapshot and a crash must meet within the moment in which an entry is settled",
)
def snapshots_keep_rows_and_entries(patch: Patch) -> None:
    """A snapshot that is written meanwhile has the entry settled, and the row of before."""
    put = Outbox._put

    def at_once(self: Outbox, entry: Entry) -> bytes:
        record = put(self, entry)
        if not entry.is_unsettled:
            patch.act()
            self._keys.put_outbox(entry.key, record)
        return record

    patch.replace(Outbox, "_put", at_once)


@of_outbox(
    "O10 D2 W6",
    "an entry is shown once its state is durable",
    test=(
        "tests/unit/api/test_outbox.py::"
        "test_an_entry_that_is_being_settled_is_shown_once_it_is_durable"
    ),
    why="nobody in the simulation asks for a single entry",
)
def entries_shown_once_durable(patch: Patch) -> None:
    """Whoever asks for an entry is told what is on its way to the disk. Repeats still wait."""
    until_durable, answer = Outbox.until_durable, Outbox.answer

    async def at_once(self: Outbox, key: str) -> None:
        if key in self._writing:
            patch.act()

    async def waiting(self: Outbox, key: str) -> Answer | WriteError:
        await until_durable(self, key)
        return await answer(self, key)

    patch.replace(Outbox, "until_durable", at_once)
    patch.replace(Outbox, "answer", waiting)


@of_outbox(
    "O10",
    "an event takes the delta away though the answer has come",
    test=f"{WRITING}test_the_delta_goes_with_an_event_that_comes_while_the_product_is_fetched",
    why="a till that reads in that moment sees a delta of which no till knows the end yet",
)
def events_end_deltas(patch: Patch) -> None:
    """The delta is shown beside the sale until the product was fetched."""
    named = Outbox._named_entries

    def unsettled_alone(self: Outbox, events: Sequence[AnyEvent]) -> Iterator[Entry]:
        settling, self._settling = self._settling, {}
        if settling:
            patch.act()
        try:
            yield from named(self, events)
        finally:
            self._settling = settling

    patch.replace(Outbox, "_named_entries", unsettled_alone)


@of_outbox(
    "O10",
    "an entry that is settled while it is written does not come back",
    test=f"{WRITING}test_an_entry_discarded_while_it_is_being_written_does_not_come_back",
    why="a simulated person decides only about what has stood for a while",
)
def settled_stays_settled(patch: Patch) -> None:
    """What was written late is scheduled and told after the entry's outcome."""

    def always(_: Outbox, _entry: Entry) -> bool:
        patch.act()
        return True

    patch.replace(Outbox, "is_current", always)


@of_outbox(
    "O4 O10",
    "an entry whose try a defect has ended is repeated",
    test=f"{SCENARIOS}test_an_entry_whose_try_a_defect_has_ended_is_in_doubt_and_repeated",
    why="no defect is known that would do it there",
)
def defects_end_no_entry(patch: Patch) -> None:
    """It is shown as being sent for ever."""

    def never(_: OutboxSender, _key: str) -> None:
        patch.act()

    patch.replace(OutboxSender, "_take_up", never)


@of_outbox(
    "O3",
    "a refusal of several entries as a whole is none of theirs",
    test=f"{SCENARIOS}test_a_central_that_takes_no_batches_gets_each_write_alone",
    why="the simulated Central judges each line by itself",
)
def wholes_judge_no_lines(patch: Patch) -> None:
    """Each of them is parked."""

    def never(_: Sequence[WriteOutcome]) -> bool:
        patch.act()
        return False

    patch.replace(sending, "_is_refused_as_a_whole", never)


@of_outbox(
    "O2",
    "the version that Central says in a refusal is sent as it is",
    test=f"{SCENARIOS}test_a_restored_central_is_sent_its_own_version",
    why=APPLIED_ONCE,
)
def centrals_own_version(patch: Patch) -> None:
    """What the shop made of that version before Central was restored is sent in its place."""
    known_version = OutboxSender._known_version

    def continued(self: OutboxSender, entry: Entry) -> int | None:
        version, position = known_version(self, entry), self._store.position
        if version is None or position is None or entry.next_version is None:
            return version
        patch.act()
        outbox = self._outbox
        return outbox.continued_version(entry.product_id, version, position.generation)

    patch.replace(OutboxSender, "_known_version", continued)


@of_outbox(
    "O2",
    "versions of another generation are not continued",
    test=f"{SCENARIOS}test_a_version_of_another_generation_is_not_continued",
    why=APPLIED_ONCE,
)
def generations_of_steps(patch: Patch) -> None:
    """What the shop has made of a version counts in every generation."""

    def of_any(self: Outbox, product_id: str, version: int, _generation: str | None) -> int:
        raised = {step for _, step in self._steps.get(product_id, ())}
        while version in raised:
            patch.act()
            version += 1
        return version

    patch.replace(Outbox, "continued_version", of_any)


@of_outbox(
    "O8",
    "repeats of what is in doubt come after what is queued",
    test=f"{RULES}test_what_is_in_doubt_and_repeated_comes_after_what_is_queued",
    why="a limit that leaves no room beside the repeats needs more doubts than a schedule has",
)
def doubts_leave_room(patch: Patch) -> None:
    """What is in doubt is always repeated first."""
    first_due = SendingOrder._first_due

    def doubts_first(self: SendingOrder) -> tuple[float, float]:
        doubt_due, head_due = first_due(self)
        patch.act()
        return (doubt_due, inf) if doubt_due < inf else (doubt_due, head_due)

    patch.replace(SendingOrder, "_first_due", doubts_first)


@of_outbox(
    "O5 O10",
    "a retry skips no key that was never sent",
    test=f"{RULES}test_a_key_that_was_never_sent_is_not_skipped",
    why="it takes a till that repeats at the other node, just then, what a person has retried",
)
def unsent_keys_kept(patch: Patch) -> None:
    """A retried entry always takes the next key. Another node sells it under the one before."""
    retried = transitions.retried

    def always_next(entry: Entry, step: Step) -> Entry:
        patch.act()
        return replace(retried(entry, step), number=entry.number + 1)

    patch.replace(transitions, "retried", always_next)


@of_outbox(
    "O5",
    "the time of an entry that a person retries begins anew",
    test=f"{SCENARIOS}test_an_old_entry_that_a_person_retries_is_sent_under_the_key_that_was_not_sent",
    why=APPLIED_ONCE,
)
def age_of_retried(patch: Patch) -> None:
    """It is parked again at once, as too old."""

    def always(entry: Entry) -> float:
        patch.act()
        return entry.queued_at

    patch.replace(Entry, "waits_since", property(always))
