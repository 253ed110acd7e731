"""What verification compares, by itself: digests that are wound back, shares, fields, laps."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.catalogue.observer import ChangeSource, Origin, VisibleChange
from store_cache.catalogue.row_hash import MODULUS, bucket_of, row_hash
from store_cache.model.change import Change
from store_cache.model.digest import Digest
from store_cache.model.event import Event, Kind
from store_cache.model.pages import BadRow, CataloguePage, PageRequest
from store_cache.model.product import Row, Rows
from store_cache.sync.verification.comparison import (
    compare,
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
        while self.digest.unhashed:
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
    assert shelf.digest.unhashed == 1
    shelf.hash_all()
    assert shelf.digest.at(1, BUCKETS)[0] == sums(dict(new.rows), 1)


def test_unsettled_buckets_are_not_counted() -> None:
    ours, theirs = Digest(1, [1, 1, 1, 0], [1, 2, 3, 0]), Digest(1, [1, 1, 1, 1], [1, 9, 9, 5])
    compared = compare(ours, theirs, unsettled={2})
    assert (compared.differing, compared.equal, compared.rows) == ({1, 3}, {0}, 2)


@pytest.mark.parametrize(
    ("differing", "rows", "is_other"), [(15, 15, False), (16, 64, False), (17, 64, True)]
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
    lap = Lap()
    assert lap.pages_due(products=10_000, interval_seconds=900, lap_seconds=86_400) == 1
    assert lap.pages_due(products=10_000, interval_seconds=86_400, lap_seconds=86_400) == 51
    first = lap.request()
    assert first == PageRequest(0, LIMIT)
    page = CataloguePage(Rows.of([Row("A", 1, 1, b"{}")]), (BadRow("B", "why"),), has_more=True)
    lap.take(first, page)
    assert lap.request() == PageRequest(2, LIMIT)
    assert [False] == [lap.is_over]
    lap.take(lap.request(), CataloguePage(Rows.of(()), has_more=False))
    assert lap.is_over
    assert lap.unseen(["A", "B", "C"]) == ["C"]


def test_findings_count_alarm_and_forget() -> None:
    findings = Findings()
    time_only = Mismatch("A", ["lastUpdated"], b"1", b"2", 5.0, is_repaired=True)
    findings.note(time_only)
    assert (findings.mismatches, findings.only_times, findings.alarm(6.0)) == (0, 1, "")
    for number in range(RECENT + 5):
        findings.note(Mismatch(f"P{number}", ["price"], b"1", b"2", 10.0, is_repaired=True))
    assert (findings.mismatches, findings.repaired, len(findings.recent)) == (105, 105, RECENT)
    assert "'P104'" in findings.alarm(10.0 + ALARM_SECONDS - 1)
    assert findings.alarm(10.0 + ALARM_SECONDS) == ""
    findings.note_end(VerificationState.EQUAL, 20.0, None)
    assert (findings.state, findings.last_run, findings.last_equal) == ("equal", 20.0, 20.0)
