"""The copy that a full sync builds, against a Central whose catalogue moves while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_cache.catalogue.apply import apply_refetch
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.catalogue.paging import PagingBroken
from store_cache.catalogue.replica import Installation, Replica
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind, read_event
from store_cache.model.pages import BadRow, CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_product
from store_cache.model.stock import StockAnswer
from tests.unit.sync.pretend_central import PretendCentral

NOW = 1000.0
GRACE_SECONDS = 2.0


def row(product_id: str, version: int = 1, available: int = 5, **others: Any) -> Row:
    fields = {"productId": product_id, "name": "Cup", "available": available, "version": version}
    return read_product(fields | others)


def holding(*rows: Row) -> Catalogue:
    catalogue = Catalogue()
    catalogue.fill((r.product_id, r.body) for r in rows)
    catalogue.index()
    return catalogue


def begin(held: Catalogue | None = None, *, same_generation: bool = True) -> Replica:
    return Replica(held=held, same_generation=same_generation, now=NOW, grace_seconds=GRACE_SECONDS)


def finish(replica: Replica, *answers: StockAnswer, now: float = NOW) -> Catalogue:
    replica.answers += answers
    return replica.finish(pending_refetches={}, tombstones={}, now=now)


def take_whole(replica: Replica, *rows: Row) -> None:
    page = CataloguePage(Rows.of(rows), is_whole=True)

    assert replica.take_page(replica.first_request(), page) is None


@dataclass(frozen=True)
class Shape:
    """How a Central pages: at most `cap` rows, and what it says of more."""

    cap: int
    total: bool = True
    has_more: bool = True
    adds_to_total: int = 0
    always_has_more: bool = False
    cursor: bool = False


class Reading:
    """A full sync of a pretended Central: pages, and the feed alongside."""

    def __init__(
        self,
        central: PretendCentral,
        shape: Shape,
        *,
        between: Callable[[int], None] = lambda _: None,
        bad: frozenset[str] = frozenset(),
    ) -> None:
        central.publish(NOW)
        self.central = central
        self.shape = shape
        self.replica = begin()
        self.followed = len(central.feed)
        self.pages = 0
        self.asked: list[int] = []
        self.between = between
        self.bad = bad

    def page(self, request: PageRequest) -> CataloguePage:
        self.asked.append(request.offset)
        limit = min(self.shape.cap, request.limit)
        bodies = self.central.rows()
        ids = list(bodies)
        start = request.offset
        if self.shape.cursor:
            after = request.cursor or ""
            start = sum(i <= after for i in ids)
        part = ids[start : start + limit]
        more = start + limit < len(ids)
        return CataloguePage(
            Rows.of(read_product(orjson.loads(bodies[i])) for i in part if i not in self.bad),
            tuple(BadRow(i, "it cannot be read") for i in part if i in self.bad),
            total=len(ids) + self.shape.adds_to_total if self.shape.total else None,
            has_more=(more or self.shape.always_has_more) if self.shape.has_more else None,
            next_cursor=part[-1] if self.shape.cursor and more else None,
        )

    def run(self) -> Catalogue:
        request: PageRequest | None = self.replica.first_request()
        while request is not None:
            self.pages += 1
            assert self.pages < 500
            request = self.replica.take_page(request, self.page(request))
            self.between(self.pages)
            self.follow()
        for product_id in self.replica.products_to_refetch():
            self.settle(product_id)
        self.follow()
        return finish(self.replica)

    def run_and_read(self) -> Catalogue:
        """The copy, and what it owes as `refetcher` reads it."""
        copy = self.run()
        for product_id, owed in list(copy.pending_refetches.items()):
            change_set = ChangeSet(copy, now=owed.due, grace_seconds=GRACE_SECONDS)
            known, read = KnownState.of(copy, product_id), self.central.read(product_id)
            assert apply_refetch(change_set, product_id, read, known=known, reason=owed.reason)
            copy.apply(change_set.to_change("reading"))
        return copy

    def follow(self) -> None:
        self.central.publish(NOW)
        events = self.central.feed[self.followed :]
        self.followed += len(events)
        self.replica.take_events(events, position=Position("g", self.followed), now=NOW)

    def settle(self, product_id: str) -> None:
        known = self.replica.known_state(product_id)
        read = self.central.read(product_id)
        self.replica.apply_refetch(product_id, read, known=known, now=NOW)


def stocked(count: int) -> PretendCentral:
    central = PretendCentral()
    for number in range(count):
        central.does("create", f"P-{number:03}")
    return central


SHAPES = [
    Shape(50),
    Shape(3),
    Shape(2),
    Shape(1),
    Shape(3, total=False),
    Shape(3, has_more=False),
    Shape(3, total=False, has_more=False),
    Shape(1, total=False, has_more=False),
    Shape(1, has_more=False),
    Shape(3, cursor=True),
    Shape(3, adds_to_total=7),
    Shape(3, adds_to_total=-9),
    Shape(3, always_has_more=True),
    Shape(3, has_more=False, adds_to_total=7),
    Shape(10, always_has_more=True, adds_to_total=3),
    Shape(1, always_has_more=True, adds_to_total=3),
]


# -- pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 10])
def test_a_catalogue_at_rest_is_read_whole(shape: Shape, count: int) -> None:
    """[F3] In pages of any size, with or without what Central says of more, also where that is
    untrue: every product is read, and the reading ends."""
    central = stocked(count)

    assert central.rows() == Reading(central, shape).run().rows


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.cap > 1], ids=str)
@pytest.mark.parametrize("deed", ["delete", "create"])
@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("after_page", [1, 2, 3])
def test_what_is_created_or_deleted_between_pages_skips_nothing(
    shape: Shape, deed: str, place: int, after_page: int
) -> None:
    """[F3] Two products created or deleted at any place between any two pages move all behind
    them; pages overlap, so that the reading notices and steps back."""
    central = stocked(11)

    def between(page: int) -> None:
        if page == after_page:
            suffixes = ("", "b") if deed == "create" else ("",)
            for suffix in suffixes:
                central.does(deed, f"P-{place:03}{suffix}")
            central.does(deed, f"P-{place + 1:03}")

    assert central.rows() != {}
    copy = Reading(central, shape, between=between).run()

    assert central.rows() == copy.rows


deeds = st.tuples(st.sampled_from(["create", "update", "delete", "delete"]), st.integers(0, 14))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([s for s in SHAPES if s.cap > 1]),
    st.dictionaries(st.integers(1, 12), st.lists(deeds, max_size=8), max_size=8),
)
def test_a_catalogue_that_moves_is_read_whole(
    shape: Shape, happenings: dict[int, list[tuple[str, int]]]
) -> None:
    """[F2] Whatever happens to products between the pages, the copy with the feed alongside ends
    as Central's catalogue, once what it owes has been read."""
    central = stocked(12)

    def between(page: int) -> None:
        for deed, number in happenings.get(page, []):
            central.does(deed, f"P-{number:03}")

    assert Reading(central, shape, between=between).run_and_read().rows == central.rows()


def test_deletions_of_whole_pages_do_not_begin_the_reading_again() -> None:
    """[F3] Where every product of the last page was deleted, the reading steps back to any product
    that it has read, in steps that double, and not to the start."""
    central = stocked(300)

    def between(page: int) -> None:
        if page == 100:
            for number in range(100, 212):
                central.does("delete", f"P-{number:03}")

    reading = Reading(central, Shape(3), between=between)
    copy = reading.run()

    assert central.rows() == copy.rows
    assert [200, 199, 197, 193, 185, 169, 137, 73, 75] == reading.asked[100:109]


@pytest.mark.parametrize("cap", [2, 3, 4, 10])
@pytest.mark.parametrize("first_bad", range(6))
@pytest.mark.parametrize("bad_rows", [1, 2, 5])
def test_rows_that_cannot_be_read_do_not_break_the_paging(
    cap: int, first_bad: int, bad_rows: int
) -> None:
    """[F5] They overlap like others, at every place of a page, and are then read singly."""
    central = stocked(12)
    bad = frozenset(f"P-{number:03}" for number in range(first_bad, first_bad + bad_rows))
    reading = Reading(central, Shape(cap), bad=bad)

    assert central.rows() == reading.run().rows


def test_a_paging_that_does_not_end_is_given_up() -> None:
    """[F3] A Central that answers every offset with the same page is named, not asked for ever."""
    replica = begin()
    page = CataloguePage(Rows.of([row("P-1"), row("P-2")]), has_more=True)
    request: PageRequest | None = replica.first_request()

    def ask_on() -> None:
        nonlocal request
        for _ in range(200):
            assert request is not None
            request = replica.take_page(request, page)

    with pytest.raises(PagingBroken, match="bring nothing new after 62 pages"):
        ask_on()


def test_a_bare_list_is_everything_at_once() -> None:
    """[F2] No second page is asked for."""
    replica = begin()
    take_whole(replica, row("P-2"), row("P-1"))

    assert ["P-1", "P-2"] == list(finish(replica).ids())


def test_a_cursor_is_followed_where_central_gives_one() -> None:
    """[F3] With a cursor nothing overlaps and nothing is asked by offset."""
    replica = begin()
    first = CataloguePage(Rows.of([row("P-1")]), next_cursor="eyJv", total=3)

    following = replica.take_page(replica.first_request(), first)

    assert following is not None
    assert "eyJv" == following.cursor
    second = CataloguePage(Rows.of([row("P-2")]), total=3)
    assert replica.take_page(following, second) is None


def test_a_central_that_caps_silently_is_asked_modestly() -> None:
    """[F3] A limit that gave few rows may have been replaced by a small default: 200 are asked
    for next; what came back is believed, and pages overlap by one."""
    replica = begin()
    page = CataloguePage(Rows.of(row(f"P-{n:03}") for n in range(20)), has_more=True)

    assert PageRequest(19, 200) == replica.take_page(PageRequest(0, 1000), page)


# -- what counts of a product that is met twice ------------------------------------------------


def two_pages(replica: Replica, first: Row, second: Row) -> None:
    replica.take_page(replica.first_request(), CataloguePage(Rows.of([first]), next_cursor="c"))
    replica.take_page(PageRequest(1, 200, "c"), CataloguePage(Rows.of([second])))


@pytest.mark.parametrize(
    ("later", "shown", "doubted"),
    [
        (row("P-1", 6, 9), row("P-1", 6, 9), []),
        (row("P-1", 5, 9), row("P-1", 5, 9), []),
        (row("P-1", 4, 9), row("P-1", 5, 1), ["P-1"]),
    ],
    ids=["newer", "same version", "older"],
)
def test_of_a_product_on_two_pages_the_later_reading_counts(
    later: Row, shown: Row, doubted: list[str]
) -> None:
    """[V3] Unless it is older: then the product is read by itself."""
    replica = begin()
    two_pages(replica, row("P-1", 5, 1), later)

    assert doubted == replica.products_to_refetch()
    assert shown.body == replica.catalogue.get("P-1")


def events(*deeds: tuple[str, str]) -> Sequence[AnyEvent]:
    central = PretendCentral()
    for deed, product_id in deeds:
        central.does(deed, product_id)
    central.publish(NOW)
    return central.feed


def take_events(replica: Replica, happened: Sequence[AnyEvent]) -> None:
    replica.take_events(happened, position=Position("g", len(happened)), now=NOW)


@pytest.mark.parametrize("version", [2, 3])
def test_a_late_page_does_not_bring_a_deleted_product_back(version: int) -> None:
    """[V3] A page from before a deletion that the copy knows: the product is read by itself, and
    is not in the copy meanwhile."""
    replica = begin()
    take_events(replica, events(("create", "P-1"), ("update", "P-1"), ("delete", "P-1")))
    take_whole(replica, row("P-1", version))

    assert ["P-1"] == replica.products_to_refetch()
    assert replica.catalogue.get("P-1") is None


def test_a_late_page_does_not_undo_an_event() -> None:
    """[V3] An older version on a page than an event brought: the event's row stays."""
    replica = begin()
    happened = events(("create", "P-1"), ("update", "P-1"))
    take_events(replica, happened)
    take_whole(replica, row("P-1", 1))

    assert ["P-1"] == replica.products_to_refetch()
    assert 2 == orjson.loads(replica.catalogue.rows["P-1"])["version"]


def test_no_version_is_lowered_on_the_word_of_one_page() -> None:
    """[V3] A page that shows an older version than the catalogue in place: read by itself, and
    what that says holds."""
    replica = begin(holding(row("P-1", 7)))
    take_whole(replica, row("P-1", 6))

    assert ["P-1"] == replica.products_to_refetch()

    truth = row("P-1", 6, 3)
    replica.apply_refetch("P-1", truth, known=replica.known_state("P-1"), now=NOW)

    assert [] == replica.products_to_refetch()
    assert truth.body == finish(replica).get("P-1")


def test_an_event_settles_what_a_page_lowered() -> None:
    """[V3] The page was only late: once an event brings the version held there is no doubt."""
    replica = begin(holding(row("P-1", 2)))
    take_whole(replica, row("P-1", 1))
    take_events(replica, events(("create", "P-1"), ("update", "P-1"))[1:])

    assert [] == replica.products_to_refetch()


def test_versions_of_another_generation_count_for_nothing() -> None:
    """[V3] After Central was replaced, lower versions are the truth at once."""
    replica = begin(holding(row("P-1", 7)), same_generation=False)
    take_whole(replica, row("P-1", 2))

    assert [] == replica.products_to_refetch()
    assert row("P-1", 2).body == finish(replica).get("P-1")


def test_a_reading_that_an_event_overtook_says_nothing() -> None:
    """[V3] The product stays in doubt and is read again."""
    replica = begin()
    take_events(replica, events(("create", "P-1"), ("update", "P-1")))
    take_whole(replica, row("P-1", 1))
    known = replica.known_state("P-1")
    take_events(replica, events(("create", "P-1"), *(("update", "P-1"),) * 2)[2:])
    replica.apply_refetch("P-1", row("P-1", 2), known=known, now=NOW)

    assert ["P-1"] == replica.products_to_refetch()
    assert 3 == orjson.loads(replica.catalogue.rows["P-1"])["version"]


def test_absence_is_an_answer() -> None:
    """[F5] A doubted product that Central does not know is not in the copy."""
    replica = begin(holding(row("P-1", 7)))
    take_whole(replica, row("P-1", 6))
    replica.apply_refetch("P-1", None, known=replica.known_state("P-1"), now=NOW)

    assert {} == finish(replica).rows


def test_rows_that_did_not_change_are_shared() -> None:
    """[F2] The copy holds the same bytes object as the catalogue in place: a full sync does not
    cost the catalogue's memory twice."""
    held = holding(row("P-1", 7))
    replica = begin(held)
    take_whole(replica, row("P-1", 7))

    assert held.get("P-1") is replica.catalogue.get("P-1")


# -- rows that cannot be read ------------------------------------------------------------------


def with_bad_row(replica: Replica, product_id: str | None, *rows: Row) -> None:
    bad = BadRow(product_id, "version is -1")
    page = CataloguePage(Rows.of(rows), (bad,), is_whole=True)
    replica.take_page(replica.first_request(), page)


def test_a_row_that_cannot_be_read_is_read_singly() -> None:
    """[F5] What the single reading says goes into the copy."""
    replica = begin()
    with_bad_row(replica, "P-1")

    assert ["P-1"] == replica.products_to_refetch()

    replica.apply_refetch("P-1", row("P-1", 3), known=replica.known_state("P-1"), now=NOW)

    assert row("P-1", 3).body == finish(replica).get("P-1")


def test_what_cannot_be_read_singly_either_is_doubtful() -> None:
    """[F5] The row held is kept, the product is listed, and its reading stays owed."""
    replica = begin(holding(row("P-1", 7)))
    with_bad_row(replica, "P-1")
    replica.give_up("P-1", "Central answered 500", now=NOW)
    copy = finish(replica)

    assert [] == replica.products_to_refetch()
    assert row("P-1", 7).body == copy.get("P-1")
    assert (
        PendingRefetch(RefetchReason.UNREADABLE, NOW, NOW, 1, "Central answered 500")
        == copy.pending_refetches["P-1"]
    )


@pytest.mark.parametrize(("same_generation", "version"), [(True, 7), (False, 2)])
def test_given_up_the_fresher_row_is_kept_within_a_generation(
    same_generation: bool, version: int
) -> None:
    """[V3] Of what is held and what pages showed, the higher version; but no row of a Central that
    was replaced."""
    replica = begin(holding(row("P-1", 7)), same_generation=same_generation)
    two_pages(replica, row("P-1", 2), row("P-1", 1))
    replica.give_up("P-1", "Central answered 500", now=NOW)

    assert version == orjson.loads(finish(replica).rows["P-1"])["version"]


def test_a_row_without_an_id_is_left_out() -> None:
    """[F5] It cannot be refetched; the other rows of its page count."""
    replica = begin()
    with_bad_row(replica, None, row("P-1"))

    assert [] == replica.products_to_refetch()
    assert ["P-1"] == list(finish(replica).ids())


# -- what was learned during the run -----------------------------------------------------------

SOLD = StockAnswer("P-1", 6, 7, 3, "2024-01-15T10:30:00Z")


@pytest.mark.parametrize(
    ("copied", "version", "available", "owed"),
    [
        (row("P-1", 6), 7, 3, None),
        (row("P-1", 7, 4), 7, 4, None),
        (row("P-1", 9, 1), 9, 1, None),
        (row("P-1", 4), 7, 3, RefetchReason.CROSSED),
    ],
    ids=["at the version sent", "at the answer's", "beyond it", "before it"],
)
def test_answers_are_laid_over_the_copy(
    copied: Row, version: int, available: int, owed: RefetchReason | None
) -> None:
    """[F4] A till that was told of its sale sees it after the full sync too."""
    replica = begin()
    take_whole(replica, copied)
    copy = finish(replica, SOLD)
    shown = orjson.loads(copy.rows["P-1"])
    entry = copy.pending_refetches.get("P-1")

    assert (version, available) == (shown["version"], shown["available"])
    assert owed == (entry and entry.reason)


def test_an_answer_does_not_create_a_product() -> None:
    """[W6] Neither in the copy: the product is read first."""
    copy = finish(begin(), SOLD)

    assert {} == copy.rows
    assert RefetchReason.CROSSED is copy.pending_refetches["P-1"].reason


def test_what_only_a_late_update_tells_of_is_read_first() -> None:
    """[V2] The product was deleted before its page was read; an update that was published late
    tells of it once more. Central is asked before the copy goes in place."""
    replica = begin()
    take_whole(replica, row("P-2"))
    take_events(replica, events(("create", "P-1"), ("update", "P-1"))[1:])

    assert ["P-1"] == replica.products_to_refetch()

    replica.apply_refetch("P-1", None, known=replica.known_state("P-1"), now=NOW)

    assert [] == replica.products_to_refetch()
    assert ["P-2"] == list(finish(replica).rows)


@pytest.mark.parametrize(
    ("head", "offset", "doubted"),
    [(30, 12, ["P-1"]), (30, 130, ["P-1"]), (30, 131, []), (None, 131, ["P-1"])],
    ids=["before the page", "perhaps before it", "after it", "nothing tells"],
)
def test_a_creation_that_the_pages_should_have_shown_is_read_first(
    head: int | None, offset: int, doubted: list[str]
) -> None:
    """[V2] The product was deleted before the pages were read, and Central had numbered that event
    before the creation. Creations while pages are read cost no readings."""
    replica = begin()
    page = CataloguePage(Rows.of([row("P-2")]), is_whole=True, event_offset=head)
    replica.take_page(replica.first_request(), page)
    take_events(replica, [Event(offset, Kind.CREATED, "P-1", 1, row("P-1").body, None)])

    assert doubted == replica.products_to_refetch()


def test_an_update_before_its_page_needs_no_reading() -> None:
    """[F2] The feed alongside tells of products all the time whose pages are still to come."""
    replica = begin()
    take_events(replica, events(("create", "P-1"), ("update", "P-1"))[1:])
    take_whole(replica, row("P-1", 2))

    assert [] == replica.products_to_refetch()


def ahead_since(since: float) -> Catalogue:
    held = holding(row("P-1", 7, 3))
    held.apply(Change("reading", overrides={"P-1": Override(7, since)}))
    return held


def test_what_a_reading_showed_is_shown_on() -> None:
    """[F2] A product read by itself after the copy last followed the feed goes no step back when
    the copy is put in place; it is read once more."""
    replica = begin(ahead_since(NOW))
    take_whole(replica, row("P-1", 6))
    replica.apply_refetch("P-1", row("P-1", 6), known=replica.known_state("P-1"), now=NOW)
    copy = finish(replica)

    assert row("P-1", 7, 3).body == copy.get("P-1")
    assert {"P-1": Override(7, NOW)} == copy.overrides
    assert RefetchReason.CROSSED is copy.pending_refetches["P-1"].reason


def test_an_event_before_the_page_begins_no_life() -> None:
    """[V3] [F2] The feed alongside may be ahead of the pages: an event of a product that is held
    tells of no new life, so what a reading showed of it meanwhile is shown on, and nothing is owed
    for it but that."""
    replica = begin(ahead_since(NOW))
    take_events(replica, events(("create", "P-1"), ("update", "P-1"))[1:])
    take_whole(replica, row("P-1", 2))
    copy = finish(replica)

    assert row("P-1", 7, 3).body == copy.get("P-1")
    assert {} == copy.incarnations
    assert RefetchReason.CROSSED is copy.pending_refetches["P-1"].reason


def test_what_a_reading_showed_of_a_product_that_the_copy_lacks_is_shown_on() -> None:
    """[F2] The feed's end, as Central told it, was an old one: the copy ends before the product's
    creation, and a till has seen it at version 7 since. Central is asked once more, at once."""
    replica = begin(ahead_since(NOW))
    take_whole(replica, row("P-2"))
    copy = finish(replica)

    assert row("P-1", 7, 3).body == copy.get("P-1")
    assert {"P-1": Override(7, NOW)} == copy.overrides
    assert RefetchReason.CROSSED is copy.pending_refetches["P-1"].reason


def test_what_the_feed_has_passed_since_is_not_asked_for_again() -> None:
    """[F4] A till was told of a sale, the feed brought the sale and what others sold then: as in
    any full sync of a shop that sells. The copy's state counts."""
    sold, sold_again = row("P-1", 2, 4), row("P-1", 3, 1)
    held = holding(sold)
    held.apply(Change("answer", overrides={"P-1": Override(2, NOW)}))
    replica = begin(held)
    take_whole(replica, sold_again)
    take_events(
        replica, [Event(r.version, Kind.UPDATED, *r[:2], r.body, r) for r in (sold, sold_again)]
    )
    copy = finish(replica)

    assert sold_again.body == copy.get("P-1")
    assert {} == copy.overrides
    assert {} == copy.pending_refetches


def test_what_a_reading_said_to_be_gone_is_asked_for_again() -> None:
    """[V2] During the run Central said that it has no such product; the copy has it all the same,
    since the feed had lost the event. Central is asked once more, at once."""
    replica = begin(holding(row("P-1")))
    take_whole(replica, row("P-1"))
    marks = {"P-1": Tombstone(0, 0, NOW)}
    copy = replica.finish(pending_refetches={}, tombstones=marks, now=NOW)

    assert RefetchReason.CROSSED is copy.pending_refetches["P-1"].reason


def test_what_was_ahead_before_the_run_has_been_read_since() -> None:
    """[V3] There the reading by itself holds, though it is lower."""
    replica = begin(ahead_since(NOW - 1))
    take_whole(replica, row("P-1", 6))
    replica.apply_refetch("P-1", row("P-1", 6), known=replica.known_state("P-1"), now=NOW)

    assert row("P-1", 6).body == finish(replica).get("P-1")


def test_a_new_life_in_the_copy_leaves_open_which_life_was_ahead() -> None:
    """[V2] [V3] The feed created the product during the run, and lost what came then; a reading
    had shown version 7, of this life or of the one before. What readers saw stays until Central
    was asked, at once."""
    replica = begin(ahead_since(NOW))
    take_whole(replica)
    take_events(replica, events(("create", "P-1")))
    copy = finish(replica)

    assert 7 == orjson.loads(copy.rows["P-1"])["version"]
    assert RefetchReason.CROSSED is copy.pending_refetches["P-1"].reason


def test_marks_lives_and_owed_readings_outlive_the_run() -> None:
    """[V2] A deletion or creation just before the run still tells late events of it, and a
    reading that became owed during the run is still owed."""
    held = holding(row("P-2"))
    held.apply(Change("events", incarnations={"P-1": NOW - 1, "P-2": NOW - 2}))
    replica = begin(held)
    take_whole(replica, row("P-2"))
    tombstone, owed = Tombstone(4, 7, NOW - 1), PendingRefetch(RefetchReason.ORDER, NOW + 1, NOW)
    copy = replica.finish(
        pending_refetches={"P-2": owed},
        tombstones={"P-1": tombstone, "P-2": tombstone},
        now=NOW,
    )

    assert {"P-1": tombstone} == copy.tombstones
    assert {"P-1": NOW - 1, "P-2": NOW - 2} == copy.incarnations
    assert {"P-2": owed} == copy.pending_refetches


# -- judging -----------------------------------------------------------------------------------


def judged(
    replica: Replica, *, accept: bool = False, agreed: int | None = None, percent: int = 50
) -> bool:
    finish(replica)
    return replica.judge(
        Installation(Position("g", 1), accept, agreed), least_percent=percent
    ).accepted


def rows(count: int) -> Iterable[Row]:
    return (row(f"P-{number:03}") for number in range(count))


@pytest.mark.parametrize(
    ("held", "found", "accepted"),
    [(100, 50, True), (100, 49, False), (100, 0, False), (0, 0, True), (1, 0, False), (3, 2, True)],
)
def test_a_catalogue_that_lost_half_is_refused(held: int, found: int, accepted: bool) -> None:
    """[F5] Fewer than half of what is held is not believed; empty is, where nothing was held."""
    replica = begin(holding(*rows(held)))
    take_whole(replica, *rows(found))

    assert accepted is judged(replica)


def test_the_first_catalogue_is_believed() -> None:
    """[F5] There is nothing to compare it with."""
    assert judged(begin())


@pytest.mark.parametrize(
    ("agreed", "accepted"), [(None, False), (40, True), (41, False), (0, False)]
)
def test_a_second_reading_that_agrees_is_believed(agreed: int | None, accepted: bool) -> None:
    """[F5] The same number of products as the reading that was refused, within a hundredth."""
    replica = begin(holding(*rows(100)))
    take_whole(replica, *rows(40))

    assert accepted is judged(replica, agreed=agreed)


def test_an_admin_may_accept_it() -> None:
    """[F5] `?accept=true`; and a refusal says so."""
    replica = begin(holding(*rows(100)))
    take_whole(replica, *rows(1))

    assert judged(replica, accept=True)

    verdict = replica.judge(Installation(Position("g", 1)), least_percent=50)

    assert "1 products where 100 are held" in verdict.problem
    assert "?accept=true" in verdict.problem


def deletions(count: int) -> Sequence[AnyEvent]:
    names = [r.product_id for r in rows(count)]
    return events(*(("create", i) for i in names), *(("delete", i) for i in names))[count:]


def test_deletions_on_the_feed_explain_what_is_missing() -> None:
    """[F5] Of 100 products held the feed deleted 60: 40 are all that there should be."""
    replica = begin(holding(*rows(100)))
    take_events(replica, deletions(60))
    take_whole(replica, *list(rows(100))[60:])

    assert judged(replica)


def test_deletions_explain_only_once() -> None:
    """[F5] Where the catalogue in place followed the feed too, it has lost them already: 40 held,
    and 15 found, are too few, whatever was deleted."""
    replica = begin(holding(*list(rows(100))[60:]))
    take_events(replica, deletions(60))
    take_whole(replica, *list(rows(100))[60:75])

    assert not judged(replica)


def test_deletions_of_other_products_explain_nothing() -> None:
    """[F5] A product that comes and goes a thousand times leaves the others to be missed."""
    flapping = events(*((deed, "Q") for _ in range(100) for deed in ("create", "delete")))
    replica = begin(holding(*rows(100)))
    take_events(replica, flapping)
    take_whole(replica, *rows(30))

    assert not judged(replica)


@pytest.mark.parametrize(("percent", "accepted"), [(0, True), (10, True), (11, False)])
def test_the_share_is_a_setting(percent: int, accepted: bool) -> None:
    """[F5] `SNAPSHOT_MIN_PERCENT`."""
    replica = begin(holding(*rows(100)))
    take_whole(replica, *rows(10))

    assert accepted is judged(replica, percent=percent)


PRODUCTS = ["P-1", "P-2", "P-3", "P-4"]
EVENTS = ["inventory_updated", "product_created", "product_deleted"]
some = st.frozensets(st.sampled_from(PRODUCTS), max_size=3)
steps = st.lists(
    st.tuples(st.just("page"), some, some)
    | st.tuples(st.just("events"), st.lists(st.sampled_from(EVENTS), max_size=3), some)
    | st.tuples(st.just("reading"), some, st.booleans())
    | st.tuples(st.just("give up"), some, st.none()),
    max_size=8,
)


class Noting:
    """Takes steps of a full sync, and keeps a list of what pages showed."""

    def __init__(self) -> None:
        self.replica = begin(holding(*(row(i) for i in PRODUCTS[:2])))
        self.paged: set[str] = set()
        self.number = 1

    def take(self, step: tuple[str, Any, Any]) -> None:
        self.number += 1
        match step:
            case "page", shown, bad:
                self._take_page(shown, bad)
            case "events", kinds, ids:
                self._take_events(kinds, ids)
            case "reading", ids, is_there:
                for i in ids:
                    found, known = (
                        row(i, self.number) if is_there else None,
                        self.replica.known_state(i),
                    )
                    self.replica.apply_refetch(i, found, known=known, now=NOW)
            case _, ids, _:
                for i in ids:
                    self.replica.give_up(i, "it cannot be read", now=NOW)

    def _take_page(self, shown: frozenset[str], bad: frozenset[str]) -> None:
        rows = Rows.of(row(i, self.number) for i in sorted(shown - bad))
        page = CataloguePage(rows, tuple(BadRow(i, "bad") for i in sorted(bad)))
        self.replica.take_page(PageRequest(0, 9), page)
        self.paged |= shown | bad

    def _take_events(self, kinds: list[str], ids: frozenset[str]) -> None:
        events = [self._event(kind, i) for i in sorted(ids) for kind in kinds]
        position = Position("g", self.number)
        self.replica.take_events(events, position=position, now=NOW + 10 * self.number)

    def _event(self, kind: str, product_id: str) -> AnyEvent:
        self.number += 1
        value = {"offset": self.number, "eventType": kind, "productId": product_id}
        data = orjson.loads(row(product_id, self.number).body)
        return read_event(value | {"version": self.number, "data": data})


@given(steps)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_pages_showed_is_known_without_a_list_of_it(steps: list[tuple[str, Any, Any]]) -> None:
    """[F3] Whatever the feed and readings put into the copy, or take from it, in between."""
    noting = Noting()
    for step in steps:
        noting.take(step)

        known = noting.replica.catalogue.rows.keys() & PRODUCTS
        fresh = noting.replica.paged.unseen(set(PRODUCTS), known)

        assert set(PRODUCTS) - noting.paged == fresh
