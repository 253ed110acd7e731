"""What the publisher says of the stream, and how old that is.

Its times are in seconds of the NATS server's clock. The store knows that clock from the server's
answers: each shows that a time of the server came after the request was sent. So ages are never
smaller than the truth, whatever the clocks of the store and the publisher say. They rest on the
servers' own clocks: those of a cluster or of leaf nodes have to agree (NTP).

Pure: times are passed in, in seconds of the store's uptime.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

SILENT_SECONDS = 15.0
"""An older report says nothing of now: the server, the publisher or Central is away."""


@dataclass(frozen=True, slots=True)
class Report:
    """At `at` Central's feed ended with the offset `head`, and `stream` has all of it.

    `created`: of the stream, to tell it from one of the same name that took its place. `since`:
    since when Central has answered the publisher without a failure; None if it does not say so.
    `received_at`: when the report came, by the store's uptime.
    """

    stream: str
    generation: str
    created: str
    head: int
    at: float
    since: float | None
    received_at: float

    def means(self, stream: str, created: str) -> bool:
        """Whether this tells of that stream."""
        return (self.stream, self.created) == (stream, created)


def read_report(data: bytes, now: float) -> Report | None:
    """Return the report, or None if the bytes are none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    stream, generation = value.get("stream"), value.get("generation")
    created, head, at = value.get("created"), value.get("head"), value.get("at")
    if not (isinstance(stream, str) and isinstance(generation, str) and stream and generation):
        return None
    if not isinstance(created, str):
        return None
    if type(head) is not int or not isinstance(at, int | float):
        return None
    since = value.get("since")
    since = float(since) if isinstance(since, int | float) else None
    return Report(stream, generation, created, head, float(at), since, now)


class ServerClock:
    """The server's clock against the store's uptime."""

    def __init__(self) -> None:
        self._zero: float | None = None

    def note(self, server_time: float, *, asked_at: float) -> None:
        """The server answered with its time to a request that was sent at `asked_at`."""
        self._zero = asked_at - server_time

    def true_at(self, report: Report) -> float | None:
        """Return when the report was true, or a little earlier, by the store's uptime; None if the
        server's clock is not known."""
        return None if self._zero is None else min(self._zero + report.at, report.received_at)


def supersedes(report: Report, before: Report | None, age_before: float | None) -> bool:
    """Whether a report takes the place of the one before it. Of two publishers one may lag: an
    earlier statement is dropped, unless all that was heard for long is earlier (the server's clock
    was set back)."""
    if before is None or report.at >= before.at:
        return True
    return age_before is None or age_before > SILENT_SECONDS
