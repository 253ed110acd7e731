"""The rate limit per address.

A window begins with an address's first request and lasts a minute.
"""

from dataclasses import dataclass

WINDOW_SECONDS = 60.0
MOST_ADDRESSES = 10_000
"""Above this, ended windows are dropped, so that strangers cannot fill the memory."""


@dataclass(slots=True)
class Window:
    ends_at: float
    count: int


class Limiter:
    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}

    def count(self, address: str, now: float) -> Window:
        """Count one request, and return the window it belongs to."""
        window = self._windows.get(address)
        if window is None or window.ends_at <= now:
            self._drop_ended(now)
            window = self._windows[address] = Window(now + WINDOW_SECONDS, 0)
        window.count += 1
        return window

    def forget(self) -> None:
        """Drop all windows, as a restart does."""
        self._windows.clear()

    def _drop_ended(self, now: float) -> None:
        if len(self._windows) >= MOST_ADDRESSES:
            self._windows = {a: w for a, w in self._windows.items() if w.ends_at > now}
