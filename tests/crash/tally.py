"""The numbers of a series: kills, and what was checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.crash.reports import NAMES, Activity


@dataclass
class Tally:
    """`during`: kills by what was under way; a kill may count several times. `never_kept`: writes
    that were not on disk when the process died."""

    kills: int = 0
    folders: int = 0
    starts: int = 0
    states: int = 0
    answers: int = 0
    never_kept: int = 0
    during: Counter[Activity] = field(default_factory=Counter)
    recoveries: int = 0
    at_calls: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"during": {int(a): n for a, n in self.during.items()}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        during = Counter({Activity(int(a)): n for a, n in value["during"].items()})
        return cls(**value | {"during": during, "at_calls": Counter(value["at_calls"])})

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        return [
            f"kills: {self.kills}, folders: {self.folders}, starts that went well: {self.starts}",
            *(f"  while {name + ':':28}{self.during[a]}" for a, name in NAMES.items()),
            f"  in the recovery of a kill:        {self.recoveries}",
            *(f"  at system call {n + ':':19}{times}" for n, times in self.at_calls.items()),
            f"states shown and checked: {self.states}",
            f"writes acknowledged: {self.answers}; asked, and not yet on disk: {self.never_kept}",
        ]
