"""What must be true after every step, and in the end: the promises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from store_cache.api.parts import StoreParts
from store_cache.catalogue.catalogue import Catalogue
from store_cache.sync.states import FullSyncing
from tests.simulation.central import SimulatedCentral
from tests.simulation.history import State, state_of
from tests.simulation.loop import SimulatedLoop
from tests.simulation.plan import Plan
from tests.simulation.sales import Sale
from tests.simulation.store import SimulatedStore

Place = tuple[str, str, int]
"""Generation as shown, product, incarnation."""


@dataclass(frozen=True)
class Watermarks:
    """The newest state shown of each product, and how often Central had been replaced."""

    replacements: int
    marks: dict[Place, State]


MOST_FILES = 4
"""A snapshot and its journal, and those of a compaction that has just begun."""

FILES_OF_A_COMPACTION = 2


def parsed(body: bytes) -> State:
    return state_of(orjson.loads(body))


def _had_files(store: StoreParts) -> bool:
    """Return whether the process found whole files on a disk that works; otherwise it says that it
    is not ready (D4, D5)."""
    return store.writer.disk.is_durable and not store.writer.findings


def has_stale_files(names: Iterable[str], sweep_problem: str, failures: int) -> bool:
    """Whether files stay that newer ones replace, and the status does not say why: what a failing
    disk did not let the store remove goes with the next sweep. `failures`: how often the disk
    failed; each may have ended a fold, whose files stay until the next one is whole."""
    live = [name for name in names if "damaged" not in name]
    most = MOST_FILES + FILES_OF_A_COMPACTION * failures
    return not sweep_problem and (len(live) > most or any(map(_is_unfinished, live)))


def _is_unfinished(name: str) -> bool:
    return name.endswith(".new")


class Checks:
    def __init__(
        self, plan: Plan, loop: SimulatedLoop, central: SimulatedCentral, store: SimulatedStore
    ) -> None:
        self.findings: list[str] = []
        self.count = 0
        self.ages = 0
        self._loop = loop
        self._central = central
        self._store = store
        self._marks: dict[Place, State] = {}
        self._shadow: dict[str, bytes] = {}
        self._states: dict[str, State] = {}
        self._catalogue: Catalogue | None = None
        self._sequence = -1
        self._feed = 0
        self._placed: Catalogue | None = None
        self._unnamed_then = 0
        self._is_read_anew = False
        self._replacements = 0
        self._in_sync_at: float | None = None
        self._loses_events = plan.has("lost_events")

    def find(self, what: str) -> None:
        if len(self.findings) < 20:
            self.findings.append(f"{self._loop.time():.4f} s, process {self._store.starts}: {what}")

    @property
    def replacements(self) -> int:
        return self._central.history.replacements

    @property
    def has_seen_restores(self) -> bool:
        """Whether the installed catalogue was read after the last restore that kept the name."""
        return self._unnamed_then == len(self._central.history.unnamed_replacements)

    def watermarks(self) -> Watermarks:
        return Watermarks(self.replacements, dict(self._marks))

    # -- after every step ------------------------------------------------------------------

    def step(self) -> None:
        store = self._store.parts
        if store is None:
            return
        self._forget_what_is_undone()
        catalogue = store.writer.catalogue
        if catalogue is None:
            self._check_that_none_is_left(store)
            return
        self._is_read_anew = False
        self._check_age(store, catalogue)
        if catalogue is self._catalogue and catalogue.sequence == self._sequence:
            return
        self._catalogue, self._sequence = catalogue, catalogue.sequence
        self._check(catalogue)

    def _check_age(self, store: StoreParts, catalogue: Catalogue) -> None:
        """The age is never smaller than the truth (B5): what Central had published when the store
        says that it was in sync is applied. Events that come late, or never, tell nothing."""
        in_sync_at, position = store.runner.state.in_sync_at, catalogue.position
        if in_sync_at is None or in_sync_at == self._in_sync_at or position is None:
            return
        self._in_sync_at = in_sync_at
        is_certain = self._central.orderly and not self._loses_events and self.has_seen_restores
        is_followed = catalogue.unfollowed_until == 0
        if not (is_certain and is_followed and position.named == self._central.ledger.generation):
            return
        self.ages += 1
        age_seconds = self._loop.time() - in_sync_at
        last = self._central.history.last_offset_at(self._central.now() - age_seconds)
        if position.offset <= last:
            self.find(f"age {age_seconds:.3f} s at {position}, where {last} was published before")

    def _forget_what_is_undone(self) -> None:
        """Drop the watermarks of what a restore undid, even if it happens at Central again."""
        if self._replacements == self.replacements:
            return
        self._replacements = self.replacements
        marks = self._marks.items()
        self._marks = {place: mark for place, mark in marks if self.is_known(place[1], mark)}

    def is_known(self, product_id: str, state: State) -> bool:
        return state in self._central.history.known.get(product_id, ())

    def is_mistakable(self, place: Place) -> bool:
        """Return whether point 5 of the known limits applies (docs/reliability.md)."""
        return place[1:] in self._central.history.mistakable

    def _check_that_none_is_left(self, store: StoreParts) -> None:
        """If files could not be read, nothing is shown until Central was read, by this process and
        the next ones (D4)."""
        self._is_read_anew = self._is_read_anew or not _had_files(store)
        if self._marks and not self._is_read_anew:
            self.find("a catalogue was shown, and there is none any more")
            self._marks.clear()

    def _check(self, catalogue: Catalogue) -> None:
        self.count += 1
        position = catalogue.position
        if position is None:
            self.find("a catalogue without a position is shown")
            return
        if catalogue is not self._placed:
            self._placed = catalogue
            self._note_reading()
        shadow, rows = self._shadow, catalogue.rows
        for product_id, body in rows.items():
            if shadow.get(product_id) is not body:
                self._check_row(catalogue, product_id, body)
        self._shadow = dict(rows)
        for product_id in [i for i in self._states if i not in rows]:
            del self._states[product_id]
        if self._central.orderly:
            self._check_position(catalogue, position.offset)

    def _note_reading(self) -> None:
        """Note how often Central had been restored under its own name when the full sync of the
        installed catalogue began. A catalogue from disk is as old as before."""
        store = self._store.parts
        if store is not None and isinstance(store.runner.state.phase, FullSyncing):
            began_at = store.runner.state.phase.full_sync.began_at
            times = self._central.history.unnamed_replacements
            self._unnamed_then = sum(at <= began_at for at in times)

    def _check_row(self, catalogue: Catalogue, product_id: str, body: bytes) -> None:
        state = parsed(body)
        self._states[product_id] = state
        if state not in self._central.history.states.get(product_id, ()) and not (
            product_id in catalogue.overrides or product_id in catalogue.pending_refetches
        ):
            self.find(f"{product_id} is shown as {state}, which it never was")
        assert catalogue.position is not None
        place = (catalogue.position.label, product_id, state[0])
        mark = self._marks.get(place)
        if mark is not None and state[1] < mark[1] and not self.is_mistakable(place):
            self.find(f"{place} went back from {mark} to {state}")
        if self.is_known(product_id, state):
            self._marks[place] = state
        else:
            self._marks.pop(place, None)

    def _check_position(self, catalogue: Catalogue, offset: int) -> None:
        feeds = self._central.history.feeds
        if not self.has_seen_restores:
            return  # until the feed shows it, nothing tells readings of the restored one apart
        for number in (self._feed, *range(len(feeds) - 1, -1, -1)):
            if not self._behind(catalogue, feeds[number], offset):
                self._feed = number
                return
        if self._knows_of_loss():
            return
        feed = min(feeds, key=lambda feed: len(self._behind(catalogue, feed, offset)))
        behind = self._behind(catalogue, feed, offset)
        states = {i: (self._states.get(i), feed.products.get(i)) for i in behind}
        self.find(f"at offset {offset} these are behind their position: {states}")

    def _knows_of_loss(self) -> bool:
        """Return whether a full sync follows, as after an install over a gap that stays (F2)."""
        store = self._store.parts
        if store is None:
            return False
        state = store.runner.state
        return state.requested is not None or isinstance(state.phase, FullSyncing)

    def _behind(self, catalogue: Catalogue, feed: Any, offset: int) -> list[str]:
        ahead, owed, states = catalogue.overrides, catalogue.pending_refetches, self._states
        return [
            product_id
            for product_id in feed.products
            if product_id not in ahead
            and product_id not in owed
            and not feed.allows(product_id, offset, states.get(product_id))
        ] + [i for i in states if i not in feed.products and i not in ahead and i not in owed]

    # -- what happens ----------------------------------------------------------------------

    def died(self) -> None:
        """Note that the process died. What it showed binds the next one, unless it said otherwise
        (D5)."""
        store = self._store.parts
        if store is not None and not store.writer.disk.is_durable:
            self._marks.clear()
        self._catalogue = None
        self._shadow = {}

    def was_shown(self, rows: list[dict[str, Any]], label: str, seen: Watermarks) -> None:
        """Check what a till was shown; `seen`: the watermarks when it asked."""
        if seen.replacements != self.replacements:
            return
        for row in rows:
            state, product_id = state_of(row), row["productId"]
            place = (label, product_id, state[0])
            mark = seen.marks.get(place)
            if mark is not None and state[1] < mark[1] and not self.is_mistakable(place):
                self.find(f"a till was shown {row}, after {mark}")

    def was_applied(self, sale: Sale, result: dict[str, Any]) -> None:
        """Check that every read shows a write from when a till was told that it was applied."""
        store = self._store.parts
        if store is None or self.replacements != sale.replacements:
            return
        catalogue = store.writer.catalogue
        if catalogue is None:
            return  # reads say that they are not ready; whether they may is looked at in each step
        said = (result["newVersion"], result["newQuantity"])
        states = self._central.history.states.get(sale.product_id, ())
        incarnations = [
            incarnation for incarnation, version, stock in states if (version, stock) == said
        ]
        held = catalogue.get(sale.product_id)
        if not incarnations:
            self.find(f"{sale.product_id} was told to be {said}, which it never was")
        elif held is None or sale.product_id in catalogue.pending_refetches:
            return  # an answer creates no product (W6): it is read whole, and its events come
        elif max(incarnations) == parsed(held)[0] and parsed(held)[1] < said[0]:
            self.find(f"{sale.key}: told {said}, and {held!r} is shown")
