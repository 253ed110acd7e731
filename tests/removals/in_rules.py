"""Removals of safeguards in what events, answers and refetches do to the catalogue (rules V, W6,
W7, E5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from store_cache import writer
from store_cache.catalogue import apply as rules
from store_cache.catalogue import replica
from store_cache.catalogue.apply import CROSSING_SECONDS
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.model import change as changes
from store_cache.model.change import Change, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, QuarantinedEvent
from store_cache.model.product import is_later, version_of
from store_cache.model.stock import StockAnswer
from store_cache.storage import journal
from store_cache.writer import CacheWriter
from tests.removals.removal import Patch, Removals

in_rules = Removals()
APPLIED_IN = (rules, writer, replica)


# -- events ------------------------------------------------------------------------------------


@in_rules("V1", "a late event never undoes a fresher state")
def version_guard(patch: Patch) -> None:
    """An event sets the row, however old it is."""
    update = rules._update

    def any_update(change_set: ChangeSet, event: Event, body: bytes) -> None:
        row = change_set.row(event.product_id)
        if row is None or event.version >= version_of(row):
            update(change_set, event, body)
            return
        patch.act()
        change_set.set_row(event.product_id, body)

    patch.replace(rules, "_update", any_update)


@in_rules(
    "V2",
    "a deletion leaves a tombstone",
    needs="disorder",
    test="tests/unit/catalogue/test_apply.py::test_a_deletion",
)
def tombstones(patch: Patch) -> None:
    """A deleted product is forgotten; an event of its incarnation brings it back."""
    delete = ChangeSet.delete

    def without_tombstone(self: ChangeSet, product_id: str, *, offset: int, version: int) -> None:
        patch.act()
        delete(self, product_id, offset=offset, version=version)
        self._tombstones[product_id] = None

    patch.replace(ChangeSet, "delete", without_tombstone)


@in_rules(
    "V2",
    "a product found absent stays so for every older incarnation of the feed",
    needs="disorder",
    test=(
        "tests/simulation/test_found.py::"
        "test_a_product_found_absent_does_not_come_back_by_an_older_incarnation"
    ),
)
def tombstones_of_refetches(patch: Patch) -> None:
    """A tombstone that a refetch left counts as one of the feed's."""

    def of_the_feed(self: Tombstone) -> bool:
        if self.offset == 0:
            patch.act()
        return False

    patch.replace(Tombstone, "from_refetch", property(of_the_feed))


@in_rules("V2", "where events may be out of order the product is refetched", needs="disorder")
def refetches_for_order(patch: Patch) -> None:
    """A creation or deletion too close to other events causes no refetch."""

    def no_refetch(*_: object) -> None:
        patch.act()

    patch.replace(rules, "_refetch_for_order", no_refetch)


@in_rules(
    "V1 W7",
    "an event of the incarnation before does not undo an override",
    test=(
        "tests/simulation/test_found.py::"
        "test_the_next_version_of_an_ended_incarnation_does_not_undo_a_refetch"
    ),
)
def incarnations_before_overrides(patch: Patch) -> None:
    """Any event with a higher version is of the incarnation that is held."""
    is_of_earlier = rules._is_of_earlier_incarnation

    def never(change_set: ChangeSet, event: Event, body: bytes, row: bytes) -> bool:
        if is_of_earlier(change_set, event, body, row):
            patch.act()
        return False

    patch.replace(rules, "_is_of_earlier_incarnation", never)


@in_rules(
    "V1 W7",
    "a refetch of what the feed has brought is not ahead of it",
    test="tests/unit/catalogue/test_apply.py::"
    "test_a_refetch_of_what_the_feed_has_brought_overrides_nothing",
)
def refetches_that_the_feed_has_brought(patch: Patch) -> None:
    """Every refetch waits for its event, also if that came before: later ones are passed over."""
    was_brought = rules._was_brought

    def never(change_set: ChangeSet, product_id: str, row: bytes) -> bool:
        if was_brought(change_set, product_id, row):
            patch.act()
        return False

    patch.replace(rules, "_was_brought", never)


@in_rules(
    "E5 P3",
    "the need of a full sync is on disk with the position",
    test="tests/scenarios/test_failures.py::"
    "test_a_nameless_event_is_made_up_for_by_the_next_process",
)
def full_syncs_for_nameless_events(patch: Patch) -> None:
    """Only the process that saw an event without a product knows that a full sync has to follow."""

    def forget(*_: object) -> None:
        patch.act()

    patch.replace(ChangeSet, "request_full_sync", forget)


@in_rules(
    "E5",
    "a quarantined event has its product refetched",
    test="tests/unit/sync/test_refetch.py::test_an_unreadable_event_has_its_product_refetched",
    why="every event of the simulation can be read",
)
def refetches_of_quarantined_products(patch: Patch) -> None:
    """An event that cannot be read is passed over."""
    apply_events = rules.apply_events

    def without_quarantined(change_set: ChangeSet, events: Sequence[AnyEvent]) -> None:
        readable = [event for event in events if not isinstance(event, QuarantinedEvent)]
        if readable != list(events):
            patch.act()
        apply_events(change_set, readable)

    patch.replace(APPLIED_IN, "apply_events", without_quarantined)


# -- refetches ---------------------------------------------------------------------------------


@in_rules(
    "V2",
    "a refetch counts only if nothing changed since it was sent",
    needs="disorder",
    test="tests/unit/sync/test_refetch.py::test_a_refetch_that_was_overtaken_is_done_again",
)
def overtaken_refetches(patch: Patch) -> None:
    """Central's answer counts whatever came in between."""
    same = KnownState.__eq__

    def always(self: KnownState, other: object) -> bool:
        if not same(self, other):
            patch.act()
        return True

    patch.replace(KnownState, "__eq__", always)


@in_rules(
    "V2",
    "a refetch that an event has crossed does not count",
    needs="disorder",
    test="tests/unit/catalogue/test_apply.py::"
    "test_a_refetch_that_crosses_an_event_of_another_incarnation_does_not_count",
)
def refetches_that_events_cross(patch: Patch) -> None:
    """Central's answer counts if the event changed nothing that is held."""

    def kept(self: ChangeSet, product_id: str) -> None:
        if self.pending_refetch(product_id) is not None:
            patch.act()

    patch.replace(ChangeSet, "renew_refetch", kept)


@in_rules(
    "P3",
    "pending refetches are in the same record as the position",
    needs="kill disorder",
    test="tests/unit/sync/test_refetch.py::test_pending_refetches_are_done_by_the_next_process",
)
def pending_refetches_on_disk(patch: Patch) -> None:
    """Pending refetches are in memory alone."""
    encode = changes.encode_change

    def without_refetches(change: Change) -> bytes:
        if change.pending_refetches:
            patch.act()
        return encode(replace(change, pending_refetches={}))

    patch.replace(journal, "encode_change", without_refetches)


@in_rules("W7", "a product with an override for a minute is refetched", needs="lost_events")
def refetches_of_overridden_products(patch: Patch) -> None:
    """The override of a product whose event never comes stays for ever."""
    stale_overrides = CacheWriter.stale_overrides

    def none(self: CacheWriter) -> list[str]:
        if stale_overrides(self):
            patch.act()
        return []

    patch.replace(CacheWriter, "stale_overrides", none)


@in_rules(
    "V2",
    "a refetch that is not due yet is not completed by an earlier one",
    needs="disorder",
    test=(
        "tests/unit/catalogue/test_apply.py::test_a_refetch_before_it_is_due_does_not_complete_it"
    ),
)
def refetches_for_later(patch: Patch) -> None:
    """Any refetch completes every pending one of its product."""
    complete_refetch = ChangeSet.complete_refetch

    def at_once(self: ChangeSet, product_id: str) -> None:
        complete_refetch(self, product_id)
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
    """Whatever a refetch says wins over what is held."""

    def always(self: RefetchReason) -> bool:
        if self is RefetchReason.REFRESH:
            patch.act()
        return True

    patch.replace(RefetchReason, "wins", property(always))


# -- answers -----------------------------------------------------------------------------------


@in_rules("W6", "an answer older than what is held changes nothing")
def overtaken_answers(patch: Patch) -> None:
    """An answer sets quantity and version, though the feed is past them."""
    apply_answer = rules.apply_answer

    def any_answer(change_set: ChangeSet, answer: StockAnswer) -> bool:
        row = change_set.row(answer.product_id)
        if row is None or version_of(row) <= answer.new_version:
            return apply_answer(change_set, answer)
        patch.act()
        rules._set_stock(change_set, row, answer)
        return True

    patch.replace((rules, writer), "apply_answer", any_answer)


@in_rules(
    "W6",
    "after an answer beyond a jump the product is refetched",
    needs="slow",
    test="tests/unit/test_writer.py::test_an_answer_beyond_a_jump_has_the_product_fetched_whole",
)
def answers_beyond_a_jump(patch: Patch) -> None:
    """An answer is applied to a row that is not the one it was sent for."""
    apply_answer = rules.apply_answer

    def any_answer(change_set: ChangeSet, answer: StockAnswer) -> bool:
        row = change_set.row(answer.product_id)
        if apply_answer(change_set, answer) or row is None:
            return row is not None
        if change_set.incarnation_changed_within(answer.product_id, CROSSING_SECONDS):
            return False
        patch.act()
        rules._set_stock(change_set, row, answer)
        return True

    patch.replace((rules, writer), "apply_answer", any_answer)


@in_rules(
    "W6",
    "after an answer that a creation or deletion may have crossed the product is refetched",
    needs="slow",
    test="tests/unit/catalogue/test_apply.py::test_an_applied_answer",
)
def crossed_answers(patch: Patch) -> None:
    """An answer is applied to the row of whatever incarnation is held."""
    changed_within = ChangeSet.incarnation_changed_within

    def never_crossed(self: ChangeSet, product_id: str, seconds: float) -> bool:
        found = changed_within(self, product_id, seconds)
        if found and seconds == CROSSING_SECONDS:
            patch.act()
            return False
        return found

    patch.replace(ChangeSet, "incarnation_changed_within", never_crossed)


@in_rules(
    "W6 P1",
    "after an answer from before a new generation the product is refetched",
    needs="generation",
    test="tests/unit/test_writer.py::"
    "test_an_answer_from_before_a_new_generation_has_the_product_fetched",
)
def answers_of_other_generations(patch: Patch) -> None:
    """An answer is applied to the row of whatever generation is held."""
    may_have_crossed = rules._may_have_crossed

    def of_any(change_set: ChangeSet, answer: StockAnswer) -> bool:
        found = may_have_crossed(change_set, replace(answer, generation=None))
        if found is not may_have_crossed(change_set, answer):
            patch.act()
        return found

    patch.replace(rules, "_may_have_crossed", of_any)


@in_rules(
    "W6",
    "an answer to a write of more than a minute ago is no proof of what the product is now",
    test="tests/scenarios/test_old_answers.py::"
    "test_an_old_answer_is_not_laid_over_another_incarnation",
)
def old_answers(patch: Patch) -> None:
    """An answer to an earlier sending is applied like any other."""
    apply_answer, apply_figures = rules.apply_answer, rules.apply_answer_figures

    def as_new(answer: StockAnswer) -> StockAnswer:
        if answer.age_seconds > CROSSING_SECONDS:
            patch.act()
        return replace(answer, age_seconds=0.0)

    patch.replace((rules, writer), "apply_answer", lambda c, a: apply_answer(c, as_new(a)))
    patch.replace((rules, writer), "apply_answer_figures", lambda c, a: apply_figures(c, as_new(a)))


@in_rules(
    "W6",
    "an answer from before the row, by Central's own times, is no proof of what the product is now",
    test="tests/simulation/test_found.py::"
    "test_a_first_answer_that_central_gives_once_more_brings_no_incarnation_back",
    why="the next incarnation has to be at the very version that another node has sent",
)
def answers_from_before(patch: Patch) -> None:
    """An answer that Central gives once more, to another node, is applied like any other."""

    def never(body: bytes, last_updated: str | None) -> bool:
        if is_later(body, last_updated):
            patch.act()
        return False

    patch.replace(rules, "is_later", never)


@in_rules("W6", "an answer never creates a product by itself")
def answers_create_nothing(patch: Patch) -> None:
    """An answer about a product that is not held makes a row of what it says."""
    apply_answer = rules.apply_answer

    def any_answer(change_set: ChangeSet, answer: StockAnswer) -> bool:
        if change_set.row(answer.product_id) is not None:
            return apply_answer(change_set, answer)
        patch.act()
        row = b'{"productId":"%s","name":"","available":%d,"version":%d}'
        figures = answer.product_id.encode(), answer.new_quantity, answer.new_version
        change_set.set_row(answer.product_id, row % figures)
        change_set.add_override(answer.product_id, answer.new_version)
        return True

    patch.replace((rules, writer), "apply_answer", any_answer)


# -- clocks ------------------------------------------------------------------------------------


@in_rules(
    "V2",
    "tombstones and pending refetches grow old by a clock that nobody sets",
    needs="clock",
    test="tests/unit/app/test_clocks.py::test_setting_the_clock_brings_no_deleted_product_back",
)
def steady_clock(patch: Patch) -> None:
    """They grow old by the wall clock."""
    init = CacheWriter.__init__

    def by_the_wall(self: CacheWriter, *parts: Any, **options: Any) -> None:
        patch.act()
        init(self, *parts, **options | {"steady": options["now"]})

    patch.replace(CacheWriter, "__init__", by_the_wall)
