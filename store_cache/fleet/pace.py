"""When the next report is due.

Every minute, and soon after the state has changed. Each time is drawn from a range, so that the
stores of a chain that start, or lose Central, together do not report together.
"""

from __future__ import annotations

from store_cache.central.failures import CentralError, HeldBack, RequestRefused

INTERVAL_SECONDS = 60.0
JITTER = 0.2
"""A pause is up to this part shorter or longer than its name says; only longer if somebody else has
named it."""

FIRST_SECONDS = 10.0
"""The first report comes within so many seconds of the start."""

CHANGE_SECONDS = 5.0
"""A change of the state is reported within so many seconds, if it lasts. Most starts and returns
pass through several states within a second; only the last one is worth a report."""

LEAST_SECONDS = 5.0
"""Between two reports, however often the state changes; longer if Central names a time."""

UNKNOWN_SECONDS = 3600.0
"""After a Central without such a call; it may be updated one day."""

_NO_SUCH_CALL = (404, 405, 501)


class Pace:
    """`due_at`: when the next report is due. `is_unknown`: Central has no such call. Times are
    seconds of a monotonic clock, `chance` a random number from 0 to 1."""

    def __init__(self, now: float, chance: float) -> None:
        self.is_unknown = False
        self.due_at = now + FIRST_SECONDS * chance
        self._not_before = float("-inf")

    def changed(self, now: float, chance: float) -> None:
        """The state has changed."""
        if self.is_unknown:
            return
        soon = max(now + CHANGE_SECONDS * chance, self._not_before)
        self.due_at = min(self.due_at, soon)

    def sent(self, now: float, chance: float, failure: CentralError | None) -> None:
        """A report was sent, or could not be: `failure`."""
        self.is_unknown = is_no_such_call(failure)
        self._not_before = now + LEAST_SECONDS
        named = None if failure is None else failure.retry_after_seconds
        if self.is_unknown:
            self.due_at = now + _about(UNKNOWN_SECONDS, chance)
        elif isinstance(failure, HeldBack):
            seconds = min(max(failure.retry_after_seconds, LEAST_SECONDS), INTERVAL_SECONDS)
            self.due_at = now + _at_least(seconds, chance)
        elif named:
            seconds = min(max(named, INTERVAL_SECONDS), UNKNOWN_SECONDS)
            self.due_at = self._not_before = now + _at_least(seconds, chance)
        else:
            self.due_at = now + _about(INTERVAL_SECONDS, chance)


def _about(seconds: float, chance: float) -> float:
    return seconds * (1.0 + JITTER * (2.0 * chance - 1.0))


def _at_least(seconds: float, chance: float) -> float:
    """Return the pause where a time was named before which to send nothing."""
    return seconds * (1.0 + JITTER * chance)


def is_no_such_call(failure: CentralError | None) -> bool:
    """Return whether Central has answered that it takes no reports."""
    return isinstance(failure, RequestRefused) and failure.status in _NO_SUCH_CALL
