"""Copies the feed: from where the stream ends, for ever.

Several may run: whoever is refused reads where the stream ends, and goes on from there. Nothing of
what is copied is kept here, so a publisher may be killed and started at any time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from nats.aio.client import Client

from central_stub.cancellation import is_cancelled
from central_stub.publisher.central import Answer, CentralFailed, CentralFeed, Gone
from central_stub.publisher.plan import GAP, plan
from central_stub.publisher.stream import FeedStream, Overtaken, StreamFailed

PAGE = 1000
WAIT_SECONDS = 5
"""How long Central may hold a poll: as long as stores may wait for a sign that the feed lives."""

QUICK_SECONDS = 1.0
"""An empty answer sooner than this was not held."""

MISSING_PAUSE_SECONDS = 0.1
RETENTION_SECONDS = 60.0
FAILURE_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Replaced(Exception):
    """The stream is not, or not any more, a copy of Central's feed; it is opened anew."""


class Disconnected(Exception):
    """nats-py has closed the client, and does not connect it again: the server has ended the
    connection with an error, such as expired credentials."""


class Publisher:
    """Copies the feed of `central` into the NATS that `client` is connected to."""

    def __init__(self, central: CentralFeed, client: Client, *, replicas: int = 1) -> None:
        self._central = central
        self._client = client
        self._replicas = replicas
        self._since: float | None = None
        """When Central answered first since its last failure, or since the start, by the clock of
        NATS. A new publisher knows nothing of before, so stores then compare themselves, too."""
        self.published = 0
        """How many messages this publisher has written."""

    async def run(self) -> None:
        """Copy until cancelled. Raises Nameless, Disconnected."""
        while not is_cancelled():
            if self._client.is_closed:
                raise Disconnected
            try:
                stream, offset = await self._open()
                log.info("%s: goes on from offset %d", stream.name, offset)
                await self._follow(stream, offset)
            except (CentralFailed, StreamFailed, Replaced) as problem:
                if isinstance(problem, CentralFailed):
                    self._since = None
                log.warning("%s; tried again in a moment", problem)
                await asyncio.sleep(FAILURE_PAUSE_SECONDS * (0.5 + random.random()))

    # -- opening the stream ----------------------------------------------------------------

    async def _open(self) -> tuple[FeedStream, int]:
        """Return the stream of Central's feed as it is now, and the next offset.

        A stream that Central's feed does not continue is created anew: its last event is another
        one at Central, or lies beyond its end, or what follows it is gone.
        """
        generation, first = await self._first()
        stream = FeedStream(self._client, generation, replicas=self._replicas)
        state = await stream.state()
        if state is not None and not await self._continues(stream, state.next):
            log.warning("%s is no copy of Central's feed any more: it is made anew", stream.name)
            await stream.delete()
            state = None
        await stream.keep_bucket()
        if state is None:
            await stream.create(first)
            await stream.forget_older()
            state = await stream.state()
            if state is None:
                raise StreamFailed(f"NATS lost {stream.name}")
        return stream, state.next

    async def _first(self) -> tuple[str, int]:
        """Return the generation, and the oldest offset that Central holds."""
        head = await self._central.events(2**53 - 1, limit=1)
        end = head.page.leads_to or 0
        try:
            answer = await self._central.events(0, limit=1)
        except Gone:
            return head.generation, await self._central.floor(0, end)
        return answer.generation, min(answer.page.events, default=answer.page.leads_to or 0)

    async def _continues(self, stream: FeedStream, offset: int) -> bool:
        """Whether Central's feed goes on from `offset` after the stream's last event."""
        if offset == 0:
            return True
        try:
            answer = await self._central.events(offset - 1, limit=1)
        except Gone:
            return await self._holds(offset)
        if (answer.page.leads_to or 0) < offset and not answer.page.events:
            return False
        state = await stream.state()
        if state is None or state.is_empty or state.next != offset:
            return state is not None
        message = await stream.message(offset - 1)
        event = answer.page.events.get(offset - 1)
        return event is None or message in (GAP, event)

    async def _holds(self, offset: int) -> bool:
        try:
            await self._central.events(offset, limit=1)
        except Gone:
            return False
        return True

    # -- copying ---------------------------------------------------------------------------

    async def _follow(self, stream: FeedStream, offset: int) -> None:
        """Copy from `offset` on. Raises CentralFailed, StreamFailed, Replaced."""
        missing_since: float | None = None
        trimmed_at = time.monotonic()
        is_held = True
        while not is_cancelled():
            wait_seconds = WAIT_SECONDS if missing_since is None else 0
            answer = await self._central.events(offset, limit=PAGE, wait_seconds=wait_seconds)
            self._check(answer, stream, offset)
            missing_seconds = 0.0 if missing_since is None else answer.asked_at - missing_since
            next_up = plan(answer.page, offset=offset, limit=PAGE, missing_seconds=missing_seconds)
            try:
                await stream.append(offset, next_up.messages)
            except Overtaken:
                offset, missing_since = await self._where(stream, offset), None
                continue
            offset += len(next_up.messages)
            self.published += len(next_up.messages)
            if not next_up.is_missing:
                missing_since = None
            elif missing_since is None:
                missing_since = answer.arrived_at
            if next_up.is_at_end:
                was_held = not next_up.messages and answer.took_seconds >= wait_seconds
                at = answer.asked_at + (wait_seconds if was_held and is_held else 0)
                await stream.report(offset - 1, at, self._unbroken_since(stream, answer))
            if time.monotonic() - trimmed_at >= RETENTION_SECONDS:
                await self._trim(stream, offset)
                trimmed_at = time.monotonic()
            if next_up.is_missing:
                await asyncio.sleep(MISSING_PAUSE_SECONDS)
            elif not next_up.messages:
                is_held = answer.took_seconds >= QUICK_SECONDS
                if not is_held:
                    await asyncio.sleep(QUICK_SECONDS)

    def _unbroken_since(self, stream: FeedStream, answer: Answer) -> float:
        """Return since when Central has answered without a failure, by the clock of NATS."""
        if self._since is None:
            self._since = round(stream.server_time(answer.asked_at), 3)
        return self._since

    def _check(self, answer: Answer, stream: FeedStream, offset: int) -> None:
        if answer.generation != stream.generation:
            raise Replaced(f"Central has a new generation {answer.generation!r}")
        page = answer.page
        if not page.events and page.leads_to is not None and page.leads_to < offset:
            raise Replaced("Central's feed went backwards")

    async def _where(self, stream: FeedStream, offset: int) -> int:
        """Return where the stream ends, after another publisher was first."""
        state = await stream.state()
        if state is None or state.next < offset:
            raise Replaced(f"{stream.name} was made anew by another publisher")
        return state.next

    async def _trim(self, stream: FeedStream, head: int) -> None:
        """Forget what Central has forgotten, and read the server's clock again."""
        state = await stream.state()
        if state is None:
            raise Replaced(f"{stream.name} is gone")
        try:
            answer = await self._central.events(state.first, limit=1)
        except Gone:
            await stream.trim(await self._central.floor(state.first, head))
            return
        if (first := min(answer.page.events, default=state.first)) > state.first:
            await stream.trim(first)
