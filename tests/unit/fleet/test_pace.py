"""When the next report is due, whatever number is drawn."""

from __future__ import annotations

import pytest

from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    HeldBack,
    LimitExceeded,
    RequestRefused,
)
from store_cache.fleet.pace import (
    CHANGE_SECONDS,
    FIRST_SECONDS,
    INTERVAL_SECONDS,
    JITTER,
    LEAST_SECONDS,
    UNKNOWN_SECONDS,
    Pace,
)

NOW = 1000.0
CHANCES = [0.0, 0.5, 1.0]

each_chance = pytest.mark.parametrize("chance", CHANCES)


def after(failure: CentralError | None, chance: float) -> Pace:
    """A pace that has just sent a report."""
    pace = Pace(0.0, 0.5)
    pace.sent(NOW, chance, failure)
    return pace


def pauses(failure: CentralError | None) -> list[float]:
    return [after(failure, chance).due_at - NOW for chance in CHANCES]


@each_chance
def test_the_first_comes_within_ten_seconds(chance: float) -> None:
    assert Pace(NOW, chance).due_at == NOW + FIRST_SECONDS * chance


@pytest.mark.parametrize("failure", [None, ExchangeBroken("silent")], ids=["taken", "broken"])
def test_reports_are_a_minute_apart_give_or_take_a_fifth(failure: CentralError | None) -> None:
    shortest, middle, longest = pauses(failure)
    assert [middle * (1 - JITTER), INTERVAL_SECONDS, middle * (1 + JITTER)] == pytest.approx(
        [shortest, middle, longest]
    )


def test_a_central_without_such_a_call_is_asked_once_an_hour() -> None:
    refused = RequestRefused("no such call", status=404)
    assert pauses(refused)[1] == UNKNOWN_SECONDS
    assert after(refused, 0.5).is_unknown
    assert not after(None, 0.5).is_unknown


@pytest.mark.parametrize(
    ("named", "least"),
    [(100.0, 100.0), (1.0, INTERVAL_SECONDS), (1e9, UNKNOWN_SECONDS)],
    ids=["named", "too soon", "for ever"],
)
def test_no_report_comes_before_the_time_that_central_named(named: float, least: float) -> None:
    """[B7] A report that is too early is refused again, and so is each one after it. Stores that
    were refused together come back one by one, so the pause is drawn: longer, never shorter."""
    shortest, _, longest = pauses(LimitExceeded("429", retry_after_seconds=named))
    assert [least, least * (1 + JITTER)] == pytest.approx([shortest, longest])


@each_chance
def test_a_change_does_not_come_before_the_time_that_central_named(chance: float) -> None:
    """[B7]"""
    pace = after(LimitExceeded("429", retry_after_seconds=100.0), 0.0)
    pace.changed(NOW + 1.0, chance)
    assert pace.due_at == NOW + 100.0


@each_chance
def test_a_report_that_the_store_held_back_is_due_when_there_is_room(chance: float) -> None:
    pace = after(HeldBack("limit", retry_after_seconds=20.0), chance)
    assert pace.due_at == NOW + 20.0 * (1 + JITTER * chance)


@each_chance
def test_a_change_is_reported_within_five_seconds(chance: float) -> None:
    pace = after(None, 0.5)
    pace.changed(NOW + 30.0, chance)
    assert pace.due_at == NOW + 30.0 + CHANGE_SECONDS * chance


def test_changes_one_after_the_other_are_five_seconds_apart() -> None:
    pace = after(None, 0.5)
    pace.changed(NOW + 0.1, 0.0)
    assert pace.due_at == NOW + LEAST_SECONDS


@each_chance
def test_a_change_brings_no_report_to_a_central_that_takes_none(chance: float) -> None:
    pace = after(RequestRefused("no such call", status=405), 0.5)
    pace.changed(NOW + 1.0, chance)
    assert pace.due_at == NOW + UNKNOWN_SECONDS
