"""Held state by event, answer or reading: what is shown, what is marked, ahead and owed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from store_cache.catalogue.apply import (
    CROSSING_SECONDS,
    TOMBSTONE_SECONDS,
    apply_answer,
    apply_answer_figures,
    apply_events,
    apply_refetch,
)
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.model.change import Change, Override, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, QuarantinedEvent, read_event
from store_cache.model.product import Row, read_product, version_of
from store_cache.model.stock import StockAnswer

NOW = 10_000.0
GRACE_SECONDS = 2.0
NAMES = {"updated": "inventory_updated", "created": "product_created", "deleted": "product_deleted"}

GONE = None
NEVER = 100_000.0


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
    """What is known of the product: version held, seconds since its life changed, the version of
    its mark, whether it is ahead of the feed."""

    version: int | None = None
    life: float = NEVER
    tombstone: int | None = None
    is_ahead: bool = False


def catalogue(held: Held) -> Catalogue:
    made = Catalogue()
    version = held.version
    made.apply(
        Change(
            "events",
            rows={} if version is None else {"P": row(version).body},
            incarnations={} if held.life == NEVER else {"P": NOW - held.life},
            tombstones={}
            if held.tombstone is None
            else {"P": Tombstone(10, held.tombstone, NOW - 60)},
            overrides={"P": Override(version or 0, NOW - 5)} if held.is_ahead else {},
        )
    )
    return made


def change_set_over(held: Held | Catalogue) -> ChangeSet:
    base = catalogue(held) if isinstance(held, Held) else held
    return ChangeSet(base, now=NOW, grace_seconds=GRACE_SECONDS)


def lay(held: Held, *events: AnyEvent) -> Catalogue:
    made = catalogue(held)
    change_set = change_set_over(made)
    apply_events(change_set, events)
    made.apply(change_set.to_change("events"))
    return made


def shown(made: Catalogue) -> int | None:
    body = made.get("P")
    return None if body is None else version_of(body)


def owed(made: Catalogue) -> RefetchReason | None:
    entry = made.pending_refetches.get("P")
    return None if entry is None else entry.reason


ORDER = RefetchReason.ORDER
NEAR, PAST, LONG_AGO = 1.0, 30.0, TOMBSTONE_SECONDS + 1


# -- events ------------------------------------------------------------------------------------

UPDATES = [
    # held, version of the event -> version shown, owed, still ahead
    (Held(5), 4, 5, None, False),
    (Held(5), 5, 5, None, False),
    (Held(5), 6, 6, None, False),
    (Held(5), 9, 9, None, False),
    # within the grace of a creation or deletion: in doubt, and no jump
    (Held(5, NEAR), 4, 5, ORDER, False),
    (Held(5, NEAR), 5, 5, ORDER, False),
    (Held(5, NEAR), 6, 6, ORDER, False),
    (Held(5, NEAR), 7, 5, ORDER, False),
    # later: a jump alone is in doubt
    (Held(5, PAST), 4, 5, None, False),
    (Held(5, PAST), 6, 6, None, False),
    (Held(5, PAST), 7, 7, ORDER, False),
    (Held(5, LONG_AGO), 7, 7, None, False),
    # ahead of the feed: the events of this life that are still to come end with its own
    (Held(5, is_ahead=True), 4, 5, None, True),
    (Held(5, is_ahead=True), 5, 5, None, False),
    (Held(5, is_ahead=True), 6, 5, ORDER, True),
    (Held(5, is_ahead=True), 7, 5, ORDER, True),
    (Held(5, NEAR, is_ahead=True), 4, 5, ORDER, True),
    (Held(5, NEAR, is_ahead=True), 6, 5, ORDER, True),
    # not held
    (Held(), 4, None, ORDER, False),
    (Held(tombstone=5), 4, GONE, ORDER, False),
    (Held(tombstone=5), 5, GONE, ORDER, False),
    (Held(tombstone=5), 6, 6, ORDER, False),
    (Held(tombstone=0), 6, GONE, ORDER, False),
]


@pytest.mark.parametrize(("held", "version", "expected", "reason", "is_ahead"), UPDATES, ids=str)
def test_an_update(
    held: Held, version: int, expected: int | None, reason: RefetchReason | None, is_ahead: bool
) -> None:
    """[V1] An update applies at a higher version, or at the same one; what looks like one of
    another life is in doubt, and never undoes a fresher state."""
    made = lay(held, event("updated", version))

    assert (expected, reason, is_ahead) == (shown(made), owed(made), "P" in made.overrides)


CREATIONS = [
    (Held(), 1, None, False),
    (Held(life=NEAR), 1, ORDER, False),
    (Held(life=PAST), 1, None, False),
    (Held(life=PAST, tombstone=6), 1, ORDER, False),
    (Held(life=LONG_AGO), 1, None, False),
    # held already: a new life whose deletion is to come, or an old event behind a fresher state
    (Held(5), 5, ORDER, False),
    (Held(5, PAST), 5, ORDER, False),
    (Held(5, NEAR), 5, ORDER, False),
    (Held(5, is_ahead=True), 5, ORDER, True),
    (Held(1), 1, None, False),
    (Held(1, is_ahead=True), 1, None, False),
]


@pytest.mark.parametrize(("held", "expected", "reason", "is_ahead"), CREATIONS, ids=str)
def test_a_creation(
    held: Held, expected: int, reason: RefetchReason | None, is_ahead: bool
) -> None:
    """[V2] A creation starts a new life, whatever its version, and leaves the mark of the one
    before for its late events; of a product held it is in doubt, and what is held stays until the
    product was read."""
    made = lay(held, event("created", 1))

    assert (expected, reason, is_ahead) == (shown(made), owed(made), "P" in made.overrides)
    assert (held.tombstone is not None) == ("P" in made.tombstones)
    assert {"P": NOW} == made.incarnations


DELETIONS = [
    (Held(5), 6, GONE, None),
    (Held(5, NEAR), 6, GONE, ORDER),
    (Held(5, PAST), 6, GONE, None),
    # not the next version: perhaps of the life before
    (Held(5), 5, 5, ORDER),
    (Held(5), 3, 5, ORDER),
    (Held(5), 9, 5, ORDER),
    (Held(5, NEAR), 9, 5, ORDER),
    (Held(5, NEAR), 5, 5, ORDER),
    # no version
    (Held(5), 0, GONE, ORDER),
    (Held(5, NEAR), 0, 5, ORDER),
    # ahead of the feed: of the life before
    (Held(5, is_ahead=True), 6, 5, ORDER),
    (Held(5, is_ahead=True), 9, 5, ORDER),
    (Held(5, is_ahead=True), 3, 5, ORDER),
]


@pytest.mark.parametrize(("held", "version", "expected", "reason"), DELETIONS, ids=str)
def test_a_deletion(
    held: Held, version: int, expected: int | None, reason: RefetchReason | None
) -> None:
    """[V2] A deletion ends a life and leaves a mark of its offset and version; where its version
    is not the next one it is in doubt, and what may be a later life stays."""
    made = lay(held, event("deleted", version))
    marks = {"P": Tombstone(50, version, NOW)} if expected is GONE else {}

    assert (expected, reason, marks) == (shown(made), owed(made), made.tombstones)
    assert {"P": NOW} == made.incarnations
    assert held.is_ahead is ("P" in made.overrides)


@pytest.mark.parametrize(
    ("tombstone", "version", "kept"), [(None, 6, 6), (8, 6, 8), (4, 6, 6), (4, 0, 4)]
)
def test_a_deletion_of_what_is_not_held(tombstone: int | None, version: int, kept: int) -> None:
    """[V2] It is remembered all the same, with the highest version known."""
    made = lay(Held(tombstone=tombstone), event("deleted", version))

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
@pytest.mark.parametrize("held", [Held(), Held(5), Held(5, is_ahead=True)], ids=str)
def test_an_event_applied_twice_changes_nothing(held: Held, happened: list[AnyEvent]) -> None:
    """[P2] Asking inclusively is safe: the last events once more leave every row as it is."""
    once, twice = lay(held, *happened), lay(held, *happened, happened[-1])

    assert once.rows == twice.rows


def test_of_two_events_with_one_version_the_later_offset_counts() -> None:
    """[V1] Several events can carry the same version with different data."""
    made = lay(Held(5), event("updated", 6), event("updated", 6, offset=51, available=99))

    assert row(6, available=99).body == made.get("P")


def test_a_product_comes_and_goes_within_one_batch() -> None:
    """[V2] Deleted and created again in one step: the new life, from version 1. What follows so
    soon may be of the life before, and waits for the reading, unless that never came so far."""
    happened = [
        event("deleted", 6),
        event("created", 1, offset=51),
        event("updated", 2, offset=52),
    ]
    made = lay(Held(5), *happened)

    assert (1, ORDER, {"P": Tombstone(50, 6, NOW)}) == (shown(made), owed(made), made.tombstones)

    made = lay(Held(1), event("deleted", 2), *happened[1:])

    assert (2, ORDER) == (shown(made), owed(made))


def test_a_doubt_of_order_is_read_after_the_grace() -> None:
    """[V2] Afterwards: what is late has come by then."""
    entry = lay(Held(5), event("created", 1)).pending_refetches["P"]

    assert (NOW + GRACE_SECONDS, NOW) == (entry.due, entry.since)


def test_an_answers_own_event_completes_it() -> None:
    """[W7] The row becomes the event's, and the product is back in line."""
    made = catalogue(Held(5))
    change_set = change_set_over(made)
    apply_answer(change_set, StockAnswer("P", 5, 6, 6))
    made.apply(change_set.to_change("answer"))

    assert {"P": Override(6, NOW)} == made.overrides

    change_set = change_set_over(made)
    apply_events(change_set, [event("updated", 6, lastUpdated="2024-01-15T10:30:00Z")])
    made.apply(change_set.to_change("events"))

    assert row(6, lastUpdated="2024-01-15T10:30:00Z").body == made.get("P")
    assert ({}, None) == (made.overrides, owed(made))


@pytest.mark.parametrize("other", [{"available": 4}, {"name": "Mug"}])
def test_another_state_at_the_answers_version_is_another_life(other: dict[str, Any]) -> None:
    """[V1] The product was deleted and created again, and sold in the new life: the old life's
    event with the same version number does not undo that."""
    made = lay(Held(5, is_ahead=True), event("updated", 5, **other))

    assert (row(5).body, ORDER) == (made.get("P"), owed(made))


@pytest.mark.parametrize("held", [Held(), Held(5), Held(tombstone=5)], ids=str)
def test_an_event_that_was_set_aside_has_its_product_read(held: Held) -> None:
    """[E5] At once; nothing is shown differently until then."""
    made = lay(held, QuarantinedEvent(50, "P", "unknown eventType 'x'", "f"))

    assert held.version == shown(made)
    assert (RefetchReason.UNREADABLE, NOW) == (
        made.pending_refetches["P"].reason,
        made.pending_refetches["P"].due,
    )


def test_the_rest_of_a_batch_goes_on() -> None:
    """[E5] One event that cannot be read holds up nothing, whether it names its product or not."""
    made = lay(
        Held(5),
        QuarantinedEvent(48, None, "productId is missing", "f"),
        QuarantinedEvent(49, "P", "available is -1", "g"),
        event("updated", 7),
    )

    assert (7, RefetchReason.UNREADABLE) == (shown(made), owed(made))


@pytest.mark.parametrize(
    ("event_of", "doubted"),
    [
        (event("updated", 3), False),
        (event("updated", 5), False),
        (event("updated", 6), True),
        (event("created", 1), True),
        (event("deleted", 6), True),
    ],
)
def test_events_behind_unfollowed_rows_change_nothing_unread(
    event_of: AnyEvent, doubted: bool
) -> None:
    """[F2] The row is newer than its position by nobody knows how much: version 6 may be the next
    one, or of a life that had ended before the row was read. A till that saw version 5 sees it
    until Central was asked."""
    made = catalogue(Held(version=5))
    made.unfollowed_until = 51
    change_set = change_set_over(made)
    apply_events(change_set, [event_of])
    made.apply(change_set.to_change("events"))

    assert 5 == shown(made)
    assert (ORDER if doubted else None) is owed(made)


def test_an_event_of_what_unfollowed_pages_did_not_show_is_doubted() -> None:
    """[F2] It may have been deleted before its page was read."""
    made = catalogue(Held())
    made.unfollowed_until = 51
    change_set = change_set_over(made)
    apply_events(change_set, [event("updated", 6)])
    made.apply(change_set.to_change("events"))

    assert None is shown(made)
    assert ORDER is owed(made)


def test_events_behind_what_unfollowed_pages_may_reflect_count_as_ever() -> None:
    """[F2] Each page says where the feed was when it was read: what comes after the last page is
    not doubted, however long the feed could not be read."""
    made = catalogue(Held(version=5))
    made.unfollowed_until = 50
    change_set = change_set_over(made)
    apply_events(change_set, [event("updated", 6, offset=50)])
    made.apply(change_set.to_change("events"))

    assert (6, None) == (shown(made), owed(made))


# -- answers of writes -------------------------------------------------------------------------

ANSWER = StockAnswer("P", 5, 6, 2, "2024-01-15T10:30:00Z")
ANSWERS = [
    # held -> laid without reading, version and quantity shown; the same where it cannot be read
    (Held(5), True, (6, 2), (6, 2)),
    (Held(5, CROSSING_SECONDS + 1), True, (6, 2), (6, 2)),
    (Held(6), True, (6, 6), (6, 6)),
    (Held(9), True, (9, 9), (9, 9)),
    (Held(), False, GONE, GONE),
    (Held(tombstone=5), False, GONE, GONE),
    (Held(4), False, (4, 4), (6, 2)),
    (Held(5, CROSSING_SECONDS), False, (5, 5), (6, 2)),
    (Held(9, NEAR), False, (9, 9), (9, 9)),
]


def stock(made: Catalogue) -> tuple[int, int] | None:
    body = made.get("P")
    if body is None:
        return None
    value = orjson.loads(body)
    return value["version"], value["available"]


@pytest.mark.parametrize(("held", "is_laid", "expected", "_anyway"), ANSWERS, ids=str)
def test_an_applied_answer(
    held: Held, is_laid: bool, expected: tuple[int, int] | None, _anyway: object
) -> None:
    """[W6] At the version sent, quantity and version are set; at a higher one, nothing. Not held,
    a jump, or a creation or deletion that may have crossed it: not without reading it whole."""
    made = catalogue(held)
    change_set = change_set_over(made)
    laid = apply_answer(change_set, ANSWER)
    made.apply(change_set.to_change("answer"))

    assert (is_laid, expected) == (laid, stock(made))
    assert {} == made.pending_refetches
    assert (laid and held.version == 5) is ("P" in made.overrides)


@pytest.mark.parametrize(("held", "_is_laid", "_expected", "anyway"), ANSWERS, ids=str)
def test_an_answer_whose_product_cannot_be_read(
    held: Held, _is_laid: bool, _expected: object, anyway: tuple[int, int] | None
) -> None:
    """[W6] If it is held, quantity and version are set; an answer creates no product. Either way
    the reading stays owed."""
    made = catalogue(held)
    change_set = change_set_over(made)
    apply_answer_figures(change_set, ANSWER)
    made.apply(change_set.to_change("answer"))

    assert anyway == stock(made)
    assert RefetchReason.CROSSED is owed(made)


def test_an_answer_moves_no_position() -> None:
    """[W7] The cache is Central's state at its position, but for the product that is ahead."""
    change_set = change_set_over(Held(5))
    apply_answer(change_set, ANSWER)
    change = change_set.to_change("answer")

    assert change.position is None
    assert {"P": Override(6, NOW)} == change.overrides


# -- readings ----------------------------------------------------------------------------------


def read(
    made: Catalogue, reading: Row | None, reason: RefetchReason, *, known: KnownState | None = None
) -> bool:
    change_set = change_set_over(made)
    known = known or KnownState.of(made, "P")
    taken = apply_refetch(change_set, "P", reading, known=known, reason=reason)
    made.apply(change_set.to_change("reading"))
    return taken


@pytest.mark.parametrize("reason", [reason for reason in RefetchReason if reason.wins])
@pytest.mark.parametrize("version", [1, 4, 6])
def test_a_reading_for_a_doubt_wins(reason: RefetchReason, version: int) -> None:
    """[V2] Also with a lower version; the product is ahead of the feed then."""
    made = catalogue(Held(5))

    assert read(made, row(version), reason)
    assert row(version).body == made.get("P")
    assert {"P": Override(version, NOW)} == made.overrides


@pytest.mark.parametrize("reason", RefetchReason)
def test_absence_is_what_a_reading_may_say(reason: RefetchReason) -> None:
    """[V2] [W7] The product goes, leaves a mark, and is ahead of the feed by being gone."""
    made = catalogue(Held(5, is_ahead=True))

    assert read(made, None, reason)
    assert (GONE, {"P": Tombstone(0, 0, NOW)}) == (shown(made), made.tombstones)
    assert {"P": Override(0, NOW)} == made.overrides


@pytest.mark.parametrize("reason", RefetchReason)
def test_what_is_not_held_may_be_read(reason: RefetchReason) -> None:
    """[V2] The reading starts a life here; absence of what is not held says nothing new."""
    made = catalogue(Held(tombstone=5))

    assert read(made, None, reason)
    assert {"P": Tombstone(10, 5, NOW - 60)} == made.tombstones
    assert read(made, row(3), reason)
    assert (3, {}, {"P": NOW}) == (shown(made), made.tombstones, made.incarnations)


@pytest.mark.parametrize(
    ("version", "expected", "reason"), [(6, 6, None), (4, 5, RefetchReason.CONFLICT)]
)
def test_a_refresh_does_not_win(version: int, expected: int, reason: RefetchReason | None) -> None:
    """[E4] A lower version than the one held, without a doubt before: an old answer, or a Central
    that was restored. It is read again, and that row wins."""
    made = catalogue(Held(5))

    assert read(made, row(version), RefetchReason.REFRESH)
    assert (expected, reason) == (shown(made), owed(made))


@pytest.mark.parametrize("reason", RefetchReason)
def test_a_reading_that_says_what_is_held(reason: RefetchReason) -> None:
    """[W7] It changes nothing, and the product stays ahead: the events before it may be to come.
    Only the reading after 60 s of being ahead brings it back in line."""
    made = catalogue(Held(5, is_ahead=True))

    assert read(made, row(5), reason)
    assert 5 == shown(made)
    assert (reason is not RefetchReason.AHEAD) is ("P" in made.overrides)


CHANGES_MEANWHILE = {
    "an event": event("updated", 6),
    "a deletion": event("deleted", 6),
    "a doubt": event("updated", 4),
    "what cannot be read": QuarantinedEvent(50, "P", "available is -1", "f"),
}


@pytest.mark.parametrize("happened", CHANGES_MEANWHILE.values(), ids=CHANGES_MEANWHILE)
def test_a_reading_counts_only_if_nothing_changed_since_it_was_sent(happened: AnyEvent) -> None:
    """[V2] Neither the row, nor the mark, nor a doubt about it: else it is done again."""
    made = catalogue(Held(5, NEAR))
    known = KnownState.of(made, "P")
    change_set = change_set_over(made)
    apply_events(change_set, [happened])
    made.apply(change_set.to_change("events"))
    before = (dict(made.rows), dict(made.pending_refetches), dict(made.tombstones))

    assert not read(made, row(3), RefetchReason.CONFLICT, known=known)
    assert before == (made.rows, made.pending_refetches, made.tombstones)


@pytest.mark.parametrize(
    ("after_seconds", "is_settled"),
    [(0.0, True), (1.0, False), (GRACE_SECONDS, False), (3600.0, True)],
)
def test_a_doubt_is_settled_when_its_time_has_come(after_seconds: float, is_settled: bool) -> None:
    """[V2] A reading before the grace is over may be before the late event; a time beyond the
    grace is of a clock that was set back."""
    made = catalogue(Held(5))
    change_set = change_set_over(made)
    change_set.request_refetch("P", ORDER, after_seconds=after_seconds)
    made.apply(change_set.to_change("reason"))

    assert read(made, row(6), RefetchReason.REFRESH)
    assert (6, None if is_settled else ORDER) == (shown(made), owed(made))


def test_a_refresh_does_not_weaken_a_doubt() -> None:
    """[V2] What is owed for a doubt still wins after a till's conflict asked for the product."""
    made = lay(Held(5), event("created", 1))
    change_set = change_set_over(made)
    change_set.request_refetch("P", RefetchReason.REFRESH)
    made.apply(change_set.to_change("reason"))

    assert ORDER is owed(made)


_told = st.sampled_from(
    ['"', "\\", ",", ':"', ',"version":', '\\","version":', "{", "[", "version", "é"]
)
texts = st.lists(_told, max_size=5).map("".join)
values = st.recursive(
    texts | st.integers(0, 99) | st.none() | st.floats(0, 9),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            texts | st.sampled_from(["version", "available", "name"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
extras = st.dictionaries(texts | st.sampled_from(["vendor", "Version"]), values, max_size=3)


@given(texts.filter(bool), values, st.integers(1, 2**53 - 1), st.booleans(), extras)
@example("P", {"a": 1, "version": 7}, 3, True, {})
@example("P", [{"available": 1, "version": 7, "b": 1}], 3, True, {})
@example('P,"version":7,', ',"version":7,', 3, False, {})
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_version_of_a_row_is_the_product_s(
    product_id: str, name: object, version: int, ends: bool, extra: dict[str, Any]
) -> None:
    """[V1] Whatever else is in a row, and however much it looks like a version."""
    price = {} if ends else {"price": 1.5}
    own = product(version, productId=product_id, name=name) | price
    value = own | {key: item for key, item in extra.items() if key not in own}

    assert version == version_of(read_product(value).body)
