"""A full sync: why it runs, what it reads in which order, and how it deals with trouble."""

from itertools import pairwise
from random import Random

import pytest

from store_cache.catalogue.apply import NAMELESS
from store_cache.catalogue.catalogue import UNFOLLOWED
from store_cache.catalogue.replica import Installation
from store_cache.model.pages import EventPage, PageRequest
from store_cache.model.position import Position, next_local_generation
from store_cache.sync.backoff import FIRST_SPACING_SECONDS
from store_cache.sync.cursor import ANOTHER_EVENT
from store_cache.sync.full_sync import FAR_OFFSET, FOLLOW_SECONDS, MISSED, OUTRUN
from store_cache.sync.reading import Following, FullSyncStep, ReadingPages
from store_cache.sync.states import (
    FALLBACK_TIMER,
    ON_DEMAND,
    ApplyEvents,
    EventsArrived,
    ExchangeFailed,
    Failure,
    FetchEvents,
    FetchPage,
    FullSyncFailed,
    InstallReplica,
    Sleep,
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

FIRST_PAGE = FetchPage(None, begins=True, same_generation=True)
FIRST_PAGE_OF_ANOTHER = FetchPage(None, begins=True, same_generation=False)


def forced(generation: str = LOCAL, *, accept: bool = False) -> DrivenSync:
    """A followed store in the first page of a full sync that an operator requested."""
    sync = followed(generation=generation)
    sync.requests(ON_DEMAND, forced=True, accept=accept)
    return sync


def first_start(*, last: bool = False, generation: str | None = None) -> DrivenSync:
    """A store with nothing on disk whose first page was read, and the feed up to the head at 100;
    `last`: there are no more pages."""
    sync = DrivenSync()
    sync.page(last=last, head=100, generation=generation)
    sync.answers(*range(80, 100), next_offset=100, generation=generation)
    sync.applies()
    return sync


def loses(sync: DrivenSync) -> None:
    """The position is gone; a full sync begins as soon as it may."""
    sync.fails(Failure.GONE)
    assert sync.state.lost


def problems(sync: DrivenSync) -> list[str]:
    return [each.problem for each in sync.state.full_syncs]


# -- why, and how often ------------------------------------------------------------------------


def test_a_store_with_nothing_on_disk_begins_with_a_full_sync() -> None:
    """[F1] At once, and it says why."""
    sync = DrivenSync()

    assert FIRST_PAGE == sync.command
    assert ("first start",) == sync.full_sync.reasons


def test_a_store_with_a_position_does_not() -> None:
    """[D7] It resumes the feed where it left off."""
    assert 0 == followed().state.full_syncs_begun


def test_each_full_sync_records_its_reasons_and_its_end() -> None:
    """[F1] For an operator who asks afterwards."""
    sync = followed()
    loses(sync)
    sync.ends_well()
    sync.requests(ON_DEMAND, forced=True)
    sync.tell(FullSyncFailed("pages without end"))

    first, second = sync.state.full_syncs
    assert ("the position is gone (410): it was gone",) == first.reasons
    assert (1, 400, "") == (first.number, first.products, first.problem)
    assert ((ON_DEMAND,), 0) == (second.reasons, second.products)
    assert "pages without end" == second.problem


def test_reasons_that_come_before_a_full_sync_share_it() -> None:
    """[F1] One full sync serves them all."""
    sync = followed()
    loses(sync)
    sync.ends_well()
    sync.requests("a repair failed")
    sync.requests("another repair failed")
    sync.requests("a repair failed")
    sync.requests(ON_DEMAND, forced=True)

    assert ("a repair failed", "another repair failed", ON_DEMAND) == sync.full_sync.reasons


def test_requests_during_a_full_sync_share_the_next_one() -> None:
    """[F1] At most one more follows, however many they are; the one under way goes on."""
    sync = forced()
    sync.page(head=100)
    for _ in range(5):
        sync.requests(ON_DEMAND, forced=True)
    assert 1 == sync.state.full_syncs_begun

    sync.ends_well()
    assert 2 == sync.state.full_syncs_begun
    sync.ends_well()
    assert 2 == sync.state.full_syncs_begun
    assert not sync.is_full_syncing()


def test_a_full_sync_that_began_before_a_request_does_not_count() -> None:
    """[F1] Nor does one that begins its replica again after it: its reasons stay its own."""
    sync = forced()
    sync.page(head=100)
    sync.requests("a repair failed")
    sync.fails(Failure.GONE)
    sync.ends_well()

    assert ("a repair failed",) == sync.full_sync.reasons


def test_a_forced_full_sync_that_accepts_is_not_absorbed_by_a_plain_one() -> None:
    """[F5] The plain one installs nothing unasked for; the next one says `accept`."""
    sync = forced()
    sync.requests(ON_DEMAND, forced=True, accept=True)
    sync.goes_well()
    assert not sync.installation.accept
    sync.installs()

    sync.goes_well()
    assert sync.installation.accept


def test_full_syncs_that_do_not_hold_are_spaced() -> None:
    """[F6] The first at once, the next after 30 s, doubling to ten minutes."""
    sync = followed()
    began = []
    for _ in range(8):
        while not sync.is_full_syncing():
            loses(sync) if isinstance(sync.command, FetchEvents) else sync.sleeps()
        began.append(sync.now)
        sync.ends_well()

    spacings = [later - earlier for earlier, later in pairwise(began)]
    assert [30, 60, 120, 240, 480, 600, 600] == spacings


def test_a_central_with_gaps_that_stay_is_not_read_again_and_again() -> None:
    """[F6] Each replica is installed at a gap that the grace then shows to be loss."""
    central = SmallCentral()
    store = following(central)

    def skips() -> None:
        central.missing.add(central.head)
        central.publish(2)
        store.later(1.0, skips)

    skips()
    while store.now < START + 1200:
        store.step()

    assert 4 <= store.state.full_syncs_begun <= 7


def test_a_gap_from_before_the_installation_did_not_hold() -> None:
    """[F6] It takes the grace to be seen, so the next full sync waits."""
    sync = followed()
    loses(sync)
    sync.ends_well()
    sync.answers(101)
    while not sync.state.lost:
        sync.sleeps()
        sync.answers(101)

    assert sync.is_sleeping()
    assert not sync.is_full_syncing()


def test_a_full_sync_that_has_held_gives_the_next_its_first_attempt_back() -> None:
    """[F6] A loss long after it is not the last one's fault."""
    sync = followed()
    for _ in range(5):
        loses(sync)
        assert sync.is_full_syncing()
        sync.ends_well()
        sync.waits(20.0)


def test_an_operator_is_not_made_to_wait() -> None:
    """[F6] Only full syncs that the store starts by itself are spaced, and a forced one spaces
    none."""
    sync = followed()
    loses(sync)
    sync.ends_well()
    before = sync.state.spacing
    for _ in range(3):
        sync.requests(ON_DEMAND, forced=True)
        assert sync.is_full_syncing()
        sync.ends_well()

    after = sync.state.spacing
    assert (before.next_at, before.delay_seconds) == (after.next_at, after.delay_seconds)


def test_pages_that_make_no_sense_end_the_full_sync_and_space_the_next() -> None:
    """[F6] A store without a catalogue tries again after 30 s, not at once."""
    sync = DrivenSync()
    sync.tell(FullSyncFailed("pages without end"))

    assert Sleep(30.0) == sync.command
    sync.sleeps()
    assert ("first start",) == sync.full_sync.reasons


def test_the_feed_is_followed_while_the_next_full_sync_is_spaced() -> None:
    """[F6] [E4] The position is still good if the event before it is still the same: the feed was
    not asked during the full sync."""
    sync = followed()
    sync.requests("a repair failed")
    sync.tell(FullSyncFailed("pages without end"))

    assert FetchEvents(99, 100, 0) == sync.command
    assert ("a repair failed",) == sync.requested


# -- the head ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "followed_from"), [(300, 280), (3, 0)])
def test_the_feed_is_followed_from_a_little_before_the_head(head: int, followed_from: int) -> None:
    """[F2] The first page names the head; a young feed is followed from its start."""
    sync = DrivenSync()
    sync.page(head=head)

    assert FetchEvents(followed_from, 100, 0) == sync.command


def test_a_head_that_is_not_named_is_learned_from_the_feed() -> None:
    """[F2] Asked far beyond its end, it says where that is; then the replica begins with the first
    page again, since the one read before is older than the head."""
    sync = DrivenSync()
    sync.page()
    assert FAR_OFFSET == sync.fetch.offset
    sync.answers(next_offset=300)

    assert FIRST_PAGE == sync.command
    sync.waits(1.0)
    sync.page()
    assert 280 == sync.fetch.offset


@pytest.mark.parametrize("echo", [FAR_OFFSET, None])
def test_a_feed_that_only_echoes_is_walked_to_its_end(echo: int | None) -> None:
    """[F2] Page by page from the start."""
    sync = DrivenSync()
    sync.page()
    sync.answers(next_offset=echo)
    assert 0 == sync.fetch.offset
    sync.answers(*range(30))
    assert 30 == sync.fetch.offset
    sync.answers(next_offset=30 if echo else None)

    assert FIRST_PAGE == sync.command
    sync.waits(1.0)
    sync.page()
    assert 10 == sync.fetch.offset


def test_a_central_that_refuses_the_far_offset_is_walked_too() -> None:
    """[F2] The pages are read after the walk: the first one was read before the head was learned,
    and shows an older state."""
    sync = DrivenSync()
    sync.page(last=True)
    sync.fails(Failure.REFUSED)
    assert 0 == sync.fetch.offset
    sync.answers(*range(60), next_offset=60)
    sync.fails(Failure.REFUSED)
    assert FIRST_PAGE == sync.command
    sync.ends_well()

    assert Position(LOCAL, 60) == sync.state.position


def test_a_central_that_ignores_the_far_offset_is_walked_too() -> None:
    """[F2] It answers from the oldest event that it has; if it does so again and again, the walk
    still comes to an end."""
    sync = DrivenSync()
    sync.page()
    sync.answers(40, 41, next_offset=42)
    assert 42 == sync.fetch.offset
    sync.answers(40, 41)

    assert isinstance(sync.command, FetchPage)


def test_a_head_that_nothing_names_is_no_reason_for_no_catalogue() -> None:
    """[F2] No `eventOffset`, an echo, and 410 at the start: the pages are installed as they are."""
    sync = DrivenSync()
    sync.page()
    sync.answers(next_offset=FAR_OFFSET)
    sync.fails(Failure.GONE)
    sync.page(last=True)

    assert 0 == sync.installation.position.offset


# -- the feed alongside ------------------------------------------------------------------------


def test_pages_and_feed_take_turns() -> None:
    """[F2] The feed is read about every second, so that no log outruns slow pages."""
    sync = first_start()
    asked_for = []
    for _ in range(12):
        asked_for.append("page" if isinstance(sync.command, FetchPage) else "feed")
        sync.waits(0.4)
        sync.page() if isinstance(sync.command, FetchPage) else sync.answers(next_offset=100)

    assert ["page"] * 3 + ["feed"] == asked_for[:4]
    assert 3 == asked_for.count("feed")


def test_a_backlog_of_the_feed_goes_before_pages() -> None:
    """[F2] What the log may forget is fetched first."""
    sync = DrivenSync()
    sync.page(head=100)
    sync.answers(*range(80, 180), next_offset=180, has_more=True)
    sync.applies()

    assert 180 == sync.fetch.offset


def test_the_replica_is_installed_when_it_has_caught_up() -> None:
    """[F2] In one step with the position; until then the old one stays."""
    sync = followed()
    loses(sync)
    sync.page(head=200)
    sync.answers(*range(180, 200), next_offset=200)
    sync.applies()
    sync.page(last=True)
    sync.receives(200, 201)
    assert Installation(at(202)) == sync.installation
    assert at(100) == sync.state.position

    sync.installs()
    assert at(202) == sync.state.position
    assert sync.now == sync.state.in_sync_at


def test_a_replica_that_has_caught_up_makes_what_readers_see_no_younger() -> None:
    """[B5] The catalogue in place is as old as before until the replica is installed."""
    sync = followed()
    in_sync_at = sync.state.in_sync_at
    loses(sync)
    sync.page(head=200)
    sync.answers(*range(180, 200), next_offset=200)
    sync.applies()
    sync.page(last=True)
    sync.waits(5.0)
    sync.receives(200, 201)

    assert FullSyncStep.INSTALLING is sync.full_sync.step_name
    assert in_sync_at == sync.state.in_sync_at


def test_a_good_position_is_followed_in_the_catalogue_too() -> None:
    """[F2] [E4] Readers of the old catalogue see changes while the new one is read. The event
    before the position is verified in the same request."""
    sync = forced()
    sync.page(head=101)
    assert 99 == sync.fetch.offset
    sync.answers(99, 100, next_offset=101)

    assert ApplyEvents(events(100), at(101), in_catalogue=True, in_replica=True) == sync.command
    sync.applies()
    assert at(101) == sync.state.position == sync.replica_position


@pytest.mark.parametrize(
    ("head", "is_near"), [(98, False), (99, True), (100, True), (101, True), (5101, False)]
)
def test_a_position_is_followed_in_the_catalogue_only_near_the_head(
    head: int, is_near: bool
) -> None:
    """[F2] [P2] Else the replica is followed alone, from a little before the head. `eventOffset`
    may mean the last event or the next one."""
    sync = forced()
    sync.page(head=head)

    assert (99 if is_near else head - 20) == sync.fetch.offset
    assert is_near == (sync.state.position == sync.replica_position)


def test_a_log_that_begins_within_the_slack_is_enough() -> None:
    """[F2] 410 a little before the head: the replica is followed from the head itself."""
    sync = DrivenSync()
    sync.page(head=300)
    sync.fails(Failure.GONE)
    assert 300 == sync.fetch.offset

    sync = DrivenSync()
    sync.page(head=300)
    sync.answers(290, 291, next_offset=292, has_more=False)
    assert isinstance(sync.command, ApplyEvents)
    assert events(290, 291) == sync.command.events


def test_a_log_that_forgot_the_head_is_enough() -> None:
    """[F2] [P2] It is the last event, long forgotten, or the next one, that is still to come."""
    sync = DrivenSync()
    sync.page(last=True, head=300)
    sync.fails(Failure.GONE)
    sync.fails(Failure.GONE)
    assert 301 == sync.fetch.offset
    sync.ends_well(head=301)

    assert Position(LOCAL, 301) == sync.state.position
    assert () == sync.requested


@pytest.mark.parametrize("is_named", [True, False])
def test_an_event_at_the_head_that_is_published_late_is_not_skipped(is_named: bool) -> None:
    """[F2] [E3] A new feed was empty as the pages were read. Of the first events since, the first
    one is published last: the log does not begin behind it."""
    sync = DrivenSync()
    if not is_named:
        sync.page()
        sync.answers(next_offset=1)
    sync.page(last=True, head=1 if is_named else None)
    sync.answers(2, 3, next_offset=4, has_more=False)
    sync.sleeps()
    sync.answers(2, 3, 1, next_offset=2, has_more=False)

    assert isinstance(sync.command, ApplyEvents)
    assert events(1, 2, 3) == sync.command.events


def test_a_log_that_begins_behind_the_head_without_410_is_enough() -> None:
    """[F2] [P2] `eventOffset` is the last event, and forgotten; or it is the next one, and lost.
    The replica is installed after the grace, and one more full sync follows."""
    sync = DrivenSync()
    sync.page(last=True, head=300)
    sync.repeats(next_offset=301)
    sync.applies()
    sync.ends_well(head=301)
    assert Position(LOCAL, 301) == sync.state.position
    assert (MISSED,) == sync.requested

    while not sync.is_full_syncing():
        sync.answers(next_offset=301, held=float(sync.fetch.wait_seconds))
    sync.page(last=True, head=300)
    sync.ends_well(head=301)
    assert sync.state.requested is None


def test_the_feed_alongside_is_verified_each_time_it_is_asked() -> None:
    """[E4] Pages take their time: a Central that was restored meanwhile under its own name, and has
    grown past the replica's position, is noticed by the event before it, in the same request."""
    sync = first_start()
    sync.page()
    sync.waits(1.1)
    sync.page()
    sync.answers(event(99, "another"), event(100, "another"), next_offset=101)

    assert FIRST_PAGE_OF_ANOTHER == sync.command
    assert ("first start", ANOTHER_EVENT) == sync.full_sync.reasons


def test_a_log_that_forgot_the_event_before_is_not_asked_for_it_time_after_time() -> None:
    """[E4] [F6] The comparison is 410, then the limit is reached: the feed is asked from the
    position itself."""
    sync = DrivenSync()
    sync.page(last=True, head=100)
    sync.answers(*range(80, 100), next_offset=100, has_more=True)
    sync.applies()
    sync.fails(Failure.LIMITED, retry_after=3.0)
    sync.sleeps()
    assert 99 == sync.fetch.offset
    sync.fails(Failure.GONE)
    sync.fails(Failure.LIMITED, retry_after=3.0)
    sync.sleeps()

    assert 100 == sync.fetch.offset


def test_a_log_that_was_outrun_begins_the_replica_again() -> None:
    """[F2] 410 where the replica stands, and not just before it: the feed cannot be followed from
    there any more."""
    sync = first_start()
    sync.page()
    sync.waits(1.1)
    sync.page()
    assert 99 == sync.fetch.offset
    sync.fails(Failure.GONE)
    assert 100 == sync.fetch.offset
    sync.fails(Failure.GONE)

    assert FIRST_PAGE == sync.command
    assert ("first start", OUTRUN) == sync.full_sync.reasons
    assert 1 == sync.state.full_syncs_begun


def test_a_replica_is_not_begun_again_for_ever() -> None:
    """[F6] After three times the full sync has failed, and the next one is spaced."""
    sync = DrivenSync()
    pages = 0
    while sync.is_full_syncing():
        if isinstance(sync.command, FetchPage):
            pages += 1
            sync.page(head=100)
        else:
            sync.fails(Failure.GONE)

    assert 4 == pages
    assert Sleep(30.0) == sync.command
    assert [f"{OUTRUN}, 4 times in one full sync"] == problems(sync)


def test_a_gap_that_is_filled_during_a_full_sync_is_no_loss() -> None:
    """[E3] The replica waits for it, within the grace."""
    sync = forced()
    sync.page(last=True, head=102)
    sync.answers(101, next_offset=102)
    assert Sleep(0.05) == sync.command
    sync.sleeps()
    sync.answers(100, next_offset=101)
    sync.applies()
    sync.ends_well(head=102)

    assert at(102) == sync.state.position
    assert () == sync.requested


def test_a_failure_stops_the_clock_of_a_gap_in_a_full_sync_too() -> None:
    """[E3] The grace is time in which Central could be asked."""
    sync = forced()
    sync.page(last=True, head=102)
    sync.answers(101)
    sync.sleeps()
    sync.fails()
    sync.waits(60.0)
    sync.sleeps()
    sync.answers(99, 101)

    assert Sleep(0.05) == sync.command


@pytest.mark.parametrize("arrived", [(101,), ()])
def test_a_gap_that_stays_does_not_begin_the_replica_again(arrived: tuple[int, ...]) -> None:
    """[F2] The replica is installed beyond it, and another full sync follows; the catalogue that
    readers see does not step over it."""
    sync = forced()
    sync.page(last=True, head=102)
    sync.repeats(*arrived, next_offset=102 - len(arrived))
    assert isinstance(sync.command, ApplyEvents)
    assert not sync.command.in_catalogue
    sync.applies()
    assert at(100) == sync.state.position
    sync.ends_well(head=102)

    assert sync.state.position is not None
    assert 102 == sync.state.position.offset
    assert (MISSED,) == sync.full_sync.reasons


def test_an_offset_0_that_never_was_is_no_gap_in_a_full_sync() -> None:
    """[P2] A feed that begins at 1 needs no other full sync."""
    central = SmallCentral(first=1, head=9, says_gone=False)
    store = SmallStore(central)
    store.runs(store.is_in_sync)

    assert 1 == store.state.full_syncs_begun


def test_an_event_without_a_product_has_another_full_sync_follow() -> None:
    """[E5] The pages may have been read before it. It goes into both catalogues, which go on."""
    sync = forced()
    sync.page(last=True, head=100)
    sync.answers(nameless(100), next_offset=101)
    assert isinstance(sync.command, ApplyEvents)
    assert sync.command.in_catalogue
    sync.applies()
    sync.goes_well(head=101)
    follow_up_reason = sync.installation.follow_up_reason
    sync.installs()

    assert NAMELESS == follow_up_reason
    assert (NAMELESS,) == sync.requested


def test_pages_show_what_a_nameless_event_before_their_head_changed() -> None:
    """[E5] [F6] Otherwise a Central with one such event in its last twenty would be read again and
    again."""
    sync = forced()
    sync.page(last=True, head=103)
    sync.answers(nameless(100), 101, 102, next_offset=103)
    sync.applies()
    sync.goes_well(head=103)
    follow_up_reason = sync.installation.follow_up_reason
    sync.installs()

    assert "" == follow_up_reason
    assert () == sync.requested


def test_a_full_sync_that_fails_makes_up_for_no_nameless_event() -> None:
    """[E5] The catalogue has gone past it, so another full sync has to follow. The feed is followed
    meanwhile, also if Central's pages fail again and again."""
    sync = forced()
    sync.page(head=103)
    sync.answers(nameless(100), next_offset=101)
    sync.applies()
    while True:
        sync.fails(Failure.BROKEN)
        if not sync.is_full_syncing():
            break
        sync.sleeps()
    failed_at = sync.now

    assert at(101) == sync.state.position
    assert (NAMELESS,) == sync.requested
    sync.sleeps()
    assert FetchEvents(100, 100, 0) == sync.command
    sync.answers(nameless(100), 101, next_offset=102, has_more=False)
    sync.applies()
    while not sync.is_full_syncing():
        sync.answers(next_offset=102, held=float(sync.fetch.wait_seconds))
    assert FIRST_SPACING_SECONDS <= sync.now - failed_at <= FIRST_SPACING_SECONDS + 5


def test_lost_events_come_before_nameless_ones() -> None:
    """[E3] [E5] A full sync for a nameless event may be spaced by ten minutes."""
    sync = forced()
    sync.page(last=True, head=100)
    sync.answers(nameless(100), next_offset=102)
    sync.applies()
    sync.repeats(102, next_offset=103)
    sync.applies()
    sync.goes_well(head=103)

    assert MISSED == sync.installation.follow_up_reason


# -- another Central meanwhile -----------------------------------------------------------------


def test_pages_of_another_generation_begin_the_replica_again() -> None:
    """[F1] Half of one Central and half of another is no catalogue."""
    sync = first_start(generation="g-1")
    sync.page(generation="g-2")

    assert FIRST_PAGE_OF_ANOTHER == sync.command
    assert sync.is_central_replaced()


def test_events_of_another_generation_begin_the_replica_again() -> None:
    """[F1] The feed may be asked before the next page is."""
    sync = DrivenSync()
    sync.page(head=100, generation="g-1")
    sync.answers(80, generation="g-2")

    assert FIRST_PAGE_OF_ANOTHER == sync.command


def test_a_first_page_of_another_generation_is_noticed() -> None:
    """[V3] The versions held do not count against its rows, and no event of the old feed is applied
    to them."""
    sync = forced("g-1")
    sync.page(head=100, generation="g-2")
    assert FIRST_PAGE_OF_ANOTHER == sync.command
    sync.page(head=100, generation="g-2")

    assert Position("g-2", 80) == sync.replica_position


def test_pages_are_read_again_where_the_connection_failed_before_the_feed_was_seen() -> None:
    """[E4] No event before the replica's position would show a Central that was restored meanwhile
    under its own name."""
    sync = DrivenSync()
    sync.page(last=True, head=100)
    sync.fails()
    sync.sleeps()
    sync.answers(*range(80, 100), next_offset=100)
    assert FIRST_PAGE == sync.command
    sync.page(last=True, head=90)
    sync.receives(*range(70, 90))
    sync.ends_well(head=90)

    assert at(90) == sync.state.position
    assert [""] == problems(sync)


def performs(sync: DrivenSync, kind: type) -> bool:
    return isinstance(sync.command, kind)


def test_pages_are_read_again_only_once_for_a_connection_that_fails() -> None:
    """[F6] [E4] What was seen of the feed is compared after each further failure, so that the pages
    count. They reflect the events seen before them."""
    sync = DrivenSync()
    sync.page(head=100)
    sync.fails(Failure.BROKEN)
    sync.sleeps()
    sync.page(head=100)
    sync.waits(FOLLOW_SECONDS + 2)
    while not performs(sync, FetchEvents):
        sync.page(head=100)
    sync.answers(*range(80, 100), next_offset=100)
    assert [FIRST_PAGE] == [sync.command]
    sync.page(head=101)
    assert [FetchEvents(99, 100, 0)] == [sync.command]
    for _ in range(3):
        sync.fails(Failure.BROKEN)
        sync.sleeps()
        if performs(sync, FetchPage):
            sync.page(head=101)
        sync.waits(30.0)
        if performs(sync, Sleep):
            sync.sleeps()
    while not performs(sync, FetchEvents):
        sync.page(head=101)
    sync.answers(99, 100, next_offset=101)

    assert ApplyEvents(events(100), at(101), False, True) == sync.command
    sync.applies()
    assert not sync.full_sync.reading.must_reread_pages
    sync.ends_well(head=101)
    assert at(101) == sync.state.position


def test_a_central_that_was_restored_since_the_feed_was_seen_is_noticed() -> None:
    """[E4] Before anything of it is applied to pages of the one before."""
    sync = DrivenSync()
    sync.page(last=True, head=100)
    sync.fails()
    sync.sleeps()
    sync.answers(*range(80, 100), next_offset=100)
    sync.page(last=True, head=100)
    sync.fails()
    sync.sleeps()
    other = events(99, 100, feed="other")
    sync.tell(EventsArrived(EventPage(other, 101, has_more=False)))

    assert FIRST_PAGE_OF_ANOTHER == sync.command


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("pages", [3, 30])
def test_a_full_sync_against_an_overloaded_central_makes_progress(seed: int, pages: int) -> None:
    """[F6] Nine of ten requests are refused with 503. No page is asked for much more often than its
    chance of an answer needs, and the pages are begun once or twice."""
    central = SmallCentral(pages=pages)
    store = SmallStore(central, seed=seed)
    overload = Random(seed)
    refused = ExchangeFailed(Failure.BROKEN, "503")
    central.fault = lambda: refused if overload.random() < 0.9 else None
    first_pages = 0

    def ended() -> bool:
        nonlocal first_pages
        first_pages += store.command == FIRST_PAGE and not store.state.health.failures
        return bool(store.state.full_syncs)

    store.runs(ended, commands=400 * (pages + 10))

    assert [""] == problems(store)
    assert first_pages <= 2


def test_pages_are_read_again_so_too_if_the_catalogue_is_fed_alongside() -> None:
    """[E4] The event before the position that both are followed from is older than the pages: a
    Central that was restored to a moment in between has it, too."""
    sync = forced()
    sync.page(last=True)
    sync.fails()
    sync.sleeps()
    assert 99 == sync.fetch.offset
    sync.answers(99, 100, next_offset=101)
    assert FIRST_PAGE == sync.command
    sync.page(last=True)
    assert 99 == sync.fetch.offset
    sync.receives(99, 100)
    sync.ends_well(head=101)

    assert at(101) == sync.state.position
    assert [""] == problems(sync)


def test_a_full_sync_after_a_failure_verifies_the_feed_first() -> None:
    """[E4] What a restored Central did at the same offsets never enters the old catalogue."""
    sync = followed()
    sync.fails()
    sync.requests(ON_DEMAND, forced=True)
    sync.page(head=105)
    assert 99 == sync.fetch.offset
    sync.answers(*events(*range(99, 105), feed="restored"), next_offset=105)

    assert FIRST_PAGE_OF_ANOTHER == sync.command
    assert at(100) == sync.state.position
    sync.ends_well(head=105, feed="restored")
    assert at(105, next_local_generation(LOCAL), "restored") == sync.state.position


def test_a_feed_that_seems_to_go_backwards_in_a_full_sync_is_verified() -> None:
    """[E4] A restored Central may grow past the position while the grace passes."""
    sync = forced()
    sync.page(head=100)
    sync.answers(next_offset=98)
    sync.sleeps()
    assert 99 == sync.fetch.offset
    sync.answers(*events(99, 100, feed="restored"))

    assert FIRST_PAGE_OF_ANOTHER == sync.command


def test_a_log_that_forgot_the_event_before_proves_nothing_in_a_full_sync() -> None:
    """[E4] 410 for the event before the position is no 410 for the position."""
    sync = forced()
    sync.page(head=101)
    sync.fails(Failure.GONE)

    assert 100 == sync.fetch.offset


def test_early_events_are_dropped_if_the_feed_must_be_verified_in_a_full_sync() -> None:
    """[E2] [E4] As without a full sync; here after a limit."""
    sync = forced()
    sync.page(last=True, head=100)
    sync.answers(102, 103, next_offset=104)
    sync.sleeps()
    sync.fails(Failure.LIMITED, retry_after=3.0)
    sync.sleeps()
    sync.answers(99, 100, 101, next_offset=102)

    assert ApplyEvents(events(100, 101), at(102), True, True) == sync.command


@pytest.mark.parametrize("failed", ["a page", "the feed"])
def test_a_failure_during_a_full_sync_has_the_feed_verified(failed: str) -> None:
    """[E4] Central may have been restored in the middle of the reading."""
    sync = forced()
    sync.page(head=100)
    if failed == "a page":
        sync.answers(next_offset=100)
        sync.fails()
        sync.sleeps()
        sync.waits(2.0)
        sync.page()
    else:
        sync.fails()
        sync.sleeps()
    assert 99 == sync.fetch.offset
    sync.answers(event(99, "restored"))

    assert FIRST_PAGE_OF_ANOTHER == sync.command


def test_the_feed_is_verified_before_the_replica_is_installed() -> None:
    """[E4] However short the pages took: by the event before the position, in the request that
    leaves nothing behind. A 410 there proves nothing."""
    sync = first_start()
    sync.page(last=True)
    before = sync.state, sync.command
    assert FetchEvents(99, 100, 0) == sync.fetch
    sync.answers(event(99, "restored"), next_offset=100)
    assert FIRST_PAGE_OF_ANOTHER == sync.command

    sync.state, sync.command = before
    sync.fails(Failure.GONE)
    assert FetchEvents(100, 100, 0) == sync.fetch
    sync.answers(next_offset=100)
    assert isinstance(sync.command, InstallReplica)


def test_a_comparison_that_finds_nothing_comes_to_an_end() -> None:
    """[E4] A Central that echoes the offset, with its whole log forgotten: after the grace the feed
    counts as another, and the full sync goes on to its end."""
    central = SmallCentral(head=100, echoes=True)
    store = following(central)
    central.first, central.says_gone = 100, False
    store.requests(ON_DEMAND, forced=True)
    store.runs(lambda: len(store.state.full_syncs) == 1, commands=200)

    assert [""] == problems(store)


def test_a_replica_that_ends_before_the_position_held_is_of_another_feed() -> None:
    """[E3] A wiped Central whose pages name a lower head: the generation changes (P1)."""
    central = SmallCentral(head=100)
    store = following(central)
    central.replace("wiped", head=40)
    store.requests(ON_DEMAND, forced=True)
    store.runs(store.is_in_sync)

    assert at(40, next_local_generation(LOCAL), "wiped") == store.state.position


# -- a feed or a connection that fails ---------------------------------------------------------


def test_a_page_that_fails_is_asked_for_again() -> None:
    """[F6] The reading goes on where it was, with a wait that doubles."""
    sync = first_start()
    sync.fails()
    assert 0.5 == sync.sleeps()
    sync.fails()
    assert 0.1 == sync.sleeps(share=0.1)  # of a second

    assert FetchPage(PageRequest(200, 200)) == sync.command


def test_five_failures_in_a_row_end_a_full_sync() -> None:
    """[B1] The need for it stays; meanwhile the feed is probed, which may be resumed."""
    sync = followed()
    sync.requests("files were damaged")
    for _ in range(5):
        sync.fails()
        sync.sleeps()

    assert [Failure.UNREACHABLE] == [each.failure for each in sync.state.full_syncs]
    assert sync.state.health.fell_back
    assert ("files were damaged",) == sync.full_sync.reasons
    sync.fails()
    assert 2 == len(sync.state.full_syncs)


@pytest.mark.parametrize("position", [None, at(100)], ids=["first start", "lost"])
def test_without_a_feed_to_resume_a_full_sync_goes_on_where_it_was(
    position: Position | None,
) -> None:
    """[F6] However often Central fails: one that sheds load would never be read to its end if each
    reading began anew. Once it answers, the next page is asked for."""
    sync = DrivenSync(position)
    if position is not None:
        sync.fails(Failure.GONE)
        sync.fails(Failure.GONE)
    sync.page(head=100)
    sync.answers(*range(80, 100), next_offset=100)
    sync.applies()
    for _ in range(20):
        sync.fails(Failure.BROKEN)
        sync.sleeps()
        if isinstance(sync.command, FetchEvents):
            sync.answers(99, next_offset=100)

    assert () == sync.state.full_syncs
    assert 1 == sync.state.full_syncs_begun
    assert ReadingPages(PageRequest(200, 200)) == sync.full_sync.step


def test_pages_of_an_outage_are_not_installed_without_the_feed() -> None:
    """[F2] [E4] The feed was given up, then Central was gone: it may have been restored since, and
    only the feed would show it. The reading begins anew."""
    sync = DrivenSync()
    sync.page(head=100)
    while isinstance(sync.full_sync.reading.feed, Following):
        if isinstance(sync.command, Sleep):
            sync.sleeps()
        elif isinstance(sync.command, FetchEvents):
            sync.fails(Failure.BROKEN)
        else:
            sync.waits(3.0)
            sync.page()
    for _ in range(5):
        sync.fails(Failure.BROKEN)
        sync.sleeps()

    assert [Failure.BROKEN] == [each.failure for each in sync.state.full_syncs]


def test_a_connection_that_fails_for_pages_too_says_nothing_about_the_feed() -> None:
    """[F2] [F6] Central sheds load: whatever is asked fails nine times in ten. The feed is not
    given up for that, and the replica is followed to its end."""
    sync = DrivenSync(at(100))
    sync.fails(Failure.GONE)
    sync.fails(Failure.GONE)
    sync.page(head=100)
    for number in range(200):
        while isinstance(sync.command, Sleep):
            sync.sleeps()
        if number % 10:
            sync.fails(Failure.BROKEN)
        elif isinstance(sync.command, FetchEvents):
            sync.answers(next_offset=sync.fetch.offset)
        else:
            sync.page()

    assert isinstance(sync.full_sync.reading.feed, Following)
    assert () == sync.state.full_syncs


def test_an_operator_ends_a_full_sync_that_goes_on_in_vain() -> None:
    """[F1] The forced one begins, and its failure is told."""
    sync = DrivenSync()
    for _ in range(7):
        sync.fails()
        sync.sleeps()
    sync.requests(ON_DEMAND, forced=True)
    sync.fails()

    assert 1 == len(sync.state.full_syncs)
    assert sync.full_sync.request.forced


def test_an_operator_hears_of_a_failing_connection_after_two_failures() -> None:
    """[F1] A forced full sync does not keep a person waiting; nor is it tried again by itself."""
    sync = forced()
    sync.fails()
    sync.sleeps()
    sync.fails()

    assert 1 == len(sync.state.full_syncs)
    assert () == sync.requested


@pytest.mark.parametrize("failure", [Failure.DENIED, Failure.REFUSED])
def test_a_refusal_ends_a_full_sync_at_once(failure: Failure) -> None:
    """[B2] It is told by its cause, and tried again slowly."""
    sync = DrivenSync()
    sync.fails(failure)

    assert [f"it was {failure}"] == problems(sync)
    assert Sleep(30.0, 30.0) == sync.command


def test_a_limit_on_pages_does_not_stop_the_feed() -> None:
    """[F6] The feed goes before pages: it is read on while they wait."""
    sync = first_start()
    sync.fails(Failure.LIMITED, retry_after=5.0)
    limited_at, answers = sync.now, 0
    while not isinstance(sync.command, FetchPage):
        if sync.is_sleeping():
            sync.sleeps()
        else:
            answers += 1
            sync.answers(next_offset=100)

    assert 5.0 <= sync.now - limited_at < 5.5
    assert answers >= 4


def test_a_limit_on_the_feed_does_not_stop_the_pages() -> None:
    """[F6] They are read on until the feed may be asked again."""
    sync = DrivenSync()
    sync.page(head=100)
    sync.fails(Failure.LIMITED, retry_after=5.0)
    for _ in range(10):
        assert isinstance(sync.command, FetchPage)
        sync.waits(0.5)
        sync.page()

    assert 80 == sync.fetch.offset


@pytest.mark.parametrize("retry_after", [None, 12.0])
def test_a_limit_ends_no_full_sync(retry_after: float | None) -> None:
    """[F6] Whatever the step, as long as it takes: a paced reading gets through."""
    sync = DrivenSync()
    while not isinstance(sync.command, InstallReplica):
        for _ in range(3):
            sync.fails(Failure.LIMITED, retry_after=retry_after)
            while sync.is_sleeping():
                sync.sleeps()
        match sync.command:
            case FetchPage():
                sync.page(last=True, head=100)
            case FetchEvents(offset):
                sync.answers(*range(offset, 100), next_offset=100)
        if isinstance(sync.command, ApplyEvents):
            sync.applies()

    assert () == sync.state.full_syncs
    assert 0 == sync.state.health.failures


def test_a_replica_is_in_sync_as_of_the_last_answer_that_left_nothing() -> None:
    """[B5] What the disk took has passed since."""
    sync = forced()
    sync.page(last=True, head=100)
    sync.answers(100, next_offset=101, held=1.0)
    caught_up_at = sync.now - 1.0
    sync.waits(2.0)
    sync.applies()
    age_seconds = sync.installation.age_seconds
    sync.waits(50.0)
    sync.installs()

    assert 3.0 == age_seconds
    assert caught_up_at == sync.state.in_sync_at


def test_with_nothing_to_serve_and_no_feed_the_pages_are_installed() -> None:
    """[F2] [B5] At the first page's `eventOffset`, and in sync as of its beginning: a slow reading
    without the feed shows Central as it was then."""
    sync = DrivenSync()
    sync.page(last=True, head=100)
    sync.waits(300.0)
    sync.fails(Failure.REFUSED)
    installation = Installation(Position(LOCAL, 100), 300.0, follow_up_reason=UNFOLLOWED)
    assert installation == sync.installation
    sync.installs()

    assert START == sync.state.in_sync_at
    assert 100 == sync.fetch.offset


def unfollowed() -> DrivenSync:
    """A store that shows pages alone, since Central refused its feed."""
    sync = DrivenSync()
    sync.page(last=True, head=100)
    sync.fails(Failure.REFUSED)
    sync.installs()
    return sync


def test_pages_alone_end_the_failures_and_prove_nothing_of_the_feed() -> None:
    """[F2] [B1] [E1] Central has answered, so its failures are over. The next poll is not held,
    since nobody knows what was left behind."""
    sync = DrivenSync()
    sync.page(last=True, head=100)
    sync.fails(Failure.REFUSED)
    failures = sync.state.health.failures + sync.state.health.refusals
    sync.installs()

    assert failures
    assert 0 == sync.state.health.failures + sync.state.health.refusals
    assert 0 == sync.fetch.wait_seconds


def test_the_feed_is_not_followed_from_pages_alone() -> None:
    """[F2] Their rows are of no one moment, so that no event can be put in order with them. The
    next answer of the feed, whatever it brings, has the catalogue read anew, with the feed."""
    sync = unfollowed()
    sync.waits(20.0)
    sync.answers(*range(100, 103), next_offset=103)

    assert FetchPage(None, begins=True) == sync.command
    assert (UNFOLLOWED,) == sync.full_sync.reasons
    sync.ends_well(head=103)
    assert at(103) == sync.state.position
    sync.receives(103)
    assert at(104) == sync.state.position


def test_pages_alone_are_not_followed_by_the_next_process_either() -> None:
    """[F2] It finds on disk that they are."""
    sync = DrivenSync(unfollowed().state.position, is_unfollowed=True)
    sync.answers(100)

    assert (UNFOLLOWED,) == sync.full_sync.reasons


def test_a_feed_that_stays_unreadable_has_pages_installed_again_and_again() -> None:
    """[F2] [B1] On the fallback timer, since they are all that can be shown."""
    sync = unfollowed()
    while len(sync.state.full_syncs) < 3:
        match sync.command:
            case FetchEvents():
                sync.fails(Failure.REFUSED)
            case Sleep():
                sync.sleeps()
            case FetchPage():
                sync.page(last=True, head=150)
            case InstallReplica():
                sync.installs()

    assert ["", "", ""] == problems(sync)
    assert Position(LOCAL, 150) == sync.state.position
    assert sync.now - START < 1200


def test_in_the_fallback_the_pages_are_installed_without_the_feed() -> None:
    """[F2] At the first page's `eventOffset`, though the feed was followed before."""
    central = SmallCentral(head=100)
    store = following(central)
    central.feed_fails = True
    store.runs(lambda: store.state.health.fell_back)
    central.publish(50)
    store.runs(lambda: len(store.state.full_syncs) > 0)

    assert (FALLBACK_TIMER,) == store.state.full_syncs[0].reasons
    assert Position(LOCAL, 150) == store.state.position


# -- a catalogue that is not believed ----------------------------------------------------------


def shrinks(products: int = 3, *, after_seconds: float = 600.0) -> DrivenSync:
    """A store that has refused a replica of so few products, and goes on for a while."""
    sync = forced()
    sync.goes_well()
    sync.refuses(products)
    sync.waits(after_seconds)
    return sync


def test_a_catalogue_that_shrank_is_read_again_after_ten_minutes() -> None:
    """[F5] The old one is served and followed meanwhile."""
    sync = shrinks(after_seconds=0.0)
    refused_at = sync.now

    assert ["too small"] == problems(sync)
    assert at(100) == sync.state.position
    while not sync.is_full_syncing():
        sync.answers(next_offset=100, held=20.0)
    assert 600 <= sync.now - refused_at < 621


def test_a_second_reading_that_agrees_can_be_believed() -> None:
    """[F5] It is installed by what the first one found."""
    sync = shrinks()
    sync.answers(next_offset=100)
    sync.goes_well()
    assert Installation(at(100), agreed_products=3) == sync.installation
    sync.installs(3)

    assert sync.state.refused is None


def test_a_reading_within_ten_minutes_agrees_with_nothing() -> None:
    """[F5] An operator who asks again at once hears the same; the second reading stays due."""
    sync = shrinks(after_seconds=60.0)
    due = sync.now + 540
    sync.requests(ON_DEMAND, forced=True)
    sync.goes_well()
    assert Installation(at(100)) == sync.installation
    sync.refuses()

    assert sync.state.requested is not None
    assert due == sync.state.requested.not_before


def test_a_second_reading_that_disagrees_begins_anew() -> None:
    """[F5] A third one has to find what the second found."""
    sync = shrinks()
    sync.answers(next_offset=100)
    sync.goes_well()
    sync.refuses(7)
    sync.waits(600.0)
    sync.answers(next_offset=100)
    sync.goes_well()

    assert 7 == sync.installation.agreed_products


def test_an_admin_can_accept_it() -> None:
    """[F5] `?accept=true`."""
    sync = forced(accept=True)
    sync.goes_well()

    assert Installation(at(100), accept=True) == sync.installation


def test_a_store_without_a_position_serves_the_old_one_and_waits() -> None:
    """[F5] If the feed was lost too, it sleeps until the second reading."""
    sync = followed()
    loses(sync)
    sync.goes_well()
    sync.refuses()

    assert Sleep(600.0) == sync.command
    assert at(100) == sync.state.position
