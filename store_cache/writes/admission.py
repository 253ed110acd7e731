"""Admits writes to Central: how many at once (T17), and whether any at all (W4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from store_cache.central.client import WriteReply
from store_cache.central.failures import AccessDenied, WriteUnsent
from store_cache.writes import circuit_breaker as breaker
from store_cache.writes.write import unavailable

WRITES_IN_FLIGHT = 64
"""Writes that Central gets at a time. If a thousand tills come back together, the others wait."""

PROBE_SECONDS = 2.0
"""A probe finds out whether Central is back; a till's patience does not matter to it."""

SHORTEST_EXCHANGE_SECONDS = 0.5
"""With less time left, a write is not sent: it could only end unknown, and look like an outage."""

_log = logging.getLogger(__name__)


class CentralWrites(Protocol):
    """Central's client, as far as this module uses it."""

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply: ...


@dataclass(frozen=True, slots=True)
class AdmissionStatus:
    """`breaker` is closed, open or probing for `seconds` now. `retry_seconds`: how long no write
    is admitted, 0.0 if one is admitted now."""

    breaker: str
    seconds: float
    retry_seconds: float
    in_flight: int


class Admission:
    """Built inside a running loop. `on_answer` is called when Central answers a write after it was
    found away, so that the sync tries again at once (B4)."""

    def __init__(
        self,
        *,
        central: CentralWrites,
        random: Callable[[], float],
        on_answer: Callable[[], None],
    ) -> None:
        self._central = central
        self._random = random
        self._on_answer = on_answer
        self._slots = asyncio.Semaphore(WRITES_IN_FLIGHT)
        self._in_flight = 0
        self._state: breaker.BreakerState = breaker.Closed(_now())

    def check(self) -> None:
        """Raise WriteError `central_unavailable` while Central is known to be away."""
        if (wait_seconds := breaker.wait_seconds(self._state, _now())) > 0:
            raise unavailable("Central cannot be reached at present", wait_seconds)

    async def send(self, payload: Mapping[str, Any], *, deadline_at: float) -> WriteReply:
        """Send one payload before `deadline_at` on the loop's clock.

        Raises WriteError `central_unavailable` or WriteUnsent if nothing can have reached Central,
        WriteUnknown if something may have, AccessDenied if Central does not accept the store's key.
        """
        try:
            async with asyncio.timeout_at(deadline_at - SHORTEST_EXCHANGE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise unavailable("Too many writes wait for Central", 1.0) from None
        self._in_flight += 1
        try:
            self.check()
            return await self._exchange(payload, deadline_at - _now())
        finally:
            self._in_flight -= 1
            self._slots.release()

    def sync_reached_central(self) -> None:
        """Close the breaker: the sync got an answer from Central (B4)."""
        self._move(breaker.answered(self._state, _now()))

    def sync_lost_central(self) -> None:
        """Open the breaker: the sync found Central away (B4)."""
        self._move(breaker.lost(self._state, _now(), jitter=self._random()))

    def status(self) -> AdmissionStatus:
        now, state = _now(), self._state
        wait_seconds = breaker.wait_seconds(state, now)
        return AdmissionStatus(state.name, now - state.since, wait_seconds, self._in_flight)

    async def _exchange(self, payload: Mapping[str, Any], seconds_left: float) -> WriteReply:
        self._state = breaker.admitted(self._state)
        is_probe = isinstance(self._state, breaker.Probing)
        deadline_seconds = min(seconds_left, PROBE_SECONDS) if is_probe else seconds_left
        try:
            reply = await self._central.write(payload, deadline_seconds=deadline_seconds)
        except BaseException as problem:
            self._observe_failure(problem, is_probe=is_probe)
            raise
        self._observe_answer()
        return reply

    def _observe_answer(self) -> None:
        was_away = not isinstance(self._state, breaker.Closed)
        self._move(breaker.answered(self._state, _now()))
        if was_away:
            self._on_answer()

    def _observe_failure(self, problem: BaseException, *, is_probe: bool) -> None:
        is_unsent = isinstance(problem, WriteUnsent)
        is_limited = isinstance(problem, WriteUnsent) and problem.retry_after_seconds is not None
        if is_limited or isinstance(problem, AccessDenied):
            self._observe_answer()  # a limit (429) and a rejected key are answers, too
            return
        now, jitter = _now(), self._random()
        self._move(
            breaker.failed(self._state, now, refused=is_unsent, is_probe=is_probe, jitter=jitter)
        )

    def _move(self, state: breaker.BreakerState) -> None:
        if state.name != self._state.name:
            _log.warning("write breaker %s, was %s", state.name, self._state.name)
        self._state = state


def _now() -> float:
    return asyncio.get_running_loop().time()
