"""Safeguards of following the feed and of full syncs, removed one by one (rules P, E, F, B)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from store_cache.catalogue.change_set import ChangeSet
from store_cache.catalogue.paging import Paging
from store_cache.catalogue.replica import Installation, Replica, Verdict
from store_cache.central import client, connection, parsing, transport
from store_cache.central.client import CentralClient
from store_cache.central.connection import Connection
from store_cache.central.failures import CentralError
from store_cache.central.parsing import PageRows
from store_cache.central.quota import read_quota
from store_cache.central.rate_limit import RateLimit
from store_cache.model import product
from store_cache.model.change import PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.position import Position
from store_cache.model.stock import StockAnswer
from store_cache.sync import backoff, cursor, follow, full_sync, machine
from store_cache.sync.cursor import MISSING, Answer, AtEnd, Cursor, Lost, Ready, Wait
from store_cache.sync.states import (
    Checking,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FullSync,
    Next,
    Sleep,
    State,
)
from store_cache.writer import CacheWriter
from tests.removals.removal import Patch, Removals

of_feed = Removals()
Events = tuple[AnyEvent, ...]


# -- gaps --------------------------------------------------------------------------------------


@of_feed("P4 E3", "only what is contiguous is applied", needs="disorder")
def contiguity(patch: Patch) -> None:
    """The position moves over gaps, whatever is missing."""
    arrange = cursor.arrange

    def all_of_it(
        offset: int, early: Sequence[AnyEvent], arrived: Sequence[AnyEvent]
    ) -> tuple[Events, Events]:
        ready, rest = arrange(offset, early, arrived)
        if rest:
            patch.act()
        return (*ready, *rest), ()

    patch.replace(cursor, "arrange", all_of_it)


@of_feed("P4", "`nextOffset` never moves the position", needs="lost_events")
def next_offset_is_a_hint(patch: Patch) -> None:
    """A page that leads further than its events do is followed there."""
    read_page = cursor.read_page

    def believed(at: Cursor, answer: Answer, *, limit: int) -> Ready | Wait | AtEnd | Lost:
        read, position = read_page(at, answer, limit=limit), at.position
        end = answer.page.next_offset or 0
        is_missing = isinstance(read, Lost) and read.reason == MISSING
        if end <= position.offset or not (is_missing or (isinstance(read, Wait) and read.seconds)):
            return read
        patch.act()
        return Ready((), Cursor(Position(position.generation, end)), has_more=True)

    patch.replace(follow, "read_page", believed)


@of_feed(
    "E3",
    "a gap has a moment to be filled",
    test="tests/unit/sync/test_follow.py::test_a_gap_that_is_filled_within_the_grace_is_no_loss",
    why="without it the store is right all the same, after a full sync for every late event",
)
def grace_for_holes(patch: Patch) -> None:
    """What is missing is lost at once, and a full sync follows."""

    def impatient(_: Cursor, lost: Lost, __: Answer) -> Lost:
        patch.act()
        return lost

    patch.replace(cursor, "_wait_or_lose", impatient)


@of_feed(
    "E4 B5",
    "a page with nothing but the event before the position is not the end",
    test="tests/unit/sync/test_follow.py::test_the_event_before_the_position_alone_is_not_the_end",
    why="a page of the simulation has room for more than one event",
)
def event_before_alone(patch: Patch) -> None:
    """The feed has ended, though the page says that more follow."""
    read_page = cursor.read_page

    def at_end(at: Cursor, answer: Answer, *, limit: int) -> Ready | Wait | AtEnd | Lost:
        read = read_page(at, answer, limit=limit)
        if not isinstance(read, Wait) or read.seconds or read.cursor.must_verify:
            return read
        patch.act()
        return AtEnd(replace(read.cursor, gap=None))

    patch.replace((follow, full_sync), "read_page", at_end)


# -- another feed ------------------------------------------------------------------------------


def _same_event(patch: Patch) -> None:
    holds_another_event = cursor.holds_another_event

    def never(position: Position, page: EventPage) -> bool:
        if holds_another_event(position, page):
            patch.act()
        return False

    patch.replace(cursor, "holds_another_event", never)


def _same_generation(patch: Patch) -> None:
    changed = cursor.generation_changed

    def never(position: Position, named: str | None) -> bool:
        if changed(position, named):
            patch.act()
        return False

    patch.replace(cursor, "generation_changed", never)


@of_feed(
    "E4",
    "the event before the position is compared",
    needs="restore outage",
    test="tests/unit/sync/test_follow.py::test_another_event_before_the_position_is_another_feed",
)
def fingerprint_of_the_position(patch: Patch) -> None:
    """Whatever stands before the position, the feed is the same."""
    _same_event(patch)


@of_feed(
    "E4 B1",
    "the event before the position and those after it come in one request",
    needs="rate_limit",
    test="tests/unit/sync/test_backoff.py::test_after_a_long_limit_the_feed_is_verified",
)
def events_with_the_one_before(patch: Patch) -> None:
    """The event before the position is asked for alone, and the others in another request."""
    ask = follow.ask

    def alone(state: State, now: float) -> Next:
        state, command = ask(state, now)
        if isinstance(state.phase, Checking) and isinstance(command, FetchEvents):
            patch.act()
            command = replace(command, limit=1)
        return state, command

    patch.replace((machine, follow), "ask", alone)


@of_feed(
    "E2 E4",
    "events from beyond a gap are dropped over a long limit",
    test="tests/unit/sync/test_backoff.py::test_no_event_is_kept_over_a_long_limit_beyond_a_gap",
    why="a log that has forgotten so much, a gap and a long limit meet too rarely to search for it",
)
def early_events_over_a_limit(patch: Patch) -> None:
    """They are kept if the log does not reach back to the event before the position."""
    paused = Cursor.paused

    def kept(self: Cursor) -> Cursor:
        if not self.log_starts_here:
            return paused(self)
        if self.early:
            patch.act()
        return self

    patch.replace(Cursor, "paused", kept)


@of_feed(
    "P1",
    "offsets belong to one generation",
    needs="generation",
    test="tests/unit/sync/test_follow.py::test_offsets_of_another_generation_are_worth_nothing",
)
def generation_compared(patch: Patch) -> None:
    """The feed is the same, whatever Central calls it."""
    _same_generation(patch)


def _never_backwards(patch: Patch) -> None:
    leads_to = cursor.leads_to

    def never_lower(page: EventPage, position: Position) -> int:
        end = leads_to(page, position)
        if end < position.offset:
            patch.act()
        return max(end, position.offset)

    patch.replace(cursor, "leads_to", never_lower)


@of_feed(
    "E3",
    "a feed that went backwards is another one",
    needs="restore",
    test="tests/unit/sync/test_follow.py::test_a_feed_that_went_backwards_is_a_new_one",
)
def backwards_feeds(patch: Patch) -> None:
    """A feed that ends before the position has nothing new."""
    _never_backwards(patch)


@of_feed("P1 E3 E4", "another feed is noticed, by whatever sign", needs="generation")
def other_feeds_noticed_at_all(patch: Patch) -> None:
    """Neither its name, nor the event before the position, nor its end is compared."""
    _same_event(patch)
    _same_generation(patch)
    _never_backwards(patch)


@of_feed(
    "P1 V3",
    "a single product's answer is of the generation that is held",
    needs="generation",
    test="tests/unit/central/test_client.py::test_product_of_another_generation_is_refused",
)
def generation_of_single_readings(patch: Patch) -> None:
    """A product that another Central shows is taken for one of this one's."""
    check = CentralClient._check_generation

    def unchecked(self: CentralClient, reply: Any, expected: str | None) -> None:
        try:
            check(self, reply, expected)
        except CentralError:
            patch.act()

    patch.replace(CentralClient, "_check_generation", unchecked)


@of_feed(
    "F1 E3",
    "a position that is gone (410) is a full sync",
    test="tests/unit/sync/test_follow.py::test_a_position_that_is_gone_is_a_full_sync_and_no_failure",
    why="the timer of the fallback brings a full sync too, within the simulation's bound",
)
def position_gone(patch: Patch) -> None:
    """A 410 of the feed is a failure like any other: wait, and ask again."""

    def a_failure(state: State, lost: Lost, now: float) -> Next:
        patch.act()
        return backoff.failed(state, ExchangeFailed(Failure.BROKEN, lost.reason), now)

    patch.replace(machine, "lose", a_failure)


# -- the replica of a full sync ----------------------------------------------------------------


@of_feed(
    "F3",
    "pages overlap, or the requests step back",
    needs="small_pages slow",
    test=(
        "tests/unit/catalogue/test_paging.py::"
        "test_what_is_created_or_deleted_between_pages_skips_nothing"
    ),
)
def page_overlap(patch: Patch) -> None:
    """Each page is taken for the one that follows the one before."""
    joins = Paging.joins

    def always(
        self: Paging, request: PageRequest, page: CataloguePage, *, shown: int, unseen: int
    ) -> bool:
        if not joins(self, request, page, shown=shown, unseen=unseen):
            patch.act()
        return True

    patch.replace(Paging, "joins", always)


@of_feed("F2", "the feed is followed alongside a full sync", needs="slow")
def feed_alongside(patch: Patch) -> None:
    """The replica is what the pages said, at the position where the feed is."""
    take_events = Replica.take_events

    def pages_alone(
        self: Replica, events: Sequence[AnyEvent], *, position: Position, now: float
    ) -> int:
        if events:
            patch.act()
        return take_events(self, (), position=position, now=now)

    patch.replace(Replica, "take_events", pages_alone)


def _finish_without(patch: Patch, left_out: str) -> None:
    finish = Replica.finish

    def finished(
        self: Replica,
        *,
        pending_refetches: Mapping[str, PendingRefetch],
        tombstones: Mapping[str, Tombstone],
        now: float,
    ) -> Any:
        given: dict[str, Any] = {"pending_refetches": pending_refetches, "tombstones": tombstones}
        if given.get(left_out, self.answers):
            patch.act()
        if left_out == "answers":
            self.answers = []
        else:
            given[left_out] = {}
        return finish(self, **given, now=now)

    patch.replace(Replica, "finish", finished)


@of_feed(
    "F4",
    "answers given during a full sync are applied to the replica",
    needs="force slow",
    test="tests/unit/catalogue/test_replica.py::test_answers_are_applied_to_the_replica",
)
def answers_in_the_replica(patch: Patch) -> None:
    """The replica is installed without them."""
    _finish_without(patch, "answers")


@of_feed(
    "F4 W6",
    "answers before the first catalogue are laid over it",
    needs="slow",
    test=(
        "tests/unit/test_writer.py::"
        "test_an_answer_before_the_first_catalogue_is_applied_when_it_is_installed"
    ),
)
def answers_before_a_catalogue(patch: Patch) -> None:
    """An answer that there is no catalogue for is not remembered."""
    note_answer = CacheWriter._note_answer

    def only_if_shown(self: CacheWriter, answer: StockAnswer) -> None:
        if self.catalogue is not None:
            note_answer(self, answer)
        else:
            patch.act()

    patch.replace(CacheWriter, "_note_answer", only_if_shown)


@of_feed(
    "F4",
    "the copy of a full sync that failed is dropped",
    test="tests/unit/sync/test_runner.py::test_a_full_sync_that_failed_collects_no_answers",
    why="what it keeps only takes memory",
)
def copies_that_failed(patch: Patch) -> None:
    """The copy stays, and every answer is remembered for it."""

    def kept(self: CacheWriter) -> None:
        if self.replica is not None:
            patch.act()

    patch.replace(CacheWriter, "drop_replica", kept)


@of_feed(
    "F4 V3",
    "what readers saw outlives the full sync where the replica has something else",
    needs="force slow",
    test="tests/unit/catalogue/test_replica.py::test_an_override_outlives_the_full_sync",
)
def what_readers_saw(patch: Patch) -> None:
    """The replica counts, whatever answers, refetches and deletions showed meanwhile."""
    keep = Replica._keep

    def keep_nothing(
        self: Replica, change_set: ChangeSet, product_id: str, tombstone: Tombstone | None
    ) -> None:
        before = change_set.rows_set
        keep(self, change_set, product_id, tombstone)
        if change_set.rows_set > before:
            patch.act()
            change_set._rows.pop(product_id, None)
            change_set._tombstones.pop(product_id, None)
            change_set._overrides.pop(product_id, None)
            change_set._pending_refetches.pop(product_id, None)

    patch.replace(Replica, "_keep", keep_nothing)


@of_feed(
    "V3",
    "an uncertain row of the replica does not lower what readers saw",
    needs="force disorder",
    test=(
        "tests/simulation/test_found.py::"
        "test_an_uncertain_replica_does_not_lower_what_readers_saw_meanwhile"
    ),
)
def uncertain_rows_of_the_replica(patch: Patch) -> None:
    """The replica's row is installed, though its incarnation is uncertain."""
    touched = Replica._touched

    def without_uncertain(self: Replica) -> set[str]:
        uncertain = {
            product_id
            for product_id, pending in self.catalogue.pending_refetches.items()
            if pending.reason is RefetchReason.ORDER
        }
        found = touched(self)
        if found & uncertain:
            patch.act()
        return found - uncertain

    patch.replace(Replica, "_touched", without_uncertain)


@of_feed(
    "V2 P3",
    "refetches requested during a full sync outlive it",
    needs="force disorder",
    test="tests/unit/test_writer.py::test_refetches_requested_during_a_full_sync_outlive_it",
)
def pending_refetches_outlive_a_full_sync(patch: Patch) -> None:
    """They are dropped with the old catalogue."""
    _finish_without(patch, "pending_refetches")


@of_feed(
    "V2",
    "tombstones outlive a full sync",
    needs="force disorder",
    test=(
        "tests/unit/catalogue/test_replica.py::"
        "test_tombstones_incarnations_and_pending_refetches_outlive_the_full_sync"
    ),
)
def tombstones_outlive_a_full_sync(patch: Patch) -> None:
    """A full sync forgets what was deleted before it."""
    _finish_without(patch, "tombstones")


@of_feed(
    "V3",
    "a product of which a page shows an older version is refetched",
    test="tests/unit/catalogue/test_replica.py::test_no_version_is_lowered_by_one_page",
    why="every page of the simulation is up to date",
)
def lowered_by_a_page(patch: Patch) -> None:
    """One page lowers a version."""
    accepts = Replica._accepts

    def lowered(self: Replica, product_id: str, row: bytes) -> bool:
        taken = accepts(self, product_id, row)
        if product_id in self._lowered:
            patch.act()
            self._lowered.discard(product_id)
        return taken

    patch.replace(Replica, "_accepts", lowered)


@of_feed(
    "V3 F2",
    "a page does not undo what the feed brought before it",
    test="tests/unit/catalogue/test_replica.py::test_a_late_page_does_not_undo_an_event",
    why="every page of the simulation is up to date",
)
def older_pages(patch: Patch) -> None:
    """A page's row counts, even over an event that came before it."""
    accepts = Replica._accepts

    def as_it_comes(self: Replica, product_id: str, row: bytes) -> bool:
        if not accepts(self, product_id, row) and product_id in self._untrusted:
            patch.act()
            self._untrusted.remove(product_id)
        return True

    patch.replace(Replica, "_accepts", as_it_comes)


@of_feed(
    "E4 F2",
    "pages count only if the connection held until the feed was seen",
    needs="restore",
    test=(
        "tests/unit/sync/test_full_sync.py::"
        "test_pages_are_read_again_where_the_connection_failed_before_the_feed_was_seen"
    ),
    why="a restore just then, under the same name, is too rare to be searched for",
)
def pages_before_the_feed(patch: Patch) -> None:
    """A full sync goes on with pages from before a failure, and the feed from after it."""

    def never(_: FullSync) -> bool:
        patch.act()
        return False

    patch.replace(full_sync, "_rests_on_pages_alone", never)


@of_feed(
    "F2 E3",
    "an event at the head that is published late is not skipped",
    needs="disorder",
    test=(
        "tests/unit/sync/test_full_sync.py::"
        "test_an_event_at_the_head_that_is_published_late_is_not_skipped"
    ),
    why="a new feed whose first event is that late is too rare to be searched for",
)
def late_events_at_the_head(patch: Patch) -> None:
    """A log whose first event comes behind the head is taken to begin there."""
    opened = full_sync._opened

    def behind_the_head(sync: FullSync, page: EventPage) -> Cursor:
        head = sync.reading.head
        if head is None:
            return opened(sync, page)
        found = opened(replace(sync, reading=replace(sync.reading, head=head + 1)), page)
        if found != opened(sync, page):
            patch.act()
        return found

    patch.replace(full_sync, "_opened", behind_the_head)


@of_feed(
    "F2 V1",
    "the feed is not followed from pages that were installed without it",
    needs="outage",
    test="tests/unit/sync/test_full_sync.py::test_the_feed_is_not_followed_from_pages_alone",
    why="a feed that fails alone for so long is too rare to be searched for",
)
def pages_alone(patch: Patch) -> None:
    """Events are applied to rows that are of no one moment."""
    arrived = follow.arrived

    def followed(state: State, *told: Any) -> Any:
        if state.is_unfollowed:
            patch.act()
        return arrived(replace(state, is_unfollowed=False), *told)

    patch.replace((machine, follow), "arrived", followed)


@of_feed(
    "V2 F3",
    "a creation that the pages should have shown has its product refetched",
    needs="disorder",
    test=(
        "tests/unit/catalogue/test_replica.py::"
        "test_a_creation_that_the_pages_should_have_shown_is_refetched"
    ),
    why="a creation numbered so long after its incarnation's end is too rare to be searched for",
)
def creations_behind_the_pages(patch: Patch) -> None:
    """What an event creates is believed, though no page showed it."""
    note_events = Replica._note_events

    def believed(self: Replica, events: Sequence[AnyEvent]) -> None:
        note_events(self, events)
        created = {e.product_id for e in events if isinstance(e, Event) and e.kind is Kind.CREATED}
        if created & self._expected:
            patch.act()
        self._expected -= created

    patch.replace(Replica, "_note_events", believed)


@of_feed(
    "F5",
    "a catalogue with far too few products is not believed",
    test="tests/unit/catalogue/test_replica.py::test_a_catalogue_that_lost_half_is_refused",
    why="no Central of the simulation loses half of its products",
)
def judgement_of_a_replica(patch: Patch) -> None:
    """Whatever was read is installed."""
    judge = Replica.judge

    def accepted(self: Replica, installation: Installation, *, least_percent: int) -> Verdict:
        verdict = judge(self, installation, least_percent=least_percent)
        if not verdict.accepted:
            patch.act()
        return Verdict(verdict.found)

    patch.replace(Replica, "judge", accepted)


@of_feed(
    "F5 V3",
    "products that no page told for sure are refetched",
    test="tests/unit/catalogue/test_replica.py::test_an_unreadable_row_is_refetched",
    why="every row of the simulation can be read",
)
def doubts_of_pages(patch: Patch) -> None:
    """The replica's rows count, and what it has no row of is gone."""
    in_doubt = Replica.in_doubt

    def none(self: Replica) -> set[str]:
        if in_doubt(self):
            patch.act()
        return set()

    patch.replace(Replica, "in_doubt", none)


# -- the line ----------------------------------------------------------------------------------


@of_feed("E6", "every exchange has a deadline in all", needs="drip")
def deadlines(patch: Patch) -> None:
    """Only single operations have one: an answer may drip for ever."""

    @asynccontextmanager
    async def without(*_: object) -> Any:
        patch.act()
        yield

    patch.replace(CentralClient, "_deadline", without)


@of_feed(
    "E5",
    "only Central's own words mean that a product is gone",
    needs="server_error",
    test="tests/unit/central/test_client.py::test_only_centrals_own_error_means_absence",
    why="a product that a reading said to be gone is asked for once more within a minute",
)
def absence(patch: Patch) -> None:
    """Any 404 means it."""
    is_absence = client._is_absence

    def any_404(reply: Any) -> bool:
        if not is_absence(reply):
            patch.act()
        return True

    patch.replace(client, "_is_absence", any_404)


@of_feed(
    "B1",
    "a failing connection is left alone for a while, longer each time",
    test="tests/unit/sync/test_backoff.py::test_each_failure_doubles_the_wait",
    why="a Central that is asked too often gives the same answers in the simulation",
)
def waits(patch: Patch) -> None:
    """What failed is asked for again at once."""

    def at_once(*_: object) -> Sleep:
        patch.act()
        return Sleep(0.0)

    patch.replace((backoff, full_sync), "pause_after", at_once)


@of_feed(
    "B1",
    "after five failures full syncs are tried on a timer",
    test="tests/unit/sync/test_backoff.py::test_a_full_sync_is_tried_at_every_interval_of_the_fallback",
    why="in the simulation the feed always comes back by itself",
)
def fallback(patch: Patch) -> None:
    """A feed that cannot be read is asked for ever, and nothing else is."""
    count = backoff.count_failure

    def counted(state: State, outcome: Any, now: float) -> State:
        state = count(state, outcome, now)
        if state.health.fallback_due is not None:
            patch.act()
        return replace(state, health=replace(state.health, fallback_due=None))

    patch.replace((backoff, full_sync), "count_failure", counted)


@of_feed(
    "F6",
    "full syncs that do not hold are spaced",
    test="tests/unit/sync/test_full_sync.py::test_full_syncs_that_do_not_hold_are_spaced",
    why="more full syncs do no harm to what a till is told",
)
def spacing(patch: Patch) -> None:
    """The next one begins at once."""
    spaced = backoff.spaced

    def unspaced(held: Any, now: float, placed_at: float | None) -> Any:
        patch.act()
        return replace(spaced(held, now, placed_at), next_at=0.0, delay_seconds=0.0)

    patch.replace((backoff, full_sync), "spaced", unspaced)


@of_feed(
    "B1 F6",
    "requests keep to the limit that Central has shown",
    test=("tests/unit/central/test_rate_limit.py::test_refusal_pauses_everything"),
    why="what Central refuses for its limit is asked for again",
)
def rate_limit(patch: Patch) -> None:
    """Requests are sent whatever Central said."""
    ready_in = RateLimit.ready_in

    def now_(self: RateLimit, priority: Any, now: float) -> float:
        if ready_in(self, priority, now):
            patch.act()
        return 0.0

    patch.replace(RateLimit, "ready_in", now_)


@of_feed(
    "F6",
    "the limit that Central's answers name holds from the first one on",
    test="tests/unit/central/test_client.py::"
    "test_limit_that_an_answer_names_holds_for_the_next_request",
    why="what Central refuses for its limit is asked for again",
)
def named_limit(patch: Patch) -> None:
    """Only a refusal shows the limit."""

    def unread(headers: Any, now: float) -> None:
        if read_quota(headers, now) is not None:
            patch.act()

    patch.replace(client, "read_quota", unread)


@of_feed("B5", "the age counts from when Central was asked", needs="slow")
def ages_from_the_question(patch: Patch) -> None:
    """It counts from when the answer was on disk and visible."""
    in_sync = follow._in_sync

    def just_now(state: State, at: float) -> State:
        now = asyncio.get_running_loop().time()
        if now > at:
            patch.act()
        return in_sync(state, now)

    patch.replace(follow, "_in_sync", just_now)


@of_feed(
    "B5 E1",
    "an empty answer sooner than `wait` counts until the next failure",
    needs="older slow",
    test=(
        "tests/unit/sync/test_follow.py::"
        "test_a_late_answer_of_a_central_that_may_not_hold_proves_no_more"
    ),
)
def polls_that_end_early(patch: Patch) -> None:
    """Each empty answer that comes after `wait` is taken for that of a held poll."""
    at_end = follow._at_end

    def forgotten(state: State, *told: Any) -> Next:
        if state.polls_end_early:
            patch.act()
        return at_end(replace(state, polls_end_early=False), *told)

    patch.replace(follow, "_at_end", forgotten)


@of_feed(
    "E6",
    "an answer has a cap on bytes",
    test="tests/unit/central/test_client.py::test_answer_that_announces_too_many_bytes_is_not_read",
    why="no answer of the simulation is endless",
)
def caps_on_bytes(patch: Patch) -> None:
    """Whatever comes is read."""
    read_reply = Connection._read_reply

    async def endless(self: Connection, response: Any, request: Any) -> Any:
        patch.act()
        return await read_reply(self, response, replace(request, most_bytes=2**62))

    patch.replace(Connection, "_read_reply", endless)


@of_feed(
    "E6",
    "a long answer is parsed in parts",
    test="tests/unit/central/test_client.py::test_endless_answer_is_cut_off",
    why="no answer of the simulation is long",
)
def long_answers_in_parts(patch: Patch) -> None:
    """Every answer is parsed at once, whatever memory and time that takes."""
    patch.act()
    patch.replace(connection, "is_parsed_at_once", lambda *_: True)
    patch.replace(PageRows, "whole_bytes", 2**62)


@of_feed(
    "E6",
    "a page of the feed has a bound on events",
    test="tests/unit/central/test_client.py::test_endless_answer_is_cut_off",
    why="no page of the simulation is that long",
)
def bound_on_events(patch: Patch) -> None:
    """As many events are read as Central sends."""
    patch.act()
    patch.replace(parsing, "MOST_EVENTS", 2**62)


@of_feed(
    "E5 F5",
    "a row has a bound on bytes",
    test="tests/unit/central/test_client.py::test_a_row_too_large_is_named_and_the_others_are_read",
    why="no row of the simulation is that large",
)
def bound_on_rows(patch: Patch) -> None:
    """A product may have any size."""
    patch.act()
    patch.replace(product, "MOST_ROW_BYTES", 2**62)


@of_feed(
    "E6",
    "what arrives at once is parsed in parts",
    test="tests/unit/central/test_transport.py::test_other_tasks_run_while_an_answer_is_parsed",
    why="the simulation has no HTTP",
)
def paced_answers(patch: Patch) -> None:
    """All that a socket holds is parsed before another task runs."""
    patch.act()
    patch.replace(transport, "PARSED_AT_ONCE_BYTES", 2**62)


@of_feed(
    "E2",
    "early events are remembered up to a bound",
    test="tests/unit/sync/test_follow.py::test_early_events_are_bounded",
    why="no backlog of the simulation is that long",
)
def bound_of_what_is_early(patch: Patch) -> None:
    """Everything beyond a gap is remembered."""
    arrange = cursor.arrange

    def counted(*told: Any) -> tuple[Events, Events]:
        patch.act()
        return arrange(*told)

    patch.replace(cursor, "EARLY_AT_MOST", 10**9)
    patch.replace(cursor, "arrange", counted)
