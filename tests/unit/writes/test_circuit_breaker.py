"""The circuit breaker of writes (W4): every state by every outcome."""

import pytest

from store_cache.writes.circuit_breaker import (
    BreakerState,
    Closed,
    Open,
    Probing,
    admitted,
    answered,
    failed,
    held_back,
    is_away,
    probe_seconds,
    refused,
    sync_answered,
    wait_seconds,
)

CLOSED = Closed(since=0.0)
SHAKEN = Closed(since=0.0, failures=1)
OPEN = Open(since=10.0, retry_at=10.5, pause_seconds=0.5)
PROBING = Probing(since=10.0, pause_seconds=0.5)


def fail(
    state: BreakerState,
    now: float = 20.0,
    *,
    refused: bool = False,
    is_probe: bool = False,
    jitter: float = 1.0,
) -> BreakerState:
    return failed(state, now, refused=refused, is_probe=is_probe, jitter=jitter)


def test_one_lost_answer_does_not_open_it() -> None:
    """A single failure is remembered, and no write waits."""
    after = fail(CLOSED)

    assert SHAKEN == after
    assert 0.0 == wait_seconds(after, 20.0)


def test_two_failures_in_a_row_open_it() -> None:
    """Then the next write fails at once."""
    after = fail(SHAKEN)

    assert Open(since=20.0, retry_at=20.5, pause_seconds=0.5, is_unanswered=True) == after
    assert 0.5 == wait_seconds(after, 20.0)


def test_an_answer_between_two_failures_keeps_it_closed() -> None:
    """Failures count in a row."""
    assert CLOSED == answered(SHAKEN, 20.0)
    assert CLOSED is answered(CLOSED, 20.0)


def test_a_refused_connection_opens_it_at_once() -> None:
    """No connection is possible: that needs no second failure."""
    assert isinstance(fail(CLOSED, refused=True), Open)


def test_a_refused_connection_of_another_exchange_opens_it() -> None:
    """What the sync finds opens the breaker (B4); a probe on its way still counts."""
    assert Open(since=20.0, retry_at=20.5, pause_seconds=0.5) == refused(CLOSED, 20.0, jitter=1.0)
    assert OPEN == refused(OPEN, 20.0, jitter=1.0)
    assert PROBING == refused(PROBING, 20.0, jitter=1.0)


@pytest.mark.parametrize("state", [OPEN, PROBING])
def test_an_answer_to_the_sync_permits_one_probe_at_once_and_no_more(state: BreakerState) -> None:
    """B4: more only after Central has refused a connection again."""
    permitted = sync_answered(state, 10.1)

    assert 0.0 == wait_seconds(permitted, 10.1)
    failed_again = fail(admitted(permitted), is_probe=True)
    assert failed_again is sync_answered(failed_again, 20.1)
    assert 0.9 == round(wait_seconds(failed_again, 20.1), 6)
    lost_again = refused(failed_again, 20.1, jitter=1.0)
    assert 0.0 == wait_seconds(sync_answered(lost_again, 20.2), 20.2)


def test_an_answer_to_the_sync_closes_nothing() -> None:
    """B4: a feed that lives says nothing about writes."""
    assert CLOSED is sync_answered(CLOSED, 20.0)
    assert SHAKEN is sync_answered(SHAKEN, 20.0)
    assert "open" == sync_answered(OPEN, 20.0).name


def test_writes_are_known_to_fail_until_one_is_answered_or_only_connections_were_refused() -> None:
    """B4: if only connections were refused, an answer to the sync is enough to call it healthy."""
    unanswered = fail(SHAKEN)
    probe_unanswered = fail(admitted(OPEN), is_probe=True)

    assert [False, False] == [is_away(CLOSED), is_away(SHAKEN)]
    assert [True, True] == [is_away(OPEN), is_away(PROBING)]
    assert not is_away(sync_answered(OPEN, 20.0))
    assert is_away(sync_answered(unanswered, 20.0))
    assert is_away(sync_answered(probe_unanswered, 20.0))


def test_what_the_store_holds_back_itself_says_nothing() -> None:
    """W4: the next write is the probe."""
    assert SHAKEN is held_back(SHAKEN, 20.0, is_probe=False)
    assert PROBING is held_back(PROBING, 20.0, is_probe=False)
    assert 0.0 == wait_seconds(held_back(PROBING, 20.0, is_probe=True), 20.0)


def test_a_probe_may_take_longer_after_each_that_was_not_answered() -> None:
    """W4: a Central that takes seconds for a write must be found again."""
    state: BreakerState = fail(SHAKEN)
    seconds = []
    for _ in range(4):
        state = admitted(state)
        assert isinstance(state, Probing)
        seconds.append(probe_seconds(state))
        state = fail(state, is_probe=True)

    assert [2.0, 4.0, 8.0, 16.0] == seconds
    assert 2.0 == probe_seconds(Probing(since=0.0, pause_seconds=5.0))


def test_one_probe_goes_at_a_time() -> None:
    """After the pause one write goes, and no other until its outcome is known."""
    assert 0.25 == wait_seconds(OPEN, 10.25)
    assert 0.0 == wait_seconds(OPEN, 10.5)

    probing = admitted(OPEN)

    assert PROBING == probing
    assert 0.5 == wait_seconds(probing, 99.0)


def test_a_closed_breaker_admits_without_a_change() -> None:
    """Only an open one has probes."""
    assert SHAKEN is admitted(SHAKEN)


def test_a_failed_probe_doubles_the_pause_up_to_five_seconds() -> None:
    """0.5, 1, 2, 4, 5, 5 seconds; `since` stays the start of the outage."""
    state: BreakerState = OPEN
    pauses = []
    for _ in range(6):
        state = fail(admitted(state), is_probe=True)
        assert isinstance(state, Open)
        pauses.append(state.retry_at - 20.0)

    assert [1.0, 2.0, 4.0, 5.0, 5.0, 5.0] == pauses
    assert 10.0 == state.since


def test_a_pause_is_jittered_between_half_and_all_of_it() -> None:
    """A thousand stores do not come back together (B3)."""
    waits = [wait_seconds(fail(SHAKEN, jitter=jitter), 20.0) for jitter in (0.0, 0.5, 1.0)]

    assert [0.25, 0.375, 0.5] == waits


def test_a_late_failure_of_another_write_changes_nothing() -> None:
    """Writes sent before the breaker opened fail one by one; only the probe counts."""
    assert OPEN is fail(OPEN)
    assert PROBING is fail(PROBING, refused=True)


def test_any_answer_to_a_write_closes_it() -> None:
    """The probe's, or a late one's."""
    assert Closed(since=20.0) == answered(PROBING, 20.0)
    assert Closed(since=20.0) == answered(OPEN, 20.0)


def test_each_state_has_a_name() -> None:
    """For the status."""
    assert ["closed", "open", "probing"] == [each.name for each in (CLOSED, OPEN, PROBING)]
