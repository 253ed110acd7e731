"""Events, answers and refetches in every order: what a till sees, and what is true at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from store_cache.catalogue.apply import (
    OVERRIDE_SECONDS,
    TOMBSTONE_SECONDS,
    apply_answer,
    apply_events,
    apply_refetch,
)
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.model.change import RefetchReason, decode_change, encode_change
from store_cache.model.product import Row
from store_cache.model.stock import StockAnswer
from tests.unit.catalogue.pretend_central import PretendCentral

GRACE_SECONDS = 2.0
IN_ORDER = (0.0,)
OUT_OF_ORDER = (0.0, 0.05, 0.11)


@dataclass
class Refetch:
    """A refetch under way: requested, then answered by Central, then received by the store."""

    product_id: str
    reason: RefetchReason
    known: KnownState
    was_answered: bool = False
    row: Row | None = None


class Shop:
    """A small store: it follows the feed, refetches products and sells.

    `late_by`: how many seconds late Central may publish an event.
    """

    def __init__(self, late_by: tuple[float, ...]) -> None:
        self.central = PretendCentral()
        self.catalogue = Catalogue()
        self.now = 1000.0
        self.followed = 0
        self.refetches: deque[Refetch] = deque()
        self.answers: deque[StockAnswer] = deque()
        self.shown: dict[tuple[str, int], int] = {}
        self.steps_back: list[tuple[str, int, int, int]] = []
        self.journal: list[bytes] = []
        self._late_by = late_by

    # -- what may happen ---------------------------------------------------------------------

    def central_does(self, deed: str, product_id: str, lateness: int) -> None:
        if deed == "delete" and self._late_by == IN_ORDER and self.answers:
            return  # a sale crossed by a deletion and a creation looks like one of the new product
        self.central.does(deed, product_id, late_until=self._late(lateness))

    def _late(self, lateness: int) -> float:
        return self.now + self._late_by[lateness % len(self._late_by)]

    def follow(self, most: int) -> None:
        self.central.publish(self.now)
        events = self.central.feed[self.followed : self.followed + most]
        self.followed += len(events)
        change_set = self._change_set()
        apply_events(change_set, events)
        self._apply(change_set)

    def wait(self, seconds: float) -> None:
        """An answer to a write does not take longer than a write may (60 s)."""
        while self.answers and seconds > OVERRIDE_SECONDS:
            self.receive_answer()
        self.now += seconds

    def request(self, product_id: str, reason: RefetchReason) -> None:
        known = KnownState.of(self.catalogue, product_id)
        self.refetches.append(Refetch(product_id, reason, known))

    def request_what_is_due(self) -> None:
        under_way = {refetch.product_id for refetch in self.refetches}
        for product_id, pending in list(self.catalogue.pending_refetches.items()):
            if pending.due <= self.now and product_id not in under_way:
                self.request(product_id, pending.reason)

    def central_answers(self) -> None:
        for refetch in self.refetches:
            if not refetch.was_answered:
                refetch.was_answered, refetch.row = True, self.central.read(refetch.product_id)
                return

    def receive_refetch(self) -> None:
        if not self.refetches or not self.refetches[0].was_answered:
            return
        refetch = self.refetches.popleft()
        product_id, reason = refetch.product_id, refetch.reason
        change_set = self._change_set()
        if not apply_refetch(
            change_set, product_id, refetch.row, known=refetch.known, reason=reason
        ):
            change_set.request_refetch(product_id, reason)
        self._apply(change_set)

    def sell(self, product_id: str, lateness: int) -> None:
        body = self.catalogue.get(product_id)
        if body is None:
            return
        product = orjson.loads(body)
        if product["life"] != self.central.life_of(product_id):
            return  # of another incarnation with the same version: no store could tell
        version = product["version"]
        answer = self.central.sell(product_id, version, late_until=self._late(lateness))
        if answer is not None:
            self.answers.append(answer)

    def receive_answer(self) -> None:
        if not self.answers:
            return
        answer = self.answers.popleft()
        change_set = self._change_set()
        if not apply_answer(change_set, answer):
            product_id = answer.product_id
            known, row = KnownState.of(self.catalogue, product_id), self.central.read(product_id)
            apply_refetch(change_set, product_id, row, known=known, reason=RefetchReason.CROSSED)
        self._apply(change_set)

    # -- the end -----------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Everything under way arrives; then time passes and what is pending is refetched."""
        self.wait(1.0)
        self.follow(10_000)
        while self.answers:
            self.receive_answer()
        for _ in range(5):
            self.request_what_is_due()
            while self.refetches:
                self.central_answers()
                self.receive_refetch()
            self.wait(OVERRIDE_SECONDS + 1)
            change_set = self._change_set()
            for product_id, override in self.catalogue.overrides.items():
                if override.since <= self.now - OVERRIDE_SECONDS:
                    change_set.request_refetch(product_id, RefetchReason.AHEAD)
            self._apply(change_set)

    # -- parts -------------------------------------------------------------------------------

    def _change_set(self) -> ChangeSet:
        self.catalogue.forget(before=self.now - TOMBSTONE_SECONDS, at_most=1000)
        return ChangeSet(self.catalogue, now=self.now, grace_seconds=GRACE_SECONDS)

    def _apply(self, change_set: ChangeSet) -> None:
        change = change_set.to_change("test")
        self.journal.append(encode_change(change))
        self.catalogue.apply(change)
        for product_id, body in self.catalogue.rows.items():
            product = orjson.loads(body)
            life, version = product["life"], product["version"]
            before = self.shown.get((product_id, life), 0)
            if version < before:
                self.steps_back.append((product_id, life, before, version))
            self.shown[product_id, life] = version


Step = tuple[Any, ...]

ids = st.sampled_from(["P-1", "P-1", "P-1", "P-2"])
lateness = st.integers(0, 2)
deeds = st.sampled_from(["create", "update", "update", "delete"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("central_does"), deeds, ids, lateness),
        st.tuples(st.just("central_does"), st.just("garble"), ids, lateness),
        st.tuples(st.just("follow"), st.sampled_from([1, 2, 100])),
        st.tuples(st.just("wait"), st.sampled_from([0.03, 0.1, 1.0, 3.0, 70.0])),
        st.tuples(st.just("request"), ids, st.just(RefetchReason.REFRESH)),
        st.tuples(st.just("request_what_is_due")),
        st.tuples(st.just("central_answers")),
        st.tuples(st.just("receive_refetch")),
        st.tuples(st.just("sell"), ids, lateness),
        st.tuples(st.just("receive_answer")),
    ),
    min_size=4,
    max_size=25,
)


def examples(number: int) -> settings:
    return settings(max_examples=number, deadline=None, derandomize=True)


def after(history: Iterable[Step], late_by: tuple[float, ...]) -> Shop:
    shop = Shop(late_by)
    for name, *arguments in history:
        getattr(shop, name)(*arguments)
    shop.come_to_rest()
    return shop


def does(deed: str, lateness: int = 0) -> Step:
    return ("central_does", deed, "P-1", lateness)


SENT: tuple[Step, ...] = (("request", "P-1", RefetchReason.REFRESH), ("central_answers",))
REFRESH: tuple[Step, ...] = (*SENT, ("receive_refetch",))
FOLLOW: Step = ("follow", 1)


@examples(400)
@given(steps)
@example([does("create"), does("update"), *REFRESH, ("wait", 3.0), *REFRESH, FOLLOW])
@example([does("create"), FOLLOW, does("update"), does("update"), *REFRESH, FOLLOW, *REFRESH])
def test_if_events_come_in_order_no_version_goes_back(history: list[Step]) -> None:
    """[V1] Whatever events, refetches and answers cross: within one incarnation, what is shown
    never goes back, and once everything has arrived the catalogue is Central's."""
    shop = after(history, IN_ORDER)

    assert [] == shop.steps_back
    assert shop.central.rows() == dict(shop.catalogue.rows)


@examples(1200)
@given(steps)
@example([does("create", 1), does("delete"), FOLLOW, ("wait", 3.0)])
@example([does("create", 2), *REFRESH, *SENT, does("delete")])
@example(
    [
        does("create"),
        ("follow", 2),
        ("sell", "P-1", 2),
        does("delete"),
        does("create"),
        FOLLOW,
        ("receive_answer",),
        ("wait", 1.0),
        ("wait", 0.1),
    ]
)
def test_if_events_come_out_of_order_the_end_is_true(history: list[Step]) -> None:
    """[V2] [W7] Events published up to a tenth of a second late, read in any portions with any
    pause between, with refetches and answers: the catalogue ends as Central's, without overrides
    and pending refetches.

    [P3] The journal's records, decoded and applied in order to an empty catalogue, give the same
    rows, tombstones, overrides and pending refetches.
    """
    shop = after(history, OUT_OF_ORDER)
    catalogue = shop.catalogue

    assert shop.central.rows() == dict(catalogue.rows)
    assert ({}, {}) == (catalogue.overrides, catalogue.pending_refetches)

    again = Catalogue()
    for record in shop.journal:
        again.apply(decode_change(orjson.loads(record)))

    assert (catalogue.rows, list(catalogue.ids())) == (again.rows, list(again.ids()))
    assert ({}, {}) == (again.overrides, again.pending_refetches)
    assert catalogue.tombstones.items() <= again.tombstones.items()
    assert catalogue.bytes_held == again.bytes_held
