"""The circuit breaker of writes (W4): every state by every outcome."""

from store_cache.writes.circuit_breaker import (
    BreakerState,
    Closed,
    Open,
    Probing,
    admitted,
    answered,
    failed,
    lost,
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

    assert Open(since=20.0, retry_at=20.5, pause_seconds=0.5) == after
    assert 0.5 == wait_seconds(after, 20.0)


def test_an_answer_between_two_failures_keeps_it_closed() -> None:
    """Failures count in a row."""
    assert CLOSED == answered(SHAKEN, 20.0)
    assert CLOSED is answered(CLOSED, 20.0)


def test_a_refused_connection_opens_it_at_once() -> None:
    """No connection is possible: that needs no second failure."""
    assert isinstance(fail(CLOSED, refused=True), Open)


def test_the_sync_may_know_first() -> None:
    """What the sync finds opens the breaker (B4)."""
    assert Open(since=20.0, retry_at=20.5, pause_seconds=0.5) == lost(CLOSED, 20.0, jitter=1.0)
    assert OPEN is lost(OPEN, 20.0, jitter=1.0)
    assert PROBING is lost(PROBING, 20.0, jitter=1.0)


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


def test_any_answer_closes_it() -> None:
    """The probe's, a late one's or the sync's."""
    assert Closed(since=20.0) == answered(PROBING, 20.0)
    assert Closed(since=20.0) == answered(OPEN, 20.0)


def test_each_state_has_a_name() -> None:
    """For the status."""
    assert ["closed", "open", "probing"] == [each.name for each in (CLOSED, OPEN, PROBING)]
