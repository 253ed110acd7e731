"""The gate between tills and Central: how many writes go at once, and whether any goes at all.

Knows: the breaker of writes (W4) and the cap on writes in flight (T17).
Refuses to know: keys, outcomes, the catalogue.
"""

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
"""What one Central is asked at a time: a thousand tills that come back together wait here."""

PROBE_SECONDS = 2.0
"""A probe asks whether Central is back, not how patient a till is."""

SHORTEST_EXCHANGE_SECONDS = 0.5
"""With less left, a write is not begun: it could only end unknown, and look like an outage."""

_log = logging.getLogger(__name__)


class CentralWrites(Protocol):
    """What is needed of Central's client."""

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply: ...


@dataclass(frozen=True, slots=True)
class AdmissionStatus:
    """`breaker` is closed, open or probing for `seconds` now; `retry_seconds` until a write may
    go, 0.0 where it may."""

    breaker: str
    seconds: float
    retry_seconds: float
    in_flight: int


class Admission:
    """Built inside a running loop. `on_answer` is called whenever a write gets an answer from
    Central, so that the sync learns that it is back."""

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
        """Raises WriteError `central_unavailable` at once while Central is known to be away."""
        if (wait_seconds := breaker.wait_seconds(self._state, _now())) > 0:
            raise unavailable("Central cannot be reached at present", wait_seconds)

    async def send(self, payload: Mapping[str, Any], *, deadline_at: float) -> WriteReply:
        """Send one payload before `deadline_at` on the loop's clock.

        Raises WriteError `central_unavailable` or WriteUnsent where nothing can have reached
        Central, WriteUnknown where something may have, Denied.
        """
        await self._enter(deadline_at)
        try:
            self.check()
            return await self._exchange(payload, deadline_at - _now())
        finally:
            self._in_flight -= 1
            self._slots.release()

    def seen(self) -> None:
        """The sync had an answer from Central."""
        self._move(breaker.answered(self._state, _now()))

    def lost(self) -> None:
        """The sync found Central away."""
        self._move(breaker.lost(self._state, _now(), jitter=self._random()))

    def status(self) -> AdmissionStatus:
        now = _now()
        wait_seconds = breaker.wait_seconds(self._state, now)
        return AdmissionStatus(
            self._state.name, now - self._state.since, wait_seconds, self._in_flight
        )

    async def _enter(self, deadline_at: float) -> None:
        try:
            async with asyncio.timeout_at(deadline_at - SHORTEST_EXCHANGE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise unavailable("Too many writes wait for Central", 1.0) from None
        self._in_flight += 1

    async def _exchange(self, payload: Mapping[str, Any], left_seconds: float) -> WriteReply:
        self._state = breaker.admitted(self._state)
        is_probe = isinstance(self._state, breaker.Probing)
        deadline_seconds = min(left_seconds, PROBE_SECONDS) if is_probe else left_seconds
        try:
            reply = await self._central.write(payload, deadline_seconds=deadline_seconds)
        except BaseException as problem:
            self._take(problem, is_probe)
            raise
        self._answered()
        return reply

    def _take(self, problem: BaseException, is_probe: bool) -> None:
        """A limit (429) and a wrong key are answers too: Central is there."""
        unsent = isinstance(problem, WriteUnsent)
        limited = isinstance(problem, WriteUnsent) and problem.retry_after_seconds is not None
        if limited or isinstance(problem, AccessDenied):
            self._answered()
            return
        now, jitter = _now(), self._random()
        self._move(
            breaker.failed(self._state, now, refused=unsent, is_probe=is_probe, jitter=jitter)
        )

    def _answered(self) -> None:
        """That Central answers is news, to the sync, only where it was thought to be away."""
        was_away = not isinstance(self._state, breaker.Closed)
        self.seen()
        if was_away:
            self._on_answer()

    def _move(self, state: breaker.BreakerState) -> None:
        if state.name != self._state.name:
            _log.warning("write breaker %s, was %s", state.name, self._state.name)
        self._state = state


def _now() -> float:
    return asyncio.get_running_loop().time()
