"""A full sync: why it runs, what it reads in which order, and what it makes of trouble."""

from itertools import pairwise

import pytest

from store_cache.catalogue.replica import Installation
from store_cache.model.pages import PageRequest
from store_cache.model.position import Position, next_local_generation
from store_cache.sync.cursor import ANOTHER_EVENT, ENDS_SHORT
from store_cache.sync.full_sync import FAR_OFFSET, HEAD_GONE, OUTRUN
from store_cache.sync.states import (
    FALLBACK_TIMER,
    ON_DEMAND,
    ApplyEvents,
    Failure,
    FetchEvents,
    FetchPage,
    FullSyncFailed,
    FullSyncStep,
    InstallReplica,
    ProductsRefetched,
    RefetchProducts,
    Sleep,
)
from tests.unit.sync.small_central import SmallCentral, SmallStore
from tests.unit.sync.told_sync import LOCAL, START, Told, at, event, events, nameless

MISSING = "events were missing from Central's feed during the full sync"


def followed(generation: str = LOCAL) -> Told:
    """A store that polls its feed at 100, and has nothing else to do."""
    told = Told(at(100, generation))
    told.answers(99)
    return told


def asked(**wanted: bool) -> Told:
    """The same store, in the first page of a full sync that an operator asked for."""
    told = followed()
    told.wants(ON_DEMAND, forced=True, **wanted)
    return told


def goes_well(told: Told, *, head: int = 100, feed: str = "feed") -> None:
    """Central answers well, until the copy is to be put in place."""
    while not isinstance(told.command, InstallReplica):
        match told.command:
            case FetchPage():
                told.page(last=True, head=head)
            case FetchEvents(offset):
                told.answers(*events(*range(offset, head), feed=feed), next_offset=head)
            case ApplyEvents():
                told.keeps()
            case RefetchProducts():
                told.settles()
            case Sleep():
                told.rests()


def placed(told: Told, *, head: int = 100) -> None:
    goes_well(told, head=head)
    told.places()


def loses(told: Told) -> None:
    """The position is gone; a full sync begins as soon as it may."""
    told.fails(Failure.GONE)
    assert told.state.lost


# -- why, and how often ------------------------------------------------------------------------


def test_a_store_with_nothing_on_disk_begins_with_a_full_sync() -> None:
    """[F1] At once, and it says why."""
    told = Told()

    assert FetchPage(None, begins=True, same_generation=True) == told.command
    assert ("first start",) == told.full_sync.reasons


def test_a_store_with_a_position_does_not() -> None:
    """[D7] It resumes the feed where it left off."""
    assert 0 == followed().state.full_syncs_begun


def test_each_run_records_its_reasons_and_its_end() -> None:
    """[F1] What an operator asks afterwards."""
    told = followed()
    loses(told)
    placed(told)
    told.wants(ON_DEMAND, forced=True)
    told.tell(FullSyncFailed("pages without end"))

    first, second = told.state.full_syncs
    assert ("the position is gone (410): it was gone",) == first.reasons
    assert (1, 400, "") == (first.number, first.products, first.problem)
    assert ((ON_DEMAND,), 0, "pages without end") == (
        second.reasons,
        second.products,
        second.problem,
    )


def test_reasons_that_come_before_a_run_share_it() -> None:
    """[F1] One run answers them all."""
    told = followed()
    loses(told)
    placed(told)
    told.wants("a repair failed")
    told.wants("another repair failed")
    told.wants("a repair failed")
    told.wants(ON_DEMAND, forced=True)

    assert ("a repair failed", "another repair failed", ON_DEMAND) == told.full_sync.reasons


def test_triggers_during_a_run_are_satisfied_by_one_that_began_after_them() -> None:
    """[F1] At most one more follows, however many they are; the one under way goes on."""
    told = asked()
    told.page(head=100)
    for _ in range(5):
        told.wants(ON_DEMAND, forced=True)
    assert 1 == told.state.full_syncs_begun

    placed(told)
    assert 2 == told.state.full_syncs_begun
    placed(told)
    assert 2 == told.state.full_syncs_begun
    assert not told.is_running()


def test_a_run_that_began_before_a_trigger_does_not_count() -> None:
    """[F1] Nor does one that begins its copy afresh: it has read pages from before it."""
    told = asked()
    told.page(head=100)
    told.wants("a repair failed")
    told.fails(Failure.GONE)
    placed(told)

    assert ("a repair failed",) == told.full_sync.reasons


def test_a_forced_run_that_accepts_is_not_absorbed_by_a_plain_one() -> None:
    """[F5] The plain run places nothing unasked for; the next one says `accept`."""
    told = asked()
    told.wants(ON_DEMAND, forced=True, accept=True)
    goes_well(told)
    assert not told.installation.accept
    told.places()

    goes_well(told)
    assert told.installation.accept


def test_runs_that_do_not_hold_are_spaced() -> None:
    """[F6] The first at once, the next after 30 s, doubling to ten minutes."""
    told = followed()
    began = []
    for _ in range(8):
        while not told.is_running():
            loses(told) if isinstance(told.command, FetchEvents) else told.rests()
        began.append(told.now)
        placed(told)

    gaps = [later - earlier for earlier, later in pairwise(began)]
    assert [30, 60, 120, 240, 480, 600, 600] == gaps


def test_a_central_with_a_hole_that_stays_is_not_read_again_and_again() -> None:
    """[F6] Each copy is put in place at a hole that the grace then shows to be loss."""
    central = SmallCentral()
    store = SmallStore(central, at(50))
    store.of_feed = central.feed

    def skips() -> None:
        central.missing.add(central.head)
        central.publish(2)
        store.later(1.0, skips)

    skips()
    while store.now < START + 1200:
        store.step()

    assert 4 <= store.state.full_syncs_begun <= 7


def test_what_was_missing_when_the_copy_was_placed_did_not_hold() -> None:
    """[F6] It takes the grace to be seen, so the next run waits."""
    told = followed()
    loses(told)
    placed(told)
    told.answers(101)
    while not told.state.lost:
        told.rests()
        told.answers(101)

    assert told.is_resting()
    assert not told.is_running()


def test_a_run_that_has_held_gives_the_next_its_first_attempt_back() -> None:
    """[F6] A loss long after it is not the last one's fault."""
    told = followed()
    for _ in range(5):
        loses(told)
        assert told.is_running()
        placed(told)
        told.waits(20.0)


def test_an_operator_is_not_made_to_wait() -> None:
    """[F6] Only runs that the store starts by itself are spaced, and a forced one spaces none."""
    told = followed()
    loses(told)
    placed(told)
    due = told.state.spacing
    for _ in range(3):
        told.wants(ON_DEMAND, forced=True)
        assert told.is_running()
        placed(told)

    assert (due.next_at, due.delay_seconds) == (
        told.state.spacing.next_at,
        told.state.spacing.delay_seconds,
    )


def test_pages_that_make_no_sense_end_the_run_and_space_the_next() -> None:
    """[F6] A store without a catalogue tries again after 30 s, not at once."""
    told = Told()
    told.tell(FullSyncFailed("pages without end"))

    assert Sleep(30.0) == told.command
    told.rests()
    assert ("first start",) == told.full_sync.reasons


def test_a_store_that_follows_goes_on_while_the_next_run_is_spaced() -> None:
    """[F6] [E4] Its position is still good, if the event before it is still the same: nobody asked
    the feed while the run went on."""
    told = followed()
    told.wants("a repair failed")
    told.tell(FullSyncFailed("pages without end"))

    assert FetchEvents(99, 1, 0) == told.command
    assert ("a repair failed",) == (told.state.requested.reasons if told.state.requested else ())


# -- the head ----------------------------------------------------------------------------------


def test_the_first_page_names_the_head() -> None:
    """[F2] The feed is followed alongside from a little before it, at once."""
    told = Told()
    told.page(head=300)

    assert FetchEvents(280, 100, 0) == told.command


def test_a_young_feed_is_followed_from_its_start() -> None:
    """[F2] There is no offset before 0."""
    told = Told()
    told.page(head=3)

    assert 0 == told.fetch.offset


def test_a_head_that_is_not_named_is_learned_from_the_feed() -> None:
    """[F2] Asked far beyond its end, it says where that is; then the copy begins with the first
    page again, since the one read before is older than the head."""
    told = Told()
    told.page()
    assert FAR_OFFSET == told.fetch.offset
    told.answers(next_offset=300)

    assert FetchPage(None, begins=True, same_generation=True) == told.command
    told.waits(1.0)
    told.page()
    assert 280 == told.fetch.offset


@pytest.mark.parametrize("echo", [FAR_OFFSET, None])
def test_a_feed_that_only_echoes_is_walked_to_its_end(echo: int | None) -> None:
    """[F2] Page by page from the start."""
    told = Told()
    told.page()
    told.answers(next_offset=echo)
    assert 0 == told.fetch.offset
    told.answers(*range(30))
    assert 30 == told.fetch.offset
    told.answers(next_offset=30 if echo else None)

    assert isinstance(told.command, FetchPage)
    told.waits(1.0)
    told.page()
    assert 10 == told.fetch.offset


def test_a_central_that_refuses_the_far_offset_is_walked_too() -> None:
    """[F2] Two thousand million may be more than it can read."""
    told = Told()
    told.page()
    told.fails(Failure.REFUSED)

    assert 0 == told.fetch.offset


def test_a_central_that_ignores_the_far_offset_is_walked_too() -> None:
    """[F2] It answers from the oldest event that it has."""
    told = Told()
    told.page()
    told.answers(40, 41, next_offset=42)
    assert 42 == told.fetch.offset


def test_a_walk_that_the_feed_ends_has_the_pages_read_after_it() -> None:
    """[F2] The first page was read before the head was learned, and shows an older state."""
    told = Told()
    told.page(last=True)
    told.fails(Failure.REFUSED)
    told.answers(*range(60), next_offset=60)
    told.fails(Failure.REFUSED)
    assert FetchPage(None, begins=True, same_generation=True) == told.command
    placed(told)

    assert Position(LOCAL, 60) == told.state.position


def test_a_feed_that_repeats_itself_comes_to_an_end() -> None:
    """[F2] A Central that ignores every offset does not keep the run walking for ever."""
    told = Told()
    told.page()
    told.answers(40, 41)
    told.answers(40, 41)

    assert isinstance(told.command, FetchPage)


def test_a_head_that_nothing_names_is_no_reason_for_no_catalogue() -> None:
    """[F2] No `eventOffset`, an echo, and 410 at the start: the pages go in place as they are."""
    told = Told()
    told.page()
    told.answers(next_offset=FAR_OFFSET)
    told.fails(Failure.GONE)
    told.page(last=True)
    told.settles()

    assert 0 == told.installation.position.offset


# -- the feed alongside ------------------------------------------------------------------------


def test_pages_and_feed_take_turns() -> None:
    """[F2] The feed is read about every second, so that no log outruns slow pages."""
    told = Told()
    told.page(head=100)
    told.answers(*range(80, 100), next_offset=100)
    told.keeps()
    asked_for = []
    for _ in range(12):
        asked_for.append("page" if isinstance(told.command, FetchPage) else "feed")
        told.waits(0.4)
        told.page() if isinstance(told.command, FetchPage) else told.answers(next_offset=100)

    assert ["page"] * 3 + ["feed"] == asked_for[:4]
    assert 3 == asked_for.count("feed")


def test_a_backlog_of_the_feed_goes_before_pages() -> None:
    """[F2] What the log may forget is fetched first."""
    told = Told()
    told.page(head=100)
    told.answers(*range(80, 180), next_offset=180, has_more=True)
    told.keeps()

    assert 180 == told.fetch.offset


def test_the_copy_goes_in_place_when_it_has_caught_up() -> None:
    """[F2] In one step with the position; until then the old one stays."""
    told = followed()
    loses(told)
    told.page(head=200)
    told.answers(*range(180, 200), next_offset=200)
    told.keeps()
    told.page(last=True)
    told.answers(200, 201, next_offset=202, has_more=False)
    told.keeps()
    told.settles()
    told.answers(201)
    assert Installation(at(202)) == told.installation
    assert at(100) == told.state.position

    told.places()
    assert at(202) == told.state.position
    assert told.now == told.state.in_sync_at


def test_a_good_position_is_followed_in_the_catalogue_too() -> None:
    """[F2] Readers of the old catalogue see changes while the new one is read."""
    told = asked()
    told.page(head=101)
    assert 99 == told.fetch.offset  # with the event before it, to be compared (E4)
    told.answers(99, 100, next_offset=101)

    assert ApplyEvents(events(100), at(101), in_catalogue=True, in_replica=True) == told.command
    told.keeps()
    assert at(101) == told.state.position == told.replica_position


@pytest.mark.parametrize("head", [100 + 5001, 98])
def test_a_position_too_far_from_the_head_is_not(head: int) -> None:
    """[F2] The copy is followed from near the head alone."""
    told = asked()
    told.page(head=head)

    assert head - 20 == told.fetch.offset
    assert not told.full_sync.in_catalogue


@pytest.mark.parametrize("head", [99, 100, 101])
def test_last_or_next_offset_makes_no_difference(head: int) -> None:
    """[P2] `eventOffset` may mean either."""
    told = asked()
    told.page(head=head)

    assert 99 == told.fetch.offset
    assert told.full_sync.in_catalogue


def test_doubted_products_are_settled_and_caught_up_with() -> None:
    """[F5] Reading them took time, so the feed is asked once more, until none is left."""
    told = Told()
    told.page(last=True, head=0)
    told.answers(next_offset=0)
    assert isinstance(told.command, RefetchProducts)
    told.settles(read=3)
    assert 0 == told.fetch.offset
    told.answers(0, next_offset=1, has_more=False)
    told.keeps()
    told.settles(read=0)

    assert FullSyncStep.VERIFYING is told.full_sync.step


def test_a_doubted_product_of_another_generation_begins_the_copy_afresh() -> None:
    """[V3] Central was replaced after the last page: what it says of one product is of another
    history than the copy, and none of its rows go in place under the old name."""
    told = followed("g-1")
    told.wants(ON_DEMAND, forced=True)
    told.page(last=True, head=100, generation="g-1")
    told.answers(next_offset=100)
    settle: object = told.command
    assert RefetchProducts("g-1") == settle
    told.tell(ProductsRefetched(0, "g-2"))

    assert FetchPage(None, begins=True, same_generation=False) == told.command
    assert "Central has a new generation g-2" in told.full_sync.reasons


def test_a_log_that_begins_within_the_slack_is_enough() -> None:
    """[F2] 410 a little before the head: the copy is followed from the head itself."""
    told = Told()
    told.page(head=300)
    told.fails(Failure.GONE)
    assert 300 == told.fetch.offset

    told = Told()
    told.page(head=300)
    told.answers(290, 291, next_offset=292, has_more=False)
    assert isinstance(told.command, ApplyEvents)
    assert events(290, 291) == told.command.events


def test_a_log_that_forgot_the_head_leaves_a_doubt() -> None:
    """[F2] Either it is the last event or one was missed: the copy goes in place, and another
    run follows."""
    told = Told()
    told.page(last=True, head=300)
    told.fails(Failure.GONE)
    told.fails(Failure.GONE)
    assert 301 == told.fetch.offset
    placed(told, head=301)

    assert Position(LOCAL, 301) == told.state.position
    assert (HEAD_GONE,) == (told.state.requested.reasons if told.state.requested else ())


def test_the_feed_alongside_is_compared_each_time_it_is_asked() -> None:
    """[E4] Pages take their time: a Central that was restored meanwhile under its own name, and has
    grown past the copy's position, is noticed by the event before it, in the same request."""
    told = Told()
    told.page(head=100)
    told.answers(*range(80, 100), next_offset=100)
    told.keeps()
    told.page()
    told.waits(1.1)
    told.page()
    told.answers(event(99, "another"), event(100, "another"), next_offset=101)

    assert FetchPage(None, begins=True, same_generation=False) == told.command
    assert ("first start", ANOTHER_EVENT) == told.full_sync.reasons


def test_a_log_that_forgot_the_event_before_holds_no_limited_run_up() -> None:
    """[E4] [F6] The comparison is 410, and then it is the limit's turn: the feed is asked from the
    position itself, and not for the comparison time after time."""
    told = Told()
    told.page(last=True, head=100)
    told.answers(*range(80, 100), next_offset=100, has_more=True)
    told.keeps()
    told.fails(Failure.LIMITED, retry_after=3.0)
    told.rests()
    assert 99 == told.fetch.offset
    told.fails(Failure.GONE)
    told.fails(Failure.LIMITED, retry_after=3.0)
    told.rests()

    assert 100 == told.fetch.offset


def test_a_log_that_was_outrun_restarts_the_copy() -> None:
    """[F2] 410 where the copy stands, and not just before it: the feed cannot be followed from
    there any more."""
    told = Told()
    told.page(head=100)
    told.answers(*range(80, 100), next_offset=100)
    told.keeps()
    told.page()
    told.waits(1.1)
    told.page()
    assert 99 == told.fetch.offset
    told.fails(Failure.GONE)
    assert 100 == told.fetch.offset
    told.fails(Failure.GONE)

    assert FetchPage(None, begins=True, same_generation=True) == told.command
    assert ("first start", OUTRUN) == told.full_sync.reasons
    assert 1 == told.state.full_syncs_begun


def test_a_copy_is_not_restarted_for_ever() -> None:
    """[F6] After three times the run has failed, and the next one is spaced."""
    told = Told()
    pages = 0
    while told.is_running():
        if isinstance(told.command, FetchPage):
            pages += 1
            told.page(head=100)
        else:
            told.fails(Failure.GONE)

    assert 4 == pages
    assert Sleep(30.0) == told.command
    assert told.state.full_syncs[-1].problem == f"{OUTRUN}, 4 times in one full sync"


def test_a_hole_that_is_filled_during_a_run_is_no_loss() -> None:
    """[E3] The copy waits for it, within the grace."""
    told = asked()
    told.page(last=True, head=102)
    told.answers(101, next_offset=102)
    assert Sleep(0.05) == told.command
    told.rests()
    told.answers(100, next_offset=101)
    told.keeps()
    placed(told, head=102)

    assert at(102) == told.state.position
    assert told.state.requested is None


def test_a_failure_stops_the_clock_of_a_hole_in_a_run_too() -> None:
    """[E3] The grace is time in which Central could be asked."""
    told = asked()
    told.page(last=True, head=102)
    told.answers(101)
    told.rests()
    told.fails()
    told.waits(60.0)
    told.rests()
    told.answers(99, 101)

    assert Sleep(0.05) == told.command


@pytest.mark.parametrize("arrived", [(101,), ()])
def test_a_hole_that_stays_does_not_restart_the_run(arrived: tuple[int, ...]) -> None:
    """[F2] The copy goes in place beyond it, and another run follows; the catalogue in place is
    not led over it."""
    told = asked()
    told.page(last=True, head=102)
    told.answers(*arrived, next_offset=102 - len(arrived))
    while told.is_resting():
        told.rests()
        told.answers(*arrived, next_offset=102 - len(arrived))
    assert isinstance(told.command, ApplyEvents)
    assert not told.command.in_catalogue
    told.keeps()
    assert at(100) == told.state.position
    placed(told, head=102)

    assert told.state.position is not None
    assert 102 == told.state.position.offset
    assert (MISSING,) == told.full_sync.reasons


def ends_short(told: Told, *, head: int) -> None:
    """Pages name that head, and the feed has nothing from 101 on, until the grace is over."""
    told.page(last=True, head=head)
    told.answers(100, next_offset=101, has_more=False)
    if isinstance(told.command, ApplyEvents):
        told.keeps()
        told.answers(next_offset=101)
    while told.is_resting():
        told.rests()
        told.answers(next_offset=101)


def test_pages_are_read_again_where_the_feed_ends_before_what_they_named() -> None:
    """[F2] [E3] Central was restored behind their back, under its own name: they showed what has
    never been."""
    told = asked()
    ends_short(told, head=110)
    assert FetchPage(None, begins=True, same_generation=True) == told.command
    placed(told, head=101)

    assert at(101) == told.state.position
    assert [""] == [run.problem for run in told.state.full_syncs]
    assert told.state.requested is None


def test_a_feed_that_stays_too_short_has_one_more_run_follow() -> None:
    """[F2] Its last events were lost, or it lags: the copy goes in place all the same, and the
    store asks for no catalogue again and again."""
    told = asked()

    def stays_short() -> None:
        """Twice in one run, which is placed all the same."""
        ends_short(told, head=110)
        ends_short(told, head=110)
        told.settles()
        told.answers(100)
        told.places()
        assert at(101) == told.state.position

    stays_short()
    assert (ENDS_SHORT,) == told.full_sync.reasons
    stays_short()
    assert told.state.requested is None


def test_events_that_a_page_named_may_come_late() -> None:
    """[E3] Within the grace they are no loss."""
    told = asked()
    told.page(last=True, head=102)
    told.answers(100, next_offset=101, has_more=False)
    told.keeps()
    told.answers(next_offset=101)
    told.rests()
    told.answers(101, next_offset=102, has_more=False)
    told.keeps()
    placed(told, head=102)

    assert at(102) == told.state.position
    assert told.state.requested is None


def test_an_offset_0_that_never_was_is_no_hole_in_a_run() -> None:
    """[P2] A feed that begins at 1 leaves no doubt."""
    central = SmallCentral(first=1, head=9, says_gone=False)
    store = SmallStore(central)
    store.runs(store.is_in_step)

    assert 1 == store.state.full_syncs_begun


def test_an_event_without_a_product_during_a_run_has_another_follow() -> None:
    """[E5] The pages may have been read before it."""
    told = asked()
    told.page(last=True, head=100)
    told.answers(nameless(100), next_offset=101)
    assert isinstance(told.command, ApplyEvents)
    assert not told.command.in_catalogue
    told.keeps()
    placed(told, head=101)

    assert ("an event that names no product cannot be applied",) == told.full_sync.reasons


# -- another Central meanwhile -----------------------------------------------------------------


def test_pages_of_another_generation_restart_the_copy() -> None:
    """[F1] Half of one Central and half of another is no catalogue."""
    told = Told()
    told.page(head=100, generation="g-1")
    told.answers(*range(80, 100), next_offset=100, generation="g-1")
    told.keeps()
    told.page(generation="g-2")

    assert FetchPage(None, begins=True, same_generation=False) == told.command
    assert told.is_central_replaced()


def test_events_of_another_generation_restart_the_copy() -> None:
    """[F1] The feed may be asked before the next page is."""
    told = Told()
    told.page(head=100, generation="g-1")
    told.answers(80, generation="g-2")

    assert FetchPage(None, begins=True, same_generation=False) == told.command


def test_a_first_page_of_another_generation_is_noticed() -> None:
    """[V3] The versions held do not count against its rows, and no event of the old feed is laid
    over them."""
    told = followed("g-1")
    told.wants(ON_DEMAND, forced=True)
    told.page(head=100, generation="g-2")
    assert FetchPage(None, begins=True, same_generation=False) == told.command
    told.page(head=100, generation="g-2")

    assert not told.full_sync.in_catalogue
    assert Position("g-2", 80) == told.replica_position


def test_pages_are_read_again_where_the_line_failed_before_the_feed_was_seen() -> None:
    """[E4] A Central that was restored meanwhile, under its own name, has no event before the
    copy's position that could tell."""
    told = Told()
    told.page(last=True, head=100)
    told.fails()
    told.rests()
    told.answers(*range(80, 100), next_offset=100)
    assert FetchPage(None, begins=True, same_generation=True) == told.command
    told.page(last=True, head=90)
    told.answers(*range(70, 90), next_offset=90, has_more=False)
    told.keeps()
    placed(told, head=90)

    assert at(90) == told.state.position
    assert [""] == [run.problem for run in told.state.full_syncs]


def test_pages_that_go_with_the_live_position_are_read_again_just_so() -> None:
    """[E4] The event before the position that catalogue and copy follow from together is older than
    the pages: a Central that was restored to a moment in between has it, too."""
    told = asked()
    told.page(last=True, head=None)
    told.fails()
    told.rests()
    assert 99 == told.fetch.offset
    told.answers(99, 100, next_offset=101)
    assert FetchPage(None, begins=True, same_generation=True) == told.command
    told.page(last=True, head=None)
    assert 99 == told.fetch.offset
    told.answers(99, 100, next_offset=101, has_more=False)
    told.keeps()
    placed(told, head=101)

    assert at(101) == told.state.position
    assert [""] == [run.problem for run in told.state.full_syncs]


def test_a_run_after_a_failure_compares_the_feed_first() -> None:
    """[E4] What a restored Central did at the same offsets never enters the old catalogue."""
    told = followed()
    told.fails()
    told.wants(ON_DEMAND, forced=True)
    told.page(head=105)
    assert 99 == told.fetch.offset
    told.answers(*events(*range(99, 105), feed="restored"), next_offset=105)

    assert FetchPage(None, begins=True, same_generation=False) == told.command
    assert at(100) == told.state.position
    goes_well(told, head=105, feed="restored")
    told.places()
    assert at(105, next_local_generation(LOCAL), "restored") == told.state.position


def test_a_feed_that_is_the_same_after_a_failure_is_followed_on() -> None:
    """[E4] The comparison costs no exchange of its own."""
    told = followed()
    told.fails()
    told.wants(ON_DEMAND, forced=True)
    told.page(head=101)
    told.answers(99, 100, next_offset=101)

    assert ApplyEvents(events(100), at(101), in_catalogue=True, in_replica=True) == told.command


def test_a_feed_that_seems_to_go_backwards_in_a_run_is_compared() -> None:
    """[E4] A restored Central may grow past the position while the grace passes."""
    told = asked()
    told.page(head=100)
    told.answers(next_offset=98)
    told.rests()
    assert 99 == told.fetch.offset
    told.answers(*events(99, 100, feed="restored"))

    assert FetchPage(None, begins=True, same_generation=False) == told.command


def test_a_log_that_forgot_the_event_before_proves_nothing_in_a_run() -> None:
    """[E4] 410 for one before the position is no 410 for the position."""
    told = followed()
    told.fails()
    told.wants(ON_DEMAND, forced=True)
    told.page(head=101)
    told.fails(Failure.GONE)

    assert 100 == told.fetch.offset


def test_what_came_early_is_fetched_again_after_doubt_in_a_run() -> None:
    """[E2] [E4] As where the feed is followed without a full sync: here after a limit."""
    told = asked()
    told.page(last=True, head=100)
    told.answers(102, 103, next_offset=104)
    told.rests()
    told.fails(Failure.LIMITED, retry_after=3.0)
    told.rests()
    told.answers(99, 100, 101, next_offset=102)

    assert ApplyEvents(events(100, 101), at(102), True, True) == told.command


@pytest.mark.parametrize("failed", ["a page", "the feed"])
def test_a_failure_during_a_run_has_the_feed_compared(failed: str) -> None:
    """[E4] Central may have been restored in the middle of the reading."""
    told = asked()
    told.page(head=100)
    if failed == "a page":
        told.answers(next_offset=100)
        told.fails()
        told.rests()
        told.waits(2.0)
        told.page()
    else:
        told.fails()
        told.rests()
    assert 99 == told.fetch.offset
    told.answers(event(99, "restored"))

    assert FetchPage(None, begins=True, same_generation=False) == told.command


def test_the_feed_is_compared_before_the_copy_goes_in_place() -> None:
    """[E4] The event before the position, without `wait`."""
    told = asked()
    told.page(last=True, head=100)
    told.answers(next_offset=100)
    told.settles()
    assert FetchEvents(99, 1, 0) == told.fetch
    told.answers(event(99, "restored"))

    assert FetchPage(None, begins=True, same_generation=False) == told.command


def test_a_log_that_forgot_it_lets_the_copy_go_in_place() -> None:
    """[E4] A 410 there proves nothing."""
    told = asked()
    told.page(last=True, head=100)
    told.answers(next_offset=100)
    told.settles()
    told.fails(Failure.GONE)

    assert isinstance(told.command, InstallReplica)


def test_a_comparison_that_finds_nothing_comes_to_an_end() -> None:
    """[E4] A Central that echoes what it was asked, with its whole log forgotten: after the grace
    the feed counts as another, and the run goes on to its end."""
    central = SmallCentral(head=100, echoes=True)
    store = SmallStore(central, at(100))
    store.of_feed = central.feed
    store.runs(lambda: store.state.in_sync_at is not None)
    central.first, central.says_gone = 100, False
    store.wants(ON_DEMAND, forced=True)
    store.runs(lambda: len(store.state.full_syncs) == 1, commands=200)

    assert "" == store.state.full_syncs[0].problem


def test_a_copy_that_ends_before_the_position_held_is_of_another_feed() -> None:
    """[E3] A wiped Central whose pages name a lower head: the generation changes (P1)."""
    central = SmallCentral(head=100)
    store = SmallStore(central, at(100))
    store.of_feed = central.feed
    store.runs(lambda: store.state.in_sync_at is not None)
    central.replace("wiped", head=40)
    store.wants(ON_DEMAND, forced=True)
    store.runs(store.is_in_step)

    assert at(40, next_local_generation(LOCAL), "wiped") == store.state.position


# -- a feed or a line that fails ---------------------------------------------------------------


def test_a_page_that_fails_is_asked_for_again() -> None:
    """[F6] The reading goes on where it was, with a wait that doubles."""
    told = Told()
    told.page(head=100)
    told.answers(*range(80, 100), next_offset=100)
    told.keeps()
    told.fails()
    assert 0.5 == told.rests()
    told.fails()
    assert 0.1 == told.rests(share=0.1)  # of a second

    assert FetchPage(PageRequest(200, 200)) == told.command


def test_five_failures_in_a_row_end_a_run() -> None:
    """[B1] The need for it stays; meanwhile the feed is probed, which may be resumed."""
    told = followed()
    told.wants("files were damaged")
    for _ in range(5):
        told.fails()
        told.rests()

    assert [Failure.UNREACHABLE] == [record.failure for record in told.state.full_syncs]
    assert told.state.health.fell_back
    assert ("files were damaged",) == told.full_sync.reasons
    told.fails()
    assert 2 == len(told.state.full_syncs)


@pytest.mark.parametrize("position", [None, at(100)], ids=["first start", "lost"])
def test_without_a_feed_to_resume_a_run_goes_on_where_it_was(position: Position | None) -> None:
    """[F6] However often Central fails: one that sheds load would never be read to its end, were
    each reading begun anew. Once it answers, the next page is asked for."""
    told = Told(position)
    if position is not None:
        told.fails(Failure.GONE)
        told.fails(Failure.GONE)
    told.page(head=100)
    told.answers(*range(80, 100), next_offset=100)
    told.keeps()
    for _ in range(20):
        told.fails(Failure.BROKEN)
        told.rests()
        if isinstance(told.command, FetchEvents):
            told.answers(99, next_offset=100)

    assert () == told.state.full_syncs
    assert 1 == told.state.full_syncs_begun
    assert PageRequest(200, 200) == told.full_sync.next_page


def test_pages_of_an_outage_are_not_placed_without_the_feed() -> None:
    """[F2] [E4] The feed was given up, then Central was gone: who answers next may be one that was
    restored, and nothing but the feed would tell. The reading begins anew."""
    told = Told()
    told.page(head=100)
    while not told.full_sync.without_feed:
        feed_fails_and_pages_pass(told)
    for _ in range(5):
        told.fails(Failure.BROKEN)
        told.rests()

    assert [Failure.BROKEN] == [record.failure for record in told.state.full_syncs]


def feed_fails_and_pages_pass(told: Told) -> None:
    if isinstance(told.command, Sleep):
        told.rests()
    elif isinstance(told.command, FetchEvents):
        told.fails(Failure.BROKEN)
    else:
        told.waits(3.0)
        told.page()


def test_a_line_that_fails_for_pages_too_says_nothing_of_the_feed() -> None:
    """[F2] [F6] Central sheds load: whatever is asked fails nine times in ten. The feed is not
    given up for that, and the copy is followed to its end."""
    told = Told(at(100))
    told.fails(Failure.GONE)
    told.fails(Failure.GONE)
    told.page(head=100)
    for number in range(200):
        while isinstance(told.command, Sleep):
            told.rests()
        if number % 10:
            told.fails(Failure.BROKEN)
        elif isinstance(told.command, FetchEvents):
            told.answers(next_offset=told.fetch.offset)
        else:
            told.page()

    assert not told.full_sync.without_feed
    assert () == told.state.full_syncs


def test_an_operator_ends_a_run_that_goes_on_in_vain() -> None:
    """[F1] The forced run begins, and its failure is told."""
    told = Told()
    for _ in range(7):
        told.fails()
        told.rests()
    told.wants(ON_DEMAND, forced=True)
    told.fails()

    assert 1 == len(told.state.full_syncs)
    assert told.full_sync.forced


def test_an_operator_hears_of_a_failing_line_after_two() -> None:
    """[F1] A forced run does not keep a person waiting; nor is it tried again by itself."""
    told = asked()
    told.fails()
    told.rests()
    told.fails()

    assert 1 == len(told.state.full_syncs)
    assert told.state.requested is None


@pytest.mark.parametrize("failure", [Failure.DENIED, Failure.REFUSED])
def test_a_refusal_ends_a_run_at_once(failure: Failure) -> None:
    """[B2] It is told by its cause, and tried again slowly."""
    told = Told()
    told.fails(failure)

    assert f"it was {failure}" == told.state.full_syncs[-1].problem
    assert Sleep(30.0, 30.0) == told.command


def test_a_limit_on_pages_does_not_stop_the_feed() -> None:
    """[F6] The feed goes before pages: it is read on while they wait."""
    told = Told()
    told.page(head=100)
    told.answers(*range(80, 100), next_offset=100)
    told.keeps()
    told.fails(Failure.LIMITED, retry_after=5.0)
    limited_at, fed = told.now, 0
    while not isinstance(told.command, FetchPage):
        if told.is_resting():
            told.rests()
        else:
            fed += 1
            told.answers(next_offset=100)

    assert 5.0 <= told.now - limited_at < 5.5
    assert fed >= 4


def test_a_limit_on_the_feed_does_not_stop_the_pages() -> None:
    """[F6] They are read on until the feed may be asked again."""
    told = Told()
    told.page(head=100)
    told.fails(Failure.LIMITED, retry_after=5.0)
    for _ in range(10):
        assert isinstance(told.command, FetchPage)
        told.waits(0.5)
        told.page()

    assert 80 == told.fetch.offset


@pytest.mark.parametrize("retry_after", [None, 12.0])
def test_a_limit_ends_no_run(retry_after: float | None) -> None:
    """[F6] Whatever the step, as long as it takes: a paced reading gets through."""
    told = Told()
    while not isinstance(told.command, InstallReplica):
        match told.command:
            case Sleep():
                told.rests()
                continue
            case ApplyEvents():
                told.keeps()
                continue
        for _ in range(3):
            told.fails(Failure.LIMITED, retry_after=retry_after)
            while told.is_resting():
                told.rests()
        match told.command:
            case FetchPage():
                told.page(last=True, head=100)
            case FetchEvents(offset):
                told.answers(*range(offset, 100), next_offset=100)
            case RefetchProducts():
                told.settles()

    assert () == told.state.full_syncs
    assert 0 == told.state.health.failures


def test_with_nothing_to_serve_and_no_feed_the_pages_go_in_place() -> None:
    """[F2] At the first page's `eventOffset`, and in step as of its beginning."""
    told = Told()
    told.page(last=True, head=100)
    told.waits(3.0)
    told.fails(Failure.REFUSED)
    told.settles()
    assert Installation(Position(LOCAL, 100), unfollowed_until=121) == told.installation
    told.places()

    assert START == told.state.in_sync_at
    assert 100 == told.fetch.offset


@pytest.mark.parametrize(("heads", "until"), [((100, 140), 161), ((100, None), FAR_OFFSET)])
def test_pages_alone_may_reflect_the_feed_up_to_their_last_head(
    heads: tuple[int, int | None], until: int
) -> None:
    """[F2] And what two writers may have published out of order behind it; where Central names no
    head with its pages, the whole feed until the store was in step."""
    told = Told()
    told.page(head=heads[0])
    told.waits(3.0)
    told.fails(Failure.REFUSED)
    told.page(last=True, head=heads[1])
    told.settles()

    installation = told.installation
    assert (100, until) == (installation.position.offset, installation.unfollowed_until)


def test_in_the_fallback_the_pages_go_in_place_without_the_feed() -> None:
    """[F2] At the first page's `eventOffset`, though the feed was followed before."""
    central = SmallCentral(head=100)
    store = SmallStore(central, at(100))
    store.of_feed = central.feed
    store.runs(lambda: store.state.in_sync_at is not None)
    central.feed_fails = True
    store.runs(lambda: store.state.health.fell_back)
    central.publish(50)
    store.runs(lambda: len(store.state.full_syncs) > 0)

    assert (FALLBACK_TIMER,) == store.state.full_syncs[0].reasons
    assert Position(LOCAL, 150) == store.state.position


def test_the_store_is_not_in_step_by_pages_that_are_old() -> None:
    """[B5] Without the feed, a slow reading shows Central as it was when it began."""
    told = Told()
    told.page(head=100)
    told.fails(Failure.REFUSED)
    told.waits(300.0)
    told.page(last=True)
    told.settles()
    told.places()

    assert START == told.state.in_sync_at


# -- a catalogue that is not believed ----------------------------------------------------------


def test_a_catalogue_that_shrank_is_read_again_after_ten_minutes() -> None:
    """[F5] The old one is served and followed meanwhile."""
    told = asked()
    goes_well(told)
    told.refuses(3)
    refused_at = told.now

    assert "too small" == told.state.full_syncs[-1].problem
    assert at(100) == told.state.position
    while not told.is_running():
        told.answers(next_offset=100, held=20.0)
    assert 600 <= told.now - refused_at < 621


def test_a_second_reading_that_agrees_can_be_believed() -> None:
    """[F5] It is told what the first one found."""
    told = asked()
    goes_well(told)
    told.refuses(3)
    told.waits(600.0)
    told.answers(next_offset=100)
    goes_well(told)
    assert Installation(at(100), agreed_products=3) == told.installation
    told.places(3)

    assert told.state.refused is None


def test_a_reading_within_ten_minutes_agrees_with_nothing() -> None:
    """[F5] An operator who asks again at once hears the same; the second reading stays due."""
    told = asked()
    goes_well(told)
    told.refuses(3)
    due = told.now + 600
    told.waits(60.0)
    told.wants(ON_DEMAND, forced=True)
    goes_well(told)
    assert Installation(at(100)) == told.installation
    told.refuses(3)

    assert told.state.requested is not None
    assert due == told.state.requested.not_before


def test_a_second_reading_that_disagrees_begins_anew() -> None:
    """[F5] Its own figure is what a third one has to find."""
    told = asked()
    for products in (3, 7):
        goes_well(told)
        told.refuses(products)
        told.waits(600.0)
        told.answers(next_offset=100)
    goes_well(told)

    assert 7 == told.installation.agreed_products


def test_an_admin_can_accept_it() -> None:
    """[F5] `?accept=true`."""
    told = asked(accept=True)
    goes_well(told)

    assert Installation(at(100), accept=True) == told.installation


def test_a_store_without_a_position_serves_the_old_one_and_waits() -> None:
    """[F5] Where the feed was lost too, it rests until the second reading."""
    told = followed()
    loses(told)
    goes_well(told)
    told.refuses(3)

    assert Sleep(600.0) == told.command
    assert at(100) == told.state.position


def test_a_copy_that_followed_the_feed_in_part_stands_where_it_was_followed_to() -> None:
    """[F2] [P1] The events alongside end in the middle: at the head of the pages the copy would
    claim events that were never laid over it."""
    told = Told(None)
    told.page(last=True, head=120)
    told.answers(*range(100, 105), next_offset=121, has_more=True)
    told.keeps()
    while not told.state.full_syncs:
        if isinstance(told.command, Sleep):
            told.rests()
        elif isinstance(told.command, FetchEvents):
            told.fails()
        elif isinstance(told.command, RefetchProducts):
            told.tell(ProductsRefetched(0))
        else:
            told.places()

    assert told.state.position is not None
    assert 105 == told.state.position.offset
