"""The rate limit of requests to Central (F6, B1)."""

import itertools

import pytest

from store_cache.central.rate_limit import Priority, Quota, RateLimit


def send(rate_limit: RateLimit, priority: Priority, *, begin: float, end: float) -> list[float]:
    """Send as fast as the limit allows from `begin` to `end`, and return the times."""
    times, now = [], begin
    while (ready_in := rate_limit.ready_in(priority, now)) + now < end:
        now += ready_in
        if rate_limit.ready_in(priority, now) > 0:
            continue
        rate_limit.sent(priority, now)
        times.append(now)
        now += 0.001
    return times


def limited_at_100(now: float = 100.0) -> RateLimit:
    """A limit of 100 per minute, learned more than a minute ago, so that no request counts."""
    rate_limit = RateLimit()
    for _ in range(101):
        rate_limit.sent(Priority.PAGES, now - 70)
    rate_limit.limited(now - 70, 1.0)
    return rate_limit


def test_there_is_no_limit_before_the_first_refusal() -> None:
    """F6: Central names none, so every request is allowed until it refuses one."""
    rate_limit = RateLimit()
    for _ in range(5000):
        rate_limit.sent(Priority.PAGES, 0.0)

    assert 0.0 == rate_limit.ready_in(Priority.PAGES, 0.0)
    assert rate_limit.limit is None


def test_first_refusal_sets_the_limit_to_the_last_minute() -> None:
    """Neither older requests nor the refused one count."""
    rate_limit = RateLimit()
    for _ in range(50):
        rate_limit.sent(Priority.FEED, 0.0)
    for _ in range(101):
        rate_limit.sent(Priority.FEED, 61.0)
    rate_limit.limited(61.0, None)

    assert 100 == rate_limit.limit


def test_first_refusal_soon_after_a_restart_sets_no_tiny_limit() -> None:
    """Central still counts the requests of the process before, so the own count is too low."""
    rate_limit = RateLimit()
    rate_limit.sent(Priority.FEED, 0.0)
    rate_limit.limited(0.0, 30.0)

    assert 60 == rate_limit.limit


@pytest.mark.parametrize("priority", Priority)
def test_refusal_pauses_everything(priority: Priority) -> None:
    """B1: a 429 pauses requests of every priority."""
    rate_limit = RateLimit()
    rate_limit.limited(10.0, 30.0)

    assert 30.0 == rate_limit.ready_in(priority, 10.0)
    assert 0.5 == rate_limit.ready_in(priority, 39.5)
    assert 0.0 == rate_limit.ready_in(priority, 40.0)


@pytest.mark.parametrize(("named", "paused"), [(1e9, 300.0), (0.01, 1.0), (12.5, 12.5)])
def test_named_pause_is_bounded(named: float, paused: float) -> None:
    """A clock that is hours off cannot stop the store, nor can a tiny pause flood Central."""
    rate_limit = RateLimit()
    rate_limit.limited(0.0, named)

    assert paused == rate_limit.ready_in(Priority.WRITES, 0.0)


def test_no_wait_is_too_short_for_a_clock() -> None:
    """[F6] What rounding leaves of a wait could end at the very time it began, again and again."""
    rate_limit = RateLimit()
    rate_limit.limited(0.0, 5.0)

    assert 0.001 == rate_limit.ready_in(Priority.FEED, 5.0 - 1e-12)
    assert 0.0 == rate_limit.ready_in(Priority.FEED, 5.0)


def test_unnamed_pauses_double_up_to_a_minute() -> None:
    """They are 1, 2, 4 ... 60 s, and 1 again after an answer."""
    rate_limit, now, pauses = RateLimit(), 0.0, []
    for _ in range(8):
        rate_limit.limited(now, None)
        pauses.append(rate_limit.ready_in(Priority.WRITES, now))
        now += pauses[-1]
    rate_limit.passed(now)
    rate_limit.limited(now, None)

    assert [1, 2, 4, 8, 16, 32, 60, 60] == pauses
    assert 1.0 == rate_limit.ready_in(Priority.WRITES, now)


def test_answer_to_an_older_request_does_not_end_the_doubling() -> None:
    """A poll that was sent before the pause may be answered during it."""
    rate_limit = RateLimit()
    rate_limit.limited(0.0, None)
    rate_limit.passed(0.5)
    rate_limit.limited(1.0, None)

    assert 2.0 == rate_limit.ready_in(Priority.WRITES, 1.0)


def test_refusals_during_a_pause_lower_the_limit_once() -> None:
    """Concurrent requests that are all refused are one refusal."""
    rate_limit = limited_at_100()
    rate_limit.limited(100.0, 10.0)
    lowered = rate_limit.limit
    for moment in (100.1, 100.2, 109.9):
        rate_limit.limited(moment, 10.0)

    assert 75 == lowered
    assert 75 == rate_limit.limit
    assert 119.9 == pytest.approx(100.0 + rate_limit.ready_in(Priority.WRITES, 100.0))


def test_limit_never_falls_below_a_request_in_ten_seconds() -> None:
    rate_limit = limited_at_100()
    for episode in range(30):
        rate_limit.limited(1000.0 * (episode + 1), 1.0)

    assert 6 == rate_limit.limit


def test_limit_that_holds_requests_back_grows_slowly() -> None:
    """By two per minute, so that an estimate that is too low is corrected."""
    rate_limit = limited_at_100()
    send(rate_limit, Priority.WRITES, begin=100.0, end=400.0)

    assert rate_limit.limit is not None
    assert 106 <= rate_limit.limit <= 112


def test_limit_that_holds_nothing_back_stays() -> None:
    """Growing, it would only lead to a refusal."""
    rate_limit = limited_at_100()
    for minute in range(20):
        rate_limit.ready_in(Priority.FEED, 100.0 + 60 * minute)
        rate_limit.sent(Priority.FEED, 100.0 + 60 * minute)

    assert 100 == rate_limit.limit


@pytest.mark.parametrize(
    ("priority", "most"),
    [(Priority.WRITES, 85), (Priority.FEED, 64), (Priority.PRODUCTS, 24), (Priority.PAGES, 40)],
)
def test_each_priority_gets_its_share(priority: Priority, most: int) -> None:
    """F6: in a minute it may send its share of the limit, with its burst, and no more."""
    times = send(limited_at_100(), priority, begin=100.0, end=159.9)

    assert most - 1 <= len(times) <= most


def test_reads_leave_room_for_writes() -> None:
    """F6: a full sync and a busy feed do not starve writes."""
    rate_limit = limited_at_100()
    for priority in (Priority.PAGES, Priority.FEED, Priority.PRODUCTS):
        send(rate_limit, priority, begin=100.0, end=159.9)

    assert 0.0 == rate_limit.ready_in(Priority.WRITES, 159.9)


def test_writes_leave_room_for_feed_and_pages() -> None:
    """F6: sales beyond the limit neither stop the feed nor put off a full sync for ever."""
    rate_limit = limited_at_100()
    rate_limit.ready_in(Priority.PAGES, 100.0)
    sold = send(rate_limit, Priority.WRITES, begin=100.0, end=110.0)
    fed = send(rate_limit, Priority.FEED, begin=110.0, end=159.9)
    paged = send(rate_limit, Priority.PAGES, begin=110.0, end=159.9)

    assert 55 == len(sold)
    assert len(fed) >= 16
    assert len(paged) >= 10


def test_no_minute_holds_more_than_the_limit() -> None:
    """Whatever the priorities send, and wherever the minute begins."""
    rate_limit = limited_at_100()
    times: list[float] = []
    for second in range(100, 400):
        for priority in Priority:
            times += send(rate_limit, priority, begin=float(second), end=second + 1.0)
    times.sort()
    fullest = max(sum(t <= u < t + 60 for u in times) for t in times)

    assert rate_limit.limit is not None
    assert 100 <= fullest <= rate_limit.limit


def test_feed_is_spread_over_the_minute() -> None:
    """If it used its share at once, it would see nothing for the rest of the minute."""
    times = send(limited_at_100(), Priority.FEED, begin=100.0, end=159.9)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]

    assert max(gaps) <= 1.01


def test_gap_can_be_polled_again_at_once() -> None:
    """E3: a few polls may follow each other within fractions of a second."""
    times = send(limited_at_100(), Priority.FEED, begin=100.0, end=100.3)

    assert 5 == len(times)


def test_feed_speeds_up_when_the_pages_are_done() -> None:
    """It does not first wait at the slower pace that it had beside the pages."""
    rate_limit = limited_at_100()
    rate_limit.ready_in(Priority.PAGES, 100.0)
    times = send(rate_limit, Priority.FEED, begin=100.0, end=220.0)
    pages_done_at = 160.0
    first, second, *_ = (time for time in times if time >= pages_done_at)

    assert first <= pages_done_at + 1.01
    assert second <= first + 1.01


def test_raised_limit_delays_no_request() -> None:
    rate_limit = limited_at_100()
    send(rate_limit, Priority.FEED, begin=100.0, end=159.999)
    waited = rate_limit.ready_in(Priority.FEED, 159.999)
    assert 100 == rate_limit.limit
    rate_limit.ready_in(Priority.FEED, 160.0)

    assert 102 == rate_limit.limit
    assert rate_limit.ready_in(Priority.FEED, 160.0) <= waited


# -- a limit that Central names ----------------------------------------------------------------


def told(quota: Quota, *, at: float = 0.0) -> RateLimit:
    """A limit after one answered request."""
    rate_limit = RateLimit()
    rate_limit.named(quota, number=rate_limit.sent(Priority.FEED, at), sent_at=at)
    return rate_limit


@pytest.mark.parametrize(
    ("quota", "per_minute"),
    [
        (Quota(100), 100),
        (Quota(100, reset_seconds=61.4), 100),
        (Quota(100, window_seconds=60, reset_seconds=3), 100),
        (Quota(10, window_seconds=1), 600),
        (Quota(3600, reset_seconds=1800), 120),
        (Quota(1), 6),
    ],
)
def test_limit_holds_from_the_first_answer_on(quota: Quota, per_minute: int) -> None:
    """F6: whatever the window that it is named for. Without a reset it is a minute."""
    assert per_minute == told(quota).limit


def test_longest_reset_is_the_window() -> None:
    """An answer at the end of a window names a short reset."""
    rate_limit = told(Quota(100, remaining=99, reset_seconds=3.0))
    rate_limit.named(
        Quota(100, remaining=99, reset_seconds=60.0),
        number=rate_limit.sent(Priority.FEED, 4.0),
        sent_at=4.0,
    )

    assert 100 == rate_limit.limit


def test_sales_pass_while_pages_take_what_is_left() -> None:
    """F6: in every minute of a first sync, and none holds more requests than the limit."""
    rate_limit, pages, sales = RateLimit(), list[float](), list[float]()
    window_ends = 0.0
    for second in range(300):
        now = float(second)
        if second % 3 == 0:
            assert 0.0 == rate_limit.ready_in(Priority.WRITES, now)
            rate_limit.sent(Priority.WRITES, now)
            sales.append(now)
        if now >= window_ends:
            window_ends = now + 60.0
            number = rate_limit.sent(Priority.FEED, now)
            quota = Quota(60, remaining=58, reset_seconds=60.0)
            rate_limit.named(quota, number=number, sent_at=now)
        pages += send(rate_limit, Priority.PAGES, begin=now + 0.01, end=now + 1.0)
    times = sorted(pages + sales)

    assert max(sum(t <= u < t + 60 for u in times) for t in times) <= 60
    assert len(pages) >= 5 * 24


def test_few_pages_are_read_at_once() -> None:
    """F6: half of the limit, if Central says that it is left."""
    named = told(Quota(60, remaining=59, reset_seconds=60.0))
    unnamed = told(Quota(60))

    assert 29 == len(send(named, Priority.PAGES, begin=0.0, end=1.0))
    assert 1 == len(send(unnamed, Priority.PAGES, begin=0.0, end=1.0))


@pytest.mark.parametrize(("remaining", "pages"), [(30, 3), (27, 0), (20, 0), (0, 0)])
def test_reads_leave_a_reserve_of_what_remains(remaining: int, pages: int) -> None:
    """F6: others, or this store before a restart, may have used most of the window."""
    quota = Quota(60, remaining=remaining, reset_seconds=60.0)

    assert pages == len(send(told(quota), Priority.PAGES, begin=0.0, end=1.0))


@pytest.mark.parametrize("remaining", [20, 3])
def test_reserve_shrinks_until_the_window_ends(remaining: int) -> None:
    """F6: nothing of it is left unused."""
    quota = Quota(60, remaining=remaining, reset_seconds=60.0)
    pages = send(told(quota), Priority.PAGES, begin=0.0, end=59.99)

    assert remaining - 1 <= len(pages) <= remaining
    assert pages[0] >= 60.0 * (1 - remaining / 27)


def test_reserve_is_for_writes() -> None:
    """F6: they are not held back, even if nothing remains: only a refusal proves that."""
    rate_limit = told(Quota(60, remaining=0, reset_seconds=40.0))

    assert 0.0 == rate_limit.ready_in(Priority.WRITES, 0.0)
    assert 40.0 == rate_limit.ready_in(Priority.FEED, 0.0)
    assert 0.0 == rate_limit.ready_in(Priority.FEED, 40.0)


def test_answer_to_an_older_request_says_nothing_new() -> None:
    """A poll may be held while later requests are answered."""
    rate_limit = RateLimit()
    poll = rate_limit.sent(Priority.FEED, 0.0)
    page = rate_limit.sent(Priority.PAGES, 10.0)
    rate_limit.named(Quota(60, remaining=0, reset_seconds=50.0), number=page, sent_at=10.0)
    rate_limit.named(Quota(60, remaining=59, reset_seconds=60.0), number=poll, sent_at=0.0)

    assert 50.0 == rate_limit.ready_in(Priority.PAGES, 10.0)


def test_reset_that_is_far_away_holds_reads_for_minutes_at_most() -> None:
    """B1: nothing that Central names stops the store."""
    rate_limit = told(Quota(60, remaining=0, reset_seconds=3600.0))

    assert 300.0 == rate_limit.ready_in(Priority.FEED, 0.0)


def test_refusal_lowers_a_named_limit_and_it_rises_to_the_name() -> None:
    """Central's word is the most, and its refusals count more."""
    rate_limit = told(Quota(100))
    rate_limit.limited(0.0, 1.0)
    lowered = rate_limit.limit
    rate_limit.named(Quota(100), number=rate_limit.sent(Priority.FEED, 2.0), sent_at=2.0)
    kept = rate_limit.limit
    send(rate_limit, Priority.FEED, begin=60.0, end=1800.0)

    assert (75, 75, 100) == (lowered, kept, rate_limit.limit)


def test_another_named_limit_holds_at_once() -> None:
    rate_limit = told(Quota(100))
    rate_limit.named(Quota(300), number=rate_limit.sent(Priority.FEED, 2.0), sent_at=2.0)

    assert 300 == rate_limit.limit
