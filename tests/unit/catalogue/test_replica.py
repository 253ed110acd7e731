"""What counts in the replica of a full sync: pages, the feed alongside, and what readers saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest

from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Installation, Replica, Verdict
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind
from store_cache.model.pages import BadRow, CataloguePage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_product
from store_cache.model.stock import StockAnswer
from tests.unit.catalogue.pretend_central import PretendCentral

NOW = 1000.0


def row(product_id: str, version: int = 1, available: int = 5, **others: Any) -> Row:
    fields = {"productId": product_id, "name": "Cup", "available": available, "version": version}
    return read_product(fields | others)


def holding(*rows: Row) -> Catalogue:
    catalogue = Catalogue()
    catalogue.fill((r.product_id, r.body) for r in rows)
    return catalogue


def begin(held: Catalogue | None = None, *, same_generation: bool = True) -> Replica:
    return Replica(held=held, same_generation=same_generation, now=NOW, grace_seconds=2.0)


def finish(
    replica: Replica,
    *,
    pending: dict[str, PendingRefetch] | None = None,
    tombstones: dict[str, Tombstone] | None = None,
) -> Catalogue:
    return replica.finish(pending_refetches=pending or {}, tombstones=tombstones or {}, now=NOW)


def take_whole(replica: Replica, *rows: Row, bad: BadRow | None = None) -> Replica:
    """Take a page that is the whole catalogue."""
    page = CataloguePage(Rows.of(rows), () if bad is None else (bad,), is_whole=True)
    replica.take_page(replica.first_request(), page)
    return replica


def two_pages(replica: Replica, first: Row, second: Row) -> Replica:
    replica.take_page(replica.first_request(), CataloguePage(Rows.of([first]), next_cursor="c"))
    replica.take_page(PageRequest(1, 200, "c"), CataloguePage(Rows.of([second])))
    return replica


def events(*deeds: tuple[str, str]) -> Sequence[AnyEvent]:
    central = PretendCentral()
    for deed, product_id in deeds:
        central.does(deed, product_id)
    central.publish(NOW)
    return central.feed


def updates(count: int) -> Sequence[AnyEvent]:
    """Events of P-1 at the versions after 1."""
    return events(("create", "P-1"), *(("update", "P-1"),) * count)[1:]


def take_events(replica: Replica, happened: Sequence[AnyEvent]) -> None:
    replica.take_events(happened, position=Position("g", len(happened)), now=NOW)


def in_doubt(replica: Replica) -> list[str]:
    return sorted(replica.in_doubt())


def version_of(catalogue: Catalogue) -> int:
    version: int = orjson.loads(catalogue.rows["P-1"])["version"]
    return version


def reason_of(catalogue: Catalogue) -> RefetchReason | None:
    pending = catalogue.pending_refetches.get("P-1")
    return None if pending is None else pending.reason


# -- pages and events of one product -----------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "shown", "to_refetch"),
    [
        (row("P-1", 6, 9), row("P-1", 6, 9), []),
        (row("P-1", 5, 9), row("P-1", 5, 9), []),
        (row("P-1", 4, 9), row("P-1", 5, 1), ["P-1"]),
    ],
    ids=["newer", "same version", "older"],
)
def test_of_a_product_on_two_pages_the_later_row_counts(
    later: Row, shown: Row, to_refetch: list[str]
) -> None:
    """[V3] Unless it is older: then the product is refetched."""
    replica = two_pages(begin(), row("P-1", 5, 1), later)

    assert to_refetch == in_doubt(replica)
    assert shown.body == replica.catalogue.get("P-1")


@pytest.mark.parametrize("version", [2, 3])
def test_a_late_page_does_not_bring_a_deleted_product_back(version: int) -> None:
    """[V3] A page from before a deletion that the replica knows: the product is refetched, and is
    not in the replica until then."""
    replica = begin()
    take_events(replica, events(("create", "P-1"), ("update", "P-1"), ("delete", "P-1")))
    take_whole(replica, row("P-1", version))

    assert ["P-1"] == in_doubt(replica)
    assert replica.catalogue.get("P-1") is None


def test_a_late_page_does_not_undo_an_event() -> None:
    """[V3] Of an older version on a page and an event's row, the event's stays, and the product is
    refetched."""
    replica = begin()
    take_events(replica, events(("create", "P-1"), ("update", "P-1")))
    take_whole(replica, row("P-1", 1))

    assert ["P-1"] == in_doubt(replica)
    assert 2 == version_of(replica.catalogue)
    assert reason_of(finish(replica))


def test_no_version_is_lowered_by_one_page() -> None:
    """[V3] [F5] If a page shows an older version than the held one, that stays, and the product is
    refetched at once. What the refetch says counts."""
    catalogue = finish(take_whole(begin(holding(row("P-1", 7))), row("P-1", 6)))

    assert row("P-1", 7).body == catalogue.get("P-1")
    assert PendingRefetch(RefetchReason.UNREADABLE, NOW, NOW) == catalogue.pending_refetches["P-1"]
    assert {} == catalogue.overrides


def test_an_event_settles_what_a_page_lowered() -> None:
    """[V3] The page was only late: an event has brought the held version."""
    replica = take_whole(begin(holding(row("P-1", 2))), row("P-1", 1))
    take_events(replica, updates(1))

    assert [] == in_doubt(replica)


def test_versions_of_another_generation_do_not_count() -> None:
    """[V3] After Central was replaced, lower versions are the truth at once."""
    replica = begin(holding(row("P-1", 7)), same_generation=False)
    take_whole(replica, row("P-1", 2))

    assert [] == in_doubt(replica)
    assert row("P-1", 2).body == finish(replica).get("P-1")


def test_rows_that_did_not_change_are_shared() -> None:
    """[F2] The replica holds the same bytes object as the held catalogue: a full sync does not cost
    the catalogue's memory twice."""
    held = holding(row("P-1", 7))

    assert held.get("P-1") is take_whole(begin(held), row("P-1", 7)).catalogue.get("P-1")


def test_a_product_of_which_only_a_late_update_tells_is_refetched() -> None:
    """[V2] It was deleted before its page was read, and an update was published late."""
    replica = take_whole(begin(), row("P-2"))
    take_events(replica, updates(1))

    assert ["P-1"] == in_doubt(replica)
    assert reason_of(finish(replica))


def test_a_product_of_which_only_a_late_update_tells_does_not_take_readers_back() -> None:
    """[V2] They have seen the next incarnation: that stays until the refetch."""
    replica = take_whole(begin(holding(row("P-1", 1))), row("P-2"))
    take_events(replica, updates(1))
    catalogue = finish(replica)

    assert (1, RefetchReason.CROSSED) == (version_of(catalogue), reason_of(catalogue))


@pytest.mark.parametrize(
    ("head", "offset", "to_refetch"),
    [(30, 12, ["P-1"]), (30, 130, ["P-1"]), (30, 131, []), (None, 131, ["P-1"])],
    ids=["before the page", "perhaps before it", "after it", "unknown"],
)
def test_a_creation_that_the_pages_should_have_shown_is_refetched(
    head: int | None, offset: int, to_refetch: list[str]
) -> None:
    """[V2] The product was deleted before the pages were read, and Central had numbered that event
    before the creation. Creations while pages are read cause no refetch."""
    replica = begin()
    page = CataloguePage(Rows.of([row("P-2")]), is_whole=True, event_offset=head)
    replica.take_page(replica.first_request(), page)
    take_events(replica, [Event(offset, Kind.CREATED, "P-1", 1, row("P-1").body, None)])

    assert to_refetch == in_doubt(replica)


@pytest.mark.parametrize(("offset", "to_refetch"), [(210, ["P-1"]), (211, [])])
def test_pages_that_name_no_head_are_as_old_as_the_first_event(
    offset: int, to_refetch: list[str]
) -> None:
    """[V2] The feed is followed from a little before their head, here from offset 10."""
    replica = take_whole(begin(), row("P-2"))
    update = Event(10, Kind.UPDATED, "P-2", 2, row("P-2", 2).body, None)
    take_events(replica, [update, Event(offset, Kind.CREATED, "P-1", 1, row("P-1").body, None)])

    assert to_refetch == in_doubt(replica)


def test_the_head_of_the_pages_is_that_of_the_first_one() -> None:
    """[V2] What was created while they were read may be on none of them."""
    replica = begin()
    first = CataloguePage(Rows.of([row("P-2")]), next_cursor="c", event_offset=30)
    replica.take_page(replica.first_request(), first)
    second = CataloguePage(Rows.of([row("P-3")]), event_offset=200)
    replica.take_page(PageRequest(1, 200, "c"), second)
    take_events(replica, [Event(150, Kind.CREATED, "P-1", 1, row("P-1").body, None)])

    assert [] == in_doubt(replica)


def test_an_update_before_its_page_needs_no_refetch() -> None:
    """[F2] The feed alongside often tells of products whose pages are still to come."""
    replica = begin()
    take_events(replica, updates(1))
    take_whole(replica, row("P-1", 2))

    assert [] == in_doubt(replica)


# -- rows that cannot be read ------------------------------------------------------------------


def test_an_unreadable_row_is_refetched() -> None:
    """[F5] As soon as the replica is installed. A row without an id cannot be refetched; the other
    rows of its page count."""
    replica = take_whole(begin(), bad=BadRow("P-1", "version is -1"))

    assert ["P-1"] == in_doubt(replica)
    assert RefetchReason.UNREADABLE is reason_of(finish(replica))

    replica = take_whole(begin(), row("P-1"), bad=BadRow(None, "version is -1"))

    assert [] == in_doubt(replica)
    assert ["P-1"] == list(finish(replica).ids())


@pytest.mark.parametrize("same_generation", [True, False])
def test_a_product_that_cannot_be_read_stays_as_it_was(same_generation: bool) -> None:
    """[F5] The held row is kept until it was refetched. Events are applied to it."""
    replica = begin(holding(row("P-1", 7)), same_generation=same_generation)
    take_whole(replica, bad=BadRow("P-1", "version is -1"))
    catalogue = finish(replica)

    assert row("P-1", 7).body == catalogue.get("P-1")
    assert RefetchReason.UNREADABLE is reason_of(catalogue)
    assert {} == catalogue.overrides


def test_products_that_cannot_be_read_are_not_missing() -> None:
    """[F5] A catalogue is not refused for rows that are only unreadable."""
    held = holding(row("P-1"), row("P-2"), row("P-3"))
    page = CataloguePage(
        Rows.of([row("P-1")]), (BadRow("P-2", "bad"), BadRow("P-3", "bad")), is_whole=True
    )
    replica = begin(held)
    replica.take_page(replica.first_request(), page)

    assert replica.judge(Installation(Position("g", 1)), least_percent=50).accepted


@pytest.mark.parametrize(("same_generation", "version"), [(True, 7), (False, 2)])
def test_of_contradicting_rows_the_fresher_one_is_kept_within_a_generation(
    same_generation: bool, version: int
) -> None:
    """[V3] Of the held row and those on pages, the highest version counts, but no row of a Central
    that was replaced."""
    replica = begin(holding(row("P-1", 7)), same_generation=same_generation)
    two_pages(replica, row("P-1", 2), row("P-1", 1))

    assert version == version_of(finish(replica))


# -- what readers saw during the full sync -----------------------------------------------------

SOLD = StockAnswer("P-1", 6, 7, 3, "2024-01-15T10:30:00Z")


@pytest.mark.parametrize(
    ("paged", "version", "available", "reason"),
    [
        (row("P-1", 6), 7, 3, None),
        (row("P-1", 7, 4), 7, 4, None),
        (row("P-1", 9, 1), 9, 1, None),
        (row("P-1", 4), 7, 3, RefetchReason.CROSSED),
    ],
    ids=["at the version sent", "at the answer's", "beyond it", "before it"],
)
def test_answers_are_applied_to_the_replica(
    paged: Row, version: int, available: int, reason: RefetchReason | None
) -> None:
    """[F4] A till that was told of its sale sees it after the full sync too."""
    replica = take_whole(begin(), paged)
    replica.answers.append(SOLD)
    catalogue = finish(replica)
    shown = orjson.loads(catalogue.rows["P-1"])

    assert (version, available) == (shown["version"], shown["available"])
    assert reason == reason_of(catalogue)


def test_an_answer_creates_no_product() -> None:
    """[W6] Not in the replica either: the product is refetched."""
    replica = begin()
    replica.answers.append(SOLD)
    catalogue = finish(replica)

    assert ({}, RefetchReason.CROSSED) == (catalogue.rows, reason_of(catalogue))


def overridden(since: float) -> Catalogue:
    held = holding(row("P-1", 7, 3))
    held.apply(Change("reading", overrides={"P-1": Override(7, since)}))
    return held


@pytest.mark.parametrize("is_paged", [True, False])
def test_an_override_outlives_the_full_sync(is_paged: bool) -> None:
    """[F2] What a refetch showed after the replica last followed the feed, or of a product whose
    creation the replica has not reached, stays. The product is refetched at once."""
    replica = begin(overridden(NOW))
    if is_paged:
        take_whole(replica, row("P-1", 6))
    catalogue = finish(replica)

    assert row("P-1", 7, 3).body == catalogue.get("P-1")
    assert {"P-1": Override(7, NOW)} == catalogue.overrides
    assert RefetchReason.CROSSED is reason_of(catalogue)


def test_an_event_before_the_page_begins_no_incarnation() -> None:
    """[V3] [F2] The feed alongside may be ahead of the pages: an event of a held product begins no
    incarnation, so an override stays, and nothing else is refetched."""
    replica = begin(overridden(NOW))
    take_events(replica, updates(1))
    take_whole(replica, row("P-1", 2))
    catalogue = finish(replica)

    assert row("P-1", 7, 3).body == catalogue.get("P-1")
    assert {} == catalogue.incarnations
    assert RefetchReason.CROSSED is reason_of(catalogue)


def test_an_override_that_the_feed_has_passed_stays_until_a_refetch() -> None:
    """[F4] The replica has another state than readers saw of their own sale, a newer one as it
    seems. It may be of the incarnation before, so Central is asked."""
    held = holding(row("P-1", 2, 4))
    held.apply(Change("answer", overrides={"P-1": Override(2, NOW)}))
    catalogue = finish(take_whole(begin(held), row("P-1", 3, 1)))

    assert row("P-1", 2, 4).body == catalogue.get("P-1")
    assert RefetchReason.CROSSED is reason_of(catalogue)


def test_an_override_that_the_replica_has_needs_no_refetch() -> None:
    """[F4] Both show the same."""
    catalogue = finish(take_whole(begin(overridden(NOW)), row("P-1", 7, 3)))

    assert ({}, {}) == (catalogue.overrides, catalogue.pending_refetches)


def test_an_override_from_before_the_full_sync_does_not_count() -> None:
    """[V3] What the pages show does."""
    replica = take_whole(begin(overridden(NOW - 1)), row("P-1", 8))

    assert row("P-1", 8).body == finish(replica).get("P-1")


def test_an_override_may_be_of_the_incarnation_before_the_replicas() -> None:
    """[V2] [V3] The feed created the product during the full sync, and a refetch showed version 7,
    of this incarnation or of the one before. What readers saw stays until a refetch."""
    replica = take_whole(begin(overridden(NOW)))
    take_events(replica, events(("create", "P-1")))
    catalogue = finish(replica)

    assert (7, RefetchReason.CROSSED) == (version_of(catalogue), reason_of(catalogue))


def test_a_product_that_a_refetch_found_absent_is_refetched() -> None:
    """[V2] The page showed it all the same, since the feed had lost the deletion."""
    held = holding()
    held.apply(Change("reading", overrides={"P-1": Override(0, NOW)}))
    replica = take_whole(begin(held), row("P-1"))
    catalogue = finish(replica, tombstones={"P-1": Tombstone(0, 0, NOW)})

    assert ({}, RefetchReason.CROSSED) == (catalogue.rows, reason_of(catalogue))


def test_tombstones_incarnations_and_pending_refetches_outlive_the_full_sync() -> None:
    """[V2] A deletion or creation just before it still identifies late events, and a refetch
    requested during it is still to be done."""
    held = holding(row("P-2"))
    held.apply(Change("events", incarnations={"P-1": NOW - 1, "P-2": NOW - 2}))
    tombstone = Tombstone(4, 7, NOW - 1)
    pending = {"P-2": PendingRefetch(RefetchReason.ORDER, NOW + 1, NOW)}
    catalogue = finish(
        take_whole(begin(held), row("P-2")),
        pending=pending,
        tombstones={"P-1": tombstone, "P-2": tombstone},
    )

    assert {"P-1": tombstone} == catalogue.tombstones
    assert {"P-1": NOW - 1, "P-2": NOW - 2} == catalogue.incarnations
    assert pending == catalogue.pending_refetches


# -- judging -----------------------------------------------------------------------------------


def rows(count: int, start: int = 0) -> Iterable[Row]:
    return (row(f"P-{number:03}") for number in range(start, count))


def judge(
    replica: Replica, *, accept: bool = False, agreed: int | None = None, percent: int = 50
) -> Verdict:
    finish(replica)
    installation = Installation(Position("g", 1), accept=accept, agreed_products=agreed)
    return replica.judge(installation, least_percent=percent)


@pytest.mark.parametrize(
    ("held", "found", "accepted"),
    [(100, 50, True), (100, 49, False), (100, 0, False), (0, 0, True), (1, 0, False), (3, 2, True)],
)
def test_a_catalogue_that_lost_half_is_refused(held: int, found: int, accepted: bool) -> None:
    """[F5] Fewer than half of the held products are not believed, unless none was held."""
    replica = take_whole(begin(holding(*rows(held))), *rows(found))

    assert accepted is judge(replica).accepted


def test_the_first_catalogue_is_believed() -> None:
    """[F5] There is nothing to compare it with."""
    assert judge(begin()).accepted


@pytest.mark.parametrize(
    ("found", "agreed", "accepted"),
    [
        (40, None, False),
        (40, 40, True),
        (40, 41, False),
        (40, 0, False),
        (100, 101, True),
        (100, 98, False),
    ],
)
def test_a_second_full_sync_that_agrees_is_believed(
    found: int, agreed: int | None, accepted: bool
) -> None:
    """[F5] The same number of products as the refused one found, within a hundredth."""
    replica = take_whole(begin(holding(*rows(300))), *rows(found))

    assert accepted is judge(replica, agreed=agreed).accepted


@pytest.mark.parametrize("unreadable", [0, 3, 10])
def test_a_second_full_sync_is_compared_with_products_in_doubt(unreadable: int) -> None:
    """[F5] What the first one found is counted like what the second one finds, also if some rows
    cannot be read: two that are the same agree."""

    def reading() -> Replica:
        replica = begin(holding(*rows(100)))
        bad = tuple(BadRow(f"P-{number:03}", "too large") for number in range(unreadable))
        page = CataloguePage(Rows.of(rows(40, unreadable)), bad, is_whole=True)
        replica.take_page(replica.first_request(), page)
        return replica

    first = reading().judge(Installation(Position("g", 1)), least_percent=50)
    second = Installation(Position("g", 1), agreed_products=first.found)

    assert not first.accepted
    assert reading().judge(second, least_percent=50).accepted


def test_an_admin_may_accept_it() -> None:
    """[F5] By `?accept=true`; and a refusal says so."""
    replica = take_whole(begin(holding(*rows(100))), *rows(1))
    problem = judge(replica).problem

    assert judge(replica, accept=True).accepted
    assert "1 products where 100 are held" in problem
    assert "?accept=true" in problem


@pytest.mark.parametrize(
    ("held", "found", "accepted"), [((0, 100), (60, 100), True), ((60, 100), (60, 75), False)]
)
def test_deletions_on_the_feed_explain_what_is_missing(
    held: tuple[int, int], found: tuple[int, int], accepted: bool
) -> None:
    """[F5] Of 100 held products the feed deleted 60, so that 40 are all that there should be. If
    the held catalogue followed the feed too, it has lost them already, and 15 of 40 are too few."""
    names = [r.product_id for r in rows(60)]
    happened = events(*(("create", i) for i in names), *(("delete", i) for i in names))
    replica = begin(holding(*rows(held[1], held[0])))
    take_events(replica, happened[60:])
    take_whole(replica, *rows(found[1], found[0]))

    assert accepted is judge(replica).accepted


def test_deletions_of_other_products_explain_nothing() -> None:
    """[F5] A product that comes and goes many times explains nothing about others."""
    flapping = events(*((deed, "Q") for _ in range(100) for deed in ("create", "delete")))
    replica = begin(holding(*rows(100)))
    take_events(replica, flapping)

    assert not judge(take_whole(replica, *rows(30))).accepted


@pytest.mark.parametrize(("percent", "accepted"), [(0, True), (10, True), (11, False)])
def test_the_share_is_a_setting(percent: int, accepted: bool) -> None:
    """[F5] `SNAPSHOT_MIN_PERCENT`."""
    replica = take_whole(begin(holding(*rows(100))), *rows(10))

    assert accepted is judge(replica, percent=percent).accepted
