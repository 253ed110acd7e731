"""A digest of a catalogue: how many rows each bucket has, and the sum of their hashes.

docs/digest.md defines both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Digest:
    """`next_offset`: it is the state after all events below that. `rows` and `sums` have one entry
    per bucket; a sum is below 2^128."""

    next_offset: int
    rows: Sequence[int]
    sums: Sequence[int]
    generation: str | None = None

    @property
    def buckets(self) -> int:
        return len(self.rows)
