"""Reading a catalogue page by page, at rest and while it moves."""

from __future__ import annotations

from collections.abc import Callable
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
from store_cache.catalogue.replica import Replica
from store_cache.model.event import AnyEvent, read_event
from store_cache.model.pages import BadRow, CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_product
from tests.unit.catalogue.pretend_central import PretendCentral

NOW = 1000.0
GRACE_SECONDS = 2.0


def row(product_id: str, version: int = 1) -> Row:
    return read_product(
        {"productId": product_id, "name": "Cup", "available": 5, "version": version}
    )


def new_replica(held: Catalogue | None = None) -> Replica:
    return Replica(held=held, same_generation=True, now=NOW, grace_seconds=GRACE_SECONDS)


@dataclass(frozen=True)
class Shape:
    """How a Central pages: at most `cap` rows, and what it says of more."""

    cap: int
    total: bool = True
    has_more: bool = True
    adds_to_total: int = 0
    always_has_more: bool = False
    cursor: bool = False


class SmallSync:
    """A full sync from a `PretendCentral`, which may change after each page."""

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
        self.replica = new_replica()
        self.followed = len(central.feed)
        self.requested: list[int] = []
        self.between = between
        self.bad = bad

    def page(self, request: PageRequest) -> CataloguePage:
        self.requested.append(request.offset)
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
            request = self.replica.take_page(request, self.page(request))
            assert len(self.requested) < 500
            self.between(len(self.requested))
            self.follow()
        return self.replica.finish(pending_refetches={}, tombstones={}, now=NOW)

    def run_and_refetch(self) -> Catalogue:
        """Return the catalogue with its pending refetches done."""
        catalogue = self.run()
        for product_id, pending in list(catalogue.pending_refetches.items()):
            change_set = ChangeSet(catalogue, now=pending.due, grace_seconds=GRACE_SECONDS)
            known, found = KnownState.of(catalogue, product_id), self.central.read(product_id)
            assert apply_refetch(change_set, product_id, found, known=known, reason=pending.reason)
            catalogue.apply(change_set.to_change("reading"))
        return catalogue

    def follow(self) -> None:
        self.central.publish(NOW)
        events = self.central.feed[self.followed :]
        self.followed += len(events)
        self.replica.take_events(events, position=Position("g", self.followed), now=NOW)


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
OVERLAPPING = [shape for shape in SHAPES if shape.cap > 1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 10])
def test_a_catalogue_at_rest_is_read_whole(shape: Shape, count: int) -> None:
    """[F3] In pages of any size, with or without what Central says of more, and even if that is
    untrue: every product is read, and the reading ends."""
    central = stocked(count)

    assert central.rows() == SmallSync(central, shape).run().rows


@pytest.mark.parametrize("shape", OVERLAPPING, ids=str)
@pytest.mark.parametrize("deed", ["delete", "create"])
@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("after_page", [1, 2, 3])
def test_what_is_created_or_deleted_between_pages_skips_nothing(
    shape: Shape, deed: str, place: int, after_page: int
) -> None:
    """[F3] Two products created or deleted at any place between any two pages move all behind
    them; since pages overlap, the reading notices and steps back."""
    central = stocked(11)

    def between(page: int) -> None:
        if page == after_page:
            suffixes = ("", "b") if deed == "create" else ("",)
            for suffix in suffixes:
                central.does(deed, f"P-{place:03}{suffix}")
            central.does(deed, f"P-{place + 1:03}")

    catalogue = SmallSync(central, shape, between=between).run()

    assert {} != central.rows() == catalogue.rows


deeds = st.tuples(st.sampled_from(["create", "update", "delete", "delete"]), st.integers(0, 14))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(OVERLAPPING),
    st.dictionaries(st.integers(1, 12), st.lists(deeds, max_size=8), max_size=8),
)
def test_a_catalogue_that_moves_is_read_whole(
    shape: Shape, happenings: dict[int, list[tuple[str, int]]]
) -> None:
    """[F2] Whatever happens to products between the pages, the replica, with the feed alongside,
    ends as Central's catalogue, once its pending refetches are done."""
    central = stocked(12)

    def between(page: int) -> None:
        for deed, number in happenings.get(page, []):
            central.does(deed, f"P-{number:03}")

    catalogue = SmallSync(central, shape, between=between).run_and_refetch()

    assert central.rows() == catalogue.rows


def test_deletions_of_whole_pages_do_not_begin_the_reading_again() -> None:
    """[F3] If every product of the last page was deleted, the reading steps back to any product
    that it has read, in steps that double, and not to the start."""
    central = stocked(300)

    def between(page: int) -> None:
        if page == 100:
            for number in range(100, 212):
                central.does("delete", f"P-{number:03}")

    sync = SmallSync(central, Shape(3), between=between)
    catalogue = sync.run()

    assert central.rows() == catalogue.rows
    assert [200, 199, 197, 193, 185, 169, 137, 73, 75] == sync.requested[100:109]


@pytest.mark.parametrize("cap", [2, 3, 4, 10])
@pytest.mark.parametrize("first_bad", range(6))
@pytest.mark.parametrize("bad_rows", [1, 2, 5])
def test_unreadable_rows_do_not_break_the_paging(cap: int, first_bad: int, bad_rows: int) -> None:
    """[F5] They overlap as others do, at every place of a page, and are refetched in the end."""
    central = stocked(12)
    bad = frozenset(f"P-{number:03}" for number in range(first_bad, first_bad + bad_rows))

    assert central.rows() == SmallSync(central, Shape(cap), bad=bad).run_and_refetch().rows


def test_a_paging_that_does_not_end_is_given_up() -> None:
    """[F3] A Central that answers every offset with the same page is reported, and not asked for
    ever."""
    replica = new_replica()
    page = CataloguePage(Rows.of([row("P-1"), row("P-2")]), has_more=True)
    request: PageRequest | None = replica.first_request()

    def read_on() -> None:
        nonlocal request
        for _ in range(200):
            assert request is not None
            request = replica.take_page(request, page)

    with pytest.raises(PagingBroken, match="bring nothing new after 62 pages"):
        read_on()


def test_a_bare_list_is_the_whole_catalogue() -> None:
    """[F2] No second page is requested."""
    replica = new_replica()
    page = CataloguePage(Rows.of([row("P-2"), row("P-1")]), is_whole=True)

    assert replica.take_page(replica.first_request(), page) is None
    assert ["P-1", "P-2"] == list(replica.catalogue.ids())


def test_a_cursor_is_followed_if_central_gives_one() -> None:
    """[F3] With a cursor nothing overlaps, and no page is requested by offset."""
    replica = new_replica()
    first = CataloguePage(Rows.of([row("P-1")]), next_cursor="eyJv", total=3)
    following = replica.take_page(replica.first_request(), first)

    assert following is not None
    assert "eyJv" == following.cursor
    assert replica.take_page(following, CataloguePage(Rows.of([row("P-2")]), total=3)) is None


def test_a_central_that_caps_silently_is_asked_for_200() -> None:
    """[F3] A limit that gave few rows may have been replaced by a small default. What comes back is
    believed, and pages overlap by one."""
    page = CataloguePage(Rows.of(row(f"P-{n:03}") for n in range(20)), has_more=True)

    assert PageRequest(19, 200) == new_replica().take_page(PageRequest(0, 1000), page)


def test_a_central_that_gives_many_products_is_asked_for_as_many_as_before() -> None:
    """[F3] Smaller pages would only take longer."""
    page = CataloguePage(Rows.of(row(f"P-{n:03}") for n in range(500)), has_more=True)

    assert PageRequest(499, 1000) == new_replica().take_page(PageRequest(0, 1000), page)


PRODUCTS = ["P-1", "P-2", "P-3", "P-4"]
EVENTS = ["inventory_updated", "product_created", "product_deleted"]
some = st.frozensets(st.sampled_from(PRODUCTS), max_size=3)
steps = st.lists(
    st.tuples(st.just("page"), some, some)
    | st.tuples(st.just("events"), st.lists(st.sampled_from(EVENTS), max_size=3), some),
    max_size=8,
)


class Noting:
    """Takes steps of a full sync, and keeps a list of what pages showed."""

    def __init__(self) -> None:
        held = Catalogue()
        held.fill((i, row(i).body) for i in PRODUCTS[:2])
        self.replica = new_replica(held)
        self.paged: set[str] = set()
        self.number = 1

    def take(self, step: tuple[str, Any, Any]) -> None:
        self.number += 1
        match step:
            case "page", shown, bad:
                rows = Rows.of(row(i, self.number) for i in sorted(shown - bad))
                page = CataloguePage(rows, tuple(BadRow(i, "bad") for i in sorted(bad)))
                self.replica.take_page(PageRequest(0, 9), page)
                self.paged |= shown | bad
            case _, kinds, ids:
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
    """[F3] Whatever events add to the replica or remove from it in between."""
    noting = Noting()
    for step in steps:
        noting.take(step)
        with_row = noting.replica.catalogue.rows.keys() & PRODUCTS

        assert set(PRODUCTS) - noting.paged == noting.replica.paged.unseen(set(PRODUCTS), with_row)
