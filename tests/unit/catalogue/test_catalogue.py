"""The catalogue in memory against a plain dict, and views of it against the moment they began."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from store_cache.catalogue import sorted_rows
from store_cache.catalogue.catalogue import PART_ROWS, Catalogue, PointInTimeView
from store_cache.catalogue.sorted_rows import BLOCK_ROWS
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.position import Position

IDS = [f"P-{number}" for number in range(40)] + ["a", "Z", "é", "\U0001f600", "\uffff"]
TOMBSTONE = Tombstone(7, 3, 1000.0)
BESIDE_ROWS = (
    "position",
    "sequence",
    "tombstones",
    "overrides",
    "pending_refetches",
    "incarnations",
    "in_sync_at",
)
"""All that goes into a snapshot beside the rows."""


def body(product_id: str, available: int = 1) -> bytes:
    return orjson.dumps({"productId": product_id, "available": available, "version": 1})


def filled(*product_ids: str) -> Catalogue:
    catalogue = Catalogue()
    catalogue.fill((i, body(i)) for i in product_ids)
    catalogue.index()
    return catalogue


def beside_rows(of: Catalogue | PointInTimeView) -> dict[str, Any]:
    return {name: copy.copy(getattr(of, name)) for name in BESIDE_ROWS}


ids = st.sampled_from(IDS)
limits = st.integers(1, 6) | st.integers(1, 60)
one_of_each = st.dictionaries(ids, st.none() | st.just(TOMBSTONE), max_size=3)


class CatalogueMachine(RuleBasedStateMachine):
    """Changes, pages, walks and views in any order, compared with a dict and its sorted keys."""

    def __init__(self) -> None:
        super().__init__()
        self.catalogue = Catalogue()
        self.model: dict[str, bytes] = {}
        self.changes = 0
        self.view: PointInTimeView | None = None
        self.at_view: dict[str, bytes] = {}
        self.beside_view: dict[str, Any] = {}
        self.taken: list[bytes] = []

    # -- changes ---------------------------------------------------------------------------

    @rule(
        rows=st.dictionaries(ids, st.none() | st.integers(0, 9), max_size=6), tombstones=one_of_each
    )
    def apply(self, rows: dict[str, int | None], tombstones: dict[str, Tombstone | None]) -> None:
        self.changes += 1
        bodies = {i: None if n is None else body(i, 10**n) for i, n in rows.items()}
        position = Position("g", self.changes)
        change = Change(
            "test", self.changes, position, bodies, tombstones, incarnations={"P-1": 1.0}
        )
        self.catalogue.apply(change)
        self.catalogue.apply(change)  # a second time it changes nothing more
        for product_id, item in bodies.items():
            self.model.pop(product_id, None)
            if item is not None:
                self.model[product_id] = item

    @rule(product_ids=st.lists(ids, max_size=8))
    def fill(self, product_ids: list[str]) -> None:
        rows = [(i, body(i, 77)) for i in product_ids]
        self.catalogue.fill(rows)
        self.model.update(rows)

    @rule(product_ids=st.lists(ids, max_size=8) | st.just(sorted(IDS)))
    def load(self, product_ids: list[str]) -> None:
        bodies = [body(i, 88) for i in product_ids]
        self.catalogue.load(product_ids, bodies)
        self.model.update(zip(product_ids, bodies, strict=True))

    @rule(product_ids=st.lists(ids, max_size=8) | st.just(sorted(IDS)))
    def add(self, product_ids: list[str]) -> None:
        rows = {i: body(i, 99) for i in product_ids if i not in self.model}
        self.catalogue.add(rows)
        self.model.update(rows)

    @rule(first=ids, count=st.integers(1, 30))
    def delete_a_run(self, first: str, count: int) -> None:
        """Whole blocks go, and others are joined."""
        self.changes += 1
        gone = [i for i in sorted(self.model) if i >= first][:count]
        self.catalogue.apply(Change("test", self.changes, rows=dict.fromkeys(gone)))
        for product_id in gone:
            del self.model[product_id]

    # -- reads -----------------------------------------------------------------------------

    def expected(self) -> list[bytes]:
        return [self.model[i] for i in sorted(self.model)]

    @rule(offset=st.integers(0, 50), limit=limits)
    def read_a_page(self, offset: int, limit: int) -> None:
        assert self.expected()[offset : offset + limit] == self.catalogue.page(offset, limit)

    @rule(product_id=ids | st.just(""), limit=limits)
    def read_a_page_after(self, product_id: str, limit: int) -> None:
        start = sum(i <= product_id for i in self.model)
        rows = self.expected()[start : start + limit]

        assert (start, rows) == self.catalogue.page_after(product_id, limit)

    @rule(limit=limits)
    def walk(self, limit: int) -> None:
        """Pages by `after` show each product once."""
        rows: list[bytes] = []
        last = ""
        while found := self.catalogue.page_after(last, limit)[1]:
            rows += found
            last = orjson.loads(found[-1])["productId"]

            assert len(rows) <= len(self.model)  # a walk that stands still has no end

        assert self.expected() == rows

    @rule(product_id=ids)
    def get(self, product_id: str) -> None:
        assert self.model.get(product_id) == self.catalogue.get(product_id)

    @rule(product_ids=st.lists(ids, max_size=8), is_sorted=st.booleans())
    def ask_for_many(self, product_ids: list[str], is_sorted: bool) -> None:
        asked = sorted({*product_ids}) if is_sorted else product_ids

        assert {i for i in asked if i in self.model} == self.catalogue.among(asked)
        assert asked == [*self.catalogue.reuse_ids(asked)]

    # -- views -----------------------------------------------------------------------------

    @precondition(lambda self: self.view is None)
    @rule()
    def begin_view(self) -> None:
        self.at_view = dict(self.model)
        self.beside_view = beside_rows(self.catalogue)
        self.taken = []
        self.view = self.catalogue.begin_view()

    @precondition(lambda self: self.view is not None)
    @rule(limit=limits)
    def read_on(self, limit: int) -> None:
        view = self.view
        assert view is not None
        rows = view.next_rows(limit)
        self.taken += rows
        if rows:
            return
        self.catalogue.end_view(view)
        self.view = None

        assert [self.at_view[i] for i in sorted(self.at_view)] == self.taken
        assert len(self.at_view) == view.count
        assert self.beside_view == beside_rows(view)

    # -- always ----------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        assert len(self.model) == len(self.catalogue)
        assert sorted(self.model) == list(self.catalogue.ids())
        assert sum(map(len, self.model.values())) == self.catalogue.bytes_held
        assert self.changes == self.catalogue.sequence


@pytest.mark.parametrize("block_rows", [1, 4, 9, BLOCK_ROWS])
def test_reads_and_views_are_those_of_a_dict(
    monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    """[D3] Whatever changes while a view is read in parts, it is the catalogue of the moment at
    which it began. Pages, walks and counts are those of a sorted dict, wherever blocks begin and
    end."""
    monkeypatch.setattr(sorted_rows, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(sorted_rows, "MANY_UPDATES", min(block_rows, 4) - 1)
    often = settings(max_examples=80, stateful_step_count=30, deadline=None, derandomize=True)
    run_state_machine_as_test(CatalogueMachine, settings=often)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("read_before", [0, 1, 2])
@pytest.mark.parametrize("product_id", ["P-0", "P-1", "P-2", "P-3", "P-35", "P-4"])
@pytest.mark.parametrize("available", [None, 9])
def test_one_change_at_every_place_of_a_view(
    limit: int, read_before: int, product_id: str, available: int | None
) -> None:
    """[D3] A product created, changed or deleted before, at or after the place that was read up
    to: the view shows it as it was."""
    catalogue = filled("P-1", "P-2", "P-3", "P-4")
    expected = list(catalogue.rows.values())
    view = catalogue.begin_view()
    rows = [row for _ in range(read_before) for row in view.next_rows(limit)]
    new = None if available is None else body(product_id, available)
    catalogue.apply(Change("events", rows={product_id: new}))
    while found := view.next_rows(limit):
        rows += found

    assert expected == rows


def test_a_view_of_a_catalogue_that_empties_is_still_whole() -> None:
    """[D3] The view keeps all rows if all are deleted."""
    catalogue = filled("P-1", "P-2", "P-3")
    view = catalogue.begin_view()
    catalogue.apply(Change("events", rows=dict.fromkeys(("P-1", "P-2", "P-3"))))

    assert [body("P-1"), body("P-2"), body("P-3")] == view.next_rows(2)
    assert [] == view.next_rows(2)


def test_a_view_does_not_show_products_that_are_added() -> None:
    """[D3] Many at once, as on the fast path of events."""
    catalogue = filled("P-1", "P-3")
    view = catalogue.begin_view()
    catalogue.add({"P-2": body("P-2"), "P-4": body("P-4")})

    assert [body("P-1"), body("P-3")] == view.next_rows(9)


def test_a_view_that_was_read_shows_nothing_more() -> None:
    """[D3] Nor does it keep what changes afterwards."""
    catalogue = filled("P-1", "P-2")
    view = catalogue.begin_view()
    view.next_rows(10)
    catalogue.apply(Change("events", rows={"P-1": None, "P-3": body("P-3")}))

    assert [] == view.next_rows(10)


def test_views_of_two_moments_are_read_side_by_side() -> None:
    """[D3] Each keeps the old rows that it has not shown; one that has ended keeps nothing."""
    catalogue = filled("P-1", "P-2")
    first = catalogue.begin_view()
    catalogue.apply(Change("events", rows={"P-1": body("P-1", 8), "P-2": None}))
    second = catalogue.begin_view()
    catalogue.apply(Change("events", rows={"P-1": body("P-1", 7), "P-3": body("P-3")}))

    assert [body("P-1"), body("P-2")] == first.next_rows(5)
    catalogue.end_view(first)
    assert catalogue.is_viewed
    assert [body("P-1", 8)] == second.next_rows(5)
    catalogue.end_view(second)
    assert not catalogue.is_viewed


def test_everything_beside_the_rows_is_of_the_same_moment() -> None:
    """[D3] [P3] A change sets it all, and a view keeps it all; a change without a position or a
    time leaves these."""
    catalogue = filled("P-1")
    first = Change(
        "events",
        1,
        Position("g", 1),
        tombstones={"P-9": TOMBSTONE},
        overrides={"P-1": Override(3, 1000.0)},
        pending_refetches={"P-1": PendingRefetch(RefetchReason.ORDER, 1002.0, 1000.0)},
        incarnations={"P-1": 1.0},
        in_sync_at=5.0,
    )
    catalogue.apply(first)
    before = beside_rows(catalogue)
    view = catalogue.begin_view()
    last = Change(
        "events",
        2,
        tombstones={"P-9": None},
        overrides={"P-1": None},
        pending_refetches={"P-1": None},
        incarnations={"P-1": 2.0},
    )
    catalogue.apply(last)

    assert before == beside_rows(view) == {name: getattr(first, name) for name in BESIDE_ROWS}
    assert beside_rows(catalogue) == {
        "position": Position("g", 1),
        "sequence": 2,
        "tombstones": {},
        "overrides": {},
        "pending_refetches": {},
        "incarnations": {"P-1": 2.0},
        "in_sync_at": 5.0,
    }


def test_a_change_applied_late_takes_no_number_back() -> None:
    """[P3] Where snapshot and journal overlap, changes are applied again: the sequence stays the
    highest."""
    catalogue = Catalogue()
    for sequence in (9, 8):
        catalogue.apply(Change("events", sequence))

    assert 9 == catalogue.sequence


def test_a_catalogue_is_dismantled_in_parts() -> None:
    """[F2] A read from then on is an error, and never shows half of it."""
    catalogue = filled(*(f"P-{number}" for number in range(PART_ROWS + 1)))
    parts = catalogue.dismantle()
    next(parts)
    for read in (lambda: catalogue.page(0, 1), lambda: catalogue.get("P-1")):
        with pytest.raises(AttributeError):
            read()

    assert 1 == len(list(parts))


def test_ids_are_held_once() -> None:
    """A replica that reuses ids holds no second string of any id that is held (promise 8)."""
    catalogue = filled("P-1", "P-3")
    held = {id(i) for i in catalogue.ids()}
    reused = catalogue.reuse_ids(["".join(("P-", str(number))) for number in range(5)])

    assert [False, True, False, True, False] == [id(i) in held for i in reused]


def test_a_large_catalogue_is_read_across_its_blocks() -> None:
    """At any offset a page is whole, even after insertions and deletions have split and joined
    blocks of the usual size."""
    catalogue = Catalogue()
    held = {f"P-{number:05d}": body(f"P-{number:05d}") for number in range(3 * BLOCK_ROWS)}
    catalogue.fill(held.items())
    between = [f"P-{BLOCK_ROWS:05d}-{number}" for number in range(2 * BLOCK_ROWS)]
    new = {i: body(i) for i in between}
    gone = sorted(held)[: BLOCK_ROWS - 10]
    catalogue.apply(Change("events", rows=new | dict.fromkeys(gone)))
    expected = [row for i, row in sorted((held | new).items()) if i not in gone]

    for offset in range(0, len(expected), 70):
        assert expected[offset : offset + 100] == catalogue.page(offset, 100)


@pytest.mark.parametrize(
    ("before", "at_most", "left"),
    [(0.0, 9, ["A", "B", "C"]), (2.0, 9, ["B", "C"]), (9.0, 9, []), (0.0, 1, ["C"])],
)
def test_tombstones_are_forgotten_if_old_or_too_many(
    before: float, at_most: int, left: list[str]
) -> None:
    """[V2] The oldest first; so are incarnations."""
    catalogue = Catalogue()
    times = {"A": 1.0, "B": 2.0, "C": 3.0}
    tombstones = {i: Tombstone(1, 1, at) for i, at in times.items()}
    catalogue.apply(Change("events", tombstones=tombstones, incarnations=times))
    catalogue.forget(before=before, at_most=at_most)

    assert left == list(catalogue.tombstones)
    assert left == list(catalogue.incarnations)


def test_a_renewed_tombstone_is_young_again() -> None:
    """[V2] A product deleted once more is remembered for ten minutes from then."""
    catalogue = Catalogue()
    tombstones = {"A": Tombstone(1, 1, 1.0), "B": Tombstone(2, 1, 2.0)}
    catalogue.apply(Change("events", tombstones=tombstones))
    catalogue.apply(Change("events", tombstones={"A": Tombstone(9, 1, 3.0)}))
    catalogue.forget(before=2.5, at_most=9)

    assert {"A": Tombstone(9, 1, 3.0)} == catalogue.tombstones
