"""Which pages of the feed are read again for a write whose outcome is unknown (W3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from store_cache.model.event import Event, Kind
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.writes.idempotency import Attempt
from store_cache.writes.in_doubt import InDoubtWrite
from store_cache.writes.in_doubt_search import READ_AGAIN_PAGES, search_feed

BEGAN_AT_OFFSET = 4
HERE = Position("g-1", 90)


class Feed:
    """Answers with these pages, one after the other, and remembers what it was asked for."""

    def __init__(self, pages: Iterator[EventPage]) -> None:
        self.asked: list[int] = []
        self._pages = pages

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        self.asked.append(offset)
        return next(self._pages)


def event(offset: int, *, is_own: bool = False) -> Event:
    """An event of the product. The own one names the attempt."""
    name = {"storeId": "store-s1", "idempotencyKey": "store-s1-sale"} if is_own else {}
    body = b'{"productId":"P-1","available":3}'
    return Event(offset, Kind.UPDATED, "P-1", 7 if is_own else 100 + offset, body, name)


def page(*events: Event, generation: str | None = "g-1") -> EventPage:
    return EventPage(events, generation=generation)


async def searched(
    pages: Sequence[EventPage] | Iterator[EventPage],
    *,
    began_at: int | None = BEGAN_AT_OFFSET,
    position: Position | None = HERE,
) -> tuple[bool, list[int]]:
    """Return whether the write is settled, and from which offsets pages were asked for.

    `began_at`: where the feed was when the attempt was made, `position` where it is now.
    """
    attempt = Attempt("sale", b"", "P-1", 6, at=1000.0, generation="g-1", offset=began_at)
    write, feed = InDoubtWrite(attempt, store_id="store-s1"), Feed(iter(pages))
    deadline_at = asyncio.get_running_loop().time() + 60.0
    await search_feed(write, feed, position, deadline_at=deadline_at)
    return write.verdict is not None, feed.asked


@pytest.mark.parametrize("generation", ["g-1", None], ids=["named", "unnamed"])
async def test_pages_are_read_until_one_settles_the_write(generation: str | None) -> None:
    pages = page(event(4), event(5)), page(event(6, is_own=True)), page(event(7))
    of_generation = [EventPage(each.events, generation=generation) for each in pages]

    assert (True, [4, 6]) == await searched(of_generation)


async def test_what_was_sent_without_a_catalogue_is_not_searched_for() -> None:
    """Nobody knows where on the feed it would be."""
    own = [page(event(5, is_own=True))]

    assert (False, []) == await searched(own, began_at=None)
    assert (False, []) == await searched(own, position=None)
    assert (False, []) == await searched(own, position=Position("g-2", 90))


async def test_a_page_of_another_feed_proves_nothing() -> None:
    """[P1] Its offsets are those of other events."""
    others = [page(event(5, is_own=True), generation="g-2")]

    assert (False, [4]) == await searched(others)


@pytest.mark.parametrize("last", [page(), page(event(3))], ids=["empty", "older"])
async def test_the_end_of_the_feed_ends_the_search(last: EventPage) -> None:
    assert (False, [4, 6]) == await searched([page(event(5)), last])


async def test_a_write_is_searched_for_in_a_few_pages_only() -> None:
    pages = (page(event(offset)) for offset in range(BEGAN_AT_OFFSET, 1000))
    _, asked = await searched(pages)

    assert READ_AGAIN_PAGES == len(asked)
