"""Reads the feed again from where an unknown attempt began (W3).

The store may have followed the feed past the attempt's events in an earlier process, which did not
know the attempt.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from store_cache.central.failures import CentralError
from store_cache.model.event import Event
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.writes.in_doubt import InDoubtWrite
from store_cache.writes.write import Unknown, WriteOutcome

READ_AGAIN_EVENTS = 500
READ_AGAIN_PAGES = 10
"""How much of the feed is read again for one attempt. More is not worth the requests: the till gets
its 504 and may repeat the write."""

_log = logging.getLogger(__name__)


class EventSource(Protocol):
    """Central's client, as far as this module uses it."""

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage: ...


async def decided_by_feed(
    outcome: WriteOutcome,
    in_doubt: InDoubtWrite | None,
    source: EventSource,
    position: Position | None,
    *,
    deadline_at: float,
) -> WriteOutcome:
    """Return what the feed proves of an unknown outcome if Central has refused a repeat; any other
    outcome as it is."""
    if not isinstance(outcome, Unknown) or outcome.refusal is None or in_doubt is None:
        return outcome
    in_doubt.observe_refusal(outcome.refusal)
    if in_doubt.verdict is None:
        await search_feed(in_doubt, source, position, deadline_at=deadline_at)
    return in_doubt.verdict or outcome


async def search_feed(
    in_doubt: InDoubtWrite, source: EventSource, position: Position | None, *, deadline_at: float
) -> None:
    """Read events for an attempt, until they settle it or prove nothing more.

    `position` is where the store stands in the feed now; offsets of another generation prove
    nothing (P1). `deadline_at` is on the loop's clock. Failures are logged, not raised.
    """
    attempt = in_doubt.attempt
    if position is None or attempt.offset is None or position.generation != attempt.generation:
        return
    offset = attempt.offset
    try:
        async with asyncio.timeout_at(deadline_at):
            for _ in range(READ_AGAIN_PAGES):
                page = await source.events(offset=offset, limit=READ_AGAIN_EVENTS, wait_seconds=0)
                last = max((event.offset for event in page.events), default=-1)
                if page.generation not in (None, position.named) or last < offset:
                    return
                for event in page.events:
                    if isinstance(event, Event):
                        in_doubt.observe(event)
                if in_doubt.verdict is not None:
                    return
                offset = last + 1
    except (CentralError, TimeoutError) as problem:
        _log.info("the feed could not be read again to settle a write: %s", problem)
