"""Where in Central's feed the cache stands (P1).

Knows: generation, next offset, and the fingerprint of the event before it (E4).
Refuses to know: how events are fetched or applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

LOCAL_PREFIX = "local "
"""Generations that the store names itself, where Central names none, start with this; the blank
cannot be part of a name that Central sends in a header."""


@dataclass(frozen=True, slots=True)
class Position:
    """`offset` is the next one wanted, not the last one seen; it counts in `generation` alone.

    `fingerprint` identifies the event at `offset - 1`, or is None where that one was never seen.
    """

    generation: str
    offset: int
    fingerprint: str | None = None

    @property
    def last_offset(self) -> int:
        """Offset of the last event that the data reflects; 0 before the first."""
        return max(self.offset - 1, 0)

    @property
    def is_local(self) -> bool:
        return self.generation.startswith(LOCAL_PREFIX)

    @property
    def named(self) -> str | None:
        """The generation as Central names it; None where it names none."""
        return None if self.is_local else self.generation.partition(" ")[0]

    @property
    def label(self) -> str:
        """The generation as answers show it, one token: a till sees that Central was replaced,
        also where Central itself does not say so (promise 2)."""
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
    """The generation of the feed that replaced `held`, which Central calls `named`, or None.

    It differs from `held` with every sign of a replaced Central, so that offsets of the old feed
    are worth nothing (P1): a Central restored from a backup keeps its name, and gets a number.
    """
    if named is None:
        return next_local_generation(held)
    before, _, number = (held or "").partition(" ")
    return named if before != named else f"{named} {int(number or 1) + 1}"


def next_local_generation(held: str | None) -> str:
    """The store's own name for the feed after `held`, where Central names none."""
    if held is None or not held.startswith(LOCAL_PREFIX):
        return f"{LOCAL_PREFIX}1"
    return f"{LOCAL_PREFIX}{int(held.removeprefix(LOCAL_PREFIX)) + 1}"
