"""What of a page is published next: pure.

A stream has one message for each offset, in order, so nothing is published beyond an offset that is
missing. A missing one may appear a moment later; one that stays missing becomes a gap.
"""

from __future__ import annotations

from dataclasses import dataclass

from central_stub.publisher.pages import FeedPage

PATIENCE_SECONDS = 2.0
"""How late an event may appear on the feed. Stores ask Central itself about what became a gap, so
this decides only how soon."""

MOST_GAPS = 10_000
"""Messages of a gap that are written at once; a longer one goes on with the next page."""

GAP = b""
"""The message of an offset for which there is no event."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Publish `messages` from the offset asked for on.

    `is_missing`: the event after them is missing, while Central has later ones. `is_at_end`:
    nothing follows them, so Central's feed ends there.
    """

    messages: tuple[bytes, ...] = ()
    is_missing: bool = False
    is_at_end: bool = False


def plan(page: FeedPage, *, offset: int, limit: int, missing_seconds: float) -> Plan:
    """Say what to publish of a page that was asked for from `offset` on.

    `missing_seconds`: for how long the event at `offset` has been missing when it was asked for.
    """
    last = max(page.events, default=-1)
    end = max(last + 1, page.leads_to or 0)
    ready: list[bytes] = []
    while (message := page.events.get(offset + len(ready))) is not None:
        ready.append(message)
    follows = offset + len(ready)
    if ready or end <= offset:
        is_full = len(page.events) >= limit if page.has_more is None else page.has_more
        return Plan(tuple(ready), end > follows, end <= follows and not is_full)
    if missing_seconds < PATIENCE_SECONDS:
        return Plan(is_missing=True)
    present = min((each for each in page.events if each > offset), default=end)
    return Plan((GAP,) * min(present - offset, MOST_GAPS))
