"""How many requests a minute Central stands, learned from its refusals, and who may use them (F6).

Knows: when the next request of a kind may be sent. Central names no limit, so there is none until
its first 429; then what was sent in the minute before is the guess, lowered by each further
refusal and raised slowly while it holds something back.
Refuses to know: what is sent, and how waiting is done; times are seconds of a monotonic clock.

Each kind has at most its part of the limit, so that none starves another:

                                     writes   feed   products   pages
    while no pages are being read      85 %   60 %       20 %
    while they are                     55 %   20 %       10 %    40 %

Sales beyond the limit must not blind the store to the feed, nor put off a first full sync for
ever; readings always leave the writes a fifth and more. Readings are spaced evenly as well: a
feed that spent its part in the first seconds of a minute would be blind for the rest of it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

WINDOW_SECONDS = 60.0
"""Limits are given by the minute; no more than the limit in *any* minute suits every counting."""

LONGEST_PAUSE_SECONDS = 300.0
"""A Central that names a longer wait is asked again after this: its clock may be wrong."""

LONGEST_GUESS_SECONDS = 60.0
"""The same for waits that Central does not name: 1, 2, 4 and so on up to this."""

SHORTEST_PAUSE_SECONDS = 1.0

LOWEST_FIRST_LIMIT = 60
"""After a restart the first 429 may come at once, since Central still counts the requests of the
process before: what was sent says little then."""

LOWEST_LIMIT = 6

_LOWERED = 0.75
_RAISED = 2
_MOST_COUNTED = 20_000
"""Bounds the memory. A limit above this is none to a shop."""

_BURST = 5
"""Feed pages and products that may follow each other at once: a hole is asked for again within
fractions of a second (E3), and an interval's backlog is drained in a few pages."""


class Priority(Enum):
    """Kinds of requests, the most urgent first."""

    WRITES = "writes"
    FEED = "feed"
    PRODUCTS = "products"
    PAGES = "pages"


_PARTS = {
    Priority.WRITES: 0.85,
    Priority.FEED: 0.6,
    Priority.PRODUCTS: 0.2,
    Priority.PAGES: 0.4,
}
_PARTS_WITH_PAGES = {
    Priority.WRITES: 0.55,
    Priority.FEED: 0.2,
    Priority.PRODUCTS: 0.1,
    Priority.PAGES: 0.4,
}
_PAGES_STOP_AT = 0.95
"""Pages leave the last of the whole limit to the others: they are the least urgent."""


class _Window:
    """When requests were sent during the last minute."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_COUNTED)

    def add(self, now: float) -> None:
        self._times.append(now)

    def count(self, now: float) -> int:
        while self._times and self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
        return len(self._times)

    def room_in(self, limit: int, now: float) -> float:
        """Seconds until fewer than `limit` of them are in the window."""
        excess = self.count(now) - limit
        return 0.0 if excess < 0 else self._times[excess] + WINDOW_SECONDS - now


class RateLimit:
    """One for all requests to a Central: it counts them by address, not by kind."""

    def __init__(self) -> None:
        self._all = _Window()
        self._writes = _Window()
        self._limit: int | None = None
        self._paused_until = float("-inf")
        self._guesses = 0
        self._settled_at = 0.0
        self._holds_back = False
        self._next_due: dict[Priority, tuple[float, int]] = {}
        self._pages_wanted_at = float("-inf")

    @property
    def limit(self) -> int | None:
        """Requests a minute that Central is believed to stand; None while it refused none."""
        return self._limit

    def ready_in(self, priority: Priority, now: float) -> float:
        """Seconds until a request of this kind may be sent; 0.0: now."""
        if priority is Priority.PAGES:
            self._pages_wanted_at = now
        if now < self._paused_until:
            return self._paused_until - now
        if self._limit is None:
            return 0.0
        self._raise_limit(now)
        seconds = max(self._room_in(priority, now), self._turn_in(priority, now))
        self._holds_back = self._holds_back or seconds > 0.0
        return seconds

    def sent(self, priority: Priority, now: float) -> None:
        """A request is being sent. Call it in the same step as the `ready_in` that allowed it."""
        self._all.add(now)
        if priority is Priority.WRITES:
            self._writes.add(now)
        elif self._limit is not None:
            part = self._part(priority, now)
            due = max(self._due(priority, part, now), now)
            self._next_due[priority] = due + WINDOW_SECONDS / part, part

    def limited(self, now: float, retry_after: float | None) -> None:
        """Central answered 429. `retry_after`: the seconds that it named, if any.

        Everything pauses. Refusals that arrive during a pause belong to the one that began it.
        """
        if now >= self._paused_until:
            self._lower_limit(now)
            self._guesses += 1
        guess = min(2.0 ** min(self._guesses - 1, 10), LONGEST_GUESS_SECONDS)
        seconds = guess if retry_after is None else min(retry_after, LONGEST_PAUSE_SECONDS)
        pause_ends = now + max(seconds, SHORTEST_PAUSE_SECONDS)
        self._paused_until = max(self._paused_until, pause_ends)

    def passed(self, now: float) -> None:
        """Central answered something else than 429. During a pause that answers an older
        request, and says nothing."""
        if now >= self._paused_until:
            self._guesses = 0

    def _room_in(self, priority: Priority, now: float) -> float:
        share = _PAGES_STOP_AT if priority is Priority.PAGES else 1.0
        return self._all.room_in(self._requests(share), now)

    def _turn_in(self, priority: Priority, now: float) -> float:
        part = self._part(priority, now)
        if priority is Priority.WRITES:
            return self._writes.room_in(part, now)
        burst = 1 if priority is Priority.PAGES else _BURST
        tolerance = (burst - 1) * WINDOW_SECONDS / part
        return max(self._due(priority, part, now) - tolerance - now, 0.0)

    def _due(self, priority: Priority, part: int, now: float) -> float:
        """When the next of this kind is due in an even spacing. Where its part is another than when
        the last was sent, what is left of the wait changes with it: else a feed that may go faster,
        the pages being done, would first wait in the pace of before."""
        due, part_then = self._next_due.get(priority, (now, part))
        if part != part_then and due > now:
            due = now + (due - now) * part_then / part
            self._next_due[priority] = due, part
        return due

    def _part(self, priority: Priority, now: float) -> int:
        with_pages = now - self._pages_wanted_at < WINDOW_SECONDS
        return self._requests((_PARTS_WITH_PAGES if with_pages else _PARTS)[priority])

    def _requests(self, share: float) -> int:
        """That share of the limit, at least one request a minute."""
        return max(int(share * (self._limit or 1)), 1)

    def _lower_limit(self, now: float) -> None:
        if self._limit is None:
            accepted = self._all.count(now) - 1
            self._limit = max(accepted, LOWEST_FIRST_LIMIT)
        else:
            self._limit = max(int(self._limit * _LOWERED), LOWEST_LIMIT)
        self._settle(now)

    def _raise_limit(self, now: float) -> None:
        """A limit that holds nothing back has no reason to grow: it would only end in a 429."""
        if self._limit is None or now - self._settled_at < WINDOW_SECONDS:
            return
        if self._holds_back:
            self._limit += _RAISED
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._settled_at = now
        self._holds_back = False
