"""What really happened at Central: every state of every product, in every feed it ever had.

Knows: by Central's own record, which state belongs to which offset, and which key was applied.
Refuses to know: what any store made of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

State = tuple[int, int, int]
"""A product's life (each creation begins one), version and stock. No product: None."""


def state_of(row: dict[str, Any]) -> State:
    return row["life"], row["version"], row.get("available", 0)


@dataclass
class Feed:
    """One feed: the states that each product took, by the offset that brought them, in order."""

    products: dict[str, list[tuple[int, State | None]]] = field(default_factory=dict)

    def add(self, product_id: str, offset: int, state: State | None) -> None:
        self.products.setdefault(product_id, []).append((offset, state))

    def newest(self, product_id: str) -> State | None:
        states = self.products.get(product_id)
        return states[-1][1] if states else None

    def allows(self, product_id: str, offset: int, held: State | None) -> bool:
        """Whether `held` is the state at this position (the next offset), or a later one."""
        for place, state in reversed(self.products.get(product_id, ())):
            if place < offset or state == held:
                return state == held
        return held is None

    def copy(self) -> Feed:
        return Feed({i: list(states) for i, states in self.products.items()})


@dataclass
class Memory:
    """What a backup keeps."""

    feed: Feed
    applied: Counter[str]


class History:
    """Give `record` to a ledger. `feeds`: the newest last. `applied`: how often each key was, in
    the history that the products at Central now have. `known`: the states in it, by product, that a
    restore has not undone and the newest feed goes on from. `mistakable`: the lives of which the
    feed tells first where the one before was at that very version and its end is still to come;
    nothing tells such an event from a repeat of a version (V1)."""

    def __init__(self) -> None:
        self.feeds = [Feed()]
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

    def record(self, change: dict[str, Any]) -> None:
        match change["op"]:
            case "write":
                self._write(change)
            case "numbered":
                product_id, state = self._unnumbered.pop(change["sequence"])
                self._number(product_id, change["offset"], state)
            case "generation":
                self._begin_feed()

    def memory(self) -> Memory:
        return Memory(self.feeds[-1].copy(), self.applied.copy())

    def restored(self, memory: Memory, *, keeps_name_at: float | None) -> None:
        """Central is what it was then, and says so by another name, or does not: the loop's time
        of a restore that keeps the name, else None."""
        self.feeds.append(memory.feed.copy())
        self.applied = memory.applied.copy()
        self.replacements += 1
        if keeps_name_at is not None:
            self.unnamed_replacements.append(keeps_name_at)
        self._unnumbered.clear()
        self._current = {i: states[-1][1] for i, states in memory.feed.products.items()}
        self._note_known()

    def forgotten(self) -> None:
        """Central has forgotten the keys of all writes: a day has passed."""
        self.times_forgotten += 1

    def _count(self, key: str, life: int) -> None:
        """Beyond Central's memory of keys only the version keeps a repeat from being applied twice,
        and another life of the product may have come to the same one."""
        known = self._appliers.setdefault(key, [])
        now = (self.times_forgotten, life)
        if not known or any(now[0] == then or now[1] == other for then, other in known):
            self.ever_applied[key] += 1
        known.append(now)

    def _begin_feed(self) -> None:
        feed = Feed()
        for product_id, state in self._current.items():
            feed.add(product_id, 0, state)
        self.feeds.append(feed)
        self.replacements += 1
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


def _is_mistakable(before: State, state: State) -> bool:
    return state[0] > before[0] and state[1] == before[1]
