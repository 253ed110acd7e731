"""What really happened at Central: every state of every product, in every feed that it ever had."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

State = tuple[int, int, int]
"""A product's incarnation (each creation begins one), version and stock. None: no product."""


def state_of(row: dict[str, Any]) -> State:
    return row["life"], row["version"], row.get("available", 0)


@dataclass
class FeedHistory:
    """One feed: the states that each product took, by the offset that brought them, in order."""

    products: dict[str, list[tuple[int, State | None]]] = field(default_factory=dict)

    def add(self, product_id: str, offset: int, state: State | None) -> None:
        self.products.setdefault(product_id, []).append((offset, state))

    def newest(self, product_id: str) -> State | None:
        states = self.products.get(product_id)
        return states[-1][1] if states else None

    def allows(self, product_id: str, offset: int, held: State | None) -> bool:
        """Return whether `held` is the state at this position (the next offset), or a later one."""
        for place, state in reversed(self.products.get(product_id, ())):
            if place < offset or state == held:
                return state == held
        return held is None

    def copy(self) -> FeedHistory:
        return FeedHistory({i: list(states) for i, states in self.products.items()})


@dataclass
class BackedUp:
    """What a backup of Central holds."""

    feed: FeedHistory
    applied: Counter[str]


class History:
    """Give `record` to a ledger. `now` returns unix seconds. `feeds`: the newest last. `applied`:
    how often each key was, in the history of the products that Central now has. `known`: the states
    in it, by product, that no restore has undone. `mistakable`: incarnations whose first event on
    the feed has the version of the one before, while the end of that is still to come: nothing
    tells such an event from a repeated version (V1)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.feeds = [FeedHistory()]
        self.applied: Counter[str] = Counter()
        self.ever_applied: Counter[str] = Counter()
        self.states: dict[str, set[State]] = {}
        self.events = 0
        self.replacements = 0
        self.unnamed_replacements: list[float] = []
        self.times_forgotten = 0
        self.known: dict[str, set[State]] = {}
        self.mistakable: set[tuple[str, int]] = set()
        self._appliers: dict[str, list[tuple[int, int]]] = {}
        self._unnumbered: dict[int, tuple[str, State | None]] = {}
        self._current: dict[str, State | None] = {}
        self._now = now
        self._numbered: list[tuple[float, int]] = []

    def last_offset_at(self, unix_seconds: float) -> int:
        """Return the last offset that the newest feed had at that time; -1 if it is not known."""
        numbered = bisect_left(self._numbered, (unix_seconds, -1))
        return self._numbered[numbered - 1][1] if numbered else -1

    def record(self, change: dict[str, Any]) -> None:
        match change["op"]:
            case "write":
                self._write(change)
            case "numbered":
                product_id, state = self._unnumbered.pop(change["sequence"])
                self._number(product_id, change["offset"], state)
            case "generation":
                self._begin_feed()

    def memory(self) -> BackedUp:
        return BackedUp(self.feeds[-1].copy(), self.applied.copy())

    def restored(self, memory: BackedUp, *, keeps_name_at: float | None) -> None:
        """Note a restore. `keeps_name_at`: the loop's time, if Central keeps the name of its feed;
        else None."""
        self.feeds.append(memory.feed.copy())
        self.applied = memory.applied.copy()
        self.replacements += 1
        self._numbered.clear()
        if keeps_name_at is not None:
            self.unnamed_replacements.append(keeps_name_at)
        self._unnumbered.clear()
        self._current = {i: states[-1][1] for i, states in memory.feed.products.items()}
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
        self._numbered.clear()
        self._unnumbered.clear()
        self._note_known()

    def _note_known(self) -> None:
        self.known = {
            product_id: {state for _, state in states if state is not None}
            for product_id, states in self.feeds[-1].products.items()
        }

    def _write(self, change: dict[str, Any]) -> None:
        event = change["event"]
        product_id = event["productId"]
        gone = event["eventType"] == "product_deleted"
        state = None if gone else state_of(event["data"])
        self.events += 1
        self._current[product_id] = state
        if state is not None:
            self.states.setdefault(product_id, set()).add(state)
            self.known.setdefault(product_id, set()).add(state)
        if (key := event.get("idempotencyKey")) is not None:
            self.applied[key] += 1
            self._count(key, event["data"]["life"])
        if change["offset"] is None:
            self._unnumbered[change["sequence"]] = (product_id, state)
        else:
            self._number(product_id, change["offset"], state)

    def _number(self, product_id: str, offset: int, state: State | None) -> None:
        before = self.feeds[-1].newest(product_id)
        if state is not None and before is not None and _is_mistakable(before, state):
            self.mistakable.add((product_id, state[0]))
        self.feeds[-1].add(product_id, offset, state)
        self._numbered.append((self._now(), offset))


def _is_mistakable(before: State, state: State) -> bool:
    return state[0] > before[0] and state[1] == before[1]
