"""When the next verification is due."""

from __future__ import annotations

from collections.abc import Callable

JITTER_SHARE = 0.1
"""Stores of a chain must not ask all at once: an interval is up to so much shorter or longer."""

SPREAD_SECONDS = 5.0
"""Jitter of a run that something asks for: a full sync, or a break of the connection."""

AFTER_BREAK_SPACING_SECONDS = 60.0
"""Breaks of the connection ask for a run this often at most; one more is due when that is over."""

RETRY_SECONDS = 60.0
"""How long after a run that was given up the next one begins, jittered, if none is due before."""


class Schedule:
    """Plans one run at a time. Times are seconds of one clock, `random` gives numbers in [0, 1)."""

    def __init__(self, interval_seconds: float, random: Callable[[], float]) -> None:
        self.due_at = float("inf")
        self.is_broken = False
        """The connection has failed, and no run was planned since."""
        self._interval_seconds = interval_seconds
        self._random = random
        self._not_before = float("-inf")
        self._after_break_at = float("-inf")

    def begin(self, now: float) -> None:
        """A run begins: plan the one after it."""
        share = 1 + JITTER_SHARE * (2 * self._random() - 1)
        self.due_at = now + self._interval_seconds * share

    def bring_forward(self, now: float) -> None:
        """Plan a run within seconds."""
        self.due_at = min(self.due_at, now + SPREAD_SECONDS * self._random())

    def retry(self, now: float) -> None:
        """Plan a run after one that was given up."""
        self.due_at = min(self.due_at, now + RETRY_SECONDS * (1 + self._random()) / 2)

    def note_break(self, now: float) -> None:
        """An exchange of the feed or of a full sync has failed. A run is due some seconds later,
        and not before the connection works again, which back-offs spread over the stores."""
        if not self.is_broken:
            self.is_broken = True
            self._not_before = now + SPREAD_SECONDS * self._random()

    def note_return(self, now: float) -> None:
        """The connection works again: plan a run, but only one a minute."""
        if not self.is_broken:
            return
        self.is_broken = False
        earliest = self._after_break_at + AFTER_BREAK_SPACING_SECONDS
        self._after_break_at = max(now, self._not_before, earliest)
        self.due_at = min(self.due_at, self._after_break_at)
