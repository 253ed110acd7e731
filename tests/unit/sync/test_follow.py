"""Following the feed from a position: one screen per story."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from store_cache.model.position import Position, next_local_generation
from store_cache.sync.backoff import LONG_PAUSE_SECONDS
from store_cache.sync.states import (
    ApplyEvents,
    Applying,
    Checking,
    Failure,
    FetchEvents,
    FetchPage,
    FullSyncFailed,
    FullSyncing,
    Interrupted,
    Polling,
    Sleep,
    Sleeping,
    SyncSettings,
)
from tests.unit.sync.small_central import SmallCentral, SmallStore
from tests.unit.sync.told_sync import LOCAL, START, Told, at, event, events, nameless

BACKOFFS = [0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4]
"""What a hole is asked for again after: until 2 s, the default grace, have passed."""


def followed(
    offset: int = 100, generation: str = LOCAL, settings: SyncSettings | None = None
) -> Told:
    """A store that has compared its feed, is in step, and polls it from `offset`."""
    told = Told(at(offset, generation), settings)
    if isinstance(told.state.phase, Checking):
        told.answers(offset - 1)
    told.state = replace(told.state, is_proven=True)
    told.tell(Interrupted())
    return told


def following(central: SmallCentral, settings: SyncSettings | None = None) -> SmallStore:
    """A store that stands at Central's head."""
    position = at(central.head, central.generation or LOCAL, central.feed)
    store = SmallStore(central, position, settings)
    store.runs(lambda: store.state.in_sync_at is not None)
    return store


# -- the position ------------------------------------------------------------------------------


def test_the_position_moves_once_events_are_kept() -> None:
    """[P4] Not when they arrive: a store that dies between asks for them again."""
    told = followed()
    told.answers(100, 101, next_offset=102, has_more=False)
    assert at(100) == told.state.position

    told.keeps()
    assert at(102) == told.state.position


def test_a_page_is_taken_as_far_as_it_is_contiguous() -> None:
    """[P4] What comes after a hole waits, whatever `nextOffset` says."""
    told = followed()
    told.answers(100, 101, 103, next_offset=104, has_more=False)

    assert ApplyEvents(events(100, 101), at(102)) == told.command


@pytest.mark.parametrize("next_offset", [None, 0, 100, 101, 150])
@pytest.mark.parametrize("has_more", [None, False, True])
def test_hints_never_move_the_position(next_offset: int | None, has_more: bool | None) -> None:
    """[P4] Whatever Central says of where its page leads, the store counts for itself."""
    told = followed()
    told.answers(100, next_offset=next_offset, has_more=has_more)

    assert ApplyEvents(events(100), at(101)) == told.command
    told.keeps()
    assert 101 == told.fetch.offset


@pytest.mark.parametrize("next_offset", [0, 99, 101, 5000])
def test_an_empty_answer_moves_nothing(next_offset: int) -> None:
    """[P4] It may make the store ask again, or lose its position, but never skip."""
    told = followed()
    told.answers(next_offset=next_offset, has_more=False)

    assert at(100) == told.state.position
    assert told.is_resting()


def test_the_event_before_the_position_may_come_again() -> None:
    """[P2] A position may be polled from the last event or from the next one: both are right."""
    told = followed()
    told.answers(99, 100, next_offset=101, has_more=False)
    assert ApplyEvents(events(100), at(101)) == told.command

    told.keeps()
    assert told.now == told.state.in_sync_at


def test_a_feed_may_begin_at_0() -> None:
    """[P2] Then 0 is an offset like any other."""
    told = followed(0)
    assert 0 == told.fetch.offset
    told.receives(0, 1)

    assert at(2) == told.state.position


def test_a_feed_may_begin_at_1() -> None:
    """[P2] Then 0 is no hole, once the grace has shown that nothing comes there."""
    store = SmallStore(SmallCentral(first=1, head=4, says_gone=False), Position(LOCAL, 0))
    store.of_feed = "feed"
    store.runs(store.is_in_step)

    assert at(4) == store.state.position
    assert store.now - START < 3
    assert 0 == store.state.full_syncs_begun


def test_a_feed_without_events_that_begins_at_1_is_no_hole() -> None:
    """[P2] An empty answer says so too."""
    store = SmallStore(SmallCentral(first=1, head=1, says_gone=False), Position(LOCAL, 0))
    store.of_feed = "feed"
    store.runs(store.is_in_step)

    assert Position(LOCAL, 1) == store.state.position


def test_local_generations_change_with_each_replacement() -> None:
    """[P1] Where Central names none, the store counts the feeds that it has known."""
    names = [next_local_generation(None)]
    for _ in range(2):
        names.append(next_local_generation(names[-1]))

    assert 3 == len(set(names))
    assert all(Position(name, 0).is_local for name in names)
    assert not Position(next_local_generation("g-7"), 0).named


def test_a_feed_that_gets_a_name_keeps_its_place() -> None:
    """[P1] A Central that was upgraded is compared first; then the position takes the name over."""
    told = followed()
    told.answers(100, next_offset=101, has_more=False, generation="g-1")
    assert FetchEvents(99, 1, 0) == told.command

    told.answers(99, generation="g-1")
    assert at(100, "g-1") == told.state.position


def test_a_feed_that_gets_a_name_is_followed_if_its_log_forgot_the_event_before() -> None:
    """[P1] [E4] The comparison is 410 and proves nothing: it is not asked for again and again."""
    told = followed()
    told.answers(100, generation="g-1")
    told.fails(Failure.GONE)
    told.answers(100, generation="g-1")

    assert ApplyEvents(events(100), at(101, "g-1")) == told.command


def test_another_feed_that_names_itself_is_noticed() -> None:
    """[P1] A Central that names its feed, where one without a name had been, may be another."""
    told = followed()
    told.answers(100, next_offset=101, has_more=False, generation="g-1")
    told.answers(event(99, "other"), generation="g-1")

    assert told.is_central_replaced()


def test_offsets_of_another_generation_are_worth_nothing() -> None:
    """[P1] Not even events that would follow are taken; a full sync begins at once."""
    told = followed(generation="g-1")
    told.answers(100, 101, next_offset=102, generation="g-2")

    assert at(100, "g-1") == told.state.position
    assert isinstance(told.command, FetchPage)
    assert not told.command.same_generation
    assert ("Central has a new generation g-2",) == told.full_sync.reasons


def test_a_central_that_leaves_its_name_out_is_the_same() -> None:
    """[P1] An older instance behind the same address may answer in between."""
    told = followed(generation="g-1")
    told.receives(100)

    assert at(101, "g-1") == told.state.position


# -- asking ------------------------------------------------------------------------------------


def test_a_held_poll_is_followed_by_the_next_at_once() -> None:
    """[E1] There is always one poll with Central."""
    told = followed()
    assert FetchEvents(100, 100, 20) == told.command
    told.answers(next_offset=100, held=20.0)

    assert FetchEvents(100, 100, 20) == told.command


def test_a_change_is_visible_as_soon_as_central_answers() -> None:
    """[E1] The held poll ends with it, and nothing waits."""
    central = SmallCentral()
    store = following(central)
    published_at = store.now + 7
    store.later(7, central.publish)
    store.runs(lambda: store.state.position == at(51))

    assert store.now - published_at < 0.1


def test_more_is_asked_for_at_once() -> None:
    """[E1] A backlog is drained page by page, without a pause."""
    central = SmallCentral()
    store = following(central)
    central.publish(1000)
    began_at = store.now
    store.runs(store.is_in_step)

    assert store.now - began_at < 21  # the poll that was being held, and ten exchanges
    assert 0 == store.state.full_syncs_begun


@pytest.mark.parametrize("has_more", [True, None])
def test_a_full_page_leaves_more(has_more: bool | None) -> None:
    """[E1] Where Central does not say whether there is more, a full page says it."""
    told = followed(settings=SyncSettings(batch_limit=2))
    told.answers(100, 101, has_more=has_more)
    told.keeps()

    assert isinstance(told.command, FetchEvents)
    assert told.state.in_sync_at is None


def test_in_step_is_an_answer_that_left_nothing_behind() -> None:
    """[B5] Not one with more behind it, nor one beyond which events are missing."""
    told = followed()
    told.answers(100, next_offset=101, has_more=True)
    told.keeps()
    told.answers(101, 103, next_offset=104, has_more=False)
    told.keeps()
    told.answers(104, next_offset=105, has_more=False)
    told.rests()
    assert told.state.in_sync_at is None

    told.answers(102, 103, 104, next_offset=105, has_more=False)
    told.keeps()
    assert told.now == told.state.in_sync_at


def test_a_central_that_does_not_hold_is_asked_at_the_interval() -> None:
    """[E1] One empty answer at once may be chance; two are a Central that does not hold polls."""
    told = followed()
    told.answers(next_offset=100)
    assert isinstance(told.state.phase, Polling)
    told.answers(next_offset=100)

    assert Sleep(30.0) == told.command
    told.rests()
    assert isinstance(told.state.phase, Checking)


def test_a_central_that_does_not_hold_is_drained_too() -> None:
    """[E1] What came in an interval is fetched in one go, then the next interval begins."""
    central = SmallCentral(holds=False)
    store = following(central)
    store.runs(store.is_resting)
    central.publish(250)
    rested = store.now
    store.runs(store.is_in_step)

    assert store.now - rested < 31
    store.runs(store.is_resting)
    assert Sleep(30.0) == store.command


def test_a_poll_that_was_not_to_be_held_says_nothing_about_holding() -> None:
    """[E1] A probe after a failure asks without a wait: a flapping line is no Central that does
    not hold."""
    told = Told(Position(LOCAL, 100))
    for _ in range(5):
        told.fails()
        told.rests()
        assert FetchEvents(100, 100, 0) == told.command
        told.answers(next_offset=100)
        assert FetchEvents(100, 100, 20) == told.command


def test_a_probe_does_not_make_a_central_hold() -> None:
    """[E1] One that was known not to hold is asked at the interval again at once."""
    told = followed()
    told.answers(next_offset=100)
    told.answers(next_offset=100)
    told.rests()
    told.answers(99)
    told.fails()
    told.rests()
    told.answers(99)
    told.answers(next_offset=100)

    assert Sleep(30.0) == told.command


def test_a_poll_is_held_no_longer_than_until_a_full_sync_is_due() -> None:
    """[F6] Then the run begins; and the last second is not spent asking again and again."""
    store = SmallStore(central := SmallCentral(), at(50))
    store.of_feed = central.feed
    store.runs(lambda: store.state.in_sync_at is not None)
    store.central.first = 60
    store.central.head = 60
    store.runs(lambda: len(store.state.full_syncs) == 1 and not store.is_running())
    store.wants("a repair failed")
    due, commands = store.state.spacing.next_at, store.commands
    store.runs(store.is_running)

    assert 0 <= store.now - due < 1.1
    assert store.commands - commands < 5


def test_an_interval_poll_starts_at_every_interval() -> None:
    """[E1] With `POLL_MODE=interval` it drains what there is and then leaves the line alone."""
    central = SmallCentral(holds=False)
    store = following(central, SyncSettings(continuous=False, interval_seconds=60))
    began: list[float] = []
    for _ in range(4):
        store.runs(store.is_resting)
        central.publish(150)
        store.step()
        began.append(store.now)

    gaps = [later - earlier for earlier, later in pairwise(began)]
    assert all(59.9 < gap < 60.1 for gap in gaps), gaps


def test_an_interval_poll_compares_the_feed_first() -> None:
    """[E4] Nobody was connected meanwhile: Central may be another one."""
    told = followed(settings=SyncSettings(continuous=False))
    told.answers(next_offset=100)
    told.rests()

    assert FetchEvents(99, 1, 0) == told.command


def test_an_interval_ends_early_for_a_full_sync_that_is_due() -> None:
    """[F6] A long interval does not delay it."""
    told = followed(settings=SyncSettings(continuous=False, interval_seconds=300.0))
    told.fails(Failure.GONE)
    told.page(last=True, head=100)
    told.answers(99, 100, next_offset=101, has_more=False)
    told.keeps()
    told.settles()
    told.answers(100)
    told.places()
    told.wants("a repair failed")
    while not isinstance(told.state.phase, Sleeping):
        told.answers(100, next_offset=101, has_more=False)

    assert isinstance(told.command, Sleep)
    assert told.command.at_least_seconds <= 30


def test_an_interrupted_poll_is_asked_again() -> None:
    """[E1] Giving up a held poll loses nothing."""
    told = followed()
    told.tell(Interrupted())

    assert FetchEvents(100, 100, 20) == told.command


# -- order -------------------------------------------------------------------------------------


def test_a_batch_is_sorted() -> None:
    """[E2] Two concurrent writers may publish out of order."""
    told = followed()
    told.answers(102, 100, 101, next_offset=101, has_more=False)

    assert ApplyEvents(events(100, 101, 102), at(103)) == told.command


def test_what_came_early_is_not_fetched_again() -> None:
    """[E2] Once the hole is filled, the events behind it are there."""
    told = followed()
    told.answers(101, 102, next_offset=103, has_more=False)
    told.rests()
    told.answers(100, next_offset=101)

    assert ApplyEvents(events(100, 101, 102), at(103)) == told.command


def fails_once(told: Told) -> None:
    told.fails()
    told.rests()


def is_limited_for_long(told: Told) -> None:
    told.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    told.rests()


def tries_a_full_sync(told: Told) -> None:
    told.wants("a repair failed")
    told.tell(FullSyncFailed("pages without end"))


def seems_to_go_backwards(told: Told) -> None:
    told.answers(next_offset=90)
    told.rests()


@pytest.mark.parametrize(
    "doubtful", [fails_once, is_limited_for_long, tries_a_full_sync, seems_to_go_backwards]
)
def test_what_came_early_is_fetched_again_after_doubt(doubtful: Callable[[Told], None]) -> None:
    """[E2] [E4] A Central restored meanwhile has the same event before the position, and others
    behind it: what came early of the old ones is not laid over them."""
    told = followed()
    told.answers(102, 103, next_offset=104)
    told.rests()
    doubtful(told)
    told.answers(99)
    told.answers(100, 101, next_offset=102)

    assert ApplyEvents(events(100, 101), at(102)) == told.command


def test_what_came_early_is_bounded() -> None:
    """[E2] A feed that runs on beyond a hole does not fill the memory."""
    told = followed(settings=SyncSettings(grace_seconds=60.0))
    for start in range(101, 9000, 500):
        told.answers(*range(start, start + 500))
        told.rests()

    assert told.state.cursor is not None
    early = told.state.cursor.early
    assert (5000, 101) == (len(early), early[0].offset)


def test_repeated_events_are_taken_once() -> None:
    """[E2] The same offset twice in a page is one event."""
    told = followed()
    told.answers(100, 100, 101, 101)

    assert ApplyEvents(events(100, 101), at(102)) == told.command


def test_an_event_without_a_product_needs_a_full_sync() -> None:
    """[E5] Nothing else can tell what it changed."""
    told = followed()
    told.answers(100, nameless(101))

    assert isinstance(told.state.phase, FullSyncing)
    assert at(100) == told.state.position


# -- holes -------------------------------------------------------------------------------------


def tells_of_a_hole(told: Told, where: str) -> None:
    """Central answers, and offset 100 is missing (102, at the end of a page)."""
    match where:
        case "at the start":
            told.answers(101, 102, next_offset=103, has_more=False)
        case "in the middle":
            told.answers(100, 101, 103, next_offset=104, has_more=False)
        case "at the end":
            told.answers(100, 101, next_offset=103, has_more=False)
        case "in an empty answer":
            told.answers(next_offset=101, has_more=False)


WHERE = ["at the start", "in the middle", "at the end", "in an empty answer"]


@pytest.mark.parametrize("where", WHERE)
def test_a_hole_is_asked_for_again_after_a_short_back_off(where: str) -> None:
    """[E3] At the start, in the middle, at a page's end or in an empty answer; without `wait`."""
    told = followed()
    tells_of_a_hole(told, where)
    if isinstance(told.state.phase, Applying):
        told.keeps()
        assert FetchEvents(102, 100, 0) == told.command
        told.answers(next_offset=103)

    assert Sleep(0.05) == told.command
    told.rests()
    assert 0 == told.fetch.wait_seconds


@pytest.mark.parametrize("where", WHERE)
def test_a_hole_that_is_filled_within_the_grace_is_no_loss(where: str) -> None:
    """[E3] An event that appears a moment later is taken, and no full sync runs."""
    told = followed()
    tells_of_a_hole(told, where)
    if isinstance(told.state.phase, Applying):
        told.keeps()
        told.answers(next_offset=103)
    for _ in range(4):
        told.rests()
        told.answers(next_offset=103)
    told.rests()
    told.answers(*range(told.fetch.offset, 105), next_offset=105, has_more=False)
    told.keeps()

    assert at(105) == told.state.position
    assert told.now == told.state.in_sync_at
    assert 0 == told.state.full_syncs_begun


@pytest.mark.parametrize("where", WHERE)
def test_a_hole_that_stays_is_loss(where: str) -> None:
    """[E3] Asked again after 0.05, 0.1, 0.2, 0.4 s ... until the grace has passed; then a full
    sync at once, which is no failure."""
    told = followed()
    tells_of_a_hole(told, where)
    if isinstance(told.state.phase, Applying):
        told.keeps()
        told.answers(next_offset=103)
    backoffs = []
    while told.is_resting():
        backoffs.append(told.rests())
        told.answers(next_offset=103, has_more=False)

    assert BACKOFFS == backoffs
    assert isinstance(told.command, FetchPage)
    assert told.command.same_generation
    assert ("events are missing from Central's feed",) == told.full_sync.reasons
    assert 0 == told.state.health.failures


def test_the_grace_is_a_setting() -> None:
    """[E3] `HOLE_GRACE_SECONDS`."""
    told = followed(settings=SyncSettings(grace_seconds=0.1))
    told.answers(101)
    told.rests()
    told.answers(101)
    told.rests()
    told.answers(101)

    assert isinstance(told.command, FetchPage)


def test_an_answer_that_took_longer_than_the_grace_proves_no_loss() -> None:
    """[E3] It says how things were when it was asked for: on a slow line a hole gets its grace."""
    told = followed()
    told.answers(101)
    told.rests()
    told.answers(101, held=6.0)
    assert told.is_resting()

    told.rests()
    told.answers(100, 101)
    assert ApplyEvents(events(100, 101), at(102)) == told.command


def test_each_hole_has_its_own_grace() -> None:
    """[E3] A feed out of order all the time, each event a moment late, loses nothing."""
    central = SmallCentral()
    store = following(central)
    for _ in range(200):
        hole = central.head + 1
        central.missing.add(hole)
        central.publish(3)
        store.later(0.11, partial(central.missing.discard, hole))
        for _ in range(4):
            store.step()
    store.runs(store.is_in_step)

    assert at(650) == store.state.position
    assert 0 == store.state.full_syncs_begun


def test_a_failure_stops_the_clock_of_a_hole() -> None:
    """[E3] The grace is time in which Central could be asked."""
    told = followed()
    told.answers(101)
    told.rests()
    told.fails()
    told.waits(60.0)
    told.rests()
    told.answers(99)
    told.answers(101)

    assert Sleep(0.05) == told.command


def test_an_older_central_that_starts_later_is_loss() -> None:
    """[E3] Some answer from the oldest event they still have instead of 410."""
    central = SmallCentral(says_gone=False)
    store = following(central)
    store.later(1, lambda: central.publish(500))
    store.later(1, lambda: setattr(central, "first", 300))
    store.runs(store.is_running)
    assert ("events are missing from Central's feed",) == store.full_sync.reasons

    store.runs(store.is_in_step)
    assert 1 == store.state.full_syncs_begun


def test_a_feed_that_went_backwards_is_a_new_one() -> None:
    """[E3] Still lower after the grace: its versions do not count any more."""
    told = followed()
    told.answers(next_offset=40)
    while told.is_resting():
        told.rests()
        told.answers(next_offset=40)

    assert START + 2 <= told.now <= START + 3
    assert isinstance(told.command, FetchPage)
    assert not told.command.same_generation


def test_a_feed_that_is_lower_for_a_moment_is_the_same() -> None:
    """[E3] `nextOffset` may go back where two writers publish out of order."""
    told = followed()
    told.answers(next_offset=99)
    told.rests()
    told.answers(99, next_offset=100)
    told.answers(next_offset=100)

    assert told.now == told.state.in_sync_at
    assert 0 == told.state.full_syncs_begun


def test_a_restored_central_that_grows_past_the_position_meanwhile_is_noticed() -> None:
    """[E4] It was lower for a moment; its new events at the same offsets are not the store's."""
    told = followed()
    told.answers(next_offset=98)
    told.rests()
    assert FetchEvents(99, 1, 0) == told.command
    told.answers(event(99, "restored"))

    assert told.is_central_replaced()


# -- the fingerprint ---------------------------------------------------------------------------


def test_the_feed_is_compared_at_start() -> None:
    """[E4] The event before the position is asked for, without `wait`, and has to be the same."""
    told = Told(at(100))
    assert FetchEvents(99, 1, 0) == told.command
    told.answers(99)

    assert FetchEvents(100, 100, 0) == told.command


def test_no_poll_is_held_before_the_store_is_in_step_again() -> None:
    """[E1] [B5] On a quiet feed, a start or the end of an outage would else look stale for as long
    as Central holds the first poll."""
    told = followed()
    told.fails()
    told.rests()
    told.answers(99)
    assert FetchEvents(100, 100, 0) == told.command
    told.answers(next_offset=100)

    assert FetchEvents(100, 100, 20) == told.command


@pytest.mark.parametrize("failure", [kind for kind in Failure if kind is not Failure.LIMITED])
def test_the_feed_is_compared_after_every_failed_exchange(failure: Failure) -> None:
    """[E4] Central may have been restored from a backup meanwhile."""
    told = followed()
    told.fails(failure)
    if failure is Failure.GONE:
        assert isinstance(told.command, FetchPage)
        return
    told.rests()

    assert FetchEvents(99, 1, 0) == told.command


def test_another_event_before_the_position_is_another_feed() -> None:
    """[E4] A Central restored from a backup uses offsets again."""
    told = Told(at(100))
    told.answers(event(99, "restored"))

    assert isinstance(told.command, FetchPage)
    assert not told.command.same_generation
    assert ("Central's feed holds another event at the position",) == told.full_sync.reasons


def test_a_restored_central_is_noticed_whatever_its_head() -> None:
    """[E4] Below the position, at it, and beyond it."""
    for head in (60, 99, 100, 101, 5000):
        central = SmallCentral(head=100)
        store = following(central)
        central.replace("restored", head=head)
        store.fails()
        store.runs(store.is_in_step)

        assert 1 == store.state.full_syncs_begun
        assert next_local_generation(LOCAL) == (store.state.position or at(0)).generation


def test_a_log_that_forgot_the_event_before_proves_nothing() -> None:
    """[E4] 410 for one before the position, or an answer that begins later: the position holds."""
    told = Told(at(100))
    told.fails(Failure.GONE)
    assert 100 == told.fetch.offset

    told = Told(at(100))
    told.answers(100, next_offset=101)
    assert 100 == told.fetch.offset
    assert 0 == told.state.full_syncs_begun


def test_a_wiped_central_is_noticed_by_the_comparison() -> None:
    """[E4] Its log ends before the event that is asked for, and still does after the grace."""
    told = Told(at(100))
    told.answers(next_offset=0)
    backoffs = []
    while told.is_resting():
        backoffs.append(told.rests())
        told.answers(next_offset=0)

    assert BACKOFFS == backoffs
    assert told.is_central_replaced()


def test_a_log_that_ends_just_before_the_position_is_compared_again() -> None:
    """[E4] A backup without the last event: the comparison alone tells."""
    told = Told(at(100))
    told.answers(next_offset=99)
    told.rests()

    assert FetchEvents(99, 1, 0) == told.command


def test_a_position_without_a_fingerprint_is_polled_at_once() -> None:
    """[E4] There is nothing to compare: after a full sync of a quiet Central, or at 0."""
    for position in (Position(LOCAL, 100), Position(LOCAL, 0)):
        told = Told(position)

        assert position.offset == told.fetch.offset
        assert isinstance(told.state.phase, Polling)


def test_a_position_that_is_gone_is_a_full_sync_and_no_failure() -> None:
    """[E3] 410 at the position: the versions held still count."""
    told = followed()
    told.fails(Failure.GONE)

    assert isinstance(told.command, FetchPage)
    assert told.command.same_generation
    assert 0 == told.state.health.failures
