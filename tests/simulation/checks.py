"""What must be true after every step, and in the end: the promises."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import orjson

from central_stub.switches import Feature
from store_cache.api.parts import StoreParts
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Replica
from tests.simulation.central import SimulatedCentral
from tests.simulation.history import Look, State, look_of
from tests.simulation.loop import SimulatedLoop
from tests.simulation.marks import Marks
from tests.simulation.plan import Plan
from tests.simulation.sales import Sale
from tests.simulation.store import SimulatedStore

MOST_FILES = 4
"""A snapshot and its journal, and those of a compaction that has just begun."""

FILES_OF_A_COMPACTION = 2


def _look(body: bytes) -> Look:
    return look_of(orjson.loads(body))


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


def _incarnations(states: Iterable[State]) -> set[int]:
    return {state.incarnation for state in states}


class LastShown(NamedTuple):
    """The rows that a process showed last, and the number of the last change among them."""

    rows: dict[str, bytes]
    sequence: int


class Checks:
    """`note_told`: promise 3, what tills were told."""

    def __init__(
        self, plan: Plan, loop: SimulatedLoop, central: SimulatedCentral, store: SimulatedStore
    ) -> None:
        self.findings: list[str] = []
        self.count = 0
        self.ages = 0
        self._plan = plan
        self._loop = loop
        self._central = central
        self._history = central.history
        self._store = store
        self._marks = Marks(central.history)
        self._told = Marks(central.history)
        self._shadow: dict[str, bytes] = {}
        self._states: dict[str, Collection[State]] = {}
        self._catalogue: Catalogue | None = None
        self._sequence = -1
        self._feed = 0
        self._placed: Catalogue | None = None
        self._replica: Replica | None = None
        self._reads_since = 0.0  # when the replica was begun, in Central's unix seconds
        self._unnamed_then = 0
        self._is_read_anew = False
        self._label = ""
        self._in_sync_at: float | None = None

    def find(self, what: str) -> None:
        if len(self.findings) < 20:
            self.findings.append(f"{self._loop.time():.4f} s, process {self._store.starts}: {what}")

    @property
    def replacements(self) -> int:
        return self._history.replacements

    @property
    def has_seen_restores(self) -> bool:
        """Whether Central has sent its catalogue, to be installed, after the last restore that kept
        its name."""
        return self._unnamed_then == len(self._history.unnamed_replacements)

    def watermarks(self) -> Marks:
        return self._marks.copy()

    # -- after every step ------------------------------------------------------------------

    def step(self) -> None:
        store = self._store.parts
        if store is None:
            return
        self._marks.forget_what_is_undone()
        self._told.forget_what_is_undone()
        if store.writer.replica not in (None, self._replica):
            self._replica, self._reads_since = store.writer.replica, self._central.now()
        catalogue = store.writer.catalogue
        if catalogue is None:
            self._check_that_none_is_left(store)
            return
        self._is_read_anew = False
        if catalogue is not self._catalogue or catalogue.sequence != self._sequence:
            self._catalogue, self._sequence = catalogue, catalogue.sequence
            self._check(catalogue)
        self._check_age(store, catalogue)

    def _check_age(self, store: StoreParts, catalogue: Catalogue) -> None:
        """The age is never smaller than the truth (B5): what Central had published when the store
        says that it was in sync is applied. Events that come late, or never, tell nothing."""
        in_sync_at, position = store.runner.state.in_sync_at, catalogue.position
        if in_sync_at is None or in_sync_at == self._in_sync_at or position is None:
            return
        self._in_sync_at = in_sync_at
        is_certain = self._central.orderly and self.has_seen_restores
        if not (is_certain and position.named == self._central.ledger.generation):
            return
        self.ages += 1
        age_seconds = self._loop.time() - in_sync_at
        more_seconds = self._unnoticed_seconds(was_told_early=self._store.was_told_early)
        last = self._history.last_offset_at(self._central.now() - age_seconds - more_seconds)
        if position.offset <= last and not self._is_shown(catalogue, position.offset, last):
            self.find(f"age {age_seconds:.3f} s at {position}, where {last} was published before")

    def _unnoticed_seconds(self, *, was_told_early: bool) -> float:
        """Return how much older than it says a store may be whose Central holds no polls: by the
        time that it takes one to be held for, until an empty answer came sooner (point 11 of the
        known limits, docs/reliability.md)."""
        holds = self._central.ledger.switches.has(Feature.HOLD)
        return 0.0 if holds or was_told_early else self._plan.wait_seconds

    def _is_shown(self, catalogue: Catalogue, offset: int, last: int) -> bool:
        """Return whether what happened up to `last` is shown though the position is behind it, as
        after pages that were installed without the feed (F2), or was lost. Products in doubt may be
        as readers saw them last (point 8 of the known limits, docs/reliability.md)."""
        feed, pending = self._history.feeds[-1], catalogue.pending_refetches
        changed = [i for i, states in feed.products.items() if offset <= states[-1][0]]
        return all(
            i in pending or feed.has_lost(i, last + 1) or feed.allows(i, last + 1, self._held(i))
            for i in changed
        )

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
            if self._replica is not None and catalogue is self._replica.catalogue:
                self._note_reading()  # one from disk is as old as before
        if position.label != self._label:
            if self._label:
                self._told.clear()  # damage may have taken what was told: another label says so
            self._label = position.label
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
        """Note how often Central had been restored under its own name when it sent the first page
        of the replica that was installed. Copies of its request may arrive later, and a comparison
        may ask for the first page, too: neither is in the replica."""
        since = self._reads_since
        read_at = min((at for at in self._central.readings if at >= since), default=0.0)
        times = self._history.unnamed_replacements
        self._unnamed_then = sum(at <= read_at for at in times)

    def _check_row(self, catalogue: Catalogue, product_id: str, body: bytes) -> None:
        look = _look(body)
        is_answered = product_id in catalogue.overrides or product_id in catalogue.pending_refetches
        states = self._explain(product_id, look, is_answered=is_answered)
        self._states[product_id] = states
        if not states:
            self.find(f"{product_id} is shown as {look}, which it never was")
        assert catalogue.position is not None
        label = catalogue.position.label
        if behind := self._marks.step_back(label, product_id, states):
            self.find(f"{product_id} went back to {look}, {behind}")
        is_pending = product_id in catalogue.pending_refetches  # point 4 of the known limits
        if not is_pending and (behind := self._told.step_back("", product_id, states)):
            self.find(f"{product_id} is shown as {look}, {behind}, which a till was told")
        self._marks.set(label, product_id, states)

    def _explain(self, product_id: str, look: Look, *, is_answered: bool) -> set[State]:
        """Return the states that a row may be. One that a write was answered for may have its
        version and quantity, and other attributes as they were before (W6)."""
        states = self._history.explain(product_id, look)
        if not states and is_answered:
            return self._history.explain_answer(product_id, look)
        return states

    def explain(self, row: dict[str, Any]) -> set[State]:
        """Return the states that a row that was shown may be."""
        return self._explain(row["productId"], look_of(row), is_answered=True)

    def _held(self, product_id: str) -> Collection[State | None]:
        return self._states.get(product_id, (None,))

    def _check_position(self, catalogue: Catalogue, offset: int) -> None:
        feeds = self._history.feeds
        if not self.has_seen_restores:
            return  # until the feed shows it, nothing tells readings of the restored one apart
        for number in (self._feed, *range(len(feeds) - 1, -1, -1)):
            if not self._behind(catalogue, number, offset):
                self._feed = number
                return
        best = min(range(len(feeds)), key=lambda n: len(self._behind(catalogue, n, offset)))
        behind = self._behind(catalogue, best, offset)
        states = {i: (self._held(i), feeds[best].products.get(i)) for i in behind}
        self.find(f"at offset {offset} these are behind their position: {states}")

    def _behind(self, catalogue: Catalogue, number: int, offset: int) -> list[str]:
        """Return the products that are neither as this feed has them at the position nor newer. A
        product that is to be refetched may be anything that it ever was, and an event that never
        appeared is made up for by the next full sync (F2)."""
        feed, pending = self._history.feeds[number], catalogue.pending_refetches
        behind = [
            product_id
            for product_id in feed.products
            if not feed.allows(product_id, offset, held := self._held(product_id))
            and product_id not in pending
            and not feed.has_lost(product_id, offset)
            and not (
                product_id in catalogue.overrides
                and self._history.is_ahead_of(number, product_id, held)
            )
        ]
        return behind + [i for i in self._states if i not in feed.products and i not in pending]

    # -- what happens ----------------------------------------------------------------------

    def died(self) -> None:
        """Note that the process died. What it showed binds the next one, unless it said otherwise
        (D5)."""
        if not self._store.is_trusted:
            self._marks.clear()
            self._told.clear()
            self._unnamed_then = 0  # what is on disk may be older than what was installed
        self._catalogue = None
        self._shadow = {}

    def started_from_disk(self, catalogue: Catalogue | None, last: LastShown) -> None:
        """Check that a start shows what the process before showed last (D2, D7), or a later change.

        A change is durable before it is visible, and a stop may come between: then the start shows
        what the process had recorded and not yet shown. Its rows must be Central's own and no
        older. No product comes or goes by it, since only writes are under way at the end.
        """
        if catalogue is not None and catalogue.rows == last.rows:
            return
        if (
            catalogue is None
            or catalogue.sequence <= last.sequence
            or catalogue.rows.keys() != last.rows.keys()
        ):
            found = None if catalogue is None else catalogue.rows
            self.find(f"a start from disk shows {found}, not {last.rows}")
            return
        self._check(catalogue)

    def was_shown(self, rows: list[dict[str, Any]], label: str, seen: Marks) -> None:
        """Check what a till was shown; `seen`: the watermarks when it asked."""
        if seen.replacements != self.replacements:
            return
        for row in rows:
            states = self.explain(row)
            if not states:
                self.find(f"a till was shown {row}, which it never was")
            if behind := seen.step_back(label, row["productId"], states):
                self.find(f"a till was shown {row}, {behind}")

    def was_applied(self, sale: Sale, result: dict[str, Any]) -> None:
        """Check that every read shows a write from when a till was told that it was applied."""
        store = self._store.parts
        if store is None or self.replacements != sale.replacements:
            return
        product_id = sale.product_id
        said = (result["newVersion"], result["newQuantity"])
        states = self._history.answered(product_id, *said)
        if not states:
            self.find(f"{product_id} was told to be {said}, which it never was")
            return
        catalogue = store.writer.catalogue
        held = self._states.get(product_id, ())
        if catalogue is None or _incarnations(held) & _incarnations(states):
            # An answer creates no product (W6): one that is not held is read whole.
            self._told.raise_to("", product_id, states)
        if catalogue is None or not held or product_id in catalogue.pending_refetches:
            return
        if behind := self._told.step_back("", product_id, held):
            self.find(f"{sale.key}: told {said}, and {held} is shown, {behind}")
