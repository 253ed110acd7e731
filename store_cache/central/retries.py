"""When a write is tried again, and what all its tries prove together (W2, W3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    HeldBack,
    LimitExceeded,
    Unreachable,
    Unsent,
    WriteUnknown,
    WriteUnsent,
)

TRANSIENT_STATUSES = frozenset({502, 503, 504})
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 2.0


class Tries:
    """The tries of one write: one HTTP request each, which end at `deadline` by the loop's clock.

    `may_have_arrived`: a finished try may have reached Central.
    """

    def __init__(self, deadline: float) -> None:
        self.may_have_arrived = False
        self._deadline = deadline
        self._is_sending = False
        self._unsent = Unsent.HELD_BACK

    @property
    def seconds_left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Surround one try, and note what its failure or cancellation leaves open."""
        self._is_sending = True
        try:
            yield
        except Unreachable:
            self._is_sending, self._unsent = False, Unsent.REFUSED
            raise
        except LimitExceeded as limit:
            self._is_sending = False
            if not isinstance(limit, HeldBack):
                self._unsent = Unsent.LIMITED
            raise
        except CentralError:
            self.may_have_arrived = True
            raise

    def retrying(self, random: Callable[[], float]) -> AsyncRetrying:
        """Repeat a try while that can help and the next would begin before the deadline.

        Tenacity's own time limits use a clock that tests cannot replace.
        """

        def wait(state: RetryCallState) -> float:
            error = None if state.outcome is None else state.outcome.exception()
            named = error.retry_after_seconds if isinstance(error, CentralError) else None
            backoff = FIRST_BACKOFF_SECONDS * 2.0 ** min(state.attempt_number - 1, 10)
            return (named or 0.0) + random() * min(backoff, LONGEST_BACKOFF_SECONDS)

        return AsyncRetrying(
            sleep=asyncio.sleep,
            wait=wait,
            stop=lambda state: state.upcoming_sleep >= self.seconds_left,
            retry=retry_if_exception(_is_transient),
            reraise=True,
        )

    def verdict(self, last: CentralError) -> WriteUnsent | WriteUnknown:
        """Return what is known of the write if its tries ended with the error `last`."""
        if self.may_have_arrived or self._is_sending:
            return WriteUnknown(f"{last}; the write may have been applied: repeat it as it is")
        limited_for = last.retry_after_seconds if isinstance(last, LimitExceeded) else None
        message = f"{last}; the write was not sent"
        return WriteUnsent(message, cause=self._unsent, retry_after_seconds=limited_for)


def _is_transient(error: BaseException) -> bool:
    """Return whether the same try may succeed in a moment."""
    if isinstance(error, ExchangeBroken):
        return error.status is None or error.status in TRANSIENT_STATUSES
    return isinstance(error, Unreachable | LimitExceeded)
