"""The idempotency keys that Central remembers, each with the first answer given for it.

Keys are global, refusals are remembered too, and memory ends. A repeat is not compared with the
first request: deployed Centrals do not compare it either.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

Answer = dict[str, Any]
"""The body of a write's answer, with all fields."""


class Remembered(NamedTuple):
    key: str
    answered_at: float
    answer: Answer


class KeyMemory:
    """Answers by key, oldest first."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[str, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._remembered)

    def recall(self, key: str) -> Answer | None:
        remembered = self._remembered.get(key)
        return None if remembered is None else remembered.answer

    def keep(self, remembered: Remembered) -> None:
        self._remembered[remembered.key] = remembered
        self._remembered.move_to_end(remembered.key)

    def forget_before(self, instant: float) -> None:
        """Forget what was first answered at `instant` or earlier."""
        while self._remembered:
            oldest = next(iter(self._remembered.values()))
            if oldest.answered_at > instant:
                return
            self._remembered.popitem(last=False)

    def forget(self, key: str) -> None:
        self._remembered.pop(key, None)

    def forget_all(self) -> None:
        self._remembered.clear()

    def everything(self) -> list[Remembered]:
        return list(self._remembered.values())
