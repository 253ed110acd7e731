"""Reads the feed again from where an unknown attempt began (W3).

The store may have followed the feed past the attempt's events in an earlier process, which did not
know the attempt. Or it is far behind, and Central's refusal is of an incarnation of the product
that it does not know yet.
"""

from __future__ import annotations

import asyncio
import logging
from operator import attrgetter
from typing import Protocol

from store_cache.central.failures import CentralError
from store_cache.model.event import Event
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.writes.in_doubt import InDoubtWrite
from store_cache.writes.write import Refused, Unknown, WriteOutcome

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
    if in_doubt.verdict is None:
        refusal = outcome.refusal
        await search_feed(in_doubt, refusal, source, position, deadline_at=deadline_at)
    return in_doubt.verdict or outcome


async def search_feed(
    in_doubt: InDoubtWrite,
    refusal: Refused,
    source: EventSource,
    position: Position | None,
    *,
    deadline_at: float,
) -> None:
    """Read events for an attempt until they settle it, or the feed ends: then `refusal`, that of a
    repeat, counts unless an event was missing. The next search begins where this one ends, or at
    the first event that was missing.

    `position` is where the store stands in the feed now; offsets of another generation prove
    nothing (P1). `deadline_at` is on the loop's clock. Failures are logged, not raised.
    """
    attempt, offset = in_doubt.attempt, in_doubt.read_to
    if position is None or offset is None or position.generation != attempt.generation:
        return
    try:
        async with asyncio.timeout_at(deadline_at):
            for _ in range(READ_AGAIN_PAGES):
                page = await source.events(offset=offset, limit=READ_AGAIN_EVENTS, wait_seconds=0)
                if page.generation not in (None, position.named):
                    return
                _observe_page(in_doubt, page)
                if in_doubt.verdict is not None:
                    return
                last = max((event.offset for event in page.events), default=-1)
                if last < offset or page.has_more is False:
                    if in_doubt.read_to == max(offset, last + 1):
                        in_doubt.observe_refusal(refusal)
                    return
                offset = last + 1
    except (CentralError, TimeoutError) as problem:
        _log.info("the feed could not be read again to settle a write: %s", problem)


def _observe_page(in_doubt: InDoubtWrite, page: EventPage) -> None:
    """Take the events of a page. One that cannot be read counts as missing if it may be of the
    product."""
    for event in sorted(page.events, key=attrgetter("offset")):
        if isinstance(event, Event):
            in_doubt.observe(event)
        elif event.product_id in (None, in_doubt.attempt.product_id):
            continue
        begins_at_one = in_doubt.read_to == 0 and event.offset == 1  # as some feeds do
        if event.offset == in_doubt.read_to or begins_at_one:
            in_doubt.read_to = event.offset + 1
