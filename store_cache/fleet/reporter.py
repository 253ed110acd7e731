"""Sends the reports: one task beside the store's work, which waits for none of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from store_cache.central.client import CentralClient
from store_cache.central.failures import AccessDenied, CentralError, LimitExceeded, RequestRefused
from store_cache.fleet.pace import INTERVAL_SECONDS, UNKNOWN_SECONDS, Pace, is_no_such_call
from store_cache.fleet.refusals import Refusals
from store_cache.fleet.report import Reported, Subject, report_of

log = logging.getLogger(__name__)


class Reporter:
    """Tells Central how this store is, every minute and when its state has changed.

    Args:
        store_id: under which Central files the reports.
        random: returns numbers from 0 to 1, for jitter.
        uptime: seconds that are never set, by which the parts measure.
    """

    def __init__(
        self,
        central: CentralClient,
        parts: Reported,
        subject: Subject,
        *,
        store_id: str,
        random: Callable[[], float],
        uptime: Callable[[], float],
    ) -> None:
        self._central = central
        self._parts = parts
        self._subject = subject
        self._store_id = store_id
        self._random = random
        self._uptime = uptime
        self._refusals = Refusals()
        self._pace: Pace | None = None
        self._told = ""
        self._woken = asyncio.Event()
        self._logged = ""

    def note_advance(self) -> None:
        """The sync has made a step; called after each one."""
        runner = self._parts.runner
        self._refusals.look(runner.state, runner.last_quarantined, self._uptime())
        if self._pace is not None and str(self._parts.state.name) != self._told:
            self._told = str(self._parts.state.name)
            self._pace.changed(asyncio.get_running_loop().time(), self._random())
            self._woken.set()

    async def run(self) -> None:
        """Report for ever."""
        time = asyncio.get_running_loop().time
        self._told = str(self._parts.state.name)
        pace = self._pace = Pace(time(), self._random())
        while True:
            while (seconds := pace.due_at - time()) > 0:
                await self._wait(seconds)
            failure = await self._send()
            pace.sent(time(), self._random(), failure)

    async def _wait(self, seconds: float) -> None:
        """Wait, at most until the state changes."""
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _send(self) -> CentralError | None:
        """Send a report as of now; return why Central did not take it."""
        self._parts.state.update()
        self._told = str(self._parts.state.name)
        report = report_of(self._subject, self._parts, self._refusals.last, self._uptime())
        try:
            await self._central.report(self._store_id, report)
        except CentralError as failure:
            self._log(failure)
            return failure
        self._logged = ""
        return None

    def _log(self, failure: CentralError) -> None:
        """Log a refusal once; a failure of the line is told by the sync, a limit is no trouble."""
        if not isinstance(failure, AccessDenied | RequestRefused) or str(failure) == self._logged:
            log.log(
                logging.DEBUG,
                "fleet report: %s%s",
                failure,
                "" if isinstance(failure, LimitExceeded) else f"; again in {INTERVAL_SECONDS:g} s",
            )
            return
        self._logged = str(failure)
        if is_no_such_call(failure):
            hours = UNKNOWN_SECONDS / 3600
            log.info("fleet report: Central takes none; it is asked again every %g hour", hours)
        else:
            log.warning("fleet report: Central refuses it: %s", failure)
