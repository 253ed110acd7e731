"""Messages of the stream as a page of events, the same as if Central had sent it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from store_cache.central.failures import InvalidShape
from store_cache.central.parsing import PageEvents, read_json
from store_cache.central.splitting import ListSplitter, is_parsed_at_once
from store_cache.model.pages import EventPage

GAP = b""
"""The message of an offset for which there is no event."""


async def page_of(
    messages: Sequence[bytes], *, offset: int, generation: str, relayed_at: float
) -> EventPage:
    """Return the page of the events from `offset` on. Raises InvalidShape."""
    events = PageEvents(asked_offset=offset)
    body = b'{"events":[' + b",".join(messages) + b"]}"
    if len(body) > events.whole_bytes or not is_parsed_at_once(body):
        body = await _split(body, events)
    page = events.page(read_json(body), generation)
    if [event.offset for event in page.events] != [*range(offset, offset + len(messages))]:
        raise InvalidShape("a message of the stream is not the event of its offset")
    follows = offset + len(messages)
    return EventPage(page.events, follows, None, generation, relayed_at)


async def _split(body: bytes, events: PageEvents) -> bytes:
    """Read the events some at a time, with other tasks in between; return what is beside them."""
    splitter = ListSplitter(events.names)
    splitter.feed(body)
    splitter.end()
    while (taken := splitter.take()) is not None:
        values, text_bytes = taken
        if values:
            events.add(values, text_bytes)
        await asyncio.sleep(0)
    return splitter.outline
