"""Which pages of the feed are read again for a write whose outcome is unknown (W3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from store_cache.model.event import AnyEvent, Event, Kind, QuarantinedEvent
from store_cache.model.pages import EventPage
from store_cache.model.position import Position
from store_cache.writes.idempotency import Attempt
from store_cache.writes.in_doubt import InDoubtWrite
from store_cache.writes.in_doubt_search import READ_AGAIN_PAGES, search_feed
from store_cache.writes.write import Refused

BEGAN_AT_OFFSET = 4
HERE = Position("g-1", 90)
REFUSED = Refused("version_conflict", "no", 3, 8)


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


def page(*events: AnyEvent, generation: str | None = "g-1") -> EventPage:
    return EventPage(events, generation=generation)


def theirs(
    offset: int, version: int, *, kind: Kind = Kind.UPDATED, product_id: str = "P-1"
) -> Event:
    """An event that names another shop's write."""
    name = {"storeId": "store-s2", "idempotencyKey": f"store-s2-{offset}"}
    body = None if kind is Kind.DELETED else b'{"available":3}'
    return Event(offset, kind, product_id, version, body, name)


def unreadable(offset: int, product_id: str | None) -> QuarantinedEvent:
    return QuarantinedEvent(offset, product_id, "of an unknown type", "f")


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
    await search_feed(write, REFUSED, feed, position, deadline_at=deadline_at)
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


async def refused_after(*searches: Sequence[EventPage], began_at: int = 4) -> list[bool]:
    """Return after each search whether the refusal of a repeat counts. The write was sent with
    version 6, while version 8 was held."""
    attempt = Attempt(
        *("sale", b"", "P-1", 6), at=1.0, held_version=8, generation="g-1", offset=began_at
    )
    write, deadline_at = (
        InDoubtWrite(attempt, store_id="store-s1"),
        asyncio.get_running_loop().time() + 60.0,
    )
    counts = []
    for pages in searches:
        await search_feed(write, REFUSED, Feed(iter(pages)), HERE, deadline_at=deadline_at)
        counts.append(write.verdict == REFUSED)
    return counts


async def test_a_refusal_counts_once_the_feed_was_read_to_its_end() -> None:
    """[W3] Of the product nothing has happened since, so the version refused is the one held."""
    last = EventPage((theirs(5, 1, product_id="P-2"),), has_more=False, generation="g-1")

    assert [True] == await refused_after([page()])
    assert [True] == await refused_after([page(theirs(4, 3, product_id="P-2")), last])
    assert [True] == await refused_after([page(theirs(1, 3, product_id="P-2")), page()], began_at=0)


async def test_a_refusal_by_a_later_incarnation_proves_nothing() -> None:
    """[W3] [V2] Seed 99000279: the store was behind when it sent the write, and Central at the next
    incarnation, which has come to the version held here."""
    ended = theirs(4, 9, kind=Kind.DELETED), theirs(5, 1, kind=Kind.CREATED)

    assert [False] == await refused_after([page(*ended), page()])


@pytest.mark.parametrize(
    "missing", [(), (unreadable(5, "P-1"),), (unreadable(5, None),)], ids=["lost", "P-1", "unnamed"]
)
async def test_a_refusal_proves_nothing_while_an_event_is_missing(
    missing: tuple[QuarantinedEvent, ...],
) -> None:
    """[W3] It may be the product's deletion. The next search looks for it again."""
    before, after = theirs(4, 1, product_id="P-2"), theirs(6, 1, product_id="P-2")
    late = theirs(5, 2, product_id="P-2")

    assert [False, True] == await refused_after(
        [page(before, *missing, after), page()], [page(late, after), page()]
    )


async def test_an_unreadable_event_of_another_product_is_not_missing() -> None:
    """[W3] [E5]"""
    assert [True] == await refused_after([page(unreadable(4, "P-2")), page()])


async def test_a_refusal_proves_nothing_before_the_end_was_read() -> None:
    """[W3] The next search goes on where this one ended."""
    many = [page(theirs(offset, 1, product_id="P-2")) for offset in range(4, 20)]

    assert [False, True] == await refused_after(many, [*many[READ_AGAIN_PAGES:], page()])
