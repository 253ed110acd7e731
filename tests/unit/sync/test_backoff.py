"""A failing line to Central: how long it is left alone, and what the store does meanwhile."""

from itertools import pairwise

import pytest

from store_cache.sync.backoff import LONG_PAUSE_SECONDS
from store_cache.sync.states import (
    FALLBACK_TIMER,
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
from tests.unit.sync.told_sync import START, Told, at

COUNTED = [Failure.UNREACHABLE, Failure.BROKEN, Failure.UNREADABLE]
REFUSALS = [Failure.DENIED, Failure.REFUSED]


def followed() -> Told:
    """A store that has compared its feed and polls it."""
    told = Told(at(100))
    told.answers(99)
    return told


def fails_and_rests(told: Told, failure: Failure = Failure.UNREACHABLE) -> Sleep:
    told.fails(failure)
    assert isinstance(told.command, Sleep)
    rest = told.command
    told.rests()
    return rest


@pytest.mark.parametrize("failure", COUNTED)
def test_each_failure_doubles_the_wait(failure: Failure) -> None:
    """[B1] It rested at most 0.5, 1, 2 and 4 seconds, with full jitter."""
    told = followed()
    waits = [fails_and_rests(told, failure) for _ in range(4)]

    assert [Sleep(0.0, 0.5), Sleep(0.0, 1.0), Sleep(0.0, 2.0), Sleep(0.0, 4.0)] == waits


def test_five_failures_in_a_row_open_the_breaker() -> None:
    """[B1] The fifth one, no earlier."""
    told = followed()
    opened = []
    for _ in range(5):
        told.fails()
        opened.append(told.state.health.fell_back)
        told.rests()

    assert [False, False, False, False, True] == opened


def test_an_answer_starts_the_count_again() -> None:
    """[B1] Failures count in a row."""
    told = followed()
    for _ in range(4):
        fails_and_rests(told)
    told.answers(99)

    assert Sleep(0.0, 0.5) == fails_and_rests(told)


def test_probes_go_on_at_least_every_half_minute_however_long_it_lasts() -> None:
    """[B1] Two to five seconds apart at first, later a twentieth of the outage, at most 30 s."""
    told = followed()
    for _ in range(5):
        fails_and_rests(told)
    waits = []
    while told.now < START + 86_400:
        told.fails()
        if isinstance(told.command, Sleep):
            waits.append(told.command)
            told.rests()

    assert Sleep(2.0, 3.0) == waits[0]
    assert Sleep(2.0, 28.0) == waits[-1]
    assert 30.0 == max(rest.at_least_seconds + rest.spread_seconds for rest in waits)


def test_a_full_sync_is_tried_at_every_interval_of_the_fallback() -> None:
    """[B1] Five minutes apart, one exchange each, with probes of the feed between them."""
    told = followed()
    tried: list[float] = []
    while told.now < START + 1500:
        if isinstance(told.command, FetchPage):
            tried.append(told.now)
        told.fails()
        if not told.is_running():
            told.rests()

    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert 4 <= len(tried) <= 5
    assert all(300 <= gap <= 331 for gap in gaps), gaps
    assert {(FALLBACK_TIMER,)} == {record.reasons for record in told.state.full_syncs}


@pytest.mark.parametrize("failures", [1, 5])
def test_retry_after_is_the_floor_of_a_wait(failures: int) -> None:
    """[B1] Jitter comes on top of what Central asked for."""
    told = followed()
    for _ in range(failures - 1):
        fails_and_rests(told)
    told.fails(Failure.BROKEN, retry_after=45.0)

    assert isinstance(told.command, Sleep)
    assert 45.0 == told.command.at_least_seconds
    assert told.command.spread_seconds > 0


@pytest.mark.parametrize("failure", REFUSALS)
def test_refusals_are_no_failures(failure: Failure) -> None:
    """[B1] They name a cause, and never open the breaker."""
    told = followed()
    for _ in range(4):
        fails_and_rests(told, failure)

    assert 0 == told.state.health.failures
    assert 4 == told.state.health.refusals
    assert f"it was {failure}" == told.state.health.problem
    assert not told.state.health.fell_back


@pytest.mark.parametrize("failure", REFUSALS)
def test_a_refusing_central_is_asked_slowly_for_ever(failure: Failure) -> None:
    """[B2] Twice a minute at the most, and followed again once it lets the store in."""
    told = followed()
    waits = {fails_and_rests(told, failure) for _ in range(4)}

    assert {Sleep(30.0, 30.0)} == waits
    told.answers(99)
    assert isinstance(told.state.phase, Polling)
    assert "" == told.state.health.problem


def test_a_full_sync_is_tried_where_the_feed_alone_is_refused() -> None:
    """[B2] Pages may still be read: every interval, as in the fallback."""
    told = followed()
    while not told.is_running():
        told.fails(Failure.DENIED)
        if not told.is_running():
            told.rests()

    assert (FALLBACK_TIMER,) == told.full_sync.reasons
    assert told.now - START > 300


def test_a_central_that_is_back_when_the_timer_rings_is_asked_for_no_catalogue() -> None:
    """[B1] The store resumes from its position: the timer's full sync follows on a probe that has
    failed, or a chain that comes back after five minutes would be asked for all of it at once."""
    told = followed()
    while told.state.health.fallback_due is None or told.now < told.state.health.fallback_due:
        told.fails()
        told.rests()
    told.answers(99, next_offset=100)

    assert told.now > START + 300
    assert not told.is_running()
    assert told.state.requested is None
    assert not told.state.health.fell_back


def test_a_limit_is_no_failure() -> None:
    """[B1] A 429 pauses for as long as it says, and counts as nothing."""
    told = followed()
    for _ in range(20):
        told.fails(Failure.LIMITED, retry_after=7.0)
        assert Sleep(7.0) == told.command
        told.rests()

    assert (0, 0, "") == (
        told.state.health.failures,
        told.state.health.refusals,
        told.state.health.problem,
    )


def test_after_a_long_limit_the_feed_is_compared() -> None:
    """[E4] Nobody asked for most of a minute: a Central that was restored meanwhile, under its own
    name, may have grown past the position."""
    told = followed()
    told.fails(Failure.LIMITED, retry_after=LONG_PAUSE_SECONDS)
    told.rests()

    assert (99, 1, 0) == (told.fetch.offset, told.fetch.limit, told.fetch.wait_seconds)


def test_a_limit_without_a_time_is_a_second() -> None:
    """[B1] Some Centrals name none."""
    told = followed()
    told.fails(Failure.LIMITED)

    assert Sleep(1.0) == told.command


def test_a_success_closes_the_breaker_and_the_position_is_kept() -> None:
    """[B1] The store resumes where it was, without a full sync."""
    told = followed()
    for _ in range(8):
        fails_and_rests(told)
    told.answers(99)
    told.receives(100, 101)

    assert not told.state.health.fell_back
    assert at(102) == told.state.position
    assert () == told.state.full_syncs


def test_a_wait_can_be_cut_short() -> None:
    """[B1] Where a write just reached Central, the feed is asked at once."""
    told = followed()
    for _ in range(6):
        fails_and_rests(told)
    told.fails()
    told.tell(Interrupted())

    assert isinstance(told.state.phase, Checking)


def test_a_full_sync_after_an_outage_is_jittered() -> None:
    """[F6] A thousand stores whose position is gone do not ask for the catalogue together."""
    told = followed()
    for _ in range(6):
        fails_and_rests(told)
    told.fails(Failure.GONE)  # the log does not reach back to the event before
    told.fails(Failure.GONE)

    assert Sleep(0.0, 2.0) == told.command
    told.rests()
    assert told.is_running()


def test_the_jitter_of_a_return_survives_another_failure() -> None:
    """[F6] Central came back, hiccuped once, and had lost the position: all the others too."""
    told = followed()
    for _ in range(6):
        fails_and_rests(told)
    told.answers(99)
    fails_and_rests(told)
    told.answers(99)
    told.fails(Failure.GONE)

    assert Sleep(0.0, 2.0) == told.command


def test_without_an_outage_a_full_sync_is_not_delayed() -> None:
    """[F6] A store that lost its position alone starts at once, and so does an operator."""
    told = followed()
    told.fails(Failure.GONE)
    assert isinstance(told.command, FetchPage)

    told = followed()
    for _ in range(6):
        fails_and_rests(told)
    told.answers(99)
    told.wants("on demand", forced=True)
    assert isinstance(told.command, FetchPage)


def test_a_store_that_starts_without_central_keeps_trying() -> None:
    """[B1] Nothing on disk, and nobody there: five tries, then probes, then a catalogue."""
    told = Told()
    waits = [fails_and_rests(told) for _ in range(7)]
    assert [0.5, 1.0, 2.0, 4.0] == [rest.spread_seconds for rest in waits[:4]]
    assert all(5.0 == rest.at_least_seconds + rest.spread_seconds for rest in waits[4:])
    told.page(last=True, head=100)
    assert isinstance(told.state.phase, FullSyncing)


def test_waiting_for_a_spaced_full_sync_is_one_wait() -> None:
    """[F6] No position and no run due: the store rests until it is, and does not spin."""
    told = followed()
    told.fails(Failure.GONE)
    told.tell(FullSyncFailed("pages without end"))

    assert isinstance(told.state.phase, Sleeping)
    assert Sleep(30.0) == told.command
