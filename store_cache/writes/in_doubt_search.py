"""What the feed proves of the writes that are under way or unknown (W3), as it comes and, where
that is not enough, by reading it again.

Knows: which attempts wait for proof, and where in the feed each began.
Refuses to know: what an event proves (`core.evidence`), and what follows from a proof.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

from store_cache.central.failures import CentralError
from store_cache.model.event import Event, WriteName
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.writes.idempotency import Attempt
from store_cache.writes.in_doubt import InDoubtWrite, InDoubtWrites
from store_cache.writes.write import Applied, Refused, Unknown

READ_AGAIN_EVENTS = 500
READ_AGAIN_PAGES = 10
"""How much of the feed is read again to settle one attempt. What lies further on is not worth
the requests: the till gets its 504 and may ask again."""

_log = logging.getLogger(__name__)


class Feed(Protocol):
    """What is needed of Central's client."""

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage: ...


class Standing(Protocol):
    """Where the store stands in the feed."""

    @property
    def position(self) -> Position | None: ...


class InDoubtSearch:
    def __init__(self, *, store_id: str, feed: Feed, standing: Standing) -> None:
        self._store_id = store_id
        self._feed = feed
        self._standing = standing
        self._watches = InDoubtWrites()

    def watch(self, attempt: Attempt) -> None:
        """Look for this attempt from now on, in the place of any other under its key."""
        watch = InDoubtWrite(
            name=WriteName(self._store_id, attempt.central_key(self._store_id)),
            product_id=attempt.product_id,
            sent_version=attempt.version,
            held_version=attempt.held_version,
        )
        self._watches.put(attempt.key, watch)

    def forget(self, attempt: Attempt) -> None:
        self._watches.drop(attempt.key, attempt.product_id)

    def see(self, events: Iterable[Event]) -> Iterator[tuple[str, Applied | Refused]]:
        """Take events of the feed; gives the keys that one of them settles, and how."""
        return self._watches.see(events)

    def verdict(self, attempt: Attempt) -> Applied | Refused | None:
        """What the feed, which may be faster than an answer, has proved already."""
        watch = self._watches.get(attempt.key, attempt.product_id)
        return None if watch is None else watch.verdict

    async def settle(
        self, attempt: Attempt, outcome: Unknown, deadline_at: float
    ) -> Applied | Refused | Unknown:
        """The outcome that the feed proves, or the same. A refusal has the feed read again."""
        watch = self._watches.get(attempt.key, attempt.product_id)
        if watch is None or outcome.refusal is None:
            return outcome
        watch.refused(outcome.refusal)
        if watch.verdict is None:
            await self._look_back(attempt, watch, deadline_at)
        return watch.verdict or outcome

    async def _look_back(self, attempt: Attempt, watch: InDoubtWrite, deadline_at: float) -> None:
        """Show the watch the feed since before the attempt was first sent: the store may have
        passed it in an earlier life, when nobody looked for the attempt."""
        position = self._standing.position
        if position is None or attempt.offset is None or position.generation != attempt.generation:
            return
        try:
            async with asyncio.timeout_at(deadline_at):
                await self._read_again(attempt.offset, position, watch)
        except (CentralError, TimeoutError) as problem:
            _log.info("the feed could not be read again to settle a write: %s", problem)

    async def _read_again(self, offset: int, position: Position, watch: InDoubtWrite) -> None:
        for _ in range(READ_AGAIN_PAGES):
            page = await self._feed.events(offset=offset, limit=READ_AGAIN_EVENTS, wait_seconds=0)
            last = max((event.offset for event in page.events), default=-1)
            if page.generation not in (None, position.named) or last < offset:
                return
            for event in page.events:
                if isinstance(event, Event):
                    watch.see(event)
            if watch.verdict is not None:
                return
            offset = last + 1
