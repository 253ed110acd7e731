"""What streams tell of the store itself: its state, and how far it is in Central's feed."""

from __future__ import annotations

import math
from typing import Any

from store_cache.api.content.clock import Clock
from store_cache.api.content.freshness import FreshnessGauge, header_age
from store_cache.api.content.state import StateTracker
from store_cache.api.stream import blocks
from store_cache.writes.outbox.entry import State
from store_cache.writes.outbox.outbox import Outbox


class StreamState:
    """`number` goes up with each change of the state that is told; `last_event` tells that one."""

    def __init__(
        self,
        state: StateTracker,
        freshness: FreshnessGauge,
        clock: Clock,
        outbox: Outbox | None = None,
    ) -> None:
        self._outbox = outbox
        self._state = state
        self._freshness = freshness
        self._clock = clock
        self._shown: tuple[object, ...] = ()
        self.number = 0
        self.last_event = b""

    def update(self) -> bool:
        """Look at the store's state; return whether it has changed."""
        self._state.update()
        freshness = self._freshness.measure()
        counts = self._counts()
        shown = (self._state.name, freshness.is_stale, freshness.generation, counts)
        if shown == self._shown:
            return False
        self._shown = shown
        self.number += 1
        self.last_event = self.event()
        return True

    def event(self, event_id: bytes | None = None) -> bytes:
        """Return the event that tells the state as it is now."""
        since = self._clock.at(self._state.since)
        is_stale = self._freshness.measure().is_stale
        told: dict[str, Any] = {
            "state": self._state.name,
            "since": since,
            "age": self._age(),
            "stale": is_stale,
        }
        if (counts := self._counts()) is not None:
            told["outbox"] = counts
        return blocks.document("state", told | self._place(), event_id)

    def _counts(self) -> dict[str, int] | None:
        """Return how many writes wait in each state of the outbox; None if there is none."""
        if self._outbox is None:
            return None
        counts = self._outbox.counts
        return {
            "queued": counts[State.QUEUED],
            "sending": counts[State.SENDING],
            "inDoubt": counts[State.IN_DOUBT],
            "parked": counts[State.PARKED],
        }

    def ready(self, products: int, event_id: bytes) -> bytes:
        return blocks.document("ready", {"products": products} | self._place(), event_id)

    def position(self, event_id: bytes) -> bytes:
        return blocks.document("position", self._place() | {"age": self._age()}, event_id)

    def _place(self) -> dict[str, Any]:
        freshness = self._freshness.measure()
        return {"generation": freshness.generation, "offset": freshness.last_offset}

    def _age(self) -> int | None:
        """Return the age in whole seconds, rounded up; None if the store was never in sync."""
        age_seconds = self._freshness.measure().age_seconds
        return header_age(age_seconds) if math.isfinite(age_seconds) else None
