"""The budget of requests to Central (F6, B1)."""

import itertools

import pytest

from store_cache.central.rate_limit import Priority, RateLimit


def spend(budget: RateLimit, priority: Priority, *, begin: float, end: float) -> list[float]:
    """Send as fast as the budget allows from `begin` to `end`; the times of sending."""
    times, now = [], begin
    while (ready_in := budget.ready_in(priority, now)) + now < end:
        now += ready_in
        if budget.ready_in(priority, now) > 0:
            continue
        budget.sent(priority, now)
        times.append(now)
        now += 0.001
    return times


def limited_at_100(now: float = 100.0) -> RateLimit:
    """A budget that learned a limit of 100 a minute, a minute ago, so that its window is empty."""
    budget = RateLimit()
    for _ in range(101):
        budget.sent(Priority.PAGES, now - 70)
    budget.limited(now - 70, 1.0)
    return budget


def test_nothing_is_held_back_before_the_first_refusal() -> None:
    """F6: Central names no limit, so there is none until it refuses."""
    budget = RateLimit()
    for _ in range(5000):
        budget.sent(Priority.PAGES, 0.0)

    assert 0.0 == budget.ready_in(Priority.PAGES, 0.0)
    assert budget.limit is None


def test_first_refusal_sets_limit_to_what_passed_in_the_last_minute() -> None:
    """Requests older than a minute do not count, nor does the refused one."""
    budget = RateLimit()
    for _ in range(50):
        budget.sent(Priority.FEED, 0.0)
    for _ in range(101):
        budget.sent(Priority.FEED, 61.0)
    budget.limited(61.0, None)

    assert 100 == budget.limit


def test_first_refusal_soon_after_a_restart_sets_no_tiny_limit() -> None:
    """Central still counts the requests of the process before: its first 429 says little."""
    budget = RateLimit()
    budget.sent(Priority.FEED, 0.0)
    budget.limited(0.0, 30.0)

    assert 60 == budget.limit


@pytest.mark.parametrize("priority", Priority)
def test_refusal_pauses_everything(priority: Priority) -> None:
    """B1: a 429 pauses the one budget."""
    budget = RateLimit()
    budget.limited(10.0, 30.0)

    assert 30.0 == budget.ready_in(priority, 10.0)
    assert 0.5 == budget.ready_in(priority, 39.5)
    assert 0.0 == budget.ready_in(priority, 40.0)


@pytest.mark.parametrize(("named", "paused"), [(1e9, 300.0), (0.01, 1.0), (12.5, 12.5)])
def test_named_pause_is_kept_within_bounds(named: float, paused: float) -> None:
    """A clock that is wrong by hours must not stop the store, nor a tiny pause let it race."""
    budget = RateLimit()
    budget.limited(0.0, named)

    assert paused == budget.ready_in(Priority.WRITES, 0.0)


def test_pauses_that_central_does_not_name_double_up_to_a_minute() -> None:
    """429 with neither header: 1, 2, 4 ... 60 s, and from 1 again once something passed."""
    budget, now, pauses = RateLimit(), 0.0, []
    for _ in range(8):
        budget.limited(now, None)
        pauses.append(budget.ready_in(Priority.WRITES, now))
        now += pauses[-1]
    budget.passed(now)
    budget.limited(now, None)

    assert [1, 2, 4, 8, 16, 32, 60, 60] == pauses
    assert 1.0 == budget.ready_in(Priority.WRITES, now)


def test_answer_to_an_older_request_does_not_end_the_doubling() -> None:
    """A poll that was held before the pause and is answered during it says nothing."""
    budget = RateLimit()
    budget.limited(0.0, None)
    budget.passed(0.5)
    budget.limited(1.0, None)

    assert 2.0 == budget.ready_in(Priority.WRITES, 1.0)


def test_refusals_during_a_pause_lower_the_limit_once() -> None:
    """Sixteen writes in flight that are all refused are one refusal."""
    budget = limited_at_100()
    budget.limited(100.0, 10.0)
    lowered = budget.limit
    for moment in (100.1, 100.2, 109.9):
        budget.limited(moment, 10.0)

    assert 75 == lowered
    assert 75 == budget.limit
    assert 119.9 == pytest.approx(100.0 + budget.ready_in(Priority.WRITES, 100.0))


def test_limit_falls_to_no_less_than_a_request_in_ten_seconds() -> None:
    budget = limited_at_100()
    for episode in range(30):
        budget.limited(1000.0 * (episode + 1), 1.0)

    assert 6 == budget.limit


def test_limit_that_holds_something_back_grows_slowly() -> None:
    """Two more a minute, so that a limit learned too low is found out."""
    budget = limited_at_100()
    spend(budget, Priority.WRITES, begin=100.0, end=400.0)

    assert budget.limit is not None
    assert 106 <= budget.limit <= 112


def test_limit_that_holds_nothing_back_stays() -> None:
    """It would grow only to end in a refusal."""
    budget = limited_at_100()
    for minute in range(20):
        budget.ready_in(Priority.FEED, 100.0 + 60 * minute)
        budget.sent(Priority.FEED, 100.0 + 60 * minute)

    assert 100 == budget.limit


@pytest.mark.parametrize(
    ("priority", "most"),
    [(Priority.WRITES, 85), (Priority.FEED, 64), (Priority.PRODUCTS, 24), (Priority.PAGES, 40)],
)
def test_each_kind_keeps_to_its_part(priority: Priority, most: int) -> None:
    """F6: in a minute a kind gets its part of the limit, a burst included, and not less."""
    times = spend(limited_at_100(), priority, begin=100.0, end=159.9)

    assert most - 1 <= len(times) <= most


def test_readings_leave_writes_their_room() -> None:
    """F6: a full sync and a busy feed never starve the writes."""
    budget = limited_at_100()
    for priority in (Priority.PAGES, Priority.FEED, Priority.PRODUCTS):
        spend(budget, priority, begin=100.0, end=159.9)

    assert 0.0 == budget.ready_in(Priority.WRITES, 159.9)


def test_writes_beyond_the_limit_leave_room_for_feed_and_pages() -> None:
    """Sales beyond Central's limit neither blind the store nor put off a full sync for ever."""
    budget = limited_at_100()
    budget.ready_in(Priority.PAGES, 100.0)
    sold = spend(budget, Priority.WRITES, begin=100.0, end=110.0)
    fed = spend(budget, Priority.FEED, begin=110.0, end=159.9)
    paged = spend(budget, Priority.PAGES, begin=110.0, end=159.9)

    assert 55 == len(sold)
    assert len(fed) >= 16
    assert len(paged) >= 10


def test_no_minute_holds_more_than_the_limit() -> None:
    """Whatever the kinds ask for, and wherever the minute begins."""
    budget = limited_at_100()
    times: list[float] = []
    for second in range(100, 400):
        for priority in Priority:
            times += spend(budget, priority, begin=float(second), end=second + 1.0)
    times.sort()
    fullest = max(sum(t <= u < t + 60 for u in times) for t in times)

    assert budget.limit is not None
    assert 100 <= fullest <= budget.limit


def test_feed_is_spread_over_the_minute() -> None:
    """A feed that spent its part at once would be blind for the rest of the minute."""
    times = spend(limited_at_100(), Priority.FEED, begin=100.0, end=159.9)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]

    assert max(gaps) <= 1.01


def test_hole_can_be_asked_for_again_at_once() -> None:
    """E3: a few polls may follow each other within fractions of a second."""
    times = spend(limited_at_100(), Priority.FEED, begin=100.0, end=100.3)

    assert 5 == len(times)


def test_feed_goes_faster_as_soon_as_the_pages_are_done() -> None:
    """What was sent in the slow pace beside the pages is not waited for in the pace of before."""
    budget = limited_at_100()
    budget.ready_in(Priority.PAGES, 100.0)
    times = spend(budget, Priority.FEED, begin=100.0, end=220.0)
    pages_done_at = 160.0
    first, second, *_ = (time for time in times if time >= pages_done_at)

    assert first <= pages_done_at + 1.01
    assert second <= first + 1.01


def test_raised_limit_makes_no_turn_later() -> None:
    """A feed that waits for its turn has it no later because more is allowed now."""
    budget = limited_at_100()
    spend(budget, Priority.FEED, begin=100.0, end=159.999)
    waited = budget.ready_in(Priority.FEED, 159.999)
    assert 100 == budget.limit
    budget.ready_in(Priority.FEED, 160.0)

    assert 102 == budget.limit
    assert budget.ready_in(Priority.FEED, 160.0) <= waited
