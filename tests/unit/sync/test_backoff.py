"""A failing connection to Central: how long it is left alone, and what happens meanwhile."""

from itertools import pairwise

import pytest

from store_cache.sync.backoff import LONG_PAUSE_SECONDS
from store_cache.sync.states import (
    FALLBACK_TIMER,
    ApplyEvents,
    Checking,
    Failure,
    FetchPage,
    FullSyncFailed,
    FullSyncing,
    Interrupted,
    Polling,
    Sleep,
    Sleeping,
)
from tests.unit.sync.driven_sync import START, DrivenSync, at, events, followed

COUNTED = [Failure.UNREACHABLE, Failure.BROKEN, Failure.UNREADABLE]
REFUSALS = [Failure.DENIED, Failure.REFUSED]


def fails_and_sleeps(sync: DrivenSync, failure: Failure = Failure.UNREACHABLE) -> Sleep:
    sync.fails(failure)
    assert isinstance(sync.command, Sleep)
    wait = sync.command
    sync.sleeps()
    return wait


@pytest.mark.parametrize("failure", COUNTED)
def test_each_failure_doubles_the_wait(failure: Failure) -> None:
    """[B1] At most 0.5, 1, 2 and 4 seconds, with full jitter."""
    sync = followed()
    waits = [fails_and_sleeps(sync, failure) for _ in range(4)]

    assert [Sleep(0.0, 0.5), Sleep(0.0, 1.0), Sleep(0.0, 2.0), Sleep(0.0, 4.0)] == waits


def test_five_failures_in_a_row_open_the_breaker() -> None:
    """[B1] The fifth one, no earlier."""
    sync = followed()
    opened = []
    for _ in range(5):
        sync.fails()
        opened.append(sync.state.health.fell_back)
        sync.sleeps()

    assert [False, False, False, False, True] == opened


def test_an_answer_starts_the_count_again() -> None:
    """[B1] Failures count in a row."""
    sync = followed()
    for _ in range(4):
        fails_and_sleeps(sync)
    sync.answers(99)

    assert Sleep(0.0, 0.5) == fails_and_sleeps(sync)


def test_probes_go_on_at_least_every_half_minute_however_long_it_lasts() -> None:
    """[B1] Two to five seconds apart at first, later a twentieth of the outage, at most 30 s."""
    sync = followed()
    for _ in range(5):
        fails_and_sleeps(sync)
    waits = []
    while sync.now < START + 86_400:
        sync.fails()
        if isinstance(sync.command, Sleep):
            waits.append(sync.command)
            sync.sleeps()

    assert Sleep(2.0, 3.0) == waits[0]
    assert Sleep(2.0, 28.0) == waits[-1]
    assert 30.0 == max(wait.at_least_seconds + wait.spread_seconds for wait in waits)


def test_a_full_sync_is_tried_at_every_interval_of_the_fallback() -> None:
    """[B1] Five minutes apart, one exchange each, with probes of the feed between them."""
    sync = followed()
    tried: list[float] = []
    while sync.now < START + 1500:
        if isinstance(sync.command, FetchPage):
            tried.append(sync.now)
        sync.fails()
        if not sync.is_full_syncing():
            sync.sleeps()

    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert 4 <= len(tried) <= 5
    assert all(300 <= gap <= 331 for gap in gaps), gaps
    assert {(FALLBACK_TIMER,)} == {record.reasons for record in sync.state.full_syncs}


@pytest.mark.parametrize("failures", [1, 5])
def test_retry_after_is_the_floor_of_a_wait(failures: int) -> None:
    """[B1] Jitter comes on top of what Central asked for."""
    sync = followed()
    for _ in range(failures - 1):
        fails_and_sleeps(sync)
    sync.fails(Failure.BROKEN, retry_after=45.0)

    assert isinstance(sync.command, Sleep)
    assert 45.0 == sync.command.at_least_seconds
    assert sync.command.spread_seconds > 0


@pytest.mark.parametrize("failure", REFUSALS)
def test_refusals_are_no_failures(failure: Failure) -> None:
    """[B1] They name a cause, and never open the breaker."""
    sync = followed()
    for _ in range(4):
        fails_and_sleeps(sync, failure)

    assert 0 == sync.state.health.failures
    assert 4 == sync.state.health.refusals
    assert f"it was {failure}" == sync.state.health.problem
    assert not sync.state.health.fell_back


@pytest.mark.parametrize("failure", REFUSALS)
def test_a_refusing_central_is_asked_slowly_for_ever(failure: Failure) -> None:
    """[B2] Twice a minute at the most, and followed again once it answers."""
    sync = followed()
    waits = {fails_and_sleeps(sync, failure) for _ in range(4)}

    assert {Sleep(30.0, 30.0)} == waits
    sync.answers(99)
    assert isinstance(sync.state.phase, Polling)
    assert "" == sync.state.health.problem


def test_a_full_sync_is_tried_where_the_feed_alone_is_refused() -> None:
    """[B2] Pages may still be read: every interval, as in the fallback."""
    sync = followed()
    while not sync.is_full_syncing():
        sync.fails(Failure.DENIED)
        if not sync.is_full_syncing():
            sync.sleeps()

    assert (FALLBACK_TIMER,) == sync.full_sync.reasons
    assert sync.now - START > 300


def test_a_central_that_is_back_when_the_timer_ends_is_asked_for_no_catalogue() -> None:
    """[B1] The store resumes from its position: the timer's full sync follows a probe that has
    failed. Else all stores of a chain would ask for the catalogue after five minutes."""
    sync = followed()
    while sync.state.health.fallback_due is None or sync.now < sync.state.health.fallback_due:
        sync.fails()
        sync.sleeps()
    sync.answers(99, next_offset=100)

    assert sync.now > START + 300
    assert not sync.is_full_syncing()
    assert sync.state.requested is None
    assert not sync.state.health.fell_back


def test_a_limit_is_no_failure() -> None:
    """[B1] A 429 pauses for as long as it says, and counts as nothing."""
    sync = followed()
    for _ in range(20):
        sync.fails(Failure.LIMITED, retry_after=7.0)
        assert Sleep(7.0) == sync.command
        sync.sleeps()

    assert (0, 0, "") == (
        sync.state.health.failures,
        sync.state.health.refusals,
        sync.state.health.problem,
    )


def test_after_a_long_limit_the_feed_is_verified() -> None:
    """[E4] A Central that was restored meanwhile, under its own name, may have grown past the
    position."""
    sync = followed()
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()

    assert (99, 100, 0) == (sync.fetch.offset, sync.fetch.limit, sync.fetch.wait_seconds)


def test_one_request_in_a_long_pause_is_enough_to_follow_the_feed() -> None:
    """[E4] [B1] Each request is followed by a pause after which the feed is verified: events come
    with the answer that verifies it, and so does the word that there are none."""
    sync = followed()
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()
    sync.answers(99, 100, next_offset=101, has_more=False)
    sync.applies()
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()
    sync.answers(100, next_offset=101, has_more=False)

    assert at(101) == sync.state.position
    assert sync.now == sync.state.in_sync_at


def test_a_log_without_the_event_before_is_not_asked_for_it_after_every_long_limit() -> None:
    """[E4] [B1] 410 tells nothing of the feed: the next request is for the events themselves."""
    sync = followed()
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()
    assert 99 == sync.fetch.offset
    sync.fails(Failure.GONE)
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()

    assert 100 == sync.fetch.offset


def test_no_event_is_kept_over_a_long_limit_beyond_a_gap() -> None:
    """[E2] [E4] It may be of another feed by then, also if the log cannot show that."""
    sync = followed()
    sync.fails()
    sync.sleeps()
    sync.fails(Failure.GONE)
    sync.answers(101, next_offset=102)
    sync.sleeps()
    sync.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    sync.sleeps()
    sync.answers(100, next_offset=101, has_more=False)

    assert ApplyEvents(events(100), at(101)) == sync.command


def test_a_limit_without_a_time_is_a_second() -> None:
    """[B1] Some Centrals name none."""
    sync = followed()
    sync.fails(Failure.LIMITED)

    assert Sleep(1.0) == sync.command


def test_a_success_closes_the_breaker_and_the_position_is_kept() -> None:
    """[B1] The store resumes where it was, without a full sync."""
    sync = followed()
    for _ in range(8):
        fails_and_sleeps(sync)
    sync.answers(99)
    sync.receives(100, 101)

    assert not sync.state.health.fell_back
    assert at(102) == sync.state.position
    assert () == sync.state.full_syncs


def test_a_wait_can_be_cut_short() -> None:
    """[B1] A write just reached Central: the feed is asked at once."""
    sync = followed()
    for _ in range(6):
        fails_and_sleeps(sync)
    sync.fails()
    sync.tell(Interrupted())

    assert isinstance(sync.state.phase, Checking)


def test_a_full_sync_after_an_outage_is_jittered() -> None:
    """[F6] A thousand stores whose position is gone do not ask for the catalogue together."""
    sync = followed()
    for _ in range(6):
        fails_and_sleeps(sync)
    sync.fails(Failure.GONE)  # the log does not reach back to the event before
    sync.fails(Failure.GONE)

    assert Sleep(0.0, 2.0) == sync.command
    sync.sleeps()
    assert sync.is_full_syncing()


def test_the_jitter_of_a_return_survives_another_failure() -> None:
    """[F6] Central came back, failed once more, and then the position was gone for all stores."""
    sync = followed()
    for _ in range(6):
        fails_and_sleeps(sync)
    sync.answers(99, 100, has_more=True)
    sync.applies()
    fails_and_sleeps(sync)
    sync.fails(Failure.GONE)  # the log does not reach back to the event before
    sync.fails(Failure.GONE)

    assert Sleep(0.0, 2.0) == sync.command


def test_without_an_outage_a_full_sync_is_not_delayed() -> None:
    """[F6] A store that lost its position alone starts at once, and so does an operator."""
    sync = followed()
    sync.fails(Failure.GONE)
    assert isinstance(sync.command, FetchPage)

    sync = followed()
    for _ in range(6):
        fails_and_sleeps(sync)
    sync.answers(99)
    sync.requests("on demand", forced=True)
    assert isinstance(sync.command, FetchPage)


def test_a_store_that_starts_without_central_keeps_trying() -> None:
    """[B1] With nothing on disk: five tries, then probes, then a catalogue."""
    sync = DrivenSync()
    waits = [fails_and_sleeps(sync) for _ in range(7)]
    assert [0.5, 1.0, 2.0, 4.0] == [wait.spread_seconds for wait in waits[:4]]
    assert all(5.0 == wait.at_least_seconds + wait.spread_seconds for wait in waits[4:])
    sync.page(last=True, head=100)
    assert isinstance(sync.state.phase, FullSyncing)


def test_waiting_for_a_spaced_full_sync_is_one_wait() -> None:
    """[F6] With no position and no full sync due, the store sleeps until one is."""
    sync = followed()
    sync.fails(Failure.GONE)
    sync.tell(FullSyncFailed("pages without end"))

    assert isinstance(sync.state.phase, Sleeping)
    assert Sleep(30.0) == sync.command
