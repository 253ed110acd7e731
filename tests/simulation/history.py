"""What really happened at Central: every state of every product, in every feed that it ever had.

Rows do not name the incarnation that they belong to: two incarnations may look alike, here as at
any Central. What a reader was shown is explained by all states that look like it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Attributes = tuple[tuple[str, Any], ...]
OWN = {"productId", "version", "available", "lastUpdated"}
PENDING = {"pendingDelta", "expectedAvailable", "oversold"}
"""What a store adds of its own queued writes."""


class Look(NamedTuple):
    """What a row shows. `rest`: the attributes that an answer to a write does not tell."""

    version: int
    available: int
    updated: str
    rest: Attributes


class State(NamedTuple):
    """A state of a product at Central. `incarnation`: each creation begins one."""

    incarnation: int
    look: Look

    @property
    def told(self) -> Told:
        """What an answer to a write tells of it."""
        return self.incarnation, *self.look[:3]


Told = tuple[int, int, int, str]
"""Incarnation, version, stock and time of a state."""


def look_of(row: dict[str, Any]) -> Look:
    """Return the look of a row; some Centrals leave out what is empty or zero."""
    others = row.keys() - OWN - PENDING
    rest = sorted((name, row[name]) for name in others if row[name])
    return Look(row["version"], row.get("available", 0), row["lastUpdated"], tuple(rest))


@dataclass
class FeedHistory:
    """One feed: the states that each product took, by the offset that brought them, in order; None:
    no product. `lost`: the offsets of events that never appeared, by product."""

    products: dict[str, list[tuple[int, State | None]]] = field(default_factory=dict)
    lost: dict[str, list[int]] = field(default_factory=dict)

    def add(self, product_id: str, offset: int, state: State | None) -> None:
        self.products.setdefault(product_id, []).append((offset, state))

    def newest(self, product_id: str) -> State | None:
        states = self.products.get(product_id)
        return states[-1][1] if states else None

    def allows(self, product_id: str, offset: int, held: Iterable[State | None]) -> bool:
        """Return whether one of `held` is the state at this position (the next offset), or a later
        one. None: the product is not held."""
        told = {None if state is None else state.told for state in held}
        for place, state in reversed(self.products.get(product_id, ())):
            is_held = (None if state is None else state.told) in told
            if place < offset or is_held:
                return is_held
        return None in told

    def has_lost(self, product_id: str, offset: int) -> bool:
        """Return whether an event of the product before this position never appeared."""
        return any(place < offset for place in self.lost.get(product_id, ()))

    def disturb(self, product_id: str) -> None:
        """Note that the product is not as the feed has it: nothing tells of its present state."""
        self.lost.setdefault(product_id, []).append(-1)

    def cut(self, count: int) -> list[str]:
        """Forget the last offsets; return the products that have lost something."""
        places = [place for states in self.products.values() for place, _ in states]
        first = max(places, default=0) + 1 - count
        changed = [i for i, states in self.products.items() if states[-1][0] >= first]
        for product_id in changed:
            kept = [each for each in self.products[product_id] if each[0] < first]
            self.products[product_id] = kept or [(0, None)]
        return changed

    def lose(self, offset: int) -> None:
        for product_id, states in self.products.items():
            if states[-1][0] == offset:
                self.lost.setdefault(product_id, []).append(offset)

    def copy(self) -> FeedHistory:
        return FeedHistory(
            {i: list(states) for i, states in self.products.items()},
            {i: list(offsets) for i, offsets in self.lost.items()},
        )


@dataclass
class BackedUp:
    """What a backup of Central holds."""

    feed: FeedHistory
    applied: Counter[str]
    current: dict[str, State | None]


class History:
    """Give `record` to a ledger. `now` returns unix seconds. `feeds`: the newest last. `applied`:
    how often each key was, in the history of the products that Central now has. `states`: all that
    ever were, by product. `known`: those in the present history, which no restore has undone.
    `mistakable`: incarnations whose first event on the feed has the version of the one before,
    while the end of that is still to come: nothing tells such an event from a repeated version
    (V1); and two that look alike at some version, with those between them: a store that takes the
    older one's event for the younger one's follows the feed through all of them. `disturbed`:
    products that changed without an event. `keys`: of the write that brought a product to a state.
    `undone`: how often anything was undone."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.feeds = [FeedHistory()]
        self.applied: Counter[str] = Counter()
        self.ever_applied: Counter[str] = Counter()
        self.states: dict[str, set[State]] = {}
        self.events = 0
        self.replacements = 0
        self.undone = 0
        self.disturbed: set[str] = set()
        self.unnamed_replacements: list[float] = []
        self.times_forgotten = 0
        self.known: dict[str, set[State]] = {}
        self.mistakable: set[tuple[str, int]] = set()
        self.keys: dict[tuple[str, State], str] = {}
        self._looks: dict[str, dict[Look, set[State]]] = {}
        self._incarnations = 0
        self._appliers: dict[str, list[tuple[int, int]]] = {}
        self._unnumbered: dict[int, tuple[str, State | None]] = {}
        self._current: dict[str, State | None] = {}
        self._now = now
        self._numbered: list[tuple[float, int]] = []

    def last_offset_at(self, unix_seconds: float) -> int:
        """Return the last offset that the newest feed had at that time; -1 if it is not known."""
        numbered = bisect_left(self._numbered, (unix_seconds, -1))
        return self._numbered[numbered - 1][1] if numbered else -1

    # -- what a row may be -----------------------------------------------------------------

    def explain(self, product_id: str, look: Look) -> set[State]:
        """Return the states that look so, of whatever incarnation; empty if none ever did."""
        return self._looks.get(product_id, {}).get(look, set())

    def explain_answer(self, product_id: str, look: Look) -> set[State]:
        """Return the states that look so as far as an answer to a write tells. The attributes that
        it does not tell may be those of any state: it may cross the beginning of an incarnation."""
        states = self.states.get(product_id, ())
        if not any(state.look.rest == look.rest for state in states):
            return set()
        return {state for state in states if state.look[:3] == look[:3]}

    def answered(self, product_id: str, version: int, available: int) -> set[State]:
        """Return the states that an answer of this version and quantity may tell of."""
        said = (version, available)
        return {s for s in self.states.get(product_id, ()) if s.look[:2] == said}

    def is_ahead_of(self, number: int, product_id: str, held: Collection[State | None]) -> bool:
        """Return whether one of these has happened, and has no place on the feed of this number:
        its event has no offset yet, or the feed was replaced before."""
        if any(i == product_id and state in held for i, state in self._unnumbered.values()):
            return True
        later = (feed.products.get(product_id, ()) for feed in self.feeds[number + 1 :])
        return any(state in held for states in later for _, state in states)

    def may_differ(self, product_id: str) -> bool:
        """Return whether something explains that a store that follows the feed holds the product
        otherwise than Central: a lie, a lost event, or a restore that kept Central's name."""
        is_lost = any(product_id in feed.lost for feed in self.feeds)
        return bool(self.unnamed_replacements) or is_lost or product_id in self.disturbed

    # -- what happens ----------------------------------------------------------------------

    def record(self, change: dict[str, Any]) -> None:
        match change["op"]:
            case "write":
                self._write(change)
            case "numbered":
                product_id, state = self._unnumbered.pop(change["sequence"])
                self._number(product_id, change["offset"], state)
            case "lost":
                self.feeds[-1].lose(change["offset"])
            case "lie":
                self._disturb(change["productId"], change["row"])
            case "stock_lost":
                self._lose_stock(change["rows"])
            case "log_cut":
                self._cut_log(change["count"])
            case "generation":
                self._begin_feed()

    def _disturb(self, product_id: str, row: dict[str, Any] | None) -> None:
        """Note that Central now has the product so, without an event."""
        before, state = self._current.get(product_id), None
        if row is not None:
            if before is None:
                self._incarnations += 1
            incarnation = self._incarnations if before is None else before.incarnation
            state = State(incarnation, look_of(row))
            self._note(product_id, state)
        self._current[product_id] = state
        self.known[product_id] = set() if state is None else {state}
        self.feeds[-1].disturb(product_id)
        self.disturbed.add(product_id)
        self.undone += 1

    def _lose_stock(self, rows: dict[str, dict[str, Any] | None]) -> None:
        """Note that writes were undone though their events stay: Central knows nothing of them, and
        may apply them once more."""
        for product_id, row in rows.items():
            self._disturb(product_id, row)
        self.replacements += 1

    def _cut_log(self, count: int) -> None:
        """Note that the last events are gone though what they brought stays: their offsets are used
        again. A store that has followed them cannot know that it misses the next ones."""
        feed = self.feeds[-1].copy()
        lost = [i for i, state in self._unnumbered.values()]
        self._unnumbered.clear()
        lost += feed.cut(count)
        self.feeds.append(feed)
        for product_id in lost:
            feed.disturb(product_id)
        self._numbered.clear()
        self.undone += 1
        self.unnamed_replacements.append(self._now())

    def memory(self) -> BackedUp:
        return BackedUp(self.feeds[-1].copy(), self.applied.copy(), dict(self._current))

    def restored(self, memory: BackedUp, *, keeps_name: bool) -> None:
        """Note a restore, after which Central may keep the name of its feed."""
        self.feeds.append(memory.feed.copy())
        self.applied = memory.applied.copy()
        self.replacements += 1
        self.undone += 1
        self._numbered.clear()
        if keeps_name:
            self.unnamed_replacements.append(self._now())
        self._unnumbered.clear()
        self._current = dict(memory.current)
        self._note_known()

    def forgotten(self) -> None:
        """Note that Central has forgotten the keys of all writes, as after a day."""
        self.times_forgotten += 1

    def _count(self, key: str, incarnation: int) -> None:
        """Count a write once as long as Central knows its key. After that only the version prevents
        a second application, and another incarnation may have come to the same version."""
        known = self._appliers.setdefault(key, [])
        now = (self.times_forgotten, incarnation)
        if not known or any(now[0] == then or now[1] == other for then, other in known):
            self.ever_applied[key] += 1
        known.append(now)

    def _begin_feed(self) -> None:
        feed = FeedHistory()
        for product_id, state in self._current.items():
            feed.add(product_id, 0, state)
        self.feeds.append(feed)
        self.replacements += 1
        self.undone += 1
        self._numbered.clear()
        self._unnumbered.clear()
        self._note_known()

    def _note_known(self) -> None:
        feed = self.feeds[-1]
        self.known = {
            product_id: {state for _, state in states if state is not None}
            for product_id, states in feed.products.items()
            if not feed.has_lost(product_id, 0)  # its events tell of what Central has lost
        }
        for product_id, state in self._current.items():
            if state is not None:
                self.known.setdefault(product_id, set()).add(state)

    def _write(self, change: dict[str, Any]) -> None:
        event = change["event"]
        product_id = event["productId"]
        state = self._state(event)
        self.events += 1
        self._current[product_id] = state
        if state is not None:
            self._note(product_id, state)
            self.known.setdefault(product_id, set()).add(state)
        if (key := event.get("idempotencyKey")) is not None and state is not None:
            self.applied[key] += 1
            self.keys[product_id, state] = key
            self._count(key, state.incarnation)
        if change["offset"] is None:
            self._unnumbered[change["sequence"]] = (product_id, state)
        else:
            self._number(product_id, change["offset"], state)

    def _state(self, event: dict[str, Any]) -> State | None:
        match event["eventType"]:
            case "product_deleted":
                return None
            case "product_created":
                self._incarnations += 1
                return State(self._incarnations, look_of(event["data"]))
        before = self._current[event["productId"]]
        assert before is not None
        return State(before.incarnation, look_of(event["data"]))

    def _note(self, product_id: str, state: State) -> None:
        for other in self.states.get(product_id, ()):
            if _look_alike(other, state):
                first, last = sorted((other.incarnation, state.incarnation))
                self.mistakable |= {(product_id, number) for number in range(first, last + 1)}
        self.states.setdefault(product_id, set()).add(state)
        self._looks.setdefault(product_id, {}).setdefault(state.look, set()).add(state)

    def _number(self, product_id: str, offset: int, state: State | None) -> None:
        before = self.feeds[-1].newest(product_id)
        if state is not None and before is not None and _is_mistakable(before, state):
            self.mistakable.add((product_id, state.incarnation))
        self.feeds[-1].add(product_id, offset, state)
        self._numbered.append((self._now(), offset))


def _look_alike(one: State, other: State) -> bool:
    """Return whether nothing tells one state from that of another incarnation (point 2 of the known
    limits, docs/reliability.md)."""
    ours, theirs = one.look, other.look
    has_same = ours.rest == theirs.rest or ours.updated == theirs.updated
    return one.incarnation != other.incarnation and ours[:2] == theirs[:2] and has_same


def _is_mistakable(before: State, state: State) -> bool:
    is_next = state.incarnation > before.incarnation
    return is_next and state.look.version == before.look.version
