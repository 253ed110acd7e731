"""The newest versions that readers were shown, which nothing shown later may go behind.

A mark is set where a row can be of one incarnation only. A row that looks like several is wrong
only if it would go back in each of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tests.simulation.history import History, State

Place = tuple[str, str, int]
"""Generation as shown, product, incarnation."""


@dataclass
class Marks:
    """`replacements`: how often Central had been replaced, and `undone`: how often anything was
    undone there, when the marks were looked through last."""

    history: History
    replacements: int = 0
    undone: int = 0
    _states: dict[Place, State] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._states)

    def copy(self) -> Marks:
        return Marks(self.history, self.replacements, self.undone, dict(self._states))

    def clear(self) -> None:
        self._states.clear()

    def forget_what_is_undone(self) -> None:
        """Drop what a restore has undone, even if it happens at Central again."""
        if self.undone == self.history.undone:
            return
        self.undone, self.replacements = self.history.undone, self.history.replacements
        marks = self._states.items()
        self._states = {place: mark for place, mark in marks if self._is_known(place[1], mark)}

    def step_back(self, label: str, product_id: str, states: Collection[State]) -> str:
        """Return what a row goes back behind, if it does. `states`: all that look like it."""
        behind = []
        for state in states:
            mark = self._states.get((label, product_id, state.incarnation))
            if mark is None or mark.look.version <= state.look.version:
                return ""
            if (product_id, state.incarnation) in self.history.mistakable:
                return ""  # points 2 and 5 of the known limits, docs/reliability.md
            behind.append(mark)
        return f"behind {behind}" if behind else ""

    def set(self, label: str, product_id: str, states: Collection[State]) -> None:
        """Note that a row was shown."""
        if len(states) == 1:
            (state,) = states
            place = (label, product_id, state.incarnation)
            if self._is_known(product_id, state):
                self._states[place] = state
            else:
                self._states.pop(place, None)

    def raise_to(self, label: str, product_id: str, states: Collection[State]) -> None:
        """Note what was told, which may be less than what was told before."""
        if not self.step_back(label, product_id, states):
            self.set(label, product_id, states)

    def _is_known(self, product_id: str, state: State) -> bool:
        return state in self.history.known.get(product_id, ())
