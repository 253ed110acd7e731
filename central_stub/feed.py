"""The event log: dense offsets from 1, bounded, and the disorder of some deployed Centrals.

Rules
- An event gets the next offset once; every offset is used once.
- A late event is either numbered late (its offset comes after those of younger writes, so versions
  arrive out of order) or published late (its offset is a gap until then, and it comes after younger
  events in a page). The caller decides what is late, and by how much.
- The log holds the newest events up to a limit. An offset below `first` is gone.
"""

import random
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]
"""One event as Central sends it, `offset` included once it is numbered."""

LONGEST_LATENESS_SECONDS = 0.11


@dataclass(frozen=True, slots=True)
class Lateness:
    """By how many seconds an event is numbered, or else published, after its write."""

    number_after_seconds: float = 0.0
    publish_after_seconds: float = 0.0


IN_ORDER = Lateness()


def draw_lateness(source: random.Random) -> Lateness:
    """Draw the lateness of one write of a Central whose writers race: seven in ten are in time."""
    fate, seconds = source.random(), source.uniform(0.005, LONGEST_LATENESS_SECONDS)
    if fate < 0.2:
        return Lateness(publish_after_seconds=seconds)
    return Lateness(number_after_seconds=seconds) if fate < 0.3 else IN_ORDER


@dataclass(frozen=True, slots=True)
class EventPage:
    """`next_offset` and `has_more` as Central claims; if events come late, they mislead."""

    events: tuple[Event, ...]
    next_offset: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Unnumbered:
    due_at: float
    event: Event


class Feed:
    """The log. `first` is the oldest offset held, `next` that of the next event."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start again at offset 1, without events: the feed of a new generation."""
        self.first = 1
        self.next = 1
        self._events: dict[int, Event] = {}
        self._unnumbered: dict[int, Unnumbered] = {}
        self._hidden_until: dict[int, float] = {}
        self._stands_at: dict[int, float] = {}

    @property
    def due_at(self) -> float | None:
        """When the next late event is numbered or published, or None."""
        if not self._unnumbered and not self._hidden_until:
            return None
        instants = [late.due_at for late in self._unnumbered.values()]
        instants.extend(self._hidden_until.values())
        return min(instants)

    def append(self, offset: int, event: Event) -> None:
        self._events[offset] = {"offset": offset, **event}
        self.next = max(self.next, offset + 1)

    def postpone(self, sequence: int, event: Event, due_at: float) -> None:
        """Hold an event without an offset until `number` is called for it."""
        self._unnumbered[sequence] = Unnumbered(due_at, event)

    def number(self, sequence: int, offset: int) -> None:
        self.append(offset, self._unnumbered.pop(sequence).event)

    def unnumbered_due(self, now: float) -> list[int]:
        """Return the sequence numbers of the events to number now, in the order they were due."""
        due = [(late.due_at, n) for n, late in self._unnumbered.items() if late.due_at <= now]
        return [sequence for _, sequence in sorted(due)]

    def hide(self, offset: int, until: float) -> None:
        self._hidden_until[offset] = until

    def reveal(self, now: float) -> bool:
        """Publish the late events that are due, and return whether there were any."""
        due = sorted((at, o) for o, at in self._hidden_until.items() if at <= now)
        for _, offset in due:
            del self._hidden_until[offset]
            self._stands_at[offset] = self.next - 0.5
        return bool(due)

    def lose(self, offset: int) -> None:
        """Drop one event: its offset stays a gap."""
        self._events.pop(offset, None)
        self._hidden_until.pop(offset, None)

    def cut(self, count: int) -> None:
        """Lose the last `count` offsets, which are then used again, and what is not numbered."""
        first_lost = max(self.next - count, self.first)
        for offset in range(first_lost, self.next):
            self.lose(offset)
            self._stands_at.pop(offset, None)
        self.next = first_lost
        self._unnumbered.clear()

    def trim(self, limit: int) -> None:
        self._forget_below(self.next - limit)

    def forget(self) -> None:
        """Forget every event; offsets continue."""
        self._forget_below(self.next)

    def reaches(self, offset: int) -> bool:
        """Return whether all events from `offset` on (0 counts as 1) are held."""
        return max(offset, 1) >= self.first

    def page(self, offset: int, limit: int) -> EventPage:
        """Return at most `limit` published events from `offset` on, in the order of publication."""
        found: list[int] = []
        at = max(offset, self.first)
        while at < self.next and len(found) < limit:
            if self._is_published(at):
                found.append(at)
            at += 1
        if self._stands_at:
            found.sort(key=lambda number: self._stands_at.get(number, number))
        more = any(self._is_published(number) for number in range(at, self.next))
        next_offset = found[-1] + 1 if found else min(max(offset, self.first), self.next)
        return EventPage(tuple(self._events[number] for number in found), next_offset, more)

    def event(self, offset: int) -> Event | None:
        """Return one event, published or not; None if it is not held."""
        return self._events.get(offset)

    def everything(self) -> list[Event]:
        """Return all numbered events, oldest first, published or not."""
        return list(self._events.values())

    def still_unnumbered(self) -> list[list[Any]]:
        """Return the arguments of `postpone` of each event that is not numbered yet."""
        return [[n, late.event, late.due_at] for n, late in self._unnumbered.items()]

    def refill(self, first: int, next_offset: int, events: list[Event]) -> None:
        """Replace the log by a stored one, whose events contain their offsets."""
        self.clear()
        self._events = {event["offset"]: event for event in events}
        self.first, self.next = first, next_offset

    def _is_published(self, offset: int) -> bool:
        return offset in self._events and offset not in self._hidden_until

    def _forget_below(self, first: int) -> None:
        for offset in range(self.first, first):
            self._events.pop(offset, None)
            self._hidden_until.pop(offset, None)
            self._stands_at.pop(offset, None)
        self.first = max(self.first, first)
