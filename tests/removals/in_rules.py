"""Safeguards of what an event, an answer or a reading does to the catalogue, taken out one at a
time (rules V, W6, W7, E5).

Knows: how the product would look without each. Refuses to know: how that is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from store_cache import writer
from store_cache.catalogue import apply as rules
from store_cache.catalogue import replica
from store_cache.catalogue.apply import CROSSING_SECONDS
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.model import change as changes
from store_cache.model.change import Change, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, QuarantinedEvent
from store_cache.model.product import version_of
from store_cache.model.stock import StockAnswer
from store_cache.storage import journal
from store_cache.writer import CacheWriter
from tests.removals.removal import Patch, Removals

in_rules = Removals()


# -- events ------------------------------------------------------------------------------------


@in_rules("V1", "a late event never undoes a fresher state")
def version_guard(patch: Patch) -> None:
    """An event sets the row, however old it is."""
    update = rules._update

    def any_update(change_set: ChangeSet, event: Event, body: bytes) -> None:
        held = change_set.row(event.product_id)
        if held is None or event.version >= version_of(held):
            update(change_set, event, body)
            return
        patch.act()
        change_set.set_row(event.product_id, body)

    patch.replace(rules, "_update", any_update)


@in_rules(
    "V2",
    "a deletion leaves a mark",
    needs="disorder",
    test=("tests/unit/catalogue/test_apply.py::test_a_deletion"),
)
def marks_of_deletion(patch: Patch) -> None:
    """A deleted product is forgotten; an event of its life brings it back."""
    delete = ChangeSet.delete

    def unmarked(self: ChangeSet, product_id: str, *, offset: int, version: int) -> None:
        patch.act()
        delete(self, product_id, offset=offset, version=version)
        self._tombstones[product_id] = None

    patch.replace(ChangeSet, "delete", unmarked)


@in_rules(
    "V2",
    "what a reading said to be gone stays gone for every older life of the feed",
    needs="disorder",
    test=(
        "tests/simulation/test_found.py::"
        "test_what_a_reading_said_to_be_gone_does_not_come_back_by_an_older_life"
    ),
)
def marks_of_readings(patch: Patch) -> None:
    """A mark that a reading left counts as one of the feed's."""

    def of_reading(self: Tombstone) -> bool:
        if self.offset == 0:
            patch.act()
        return False

    patch.replace(Tombstone, "from_refetch", property(of_reading))


@in_rules("V2", "where order is in doubt the product is read again", needs="disorder")
def doubts_of_order(patch: Patch) -> None:
    """A creation or deletion too close to other events leaves no doubt."""

    def no_doubt(*_: object) -> None:
        patch.act()

    patch.replace(rules, "_refetch_for_order", no_doubt)


@in_rules("V1 W7", "an event of the life before does not undo what is ahead of the feed")
def lives_before_what_is_ahead(patch: Patch) -> None:
    """Any event with a higher version is of the life that is held."""
    of_life_before = rules._is_of_earlier_incarnation

    def never(change_set: ChangeSet, event: Event, body: bytes, held: bytes) -> bool:
        if of_life_before(change_set, event, body, held):
            patch.act()
        return False

    patch.replace(rules, "_is_of_earlier_incarnation", never)


@in_rules(
    "V1 F2",
    "events behind a catalogue that never followed the feed are doubted",
    needs="outage",
    test="tests/unit/catalogue/test_apply.py::test_events_behind_unfollowed_rows_change_nothing_unread",
)
def doubts_of_unfollowed_copies(patch: Patch) -> None:
    """A catalogue of pages alone is taken to stand at its position."""
    init = ChangeSet.__init__

    def followed(self: ChangeSet, base: Catalogue, **told: Any) -> None:
        init(self, base, **told)
        if self.unfollowed_until:
            patch.act()
            self.unfollowed_until = 0

    patch.replace(ChangeSet, "__init__", followed)


@in_rules(
    "E5",
    "an event that cannot be read has its product read",
    test="tests/unit/sync/test_refetch.py::test_an_unreadable_event_has_its_product_read",
    why="every event of the simulation can be read",
)
def readings_of_what_is_set_aside(patch: Patch) -> None:
    """An event that cannot be read is passed over."""
    lay = rules.apply_events

    def readable(change_set: ChangeSet, events: Iterable[AnyEvent]) -> None:
        kept = [event for event in events if not isinstance(event, QuarantinedEvent)]
        if kept != list(events):
            patch.act()
        lay(change_set, kept)

    patch.replace((rules, writer, replica), "apply_events", readable)


# -- readings ----------------------------------------------------------------------------------


@in_rules(
    "V2",
    "a reading counts only if nothing changed since it was sent",
    needs="disorder",
    test="tests/unit/sync/test_refetch.py::test_a_reading_that_was_overtaken_is_done_again",
)
def readings_overtaken(patch: Patch) -> None:
    """A reading's answer counts whatever came in between."""
    same = KnownState.__eq__

    def always(self: KnownState, other: object) -> bool:
        if not same(self, other):
            patch.act()
        return True

    patch.replace(KnownState, "__eq__", always)


@in_rules(
    "P3",
    "owed readings lie in the same record as the position",
    needs="kill disorder",
    test="tests/unit/sync/test_refetch.py::test_what_was_owed_is_done_by_the_next_process",
)
def owed_readings_kept(patch: Patch) -> None:
    """What is owed is in memory alone."""
    encode = changes.encode_change

    def without_owed(change: Change) -> bytes:
        if change.pending_refetches:
            patch.act()
        return encode(replace(change, pending_refetches={}))

    patch.replace(journal, "encode_change", without_owed)


@in_rules("W7", "what is ahead of the feed for a minute is read again", needs="lost_events")
def readings_of_what_is_ahead(patch: Patch) -> None:
    """A product whose event never comes stays ahead for ever."""
    stale_overrides = CacheWriter.stale_overrides

    def nobody(self: CacheWriter) -> list[str]:
        if stale_overrides(self):
            patch.act()
        return []

    patch.replace(CacheWriter, "stale_overrides", nobody)


@in_rules(
    "V2",
    "a doubt whose time is still to come is not settled by an earlier reading",
    needs="disorder",
    test="tests/unit/catalogue/test_apply.py::test_a_doubt_is_settled_when_its_time_has_come",
)
def doubts_outlast_readings(patch: Patch) -> None:
    """Any reading settles every doubt about its product."""
    settled = ChangeSet.complete_refetch

    def at_once(self: ChangeSet, product_id: str) -> None:
        settled(self, product_id)
        if self.pending_refetch(product_id) is not None:
            patch.act()
            self._pending_refetches[product_id] = None

    patch.replace(ChangeSet, "complete_refetch", at_once)


@in_rules(
    "W6",
    "a refresh that shows an older version does not win",
    needs="slow",
    test="tests/unit/catalogue/test_apply.py::test_a_refresh_does_not_win",
)
def refreshes_do_not_win(patch: Patch) -> None:
    """Whatever a reading says wins over what is held."""

    def always(self: RefetchReason) -> bool:
        if self is RefetchReason.REFRESH:
            patch.act()
        return True

    patch.replace(RefetchReason, "wins", property(always))


# -- answers -----------------------------------------------------------------------------------


@in_rules("W6", "an answer older than what is held changes nothing")
def answers_overtaken(patch: Patch) -> None:
    """An answer sets quantity and version, though the feed is past them."""
    lay = rules.apply_answer

    def laid(change_set: ChangeSet, answer: StockAnswer) -> bool:
        held = change_set.row(answer.product_id)
        if held is None or version_of(held) <= answer.new_version:
            return lay(change_set, answer)
        patch.act()
        rules._set_stock(change_set, held, answer)
        return True

    patch.replace((rules, writer, replica), "apply_answer", laid)


@in_rules(
    "W6",
    "an answer beyond a jump has the product read whole first",
    needs="slow",
    test="tests/unit/test_writer.py::test_an_answer_beyond_a_jump_has_the_product_fetched_whole",
)
def answers_beyond_a_jump(patch: Patch) -> None:
    """An answer is laid over a row that is not the one it was sent for."""
    lay = rules.apply_answer

    def laid(change_set: ChangeSet, answer: StockAnswer) -> bool:
        held = change_set.row(answer.product_id)
        if lay(change_set, answer) or held is None:
            return held is not None
        if change_set.incarnation_changed_within(answer.product_id, CROSSING_SECONDS):
            return False
        patch.act()
        rules._set_stock(change_set, held, answer)
        return True

    patch.replace((rules, writer, replica), "apply_answer", laid)


@in_rules(
    "W6",
    "an answer that a creation or deletion may have crossed is not believed by itself",
    needs="slow",
    test="tests/unit/catalogue/test_apply.py::test_an_applied_answer",
)
def answers_crossed(patch: Patch) -> None:
    """An answer is laid over the row of whatever life is held."""
    changed = ChangeSet.incarnation_changed_within

    def never_crossed(self: ChangeSet, product_id: str, seconds: float) -> bool:
        found = changed(self, product_id, seconds)
        if found and seconds == CROSSING_SECONDS:
            patch.act()
            return False
        return found

    patch.replace(ChangeSet, "incarnation_changed_within", never_crossed)


@in_rules("W6", "an answer never creates a product by itself")
def answers_create_nothing(patch: Patch) -> None:
    """An answer about a product that is not held makes a row of what it says."""
    lay = rules.apply_answer

    def laid(change_set: ChangeSet, answer: StockAnswer) -> bool:
        if change_set.row(answer.product_id) is not None:
            return lay(change_set, answer)
        patch.act()
        told = b'{"productId":"%s","name":"","available":%d,"version":%d}'
        named = answer.product_id.encode()
        row = told % (named, answer.new_quantity, answer.new_version)
        change_set.set_row(answer.product_id, row)
        change_set.add_override(answer.product_id, answer.new_version)
        return True

    patch.replace((rules, writer, replica), "apply_answer", laid)


# -- clocks ------------------------------------------------------------------------------------


@in_rules(
    "V2",
    "doubts and marks grow old by a clock that nobody sets",
    needs="clock",
    test="tests/unit/app/test_clocks.py::test_setting_the_clock_brings_no_deleted_product_back",
)
def steady_clock(patch: Patch) -> None:
    """They grow old by the wall clock."""
    init = CacheWriter.__init__

    def by_the_wall(self: CacheWriter, *parts: Any, **told: Any) -> None:
        patch.act()
        init(self, *parts, **told | {"steady": told["now"]})

    patch.replace(CacheWriter, "__init__", by_the_wall)
