"""The rate limit of requests to Central, named by it or learned, and shared by priority (F6).

If Central's answers name a limit, it holds from the first answer on. Otherwise there is none until
the first 429; then the requests of the minute before are the estimate. Each further refusal lowers
the limit; while it holds requests back, it rises slowly, at most to what Central names.

Each priority has at most its share of the limit, so that none starves another:

                                     writes   feed   products   pages   reports
    while no pages are read            85 %   60 %       20 %                5 %
    while pages are read               55 %   20 %       10 %    40 %        5 %

Sales beyond the limit must neither stop the feed nor put off a first full sync for ever, and reads
always leave a fifth or more to writes. Reads are spaced evenly as well: a feed that used its share
in the first seconds of a minute would see nothing for the rest of it.

If Central says how many requests remain until a moment, reads leave a part of them to writes, the
pages most: others may send from the same address, or this store did before a restart. Writes are
held back by no such number, only by a refusal: if the number is wrong, they go on. While half of
the minute is left by that number and by the own count, pages need not be spaced: a first full sync
of few pages is done at once.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

WINDOW_SECONDS = 60.0
"""Limits are per minute. At most the limit in *any* minute suits every way of counting."""

LONGEST_PAUSE_SECONDS = 300.0
"""If Central names a longer wait, requests go on after this: its clock may be wrong."""

LONGEST_GUESS_SECONDS = 60.0
"""If Central names no wait, the pauses are 1, 2, 4 and so on up to this."""

SHORTEST_PAUSE_SECONDS = 1.0

SHORTEST_WAIT_SECONDS = 0.001
"""A wait of a rounding error may end at the very time it began, and would be asked for again and
again."""

LOWEST_FIRST_LIMIT = 60
"""After a restart the first 429 may come at once, because Central still counts the requests of the
process before. The number sent since then would be too low an estimate."""

LOWEST_LIMIT = 6

_LOWERED = 0.75
_RAISED = 2
_MOST_COUNTED = 20_000
"""Bounds the memory. No shop reaches a limit above this."""

_BURST = 5
"""Feed or product requests that may follow each other at once: a gap is polled again within
fractions of a second (E3), and the backlog of an interval takes a few pages."""


class Priority(Enum):
    """The kinds of requests, the most urgent first."""

    WRITES = "writes"
    FEED = "feed"
    PRODUCTS = "products"
    PAGES = "pages"
    REPORTS = "reports"


_SHARES = {
    Priority.WRITES: 0.85,
    Priority.FEED: 0.6,
    Priority.PRODUCTS: 0.2,
    Priority.PAGES: 0.4,
    Priority.REPORTS: 0.05,
}
_SHARES_WITH_PAGES = {
    Priority.WRITES: 0.55,
    Priority.FEED: 0.2,
    Priority.PRODUCTS: 0.1,
    Priority.PAGES: 0.4,
    Priority.REPORTS: 0.05,
}
_STOP_AT = {Priority.PAGES: 0.95, Priority.REPORTS: 0.9}
"""Pages and reports are the least urgent: they leave the rest of the whole limit to the others."""

_RESERVES = {
    Priority.FEED: 0.15,
    Priority.PRODUCTS: 0.3,
    Priority.PAGES: 0.45,
    Priority.REPORTS: 0.5,
}
"""The part of the limit that a read leaves to more urgent requests when a window begins. It shrinks
to nothing until the window ends."""

_PAGES_AT_ONCE = 0.5
"""The part of the limit up to which pages are not spaced if Central says what remains."""

_LEAST_SECONDS = 0.001
"""A shorter wait is a rounding error."""

_ROUNDING_SECONDS = 2.0
"""By so much a reset in whole seconds may be off."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What an answer of Central says about its limit.

    `limit`: the requests allowed in a window of `window_seconds`; `remaining`: those still allowed
    in this one, which ends in `reset_seconds`. None: the answer does not say.
    """

    limit: int
    window_seconds: float | None = None
    remaining: int | None = None
    reset_seconds: float | None = None


class _LastMinute:
    """The times of the requests sent within `WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_COUNTED)

    def add(self, now: float) -> None:
        self._times.append(now)

    def count(self, now: float) -> int:
        while self._times and self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
        return len(self._times)

    def room_in(self, limit: int, now: float) -> float:
        """Return the seconds until fewer than `limit` requests count."""
        excess = self.count(now) - limit
        return 0.0 if excess < 0 else self._times[excess] + WINDOW_SECONDS - now


class RateLimit:
    """The limit of all requests to one Central, which counts them by address, not by kind.

    `paused_until`: nothing is sent before this moment.
    """

    def __init__(self) -> None:
        self.paused_until = float("-inf")
        self._all = _LastMinute()
        self._writes = _LastMinute()
        self._limit: int | None = None
        self._sent = 0
        self._quota: Quota | None = None
        self._quota_from = 0  # the number of the request whose answer named it
        self._named_limit: int | None = None
        self._window_seconds = 0.0
        self._remaining_until = float("-inf")
        self._guesses = 0
        self._settled_at = 0.0
        self._holds_back = False
        self._next_due: dict[Priority, tuple[float, int]] = {}
        self._pages_wanted_at = float("-inf")

    @property
    def limit(self) -> int | None:
        """The limit in requests per minute; None while Central has neither named nor shown one."""
        return self._limit

    def ready_in(self, priority: Priority, now: float) -> float:
        """Return the seconds until a request may be sent; 0.0 means now."""
        if priority is Priority.PAGES:
            self._pages_wanted_at = now
        if now < self.paused_until:
            return max(self.paused_until - now, SHORTEST_WAIT_SECONDS)
        if self._limit is None:
            return 0.0
        self._raise_limit(now)
        room_in = self._all.room_in(self._requests(_STOP_AT.get(priority, 1.0)), now)
        seconds = max(room_in, self._turn_in(priority, now), self._reserve_in(priority, now))
        if seconds <= 0.0:
            return 0.0
        self._holds_back = True
        return max(seconds, SHORTEST_WAIT_SECONDS)

    def sent(self, priority: Priority, now: float) -> int:
        """Count a request and return its number. Call this in the same step as the `ready_in` that
        allowed it."""
        self._sent += 1
        self._all.add(now)
        if priority is Priority.WRITES:
            self._writes.add(now)
        elif self._limit is not None:
            per_minute = self._per_minute(priority, now)
            due = now if priority is Priority.PAGES else self._due(priority, per_minute, now)
            due = max(due, now)
            self._next_due[priority] = due + WINDOW_SECONDS / per_minute, per_minute
        return self._sent

    def named(self, quota: Quota, *, number: int, sent_at: float) -> None:
        """Keep to what the answer to the request `number`, sent at `sent_at`, says of the limit.

        A held poll may be answered long after later requests; then it says nothing new.
        """
        if number < self._quota_from:
            return
        is_new = self._quota is None or quota.limit != self._quota.limit
        window = quota.window_seconds
        if window is None:  # the longest time to a reset is the best estimate
            named = quota.reset_seconds or WINDOW_SECONDS
            is_minute = abs(named - WINDOW_SECONDS) <= _ROUNDING_SECONDS
            window = WINDOW_SECONDS if is_minute else named
            window = window if is_new else max(window, self._window_seconds)
        self._quota, self._quota_from, self._window_seconds = quota, number, window
        limit = max(int(quota.limit * WINDOW_SECONDS / window), LOWEST_LIMIT)
        self._named_limit = limit
        self._limit = limit if is_new or self._limit is None else min(self._limit, limit)
        self._remaining_until = float("-inf")
        if quota.remaining is not None and quota.reset_seconds is not None:
            self._remaining_until = sent_at + min(quota.reset_seconds, LONGEST_PAUSE_SECONDS)

    def limited(self, now: float, retry_after: float | None) -> None:
        """Pause all requests after a 429. `retry_after`: the seconds that Central named, if any.

        Refusals during a pause belong to the one that began it, and do not lower the limit again.
        """
        if now >= self.paused_until:
            self._lower_limit(now)
            self._guesses += 1
        guess = min(2.0 ** min(self._guesses - 1, 10), LONGEST_GUESS_SECONDS)
        seconds = guess if retry_after is None else min(retry_after, LONGEST_PAUSE_SECONDS)
        pause_ends = now + max(seconds, SHORTEST_PAUSE_SECONDS)
        self.paused_until = max(self.paused_until, pause_ends)

    def passed(self, now: float) -> None:
        """Note an answer other than 429. During a pause it belongs to an older request."""
        if now >= self.paused_until:
            self._guesses = 0

    def _turn_in(self, priority: Priority, now: float) -> float:
        """Return the seconds until the share of this priority allows a request."""
        per_minute = self._per_minute(priority, now)
        if priority is Priority.WRITES:
            return self._writes.room_in(per_minute, now)
        may_hurry = priority is Priority.PAGES and now < self._remaining_until
        if may_hurry and self._all.count(now) < self._requests(_PAGES_AT_ONCE):
            return 0.0
        burst = 1 if priority in (Priority.PAGES, Priority.REPORTS) else _BURST
        tolerance = (burst - 1) * WINDOW_SECONDS / per_minute
        return max(self._due(priority, per_minute, now) - tolerance - now, 0.0)

    def _reserve_in(self, priority: Priority, now: float) -> float:
        """Return the seconds until a read leaves enough of what remains to more urgent requests."""
        seconds_left = self._remaining_until - now
        if priority is Priority.WRITES or seconds_left <= 0 or self._quota is None:
            return 0.0
        remaining = self._quota.remaining or 0
        spare = remaining - (self._sent - self._quota_from) - 1
        if spare < 0:
            return seconds_left
        reserve_per_second = _RESERVES[priority] * (self._named_limit or 1) / WINDOW_SECONDS
        seconds = seconds_left - spare / reserve_per_second
        return seconds if seconds > _LEAST_SECONDS else 0.0

    def _due(self, priority: Priority, per_minute: int, now: float) -> float:
        """Return when the next request is due at an even spacing.

        If the pace has changed since the last request, scale the rest of the wait: otherwise a feed
        that may go faster, because the pages are done, would first wait at the old pace.
        """
        due, pace_then = self._next_due.get(priority, (now, per_minute))
        if per_minute != pace_then and due > now:
            due = now + (due - now) * pace_then / per_minute
            self._next_due[priority] = due, per_minute
        return due

    def _per_minute(self, priority: Priority, now: float) -> int:
        with_pages = now - self._pages_wanted_at < WINDOW_SECONDS
        return self._requests((_SHARES_WITH_PAGES if with_pages else _SHARES)[priority])

    def _requests(self, share: float) -> int:
        """Return that share of the limit, at least one request per minute."""
        return max(int(share * (self._limit or 1)), 1)

    def _lower_limit(self, now: float) -> None:
        if self._limit is None:
            accepted = self._all.count(now) - 1
            self._limit = max(accepted, LOWEST_FIRST_LIMIT)
        else:
            self._limit = max(int(self._limit * _LOWERED), LOWEST_LIMIT)
        self._settle(now)

    def _raise_limit(self, now: float) -> None:
        """Raise the limit once a minute, but only if it held a request back."""
        if self._limit is None or now - self._settled_at < WINDOW_SECONDS:
            return
        if self._holds_back:
            raised = self._limit + _RAISED
            self._limit = raised if self._named_limit is None else min(raised, self._named_limit)
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._settled_at = now
        self._holds_back = False
