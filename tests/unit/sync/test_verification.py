"""What verification compares, by itself: digests that are wound back, shares, fields, laps."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import store_cache.catalogue.row_hash as row_hash_module
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.observer import ChangeSource, Origin, VisibleChange
from store_cache.catalogue.row_hash import MODULUS, bucket_count, bucket_of, row_hash
from store_cache.model.change import Change
from store_cache.model.digest import Digest
from store_cache.model.event import Event, Kind
from store_cache.model.pages import BadRow, CataloguePage, PageRequest
from store_cache.model.product import Row, Rows
from store_cache.sync.verification import comparison
from store_cache.sync.verification.changes import MOST_RECENT, RECENT_SECONDS, RecentChanges
from store_cache.sync.verification.comparison import (
    differing_fields,
    differing_products,
    is_another_catalogue,
)
from store_cache.sync.verification.findings import (
    ALARM_SECONDS,
    RECENT,
    Findings,
    Mismatch,
    VerificationState,
)
from store_cache.sync.verification.lap import LIMIT, Lap
from store_cache.sync.verification.removals import RemovalLimit
from store_cache.sync.verification.schedule import Schedule

BUCKETS = 256


def body(product_id: str, **attributes: object) -> bytes:
    return orjson.dumps({"productId": product_id, "name": "", "available": 1} | attributes)


def sums(rows: dict[str, bytes], offset: int) -> Digest:
    """The digest of these rows, from its definition."""
    counts, totals = [0] * BUCKETS, [0] * BUCKETS
    for product_id, row in rows.items():
        counts[bucket_of(product_id, BUCKETS)] += 1
        totals[bucket_of(product_id, BUCKETS)] += row_hash(row)
    return Digest(offset, counts, [total % MODULUS for total in totals])


class Shelf:
    """A catalogue with its digest, changed as the writer changes it."""

    def __init__(self, products: int) -> None:
        self.catalogue = Catalogue()
        self.catalogue.apply(Change("", rows={f"P{n}": body(f"P{n}") for n in range(products)}))
        self.digest = CatalogueDigest()
        self.digest.begin(self.catalogue)

    def change(
        self, rows: dict[str, bytes | None], source: ChangeSource, offsets: list[int]
    ) -> None:
        old = {product_id: self.catalogue.get(product_id) for product_id in rows}
        self.catalogue.apply(Change("", rows=rows))
        events = [Event(o, Kind.UPDATED, next(iter(rows)), 1, b"", b"") for o in offsets]
        origin = Origin(source, events=events)
        self.digest.changed(self.catalogue, VisibleChange(origin, rows, old))

    def hash_all(self) -> None:
        while not self.digest.is_hashed:
            self.digest.hash_some(3)


STEP = st.tuples(
    st.sampled_from(["set", "remove", "answer"]), st.integers(0, 12), st.integers(0, 5)
)


@given(st.lists(STEP, max_size=30), st.integers(0, 30))
def test_the_digest_is_wound_back_to_an_offset(steps: list[tuple[str, int, int]], at: int) -> None:
    """It equals that of the rows as they were, but for buckets that are named as unclear."""
    shelf = Shelf(8)
    shelf.hash_all()
    shelf.digest.keep_changes()
    states, answered = [dict(shelf.catalogue.rows)], set[str]()
    for what, number, quantity in steps:
        product_id = f"P{number}"
        row = None if what == "remove" else body(product_id, available=quantity)
        if what == "answer":
            shelf.change({product_id: row}, ChangeSource.WRITE, [])
            answered.add(product_id)
        else:
            shelf.change({product_id: row}, ChangeSource.EVENT, [len(states)])
            states.append(dict(shelf.catalogue.rows))
    shelf.hash_all()
    at = min(at, len(states) - 1)

    ours, unclear = shelf.digest.at(at + 1, BUCKETS)

    expected = sums(states[at], at + 1)
    assert unclear == {bucket_of(product_id, BUCKETS) for product_id in answered}
    for bucket in set(range(BUCKETS)) - unclear:
        assert (ours.rows[bucket], ours.sums[bucket]) == (
            expected.rows[bucket],
            expected.sums[bucket],
        )


def test_a_batch_that_reaches_over_the_offset_is_unclear() -> None:
    shelf = Shelf(3)
    shelf.hash_all()
    shelf.digest.keep_changes()
    shelf.change({"P1": body("P1", available=9)}, ChangeSource.EVENT, [4, 5])
    shelf.hash_all()
    assert shelf.digest.at(5, BUCKETS)[1] == {bucket_of("P1", BUCKETS)}
    assert shelf.digest.at(6, BUCKETS)[1] == set()
    assert shelf.digest.at(4, BUCKETS)[1] == set()


def test_a_catalogue_that_is_replaced_is_hashed_where_it_differs() -> None:
    shelf = Shelf(4)
    shelf.hash_all()
    new = Catalogue()
    new.apply(Change("", rows=dict(shelf.catalogue.rows) | {"P2": body("P2", available=7)}))
    shelf.digest.replaced(shelf.catalogue, new)
    shelf.digest.changed(
        new,
        VisibleChange(
            Origin(ChangeSource.FULL_SYNC),
            {"P2": new.rows["P2"]},
            {"P2": shelf.catalogue.rows["P2"]},
        ),
    )
    shelf.digest.hash_some(1)
    assert shelf.digest.is_hashed
    assert shelf.digest.at(1, BUCKETS)[0] == sums(dict(new.rows), 1)


def test_a_reset_has_everything_hashed_anew() -> None:
    """An observer that missed a change knows no row any more."""
    shelf = Shelf(3)
    shelf.hash_all()
    shelf.digest.reset()
    assert not shelf.digest.is_hashed
    shelf.hash_all()
    assert shelf.digest.at(1, BUCKETS)[0] == sums(dict(shelf.catalogue.rows), 1)
    CatalogueDigest().reset()


def test_a_catalogue_that_outgrows_its_sums_is_hashed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed since a comparison began is still wound back then."""
    monkeypatch.setattr(row_hash_module, "FEWEST_BUCKETS", 1)
    monkeypatch.setattr(row_hash_module, "ROWS_PER_BUCKET", 1)
    shelf = Shelf(1)
    shelf.hash_all()
    shelf.digest.keep_changes()
    for offset in range(BUCKETS):
        shelf.change({f"N{offset}": body(f"N{offset}")}, ChangeSource.EVENT, [offset])
    before = dict(shelf.catalogue.rows)
    assert BUCKETS == bucket_count(len(before))
    shelf.change({"N0": body("N0", available=7)}, ChangeSource.EVENT, [BUCKETS])
    assert not shelf.digest.is_hashed
    shelf.hash_all()
    assert shelf.digest.at(BUCKETS, BUCKETS) == (sums(before, BUCKETS), set())


def test_unsettled_buckets_are_not_counted() -> None:
    ours, theirs = Digest(1, [1, 1, 1, 0], [1, 2, 3, 0]), Digest(1, [1, 1, 1, 1], [1, 9, 9, 5])
    compared = comparison.compare(ours, theirs, unsettled={0, 2})
    assert compared.differing == {1: (1, 2, 1, 9), 3: (0, 0, 1, 5)}
    assert (compared.buckets, compared.unsettled, compared.rows) == (4, {0, 2}, 2)


def test_rows_are_those_of_the_side_that_has_more() -> None:
    ours, theirs = Digest(1, [1, 0], [1, 0]), Digest(1, [1, 40], [1, 7])
    assert comparison.compare(ours, theirs, unsettled=set()).rows == 41


@pytest.mark.parametrize(
    ("differing", "rows", "is_other"), [(0, 0, False), (1, 4, False), (16, 64, False), (2, 7, True)]
)
def test_a_quarter_of_the_rows_is_another_catalogue(
    differing: int, rows: int, is_other: bool
) -> None:
    assert is_another_catalogue(differing=differing, rows=rows) == is_other


def test_products_that_differ_are_named_and_unreadable_ones_are_not() -> None:
    held = {"A": body("A"), "B": body("B"), "C": body("C"), "E": body("E", price=1.0)}
    given = {"A": body("A"), "B": body("B", available=2), "D": body("D"), "E": body("E", price=1)}
    assert differing_products(held, given, ["C"]) == ["B", "D"]


def test_fields_that_differ() -> None:
    assert differing_fields(body("A", price=1), body("A", price=2, size=3)) == ["price", "size"]
    assert differing_fields(None, body("A")) == ["productId", "name", "available"]


def test_a_lap_ends_and_says_what_no_page_has_shown() -> None:
    lap = Lap(0.0)
    first = lap.request()
    assert first == PageRequest(0, LIMIT)
    page = CataloguePage(Rows.of([Row("A", 1, 1, b"{}")]), (BadRow("B", "why"),), has_more=True)
    assert lap.take(first, page) == 2
    assert lap.request() == PageRequest(2, LIMIT)
    assert [False] == [lap.is_over]
    lap.take(lap.request(), CataloguePage(Rows.of(()), has_more=False))
    assert lap.is_over
    assert lap.unseen(["A", "B", "C"]) == ["C"]


def test_an_empty_page_ends_a_lap_if_central_does_not_say_whether_there_is_more() -> None:
    lap = Lap(0.0)
    lap.take(lap.request(), CataloguePage(Rows.of([Row("A", 1, 1, b"{}")])))
    assert not lap.is_over
    lap.take(lap.request(), CataloguePage(Rows.of(())))
    assert lap.is_over


@pytest.mark.parametrize(
    ("products", "interval", "due"), [(9_600, 900, 100), (9_600, 90_000, 9_600), (0, 900, 1)]
)
def test_a_part_of_a_lap_is_counted_in_products(products: int, interval: int, due: int) -> None:
    """Central may give fewer in a page than it is asked for."""
    given = Lap.products_due(products=products, interval_seconds=interval, lap_seconds=86_400)
    assert given == due


def test_runs_are_planned_with_jitter() -> None:
    draws = iter([0.0, 1.0, 0.5])
    schedule = Schedule(900.0, lambda: next(draws))
    schedule.begin(100.0)
    assert schedule.due_at == 100.0 + 900.0 * 0.9
    schedule.bring_forward(100.0)
    assert schedule.due_at == 105.0
    schedule.retry(10.0)
    assert schedule.due_at == 10.0 + 45.0


def test_a_run_after_a_break_is_put_off_to_its_minute_and_not_dropped() -> None:
    schedule = Schedule(900.0, lambda: 0.5)
    schedule.begin(0.0)
    schedule.note_return(1.0)
    assert schedule.due_at == 900.0  # nothing was broken
    schedule.note_break(10.0)
    schedule.note_return(11.0)
    assert schedule.due_at == 12.5
    schedule.begin(12.5)
    schedule.note_break(20.0)
    schedule.note_break(24.0)
    schedule.note_return(25.0)
    assert schedule.due_at == 72.5
    schedule.note_return(30.0)
    assert schedule.due_at == 72.5


def test_after_a_long_break_a_run_is_due_at_once() -> None:
    """The stores of a chain do not return all at the same time."""
    schedule = Schedule(900.0, lambda: 0.5)
    schedule.begin(0.0)
    schedule.note_break(10.0)
    schedule.note_return(40.0)
    assert schedule.due_at == 40.0


def test_removals_add_up_over_the_day() -> None:
    limit = RemovalLimit(50)
    assert limit.allows(5, held=10, now=0.0)
    assert not limit.allows(6, held=10, now=0.0)
    for hour in range(3):
        limit.note(hour * 3600.0)
    assert limit.allows(2, held=7, now=80_000.0)
    assert not limit.allows(3, held=7, now=80_000.0)
    assert limit.allows(3, held=7, now=86_400.0 + 7200.0)


def test_removals_add_up_over_a_lap_that_is_longer_than_a_day() -> None:
    limit = RemovalLimit(50)
    limit.since = -1.0
    for _ in range(6):
        limit.note(0.0)
    assert not limit.allows(1, held=5, now=200_000.0)
    assert limit.allows(0, held=5, now=200_000.0)
    limit.since = 1.0
    assert limit.allows(1, held=5, now=200_000.0)


def test_recent_changes_are_bounded_and_the_latest_come_first() -> None:
    times = [0.0]
    changes = RecentChanges(lambda: times[0])
    shelf = Shelf(1)

    def tell(source: ChangeSource, *ids: str) -> None:
        rows = {product_id: body(product_id) for product_id in ids}
        changes.changed(shelf.catalogue, VisibleChange(Origin(source), rows, dict.fromkeys(ids)))

    tell(ChangeSource.EVENT, "old")
    times[0] = 1.0 + RECENT_SECONDS
    tell(ChangeSource.EVENT, "A", "B")
    tell(ChangeSource.WRITE, "A")
    tell(ChangeSource.FULL_SYNC, "F")
    assert changes.lately() == ["A", "B"]
    times[0] += RECENT_SECONDS
    assert changes.lately() == ["A", "B"]
    for number in range(MOST_RECENT + 5):
        tell(ChangeSource.EVENT, f"P{number}")
    assert len(changes.lately()) == MOST_RECENT
    assert changes.lately()[0] == f"P{MOST_RECENT + 4}"
    changes.replaced(shelf.catalogue, shelf.catalogue)
    assert changes.lately() == []


def test_a_product_that_an_event_names_is_touched_although_no_row_changed() -> None:
    changes = RecentChanges(lambda: 0.0)
    shelf = Shelf(1)
    changes.watch(["A", "B", "C"])
    event = Event(1, Kind.UPDATED, "A", 1, b"", b"")
    changes.changed(
        shelf.catalogue, VisibleChange(Origin(ChangeSource.EVENT, events=[event]), {}, {})
    )
    origin = Origin(ChangeSource.REFETCH)
    changes.changed(shelf.catalogue, VisibleChange(origin, {"B": body("B")}, {"B": None}))
    assert [True, True, False] == [changes.is_touched(product_id) for product_id in "ABC"]
    changes.watch(["A"])
    assert not changes.is_touched("A")


def test_findings_count_alarm_and_forget() -> None:
    findings = Findings()
    time_only = Mismatch("A", ["lastUpdated"], b"1", b"2", 5.0, is_repaired=True)
    findings.note(time_only)
    assert (findings.mismatches, findings.only_times, findings.alarm(6.0)) == (0, 1, "")
    for number in range(RECENT + 5):
        findings.note(Mismatch(f"P{number}", ["price"], b"1", b"2", 10.0, is_repaired=True))
    assert (findings.mismatches, findings.repaired, len(findings.recent)) == (105, 105, RECENT)
    assert findings.alarm(10.0 + ALARM_SECONDS - 1).endswith("lately 'P102', 'P103', 'P104'")
    assert findings.alarm(10.0 + ALARM_SECONDS) == ""
    found = Mismatch("P1", ["price"], b"1", b"3", 11.0, is_repaired=False)
    findings.note(found)
    findings.note(replace(found, at=12.0))
    assert (findings.mismatches, findings.repaired) == (106, 105)
    findings.note(replace(found, at=13.0, is_repaired=True))
    assert (findings.mismatches, findings.repaired, len(findings.recent)) == (106, 106, RECENT)
    findings.note(Mismatch("P2", ["price"], b"1", b"3", 14.0, is_repaired=False))
    findings.note(Mismatch("P0", ["price"], b"1", b"3", 14.0, is_repaired=False))
    assert (findings.mismatches, len(findings.recent)) == (108, RECENT)
    findings.note_end(VerificationState.EQUAL, 20.0, None)
    assert (findings.state, findings.last_run, findings.last_equal) == ("equal", 20.0, 20.0)
