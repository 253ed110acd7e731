"""What an event, an answer or a refetch does to a product that the catalogue knows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from store_cache.catalogue.apply import (
    CROSSING_SECONDS,
    NAMELESS,
    TOMBSTONE_SECONDS,
    apply_answer,
    apply_answer_figures,
    apply_events,
    apply_refetch,
)
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.model.change import (
    Change,
    Override,
    RefetchReason,
    Tombstone,
    decode_change,
    encode_change,
)
from store_cache.model.event import AnyEvent, QuarantinedEvent, read_event
from store_cache.model.product import Row, read_product, version_of
from store_cache.model.stock import StockAnswer

NOW = 10_000.0
GRACE_SECONDS = 2.0
NAMES = {"updated": "inventory_updated", "created": "product_created", "deleted": "product_deleted"}

ABSENT = None
ORDER = RefetchReason.ORDER
NEAR, PAST, LONG_AGO, NEVER = 1.0, 30.0, TOMBSTONE_SECONDS + 1, 100_000.0


def product(version: int, **others: Any) -> dict[str, Any]:
    fields = {"productId": "P", "name": "Cup", "available": version, "version": version}
    return fields | others


def row(version: int, **others: Any) -> Row:
    return read_product(product(version, **others))


def event(kind: str, version: int, *, offset: int = 50, **others: Any) -> AnyEvent:
    value = {
        "offset": offset,
        "eventType": NAMES[kind],
        "productId": "P",
        "data": product(max(version, 1), **others),
    }
    return read_event(value | ({"version": version} if version else {}))


@dataclass(frozen=True)
class Held:
    """What is known of the product: the version of its row, the seconds since its incarnation
    changed, the version of its tombstone, and whether an override shows the row."""

    version: int | None = None
    incarnation: float = NEVER
    tombstone: int | None = None
    overridden: bool = False

    def catalogue(self) -> Catalogue:
        made = Catalogue()
        version, tombstone = self.version, self.tombstone
        made.apply(
            Change(
                "events",
                rows={} if version is None else {"P": row(version).body},
                incarnations={} if self.incarnation == NEVER else {"P": NOW - self.incarnation},
                tombstones={} if tombstone is None else {"P": Tombstone(10, tombstone, NOW - 60)},
                overrides={"P": Override(version or 0, NOW - 5)} if self.overridden else {},
            )
        )
        return made


def change_set_of(catalogue: Catalogue) -> ChangeSet:
    return ChangeSet(catalogue, now=NOW, grace_seconds=GRACE_SECONDS)


def with_events(held: Held | Catalogue, *events: AnyEvent) -> Catalogue:
    made = held.catalogue() if isinstance(held, Held) else held
    change_set = change_set_of(made)
    apply_events(change_set, events)
    made.apply(change_set.to_change("events"))
    return made


def shown(made: Catalogue) -> int | None:
    body = made.get("P")
    return None if body is None else version_of(body)


def refetched_for(made: Catalogue) -> RefetchReason | None:
    pending = made.pending_refetches.get("P")
    return None if pending is None else pending.reason


# -- events ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "version", "expected", "reason", "overridden"),
    [
        (Held(5), 4, 5, None, False),
        (Held(5), 5, 5, None, False),
        (Held(5), 6, 6, None, False),
        (Held(5), 9, 9, None, False),
        # within the grace of a creation or deletion: refetched, and no jump is shown
        (Held(5, NEAR), 4, 5, ORDER, False),
        (Held(5, NEAR), 5, 5, ORDER, False),
        (Held(5, NEAR), 6, 6, ORDER, False),
        (Held(5, NEAR), 7, 5, ORDER, False),
        # later: only a jump is refetched
        (Held(5, PAST), 4, 5, None, False),
        (Held(5, PAST), 6, 6, None, False),
        (Held(5, PAST), 7, 7, ORDER, False),
        (Held(5, LONG_AGO), 7, 7, None, False),
        # its events are near to those of the incarnation before, which were fetched long ago
        (Held(5, LONG_AGO, tombstone=3), 4, 5, ORDER, False),
        (Held(5, LONG_AGO, tombstone=3), 6, 6, ORDER, False),
        (Held(5, LONG_AGO, tombstone=3), 7, 5, ORDER, False),
        (Held(5, LONG_AGO, tombstone=7), 6, 5, ORDER, False),
        # an override: the events of its incarnation that are still to come end with its version
        (Held(5, overridden=True), 4, 5, None, True),
        (Held(5, overridden=True), 5, 5, None, False),
        (Held(5, overridden=True), 6, 5, ORDER, True),
        (Held(5, overridden=True), 7, 5, ORDER, True),
        (Held(5, NEAR, overridden=True), 4, 5, ORDER, True),
        (Held(5, NEAR, overridden=True), 6, 5, ORDER, True),
        # no row
        (Held(), 4, ABSENT, ORDER, False),
        (Held(tombstone=5), 4, ABSENT, ORDER, False),
        (Held(tombstone=5), 5, ABSENT, ORDER, False),
        (Held(tombstone=5), 6, 6, ORDER, False),
        (Held(tombstone=0), 6, ABSENT, ORDER, False),
    ],
    ids=str,
)
def test_an_update(
    held: Held, version: int, expected: int | None, reason: RefetchReason | None, overridden: bool
) -> None:
    """[V1] An update applies at a higher version or at the same one. If it may be of another
    incarnation, the product is refetched and a fresher state stays."""
    made = with_events(held, event("updated", version))

    assert (expected, reason, overridden) == (
        shown(made),
        refetched_for(made),
        "P" in made.overrides,
    )


@pytest.mark.parametrize(
    ("held", "expected", "reason", "overridden"),
    [
        (Held(), 1, None, False),
        (Held(incarnation=NEAR), 1, ORDER, False),
        (Held(incarnation=PAST), 1, None, False),
        (Held(incarnation=PAST, tombstone=6), 1, ORDER, False),
        (Held(incarnation=LONG_AGO), 1, None, False),
        # a row: a new incarnation whose deletion is still to come, or an old event
        (Held(5), 5, ORDER, False),
        (Held(5, PAST), 5, ORDER, False),
        (Held(5, NEAR), 5, ORDER, False),
        (Held(5, overridden=True), 5, ORDER, True),
        (Held(1), 1, None, False),
        (Held(1, overridden=True), 1, None, False),
    ],
    ids=str,
)
def test_a_creation(
    held: Held, expected: int, reason: RefetchReason | None, overridden: bool
) -> None:
    """[V2] A creation begins an incarnation at any version, and leaves the tombstone of the one
    before for its late events. If the product has a row, that stays until the refetch."""
    made = with_events(held, event("created", 1))

    assert (expected, reason, overridden) == (
        shown(made),
        refetched_for(made),
        "P" in made.overrides,
    )
    assert (held.tombstone is not None) == ("P" in made.tombstones)
    assert {"P": NOW} == made.incarnations


@pytest.mark.parametrize(
    ("held", "version", "expected", "reason"),
    [
        (Held(5), 6, ABSENT, None),
        (Held(5, NEAR), 6, ABSENT, ORDER),
        (Held(5, PAST), 6, ABSENT, None),
        # not the next version: perhaps of the incarnation before
        (Held(5), 5, 5, ORDER),
        (Held(5), 3, 5, ORDER),
        (Held(5), 9, 5, ORDER),
        (Held(5, NEAR), 9, 5, ORDER),
        (Held(5, NEAR), 5, 5, ORDER),
        # no version
        (Held(5), 0, ABSENT, ORDER),
        (Held(5, NEAR), 0, 5, ORDER),
        # an override: of the incarnation before
        (Held(5, overridden=True), 6, 5, ORDER),
        (Held(5, overridden=True), 9, 5, ORDER),
        (Held(5, overridden=True), 3, 5, ORDER),
    ],
    ids=str,
)
def test_a_deletion(
    held: Held, version: int, expected: int | None, reason: RefetchReason | None
) -> None:
    """[V2] A deletion ends an incarnation and leaves a tombstone of its offset and version. If its
    version is not the next one, the product is refetched, and what may be a later incarnation
    stays."""
    made = with_events(held, event("deleted", version))
    tombstones = {"P": Tombstone(50, version, NOW)} if expected is ABSENT else {}

    assert (expected, reason, tombstones) == (shown(made), refetched_for(made), made.tombstones)
    assert {"P": NOW} == made.incarnations
    assert held.overridden is ("P" in made.overrides)


@pytest.mark.parametrize(
    ("tombstone", "version", "kept"), [(None, 6, 6), (8, 6, 8), (4, 6, 6), (4, 0, 4)]
)
def test_a_deletion_without_a_row(tombstone: int | None, version: int, kept: int) -> None:
    """[V2] It leaves a tombstone all the same, of the highest version known."""
    made = with_events(Held(tombstone=tombstone), event("deleted", version))

    assert {"P": Tombstone(50, kept, NOW)} == made.tombstones
    assert {} == made.pending_refetches


@pytest.mark.parametrize(
    "happened",
    [
        [event("updated", 6)],
        [event("created", 1)],
        [event("deleted", 6)],
        [event("updated", 6, offset=50), event("updated", 6, offset=51, available=99)],
    ],
    ids=["update", "creation", "deletion", "same version twice"],
)
@pytest.mark.parametrize("held", [Held(), Held(5), Held(5, overridden=True)], ids=str)
def test_an_event_applied_twice_changes_nothing(held: Held, happened: list[AnyEvent]) -> None:
    """[P2] Events may be requested inclusively: the last ones once more leave every row as it
    is."""
    assert with_events(held, *happened).rows == with_events(held, *happened, happened[-1]).rows


@pytest.mark.parametrize(("offset", "expected", "reason"), [(110, 1, ORDER), (111, 2, None)])
def test_an_update_is_near_to_a_deletion_by_offsets_too(
    offset: int, expected: int, reason: RefetchReason | None
) -> None:
    """[V2] A backlog may be fetched much more slowly than it was published. The tombstone is of
    offset 10."""
    made = with_events(Held(1, LONG_AGO, tombstone=5), event("updated", 2, offset=offset))

    assert (expected, reason) == (shown(made), refetched_for(made))


def test_of_two_events_with_one_version_the_later_offset_counts() -> None:
    """[V1] Several events can carry the same version with different data."""
    made = with_events(Held(5), event("updated", 6), event("updated", 6, offset=51, available=99))

    assert row(6, available=99).body == made.get("P")


@pytest.mark.parametrize(("version", "expected"), [(5, 1), (1, 2)])
def test_a_product_is_deleted_and_created_within_one_batch(version: int, expected: int) -> None:
    """[V2] The new incarnation begins at version 1. An update so soon may be of the one before, and
    waits for the refetch, unless that one never came so far."""
    made = with_events(
        Held(version),
        event("deleted", version + 1),
        event("created", 1, offset=51),
        event("updated", 2, offset=52),
    )

    assert (expected, ORDER) == (shown(made), refetched_for(made))
    assert {"P": Tombstone(50, version + 1, NOW)} == made.tombstones


def test_a_refetch_for_order_is_due_after_the_grace() -> None:
    """[V2] Late events have arrived by then."""
    pending = with_events(Held(5), event("created", 1)).pending_refetches["P"]

    assert (NOW + GRACE_SECONDS, NOW) == (pending.due, pending.since)


def test_a_writes_own_event_completes_its_answer() -> None:
    """[W7] The answer moves no position and adds an override; the event sets the whole row and
    drops it."""
    made = Held(5).catalogue()
    change_set = change_set_of(made)
    apply_answer(change_set, StockAnswer("P", 5, 6, 6))
    change = change_set.to_change("answer")
    made.apply(change)

    assert (None, {"P": Override(6, NOW)}) == (change.position, made.overrides)

    with_events(made, event("updated", 6, lastUpdated="2024-01-15T10:30:00Z"))

    assert row(6, lastUpdated="2024-01-15T10:30:00Z").body == made.get("P")
    assert ({}, None) == (made.overrides, refetched_for(made))


SOLD_AT, LATER = "2024-01-15T10:30:00Z", "2024-01-15T10:30:01Z"


def test_a_writes_own_event_may_change_what_its_answer_did_not_tell() -> None:
    """[W7] A Central may count sales in the product. The answer names quantity, version and time;
    the event that has these is the write's own."""
    made = Held(5).catalogue()
    change_set = change_set_of(made)
    apply_answer(change_set, StockAnswer("P", 5, 6, 6, SOLD_AT))
    made.apply(change_set.to_change("answer"))
    with_events(made, event("updated", 6, lastUpdated=SOLD_AT, sales=1))

    assert row(6, lastUpdated=SOLD_AT, sales=1).body == made.get("P")
    assert ({}, None) == (made.overrides, refetched_for(made))


@pytest.mark.parametrize(
    "other",
    [
        {"lastUpdated": LATER, "sales": 1},
        {"lastUpdated": SOLD_AT, "available": 4},
        {"sales": 1},
    ],
)
def test_another_write_at_an_overrides_version_is_of_another_incarnation(
    other: dict[str, Any],
) -> None:
    """[V1] The product was deleted, created again and sold as often: only the time, or else the
    quantity, tells its events from those of the earlier incarnation."""
    made = Held(5).catalogue()
    change_set = change_set_of(made)
    apply_answer(change_set, StockAnswer("P", 5, 6, 6, SOLD_AT))
    made.apply(change_set.to_change("answer"))
    told = made.get("P")
    with_events(made, event("updated", 6, **other))

    assert (told, ORDER) == (made.get("P"), refetched_for(made))


def passing(made: Catalogue, *events: AnyEvent) -> bytes:
    """Apply events that the override keeps away; return the last one's row as it is remembered."""
    with_events(made, *events)
    passed = made.overrides["P"].passed
    assert passed is not None
    return passed


@pytest.mark.parametrize("more", [{}, {"weight": 3}])
def test_a_refetch_of_what_the_feed_has_brought_overrides_nothing(more: dict[str, Any]) -> None:
    """[W7] [V2] Otherwise each further event would be taken for one of the incarnation before: a
    product that sells every second would never be shown as it is. Central may tell more of a single
    product than its events do."""
    made = Held(5, overridden=True).catalogue()
    passing(made, event("updated", 6, lastUpdated=SOLD_AT), event("updated", 7, lastUpdated=LATER))
    refetch(made, row(7, lastUpdated=LATER, **more), ORDER)

    assert row(7, lastUpdated=LATER, **more).body == made.get("P")
    assert {} == made.overrides
    with_events(made, event("updated", 8, lastUpdated="2024-01-15T10:30:02Z"))
    assert 8 == shown(made)


def test_a_refetch_that_is_ahead_of_what_was_passed_over_overrides() -> None:
    """[W7] Its own event is still to come. So it is if the event passed over was of the incarnation
    before."""
    made = Held(5, overridden=True).catalogue()
    passing(made, event("updated", 6, lastUpdated=SOLD_AT))
    refetch(made, row(6, lastUpdated=LATER), ORDER)

    assert {"P": Override(6, NOW)} == made.overrides


@pytest.mark.parametrize(("updated", "is_ahead"), [(SOLD_AT, False), (LATER, True)])
def test_a_refetch_of_the_held_write_overrides_nothing(updated: str, is_ahead: bool) -> None:
    """[W7] The feed has brought it, with fewer attributes. Another time is another incarnation."""
    made = Catalogue()
    made.fill([("P", row(5, lastUpdated=SOLD_AT).body)])
    refetch(made, row(5, lastUpdated=updated, weight=3), ORDER)

    assert row(5, lastUpdated=updated, weight=3).body == made.get("P")
    assert is_ahead == ("P" in made.overrides)


def test_an_event_passed_over_is_on_disk() -> None:
    """[D2] The next process does the refetch."""
    made = Held(5, overridden=True).catalogue()
    passed = passing(made, event("updated", 6, lastUpdated=SOLD_AT))
    override = made.overrides["P"]
    change = Change("events", overrides={"P": override})

    assert row(6, lastUpdated=SOLD_AT).body == passed
    assert {"P": override} == decode_change(orjson.loads(encode_change(change))).overrides


@pytest.mark.parametrize("other", [{"available": 4}, {"name": "Mug"}])
def test_another_state_at_an_overrides_version_is_of_another_incarnation(
    other: dict[str, Any],
) -> None:
    """[V1] The product was deleted, created again and sold: the event of the earlier incarnation
    with the same version does not undo the sale."""
    made = with_events(Held(5, overridden=True), event("updated", 5, **other))

    assert (row(5).body, ORDER) == (made.get("P"), refetched_for(made))


@pytest.mark.parametrize("held", [Held(), Held(5), Held(tombstone=5)], ids=str)
def test_a_quarantined_event_has_its_product_refetched(held: Held) -> None:
    """[E5] At once; nothing else changes until then."""
    made = with_events(held, QuarantinedEvent(50, "P", "unknown eventType 'x'", "f"))

    assert (held.version, RefetchReason.UNREADABLE) == (shown(made), refetched_for(made))
    assert NOW == made.pending_refetches["P"].due


def test_a_quarantined_event_holds_up_no_other() -> None:
    """[E5] Whether it names its product or not: then the change says that a full sync has to
    follow."""
    made = with_events(
        Held(5),
        QuarantinedEvent(48, None, "productId is missing", "f"),
        QuarantinedEvent(49, "P", "available is -1", "g"),
        event("updated", 7),
    )

    assert (7, RefetchReason.UNREADABLE) == (shown(made), refetched_for(made))
    assert NAMELESS == made.follow_up_reason


# -- answers to writes -------------------------------------------------------------------------

ANSWER = StockAnswer("P", 5, 6, 2, "2024-01-15T10:30:00Z")
ANSWERS = pytest.mark.parametrize(
    # whether the answer is shown; version and quantity then; the same if no refetch succeeds
    ("held", "is_applied", "expected", "figures"),
    [
        (Held(5), True, (6, 2), (6, 2)),
        (Held(5, CROSSING_SECONDS + 1), True, (6, 2), (6, 2)),
        (Held(6), True, (6, 6), (6, 6)),
        (Held(9), True, (9, 9), (9, 9)),
        (Held(), False, ABSENT, ABSENT),
        (Held(tombstone=5), False, ABSENT, ABSENT),
        (Held(4), False, (4, 4), (6, 2)),
        (Held(5, CROSSING_SECONDS), False, (5, 5), (6, 2)),
        (Held(9, NEAR), False, (9, 9), (9, 9)),
    ],
    ids=str,
)
Stock = tuple[int, int]


def stock(made: Catalogue) -> Stock | None:
    body = made.get("P")
    value = None if body is None else orjson.loads(body)
    return value and (value["version"], value["available"])


@ANSWERS
def test_an_applied_answer(
    held: Held, is_applied: bool, expected: Stock | None, figures: Stock | None
) -> None:
    """[W6] At the version sent, quantity and version are set; at a higher one, nothing changes.
    Without a row, after a jump, or if a creation or deletion may have crossed the write, the
    product has to be refetched. If that fails, a row still shows the answer's figures; an answer
    creates no product, and the refetch stays pending."""
    made = held.catalogue()
    change_set = change_set_of(made)

    assert is_applied is apply_answer(change_set, ANSWER)

    made.apply(change_set.to_change("answer"))

    assert (expected, {}) == (stock(made), made.pending_refetches)
    assert (expected == (6, 2)) is ("P" in made.overrides)

    made = held.catalogue()
    change_set = change_set_of(made)
    apply_answer_figures(change_set, ANSWER)
    made.apply(change_set.to_change("answer"))

    assert (figures, RefetchReason.CROSSED) == (stock(made), refetched_for(made))


OLD = 2 * CROSSING_SECONDS


@pytest.mark.parametrize(
    ("held", "age", "is_applied", "figures"),
    [
        (Held(5), CROSSING_SECONDS, True, (6, 2)),
        (Held(5), OLD, False, (6, 2)),
        (Held(5, OLD - 1), OLD, False, (5, 5)),
        (Held(4, OLD - 1), OLD, False, (4, 4)),
        (Held(5, OLD + 1), OLD, False, (6, 2)),
        (Held(6, OLD - 1), OLD, True, (6, 6)),
        (Held(5), TOMBSTONE_SECONDS + 1, False, (5, 5)),
        (Held(5), math.inf, False, (5, 5)),
    ],
    ids=str,
)
def test_an_answer_that_may_be_old_is_no_proof_of_the_row(
    held: Held, age: float, is_applied: bool, figures: Stock
) -> None:
    """[W6] An earlier sending may have been applied to an incarnation that has ended, whatever
    version the row is at: the product has to be refetched. If that fails, the figures are shown
    where it is known that no incarnation began or ended since the write was first sent."""
    answer = replace(ANSWER, age_seconds=age)
    before = stock(held.catalogue())
    made = held.catalogue()
    change_set = change_set_of(made)

    assert is_applied is apply_answer(change_set, answer)

    made.apply(change_set.to_change("answer"))

    assert stock(made) == ((6, 2) if is_applied and before == (5, 5) else before)

    made = held.catalogue()
    change_set = change_set_of(made)
    apply_answer_figures(change_set, answer)
    made.apply(change_set.to_change("answer"))

    assert (figures, RefetchReason.CROSSED) == (stock(made), refetched_for(made))


# -- refetches ---------------------------------------------------------------------------------


def refetch(
    made: Catalogue, found: Row | None, reason: RefetchReason, *, known: KnownState | None = None
) -> bool:
    change_set = change_set_of(made)
    known = known or KnownState.of(made, "P")
    is_applied = apply_refetch(change_set, "P", found, known=known, reason=reason)
    made.apply(change_set.to_change("reading"))
    return is_applied


@pytest.mark.parametrize("reason", [reason for reason in RefetchReason if reason.wins])
@pytest.mark.parametrize("version", [1, 4, 6])
def test_a_refetch_of_an_uncertain_product_wins(reason: RefetchReason, version: int) -> None:
    """[V2] Even with a lower version; the row then overrides the feed."""
    made = Held(5).catalogue()

    assert refetch(made, row(version), reason)
    assert row(version).body == made.get("P")
    assert {"P": Override(version, NOW)} == made.overrides


@pytest.mark.parametrize("reason", RefetchReason)
def test_a_refetch_may_find_the_product_absent(reason: RefetchReason) -> None:
    """[V2] [W7] It leaves a tombstone, and an override that says so."""
    made = Held(5, overridden=True).catalogue()

    assert refetch(made, None, reason)
    assert (ABSENT, {"P": Tombstone(0, 0, NOW)}) == (shown(made), made.tombstones)
    assert {"P": Override(0, NOW)} == made.overrides


@pytest.mark.parametrize("reason", RefetchReason)
def test_a_refetch_of_a_product_without_a_row(reason: RefetchReason) -> None:
    """[V2] A row begins an incarnation; absence is nothing new."""
    made = Held(tombstone=5).catalogue()

    assert refetch(made, None, reason)
    assert {"P": Tombstone(10, 5, NOW - 60)} == made.tombstones
    assert refetch(made, row(3), reason)
    assert (3, {}, {"P": NOW}) == (shown(made), made.tombstones, made.incarnations)


@pytest.mark.parametrize(
    ("version", "expected", "reason"), [(6, 6, None), (4, 5, RefetchReason.CONFLICT)]
)
def test_a_refresh_does_not_win(version: int, expected: int, reason: RefetchReason | None) -> None:
    """[E4] A lower version than the row's is an old answer, or a Central that was restored. The
    product is refetched, and that wins."""
    made = Held(5).catalogue()

    assert refetch(made, row(version), RefetchReason.REFRESH)
    assert (expected, reason) == (shown(made), refetched_for(made))


@pytest.mark.parametrize("reason", RefetchReason)
def test_a_refetch_may_confirm_the_row(reason: RefetchReason) -> None:
    """[W7] The override stays, since earlier events may still be to come. Only a refetch because
    it has lasted for 60 s drops it."""
    made = Held(5, overridden=True).catalogue()

    assert refetch(made, row(5), reason)
    assert 5 == shown(made)
    assert (reason is not RefetchReason.AHEAD) is ("P" in made.overrides)


@pytest.mark.parametrize(
    "happened",
    [
        event("updated", 6),
        event("deleted", 6),
        event("updated", 4),
        QuarantinedEvent(50, "P", "available is -1", "f"),
    ],
    ids=["update", "deletion", "update out of order", "quarantined"],
)
def test_a_refetch_counts_only_if_nothing_changed_since_it_was_sent(happened: AnyEvent) -> None:
    """[V2] Neither the row, nor the tombstone, nor the pending refetch."""
    made = Held(5, NEAR).catalogue()
    known = KnownState.of(made, "P")
    with_events(made, happened)
    before = (dict(made.rows), dict(made.pending_refetches), dict(made.tombstones))

    assert not refetch(made, row(3), RefetchReason.CONFLICT, known=known)
    assert before == (made.rows, made.pending_refetches, made.tombstones)


@pytest.mark.parametrize(
    ("found", "happened"),
    [(row(10), event("updated", 2)), (None, event("deleted", 3))],
    ids=["an update below the row", "a deletion of nothing"],
)
def test_a_refetch_that_crosses_an_event_of_another_incarnation_does_not_count(
    found: Row | None, happened: AnyEvent
) -> None:
    """[V2] Readers are shown the incarnation before, as after a full sync that left the order open,
    and the refetch is under way. An event of the next one changes nothing, and the answer may be
    from before it. That event does not come again."""
    made = Held(5).catalogue()
    refetch(made, found, RefetchReason.CONFLICT)
    change_set = ChangeSet(made, now=NOW - 5, grace_seconds=GRACE_SECONDS)
    change_set.request_refetch("P", RefetchReason.CROSSED)
    made.apply(change_set.to_change("doubt"))
    known = KnownState.of(made, "P")
    before = shown(made)
    with_events(made, happened)

    assert not refetch(made, row(1), RefetchReason.CROSSED, known=known)
    assert (before, RefetchReason.CROSSED) == (shown(made), refetched_for(made))


@pytest.mark.parametrize(
    ("after_seconds", "is_completed"),
    [(0.0, True), (1.0, False), (GRACE_SECONDS, False), (3600.0, True)],
)
def test_a_refetch_before_it_is_due_does_not_complete_it(
    after_seconds: float, is_completed: bool
) -> None:
    """[V2] The answer may be from before the late event. A time beyond the grace is of a clock that
    was set back."""
    made = Held(5).catalogue()
    change_set = change_set_of(made)
    change_set.request_refetch("P", ORDER, after_seconds=after_seconds)
    made.apply(change_set.to_change("doubt"))

    assert refetch(made, row(6), RefetchReason.REFRESH)
    assert (6, None if is_completed else ORDER) == (shown(made), refetched_for(made))


def test_a_refresh_does_not_replace_a_pending_refetch_that_wins() -> None:
    """[V2] A till's conflict asks for a product that is uncertain already."""
    made = with_events(Held(5), event("created", 1))
    change_set = change_set_of(made)
    change_set.request_refetch("P", RefetchReason.REFRESH)
    made.apply(change_set.to_change("doubt"))

    assert ORDER is refetched_for(made)
