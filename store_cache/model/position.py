"""Where in Central's feed the cache stands: generation, next offset, fingerprint (P1, E4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

LOCAL_PREFIX = "local "
"""Prefix of generations that the store names itself because Central names none. A name that Central
sends in a header cannot contain the blank."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one generation of the feed.

    `offset`: the next one wanted, not the last one seen. `fingerprint`: of the event at
    `offset - 1`; None if that one was never seen.
    """

    generation: str
    offset: int
    fingerprint: str | None = None

    @property
    def last_offset(self) -> int:
        """Offset of the last event that the rows reflect; 0 before the first."""
        return max(self.offset - 1, 0)

    @property
    def is_local(self) -> bool:
        return self.generation.startswith(LOCAL_PREFIX)

    @property
    def named(self) -> str | None:
        """The generation as Central names it; None if it names none."""
        return None if self.is_local else self.generation.partition(" ")[0]

    @property
    def label(self) -> str:
        """The generation as the store's answers show it, one token. It shows a till that Central
        was replaced, even if Central itself does not (promise 2)."""
        return self.generation.replace(" ", "~")

    def renamed(self, generation: str) -> Position:
        return replace(self, generation=generation)

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "offset": self.offset,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        return cls(str(value["generation"]), int(value["offset"]), value["fingerprint"])


def succeeding_generation(held: str | None, named: str | None) -> str:
    """Return a name for the feed that replaced `held`; Central calls it `named`, if anything.

    It always differs from `held`, so that offsets of the old feed are not used in the new one (P1).
    A Central restored from a backup keeps its name, so the store adds a number.
    """
    if named is None:
        return next_local_generation(held)
    before, _, number = (held or "").partition(" ")
    return named if before != named else f"{named} {int(number or 1) + 1}"


def next_local_generation(held: str | None) -> str:
    """Return the store's own name for the feed after `held`."""
    if held is None or not held.startswith(LOCAL_PREFIX):
        return f"{LOCAL_PREFIX}1"
    return f"{LOCAL_PREFIX}{int(held.removeprefix(LOCAL_PREFIX)) + 1}"
