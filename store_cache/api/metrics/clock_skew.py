"""How far Central's clock is ahead of this machine's, from the `Date` of its answers.

`Date` has whole seconds. An answer was made between the request and its arrival, so it shows that
Central's clock is ahead by more than `date - arrived_at` and by less than `date + 1 - sent_at`.
Several answers together narrow that down to much less than a second.
"""

from __future__ import annotations

from collections import deque

ANSWERS = 30
"""How many of the latest answers count. Older ones would hide a clock that drifts or was set."""


class ClockSkew:
    """Times are unix seconds: `date` by Central's clock, the others by this machine's."""

    def __init__(self) -> None:
        self._ranges: deque[tuple[float, float]] = deque(maxlen=ANSWERS)

    def observe(self, *, date: float, sent_at: float, arrived_at: float) -> None:
        low, high = date - arrived_at, date + 1.0 - sent_at
        if low > high:
            return  # this machine's clock was set meanwhile
        if self._ranges:
            lowest, highest = self.range()
            if low > highest or high < lowest:
                self._ranges.clear()  # one of the clocks was set
        self._ranges.append((low, high))

    def range(self) -> tuple[float, float]:
        """Return between which values the skew is."""
        return max(low for low, _ in self._ranges), min(high for _, high in self._ranges)

    @property
    def seconds(self) -> float | None:
        """The middle of what is possible; None until there was an answer with a date."""
        if not self._ranges:
            return None
        low, high = self.range()
        return (low + high) / 2
