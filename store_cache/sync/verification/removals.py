"""How many products repairs may remove: what is removed bit by bit adds up (F5)."""

from __future__ import annotations

from bisect import bisect_right

DAY_SECONDS = 86_400.0


class RemovalLimit:
    """Counts the products that repairs have removed, in this run, this lap and the last day.

    `least_percent`: SNAPSHOT_MIN_PERCENT. Times are seconds of one clock.
    """

    def __init__(self, least_percent: int) -> None:
        self.since = float("inf")
        """When the run or lap under way began, whichever is older."""
        self._least_percent = least_percent
        self._removed_at: list[float] = []

    def allows(self, products: int, *, held: int, now: float) -> bool:
        """Return whether `products` more may be removed of the `held` ones: the rest must be
        `least_percent` of what was held before the removals that count."""
        oldest = min(self.since, now - DAY_SECONDS)
        del self._removed_at[: bisect_right(self._removed_at, oldest)]
        before = held + len(self._removed_at)
        return products == 0 or (held - products) * 100 >= before * self._least_percent

    def note(self, now: float) -> None:
        """One product was removed."""
        self._removed_at.append(now)
