"""When a write is tried again, and what its tries together prove (W2, W3).

Knows: which failures may pass, the waits between tries, whether a try may have reached Central.
Refuses to know: what is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    Unreachable,
    WriteUnknown,
    WriteUnsent,
)

PASSING_STATUS = frozenset({502, 503, 504})
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 2.0


class Tries:
    """The tries of one write. `ends_at` is its deadline by the loop's clock.

    `reached`: a try that is over may have reached Central.
    """

    def __init__(self, ends_at: float) -> None:
        self.reached = False
        self._ends_at = ends_at
        self._under_way = False

    @property
    def seconds_left(self) -> float:
        return self._ends_at - asyncio.get_running_loop().time()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around one try: notes what its failure, or its being cut off, leaves open."""
        self._under_way = True
        try:
            yield
        except (Unreachable, LimitExceeded):
            self._under_way = False
            raise
        except CentralError:
            self.reached = True
            raise

    def retrying(self, random: Callable[[], float]) -> AsyncRetrying:
        """Tries again while that may help and the next try would begin before the deadline.

        Tenacity's own limits of time use a clock that cannot be virtual.
        """

        def wait(state: RetryCallState) -> float:
            longest = FIRST_BACKOFF_SECONDS * 2.0 ** min(state.attempt_number - 1, 10)
            return _named_seconds(state) + random() * min(longest, LONGEST_BACKOFF_SECONDS)

        return AsyncRetrying(
            sleep=asyncio.sleep,
            wait=wait,
            stop=lambda state: state.upcoming_sleep >= self.seconds_left,
            retry=retry_if_exception(may_pass),
            reraise=True,
        )

    def verdict(self, last: CentralError) -> WriteUnsent | WriteUnknown:
        """What is known of the write when its tries have ended with `last`."""
        if self.reached or self._under_way:
            return WriteUnknown(f"{last}; the write may have been applied: repeat it as it is")
        named = last.retry_after_seconds if isinstance(last, LimitExceeded) else None
        return WriteUnsent(f"{last}; the write was not sent", retry_after_seconds=named)


def may_pass(problem: BaseException) -> bool:
    """Whether the same try may do better in a moment."""
    if isinstance(problem, ExchangeBroken):
        return problem.status is None or problem.status in PASSING_STATUS
    return isinstance(problem, Unreachable | LimitExceeded)


def _named_seconds(state: RetryCallState) -> float:
    """The wait that Central named: a floor, to which the jitter is added."""
    problem = state.outcome.exception() if state.outcome is not None else None
    if isinstance(problem, LimitExceeded | ExchangeBroken):
        return problem.retry_after_seconds or 0.0
    return 0.0
