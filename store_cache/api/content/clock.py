"""Moments and durations as the documents of the API show them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Two times: `now` in unix seconds, which somebody may set, and `uptime`, which nobody sets and
    which also counts the seconds in which the machine is suspended. Ages are measured by it."""

    def __init__(self, now: Callable[[], float], uptime: Callable[[], float]) -> None:
        self.now = now
        self.uptime = uptime

    def at(self, uptime: float) -> str:
        """Return a moment of the uptime in RFC 3339."""
        return rfc3339(self.now() - (self.uptime() - uptime))


def rfc3339(unix_seconds: float) -> str:
    moment = datetime.fromtimestamp(unix_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short_duration(seconds: float) -> str:
    """Return a duration for a person: `1.2s`, `4m10s`, `1h30m45s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
