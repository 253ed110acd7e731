"""What the simulation found in the store, one small test for each."""

from __future__ import annotations

import pytest

from store_cache.catalogue.apply import (
    ABSENT_VERSION,
    apply_answer,
    apply_answer_figures,
    apply_events,
    apply_refetch,
)
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.catalogue.replica import Replica
from store_cache.model.change import Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import Event, Kind
from store_cache.model.pages import CataloguePage
from store_cache.model.position import Position
from store_cache.model.product import Row, Rows, read_row, version_of
from store_cache.model.stock import StockAnswer

NOW = 1_700_000_000.0
GRACE_SECONDS = 2.0
ORDER, CROSSED = RefetchReason.ORDER, RefetchReason.CROSSED
UNREADABLE = RefetchReason.UNREADABLE


def row(version: int, available: int) -> Row:
    return read_row(b'{"productId":"P","available":%d,"version":%d}' % (available, version))


def event(kind: Kind, offset: int, version: int, available: int) -> Event:
    body = None if kind is Kind.DELETED else row(version, available).body
    return Event(offset, kind, "P", version, body, f"f{offset}")


def change_set_of(catalogue: Catalogue, seconds_ago: float = 0.0) -> ChangeSet:
    return ChangeSet(catalogue, now=NOW - seconds_ago, grace_seconds=GRACE_SECONDS)


def holding(version: int, available: int, *, overridden: bool = False) -> Catalogue:
    catalogue = Catalogue()
    catalogue.fill([("P", row(version, available).body)])
    catalogue.position = Position("g-1", 10, "f9")
    if overridden:
        change_set = change_set_of(catalogue, 30)
        change_set.add_override("P", version)
        catalogue.apply(change_set.to_change("reading"))
    return catalogue


def found_absent(catalogue: Catalogue, seconds_ago: float) -> Catalogue:
    """The catalogue after a refetch found the product absent."""
    change_set = change_set_of(catalogue, seconds_ago)
    change_set.delete("P", offset=0, version=0)
    catalogue.apply(change_set.to_change("reading"))
    return catalogue


def with_events(catalogue: Catalogue, *events: Event) -> Catalogue:
    change_set = change_set_of(catalogue)
    apply_events(change_set, events)
    catalogue.apply(change_set.to_change("events"))
    return catalogue


def refetch(
    catalogue: Catalogue, found: Row | None, reason: RefetchReason = RefetchReason.CONFLICT
) -> None:
    change_set = change_set_of(catalogue)
    known = KnownState.of(catalogue, "P")
    assert apply_refetch(change_set, "P", found, known=known, reason=reason)
    catalogue.apply(change_set.to_change("reading"))


def replicating(held: Catalogue, paged: Row, *, uncertain: bool = False) -> Replica:
    """A replica with a row. `uncertain`: it is not known of which incarnation."""
    replica = Replica(held=held, same_generation=True, now=NOW, grace_seconds=GRACE_SECONDS)
    replica.catalogue.fill([("P", paged.body)])
    if uncertain:
        replica.catalogue.pending_refetches["P"] = PendingRefetch(ORDER, NOW + 2, NOW)
    return replica


def installed(replica: Replica, held: Catalogue) -> Catalogue:
    return replica.finish(pending_refetches={}, tombstones=held.tombstones, now=NOW)


def shown(catalogue: Catalogue) -> tuple[bytes | None, RefetchReason]:
    """The row that readers see, and why the product is refetched."""
    return catalogue.get("P"), catalogue.pending_refetches["P"].reason


def test_the_next_version_of_an_ended_incarnation_does_not_undo_a_refetch() -> None:
    """[V1] A store that was behind has refetched the product's new incarnation at version 2.
    Version 3 of the ended one, still to come on the feed, looks like the next."""
    made = with_events(holding(2, 50, overridden=True), event(Kind.UPDATED, 10, 3, 99))

    assert (row(2, 50).body, ORDER) == shown(made)


def test_a_creation_of_another_incarnation_does_not_drop_an_override() -> None:
    """[W7] The override is at version 1, as every creation is."""
    events = event(Kind.CREATED, 10, 1, 99), event(Kind.UPDATED, 11, 2, 98)
    made = with_events(holding(1, 50, overridden=True), *events)

    assert row(1, 50).body == made.get("P")
    assert "P" in made.overrides


def test_a_late_creation_does_not_undo_the_version_that_a_page_showed() -> None:
    """[V1] The page of a full sync showed version 2; the creation was numbered after it."""
    made = with_events(holding(2, 50), event(Kind.CREATED, 10, 1, 99))

    assert (row(2, 50).body, ORDER) == shown(made)


def test_an_uncertain_replica_does_not_lower_what_readers_saw_meanwhile() -> None:
    """[V3] The held catalogue followed the feed to version 9. The replica could not put the events
    in order and is at 7: version 9 stays until the refetch."""
    held = holding(9, 50)

    assert (row(9, 50).body, CROSSED) == shown(
        installed(replicating(held, row(7, 60), uncertain=True), held)
    )


def test_a_product_found_absent_does_not_come_back_by_an_older_incarnation() -> None:
    """[V2] The store is behind: it has found the product absent, and the feed goes on with the
    incarnations that had ended by then."""
    events = (
        event(Kind.DELETED, 10, 8, 0),
        event(Kind.CREATED, 11, 1, 99),
        event(Kind.UPDATED, 12, 2, 98),
    )

    assert (None, ORDER) == shown(with_events(found_absent(holding(5, 50), 30), *events))


@pytest.mark.parametrize("version", [3, 4], ids=["the same version", "a higher version"])
def test_a_replica_of_the_incarnation_before_does_not_hide_a_refetch(version: int) -> None:
    """[F4] [V3] The replica has followed the feed to its end, and waits for a connection that
    hangs. A refetch shows the product's next incarnation at version 3 meanwhile, whose events are
    still to come: with the replica's row they would show versions 1 and 2 once more."""
    held = holding(version, 24)
    replica = replicating(held, row(version, 24))
    refetch(held, row(3, 486))
    catalogue = installed(replica, held)

    assert (row(3, 486).body, CROSSED) == shown(catalogue)

    events = (
        event(Kind.DELETED, 10, version + 1, 0),
        event(Kind.CREATED, 11, 1, 324),
        event(Kind.UPDATED, 12, 2, 486),
    )

    assert row(3, 486).body == with_events(catalogue, *events).get("P")


def test_a_replica_does_not_bring_back_a_product_found_absent() -> None:
    """[F4] [V2] Refetches during the full sync showed version 6, and then that the product is
    absent. The replica, which waits for a connection that hangs, is at version 4."""
    held = holding(4, 24)
    replica = replicating(held, row(4, 24))
    refetch(held, row(6, 20))
    refetch(held, None)
    catalogue = installed(replica, held)

    assert (None, CROSSED) == shown(catalogue)
    assert catalogue.tombstones["P"].from_refetch


@pytest.mark.parametrize("found", [row(10, 117), None], ids=["there again", "absent"])
def test_a_product_found_absent_is_refetched_once_more(found: Row | None) -> None:
    """[W7] Central deleted the product, a refetch said so, and Central was restored, under its own
    name, to where it had it: the feed never tells of a deletion, nor of anything else."""
    held = holding(10, 117)
    refetch(held, None)

    assert Override(ABSENT_VERSION, NOW) == held.overrides["P"]

    refetch(held, found, RefetchReason.AHEAD)

    assert (found and found.body) == held.get("P")
    assert (found is not None) == ("P" in held.overrides)


@pytest.mark.parametrize(
    ("held", "paged", "late", "reason"),
    [
        # It goes on where the held catalogue stands; only the jump from the page's version tells
        # that there are two incarnations.
        (row(8, 262), row(1, 86), event(Kind.UPDATED, 10, 9, 265), CROSSED),
        # Readers have seen the earlier incarnation at version 13, and the page's since.
        (row(6, 10), row(6, 10), event(Kind.UPDATED, 10, 12, 82), ORDER),
    ],
)
def test_a_late_event_of_an_incarnation_before_the_pages_shows_nothing(
    held: Row, paged: Row, late: Event, reason: RefetchReason
) -> None:
    """[V2] The page showed an incarnation whose creation lies before the events that the replica
    follows; an event of the incarnation before was numbered late."""
    catalogue = holding(held.version, held.available)
    replica = replicating(catalogue, paged)
    replica.take_events((late,), position=Position("g-1", 11, "f10"), now=NOW)

    assert (held.body, reason) == shown(installed(replica, catalogue))


@pytest.mark.parametrize("overridden", [False, True], ids=["by the feed", "by a refetch"])
def test_an_uncertain_replica_does_not_hide_the_next_incarnation(overridden: bool) -> None:
    """[F4] [V3] The held catalogue is at a lower version, of the next incarnation. It saw events
    that the replica could not put in order, or a refetch before the full sync."""
    held = holding(1, 141, overridden=overridden)

    assert (row(1, 141).body, CROSSED) == shown(
        installed(replicating(held, row(12, 383), uncertain=True), held)
    )


def test_a_late_event_of_an_incarnation_that_a_refetch_found_ended_shows_nothing() -> None:
    """[V2] [V3] The page's lower version was refetched and confirmed: a new incarnation. The late
    event is numbered after that."""
    held = holding(8, 262)
    replica = Replica(held=held, same_generation=True, now=NOW, grace_seconds=GRACE_SECONDS)
    page = CataloguePage(Rows.of([row(1, 86)]), is_whole=True)
    replica.take_page(replica.first_request(), page)
    catalogue = installed(replica, held)
    before = shown(catalogue)
    refetch(catalogue, row(1, 86), UNREADABLE)
    made = with_events(catalogue, event(Kind.UPDATED, 10, 9, 265))

    assert (row(8, 262).body, UNREADABLE) == before
    assert (row(1, 86).body, ORDER) == shown(made)


def test_a_late_deletion_of_the_incarnation_before_does_not_undo_a_refetch() -> None:
    """[V2] A refetch showed version 2 of the next incarnation. Its own event comes first, then the
    deletion and the creation before it, both numbered late: if the row were deleted, the creation
    would show version 1."""
    events = (
        event(Kind.UPDATED, 10, 2, 453),
        event(Kind.DELETED, 11, 5, 0),
        event(Kind.CREATED, 12, 1, 72),
    )

    assert (row(2, 453).body, ORDER) == shown(
        with_events(holding(2, 453, overridden=True), *events)
    )


def test_a_late_event_of_the_incarnation_before_does_not_continue_the_next() -> None:
    """[V1] [V2] Numbered after the end of its incarnation and the beginning of the next, it has the
    very version that comes next there."""
    made = with_events(
        holding(3, 376), event(Kind.DELETED, 10, 4, 0), event(Kind.CREATED, 11, 1, 277)
    )

    assert (row(1, 277).body, ORDER) == shown(with_events(made, event(Kind.UPDATED, 12, 2, 498)))


def test_an_uncertain_replica_does_not_bring_back_what_the_feed_deleted() -> None:
    """[F4] [V2] The held catalogue followed a new incarnation to its end. The replica, which saw it
    begin right after another one, could not put its versions and its deletion in order."""
    held = with_events(holding(6, 490), event(Kind.DELETED, 10, 7, 0))
    catalogue = installed(replicating(held, row(1, 364), uncertain=True), held)

    assert (None, CROSSED) == shown(catalogue)
    assert held.tombstones["P"] == catalogue.tombstones["P"]


def test_an_uncertain_replica_does_not_bring_back_what_was_absent_before_it_began() -> None:
    """[F4] [V2] A refetch before the full sync found the product absent, at version 25. An answer
    that was long under way would be applied to the replica's row."""
    held = found_absent(holding(25, 212), 3)
    replica = replicating(held, row(13, 498), uncertain=True)
    replica.answers.append(StockAnswer("P", sent_version=23, new_version=24, new_quantity=323))

    assert (None, CROSSED) == shown(installed(replica, held))


@pytest.mark.parametrize(
    ("offset", "expected"), [(109, row(2, 258)), (110, row(4, 274))], ids=["near", "far"]
)
def test_a_late_event_is_told_by_its_offset_in_a_backlog_too(offset: int, expected: Row) -> None:
    """[V2] A limit lets the store fetch a few events every second or two: those of a tenth of a
    second at Central are further apart here than the grace."""
    catalogue = holding(2, 258)
    catalogue.tombstones["P"] = Tombstone(offset=9, version=6, at=NOW - 30)
    catalogue.incarnations["P"] = NOW - 30
    with_events(catalogue, event(Kind.UPDATED, offset, 4, 274))

    assert (expected.body, ORDER) == shown(catalogue)


@pytest.mark.parametrize(("sent_seconds_ago", "version"), [(24.0, 1), (0.5, 3)])
def test_an_answer_brings_no_incarnation_back_that_ended_since_it_was_sent(
    sent_seconds_ago: float, version: int
) -> None:
    """[W6] [V2] The outcome was unknown; the feed has brought the product's next incarnation since.
    A repeat is answered for the one before, and the product cannot be refetched now."""
    catalogue = holding(1, 2)
    catalogue.incarnations["P"] = NOW - 1.0
    change_set = change_set_of(catalogue)
    apply_answer_figures(
        change_set, StockAnswer("P", 2, 3, new_quantity=498, age_seconds=sent_seconds_ago)
    )
    catalogue.apply(change_set.to_change("answer"))
    body, reason = shown(catalogue)

    assert (version, CROSSED) == (version_of(body or b""), reason)


@pytest.mark.parametrize(
    ("row_at", "answer_at", "version"),
    [
        ("2024-01-15T10:30:00.500Z", "2024-01-15T10:30:01Z", 8),
        ("2024-01-15T10:30:00.500Z", None, 8),
        ("yesterday", "2024-01-15T10:30:01Z", 8),
        ("2024-01-15T10:30:00", "2024-01-15T10:30:01Z", 8),
        ("2024-01-15T10:30:01.500Z", "2024-01-15T10:30:01Z", 7),
    ],
)
def test_a_first_answer_that_central_gives_once_more_brings_no_incarnation_back(
    row_at: str, answer_at: str | None, version: int
) -> None:
    """[W6] Seeds 92002261 and 95000052: the store had lost its keys with its disk, or another node
    had sold, and the next incarnation was at the version that was sent. By Central's own times the
    answer is from before the row: it is refetched, and not shown if that fails."""
    catalogue = Catalogue()
    body = b'{"productId":"P","available":4,"version":7,"lastUpdated":"%b"}' % row_at.encode()
    catalogue.fill([("P", read_row(body).body)])
    catalogue.position = Position("g-1", 10, "f9")
    answer = StockAnswer("P", 7, 8, new_quantity=3, last_updated=answer_at)
    change_set = change_set_of(catalogue)

    assert (version == 8) is apply_answer(change_set, answer)

    change_set = change_set_of(catalogue)
    apply_answer_figures(change_set, answer)
    catalogue.apply(change_set.to_change("answer"))

    assert version == version_of(catalogue.rows["P"])
