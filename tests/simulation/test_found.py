"""What the simulation found in the store, one small test for each."""

from __future__ import annotations

import pytest

from store_cache.catalogue.apply import (
    ABSENT_VERSION,
    apply_events,
    apply_refetch,
)
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.catalogue.replica import Replica
from store_cache.model.change import Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import Row, read_row
from store_cache.model.stock import StockAnswer

NOW = 1_700_000_000.0
GRACE_SECONDS = 2.0


def row(version: int, available: int) -> Row:
    return read_row(b'{"productId":"P","available":%d,"version":%d}' % (available, version))


def event(kind: Kind, offset: int, version: int, available: int) -> Event:
    body = None if kind is Kind.DELETED else row(version, available).body
    return Event(offset, kind, "P", version, body, f"f{offset}")


def held(version: int, available: int, *, is_ahead: bool) -> Catalogue:
    catalogue = Catalogue()
    catalogue.fill([("P", row(version, available).body)])
    catalogue.index()
    catalogue.position = Position("g-1", 10, "f9")
    if is_ahead:
        change_set = ChangeSet(catalogue, now=NOW - 30, grace_seconds=GRACE_SECONDS)
        change_set.add_override("P", version)
        catalogue.apply(change_set.to_change("reading"))
    return catalogue


def laid(catalogue: Catalogue, *events: Event) -> Catalogue:
    change_set = ChangeSet(catalogue, now=NOW, grace_seconds=GRACE_SECONDS)
    apply_events(change_set, events)
    catalogue.apply(change_set.to_change("events"))
    return catalogue


def read(
    catalogue: Catalogue, row: Row | None, reason: RefetchReason = RefetchReason.CONFLICT
) -> None:
    """What Central says of the product by itself."""
    change_set = ChangeSet(catalogue, now=NOW, grace_seconds=GRACE_SECONDS)
    assert apply_refetch(change_set, "P", row, known=KnownState.of(catalogue, "P"), reason=reason)
    catalogue.apply(change_set.to_change("reading"))


def copying(in_place: Catalogue, copied: Row) -> Replica:
    replica = Replica(held=in_place, same_generation=True, now=NOW, grace_seconds=GRACE_SECONDS)
    replica.catalogue.fill([("P", copied.body)])
    return replica


def placed(replica: Replica, in_place: Catalogue) -> Catalogue:
    return replica.finish(pending_refetches={}, tombstones=in_place.tombstones, now=NOW)


def test_the_next_version_of_an_ended_life_does_not_undo_a_reading() -> None:
    """[V1] A store that was behind has read the product's new life at version 2; the old life's
    version 3, still to come on the feed, looks like the next one."""
    made = laid(held(2, 50, is_ahead=True), event(Kind.UPDATED, 10, 3, 99))

    assert row(2, 50).body == made.get("P")
    assert RefetchReason.ORDER is made.pending_refetches["P"].reason


def test_a_creation_of_another_life_does_not_bring_a_product_back_in_line() -> None:
    """[W7] The life read ahead of the feed is at its version 1, as every creation is."""
    events = event(Kind.CREATED, 10, 1, 99), event(Kind.UPDATED, 11, 2, 98)
    made = laid(held(1, 50, is_ahead=True), *events)

    assert row(1, 50).body == made.get("P")
    assert "P" in made.overrides


def test_a_late_creation_does_not_undo_the_version_that_a_page_showed() -> None:
    """[V1] The page of a full sync showed version 2; the creation was numbered after it."""
    made = laid(held(2, 50, is_ahead=False), event(Kind.CREATED, 10, 1, 99))

    assert row(2, 50).body == made.get("P")
    assert RefetchReason.ORDER is made.pending_refetches["P"].reason


def test_a_copy_in_doubt_does_not_lower_what_readers_saw_meanwhile() -> None:
    """[V3] The catalogue in place followed the feed to version 9, the copy has put its events
    aside as doubtful and is at 7: version 9 stays until the product was read."""
    in_place = held(9, 50, is_ahead=False)
    replica = copying(in_place, row(7, 60))
    replica.catalogue.pending_refetches["P"] = PendingRefetch(RefetchReason.ORDER, NOW + 2, NOW)

    copy = placed(replica, in_place)

    assert row(9, 50).body == copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason


def test_what_a_reading_said_to_be_gone_does_not_come_back_by_an_older_life() -> None:
    """[V2] The store is behind: it has read that the product is gone, and the feed goes on with
    the lives that had ended by then."""
    catalogue = held(5, 50, is_ahead=False)
    change_set = ChangeSet(catalogue, now=NOW - 30, grace_seconds=GRACE_SECONDS)
    change_set.delete("P", offset=0, version=0)
    catalogue.apply(change_set.to_change("reading"))
    events = (
        event(Kind.DELETED, 10, 8, 0),
        event(Kind.CREATED, 11, 1, 99),
        event(Kind.UPDATED, 12, 2, 98),
    )
    made = laid(catalogue, *events)

    assert None is made.get("P")
    assert RefetchReason.ORDER is made.pending_refetches["P"].reason


@pytest.mark.parametrize("version", [3, 4], ids=["the same version", "a higher version"])
def test_a_copy_of_the_life_before_does_not_hide_what_a_reading_showed(version: int) -> None:
    """[F4] [V3] The copy has followed the feed to its end, and waits for a line that hangs; a
    reading shows the product's next life at version 3 meanwhile. The events of that life are still
    to come: with the copy's row they would show versions 1 and 2 of it once more."""
    in_place = held(version, 24, is_ahead=False)
    replica = copying(in_place, row(version, 24))
    read(in_place, row(3, 486))
    copy = placed(replica, in_place)

    assert row(3, 486).body == copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason

    events = (
        event(Kind.DELETED, 10, version + 1, 0),
        event(Kind.CREATED, 11, 1, 324),
        event(Kind.UPDATED, 12, 2, 486),
    )

    assert row(3, 486).body == laid(copy, *events).get("P")


def test_a_copy_does_not_bring_back_what_a_reading_said_to_be_gone() -> None:
    """[F4] [V2] Readings during the run showed version 6, and then that the product is gone; the
    copy, which waits for a line that hangs, is at version 4 of the life that readers saw end."""
    in_place = held(4, 24, is_ahead=False)
    replica = copying(in_place, row(4, 24))
    read(in_place, row(6, 20))
    read(in_place, None)
    copy = placed(replica, in_place)

    assert None is copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason
    assert copy.tombstones["P"].from_refetch


@pytest.mark.parametrize("found", [row(10, 117), None], ids=["there again", "gone"])
def test_what_a_reading_said_to_be_gone_is_asked_for_once_more(found: Row | None) -> None:
    """[W7] Central deleted the product, a reading said so, and Central was restored, under its own
    name, to where it had it: the feed never tells of a deletion, nor of anything else."""
    in_place = held(10, 117, is_ahead=False)
    read(in_place, None)

    assert Override(ABSENT_VERSION, NOW) == in_place.overrides["P"]

    read(in_place, found, RefetchReason.AHEAD)

    assert (found and found.body) == in_place.get("P")
    assert (found is not None) == ("P" in in_place.overrides)


def test_a_late_event_of_a_life_that_no_page_showed_leaves_a_doubt() -> None:
    """[V2] The page showed a life whose creation lies before the events that the copy follows; an
    event of the life before was numbered late, and goes on where the catalogue in place stands:
    nothing but the jump from what the page showed tells that they are two."""
    in_place = held(8, 262, is_ahead=False)
    replica = copying(in_place, row(1, 86))
    late = event(Kind.UPDATED, 10, 9, 265)
    replica.take_events((late,), position=Position("g-1", 11, "f10"), now=NOW)

    copy = placed(replica, in_place)

    assert row(8, 262).body == copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason


def test_a_late_event_of_a_life_that_no_page_showed_does_not_bring_it_back() -> None:
    """[V2] Readers have seen that life at version 13, and the one that the page showed since."""
    in_place = held(6, 10, is_ahead=False)
    replica = copying(in_place, row(6, 10))
    late = event(Kind.UPDATED, 10, 12, 82)
    replica.take_events((late,), position=Position("g-1", 11, "f10"), now=NOW)
    copy = placed(replica, in_place)

    assert row(6, 10).body == copy.get("P")
    assert RefetchReason.ORDER is copy.pending_refetches["P"].reason


@pytest.mark.parametrize("is_ahead", [False, True], ids=["by the feed", "by a reading"])
def test_a_copy_in_doubt_does_not_hide_the_next_life(is_ahead: bool) -> None:
    """[F4] [V3] The catalogue in place is at a lower version, of the next life: what it has seen of
    the feed, or before the run, the copy has put aside as doubtful."""
    in_place = held(1, 141, is_ahead=is_ahead)
    replica = copying(in_place, row(12, 383))
    replica.catalogue.pending_refetches["P"] = PendingRefetch(RefetchReason.ORDER, NOW + 2, NOW)
    copy = placed(replica, in_place)

    assert row(1, 141).body == copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason


def test_a_late_event_of_a_life_that_a_reading_found_to_have_ended_leaves_a_doubt() -> None:
    """[V2] [V3] The same, and the event is numbered first when the copy is in place: the lower
    version of the page was read by itself by then, and that is a life that has begun."""
    in_place = held(8, 262, is_ahead=False)
    replica = copying(in_place, row(1, 86))
    replica.apply_refetch("P", row(1, 86), known=replica.known_state("P"), now=NOW)
    copy = placed(replica, in_place)
    made = laid(copy, event(Kind.UPDATED, 10, 9, 265))

    assert row(1, 86).body == made.get("P")
    assert RefetchReason.ORDER is made.pending_refetches["P"].reason


def test_a_late_end_of_the_life_before_does_not_take_a_reading_away() -> None:
    """[V2] A reading had shown version 2 of the product's next life. Its own event comes first,
    then the end of the life before and its creation, both numbered late: with the product taken
    away, the creation would show version 1."""
    events = (
        event(Kind.UPDATED, 10, 2, 453),
        event(Kind.DELETED, 11, 5, 0),
        event(Kind.CREATED, 12, 1, 72),
    )
    made = laid(held(2, 453, is_ahead=True), *events)

    assert row(2, 453).body == made.get("P")
    assert RefetchReason.ORDER is made.pending_refetches["P"].reason


def test_a_late_event_of_the_life_before_does_not_go_on_with_the_next_one() -> None:
    """[V1] [V2] Numbered after the end of its life and the beginning of the next, it has the very
    version that comes next there."""
    events = (
        event(Kind.DELETED, 10, 4, 0),
        event(Kind.CREATED, 11, 1, 277),
        event(Kind.UPDATED, 12, 2, 498),
    )
    made = laid(laid(held(3, 376, is_ahead=False), *events[:2]), *events[2:])

    assert row(1, 277).body == made.get("P")
    assert RefetchReason.ORDER is made.pending_refetches["P"].reason


def test_a_copy_in_doubt_does_not_bring_back_what_the_feed_said_to_be_gone() -> None:
    """[F4] [V2] The catalogue in place held version 6 of a new life, and followed the feed to its
    end; the copy, which had seen that life begin right after another one, has put the versions
    after the first aside as doubtful, and so the deletion."""
    in_place = laid(held(6, 490, is_ahead=False), event(Kind.DELETED, 10, 7, 0))
    replica = copying(in_place, row(1, 364))
    replica.catalogue.pending_refetches["P"] = PendingRefetch(RefetchReason.ORDER, NOW + 2, NOW)
    copy = placed(replica, in_place)

    assert None is copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason
    assert in_place.tombstones["P"] == copy.tombstones["P"]


def test_a_copy_in_doubt_does_not_bring_back_what_was_gone_before_it_began() -> None:
    """[F4] [V2] A reading before the run said that the product is gone, at version 25. The copy is
    in doubt about events of its life; an answer that was long under way would be laid over it."""
    in_place = held(25, 212, is_ahead=False)
    change_set = ChangeSet(in_place, now=NOW - 3, grace_seconds=GRACE_SECONDS)
    change_set.delete("P", offset=0, version=0)
    in_place.apply(change_set.to_change("reading"))
    replica = copying(in_place, row(13, 498))
    replica.catalogue.pending_refetches["P"] = PendingRefetch(RefetchReason.ORDER, NOW + 2, NOW)
    late = StockAnswer("P", sent_version=23, new_version=24, new_quantity=323)
    replica.answers.append(late)
    copy = placed(replica, in_place)

    assert None is copy.get("P")
    assert RefetchReason.CROSSED is copy.pending_refetches["P"].reason


def test_a_copy_in_doubt_stays_so_though_the_product_could_not_be_read() -> None:
    """[F5] [V2] The catalogue in place has followed the feed to the product's end; the copy has put
    its last versions aside as doubtful, and Central's answer about it was garbage."""
    in_place = held(25, 391, is_ahead=False)
    replica = copying(in_place, row(13, 130))
    replica.catalogue.pending_refetches["P"] = PendingRefetch(RefetchReason.ORDER, NOW + 2, NOW)
    laid(in_place, event(Kind.DELETED, 10, 26, 0))
    replica.give_up("P", "garbage", now=NOW)

    assert (
        PendingRefetch(RefetchReason.ORDER, NOW, NOW, 1, "garbage")
        == replica.catalogue.pending_refetches["P"]
    )
    assert None is placed(replica, in_place).get("P")


@pytest.mark.parametrize(
    ("offset", "shown"), [(109, row(2, 258)), (110, row(4, 274))], ids=["near", "far"]
)
def test_a_late_event_is_told_by_its_offset_in_a_backlog_too(offset: int, shown: Row) -> None:
    """[V2] A limit lets the store fetch a few events every second or two: those of a tenth of a
    second at Central are further apart here than the grace."""
    catalogue = held(2, 258, is_ahead=False)
    catalogue.tombstones["P"] = Tombstone(offset=9, version=6, at=NOW - 30)
    catalogue.incarnations["P"] = NOW - 30
    laid(catalogue, event(Kind.UPDATED, offset, 4, 274))

    assert shown.body == catalogue.get("P")
    assert RefetchReason.ORDER is catalogue.pending_refetches["P"].reason
