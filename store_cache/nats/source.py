"""Where the sync gets events from: NATS while it can give them, else Central over HTTP.

NATS cannot give an offset if it is a gap, lies before the beginning of the stream or beyond its
end, does not come, or if nothing fresh was heard (`report.SILENT_SECONDS`). What was common to all
stores must not bring all of them to Central at once, so the first request to Central waits for a
random part of the poll interval. After it the sync follows in interval mode, until NATS can give
again what comes next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import nats.errors
import nats.js.errors

from store_cache.central.failures import InvalidShape, PositionGone
from store_cache.model.pages import EventPage
from store_cache.nats.connection import FeedConnection, StreamInfo
from store_cache.nats.messages import page_of
from store_cache.nats.reader import StreamReader
from store_cache.nats.report import SILENT_SECONDS, Report

DELIVERY_SECONDS = 5.0
"""How long an event may take that a report has named; each poll gives it that time anew."""

START_SECONDS = 3.0
"""How long a start waits for NATS before Central is asked."""

LOOK_SECONDS = 1.0
"""How often it is looked whether NATS is silent."""

FRESH_SECONDS = 1.0
"""A poll that has lasted so long ends with a report that is newer than the one it began with."""

MOST_BYTES = 4 * 2**20
"""Messages of one page, in bytes."""

log = logging.getLogger(__name__)


class Central(Protocol):
    """`central.client.CentralClient`."""

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage: ...


class NatsSource:
    """Answers the polls of the sync.

    `interval_seconds`: of polls in interval mode. `on_mode` is called with whether to follow
    continuously (NATS) or in intervals (Central), `on_break` when Central takes the place of NATS
    (an event is missing there, or the publisher, NATS or Central itself has failed), and when
    Central has failed the publisher for a moment.
    """

    def __init__(
        self,
        central: Central,
        connection: FeedConnection,
        *,
        interval_seconds: float,
        uptime: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._central = central
        self._connection = connection
        self._interval_seconds = interval_seconds
        self._uptime = uptime
        self._random = random
        self._reader: StreamReader | None = None
        self._start: asyncio.Task[None] | None = None
        self._stream: StreamInfo | None = None
        self._generation = ""
        self._was_central = False
        self._away_until: float | None = uptime() + START_SECONDS
        self._had_fresh_report = False
        self._unbroken_since: float | None = None
        self._lack = ""
        self._is_from_nats: bool | None = None
        self._is_continuous: bool | None = None
        self._news = asyncio.Event()
        self.on_mode: Callable[[bool], None] = _ignore
        self.on_break: Callable[[], None] = lambda: None
        connection.on_news = self._note_news
        connection.on_lost = self._note_lost

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        await self._connection.run()

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        """Return events from `offset` on; cancelling the call is safe.

        The page may begin with the event before. Raises CentralError of a request to Central.
        """
        asked_at = self._uptime()
        ends_at = asked_at + wait_seconds
        while True:
            page = await self._from_nats(offset, limit, asked_at, ends_at)
            if page is not None:
                self._away_until, self._lack = None, ""
                self._switch(from_nats=True)
                return page
            if self._away_until is None:
                self._away_until = self._uptime() + self._random() * self._interval_seconds
                log.warning(
                    "event sync: NATS cannot give event %d (%s): Central is asked in %.1f s",
                    *(offset, self.problem, self._away_until - self._uptime()),
                )
            now = self._uptime()
            if now >= self._away_until:
                self._switch(from_nats=False)
                return await self._from_central(offset, limit)
            await self._until_news(self._away_until)

    def note_read_at_central(self) -> None:
        """The position is what Central itself said: a full sync has read the feed there."""
        self._was_central, self._generation = True, ""
        if self._reader is not None:
            self._reader.break_off("Central was asked")

    def _switch(self, *, from_nats: bool) -> None:
        if self._is_from_nats is not from_nats:
            if self._is_from_nats:
                self.on_break()
            self._is_from_nats = from_nats
            where = f"NATS at {self.server}" if from_nats else "Central, in intervals"
            log.info("event sync: the feed comes from %s", where)
        self._follow(continuously=from_nats)

    def _follow(self, *, continuously: bool) -> None:
        if self._is_continuous is not continuously:
            self._is_continuous = continuously
            self.on_mode(continuously)

    async def _from_central(self, offset: int, limit: int) -> EventPage:
        page = None
        if offset and not self._was_central:
            with suppress(PositionGone):  # the log begins at the position, which proves nothing
                page = await self._central.events(
                    offset=offset - 1, limit=max(limit, 2), wait_seconds=0
                )
        if page is None:
            page = await self._central.events(offset=offset, limit=limit, wait_seconds=0)
        self.note_read_at_central()
        return page

    # -- for the status --------------------------------------------------------------------

    @property
    def is_from_nats(self) -> bool:
        """Whether the last answer came from NATS."""
        return self._is_from_nats is True

    @property
    def server(self) -> str:
        return self._connection.server

    @property
    def problem(self) -> str:
        """Why NATS does not serve; empty if it does."""
        if self._connection.client is None:
            return self._connection.problem or "NATS is away"
        age = self._connection.age
        if age is None:
            return self._connection.problem or "nothing was published yet"
        if age > SILENT_SECONDS:
            return f"the newest report is {age:.0f} s old: the publisher or Central is away"
        return self._connection.problem if self._connection.stream is None else self._lack

    def behind(self, offset: int) -> int | None:
        """By how many events the next offset wanted is behind the last report."""
        report = self._connection.report
        return None if report is None else max(0, report.head + 1 - offset)

    # -- NATS ------------------------------------------------------------------------------

    async def _from_nats(
        self, offset: int, limit: int, asked_at: float, ends_at: float
    ) -> EventPage | None:
        """Return a page, or None as soon as it is known that NATS cannot give one. An empty one
        says that the store had reached the head of a report."""
        was_heard = False
        missed_at: float | None = None
        while (heard := self._fresh_report()) is not None:
            report, true_at = heard
            was_heard = True
            if self._generation not in ("", report.generation) and offset > report.head:
                return EventPage((), offset, False, report.generation, true_at)
            try:
                reader = await self._reader_at(offset, report)
                if reader is None:
                    return None
                if messages := await _take(reader, limit):
                    return await self._page(reader, messages, offset, report, true_at)
                if self._cannot_go_on(reader, offset, report, is_later=true_at > asked_at):
                    return None
                now = self._uptime()
                if offset <= report.head or reader.awaits_before:
                    missed_at = now if missed_at is None else missed_at
                    due_at = max(missed_at, reader.began_at) + DELIVERY_SECONDS
                    if now >= due_at:
                        missing = offset - 1 if reader.awaits_before else offset
                        self._drop_reader(f"event {missing} does not come")
                        return None
                    await self._until_news(due_at)
                    continue
                is_newer = report.received_at > asked_at and now - asked_at >= FRESH_SECONDS
                if is_newer or reader.before is not None or now >= ends_at:
                    return await self._page(reader, [], offset, report, true_at)
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError, InvalidShape) as error:
                self._drop_reader(f"NATS: {str(error) or type(error).__name__}")
                return None
            await self._until_news(ends_at)
        if was_heard:
            self._away_until = None  # the silence began now, and for all stores at once
        self._had_fresh_report = False
        return None

    def _cannot_go_on(
        self, reader: StreamReader, offset: int, report: Report, *, is_later: bool
    ) -> bool:
        """Whether a reader without messages is at a gap, broken, or behind what the report says to
        be the end of the feed. `is_later`: the report tells of a time after the poll began."""
        if reader.is_at_gap or reader.is_broken:
            self._lack = reader.problem or f"there is a gap in the stream at event {offset}"
        elif offset > report.head + 1 and is_later:
            self._drop_reader(f"the feed ends before event {offset - 1}, which is held")
        else:
            return False
        return True

    def _fresh_report(self) -> tuple[Report, float] | None:
        """Return the report and when it was true, if it says something of now and the stream is
        known."""
        connection = self._connection
        report, true_at = connection.report, connection.true_at
        if connection.stream is None or connection.client is None:
            return None
        if report is None or true_at is None or self._uptime() - true_at > SILENT_SECONDS:
            return None
        return report, true_at

    async def _reader_at(self, offset: int, report: Report) -> StreamReader | None:
        """Return a reader whose next message is that of `offset`; None if the stream ends before
        it, or begins after it."""
        stream, client = self._connection.stream, self._connection.client
        assert stream is not None
        assert client is not None
        reader = self._reader
        if reader is not None and self._stream is not None and not self._stream.is_same(stream):
            reader.break_off("there is another stream")
        if reader is not None and (reader.is_broken or reader.next_offset != offset):
            self._reader = None
            await reader.close()
        if self._reader is None:
            if offset < stream.first or offset > report.head + 1:
                self._lack = (
                    f"the stream has no event {offset}: it has {stream.first} to {report.head}"
                )
                return None
            self._stream = stream
            self._reader = StreamReader(
                client,
                stream.name,
                offset,
                first=stream.first,
                api_prefix=self._connection.api_prefix,
                uptime=self._uptime,
                on_change=self._news.set,
            )
            self._start = asyncio.create_task(self._reader.start())
        assert self._start is not None
        reader = self._reader
        await asyncio.shield(self._start)  # cancelling a poll leaves the reader whole
        return reader

    async def _page(
        self,
        reader: StreamReader,
        messages: list[bytes],
        offset: int,
        report: Report,
        true_at: float,
    ) -> EventPage:
        """Return the page of these messages, and of the one before them if the reader still has it.
        It says that it leaves nothing behind only if it reaches the head. Raises InvalidShape."""
        has_more = bool(messages) and offset + len(messages) <= report.head
        if reader.before is not None:
            messages, offset = [reader.before, *messages], offset - 1
        page = await page_of(
            messages, offset=offset, generation=report.generation, relayed_at=true_at
        )
        reader.before = None
        self._was_central, self._generation = False, report.generation
        return replace(page, has_more=has_more)

    def _drop_reader(self, problem: str) -> None:
        self._lack = problem
        if self._reader is not None:
            self._reader.break_off(problem)
        self._connection.look_again()

    # -- waiting ---------------------------------------------------------------------------

    async def _until_news(self, at: float) -> None:
        """Return after something was heard, at `at`, or after a second: silence is no news."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(at - self._uptime(), 0.01), LOOK_SECONDS)):
                await self._news.wait()

    def _note_news(self) -> None:
        self._news.set()
        self._look_for_break()
        had_one, self._had_fresh_report = self._had_fresh_report, self._fresh_report() is not None
        if self._had_fresh_report and not had_one and self._is_from_nats is False:
            self._follow(continuously=True)  # the wait for the next interval ends

    def _look_for_break(self) -> None:
        """See whether Central has failed the publisher since the last report, though for less time
        than makes NATS silent."""
        report = self._connection.report
        if report is None or report.since is None:
            return
        before = self._unbroken_since
        self._unbroken_since = report.since if before is None else max(before, report.since)
        if self._is_from_nats and before is not None and before < self._unbroken_since:
            self.on_break()

    def _note_lost(self) -> None:
        if self._reader is not None:
            self._reader.break_off("the connection to NATS was lost")
        self._news.set()


async def _take(reader: StreamReader, limit: int) -> list[bytes]:
    """Take the messages that are there, up to a gap."""
    taken: list[bytes] = []
    size = 0
    while reader.messages and len(taken) < limit and size < MOST_BYTES and not reader.is_at_gap:
        _, message = await reader.take()
        taken.append(message)
        size += len(message)
    return taken


def _ignore(_: bool) -> None:
    """The callback where none is set."""
