"""Events, answers and readings in every order: what a till sees, and what is true at the end."""

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
from tests.unit.sync.pretend_central import PretendCentral

GRACE_SECONDS = 2.0
IDS = ("P-1", "P-1", "P-1", "P-2")


@dataclass
class Reading:
    """One reading under way: asked for, then answered by Central, then heard by the store."""

    product_id: str
    reason: RefetchReason
    known: KnownState
    was_answered: bool = False
    row: Row | None = None


class Shop:
    """A store in small: it follows the feed, reads products by themselves, and sells."""

    def __init__(self, central: PretendCentral, *, late_by: tuple[float, ...] = (0.0,)) -> None:
        self.central = central
        self.catalogue = Catalogue()
        self.now = 1000.0
        self.followed = 0
        self.readings: deque[Reading] = deque()
        self.answers: deque[StockAnswer] = deque()
        self.shown: dict[tuple[str, int], int] = {}
        self.steps_back: list[tuple[str, int, int, int]] = []
        self.journal: list[bytes] = []
        self._late_by = late_by

    # -- what may happen ---------------------------------------------------------------------

    def central_does(self, deed: str, product_id: str, lateness: int) -> None:
        if deed == "delete" and self.is_orderly and self.answers:
            return  # a sale that a deletion and a creation cross looks like one of the new life
        self.central.does(deed, product_id, late_until=self._late(lateness))

    def central_garbles(self, product_id: str, lateness: int) -> None:
        """An update whose event cannot be read."""
        self.central.does("garble", product_id, late_until=self._late(lateness))

    @property
    def is_orderly(self) -> bool:
        return self._late_by == (0.0,)

    def _late(self, lateness: int) -> float:
        return self.now + self._late_by[lateness % len(self._late_by)]

    def follow(self, most: int) -> None:
        self.central.publish(self.now)
        events = self.central.feed[self.followed : self.followed + most]
        self.followed += len(events)
        change_set = self._change_set()
        apply_events(change_set, events)
        self._make(change_set)

    def wait(self, seconds: float) -> None:
        """An answer to a write does not take longer than a write may (60 s)."""
        while self.answers and seconds > OVERRIDE_SECONDS:
            self.hear_answer()
        self.now += seconds

    def ask(self, product_id: str, reason: RefetchReason) -> None:
        known = KnownState.of(self.catalogue, product_id)
        self.readings.append(Reading(product_id, reason, known))

    def ask_what_is_due(self) -> None:
        under_way = {reading.product_id for reading in self.readings}
        for product_id, owed in list(self.catalogue.pending_refetches.items()):
            if owed.due <= self.now and product_id not in under_way:
                self.ask(product_id, owed.reason)

    def central_answers(self) -> None:
        for reading in self.readings:
            if not reading.was_answered:
                reading.was_answered, reading.row = True, self.central.read(reading.product_id)
                return

    def hear(self) -> None:
        if not self.readings or not self.readings[0].was_answered:
            return
        reading = self.readings.popleft()
        change_set = self._change_set()
        product_id, reason = reading.product_id, reading.reason
        if not apply_refetch(
            change_set, product_id, reading.row, known=reading.known, reason=reason
        ):
            change_set.request_refetch(product_id, reason)
        self._make(change_set)

    def sell(self, product_id: str, lateness: int) -> None:
        body = self.catalogue.get(product_id)
        if body is None:
            return
        product = orjson.loads(body)
        if product["life"] != self.central.life_of(product_id):
            return  # sold across two lives that had the same version: nobody could tell
        version = product["version"]
        answer = self.central.sell(product_id, version, late_until=self._late(lateness))
        if answer is not None:
            self.answers.append(answer)

    def hear_answer(self) -> None:
        if not self.answers:
            return
        answer = self.answers.popleft()
        change_set = self._change_set()
        if not apply_answer(change_set, answer):
            self._lay_whole(change_set, answer)
        self._make(change_set)

    def _lay_whole(self, change_set: ChangeSet, answer: StockAnswer) -> None:
        product_id = answer.product_id
        known = KnownState.of(self.catalogue, product_id)
        row = self.central.read(product_id)
        apply_refetch(change_set, product_id, row, known=known, reason=RefetchReason.CROSSED)

    # -- the end -----------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Everything under way arrives, then time passes and what is owed is read."""
        self.wait(1.0)
        self.follow(10_000)
        while self.answers:
            self.hear_answer()
        for _ in range(5):
            self._read_what_is_due()
            self.wait(OVERRIDE_SECONDS + 1)
            self._owe_what_was_left_behind()

    def _read_what_is_due(self) -> None:
        self.ask_what_is_due()
        while self.readings:
            self.central_answers()
            self.hear()

    def _owe_what_was_left_behind(self) -> None:
        change_set = self._change_set()
        for product_id, ahead in self.catalogue.overrides.items():
            if ahead.since <= self.now - OVERRIDE_SECONDS:
                change_set.request_refetch(product_id, RefetchReason.AHEAD)
        self._make(change_set)

    # -- parts -------------------------------------------------------------------------------

    def _change_set(self) -> ChangeSet:
        self.catalogue.forget(before=self.now - TOMBSTONE_SECONDS, at_most=1000)
        return ChangeSet(self.catalogue, now=self.now, grace_seconds=GRACE_SECONDS)

    def _make(self, change_set: ChangeSet) -> None:
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

deeds = st.sampled_from(["create", "update", "update", "delete"])
ids = st.sampled_from(IDS)
lateness = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("central_does"), deeds, ids, lateness),
        st.tuples(st.just("central_garbles"), ids, lateness),
        st.tuples(st.just("follow"), st.sampled_from([1, 2, 100])),
        st.tuples(st.just("wait"), st.sampled_from([0.03, 0.1, 1.0, 3.0, 70.0])),
        st.tuples(st.just("ask"), ids, st.just(RefetchReason.REFRESH)),
        st.tuples(st.just("ask_what_is_due")),
        st.tuples(st.just("central_answers")),
        st.tuples(st.just("hear")),
        st.tuples(st.just("sell"), ids, lateness),
        st.tuples(st.just("hear_answer")),
    ),
    min_size=4,
    max_size=25,
)
many = settings(max_examples=400, deadline=None, derandomize=True)


def walk(shop: Shop, history: Iterable[Step]) -> None:
    for name, *arguments in history:
        getattr(shop, name)(*arguments)
    shop.come_to_rest()


def does(deed: str, lateness: int = 0) -> Step:
    return ("central_does", deed, "P-1", lateness)


REFRESH: tuple[Step, ...] = (("ask", "P-1", RefetchReason.REFRESH), ("central_answers",), ("hear",))
FOLLOW: Step = ("follow", 1)


@many
@given(steps)
@example([does("create"), does("update"), *REFRESH, ("wait", 3.0), *REFRESH, FOLLOW])
@example([does("create"), FOLLOW, does("update"), does("update"), *REFRESH, FOLLOW, *REFRESH])
def test_where_events_come_in_order_no_version_goes_back(history: list[Step]) -> None:
    """[V1] Whatever events, readings and answers cross: within one life, what is shown never goes
    back; and once everything has arrived the catalogue is Central's."""
    shop = Shop(PretendCentral())
    walk(shop, history)

    assert [] == shop.steps_back
    assert shop.central.rows() == dict(shop.catalogue.rows)


@many
@given(steps)
@example([does("create", 1), does("delete"), FOLLOW, ("wait", 3.0)])
@example([does("create", 2), *REFRESH, *REFRESH[:2], does("delete")])
@example(
    [
        does("create"),
        ("follow", 2),
        ("sell", "P-1", 2),
        does("delete"),
        does("create"),
        FOLLOW,
        ("hear_answer",),
        ("wait", 1.0),
        ("wait", 0.1),
    ]
)
def test_where_events_come_out_of_order_the_end_is_true(history: list[Step]) -> None:
    """[V2] Creations, deletions and updates published up to a tenth of a second late, read in any
    portions with any pause between, together with readings and answers: wherever the order was in
    doubt the product was read again, so that the catalogue ends as Central's."""
    shop = Shop(PretendCentral(), late_by=(0.0, 0.05, 0.11))
    walk(shop, history)

    assert shop.central.rows() == dict(shop.catalogue.rows)


@many
@given(steps)
def test_every_answer_of_a_write_is_in_line_at_the_end(history: list[Step]) -> None:
    """[W7] Products that an answer has put ahead are brought back by their own events, or are read
    again after 60 s; nothing stays ahead, and nothing stays owed."""
    shop = Shop(PretendCentral(), late_by=(0.0, 0.05, 0.11))
    walk(shop, history)

    assert {} == shop.catalogue.overrides
    assert {} == shop.catalogue.pending_refetches


@many
@given(steps)
def test_the_journal_alone_leads_to_the_same_catalogue(history: list[Step]) -> None:
    """[P3] Every change, encoded, decoded and made once more in the same order on an empty
    catalogue, gives the same rows, marks and readings owed."""
    shop = Shop(PretendCentral(), late_by=(0.0, 0.05, 0.11))
    walk(shop, history)
    again = Catalogue()
    for record in shop.journal:
        again.apply(decode_change(orjson.loads(record)))

    assert shop.catalogue.rows == again.rows
    assert list(shop.catalogue.ids()) == list(again.ids())
    assert shop.catalogue.pending_refetches == again.pending_refetches
    assert shop.catalogue.overrides == again.overrides
    assert shop.catalogue.tombstones.items() <= again.tombstones.items()
    assert shop.catalogue.bytes_held == again.bytes_held
