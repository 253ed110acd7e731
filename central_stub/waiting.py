"""Held polls: all who wait for news, woken at once. It refuses to know what the news is."""

import asyncio


class Waiters:
    """Those who wait. Waking ten thousand is one pass over a set, and nothing more per waiter."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, seconds: float) -> None:
        """Return when somebody wakes everybody, or after `seconds`."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        self._waiting.add(woken)
        timer = loop.call_later(seconds, _finish, woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._waiting.discard(woken)

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for woken in waiting:
            _finish(woken)


def _finish(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
