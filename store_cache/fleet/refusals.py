"""What of Central's data the store last refused, and why.

The position in a report says what was accepted, this what was not: as ACK and NACK of a control
plane (xDS), which tell its people at once that what they have sent is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from store_cache.model.event import QuarantinedEvent
from store_cache.sync.states import Failure, FullSyncRecord, State


class Refused(StrEnum):
    """What was refused: one event, an answer that cannot be read, or a whole catalogue."""

    EVENT = "event"
    ANSWER = "answer"
    CATALOGUE = "catalogue"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`offset`: of the event, if it was one. `at`: seconds of the uptime."""

    what: Refused
    reason: str
    at: float
    offset: int | None = None


class Refusals:
    """Keeps the last refusal. `look` is called after every step of the sync."""

    def __init__(self) -> None:
        self.last: Refusal | None = None
        self._quarantined: QuarantinedEvent | None = None
        self._unreadable = ""
        self._full_syncs: tuple[FullSyncRecord, ...] = ()

    def look(self, state: State, quarantined: QuarantinedEvent | None, now: float) -> None:
        """Note what the last step refused. `quarantined`: the last event that was set aside; `now`:
        the uptime."""
        if quarantined is not self._quarantined and quarantined is not None:
            self._quarantined = quarantined
            self.last = Refusal(Refused.EVENT, quarantined.reason, now, quarantined.offset)
        unreadable = state.health.problem if state.health.failure is Failure.UNREADABLE else ""
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            if unreadable:
                self.last = Refusal(Refused.ANSWER, unreadable, now)
        if state.full_syncs is not self._full_syncs:
            self._note_full_syncs(state.full_syncs, now)

    def _note_full_syncs(self, ended: tuple[FullSyncRecord, ...], now: float) -> None:
        """A full sync that failed otherwise than by the connection has refused the catalogue."""
        for record in ended:
            if record not in self._full_syncs and record.problem and record.failure is None:
                self.last = Refusal(Refused.CATALOGUE, record.problem, now)
        self._full_syncs = ended
