"""Admits writes to Central: how many at once, and whether any at all (W4)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from store_cache.central.client import WriteReply
from store_cache.central.failures import AccessDenied, Unsent, WriteUnsent
from store_cache.writes import circuit_breaker as breaker
from store_cache.writes.write import unavailable

WRITES_IN_FLIGHT = 32
"""Writes that Central gets at a time. If a thousand tills come back together, the others wait."""

MOST_WRITES_WAITING = 1024
"""Requests for writes, one or a batch each, that the store holds at a time. So many get their turn
at Central within eight seconds if it takes a quarter of a second for each of 32 at a time; more
would wait in vain, and take memory for as long as Central hangs."""

LONGEST_WAIT_SECONDS = 4.0
"""Those turned away come back within 1 s to so many, not all at once."""

SHORTEST_EXCHANGE_SECONDS = 0.5
RECENT_EXCHANGES = 3
"""A write that waited is sent only if there is time for an answer, by the quickest of Central's
last ones. Otherwise it could only end unknown, and the store's own queue would look like an outage.
"""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class CentralWrites(Protocol):
    """Central's client, as far as this module uses it."""

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply: ...


@dataclass(frozen=True, slots=True)
class AdmissionStatus:
    """`breaker` is closed, open or probing for `seconds` now. `retry_seconds`: how long no write
    is admitted, 0.0 if one is admitted now. `is_away`: writes are known to fail."""

    breaker: str
    seconds: float
    retry_seconds: float
    in_flight: int
    is_away: bool


class Admission:
    """Built inside a running loop. `on_answer` is called when Central answers a write after it was
    found away, so that the sync tries again at once (B4). `longest_pause_seconds`: between two
    probes."""

    def __init__(
        self,
        *,
        central: CentralWrites,
        random: Callable[[], float],
        on_answer: Callable[[], None],
        write_timeout_seconds: float,
        longest_pause_seconds: float = breaker.LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._longest_pause_seconds = longest_pause_seconds
        self._central = central
        self._random = random
        self._on_answer = on_answer
        self._longest_reserve_seconds = write_timeout_seconds / 2
        self._recent_seconds: deque[float] = deque(maxlen=RECENT_EXCHANGES)
        self._slots = asyncio.Semaphore(WRITES_IN_FLIGHT)
        self._in_flight = 0
        self._state: breaker.BreakerState = breaker.Closed(_now())

    @property
    def is_open(self) -> bool:
        """Whether the breaker is not closed: at most one write at a time goes."""
        return not isinstance(self._state, breaker.Closed)

    def wait_seconds(self) -> float:
        """Return how long no write may go: 0.0 if one may go now."""
        return breaker.wait_seconds(self._state, _now())

    def check(self) -> None:
        """Raise WriteError `central_unavailable` while Central is known to be away."""
        if (wait_seconds := breaker.wait_seconds(self._state, _now())) > 0:
            raise unavailable("Central cannot be reached at present", wait_seconds)

    def check_room(self, waiting: int) -> None:
        """Raise WriteError `central_unavailable` if so many requests are under way that another
        one has no place."""
        if waiting >= MOST_WRITES_WAITING:
            wait_seconds = 1.0 + self._random() * (LONGEST_WAIT_SECONDS - 1.0)
            raise unavailable("Too many writes wait for Central", wait_seconds)

    async def send(self, payload: Mapping[str, Any], *, deadline_at: float) -> WriteReply:
        """Send one payload before `deadline_at` on the loop's clock.

        Raises WriteError `central_unavailable` or WriteUnsent if nothing can have reached Central,
        WriteUnknown if something may have, AccessDenied if Central does not accept the store's key.
        """
        async with AsyncExitStack() as slot:
            await self.in_time(slot.enter_async_context(self._slots), deadline_at)
            self.check()
            self._in_flight += 1
            try:
                return await self._exchange(payload, deadline_at - _now())
            finally:
                self._in_flight -= 1

    async def in_time(self, wait: Awaitable[T], deadline_at: float) -> T:
        """Await something while there is time left for an exchange after it.

        Raises WriteError `central_unavailable`, also if `wait` ended too late.
        """
        try:
            async with asyncio.timeout_at(self._latest_start(deadline_at)):
                result = await wait
        except TimeoutError:
            pass
        else:
            if not self.is_late(deadline_at):
                return result
        raise unavailable("Too many writes wait for Central", 1.0)

    def is_late(self, deadline_at: float) -> bool:
        """Return whether an exchange that begins now could not end before `deadline_at`."""
        return _now() > self._latest_start(deadline_at)

    def _latest_start(self, deadline_at: float) -> float:
        usual = min(self._recent_seconds, default=0.0)
        reserve = max(SHORTEST_EXCHANGE_SECONDS, min(usual, self._longest_reserve_seconds))
        return deadline_at - reserve

    def sync_reached_central(self) -> None:
        """Let one write through if the breaker is open: the sync got an answer (B4)."""
        self._move(breaker.sync_answered(self._state, _now()))

    def connection_refused(self) -> None:
        """Open the breaker: another exchange than a write got no connection (B4)."""
        self._move(breaker.refused(self._state, _now(), jitter=self._random()))

    def status(self) -> AdmissionStatus:
        now, state = _now(), self._state
        wait_seconds = breaker.wait_seconds(state, now)
        is_away = breaker.is_away(state)
        return AdmissionStatus(
            state.name, now - state.since, wait_seconds, self._in_flight, is_away
        )

    async def _exchange(self, payload: Mapping[str, Any], seconds_left: float) -> WriteReply:
        self._state = state = breaker.admitted(self._state)
        is_probe = isinstance(state, breaker.Probing)
        if isinstance(state, breaker.Probing):
            seconds_left = min(seconds_left, breaker.probe_seconds(state))
        began_at = _now()
        try:
            reply = await self._central.write(payload, deadline_seconds=seconds_left)
        except BaseException as problem:
            self._observe_failure(problem, is_probe=is_probe)
            raise
        self._recent_seconds.append(_now() - began_at)
        self._observe_answer()
        return reply

    def _observe_answer(self) -> None:
        was_away = not isinstance(self._state, breaker.Closed)
        self._move(breaker.answered(self._state, _now()))
        if was_away:
            self._on_answer()

    def _observe_failure(self, problem: BaseException, *, is_probe: bool) -> None:
        unsent = problem.cause if isinstance(problem, WriteUnsent) else None
        if unsent is Unsent.LIMITED or isinstance(problem, AccessDenied):
            self._observe_answer()  # a limit (429) and a rejected key are answers, too
        elif unsent is Unsent.HELD_BACK:
            self._move(breaker.held_back(self._state, _now(), is_probe=is_probe))
        else:
            self._move(
                breaker.failed(
                    self._state,
                    _now(),
                    refused=unsent is Unsent.REFUSED,
                    is_probe=is_probe,
                    jitter=self._random(),
                    longest_pause_seconds=self._longest_pause_seconds,
                )
            )

    def _move(self, state: breaker.BreakerState) -> None:
        if state.name != self._state.name:
            _log.warning("write breaker %s, was %s", state.name, self._state.name)
        self._state = state


def _now() -> float:
    return asyncio.get_running_loop().time()
