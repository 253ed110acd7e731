"""Following the feed from a position."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from store_cache.catalogue.apply import NAMELESS
from store_cache.model.event import Event, Kind
from store_cache.model.position import Position, next_local_generation
from store_cache.sync.backoff import (
    FIRST_SPACING_SECONDS,
    LONG_PAUSE_SECONDS,
    LONGEST_SPACING_SECONDS,
)
from store_cache.sync.cursor import arrange
from store_cache.sync.states import (
    ApplyEvents,
    Applying,
    Checking,
    Failure,
    FetchEvents,
    FetchPage,
    FullSyncFailed,
    FullSyncSpacing,
    Interrupted,
    Polling,
    Sleep,
    Sleeping,
    SyncSettings,
)
from tests.unit.sync.driven_sync import (
    LOCAL,
    START,
    DrivenSync,
    at,
    event,
    events,
    followed,
    nameless,
)
from tests.unit.sync.small_central import SmallCentral, SmallStore, following

BACKOFFS = [0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4]
"""After how many seconds each a gap is asked for again, until 2 s, the default grace, are over."""


# -- the position ------------------------------------------------------------------------------


def test_the_position_moves_once_events_are_applied() -> None:
    """[P4] Not when they arrive: a store that dies between asks for them again."""
    sync = followed()
    sync.answers(100, 101, next_offset=102, has_more=False)
    assert at(100) == sync.state.position

    sync.applies()
    assert at(102) == sync.state.position


def test_a_page_is_applied_as_far_as_it_is_contiguous() -> None:
    """[P4] Events after a gap wait, whatever `nextOffset` says."""
    sync = followed()
    sync.answers(100, 101, 103, next_offset=104, has_more=False)

    assert ApplyEvents(events(100, 101), at(102)) == sync.command


@pytest.mark.parametrize("next_offset", [None, 0, 100, 101, 150])
@pytest.mark.parametrize("has_more", [None, False, True])
def test_hints_never_move_the_position(next_offset: int | None, has_more: bool | None) -> None:
    """[P4] Whatever Central says of where its page leads, the store counts for itself."""
    sync = followed()
    sync.answers(100, next_offset=next_offset, has_more=has_more)

    assert ApplyEvents(events(100), at(101)) == sync.command
    sync.applies()
    assert 101 == sync.fetch.offset


@pytest.mark.parametrize("next_offset", [0, 99, 101, 5000])
def test_an_empty_answer_moves_nothing(next_offset: int) -> None:
    """[P4] The store may ask again, or lose its position, but never skips events."""
    sync = followed()
    sync.answers(next_offset=next_offset, has_more=False)

    assert at(100) == sync.state.position
    assert sync.is_sleeping()


def test_the_event_before_the_position_may_come_again() -> None:
    """[P2] A position may be polled from the last event or from the next one."""
    sync = followed()
    sync.answers(99, 100, next_offset=101, has_more=False)
    assert ApplyEvents(events(100), at(101)) == sync.command

    sync.applies()
    assert sync.now == sync.state.in_sync_at


def test_a_feed_may_begin_at_0() -> None:
    """[P2] Then 0 is an offset like any other."""
    sync = followed(0)
    assert 0 == sync.fetch.offset
    sync.receives(0, 1)

    assert at(2) == sync.state.position


@pytest.mark.parametrize("head", [4, 1], ids=["with events", "empty"])
def test_a_feed_may_begin_at_1(head: int) -> None:
    """[P2] Then 0 is no gap, once the grace has shown that no event comes there."""
    store = SmallStore(SmallCentral(first=1, head=head, says_gone=False), Position(LOCAL, 0))
    store.of_feed = "feed"
    store.runs(store.is_in_sync)

    assert (at(head) if head > 1 else Position(LOCAL, 1)) == store.state.position
    assert store.now - START < 3
    assert 0 == store.state.full_syncs_begun


def test_local_generations_change_with_each_replacement() -> None:
    """[P1] If Central names none, the store counts the feeds that it has known."""
    names = [next_local_generation(None)]
    for _ in range(2):
        names.append(next_local_generation(names[-1]))

    assert 3 == len(set(names))
    assert all(Position(name, 0).is_local for name in names)
    assert not Position(next_local_generation("g-7"), 0).named


def test_a_feed_that_gets_a_name_keeps_its_place() -> None:
    """[P1] A Central that was upgraded is verified first; then the position takes the name."""
    sync = followed()
    sync.answers(100, next_offset=101, has_more=False, generation="g-1")
    assert FetchEvents(99, 100, 0) == sync.command

    sync.answers(99, generation="g-1")
    assert at(100, "g-1") == sync.state.position


def test_a_feed_that_gets_a_name_is_followed_if_its_log_forgot_the_event_before() -> None:
    """[P1] [E4] The comparison is 410 and proves nothing: it is not asked for again and again."""
    sync = followed()
    sync.answers(100, generation="g-1")
    sync.fails(Failure.GONE)
    sync.answers(100, generation="g-1")

    assert ApplyEvents(events(100), at(101, "g-1")) == sync.command


def test_another_feed_that_names_itself_is_noticed() -> None:
    """[P1] A Central that names its feed, where one without a name had been, may be another."""
    sync = followed()
    sync.answers(100, next_offset=101, has_more=False, generation="g-1")
    sync.answers(event(99, "other"), generation="g-1")

    assert sync.is_central_replaced()


def test_offsets_of_another_generation_are_worth_nothing() -> None:
    """[P1] Not even contiguous events are applied; a full sync begins at once."""
    sync = followed(generation="g-1")
    sync.answers(100, 101, next_offset=102, generation="g-2")

    assert at(100, "g-1") == sync.state.position
    assert FetchPage(None, begins=True, same_generation=False) == sync.command
    assert ("Central has a new generation g-2",) == sync.full_sync.reasons


def test_a_central_that_leaves_its_name_out_is_the_same() -> None:
    """[P1] An older instance behind the same address may answer in between."""
    sync = followed(generation="g-1")
    sync.receives(100)

    assert at(101, "g-1") == sync.state.position


# -- asking ------------------------------------------------------------------------------------


def test_a_held_poll_is_followed_by_the_next_at_once() -> None:
    """[E1] There is always one poll with Central, also after one is interrupted."""
    sync = followed()
    for _ in range(2):
        assert FetchEvents(100, 100, 20) == sync.command
        sync.answers(next_offset=100, held=20.0)
    sync.tell(Interrupted())

    assert FetchEvents(100, 100, 20) == sync.command


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
    store.runs(store.is_in_sync)

    assert store.now - began_at < 21  # the poll that was held, and ten exchanges
    assert 0 == store.state.full_syncs_begun


@pytest.mark.parametrize("has_more", [True, None])
def test_a_full_page_leaves_more(has_more: bool | None) -> None:
    """[E1] A full page means more if Central does not say whether there is more."""
    sync = followed(settings=SyncSettings(batch_limit=2))
    sync.waits(1.0)
    sync.answers(100, 101, has_more=has_more)
    sync.applies()

    assert isinstance(sync.command, FetchEvents)
    assert sync.now - 1.0 == sync.state.in_sync_at


def test_in_sync_is_an_answer_that_left_nothing_behind() -> None:
    """[B5] Not one with more behind it, nor one beyond which events are missing."""
    sync = followed()
    began_at = sync.now
    sync.waits(1.0)
    sync.answers(100, next_offset=101, has_more=True)
    sync.applies()
    sync.answers(101, 103, next_offset=104, has_more=False)
    sync.applies()
    sync.answers(104, next_offset=105, has_more=False)
    sync.sleeps()
    assert began_at == sync.state.in_sync_at

    sync.answers(102, 103, 104, next_offset=105, has_more=False)
    sync.applies()
    assert sync.now == sync.state.in_sync_at


@pytest.mark.parametrize(
    ("held", "in_sync_after"),
    [
        (20.0, 20.0),
        (20.02, 20.0),
        (29.0, 20.0),  # it was under way for 9 s
        (12.0, 0.0),  # it may have been answered at once, and been under way since
        (0.02, 0.0),
    ],
)
def test_an_empty_answer_proves_what_was_there_when_it_was_sent(
    held: float, in_sync_after: float
) -> None:
    """[B5] After `wait`, if it took so long: a Central that holds polls sends it then. Else nothing
    tells that it was not sent as soon as it was asked for."""
    sync = followed()
    began_at = sync.now
    sync.answers(next_offset=100, held=held)

    assert began_at + in_sync_after == sync.state.in_sync_at


@pytest.mark.parametrize("early", [0.02, 12.0])
def test_a_late_answer_of_a_central_that_may_not_hold_proves_no_more(early: float) -> None:
    """[B5] An empty answer came sooner than `wait`, so a later one may have been sent at once, too,
    and have been under way for longer than that. Events in between tell nothing else. After a
    failure another Central may answer, and holds polls as far as is known."""
    sync = followed()
    sync.answers(next_offset=100, held=early)
    sync.answers(100, next_offset=101, has_more=False, held=0.02)
    sync.applies()
    for _ in range(2):
        asked_at = sync.now
        sync.answers(next_offset=101, held=21.0)
        assert asked_at == sync.state.in_sync_at

    sync.fails()
    sync.sleeps()
    sync.answers(next_offset=101)
    asked_at = sync.now
    sync.answers(next_offset=101, held=21.0)
    assert asked_at + 20.0 == sync.state.in_sync_at


def test_a_poll_may_be_held_a_little_less_long_than_wait() -> None:
    """[B5] By Central's clock it was held for `wait`. That proves nothing of later ones."""
    sync = followed()
    asked_at = sync.now
    sync.answers(next_offset=100, held=19.9)
    assert asked_at == sync.state.in_sync_at

    asked_at = sync.now
    sync.answers(next_offset=100, held=20.1)
    assert asked_at + 20.0 == sync.state.in_sync_at


def test_events_prove_what_was_there_when_they_were_asked_for() -> None:
    """[B5] However long their answer was under way, and however long the disk takes."""
    sync = followed()
    began_at = sync.now
    sync.answers(100, next_offset=101, has_more=False, held=8.0)
    sync.waits(50.0)
    sync.applies()

    assert began_at == sync.state.in_sync_at


def test_a_central_that_does_not_hold_is_asked_at_the_interval() -> None:
    """[E1] One empty answer at once may be chance; two mean that Central does not hold polls."""
    sync = followed()
    sync.answers(next_offset=100)
    assert isinstance(sync.state.phase, Polling)
    sync.answers(next_offset=100)

    assert Sleep(30.0) == sync.command
    sync.sleeps()
    assert isinstance(sync.state.phase, Checking)


def test_a_central_that_does_not_hold_is_drained_too() -> None:
    """[E1] All events of an interval are fetched, then the next interval begins."""
    central = SmallCentral(holds=False)
    store = following(central)
    store.runs(store.is_sleeping)
    central.publish(250)
    slept_at = store.now
    store.runs(store.is_in_sync)

    assert store.now - slept_at < 31
    store.runs(store.is_sleeping)
    assert Sleep(30.0) == store.command


def test_a_poll_that_was_not_to_be_held_says_nothing_about_holding() -> None:
    """[E1] A probe after a failure asks without a wait: a flapping connection does not mean that
    Central does not hold polls."""
    sync = DrivenSync(Position(LOCAL, 100))
    for _ in range(5):
        sync.fails()
        sync.sleeps()
        assert FetchEvents(100, 100, 0) == sync.command
        sync.answers(next_offset=100)
        assert FetchEvents(100, 100, 20) == sync.command


def test_a_probe_does_not_make_a_central_hold() -> None:
    """[E1] A Central that was known not to hold is asked at the interval again at once."""
    sync = followed()
    sync.answers(next_offset=100)
    sync.answers(next_offset=100)
    sync.sleeps()
    sync.answers(99)
    sync.fails()
    sync.sleeps()
    sync.answers(99)
    sync.answers(next_offset=100)

    assert Sleep(30.0) == sync.command


def test_a_poll_is_held_no_longer_than_until_a_full_sync_is_due() -> None:
    """[F6] Then the full sync begins; the last second is not spent on poll after poll."""
    store = following(SmallCentral())
    store.central.first = 60
    store.central.head = 60
    store.runs(lambda: len(store.state.full_syncs) == 1 and not store.is_full_syncing())
    store.requests("a repair failed")
    due, commands = store.state.spacing.next_at, store.commands
    store.runs(store.is_full_syncing)

    assert 0 <= store.now - due < 1.1
    assert store.commands - commands < 5


def test_a_poll_is_held_as_long_as_a_full_sync_is_not_due() -> None:
    """[F6] Rounded up to whole seconds, from now on, and never longer than usual; also on a machine
    that has just started, whose clock says little."""
    sync = followed()
    sync.now = 3.0
    held = []
    for seconds in (0.1, 6.2, 19.5, 300.0):
        spacing = FullSyncSpacing(next_at=sync.now + seconds)
        sync.state = replace(sync.state, spacing=spacing)
        sync.requests("a repair failed")
        held.append(sync.fetch.wait_seconds)

    assert [1, 7, 20, 20] == held


def test_an_interval_poll_starts_at_every_interval() -> None:
    """[E1] With `POLL_MODE=interval` it drains what there is, then leaves Central alone."""
    central = SmallCentral(holds=False)
    store = following(central, SyncSettings(continuous=False, interval_seconds=60))
    began: list[float] = []
    for _ in range(4):
        store.runs(store.is_sleeping)
        central.publish(150)
        store.step()
        began.append(store.now)

    intervals = [later - earlier for earlier, later in pairwise(began)]
    assert all(59.9 < seconds < 60.1 for seconds in intervals), intervals


def test_of_the_polls_of_an_interval_only_the_first_one_is_held() -> None:
    """[E1] Those that follow it drain what there is."""
    sync = followed(settings=SyncSettings(continuous=False))
    sync.answers(next_offset=100)
    sync.sleeps()
    sync.answers(99)
    held = [sync.fetch.wait_seconds]
    for offset in (100, 101):
        sync.receives(offset)
        held.append(sync.fetch.wait_seconds)

    assert [20, 0, 0] == held


def test_an_interval_poll_verifies_the_feed_first() -> None:
    """[E4] No poll was held meanwhile: Central may be another one."""
    sync = followed(settings=SyncSettings(continuous=False))
    sync.answers(next_offset=100)
    sync.sleeps()

    assert FetchEvents(99, 100, 0) == sync.command


def test_an_interval_ends_early_for_a_full_sync_that_is_due() -> None:
    """[F6] A long interval does not delay it."""
    sync = followed(settings=SyncSettings(continuous=False, interval_seconds=300.0))
    sync.fails(Failure.GONE)
    sync.goes_well(head=101)
    sync.installs()
    sync.requests("a repair failed")
    while not isinstance(sync.state.phase, Sleeping):
        sync.answers(100, next_offset=101, has_more=False)

    assert isinstance(sync.command, Sleep)
    assert sync.command.at_least_seconds <= 30


# -- order -------------------------------------------------------------------------------------


def test_a_batch_is_sorted() -> None:
    """[E2] Two concurrent writers may publish out of order."""
    sync = followed()
    sync.answers(102, 100, 101, next_offset=101, has_more=False)

    assert ApplyEvents(events(100, 101, 102), at(103)) == sync.command


def test_early_events_are_not_fetched_again() -> None:
    """[E2] Once the gap is filled, the events behind it are there."""
    sync = followed()
    sync.answers(101, 102, next_offset=103, has_more=False)
    sync.sleeps()
    sync.answers(100, next_offset=101)

    assert ApplyEvents(events(100, 101, 102), at(103)) == sync.command


def fails_once(sync: DrivenSync) -> None:
    sync.fails()
    sync.sleeps()


def is_limited_for_long(sync: DrivenSync) -> None:
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()


def tries_a_full_sync(sync: DrivenSync) -> None:
    sync.requests("a repair failed")
    sync.tell(FullSyncFailed("pages without end"))


def seems_to_go_backwards(sync: DrivenSync) -> None:
    sync.answers(next_offset=90)
    sync.sleeps()


@pytest.mark.parametrize(
    "interrupt", [fails_once, is_limited_for_long, tries_a_full_sync, seems_to_go_backwards]
)
def test_early_events_are_dropped_if_the_feed_must_be_verified(
    interrupt: Callable[[DrivenSync], None],
) -> None:
    """[E2] [E4] A Central restored meanwhile has the same event before the position and others
    behind it: early events of the old feed are not applied over them."""
    sync = followed()
    sync.answers(102, 103, next_offset=104)
    sync.sleeps()
    interrupt(sync)
    sync.answers(99)
    sync.answers(100, 101, next_offset=102)

    assert ApplyEvents(events(100, 101), at(102)) == sync.command


def test_early_events_are_bounded() -> None:
    """[E2] A feed that runs on beyond a gap does not fill the memory."""
    sync = followed(settings=SyncSettings(grace_seconds=60.0))
    for start in range(101, 9000, 500):
        sync.answers(*range(start, start + 500))
        sync.sleeps()

    assert sync.state.cursor is not None
    early = sync.state.cursor.early
    assert (5000, 101) == (len(early), early[0].offset)


def test_early_events_of_large_products_are_bounded_by_their_bytes() -> None:
    """[E2] 8 MiB of rows, whatever their number."""
    large = b"x" * 2**20
    arrived = [Event(offset, Kind.UPDATED, "P-1", 1, large, "f") for offset in range(101, 113)]
    ready, early = arrange(100, (), arrived)

    assert ((), 8) == (ready, len(early))


def test_repeated_events_are_applied_once() -> None:
    """[E2] The same offset twice in a page is one event."""
    sync = followed()
    sync.answers(100, 100, 101, 101)

    assert ApplyEvents(events(100, 101), at(102)) == sync.command


def test_an_event_without_a_product_needs_a_full_sync() -> None:
    """[E5] Nothing else can tell what it changed. The position goes past it."""
    sync = followed()
    sync.answers(100, nameless(101))
    assert isinstance(sync.command, ApplyEvents)
    sync.applies()

    assert (NAMELESS,) == sync.full_sync.reasons
    assert at(102) == sync.state.position
    assert sync.state.lost is None


def test_the_feed_is_followed_until_a_full_sync_for_a_nameless_event_is_due() -> None:
    """[E5] [F6] They are spaced, for as long as such events come, but the next loss of the feed is
    not."""
    sync = followed()
    sync.answers(nameless(100))
    sync.applies()
    sync.ends_well(head=101)
    sync.waits(5.0)
    sync.answers(nameless(101))
    sync.applies()

    assert (NAMELESS,) == sync.requested
    assert FetchEvents(102, 100, 20) == sync.command
    sync.answers(102)
    sync.applies()
    assert at(103) == sync.state.position
    sync.fails(Failure.GONE)
    assert sync.is_full_syncing()


def test_the_spacing_for_nameless_events_starts_over_after_ten_minutes() -> None:
    """[E5] [F6] One such event a day is made up for at once."""
    sync = followed()
    for offset in (100, 101):
        sync.answers(nameless(offset))
        sync.applies()
        sync.ends_well(head=offset + 1)
        sync.waits(LONGEST_SPACING_SECONDS)
    sync.answers(nameless(102))
    sync.applies()

    assert sync.is_full_syncing()
    sync.ends_well(head=103)
    assert FIRST_SPACING_SECONDS == sync.state.nameless_spacing.delay_seconds


# -- gaps --------------------------------------------------------------------------------------


def meets_a_gap(where: str, settings: SyncSettings | None = None) -> DrivenSync:
    """A store whose Central has answered that events are missing at the position: at 100, or at 102
    once the events before are applied."""
    sync = followed(settings=settings)
    match where:
        case "at the start":
            sync.answers(101, 102, next_offset=103, has_more=False)
        case "in the middle":
            sync.answers(100, 101, 103, next_offset=104, has_more=False)
        case "at the end":
            sync.answers(100, 101, next_offset=103, has_more=False)
        case "in an empty answer":
            sync.answers(next_offset=101, has_more=False)
    if isinstance(sync.state.phase, Applying):
        sync.applies()
        assert FetchEvents(102, 100, 0) == sync.command
        sync.answers(next_offset=103)
    return sync


WHERE = ["at the start", "in the middle", "at the end", "in an empty answer"]


@pytest.mark.parametrize("where", WHERE)
def test_a_gap_is_asked_for_again_after_a_short_back_off(where: str) -> None:
    """[E3] At the start, in the middle, at a page's end or in an empty answer; without `wait`."""
    sync = meets_a_gap(where)

    assert Sleep(0.05) == sync.command
    sync.sleeps()
    assert 0 == sync.fetch.wait_seconds


@pytest.mark.parametrize("where", WHERE)
def test_a_gap_that_is_filled_within_the_grace_is_no_loss(where: str) -> None:
    """[E3] An event that appears a moment later is applied, and no full sync runs."""
    sync = meets_a_gap(where)
    for _ in range(4):
        sync.sleeps()
        sync.answers(next_offset=103)
    sync.sleeps()
    sync.receives(*range(sync.fetch.offset, 105))

    assert at(105) == sync.state.position
    assert sync.now == sync.state.in_sync_at
    assert 0 == sync.state.full_syncs_begun


@pytest.mark.parametrize("where", WHERE)
def test_a_gap_that_stays_is_loss(where: str) -> None:
    """[E3] Asked for again after 0.05, 0.1, 0.2, 0.4 s ... until the grace is over; then a full
    sync at once, which is no failure."""
    sync = meets_a_gap(where)
    first = sync.sleeps()

    assert BACKOFFS == [first, *sync.repeats(next_offset=103, has_more=False)]
    assert FetchPage(None, begins=True, same_generation=True) == sync.command
    assert ("events are missing from Central's feed",) == sync.full_sync.reasons
    assert 0 == sync.state.health.failures


def test_the_grace_is_a_setting() -> None:
    """[E3] `HOLE_GRACE_SECONDS`."""
    sync = meets_a_gap("at the start", SyncSettings(grace_seconds=0.1))
    sync.sleeps()

    assert [0.1] == sync.repeats(101)
    assert isinstance(sync.command, FetchPage)


def test_an_answer_that_took_longer_than_the_grace_proves_no_loss() -> None:
    """[E3] It says how things were when it was asked for: a gap gets its grace on a slow
    connection, too."""
    sync = meets_a_gap("at the start")
    sync.sleeps()
    sync.answers(101, held=6.0)
    assert sync.is_sleeping()

    sync.sleeps()
    sync.answers(100, 101)
    assert ApplyEvents(events(100, 101, 102), at(103)) == sync.command


def test_each_gap_has_its_own_grace() -> None:
    """[E3] A feed out of order all the time, each event a moment late, loses nothing."""
    central = SmallCentral()
    store = following(central)
    for _ in range(200):
        missing = central.head + 1
        central.missing.add(missing)
        central.publish(3)
        store.later(0.11, partial(central.missing.discard, missing))
        for _ in range(4):
            store.step()
    store.runs(store.is_in_sync)

    assert at(650) == store.state.position
    assert 0 == store.state.full_syncs_begun


def test_a_failure_stops_the_clock_of_a_gap() -> None:
    """[E3] The grace is time in which Central could be asked."""
    sync = meets_a_gap("at the start")
    sync.sleeps()
    sync.fails()
    sync.waits(60.0)
    sync.sleeps()
    sync.answers(99)
    sync.answers(101)

    assert Sleep(0.05) == sync.command


def test_an_older_central_that_starts_later_is_loss() -> None:
    """[E3] Some answer from the oldest event they still have instead of 410."""
    central = SmallCentral(says_gone=False)
    store = following(central)
    store.later(1, lambda: central.publish(500))
    store.later(1, lambda: setattr(central, "first", 300))
    store.runs(store.is_full_syncing)
    assert ("events are missing from Central's feed",) == store.full_sync.reasons

    store.runs(store.is_in_sync)
    assert 1 == store.state.full_syncs_begun


def test_a_feed_that_went_backwards_is_a_new_one() -> None:
    """[E3] Still lower after the grace: its versions do not count any more."""
    sync = followed()
    sync.repeats(next_offset=40)

    assert START + 2 <= sync.now <= START + 3
    assert FetchPage(None, begins=True, same_generation=False) == sync.command


def test_a_feed_that_is_lower_for_a_moment_is_the_same() -> None:
    """[E3] `nextOffset` may go back if two writers publish out of order."""
    sync = followed()
    sync.answers(next_offset=99)
    sync.sleeps()
    sync.answers(99, next_offset=100)
    sync.answers(next_offset=100)

    assert sync.now == sync.state.in_sync_at
    assert 0 == sync.state.full_syncs_begun


def test_a_restored_central_that_grows_past_the_position_meanwhile_is_noticed() -> None:
    """[E4] It was lower for a moment; its new events at the same offsets are not the store's."""
    sync = followed()
    sync.answers(next_offset=98)
    sync.sleeps()
    assert FetchEvents(99, 100, 0) == sync.command
    sync.answers(event(99, "restored"))

    assert sync.is_central_replaced()


# -- the fingerprint ---------------------------------------------------------------------------


def test_the_feed_is_verified_at_start() -> None:
    """[E4] The event before the position is asked for, without `wait`, and must be the same. Those
    after it are asked for with it."""
    sync = DrivenSync(at(100))
    assert FetchEvents(99, 100, 0) == sync.fetch
    sync.answers(99, 100)

    assert ApplyEvents(events(100), at(101)) == sync.command


def test_no_poll_is_held_before_the_store_is_in_sync_again() -> None:
    """[E1] [B5] On a quiet feed the store would otherwise look stale after a start or an outage for
    as long as Central holds the first poll."""
    sync = followed()
    sync.fails()
    sync.sleeps()
    assert FetchEvents(99, 100, 0) == sync.command
    sync.answers(99)

    assert sync.now == sync.state.in_sync_at
    assert FetchEvents(100, 100, 20) == sync.command


@pytest.mark.parametrize(
    "failure", [kind for kind in Failure if kind not in (Failure.LIMITED, Failure.GONE)]
)
def test_the_feed_is_verified_after_every_failed_exchange(failure: Failure) -> None:
    """[E4] Central may have been restored from a backup meanwhile."""
    sync = followed()
    sync.fails(failure)
    sync.sleeps()

    assert FetchEvents(99, 100, 0) == sync.command


@pytest.mark.parametrize("has_more", [True, None])
def test_the_event_before_the_position_alone_is_not_the_end(has_more: bool | None) -> None:
    """[E4] [B5] NATS may have sent no other yet, and no more may fit into a page. A page that is
    empty is the end, whatever it says of more: the store would ask again and again."""
    sync = DrivenSync(at(100), SyncSettings(batch_limit=1 if has_more is None else 100))
    sync.answers(99, next_offset=100, has_more=has_more)

    assert (None, False) == (sync.state.in_sync_at, sync.state.is_proven)
    assert (100, 0) == (sync.fetch.offset, sync.fetch.wait_seconds)
    sync.answers(next_offset=100, has_more=True)
    assert sync.now == sync.state.in_sync_at


def test_another_event_before_the_position_is_another_feed() -> None:
    """[E4] A Central restored from a backup uses offsets again."""
    sync = DrivenSync(at(100))
    sync.answers(event(99, "restored"))

    assert FetchPage(None, begins=True, same_generation=False) == sync.command
    assert ("Central's feed holds another event at the position",) == sync.full_sync.reasons


@pytest.mark.parametrize("head", [60, 99, 100, 101, 5000])
def test_a_restored_central_is_noticed_whatever_its_head(head: int) -> None:
    """[E4] Below the position, at it, and beyond it."""
    central = SmallCentral(head=100)
    store = following(central)
    central.replace("restored", head=head)
    store.fails()
    store.runs(store.is_in_sync)

    assert 1 == store.state.full_syncs_begun
    assert next_local_generation(LOCAL) == (store.state.position or at(0)).generation


def test_a_log_that_forgot_the_event_before_proves_nothing() -> None:
    """[E4] 410 for the event before the position, or an answer that begins later: the position
    holds."""
    sync = DrivenSync(at(100))
    sync.fails(Failure.GONE)
    assert 100 == sync.fetch.offset

    sync = DrivenSync(at(100))
    sync.answers(100, next_offset=101)
    assert ApplyEvents(events(100), at(101)) == sync.command
    assert 0 == sync.state.full_syncs_begun


def test_a_wiped_central_is_noticed_by_the_comparison() -> None:
    """[E4] Its log ends before the event that is asked for, and still does after the grace."""
    sync = DrivenSync(at(100))

    assert BACKOFFS == sync.repeats(next_offset=0)
    assert sync.is_central_replaced()


def test_a_log_that_ends_just_before_the_position_is_verified_again() -> None:
    """[E4] A backup without the last event: only the comparison tells."""
    sync = DrivenSync(at(100))
    sync.answers(next_offset=99)
    sync.sleeps()

    assert FetchEvents(99, 100, 0) == sync.command


@pytest.mark.parametrize("offset", [0, 100])
def test_a_position_without_a_fingerprint_is_polled_at_once(offset: int) -> None:
    """[E4] There is nothing to compare: after a full sync of a quiet Central, or at 0."""
    sync = DrivenSync(Position(LOCAL, offset))

    assert offset == sync.fetch.offset
    assert isinstance(sync.state.phase, Polling)


def test_a_position_that_is_gone_is_a_full_sync_and_no_failure() -> None:
    """[E3] [E4] 410 at the position: the versions held still count."""
    sync = followed()
    sync.fails(Failure.GONE)

    assert FetchPage(None, begins=True, same_generation=True) == sync.command
    assert 0 == sync.state.health.failures
